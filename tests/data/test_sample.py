"""The sample volume lies right, and its split keeps its gaps."""

import csv
from itertools import pairwise

import numpy as np
import pytest

from alden_lite.data import assets
from alden_lite.data.sample import GAP, SPLIT, load_sample, split_slices


def test_the_sample_patient_lies_as_on_a_reading_station() -> None:
    volume = load_sample()
    assert volume.hu.shape == (133, 512, 512)
    assert volume.hu.dtype == np.int16
    assert volume.hu.min() == -1024  # padding is clipped
    assert volume.spacing_mm == pytest.approx((2.5, 0.703125, 0.703125))
    assert volume.labels is not None
    rows = list(csv.DictReader(assets.path("ct_structures").open()))
    ids = {row["structure"]: int(row["id"]) for row in rows}
    organs = ("liver", "spleen", "aorta", "vertebrae_T12", "heart")
    centre = {organ: np.argwhere(volume.labels == ids[organ]).mean(0) for organ in organs}
    assert centre["liver"][2] < centre["spleen"][2]  # the patient's right is on the left
    assert centre["vertebrae_T12"][1] > centre["aorta"][1]  # the back is below
    assert centre["liver"][0] < centre["heart"][0]  # slices run from the feet to the head
    assert 50 < volume.hu[volume.labels == ids["liver"]].mean() < 150


def test_the_split_keeps_a_gap_between_its_parts() -> None:
    blocks = sorted((first, last, part) for part, ranges in SPLIT.items() for first, last in ranges)
    for (_, end, part), (start, _, other) in pairwise(blocks):
        assert start - end >= GAP, f"{part} and {other} are neighbours"
    assert blocks[0][0] == 0
    assert blocks[-1][1] == 133
    with pytest.raises(ValueError, match="choose from"):
        split_slices("holdout")
