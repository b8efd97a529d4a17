"""The phantom's painter and its patients, apart from anatomy: solids, coverage, labels, stacks, lesions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alden_lite.phantom import EXTENT_MM, LABEL_ID, LABELS, REGIONS, Lesion, Patient, render, render_stack
from alden_lite.phantom.body import field_of_view_mm
from alden_lite.phantom.painting import Structure, Warp, paint
from alden_lite.phantom.parts import gut
from alden_lite.phantom.shapes import Ellipsoid, Loft, Tube, ellipse, inset, mirrored, spline, stadium

STILL = Warp(np.zeros((1, 3)), np.zeros((1, 2)), np.zeros((1, 2)), 0.0, (0.0, 0.0))


def painted(
    *structures: Structure, z_mm: float = 0.0, matrix: int = 64, pixel_mm: float = 1.0, seed: int = 0
):
    return paint(structures, z_mm=z_mm, matrix=matrix, pixel_mm=pixel_mm, warp=STILL, seed=seed)


def area_mm2(curve: np.ndarray) -> float:
    x, y = curve.T
    return abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2


def test_a_spline_goes_through_its_control_points() -> None:
    corners = np.array([(0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0)])
    closed = spline(corners, per_span=8)
    assert closed.shape == (32, 2)
    np.testing.assert_allclose(closed[::8], corners, atol=1e-12)
    open_ended = spline(corners, closed=False, per_span=4)
    np.testing.assert_allclose(open_ended[[0, 4, 8, 12]], corners, atol=1e-12)


@pytest.mark.parametrize("turn", [1, -1])
def test_an_inset_circle_is_a_smaller_circle_whichever_way_it_runs(turn: int) -> None:
    circle = ellipse(3, -2, 20, 20, n=200)[::turn]
    smaller = inset(circle, 5)
    np.testing.assert_allclose(np.hypot(*(smaller - (3, -2)).T), 15, atol=1e-6)


def test_a_stadium_has_the_area_of_a_bar_with_round_ends() -> None:
    bar = stadium(np.array([(0.0, 0.0), (10.0, 0.0), (20.0, 0.0)]), 3.0)
    assert area_mm2(bar) == pytest.approx(20 * 6 + np.pi * 9, rel=0.03)


def test_an_ellipsoid_is_cut_where_it_lies() -> None:
    ball = Ellipsoid((1, 2, 3), (10, 10, 10))
    (equator,) = ball.section(3)
    (higher,) = ball.section(9)  # 6 above the centre: radius 8
    np.testing.assert_allclose(np.hypot(*(equator - (1, 2)).T), 10)
    np.testing.assert_allclose(np.hypot(*(higher - (1, 2)).T), 8)
    assert ball.section(13) == [] and ball.inset(10.5).section(3) == []


def test_a_loft_lies_between_its_sections_and_ends_where_it_ends() -> None:
    square = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])
    loft = Loft({0.0: square, 10.0: 3 * square}, dense=True)
    np.testing.assert_allclose(loft.section(5)[0], 2 * square)
    assert loft.section(-0.1) == [] and loft.section(10.1) == []
    endless = Loft({0.0: square}, dense=True)
    np.testing.assert_allclose(endless.section(1e4)[0], square)


def test_a_capped_loft_closes_like_half_an_ellipsoid() -> None:
    loft = Loft({0.0: ellipse(0, 0, 10, 10), 40.0: ellipse(0, 0, 10, 10)}, cap_mm=(10, 0), dense=True)
    radius = {z: np.hypot(*loft.section(z)[0].T).max() for z in (2.0, 10.0, 40.0)}
    assert radius[2.0] == pytest.approx(10 * np.sqrt(1 - 0.8**2))
    assert radius[10.0] == pytest.approx(10) and radius[40.0] == pytest.approx(10)


def test_an_inset_loft_is_thinner_on_all_sides() -> None:
    loft = Loft({0.0: ellipse(0, 0, 10, 10, n=200), 40.0: ellipse(0, 0, 10, 10, n=200)}, dense=True)
    lumen = loft.inset(3)
    np.testing.assert_allclose(np.hypot(*lumen.section(20)[0].T), 7, atol=1e-3)
    assert lumen.section(2) == [] and len(lumen.section(4)) == 1


def test_a_tube_across_the_slice_is_a_disk_and_along_it_a_bar() -> None:
    upright = Tube([(0.3, -0.2, -20), (0.3, -0.2, 20)], 4.0)
    hu, _ = painted(Structure(upright, 0, "aorta"))
    assert ((hu + 1000) / 1000).sum() == pytest.approx(np.pi * 16, rel=0.04)
    lying = Tube([(-10, 0, 0), (10, 0, 0)], 4.0)
    at_the_axis, _ = painted(Structure(lying, 0, "aorta"))
    higher, _ = painted(Structure(lying, 0, "aorta"), z_mm=np.sqrt(12))  # half-width 2 there
    assert ((at_the_axis + 1000) / 1000).sum() == pytest.approx(20 * 8 + np.pi * 16, rel=0.04)
    assert ((higher + 1000) / 1000).sum() == pytest.approx(20 * 4 + np.pi * 4, rel=0.05)
    assert lying.section(4.1) == []


def test_an_aspect_makes_a_tube_higher_not_wider() -> None:
    rib = Tube([(-10, 0, 0), (10, 0, 0)], 3.0, aspect=2.0)
    assert rib.section(5.9) != [] and rib.section(6.1) == []
    assert np.abs(rib.section(0)[-1][:, 1]).max() == pytest.approx(3.0, rel=1e-6)


@given(
    x=st.floats(-10, 10),
    y=st.floats(-10, 10),
    radius=st.floats(5, 15),
    pixel_mm=st.sampled_from([0.7, 1.0, 1.6]),
)
def test_an_edge_pixel_is_a_mixture_so_areas_are_kept(
    x: float, y: float, radius: float, pixel_mm: float
) -> None:
    hu, labels = painted(
        Structure(Ellipsoid((x, y, 0), (radius, radius, 1)), 50, "liver"), matrix=96, pixel_mm=pixel_mm
    )
    covered = float((hu + 1000).sum() / 1050) * pixel_mm**2
    assert covered == pytest.approx(np.pi * radius**2, rel=0.05)
    assert (labels == LABEL_ID["liver"]).sum() * pixel_mm**2 == pytest.approx(covered, rel=0.25)


def test_what_is_drawn_lands_where_it_was_put() -> None:
    hu, _ = painted(Structure(Ellipsoid((8.0, -5.0, 0.0), (6, 6, 6)), 0, "liver"))
    weight = (hu + 1000) / (hu + 1000).sum()
    along = np.arange(64) - 31.5  # the isocentre lies between the middle pixels
    assert float((weight.sum(0) * along).sum()) == pytest.approx(8.0, abs=0.1)
    assert float((weight.sum(1) * along).sum()) == pytest.approx(-5.0, abs=0.1)


def test_later_structures_cover_earlier_ones_but_only_inside() -> None:
    liver = Structure(Ellipsoid((0, 0, 0), (10, 10, 10)), 60, "liver")
    lesion = Structure(Ellipsoid((10, 0, 0), (5, 5, 5)), 0, "liver_lesion", inside=("liver",))
    hu, labels = painted(liver, lesion)
    assert labels[31, 39] == LABEL_ID["liver_lesion"] and hu[31, 39] == pytest.approx(0, abs=1)
    assert labels[31, 45] == LABEL_ID["air"] and hu[31, 45] == -1000
    _, labels = painted(lesion, liver)
    assert LABEL_ID["liver_lesion"] not in labels


def test_colouring_without_a_label_keeps_the_label() -> None:
    fat = Structure(Ellipsoid((0, 0, 0), (10, 10, 10)), -100, "visceral_fat")
    strand = Structure(Ellipsoid((0, 0, 0), (4, 4, 4)), 0, None, opacity=0.5)
    hu, labels = painted(fat, strand)
    assert hu[31, 31] == pytest.approx(-50) and labels[31, 31] == LABEL_ID["visceral_fat"]


def test_gas_floats_on_fluid() -> None:
    stomach = Ellipsoid((0, 0, 0), (20, 20, 20))
    patient = Patient.draw(0)
    hu, labels = painted(*gut(patient, patient.rng("x"), stomach, content="mixed", y_range=(-17, 17)))
    rows = np.flatnonzero((labels == LABEL_ID["bowel_gas"]).any(1))
    fluid = np.flatnonzero((labels[:, 31:33] == LABEL_ID["bowel"]).any(1) & (hu[:, 31:33] < 50).any(1))
    assert len(rows) > 3 and rows.max() < fluid[fluid > rows.min()].max()
    assert (labels[rows.max() + 2, 20:44] != LABEL_ID["bowel_gas"]).all()
    with pytest.raises(ValueError, match="y_range"):
        gut(patient, patient.rng("x"), stomach, content="mixed")


def test_grain_has_its_deviation_and_is_the_same_tissue_a_hair_further_up() -> None:
    block = Structure(Ellipsoid((0, 0, 0), (60, 60, 60)), 0, "liver", grain=((5, 2.5),))
    here, above, far = (
        painted(block, z_mm=z, matrix=128, pixel_mm=0.8)[0][40:88, 40:88] for z in (0, 0.2, 20)
    )
    assert here.std() == pytest.approx(5, rel=0.15)
    correlation = np.corrcoef(here.ravel(), above.ravel())[0, 1]
    assert correlation > 0.95
    assert abs(np.corrcoef(here.ravel(), far.ravel())[0, 1]) < 0.2


def test_a_warp_moves_neighbouring_slices_alike() -> None:
    warp = Warp.draw(np.random.default_rng(3))
    curve = ellipse(0, 0, 100, 80)
    step = np.abs(warp(curve, 0.0) - warp(curve, 2.5)).max()
    assert 0 < step < 1
    assert np.abs(warp(curve, 0.0) - curve).max() > 1


def test_mirroring_changes_the_side_only() -> None:
    np.testing.assert_array_equal(mirrored([(1, 2), (3, 4)], -1), [(-1, 2), (-3, 4)])


def test_an_unknown_label_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown label .*'brain'"):
        Structure(Ellipsoid((0, 0, 0), (1, 1, 1)), 0, "brain")


def test_there_are_46_labels_and_air_is_0() -> None:
    assert len(LABELS) == len(set(LABELS)) == 46 and LABELS[0] == "air"


def test_a_seed_is_a_patient() -> None:
    assert Patient.draw(5) == Patient.draw(5) != Patient.draw(6)
    assert dict(Patient.draw(5).hu) == dict(Patient.draw(5).hu)
    many = [Patient.draw(seed) for seed in range(200)]
    assert all(0.85 <= p.size <= 1.18 and 6 <= p.fat_mm <= 48 and 30 <= p.age <= 85 for p in many)
    assert 70 < sum(p.female for p in many) < 130 and 110 < sum(p.contrast for p in many) < 170
    with pytest.raises(ValueError, match="0 or above"):
        Patient.draw(-1)


def test_contrast_medium_is_in_the_vessels() -> None:
    with_it = next(p for p in map(Patient.draw, range(99)) if p.contrast)
    without = next(p for p in map(Patient.draw, range(99)) if not p.contrast)
    assert with_it.hu["artery"] > 100 > 60 > without.hu["artery"]


@pytest.mark.parametrize("region", REGIONS)
def test_the_same_seed_is_the_same_slice_byte_for_byte(region: str) -> None:
    first, again = (render(Patient.draw(11), region, matrix=64) for _ in range(2))
    assert torch.equal(first.hu, again.hu) and torch.equal(first.labels, again.labels)
    other = render(Patient.draw(12), region, matrix=64)
    assert not torch.equal(first.labels, other.labels)


@pytest.mark.parametrize("region", REGIONS)
def test_a_slice_of_a_stack_is_the_slice_alone(region: str) -> None:
    patient = Patient.draw(4)
    stack = render_stack(patient, region, z_mm=(-5.0, 0.0, 5.0), matrix=64)
    alone = render(patient, region, z_mm=0.0, matrix=64)
    assert stack.hu.shape == (3, 64, 64) and stack.labels.dtype == torch.uint8
    assert stack.spacing_mm[0] == 5.0 and stack.pixel_mm == alone.pixel_mm
    assert torch.equal(stack.hu[1], alone.hu) and torch.equal(stack.labels[1], alone.labels)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_whole_body_lies_inside_the_field_of_view(region: str, seed: int) -> None:
    patient = Patient.draw(seed)
    field = field_of_view_mm(patient, region)
    for z in EXTENT_MM[region]:
        labels = render(patient, region, z_mm=z, matrix=128).labels
        edge = torch.cat([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        assert set(edge.unique().tolist()) <= {LABEL_ID["air"], LABEL_ID["table"]}, f"{field} mm at z={z}"


def test_a_lesion_is_placed_where_it_is_asked_for() -> None:
    patient = Patient.draw(0)
    lesion = Lesion((0.0, 0.0, 2.0), 12.0, 333.0, label="nodule", blur_mm=0.0)
    before, after = (render(patient, "abdomen", matrix=256, lesions=chosen) for chosen in ((), (lesion,)))
    inside = after.labels == LABEL_ID["nodule"]
    area = inside.sum().item() * after.pixel_mm**2
    assert area == pytest.approx(np.pi * (6**2 - 2**2), rel=0.15)  # cut 2 mm off its centre
    assert after.hu[inside].mean().item() == pytest.approx(333, abs=40)
    untouched = after.hu == before.hu
    assert untouched.float().mean() > 0.99
    assert "nodule" not in {
        LABELS[i] for i in render(patient, "abdomen", matrix=64, z_mm=20, lesions=[lesion]).labels.unique()
    }


def test_a_smaller_field_zooms_in() -> None:
    zoomed = render(Patient.draw(0), "abdomen", matrix=64, field_mm=100)
    assert zoomed.pixel_mm == 100 / 64
    assert (zoomed.labels == LABEL_ID["air"]).float().mean() < 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"region": "knee"}, "unknown region 'knee': choose from chest"),
        ({"region": "head", "z_mm": 900.0}, r"z_mm of the head lies in \["),
        ({"region": "head", "z_mm": float("nan")}, r"z_mm of the head lies in \["),
        ({"region": "head", "matrix": 8}, "at least 32"),
        ({"region": "head", "field_mm": -1.0}, "field_mm must be above 0"),
    ],
)
def test_impossible_requests_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render(Patient.draw(0), **arguments)


def test_uneven_stacks_and_impossible_lesions_are_refused() -> None:
    with pytest.raises(ValueError, match="even steps"):
        render_stack(Patient.draw(0), "head", z_mm=(0.0, 1.0, 3.0), matrix=64)
    with pytest.raises(ValueError, match=r"z_mm of the head lies in .*got \[\]"):
        render_stack(Patient.draw(0), "head", z_mm=(), matrix=64)
    with pytest.raises(ValueError, match="diameter is above 0"):
        Lesion((0, 0, 0), 0.0, 10)
    with pytest.raises(ValueError, match="unknown label 'tumour'"):
        Lesion((0, 0, 0), 5.0, 10, label="tumour")


# Median HU that a label may have in any patient, native or enhanced. Skin is thinner than a pixel here.
HU_RANGES = {
    "air": (-1000, -1000), "skin": (-500, 60), "subcutaneous_fat": (-125, -40), "muscle": (30, 80),
    "visceral_fat": (-125, -60), "cortical_bone": (400, 1300), "bone_marrow": (60, 900),
    "spinal_canal": (-10, 40),
    "disc_cartilage": (40, 250), "lung": (-930, -700), "airway": (-1000, -300), "lung_vessel": (-450, 200),
    "nodule": (-700, 90), "heart_myocardium": (30, 130), "heart_left": (30, 220), "heart_right": (30, 220),
    "aorta": (30, 220), "vena_cava": (20, 260), "pulmonary_artery": (30, 230), "esophagus": (-300, 110),
    "liver": (10, 145), "liver_vessel": (10, 220), "liver_lesion": (-10, 180), "gallbladder": (0, 80),
    "spleen": (38, 155), "pancreas": (5, 130), "adrenal": (10, 120), "kidney_cortex": (20, 260),
    "kidney_medulla": (20, 210), "kidney_sinus": (-110, 60), "kidney_cyst": (-10, 60), "stomach": (-40, 400),
    "bowel": (-60, 400), "bowel_gas": (-1000, -600), "small_vessel": (-40, 230), "lymph_node": (20, 110),
    "bladder": (-5, 95), "prostate_uterus": (10, 125), "rectum": (-60, 120), "brain_grey": (32, 41),
    "brain_white": (25, 34), "csf": (0, 30), "hemorrhage": (45, 85), "table": (-990, -800),
    "calcification": (50, 1200), "breast": (-125, 40),
}  # fmt: skip


@pytest.mark.parametrize("region", REGIONS)
def test_every_label_has_its_hu(region: str) -> None:
    assert HU_RANGES.keys() == set(LABELS)
    low, high = EXTENT_MM[region]
    for seed in range(4):
        for z in (0.6 * low, 0.6 * high):
            phantom = render(Patient.draw(seed), region, z_mm=z, matrix=192)
            for number in phantom.labels.unique().tolist():
                where = phantom.labels == number
                lowest, highest = HU_RANGES[LABELS[number]]
                if where.sum() >= 40:
                    assert lowest <= phantom.hu[where].median().item() <= highest, (LABELS[number], seed, z)


@pytest.mark.parametrize("region", ["abdomen", "chest"])
def test_enhanced_slices_hold_18_labels(region: str) -> None:
    enhanced = [patient for patient in map(Patient.draw, range(12)) if patient.contrast]
    counts = [
        len(render(p, region, z_mm=z, matrix=256).labels.unique()) for p in enhanced[:4] for z in (-30, 20)
    ]
    assert min(counts) >= 17 and np.median(counts) >= 18, counts


@pytest.mark.parametrize("region", REGIONS)
def test_tissue_is_never_flat(region: str) -> None:
    phantom = render(Patient.draw(1), region, matrix=256)
    name = "brain_white" if region == "head" else "muscle"
    inside = (
        torch.nn.functional.avg_pool2d((phantom.labels == LABELS.index(name)).float()[None], 5, 1, 2)[0]
        > 0.99
    )
    least = 1.0 if region == "head" else 3.0  # HU
    assert phantom.hu[inside].std() > least
