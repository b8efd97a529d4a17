"""The shoulders: two humeral heads, wide and opaque from side to side, the same organs in every patient."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from alden_lite.phantom import EXTENT_MM, LABEL_ID, LABELS, Patient, Phantom, render, render_stack

SEEDS = (2, 3, 8)
HU_RANGE = {
    "subcutaneous_fat": (-125, -60), "muscle": (30, 80), "visceral_fat": (-120, -40), "lung": (-900, -650),
    "cortical_bone": (380, 950), "bone_marrow": (80, 420), "airway": (-950, -400), "small_vessel": (10, 220),
    "spinal_canal": (-60, 60), "table": (-960, -850),
}  # fmt: skip


@lru_cache(maxsize=16)
def slice_of(seed: int, z: float) -> Phantom:
    return render(Patient.draw(seed), "shoulders", z_mm=z, matrix=160)


def mask(phantom: Phantom, *names: str) -> np.ndarray:
    return np.isin(phantom.labels.numpy(), [LABEL_ID[name] for name in names])


@pytest.mark.parametrize("seed", SEEDS)
def test_every_slice_shows_its_tissues_at_their_hu(seed: int) -> None:
    for z in (-20, 0):
        phantom = slice_of(seed, z)
        for name, (low, high) in HU_RANGE.items():
            where = mask(phantom, name)
            assert where.any(), (name, z)
            assert where.sum() < 15 or low < phantom.hu.numpy()[where].mean() < high, (name, z)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_humeral_head_stands_on_either_side(seed: int) -> None:
    """Most bone lies 120 to 220 mm from the midline, about as much left as right."""
    phantom = slice_of(seed, 0)
    x = np.nonzero(mask(phantom, "cortical_bone", "bone_marrow"))[1]
    middle = np.nonzero(mask(phantom, "spinal_canal"))[1].mean()
    mm = (x - middle) * phantom.pixel_mm
    left, right = ((mm > 120) & (mm < 220)).sum(), ((mm < -120) & (mm > -220)).sum()
    assert 0.75 < left / right < 1.33
    assert left + right > 0.4 * len(mm)


def test_rays_from_side_to_side_meet_more_than_twice_the_matter() -> None:
    """Water-equivalent length, the reason for streaks: sideways against front to back."""
    phantom = slice_of(8, 0)
    water = np.where(mask(phantom, "air", "table"), 0, 1 + phantom.hu.numpy() / 1000) * phantom.pixel_mm
    assert np.sort(water.sum(1))[-20:].mean() > 330
    assert water.sum(1).max() > 2 * water.sum(0).max()


def test_shoulders_are_wider_than_the_chest() -> None:
    for seed in SEEDS:
        widths = []
        for region in ("shoulders", "chest"):
            phantom = render(Patient.draw(seed), region, matrix=64)
            widths.append((~mask(phantom, "air", "table")).any(0).sum() * phantom.pixel_mm)
        assert widths[0] > 1.12 * widths[1]


def test_neighbouring_slices_show_the_same_organs() -> None:
    stack = render_stack(Patient.draw(3), "shoulders", z_mm=(-12.5, -10.0), matrix=160).labels.numpy()
    for names in (("lung",), ("muscle",), ("subcutaneous_fat",), ("cortical_bone", "bone_marrow")):
        one, two = np.isin(stack, [LABEL_ID[name] for name in names])
        dice = 2 * (one & two).sum() / (one.sum() + two.sum())
        assert dice > 0.8, (names, dice)


@pytest.mark.parametrize(("size", "fat_mm"), [(0.85, 6.0), (1.18, 48.0)])
def test_the_smallest_and_the_largest_fit_the_field_of_view(size: float, fat_mm: float) -> None:
    patient = replace(Patient.draw(2), size=size, fat_mm=fat_mm)
    for z in EXTENT_MM["shoulders"]:
        labels = render(patient, "shoulders", z_mm=z, matrix=96).labels.numpy()
        border = {LABELS[i] for i in np.unique(np.r_[labels[0], labels[-1], labels[:, 0], labels[:, -1]])}
        assert border <= {"air", "table"}
        assert (labels == LABEL_ID["muscle"]).sum() > 300


def test_the_apex_of_the_lung_ends_within_the_region() -> None:
    low, high = slice_of(3, -30), slice_of(3, 30)
    assert mask(low, "lung").sum() * low.pixel_mm**2 > 4000
    assert not mask(high, "lung").any()
