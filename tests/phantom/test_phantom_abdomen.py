"""The abdomen: organs where they belong, with plausible HU, consistent along z, inside every body."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from alden_lite.phantom import LABEL_ID, LABELS, Patient, Phantom, render, render_stack
from alden_lite.phantom.abdomen import EXTENT_MM, build
from alden_lite.phantom.loops import Room, hollow, resampled, winding
from alden_lite.phantom.painting import Warp, paint
from alden_lite.phantom.shapes import Ellipsoid, Loft, Tube, ellipse
from alden_lite.phantom.torso import Torso

STILL = Warp(np.zeros((1, 3)), np.zeros((1, 2)), np.zeros((1, 2)), 0.0, (0.0, 0.0))
ENHANCED = (1, 4)  # seeds of patients with contrast medium
SEEDS = (0, *ENHANCED)  # 0 has none
ALWAYS = (
    "skin", "subcutaneous_fat", "muscle", "visceral_fat", "cortical_bone", "bone_marrow", "spinal_canal",
    "disc_cartilage", "lung", "lung_vessel", "aorta", "vena_cava", "esophagus", "liver", "liver_vessel",
    "spleen", "pancreas", "adrenal", "kidney_cortex", "kidney_medulla", "kidney_sinus", "stomach", "bowel",
    "bowel_gas", "small_vessel", "table",
)  # fmt: skip
# lowest and highest mean HU of a label's pixels, without and with contrast medium; edges are mixtures
PLAUSIBLE = {
    "subcutaneous_fat": ((-125, -75), (-125, -75)), "visceral_fat": ((-120, -70), (-120, -70)),
    "muscle": ((25, 65), (25, 75)), "liver": ((5, 75), (35, 140)), "spleen": ((30, 60), (85, 150)),
    "pancreas": ((0, 55), (50, 125)), "kidney_cortex": ((15, 50), (120, 250)), "aorta": ((25, 70), (90, 210)),
    "kidney_medulla": ((15, 50), (100, 200)), "kidney_sinus": ((-90, 10), (-90, 20)),
    "vena_cava": ((25, 60), (90, 200)), "bowel": ((-20, 120), (-20, 140)), "bowel_gas": ((-970, -700),) * 2,
    "lung": ((-900, -600),) * 2, "cortical_bone": ((400, 1100),) * 2, "bone_marrow": ((80, 330),) * 2,
    "spinal_canal": ((-30, 40),) * 2,
}  # fmt: skip


@cache
def slices(seed: int) -> Phantom:
    return render_stack(Patient.draw(seed), "abdomen", z_mm=range(-60, 81, 20), matrix=144)


def where(phantom: Phantom, label: str) -> np.ndarray:
    """Pixels (K, 3) of a label as (x, y, z) in mm."""
    k, i, j = np.nonzero(phantom.labels.numpy() == LABEL_ID[label])
    half = (phantom.labels.shape[-1] - 1) / 2
    return np.stack(
        [(j - half) * phantom.pixel_mm, (i - half) * phantom.pixel_mm, np.array(phantom.z_mm)[k]], 1
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_every_patient_has_every_organ(seed: int) -> None:
    present = {LABELS[k] for k in np.unique(slices(seed).labels)}
    assert set(ALWAYS) - present == set()


@pytest.mark.parametrize("seed", ENHANCED)
def test_a_slice_between_dome_and_lower_poles_shows_eighteen_labels(seed: int) -> None:
    phantom = slices(seed)
    counts = {z: len(np.unique(labels)) for z, labels in zip(phantom.z_mm, phantom.labels, strict=True)}
    assert min(n for z, n in counts.items() if -40 <= z <= 60) >= 18


@pytest.mark.parametrize("seed", SEEDS)
def test_every_label_has_a_plausible_mean(seed: int) -> None:
    phantom, enhanced = slices(seed), Patient.draw(seed).contrast
    for label, ranges in PLAUSIBLE.items():
        low, high = ranges[enhanced]
        mean = float(phantom.hu[phantom.labels == LABEL_ID[label]].mean())
        assert low < mean < high, f"{label}: {mean:.0f} HU"


@pytest.mark.parametrize("seed", SEEDS)
def test_tissue_is_never_flat(seed: int) -> None:
    phantom = slices(seed)
    for label in ("liver", "spleen", "muscle", "subcutaneous_fat"):
        values = phantom.hu[phantom.labels == LABEL_ID[label]]
        spread = float(np.subtract(*np.percentile(values, [75, 25]))) / 1.35
        assert 3 < spread < 25, f"{label}: {spread:.1f} HU"


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_lie_on_their_sides(seed: int) -> None:
    phantom = slices(seed)
    middle = {label: where(phantom, label).mean(0) for label in ALWAYS}
    spine_x, spine_y, _ = middle["spinal_canal"]
    for right in ("liver", "vena_cava"):
        assert middle[right][0] < spine_x - 5
    for left in ("spleen", "stomach", "aorta"):
        assert middle[left][0] > spine_x + 2
    assert middle["aorta"][0] > middle["vena_cava"][0] + 10
    assert middle["aorta"][1] < spine_y - 20  # in front of the spine
    kidneys = where(phantom, "kidney_cortex")
    right, left = kidneys[kidneys[:, 0] < spine_x], kidneys[kidneys[:, 0] > spine_x]
    assert min(len(right), len(left)) > 0.3 * len(kidneys)
    assert np.hypot(*(right.mean(0) - left.mean(0))[:2]) > 80
    assert middle["lung"][2] > 20 > -20 > middle["bowel"][2]  # lungs above, bowel below


@pytest.mark.parametrize("seed", ENHANCED)
def test_neighbouring_slices_are_neighbours(seed: int) -> None:
    compared = []
    for z in (-30.0, 40.0):
        stack = render_stack(Patient.draw(seed), "abdomen", z_mm=(z, z + 2.5), matrix=144)
        for label in ("liver", "spleen", "muscle", "subcutaneous_fat", "kidney_cortex"):
            a, b = stack.labels.numpy() == LABEL_ID[label]
            if min(a.sum(), b.sum()) * stack.pixel_mm**2 > 2500:
                dice = 2 * (a & b).sum() / (a.sum() + b.sum())
                assert dice > (0.8 if label == "kidney_cortex" else 0.9), f"{label} at {z}: {dice:.2f}"
                compared.append(label)
    assert {"liver", "spleen", "kidney_cortex"} <= set(compared)


@pytest.mark.parametrize(
    ("size", "fat_mm", "visceral"),
    [(0.85, 6.0, 0.88), (0.85, 48.0, 1.2), (1.18, 6.0, 1.2), (1.18, 48.0, 0.88)],
)
def test_the_smallest_and_the_largest_patients_hold_their_organs(
    size: float, fat_mm: float, visceral: float
) -> None:
    patient = replace(Patient.draw(4), size=size, fat_mm=fat_mm, visceral=visceral)
    stack = render_stack(patient, "abdomen", z_mm=(-70.0, 0.0, 70.0), matrix=144)
    labels = stack.labels.numpy()
    outside = np.isin(labels, [LABEL_ID[name] for name in ("air", "skin", "table")])
    near = outside.copy()
    for axis in (1, 2):
        for step in (-1, 1):
            near |= np.roll(outside, step, axis)
    organs = np.isin(
        labels, [LABEL_ID[name] for name in ("liver", "spleen", "stomach", "bowel", "kidney_cortex", "lung")]
    )
    assert organs.any((1, 2)).all()
    assert not (organs & near).any()
    bare = (labels == LABEL_ID["air"]) & (np.roll(labels, 1, 1) == LABEL_ID["muscle"])  # flesh without skin
    assert not bare.any()
    frame = np.r_[labels[:, 0].ravel(), labels[:, :, 0].ravel(), labels[:, :, -1].ravel()]
    assert set(np.unique(frame)) <= {LABEL_ID["air"], LABEL_ID["table"]}


def test_the_duodenum_does_not_cover_the_gallbladder() -> None:
    checked = 0
    for seed in range(4):
        patient = Patient.draw(seed)
        structures = build(patient)
        sacs = [part.shape for part in structures if part.label == "gallbladder"]
        if not sacs:
            continue
        z = max(
            np.arange(-25.0, 20.0, 3.0), key=lambda height: max([*map(_area, sacs[0].section(height)), 0])
        )
        _, labels = paint(structures, z_mm=z, matrix=200, pixel_mm=2.0, warp=STILL, seed=seed)
        seen = 4.0 * np.isin(labels, [LABEL_ID["gallbladder"], LABEL_ID["calcification"]]).sum()
        disk = max(map(_area, sacs[0].section(z)))
        assert seen > 0.8 * disk, f"seed {seed}: {seen:.0f} of {disk:.0f} mm2"
        checked += 1
    assert checked >= 3


def _area(curve: np.ndarray) -> float:
    x, y = curve.T
    return abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2


def test_the_same_seed_builds_the_same_bytes_and_another_does_not() -> None:
    first, again = build(Patient.draw(3)), build(Patient.draw(3))
    one, two = (render(Patient.draw(seed), "abdomen", z_mm=10.0, matrix=64).hu for seed in (3, 5))
    assert len(first) == len(again)
    for a, b in zip(first, again, strict=True):
        for p, q in zip(a.shape.section(5.0), b.shape.section(5.0), strict=True):
            np.testing.assert_array_equal(p, q)
    assert float((one - two).abs().mean()) > 20


def test_the_table_of_an_organ_is_held_back_by_the_cavity() -> None:
    torso = Torso.of(Patient.draw(1))
    wide = {z: [(-400, -60), (-20, -60), (-20, 20), (-400, 20)] for z in (0, 40)}
    organ = torso.organ(wide, np.random.default_rng(0), cap_mm=0, mm=0)
    assert organ.section(20)[0][:, 0].min() > torso.cavity.section(20)[0][:, 0].min()
    assert EXTENT_MM[0] >= torso.cavity.low and EXTENT_MM[1] <= torso.cavity.high


def test_a_resampled_course_keeps_its_ends_and_its_step() -> None:
    t = np.linspace(0, np.pi, 9)
    rows = np.stack([50 * np.cos(t), 50 * np.sin(t), 0 * t, 3 + t], 1)
    fine = resampled(rows, 5.0)
    np.testing.assert_allclose(fine[[0, -1]], rows[[0, -1]], atol=1e-9)
    steps = np.linalg.norm(np.diff(fine[:, :3], axis=0), axis=1)
    assert steps == pytest.approx(50 * np.pi / (len(fine) - 1), rel=0.01)
    assert np.hypot(fine[:, 0], fine[:, 1]) == pytest.approx(50, rel=0.015)


def test_room_is_measured_to_walls_and_obstacles() -> None:
    walls = Loft({0.0: ellipse(0, 0, 60, 60, n=200)}, dense=True)
    room = Room.between(walls, [Ellipsoid((0, 0, 0), (20, 20, 500))], low=(-80, -80, -40), high=(80, 80, 40),
                        where=lambda x, y, z: z > -1000)  # fmt: skip
    clear = room.clearance(np.array([(40.0, 0, 0), (0, -30, 0), (0, 0, 0), (75, 0, 0), (900, 0, 0)]))
    assert clear[:2] == pytest.approx([20, 10], abs=4)
    assert not clear[2:].any()


def test_winding_tubes_touch_neither_obstacles_nor_each_other() -> None:
    walls = Loft({0.0: ellipse(0, 0, 90, 70, n=200)}, dense=True)
    pole = Ellipsoid((20, 0, 0), (15, 15, 500))
    room = Room.between(walls, [pole], low=(-95, -75, -50), high=(95, 75, 50), where=lambda x, y, z: x < 70)
    tubes = list(winding(np.random.default_rng(0), room, radius=(8, 11), gap_mm=1.0))
    assert len(tubes) >= 5
    assert sum(np.linalg.norm(np.diff(tube.path, axis=0), axis=1).sum() for tube in tubes) > 1000
    for n, tube in enumerate(tubes):
        assert (np.hypot(tube.path[:, 0] - 20, tube.path[:, 1]) > 15 + tube.radius - 4).all()
        for other in tubes[n + 1 :]:
            distance = np.linalg.norm(tube.path[:, None] - other.path[None], axis=2)
            assert (distance > tube.radius[:, None] + other.radius[None] + 0.99).all()


def test_stretches_of_a_tube_share_a_lumen_and_gas_floats() -> None:
    path = np.stack([np.linspace(-60, 60, 25), np.zeros(25), np.zeros(25)], 1)
    tube = Tube(path, np.full(25, 14.0), smooth=False)
    parts = hollow(Patient.draw(1), np.random.default_rng(0), [tube], contents={"mixed": 1.0}, stretch_mm=40,
                   wall_mm=2.5, inside=())  # fmt: skip
    assert len(parts) >= 5  # a wall, and fluid and gas of two stretches at least
    hu, labels = paint(parts, z_mm=0.0, matrix=160, pixel_mm=1.0, warp=STILL, seed=0)
    assert hu[80, 24:136].max() < 60  # no wall across: gas or fluid all along the axis
    rows = np.arange(160)[:, None] * np.ones((1, 160))
    gas = labels == LABEL_ID["bowel_gas"]
    assert gas.sum() > 100
    for column in range(30, 130):
        fluid = (labels[:, column] == LABEL_ID["bowel"]) & (hu[:, column] < 60)
        if gas[:, column].any() and fluid.any():
            assert rows[gas[:, column], column].mean() < rows[fluid, column].mean()
