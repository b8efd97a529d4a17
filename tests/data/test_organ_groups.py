"""Organ groups of the sample's structures and of the phantom's labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alden_lite.data import assets
from alden_lite.data.organs import GROUPS, phantom_groups, sample_groups
from alden_lite.phantom import LABEL_ID, LABELS

NUMBER = {name: number for number, name in enumerate(GROUPS, start=1)}


def structures() -> dict[str, int]:
    """Ids of the sample volume's structures."""
    lines = assets.path("ct_structures").read_text(encoding="utf-8").split()[1:]
    return {line.split(",")[2]: int(line.split(",")[3]) for line in lines}


def test_there_are_ten_groups_and_their_numbers_start_at_one() -> None:
    assert len(GROUPS) == len(set(GROUPS)) == 10
    ids = structures()
    named = ["lung_middle_lobe_right", "heart", "aorta", "liver", "spleen", "kidney_left", "stomach", "colon"]
    named += ["rib_left_1", "autochthon_left"]
    found = sample_groups(np.array([ids[name] for name in named]))
    assert found.dtype == np.uint8
    assert found.tolist() == list(range(1, 11))


def test_every_structure_of_the_sample_is_in_its_group_or_in_none() -> None:
    ids = structures()
    found = dict(zip(ids, sample_groups(np.array(list(ids.values()))), strict=True))
    members = {group: {name for name, number in found.items() if number == NUMBER[group]} for group in GROUPS}
    assert {group: len(names) for group, names in members.items()} == {
        "lung": 5,
        "heart": 2,
        "vessel": 16,
        "liver": 1,
        "spleen": 1,
        "kidney": 2,
        "stomach": 1,
        "bowel": 3,
        "bone": 63,  # 25 vertebrae, sacrum, 24 ribs, sternum, 10 of limbs and girdles, skull, carpal
        "muscle": 10,
    }
    assert {"iliac_vena_left", "portal_vein_and_splenic_vein", "pulmonary_vein"} <= members["vessel"]
    assert {"femur_left", "skull", "vertebrae_T12", "sternum"} <= members["bone"]
    assert {name for name, number in found.items() if number == 0} == {
        *("gallbladder", "pancreas", "adrenal_gland_right", "adrenal_gland_left", "esophagus", "trachea"),
        *("thyroid_gland", "urinary_bladder", "prostate", "kidney_cyst_left", "kidney_cyst_right"),
        *("spinal_cord", "brain", "costal_cartilages"),
    }


def test_the_phantoms_labels_have_the_same_groups() -> None:
    found = dict(zip(LABELS, phantom_groups(torch.arange(len(LABELS))), strict=True))
    assert found["lung_vessel"] == found["nodule"] == NUMBER["lung"]
    assert found["heart_left"] == found["heart_right"] == found["heart_myocardium"] == NUMBER["heart"]
    assert found["aorta"] == found["vena_cava"] == found["pulmonary_artery"] == NUMBER["vessel"]
    assert found["liver_lesion"] == found["liver_vessel"] == NUMBER["liver"]
    assert found["kidney_cortex"] == found["kidney_medulla"] == NUMBER["kidney"]
    assert found["bowel_gas"] == found["rectum"] == NUMBER["bowel"]
    assert found["cortical_bone"] == found["bone_marrow"] == NUMBER["bone"]
    for name in ("spleen", "stomach", "bowel", "muscle"):
        assert found[name] == NUMBER[name]
    assert not any(found[name] for name in ("air", "skin", "airway", "kidney_cyst", "kidney_sinus", "table"))
    assert sum(number > 0 for number in found.values()) == 22


def test_a_label_map_keeps_its_shape() -> None:
    labels = np.full((2, 3, 4), LABEL_ID["liver"])
    assert phantom_groups(labels).tolist() == np.full((2, 3, 4), NUMBER["liver"]).tolist()
    assert sample_groups(np.zeros((2, 3), np.int64)).shape == (2, 3)


@pytest.mark.parametrize("label", [-1, 256, 0.5, np.nan])
def test_labels_that_are_no_labels_are_refused(label: float) -> None:
    for groups in (sample_groups, phantom_groups):
        with pytest.raises(ValueError, match="labels are whole numbers from 0 to 255"):
            groups(np.array([[0, label]]))
