"""Organs apart: errors and noise of each, Dice and HD95 by hand and by brute force in float64."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from alden_lite.data.organs import GROUPS
from alden_lite.evaluation.organs import dice, errors_by_label, hd95_mm, noise_by_label

LIVER, SPLEEN = 1 + GROUPS.index("liver"), 1 + GROUPS.index("spleen")


def box(shape: tuple[int, ...], *ranges: tuple[int, int], group: int = LIVER) -> np.ndarray:
    """A map that shows one group in a box, [first, last) along each axis."""
    groups = np.zeros(shape, np.uint8)
    groups[tuple(slice(*ends) for ends in ranges)] = group
    return groups


def blobs(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Random rounded pieces of three groups, away from the array's ends."""
    rng = np.random.default_rng(seed)
    groups = np.zeros(shape, np.uint8)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    for group in (1, 4, 10):
        for _ in range(2):
            centre = rng.uniform(3.5, np.array(shape) - 4.5)
            groups[np.linalg.norm(places - centre, axis=-1) < rng.uniform(1, 3)] = group
    return groups


def brute_force_hd95(found: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]) -> float:
    """The definition, pixel by pixel: surfaces by looking at each neighbour, all distances, percentiles."""

    def surface(mask: np.ndarray) -> np.ndarray:
        points = []
        for place in map(tuple, np.argwhere(mask)):
            for axis in range(mask.ndim):
                for step in (-1, 1):
                    near = list(place)
                    near[axis] += step
                    if 0 <= near[axis] < mask.shape[axis] and not mask[tuple(near)]:
                        points.append(place)
        return np.unique(np.array(points, float), axis=0) * spacing

    distances = cdist(surface(found), surface(truth))
    return max(np.quantile(distances.min(1), 0.95), np.quantile(distances.min(0), 0.95))


# Dice


def test_dice_of_a_map_with_itself_is_one() -> None:
    assert dice(box((4, 4), (0, 2), (0, 2)), box((4, 4), (0, 2), (0, 2)))["liver"] == 1


def test_dice_counts_what_both_show_twice_over_what_each_shows() -> None:
    truth, found = box((6, 6), (0, 4), (0, 4)), box((6, 6), (0, 4), (2, 5))  # 16 and 12 pixels, 8 in both
    assert dice(found, truth)["liver"] == pytest.approx(16 / 28)


def test_dice_is_zero_where_a_group_was_lost_or_lies_elsewhere() -> None:
    truth = box((6, 6), (0, 2), (0, 2))
    assert dice(np.zeros_like(truth), truth)["liver"] == 0
    assert dice(box((6, 6), (3, 5), (3, 5)), truth)["liver"] == 0


def test_a_group_that_the_truth_lacks_is_nan_even_where_it_was_found() -> None:
    truth = box((6, 6), (0, 2), (0, 2))
    found = truth + box((6, 6), (4, 6), (4, 6), group=SPLEEN)
    for measured in (dice(found, truth), hd95_mm(found, truth, spacing_mm=(1, 1))):
        assert [name for name, value in measured.items() if not math.isnan(value)] == ["liver"]


def test_groups_come_by_name_and_in_their_order() -> None:
    truth = np.arange(11).reshape(1, 11)
    assert list(dice(truth, truth)) == list(GROUPS)
    assert set(dice(truth, truth).values()) == {1.0}
    wrong = np.where(truth == SPLEEN, LIVER, truth)  # one pixel of spleen taken for liver
    assert dice(wrong, truth) == dict.fromkeys(GROUPS, 1.0) | {
        "liver": pytest.approx(2 / 3),
        "spleen": 0.0,
    }


def test_a_mask_of_many_pixels_does_not_overflow_its_small_type() -> None:
    truth = box((40, 40), (0, 40), (0, 20))
    assert dice(truth, truth)["liver"] == 1


def test_tensors_and_whole_floats_will_do() -> None:
    truth = box((6, 6), (0, 2), (0, 2))
    assert dice(torch.from_numpy(truth), truth.astype(np.float32))["liver"] == 1


# HD95


def test_surfaces_of_a_map_and_itself_are_no_distance_apart() -> None:
    truth = box((8, 8), (2, 6), (2, 6))
    assert hd95_mm(truth, truth, spacing_mm=(0.7, 0.7))["liver"] == 0


def test_spacing_belongs_to_the_axis_it_is_given_for() -> None:
    truth = box((12, 12, 12), (4, 6), (4, 6), (4, 6))
    for axis, expected in ((0, 5.0), (1, 1.4), (2, 0.6)):
        moved = np.roll(truth, 2, axis=axis)  # the two outer layers are 2 and 1 pixels from the other box
        assert hd95_mm(moved, truth, spacing_mm=(2.5, 0.7, 0.3))["liver"] == pytest.approx(expected)


def test_hd95_is_the_larger_of_both_directions_not_their_pool() -> None:
    truth = box((60, 60), (5, 55), (5, 55))
    found = truth | box((60, 60), (30, 31), (55, 60))  # a thin spike, about 5 % of one surface
    found = found | box((60, 60), (20, 24), (55, 60))
    there, back = hd95_mm(found, truth, spacing_mm=(1, 1)), hd95_mm(truth, found, spacing_mm=(1, 1))
    assert there["liver"] == back["liver"] == pytest.approx(brute_force_hd95(found > 0, truth > 0, (1, 1)))
    assert there["liver"] > 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("shape", "spacing"), [((14, 17, 15), (2.5, 0.7, 0.9)), ((9, 12, 11), (1, 1, 1)), ((25, 31), (0.7, 1.3))]
)
def test_hd95_is_what_all_pairs_of_surface_pixels_give(
    seed: int, shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    found, truth = blobs(seed, shape), blobs(100 + seed, shape)
    measured = hd95_mm(found, truth, spacing_mm=spacing)
    compared = 0
    for group in np.unique(truth[truth > 0]):
        ours, theirs = found == group, truth == group
        expected = brute_force_hd95(ours, theirs, spacing) if ours.any() else math.inf
        assert measured[GROUPS[group - 1]] == pytest.approx(expected, abs=1e-6)
        compared += 1
    assert compared


def test_nineteen_parts_of_a_surface_in_twenty_count() -> None:
    truth, found = np.zeros((8, 200), np.uint8), np.zeros((8, 200), np.uint8)
    truth[1, :100] = found[1, :100] = LIVER  # all of a thin line is surface
    found[7, :4] = LIVER  # 4 of 104 pixels are 6 away: less than a twentieth
    assert hd95_mm(found, truth, spacing_mm=(1, 1))["liver"] == 0
    found[7, :8] = LIVER  # 8 of 108: more
    assert hd95_mm(found, truth, spacing_mm=(1, 1))["liver"] == 6


def test_a_diagonal_neighbour_makes_no_surface() -> None:
    truth = np.full((5, 5), LIVER, np.uint8)
    truth[0, 0] = 0  # surface: (0, 1) and (1, 0), not (1, 1)
    found = np.full((5, 5), LIVER, np.uint8)
    found[4, 4] = 0
    expected = math.hypot(3, 3)  # (0, 1) to (3, 4)
    assert hd95_mm(found, truth, spacing_mm=(1, 1))["liver"] == pytest.approx(expected)


def test_where_the_array_ends_an_organ_goes_on() -> None:
    truth = box((3, 20, 20), (0, 3), (5, 15), (5, 15))
    found = box((3, 20, 20), (0, 3), (5, 15), (5, 18))  # right side 3 pixels farther, on all three slices
    single = hd95_mm(found[0], truth[0], spacing_mm=(1, 1))["liver"]
    assert hd95_mm(found, truth, spacing_mm=(2.5, 1, 1))["liver"] == pytest.approx(single) == 3


def test_a_lost_organ_is_infinitely_far() -> None:
    truth = box((8, 8), (2, 6), (2, 6))
    assert hd95_mm(np.zeros_like(truth), truth, spacing_mm=(1, 1))["liver"] == math.inf


def test_a_group_that_fills_the_slice_has_no_surface() -> None:
    full, truth = np.full((8, 8), LIVER, np.uint8), box((8, 8), (2, 6), (2, 6))
    assert math.isnan(hd95_mm(truth, full, spacing_mm=(1, 1))["liver"])
    assert hd95_mm(full, truth, spacing_mm=(1, 1))["liver"] == math.inf


# Bad input

SOME = box((4, 4), (0, 2), (0, 2))


@pytest.mark.parametrize(
    ("found", "truth", "said"),
    [
        (SOME, SOME[:3], r"\(4, 4\), truth \(3, 4\)"),
        (SOME[None], SOME, r"\(1, 4, 4\), truth \(4, 4\)"),
        (SOME, np.zeros((4, 4)), "no organ group at all"),
        (np.full((4, 4), np.nan), SOME, "found holds NaN"),
        (SOME, np.full((4, 4), np.inf), "truth holds NaN or infinity"),
        (SOME + 0.5, SOME, "whole numbers"),
        (SOME, SOME.astype(int) - 1, "no group .*-1 to 3"),
        (SOME + np.uint8(7), SOME, "no group .*7 to 11.*sample_groups"),
        (SOME.astype(complex), SOME, "whole numbers"),
        (np.zeros((0, 4)), np.zeros((0, 4)), "no organ group at all"),
    ],
)
def test_bad_maps_are_refused(found: np.ndarray, truth: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dice(found, truth)
    with pytest.raises(ValueError, match=said):
        hd95_mm(found, truth, spacing_mm=(1, 1))


@pytest.mark.parametrize("spacing", [(1,), (1, 1, 1), (1, 0), (-1, 1), (1, math.nan), (1, math.inf)])
def test_bad_spacings_are_refused(spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="2 spacings in mm, above 0"):
        hd95_mm(SOME, SOME, spacing_mm=spacing)


def test_a_surface_needs_two_or_three_axes() -> None:
    with pytest.raises(ValueError, match=r"got shape \(4,\)"):
        hd95_mm(SOME[0], SOME[0], spacing_mm=(1,))


# Errors and noise of each organ


def test_errors_by_organ_are_those_of_its_own_pixels_unclipped() -> None:
    reference = np.array([[0.0, 0.0, -900.0], [1200.0, 5.0, 7.0]])
    image = reference + np.array([[3.0, -1.0, 100.0], [-300.0, 1e6, 1e6]])
    labels = np.array([[2, 2, 1], [9, 0, 4]])
    found = errors_by_label(
        image, torch.from_numpy(reference), labels, {9: "bone", 1: "lung", 2: "liver", 3: "no"}
    )
    assert list(found) == ["bone", "lung", "liver"]
    assert found["bone"] == (300, 300, -300)
    assert found["lung"] == (100, 100, 100)
    assert found["liver"] == (math.sqrt(5), 2, 1)
    assert found["liver"].rmse_hu == math.sqrt(5) and found["liver"].bias_hu == 1
    with pytest.raises(ValueError, match="none of the 1 named organs"):
        errors_by_label(image, reference, labels, {3: "spleen"})
    with pytest.raises(ValueError, match="none of the 0"):
        errors_by_label(image, reference, labels, {0: "no organ"})
    with pytest.raises(ValueError, match="shapes differ"):
        errors_by_label(image, reference, labels[:1], {2: "liver"})
    with pytest.raises(ValueError, match="NaN"):
        errors_by_label(image * math.nan, reference, labels, {2: "liver"})


def test_every_organ_has_its_own_noise() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], [100, 10_000, 10_000, 1]).reshape(1, -1)
    sigma = np.array([500.0, 10.0, 30.0, 1.0])[labels]
    noise = torch.from_numpy(rng.normal(0, 1, labels.shape) * sigma + 5 * labels)
    rows = noise_by_label(noise, labels, {2: "lung", 1: "liver", 3: "gallbladder", 9: "spleen"})
    assert list(rows) == ["lung", "liver"]  # one pixel has no spread, and there is no spleen
    assert rows["liver"].sigma_hu == pytest.approx(10, rel=0.03)
    assert rows["lung"].sigma_hu == pytest.approx(30, rel=0.03)
    assert rows["lung"].pixels == 10_000


def test_noise_without_the_named_organs_is_refused() -> None:
    hu, labels = np.zeros((16, 16)), np.ones((16, 16), int)
    with pytest.raises(ValueError, match="shapes differ: noise"):
        noise_by_label(hu, labels[:8], {1: "liver"})
    with pytest.raises(ValueError, match="none of the 1 named organs"):
        noise_by_label(hu, labels, {7: "spleen"})
