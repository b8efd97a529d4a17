"""The head of the phantom: skull around brain, grey around white, ventricles that widen with age."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from alden_lite.phantom import EXTENT_MM, LABEL_ID, LABELS, Patient, Phantom, head, render, render_stack

HU_RANGE = {
    "brain_grey": (32, 41),
    "brain_white": (25, 33),
    "csf": (0, 30),
    "cortical_bone": (600, 1500),
    "bone_marrow": (300, 900),
    "muscle": (20, 120),
    "small_vessel": (30, 110),
    "hemorrhage": (45, 80),
    "calcification": (50, 500),
}
BRAIN = [LABEL_ID[name] for name in ("brain_grey", "brain_white", "csf")]


def slice_at(seed: int, z_mm: float = 0.0, matrix: int = 192) -> Phantom:
    return render(Patient.draw(seed), "head", z_mm=z_mm, matrix=matrix)


@pytest.mark.parametrize("seed", range(4))
def test_grey_white_and_fluid_lie_in_a_skull_in_plausible_hu(seed: int) -> None:
    phantom = slice_at(seed)
    hu, labels = phantom.hu.numpy(), phantom.labels.numpy()
    present = {LABELS[i] for i in np.unique(labels)}
    assert present >= {"skin", "cortical_bone", "bone_marrow", "brain_grey", "brain_white", "csf"}
    for name in present & HU_RANGE.keys():
        inside = labels == LABEL_ID[name]
        if inside.sum() >= 20:
            low, high = HU_RANGE[name]
            assert low < hu[inside].mean() < high, name


def test_skull_is_closed_around_the_brain() -> None:
    for z in (*EXTENT_MM["head"], 0.0):
        labels = slice_at(1, z).labels.numpy()
        bone = np.isin(labels, [LABEL_ID[name] for name in ("cortical_bone", "bone_marrow")])
        assert ndimage.binary_fill_holes(bone)[np.isin(labels, BRAIN)].all()


def test_grey_matter_is_brighter_than_white_by_less_than_ten_hu() -> None:
    phantom = slice_at(2, z_mm=10, matrix=384)
    hu, labels = phantom.hu.numpy(), phantom.labels.numpy()
    grey = ndimage.binary_erosion(labels == LABEL_ID["brain_grey"], iterations=2)
    white = ndimage.binary_erosion(labels == LABEL_ID["brain_white"], iterations=6)
    assert 6 < hu[grey].mean() - hu[white].mean() < 10


def test_white_matter_is_never_flat() -> None:
    phantom = slice_at(11, z_mm=33, matrix=384)
    white = ndimage.binary_erosion(phantom.labels.numpy() == LABEL_ID["brain_white"], iterations=8)
    assert 1.0 < phantom.hu.numpy()[white].std() < 4.0


def test_ventricles_widen_and_the_brain_shrinks_with_age() -> None:
    patient = Patient.draw(7)
    fluid = [
        int((render(replace(patient, age=age), "head", z_mm=12, matrix=160).labels == LABEL_ID["csf"]).sum())
        for age in (35.0, 60.0, 84.0)
    ]
    assert fluid[0] < fluid[1] < fluid[2]


def test_both_hemispheres_are_about_as_large() -> None:
    for seed in range(3):
        labels = slice_at(seed, z_mm=30).labels.numpy()
        _, x = np.nonzero(np.isin(labels, BRAIN))
        middle = (x.min() + x.max()) / 2
        assert abs((x < middle).mean() - 0.5) < 0.05


def test_heads_are_scanned_without_contrast_medium() -> None:
    patient = Patient.draw(8)
    native, enhanced = (
        render(replace(patient, contrast=contrast), "head", z_mm=5, matrix=128).hu
        for contrast in (False, True)
    )
    assert (native == enhanced).all()


def test_some_heads_bleed_and_most_do_not() -> None:
    bleeding = [any(s.label == "hemorrhage" for s in head.build(Patient.draw(seed))) for seed in range(10)]
    assert 0 < sum(bleeding) < 5


@pytest.mark.parametrize("z", [-15.0, 0.0, 20.0])
def test_neighbouring_slices_are_nearly_alike(z: float) -> None:
    stack = render_stack(Patient.draw(3), "head", z_mm=(z, z + 2.5), matrix=192).labels.numpy()
    for name, least in (("brain_white", 0.88), ("brain_grey", 0.75), ("bone_marrow", 0.85)):
        below, above = stack == LABEL_ID[name]
        assert 2 * (below & above).sum() / (below.sum() + above.sum()) > least, name
    assert (stack[0] != stack[1]).any()


@pytest.mark.parametrize(("size", "fat"), [(0.85, 6.0), (0.85, 48.0), (1.18, 6.0), (1.18, 48.0)])
def test_the_smallest_and_largest_heads_stay_in_the_field(size: float, fat: float) -> None:
    patient = replace(Patient.draw(4), size=size, fat_mm=fat)
    labels = render(patient, "head", z_mm=0, matrix=128).labels.numpy()
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    assert (edge == LABEL_ID["air"]).all()
    assert np.isin(labels, BRAIN).sum() > 0.2 * labels.size


def test_skulls_differ_between_patients() -> None:
    ratios = []
    for seed in range(5):
        y, x = np.nonzero(np.isin(slice_at(seed, matrix=128).labels.numpy(), BRAIN))
        ratios.append(np.ptp(x) / np.ptp(y))
    assert 0.65 < min(ratios) < max(ratios) < 0.95
    assert max(ratios) - min(ratios) > 0.03
