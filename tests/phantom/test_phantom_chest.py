"""The chest: organs where they belong, ribs that slope, trees that taper and fill the lung."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from alden_lite.phantom import EXTENT_MM, LABEL_ID, LABELS, Patient, Phantom, chest, render, render_stack
from alden_lite.phantom.lungs import EXPONENT, branching
from alden_lite.phantom.ribs import on_wall, ribs
from alden_lite.phantom.shapes import Loft, Tube, ellipse

SEEDS = (4, 8, 13)  # two women and a man, native and contrast, lean and stout
HU_RANGE = {
    "subcutaneous_fat": (-125, -70), "muscle": (30, 80), "visceral_fat": (-160, -60),
    "cortical_bone": (350, 950), "bone_marrow": (80, 420), "lung": (-920, -740), "airway": (-900, -250),
    "lung_vessel": (-450, 150),
    "heart_myocardium": (0, 130), "heart_left": (20, 220), "heart_right": (20, 220), "aorta": (15, 220),
    "vena_cava": (15, 400), "pulmonary_artery": (20, 220), "esophagus": (-250, 110),
    "spinal_canal": (-60, 60), "disc_cartilage": (40, 280), "breast": (-125, -60), "table": (-960, -850),
}  # fmt: skip


@lru_cache(maxsize=32)
def slice_of(seed: int, z: float) -> Phantom:
    return render(Patient.draw(seed), "chest", z_mm=z, matrix=160)


def mask(phantom: Phantom, *names: str) -> np.ndarray:
    return np.isin(phantom.labels.numpy(), [LABEL_ID[name] for name in names])


def left_of_midline(phantom: Phantom, name: str) -> float:
    """Mean x of a label in mm, relative to the spinal canal."""
    x = np.nonzero(mask(phantom, name))[-1].mean() - np.nonzero(mask(phantom, "spinal_canal"))[-1].mean()
    return float(x * phantom.pixel_mm)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_level_shows_its_organs(seed: int) -> None:
    everywhere = {"skin", "subcutaneous_fat", "muscle", "visceral_fat", "cortical_bone", "bone_marrow",
                  "lung", "lung_vessel", "airway", "aorta", "esophagus", "spinal_canal", "table"}  # fmt: skip
    levels = {
        70: {"vena_cava"},
        15: {"pulmonary_artery", "vena_cava"},
        -45: {"heart_left", "heart_right", "heart_myocardium"},
    }
    for z, own in levels.items():
        present = {LABELS[i] for i in np.unique(slice_of(seed, z).labels.numpy())}
        assert present >= everywhere | own, (z, (everywhere | own) - present)


@pytest.mark.parametrize("seed", SEEDS)
def test_tissues_have_the_hu_of_their_kind(seed: int) -> None:
    for z in (70, 15, -45):
        phantom = slice_of(seed, z)
        hu = phantom.hu.numpy()
        for name, (low, high) in HU_RANGE.items():
            where = mask(phantom, name)
            if where.sum() > 15:
                assert low < hu[where].mean() < high, (name, z, hu[where].mean())


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_mirrored(seed: int) -> None:
    """The heart and the descending aorta lie left, the superior vena cava right, the liver's dome right."""
    assert (
        left_of_midline(slice_of(seed, -45), "heart_left")
        > left_of_midline(slice_of(seed, -45), "heart_right") + 8
    )
    assert left_of_midline(slice_of(seed, -70), "aorta") > 3
    assert left_of_midline(slice_of(seed, 40), "vena_cava") < -10
    low = slice_of(seed, -80)
    assert mask(low, "liver").sum() < 50 or left_of_midline(low, "liver") < -25


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_stay_inside_the_ribs(seed: int) -> None:
    """Between the skin and any organ of the cavity there are 12 mm of wall at least."""
    for z in (70, 15, -45):
        phantom = slice_of(seed, z)
        outside = np.argwhere(mask(phantom, "air", "skin", "table"))
        organs = mask(
            phantom, "heart_left", "heart_right", "aorta", "esophagus", "pulmonary_artery", "lung_vessel"
        )
        edge = outside[np.linspace(0, len(outside) - 1, 3000).astype(int)]
        apart = np.linalg.norm(np.argwhere(organs)[:, None] - edge[None], axis=2).min() * phantom.pixel_mm
        assert apart > 12, (z, apart)


def test_contrast_slices_show_18_labels_and_more() -> None:
    for seed in (1, 8, 10):
        patient = replace(Patient.draw(seed), contrast=True)
        for z in (15, -25):
            labels = render(patient, "chest", z_mm=z, matrix=256).labels
            assert len(labels.unique()) >= 18, (seed, z)


def test_neighbouring_slices_show_the_same_organs() -> None:
    stack = render_stack(Patient.draw(4), "chest", z_mm=(-42.5, -40.0), matrix=160).labels.numpy()
    for name in ("lung", "heart_left", "heart_right", "muscle", "aorta"):
        one, two = stack == LABEL_ID[name]
        dice = 2 * (one & two).sum() / (one.sum() + two.sum())
        assert dice > 0.88, (name, dice)


def test_the_lung_is_denser_where_it_hangs_down() -> None:
    phantom = slice_of(8, 15)
    lung = mask(phantom, "lung")
    rows = np.nonzero(lung)[0]
    front, back = np.quantile(rows, [0.2, 0.8])
    hu = phantom.hu.numpy()[lung]
    assert np.median(hu[rows > back]) > np.median(hu[rows < front]) + 15


@pytest.mark.parametrize(("size", "fat_mm"), [(0.85, 6.0), (1.18, 48.0)])
def test_the_smallest_and_the_largest_fit_the_field_of_view(size: float, fat_mm: float) -> None:
    patient = replace(Patient.draw(13), size=size, fat_mm=fat_mm)
    for z in EXTENT_MM["chest"]:
        labels = render(patient, "chest", z_mm=z, matrix=64).labels.numpy()
        border = {LABELS[i] for i in np.unique(np.r_[labels[0], labels[-1], labels[:, 0], labels[:, -1]])}
        assert border <= {"air", "table"}
        assert (labels == LABEL_ID["lung"]).sum() > 100


def test_only_women_have_breasts() -> None:
    woman = replace(Patient.draw(4), female=True)
    for patient, expected in ((woman, True), (replace(woman, female=False), False)):
        assert bool(mask(render(patient, "chest", z_mm=-20, matrix=96), "breast").any()) == expected


# ---------------------------------------------------------------- ribs
ROUND_WALL = Loft({-150: ellipse(0, 0, 120, 90, n=200), 150: ellipse(0, 0, 120, 90, n=200)}, dense=True)


def bones_of(structures: list) -> list[Tube]:
    return [s.shape for s in structures if s.label == "cortical_bone"]


def test_ribs_follow_the_wall_and_slope_down_to_the_front() -> None:
    patient = replace(Patient.draw(3), size=1.0)
    for rib in bones_of(ribs(patient, ROUND_WALL, spine_xy=(0.0, 50.0), z_range=(-40, 40))):
        path = np.asarray(rib.path)
        on_the_wall = path[len(path) // 3 :]
        distance = np.hypot(on_the_wall[:, 0] / 120, on_the_wall[:, 1] / 90)
        assert np.abs(distance - 1).max() < 0.04
        assert path[0, 1] > 40 > 0 > path[-1, 1]  # from the spine to the front
        assert 60 < path[0, 2] - path[-1, 2] < 110


def test_a_slice_cuts_several_ribs_on_each_side() -> None:
    built = bones_of(
        ribs(replace(Patient.draw(3), size=1.0), ROUND_WALL, spine_xy=(0.0, 50.0), z_range=(-40, 40))
    )
    for z in (-40.0, 0.0, 40.0):
        sides = [np.sign(np.vstack(cut)[:, 0].mean()) for rib in built if (cut := rib.section(z))]
        assert min(sides.count(-1), sides.count(1)) >= 3


def test_the_lowest_two_ribs_float() -> None:
    """The twelfth ends at the side, the eleventh before it, and neither has a cartilage."""
    patient = replace(Patient.draw(3), size=1.0)
    structures = ribs(patient, ROUND_WALL, spine_xy=(0.0, 50.0), z_range=(-40, 40), last_head_mm=0.0)
    built = bones_of(structures)
    ends = [np.asarray(rib.path)[-1, 1] for rib in built[:6:2]]  # twelfth, eleventh, tenth, right side
    assert ends[0] > ends[1] > ends[2]
    first_cartilage = next(i for i, s in enumerate(structures) if s.label == "disc_cartilage")
    assert sum(s.label == "cortical_bone" for s in structures[:first_cartilage]) == 5  # 12, 12, 11, 11, 10


def test_on_wall_is_an_ellipse_in_polar_coordinates() -> None:
    wall = ellipse(5, 7, 120, 90, n=2000)
    left, back, right = on_wall(wall, 0, 1), on_wall(wall, 90, 1, 10), on_wall(wall, 0, -1)
    assert left == pytest.approx([125, 7], abs=0.1)
    assert back == pytest.approx([5, 107], abs=0.1)
    assert right == pytest.approx([-115, 7], abs=0.1)


# ---------------------------------------------------------------- trees of the lung
def test_a_tree_reaches_every_place_and_tapers() -> None:
    rng = np.random.default_rng(0)
    targets = rng.uniform((40, -40, -40), (120, 40, 40), (32, 3))
    tubes = branching(rng, np.zeros(3), targets, 0.3)
    ends = np.stack([np.asarray(tube.path)[-1] for tube in tubes])
    assert np.linalg.norm(targets[:, None] - ends[None], axis=2).min(1).max() < 1e-9
    assert max(np.max(tube.radius) for tube in tubes) == pytest.approx(0.3 * 32 ** (1 / EXPONENT))
    assert all(np.diff(tube.radius).max() <= 0 for tube in tubes)


def test_daughters_carry_what_their_mother_brings() -> None:
    """Two places, two branches: r_mother^e = r_1^e + r_2^e."""
    rng = np.random.default_rng(0)
    mother, *daughters = branching(rng, np.zeros(3), np.array([(30.0, 5, 0), (30.0, -5, 0)]), 0.5)
    assert np.max(mother.radius) ** EXPONENT == pytest.approx(
        sum(np.max(d.radius) ** EXPONENT for d in daughters)
    )


def test_vessels_of_the_lung_are_many_and_thin_at_the_pleura() -> None:
    cavity = chest.cavity_of(Patient.draw(8))
    phantom = render(Patient.draw(8), "chest", z_mm=20, matrix=384)
    x = np.nonzero(mask(phantom, "lung_vessel"))[1]
    half_width = np.abs(cavity.section(20)[0][:, 0]).max()
    off_centre = np.abs((x - 191.5) * phantom.pixel_mm) / half_width
    assert len(x) > 300
    assert (off_centre > 0.75).sum() > 10  # they reach the outer quarter
    assert (off_centre < 0.5).sum() > (off_centre > 0.75).sum()
