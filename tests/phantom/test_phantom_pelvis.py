"""The pelvis of the phantom: what lies where, in which HU, and that slices belong together."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from alden_lite.phantom import EXTENT_MM, LABEL_ID, LABELS, Patient, Phantom, render, render_stack

HU_RANGE = {
    "air": (-1001, -990),
    "subcutaneous_fat": (-115, -50),
    "visceral_fat": (-115, -50),
    "muscle": (30, 80),
    "cortical_bone": (400, 1200),
    "bone_marrow": (60, 400),
    "disc_cartilage": (40, 350),
    "small_vessel": (5, 220),
    "bladder": (0, 45),
    "prostate_uterus": (5, 120),
    "rectum": (-80, 120),
    "bowel": (-40, 300),
    "bowel_gas": (-1000, -500),
}
"""Means a radiologist would accept at a coarse matrix, where many pixels of thin parts are mixtures."""


def pelvis(seed: int, z_mm: float = 0.0, matrix: int = 160) -> Phantom:
    return render(Patient.draw(seed), "pelvis", z_mm=z_mm, matrix=matrix)


def centre(phantom: Phantom, label: str) -> np.ndarray:
    """(x, y) of a label in mm from the isocentre."""
    y, x = np.nonzero(phantom.labels.numpy() == LABEL_ID[label])
    return (np.array([x.mean(), y.mean()]) - (phantom.labels.shape[-1] - 1) / 2) * phantom.pixel_mm


@pytest.mark.parametrize("seed", range(4))
def test_hip_level_shows_bones_muscles_vessels_bladder_and_rectum_in_plausible_hu(seed: int) -> None:
    phantom = pelvis(seed)
    hu, labels = phantom.hu.numpy(), phantom.labels.numpy()
    present = {LABELS[i] for i in np.unique(labels)}
    assert present >= HU_RANGE.keys() - {"bowel", "bowel_gas", "prostate_uterus"}
    for name in present & HU_RANGE.keys():
        inside = labels == LABEL_ID[name]
        if inside.sum() >= 20:
            low, high = HU_RANGE[name]
            assert low < hu[inside].mean() < high, name


def test_bladder_lies_before_the_rectum_and_the_rectum_between_the_hips() -> None:
    for seed in range(3):
        phantom = pelvis(seed)
        bladder, rectum = centre(phantom, "bladder"), centre(phantom, "rectum")
        assert bladder[1] + 30 < rectum[1]
        assert abs(rectum[0] - bladder[0]) < 20


def test_femoral_head_is_a_ball_in_a_socket() -> None:
    phantom = pelvis(1, matrix=256)
    y, x = np.nonzero(phantom.labels.numpy() == LABEL_ID["disc_cartilage"])
    left = x > 128
    points = np.stack([x[left], y[left]], 1) * phantom.pixel_mm
    radius = np.linalg.norm(points - (points.min(0) + points.max(0)) / 2, axis=1)
    size = Patient.draw(1).size
    assert 22 * size < radius.mean() < 28 * size  # an adult's head has a radius of about 24 mm
    assert radius.std() < 2.0


def test_joint_gap_shrinks_away_from_the_middle_of_the_ball() -> None:
    patient = Patient.draw(1)
    radii = []
    for z in (0.0, 12.0, 20.0):
        phantom = render(patient, "pelvis", z_mm=z, matrix=192)
        _, x = np.nonzero(phantom.labels.numpy()[:, 96:] == LABEL_ID["disc_cartilage"])
        radii.append(np.ptp(x) * phantom.pixel_mm / 2)
    r = 26.0 * patient.size
    expected = [r, (r**2 - 12**2) ** 0.5, (r**2 - 20**2) ** 0.5]
    np.testing.assert_allclose(radii, expected, atol=4)


def test_both_hips_weigh_about_the_same() -> None:
    for seed in range(3):
        bone = np.isin(
            pelvis(seed).labels.numpy(), [LABEL_ID[name] for name in ("cortical_bone", "bone_marrow")]
        )
        right, left = bone[:, :80].sum(), bone[:, 80:].sum()
        assert abs(right - left) < 0.3 * (right + left)


def test_women_have_a_uterus_above_the_bladder_and_men_a_prostate_below() -> None:
    patient = Patient.draw(2)
    woman, man = replace(patient, female=True), replace(patient, female=False)

    def area(who: Patient, z: float) -> int:
        labels = render(who, "pelvis", z_mm=z, matrix=128).labels.numpy()
        return int((labels == LABEL_ID["prostate_uterus"]).sum())

    assert area(woman, 16) > area(man, 16) == 0
    assert area(man, -28) > 2 * area(woman, -28) > 0


def test_sacrum_and_bowel_appear_above_the_hips() -> None:
    for seed in range(3):
        labels = pelvis(seed, z_mm=50).labels.numpy()
        present = {LABELS[i] for i in np.unique(labels)}
        assert present >= {"bowel", "spinal_canal", "disc_cartilage", "bone_marrow"}


@pytest.mark.parametrize("z", [-20.0, 0.0, 30.0])
def test_neighbouring_slices_are_nearly_alike(z: float) -> None:
    stack = render_stack(Patient.draw(7), "pelvis", z_mm=(z, z + 2.5), matrix=160).labels.numpy()
    for name, least in (("muscle", 0.9), ("subcutaneous_fat", 0.9), ("bone_marrow", 0.85)):
        below, above = stack == LABEL_ID[name]
        assert 2 * (below & above).sum() / (below.sum() + above.sum()) > least, name
    assert (stack[0] != stack[1]).any()


@pytest.mark.parametrize(
    ("size", "fat", "visceral"), [(0.85, 6, 0.88), (0.85, 48, 1.2), (1.18, 6, 0.88), (1.18, 48, 1.2)]
)
def test_the_smallest_and_largest_patients_stay_in_their_skin_and_in_the_field(
    size: float, fat: float, visceral: float
) -> None:  # fmt: skip
    patient = replace(Patient.draw(4), size=size, fat_mm=fat, visceral=visceral)
    for z in EXTENT_MM["pelvis"]:
        labels = render(patient, "pelvis", z_mm=z, matrix=160).labels.numpy()
        outside = np.isin(labels, [LABEL_ID["air"], LABEL_ID["table"]])
        edge = np.concatenate([outside[0], outside[-1], outside[:, 0], outside[:, -1]])
        assert edge.all()
        parts, _ = ndimage.label(outside)
        around = ndimage.binary_dilation(parts == parts[0, 0])
        organs = ~np.isin(labels, [LABEL_ID[k] for k in ("air", "table", "skin", "subcutaneous_fat")])
        assert not (around & organs).any()


def test_a_patient_is_the_same_each_time_and_no_other() -> None:
    again, other = pelvis(5, matrix=96), pelvis(6, matrix=96)
    assert (pelvis(5, matrix=96).hu == again.hu).all()
    assert (other.labels != again.labels).float().mean() > 0.05
