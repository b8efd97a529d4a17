"""Ten organ groups that the sample's labels and the phantom's have in common. Used from chapter 04 on."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import torch

from alden_lite.data import assets

if TYPE_CHECKING:
    pass

__all__ = ["GROUPS", "phantom_groups", "sample_groups"]

GROUPS = ("lung", "heart", "vessel", "liver", "spleen", "kidney", "stomach", "bowel", "bone", "muscle")
"""Organ groups; group g of a label map has the number 1 + GROUPS.index(g), 0 is none of them."""

Array = np.ndarray | torch.Tensor

# Group: how the names of TotalSegmentator's structures begin.
_SAMPLE_PREFIXES = {
    "lung": ("lung_",),
    "heart": ("heart", "atrial_appendage"),
    "vessel": (
        *("aorta", "superior_vena_cava", "inferior_vena_cava", "portal_vein", "pulmonary_vein"),
        *("brachiocephalic_", "subclavian_artery", "common_carotid_artery", "iliac_artery", "iliac_vena"),
    ),
    "liver": ("liver",),
    "spleen": ("spleen",),
    "kidney": ("kidney_left", "kidney_right"),
    "stomach": ("stomach",),
    "bowel": ("small_bowel", "duodenum", "colon"),
    "bone": (
        *("sacrum", "vertebrae_", "rib_", "sternum", "scapula", "clavicula", "humerus", "hip_", "femur"),
        *("skull", "carpal"),
    ),
    "muscle": ("autochthon", "iliopsoas", "gluteus"),
}

# The same for the phantom. TotalSegmentator's lobes hold their vessels and nodules too, its kidneys no cysts.
_PHANTOM_LABELS = {
    "lung": ("lung", "lung_vessel", "nodule"),
    "heart": ("heart_myocardium", "heart_left", "heart_right"),
    "vessel": ("aorta", "vena_cava", "pulmonary_artery"),
    "liver": ("liver", "liver_vessel", "liver_lesion"),
    "spleen": ("spleen",),
    "kidney": ("kidney_cortex", "kidney_medulla"),
    "stomach": ("stomach",),
    "bowel": ("bowel", "bowel_gas", "rectum"),
    "bone": ("cortical_bone", "bone_marrow"),
    "muscle": ("muscle",),
}


def sample_groups(labels: Array) -> np.ndarray:
    """Organ groups of the sample volume's labels.

    Structures in no group are 0: pancreas, gallbladder, airway, oesophagus, spinal cord, cartilage, cysts.
    Muscle is the back's, the iliopsoas and the gluteus only, since TotalSegmentator labels no other.

    Args:
        labels: TotalSegmentator's ids, any shape, as in `data.load_sample().labels`.

    Returns:
        uint8 of the same shape, 0 to 10.

    Raises:
        ValueError: for labels that are not whole numbers from 0 to 255.
        assets.AssetError: if the asset `ct_structures`, which names the ids, is not there.
    """
    with assets.path("ct_structures").open(encoding="utf-8", newline="") as file:
        names = {int(row["id"]): row["structure"] for row in csv.DictReader(file)}
    table = np.zeros(256, np.uint8)
    for number, group in enumerate(GROUPS, start=1):
        table[[i for i, name in names.items() if name.startswith(_SAMPLE_PREFIXES[group])]] = number
    return table[whole_numbers(labels, "labels")]


def phantom_groups(labels: Array) -> np.ndarray:
    """Organ groups of a phantom's labels.

    Muscle is all muscle, which is more than on the sample volume. The kidney's sinus, cysts, discs and the
    airway are in no group. The phantom labels gas in the stomach as `bowel_gas`: it counts as bowel.

    Args:
        labels: numbers of `phantom.LABELS`, any shape.

    Returns:
        uint8 of the same shape, 0 to 10.

    Raises:
        ValueError: for labels that are not whole numbers from 0 to 255.
    """
    from alden_lite.phantom import LABEL_ID

    table = np.zeros(256, np.uint8)
    for number, group in enumerate(GROUPS, start=1):
        table[[LABEL_ID[name] for name in _PHANTOM_LABELS[group]]] = number
    return table[whole_numbers(labels, "labels")]


def whole_numbers(values: Array, name: str) -> np.ndarray:
    """The values as whole numbers from 0 to 255, uint8."""
    array = np.asarray(values)
    whole = array.size == 0 or (array.min() >= 0 and array.max() <= 255 and (array % 1 == 0).all())
    if not whole:
        raise ValueError(f"{name} are whole numbers from 0 to 255, got {array.min()} to {array.max()}")
    return array.astype(np.uint8)
