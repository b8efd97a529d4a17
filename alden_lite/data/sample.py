"""The sample patient and how its slices are split. Taught in chapter 08.

One patient is one patient: slices are split by slabs along z, with gaps, so that no test slice has a training
slice for a neighbour.
"""

from __future__ import annotations

import math

from alden_lite.data import assets
from alden_lite.data.volume import Volume, load_nifti

__all__ = ["GAP", "GAP_MM", "SPLIT", "development_slices", "load_sample", "split_slices"]

GAP = 5
"""Slices left out between two blocks of the split of the sample volume."""

GAP_MM = 12.5
"""The same in mm, for volumes of other spacing."""

SPLIT: dict[str, tuple[tuple[int, int], ...]] = {
    "train": ((0, 15), (35, 60), (77, 82), (102, 133)),
    "validation": ((65, 72),),
    "test": ((20, 30), (87, 97)),
}
"""Blocks of slices [first, last) of the sample volume, caudal to cranial. Fixed: numbers depend on it."""


def split_slices(part: str) -> list[int]:
    """Slice numbers of the sample volume in one part of the split.

    Raises:
        ValueError: on a part other than train, validation, test.

    >>> len(split_slices("test"))
    20
    """
    if part not in SPLIT:
        raise ValueError(f"unknown part {part!r}: choose from {sorted(SPLIT)}")
    return [z for first, last in SPLIT[part] for z in range(first, last)]


def development_slices(volume: Volume, part: str) -> list[int]:
    """Slice numbers of a development patient in one part of its split, "train" or "validation".

    The middle tenth is for validation; what is nearer to it than `GAP_MM` belongs to neither.

    Raises:
        ValueError: on another part.

    >>> import numpy as np
    >>> volume = Volume("patient", np.zeros((50, 2, 2), dtype=np.int16), (5.0, 0.7, 0.7))
    >>> development_slices(volume, "validation"), len(development_slices(volume, "train"))
    ([22, 23, 24, 25, 26], 39)
    """
    depth = len(volume.hu)
    count = max(depth // 10, 1)
    first = (depth - count) // 2
    validation = range(first, first + count)
    if part == "validation":
        return list(validation)
    if part != "train":
        raise ValueError(f"unknown part {part!r} of a development patient: choose train or validation")
    gap = math.ceil(GAP_MM / volume.spacing_mm[0])
    near = range(first - gap, first + count + gap)
    return [z for z in range(depth) if z not in near]


def load_sample() -> Volume:
    """The sample patient, LIDC-IDRI-0001: 133 slices of 512 x 512 with TotalSegmentator's organ labels.

    Raises:
        assets.AssetError: if the files are not in the cache (see `python -m alden_lite assets`).
    """
    volume = load_nifti(assets.path("ct"), labels=assets.path("ct_labels"))
    return Volume("LIDC-IDRI-0001", volume.hu, volume.spacing_mm, volume.labels)
