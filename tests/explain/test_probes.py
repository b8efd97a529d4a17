"""Organ probes: labels of patches, which tokens are taken, and that no probe is asked what it has seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score, confusion_matrix
from torch import Tensor

from alden_lite.data.organs import GROUPS
from alden_lite.explain import probes as organs
from alden_lite.explain.feature_cache import FeatureCache
from alden_lite.explain.probes import ProbeResult, Tokens

NUMBER = {name: number for number, name in enumerate(GROUPS, start=1)}


# Labels


def test_a_patch_is_of_its_commonest_group_nothing_counts_too() -> None:
    groups = np.array([
        [4, 4, 0, 0, 1, 1, 9],
        [4, 9, 0, 7, 2, 2, 9],
    ])  # fmt: skip
    found = organs.token_labels(groups[:, :6], patch_size=2)
    assert found.group.tolist() == [[4, 0, 1]]  # of two equally common, the lower number
    assert found.purity.tolist() == [[0.75, 0.75, 0.5]]
    assert (found.group.dtype, found.purity.dtype) == (np.uint8, np.float32)
    turned = organs.token_labels(
        torch.from_numpy(groups[None, :, :6].transpose(0, 2, 1).copy()), patch_size=2
    )
    assert turned.group.tolist() == [[[4], [0], [1]]]


def test_labels_of_patches_agree_with_counting_pixel_by_pixel() -> None:
    groups = np.random.default_rng(0).integers(0, 11, (2, 12, 6))
    found = organs.token_labels(groups, patch_size=3)
    for z, row, column in np.ndindex(found.group.shape):
        patch = groups[z, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3].ravel().tolist()
        assert patch.count(int(found.group[z, row, column])) == max(map(patch.count, patch))
        assert found.purity[z, row, column] == np.float32(max(map(patch.count, patch)) / 9)


@pytest.mark.parametrize(
    ("shape", "patch", "text"),
    [
        ((5, 4), 2, r"shape \(5, 4\) do not divide into patches of 2 x 2: crop them first"),
        ((4, 5), 2, "do not divide"),
        ((4,), 2, "do not divide"),
        ((4, 4), 0, "do not divide"),
    ],
)
def test_slices_that_do_not_divide_into_patches_are_refused(
    shape: tuple[int, ...], patch: int, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        organs.token_labels(np.zeros(shape, int), patch_size=patch)


def test_a_number_that_is_no_group_is_refused() -> None:
    with pytest.raises(ValueError, match="groups are numbers from 0 to 10, got 11"):
        organs.token_labels(np.full((2, 2), 11), patch_size=2)


def test_slices_near_a_slabs_border_belong_to_no_slab() -> None:
    unit = organs.slabs(range(36))
    assert unit[:14].tolist() == [-1, -1, 0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1]
    used = np.flatnonzero(unit >= 0)
    apart = [abs(a - b) for a in used for b in used if unit[a] != unit[b]]
    assert min(apart) == 5  # 12.5 mm in slices of 2.5 mm
    assert set(unit) == {-1, 0, 1, 2}
    assert organs.slabs([0, 1, 2, 3, 4, 5], thickness=3, margin=1).tolist() == [-1, 0, -1, -1, 1, -1]
    assert organs.slabs([0, 3, 4], thickness=4, margin=0).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    "how", [{"thickness": 4, "margin": 2}, {"thickness": 0, "margin": 0}, {"margin": -1}]
)
def test_margins_that_leave_nothing_are_refused(how: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="leave nothing of a slab"):
        organs.slabs([0], **how)
    with pytest.raises(ValueError, match="start at 0"):
        organs.slabs([-1])


# Tokens


class Means:
    """A network worked out by hand: tap 1 the mean of each patch of 14, tap 2 of 28, tap 3 of 7 pixels."""

    name, taps, weights_sha256 = "means", (1, 2, 3), "none"

    def __init__(self) -> None:
        self.seen: list[tuple[torch.dtype, tuple[int, ...]]] = []

    def __call__(self, hu: Tensor) -> list[Tensor]:
        self.seen.append((hu.dtype, tuple(hu.shape)))
        maps = [F.avg_pool2d(hu, side) for side in (14, 28, 7)]
        return [torch.cat([one, -one], dim=1) for one in maps]


def scene(slices: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Slices of 4 x 6 patches: lung on the left third, bone in the middle, nothing on the right; HU of its
    own for every patch."""
    patch = np.arange(slices * 24).reshape(slices, 4, 6) * 7
    groups = np.repeat([NUMBER["lung"], NUMBER["bone"], 0], 2) * np.ones((slices, 4, 1), int)
    return (np.kron(part, np.ones((14, 14), int)) for part in (patch, groups))  # type: ignore[return-value]


def collect(pvm: object | None = None, **how: object) -> Tokens:
    hu, groups = scene()
    options = {"units": [0, 0, 1, 1], "progress": False, **how}
    return organs.collect_tokens(pvm or Means(), hu, groups, **options)  # type: ignore[arg-type]


def test_every_pure_patch_becomes_a_token_with_its_own_features_group_and_place() -> None:
    tokens = collect()
    assert len(tokens) == 4 * 4 * 4
    z, row, column = tokens.place.T
    assert tokens.features[1].dtype == np.float32
    np.testing.assert_array_equal(tokens.features[1][:, 0], 7 * (24 * z + 6 * row + column))
    np.testing.assert_array_equal(tokens.features[1][:, 1], -tokens.features[1][:, 0])
    assert tokens.group.tolist() == np.where(column < 2, NUMBER["lung"], NUMBER["bone"]).tolist()
    assert tokens.unit.tolist() == (z // 2).tolist()


def test_maps_of_another_grid_are_averaged_or_interpolated_to_the_tokens() -> None:
    tokens = collect()
    hu, groups = scene()
    sloping = organs.collect_tokens(Means(), hu + np.arange(84), groups, units=[0, 0, 1, 1], progress=False)
    np.testing.assert_allclose(sloping.features[3], sloping.features[1])  # four of 7 x 7 make one of 14 x 14
    _, row, column = tokens.place.T
    inner = (row > 0) & (row < 3) & (column > 0) & (column < 5)
    # The scene rises evenly, which interpolation keeps away from the border.
    np.testing.assert_allclose(tokens.features[2][inner], tokens.features[1][inner])


def test_all_pixels_of_a_finer_map_count() -> None:
    class Finer(Means):
        taps = (1, 2)

        def __call__(self, hu: Tensor) -> list[Tensor]:
            return [F.avg_pool2d(hu, 14), F.avg_pool2d(hu, 2)]  # 7 x 7 of the second are a token

    noise = np.random.default_rng(0).normal(0, 100, (4, 56, 84)).astype(np.float32)
    _, groups = scene()
    tokens = organs.collect_tokens(Finer(), noise, groups, units=[0, 0, 1, 1], progress=False)  # type: ignore[arg-type]
    np.testing.assert_allclose(tokens.features[2], tokens.features[1], atol=1e-3)


def test_a_network_sees_one_slice_at_a_time_as_floating_point_and_only_those_in_use() -> None:
    pvm = Means()
    tokens = collect(pvm, units=[0, -1, 3, -1])
    assert pvm.seen == [(torch.float32, (1, 1, 56, 84))] * 2
    assert set(tokens.place[:, 0]) == {0, 2}
    assert set(tokens.unit) == {0, 3}


def test_mixed_patches_are_left_out() -> None:
    hu, groups = scene()
    groups[:, 0:3] = 0  # 3 of 14 rows: purity 11/14 = 0.79 in the first row of patches
    how: dict[str, object] = {"units": [0, 0, 1, 1], "progress": False}
    assert len(organs.collect_tokens(Means(), hu, groups, **how)) == 64  # type: ignore[arg-type]
    fewer = organs.collect_tokens(Means(), hu, groups, purity=0.8, **how)  # type: ignore[arg-type]
    assert len(fewer) == 48 and fewer.place[:, 1].min() == 1
    groups[:, :7], groups[:, 7:14] = NUMBER["lung"], NUMBER["heart"]  # half and half: the lower number
    just = organs.collect_tokens(Means(), hu, groups, purity=0.5, **how)  # type: ignore[arg-type]
    assert (just.group[just.place[:, 1] == 0] == NUMBER["lung"]).sum() == 4 * 6


def test_at_most_so_many_tokens_of_a_group_in_a_unit_drawn_by_seed_and_not_by_network() -> None:
    tokens, again, other = collect(most=5), collect(most=5), collect(most=5, seed=1)
    for unit in (0, 1):
        for group in ("lung", "bone"):
            assert ((tokens.unit == unit) & (tokens.group == NUMBER[group])).sum() == 5
    assert np.array_equal(tokens.place, again.place)
    assert not np.array_equal(tokens.place, other.place)
    assert len(np.unique(tokens.place, axis=0)) == 20
    assert len({tuple(place) for place in tokens.place[:, 1:]}) > 8  # from all over the slice


def test_tokens_can_be_chosen() -> None:
    tokens = collect()
    bone = tokens.where(tokens.group == NUMBER["bone"])
    assert len(bone) == 32 and set(bone.group) == {NUMBER["bone"]} and bone.place[:, 2].min() == 2
    assert bone.features[2].shape == (32, 2) and set(bone.unit) == {0, 1}


def test_cached_features_are_the_same(tmp_path: object) -> None:
    class Kept(Means):
        windows = ()
        mean = std = torch.zeros(3)

        def rounds_to_bfloat16(self, device: torch.device) -> bool:
            return False

    pvm = Kept()
    for _ in range(2):
        tokens = collect(pvm, cache=FeatureCache(tmp_path))  # type: ignore[arg-type]
    assert len(pvm.seen) == 4
    assert np.array_equal(tokens.features[1], collect().features[1])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"groups": np.zeros((4, 56, 70), int)}, "groups of the same shape and one unit for each slice"),
        ({"units": [0, 1]}, "one unit for each slice"),
        ({"hu": np.zeros((4, 1, 56, 84))}, r"slices \(B, H, W\)"),
        ({"hu": np.full((4, 56, 84), np.nan)}, "NaN or infinite values"),
        ({"grid": 16}, "do not divide into patches of 16 x 16: crop"),
        ({"groups": np.zeros((4, 56, 84), int)}, "no patch shows one group on 75%"),
        ({"units": [-1] * 4}, "no patch shows one group"),
    ],
)
def test_slices_that_give_no_tokens_are_refused(change: dict[str, object], text: str) -> None:
    hu, groups = scene()
    given = {"hu": hu, "groups": groups, "units": [0, 0, 1, 1], "progress": False, **change}
    with pytest.raises(ValueError, match=text):
        organs.collect_tokens(Means(), **given)  # type: ignore[arg-type]


def test_the_pixels_of_a_token_are_its_patch() -> None:
    hu, _ = scene()
    hu = hu + np.arange(84)  # so that no patch is of one value
    tokens = collect()
    pixels = organs.pixel_tokens(tokens, hu)
    assert pixels.shape == (64, 196) and pixels.dtype == np.float32
    for one, (z, row, column) in zip(pixels, tokens.place, strict=True):
        patch = hu[z, 14 * row : 14 * row + 14, 14 * column : 14 * column + 14]
        assert one.tolist() == patch.ravel().tolist()
    with pytest.raises(ValueError, match="do not lie in slices"):
        organs.pixel_tokens(tokens, hu[:3])


def test_the_place_of_a_token_is_written_in_cosines_and_nothing_else() -> None:
    tokens = collect()
    features = organs.position_tokens(tokens, (4, 6), waves=3)
    assert features.shape == (64, 8) and features.dtype == np.float32
    for one, (_, row, column) in zip(features, tokens.place, strict=True):
        down = [np.cos(np.pi * k * (row + 0.5) / 4) for k in range(3)]
        across = [np.cos(np.pi * k * (column + 0.5) / 6) for k in range(3)]
        np.testing.assert_allclose(one, np.outer(down, across).ravel()[1:], atol=1e-6)
    assert organs.position_tokens(tokens, (4, 6)).shape == (64, 63)
    with pytest.raises(ValueError, match="do not lie in a grid of 6 x 3"):
        organs.position_tokens(tokens, (6, 3))


# Probes


def clouds(
    n: int = 40, groups: tuple[int, ...] = (1, 4, 9), units: int = 6, spread: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of groups around centres of their own, dealt to units in turn."""
    rng = np.random.default_rng(seed)
    group = np.repeat(groups, n)
    centres = 3 * rng.standard_normal((11, 5))
    features = centres[group] + spread * rng.standard_normal((len(group), 5))
    return features.astype(np.float32), group, np.arange(len(group)) % units


def test_a_linear_probe_is_a_standardised_logistic_regression_of_fixed_form() -> None:
    features, group, _ = clouds()
    features[:, 0] = 1000 * features[:, 0] + 5000  # scale and offset of a feature do not matter
    scaler, classifier = organs.make_probe()
    assert (type(scaler).__name__, type(classifier).__name__) == ("StandardScaler", "LogisticRegression")
    assert (classifier.C, classifier.class_weight) == (0.01, "balanced")
    probe = organs.make_probe().fit(features, group)
    assert (probe.predict(features) == group).mean() > 0.95


def test_a_probe_is_fitted_on_tokens_that_can_teach_it() -> None:
    features, group, _ = clouds()
    probe, expected = organs.fit_probe(features, group), organs.make_probe().fit(features, group)
    assert np.array_equal(probe[-1].coef_, expected[-1].coef_)
    assert type(organs.fit_probe(features, group, kind="knn")[-1]).__name__ == "KNeighborsClassifier"
    with pytest.raises(ValueError, match="NaN or infinite"):
        organs.fit_probe(np.where(features > 3, np.inf, features), group)
    with pytest.raises(ValueError, match="N groups"):
        organs.fit_probe(features[1:], group)


def test_a_neighbours_probe_takes_twenty_near_ones() -> None:
    _, classifier = organs.make_probe("knn")
    assert (type(classifier).__name__, classifier.n_neighbors, classifier.weights) == (
        *("KNeighborsClassifier", 20),
        "distance",
    )


def test_an_unknown_kind_of_probe_is_refused() -> None:
    with pytest.raises(ValueError, match="a probe is 'linear' or 'knn', got 'tree'"):
        organs.make_probe("tree")


def test_groups_apart_are_told_apart_in_every_unit() -> None:
    features, group, unit = clouds(spread=0.1)
    for kind in ("linear", "knn"):
        result = organs.cross_validated(features, group, unit, kind=kind)
        assert result.balanced_accuracy == 1.0
        assert result.interval() == (1.0, 1.0)
        assert np.array_equal(result.truth, group) and np.array_equal(result.unit, unit)


def test_no_probe_is_asked_about_a_unit_that_it_saw() -> None:
    # The features tell the unit and nothing of the group, and a unit has one group: a probe that had seen
    # the unit would know. The groups of the other units speak for another answer.
    unit = np.repeat(np.arange(6), 30)
    group = np.where(unit % 2, 4, 9)
    features = np.eye(6)[unit] + 0.01 * np.random.default_rng(0).standard_normal((180, 6))
    assert (organs.make_probe("knn").fit(features, group).predict(features) == group).all()
    result = organs.cross_validated(features, group, unit, kind="knn", folds=6)
    assert result.balanced_accuracy < 0.7


def test_every_token_gets_the_prediction_of_its_own_fold() -> None:
    features, group, unit = clouds(spread=3.0)
    result = organs.cross_validated(features, group, unit, folds=6)
    for left_out in range(6):
        test = unit == left_out
        probe = organs.make_probe().fit(features[~test], group[~test])
        assert np.array_equal(result.predicted[test], probe.predict(features[test]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"features": np.zeros((3, 2))}, r"N groups and N units are needed, got \(3, 2\), \(120,\)"),
        ({"unit": np.zeros(7, int)}, "N units are needed"),
        ({"features": np.zeros(120)}, r"features \(N, C\)"),
        ({"features": np.full((120, 2), np.nan)}, "NaN or infinite"),
        ({"group": np.full(120, 4)}, "2 or more are needed, there are 1"),
        ({"group": np.arange(120) % 2}, "numbers from 1 to 10"),
        ({"group": np.arange(120) % 2 + 10}, "numbers from 1 to 10"),
        ({"kind": "tree"}, "'linear' or 'knn'"),
        ({"folds": 7}, "7 folds need .* as many units; there are 6"),
        ({"folds": 1}, "1 folds need 2 or more"),
    ],
)
def test_tokens_that_cannot_be_cross_validated_are_refused(change: dict[str, object], text: str) -> None:
    features, group, unit = clouds()
    given = {"features": features, "group": group, "unit": unit, **change}
    with pytest.raises(ValueError, match=text):
        organs.cross_validated(**given)  # type: ignore[arg-type]


def test_a_group_of_one_unit_cannot_be_cross_validated() -> None:
    features, group, unit = clouds()
    unit[group == NUMBER["bone"]] = 2
    with pytest.raises(ValueError, match=r"asked for bone \(units .*2.*\) that it never saw"):
        organs.cross_validated(features, group, unit)


def test_a_probe_is_tested_on_other_patients_with_fewer_groups() -> None:
    probe = organs.make_probe().fit(*clouds(spread=0.1)[:2])
    features, group, unit = clouds(spread=0.1, seed=0, groups=(4,), n=12)
    result = organs.tested_on(probe, features, group, unit)
    assert result.recall() == {"liver": 1.0}
    wrong = organs.tested_on(probe, features, np.full(12, 9), unit)
    assert wrong.balanced_accuracy == 0.0


def test_a_probe_is_not_tested_on_what_it_cannot_know() -> None:
    features, group, unit = clouds()
    with pytest.raises(ValueError, match="fit the probe first"):
        organs.tested_on(organs.make_probe(), features, group, unit)
    probe = organs.make_probe().fit(features, group)
    with pytest.raises(ValueError, match="never saw spleen, kidney: leave those tokens out"):
        organs.tested_on(probe, features[:3], np.array([6, 5, 4]), unit[:3])
    with pytest.raises(ValueError, match="features"):
        organs.tested_on(probe, features[:, :2], group, unit)


# Results


def result(seed: int = 0, n: int = 400) -> ProbeResult:
    rng = np.random.default_rng(seed)
    truth = rng.choice([1, 4, 5, 9], n, p=[0.6, 0.2, 0.1, 0.1])
    guess = rng.choice([1, 2, 4, 5, 9], n)
    unit = rng.choice(8, n, p=[0.3, 0.2, 0.2, 0.1, 0.05, 0.05, 0.05, 0.05])  # of different sizes
    return ProbeResult(truth, np.where(rng.random(n) < 0.7, truth, guess), unit)


def test_the_balanced_accuracy_by_hand() -> None:
    found = ProbeResult(np.array([1, 1, 1, 4]), np.array([1, 1, 4, 4]), np.array([0, 0, 1, 1]))
    assert found.recall() == {"lung": 2 / 3, "liver": 1.0}
    assert found.balanced_accuracy == pytest.approx(5 / 6)
    assert found.confusion().sum() == 4
    assert (found.confusion()[0, 0], found.confusion()[0, 3], found.confusion()[3, 3]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("truth", "predicted", "unit", "text"),
    [
        ([1, 0], [1, 1], [0, 0], r"true groups are numbers from 1 to 10, got \[0 1\]"),
        ([1, 4], [1, 0], [0, 0], r"predicted groups are numbers from 1 to 10, got \[0 1\]"),
        ([1, 4], [1, 11], [0, 0], "predicted groups"),
        ([1, 4], [1], [0, 0], r"for each of N tokens are needed, got \(2,\), \(1,\) and \(2,\)"),
        ([1, 4], [1, 4], [0], "for each of N tokens"),
        ([[1], [4]], [[1], [4]], [[0], [0]], "for each of N tokens"),
    ],
)
def test_numbers_that_are_no_group_are_not_counted(truth: Any, predicted: Any, unit: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ProbeResult(np.array(truth), np.array(predicted), np.array(unit))


def test_figures_agree_with_scikit_learns() -> None:
    found = result()
    truth_only = np.where(
        found.predicted == 2, 1, found.predicted
    )  # scikit-learn warns of predicted-only groups
    with_2 = ProbeResult(found.truth, truth_only, found.unit)
    assert with_2.balanced_accuracy == pytest.approx(balanced_accuracy_score(found.truth, truth_only))
    expected = confusion_matrix(found.truth, found.predicted, labels=range(1, 11))
    assert np.array_equal(found.confusion(), expected)


def test_the_interval_is_the_bootstrap_over_units() -> None:
    found = result()
    rng = np.random.default_rng(5)
    values = []
    for _ in range(1500):
        tokens = np.concatenate([np.flatnonzero(found.unit == u) for u in rng.integers(0, 8, 8)])
        values.append(ProbeResult(found.truth[tokens], found.predicted[tokens], tokens).balanced_accuracy)
    expected = np.quantile(values, [0.025, 0.975])
    np.testing.assert_allclose(found.interval(), expected, atol=0.006)
    low, high = found.interval()
    assert low < found.balanced_accuracy < high
    narrow = found.interval(0.5)
    np.testing.assert_allclose(narrow, np.quantile(values, [0.25, 0.75]), atol=0.006)
    assert found.interval(seed=3) == found.interval(seed=3) != found.interval(seed=4)


def test_a_group_that_a_draw_lacks_does_not_count_in_it() -> None:
    # Spleen in one of three units only, always wrong; lung always right: 0.5 with the spleen, 1 without.
    found = ProbeResult(np.array([1, 1, 1, 5]), np.array([1, 1, 1, 1]), np.array([0, 1, 2, 2]))
    assert found.interval() == (0.5, 1.0)


def test_an_interval_needs_units() -> None:
    one = ProbeResult(np.array([1, 4]), np.array([1, 4]), np.array([3, 3]))
    with pytest.raises(ValueError, match="two units or more"):
        one.interval()
    for level in (0.0, 1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            result().interval(level)


# The probe as a layer


@pytest.mark.parametrize("groups", [(1, 4, 9), (4, 9)])
def test_the_layer_says_what_the_probe_says(groups: tuple[int, ...]) -> None:
    features, group, _ = clouds(groups=groups, spread=3.0)
    features = features * np.array([1, 20, 300, 0.1, 1], np.float32) + np.array(
        [5, 0, -100, 3, 0], np.float32
    )
    probe = organs.make_probe().fit(features, group)
    layer = organs.as_linear(probe)
    logits = layer(torch.from_numpy(features))
    expected = probe.decision_function(features)
    if len(groups) == 2:
        np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=1e-4)
    else:
        np.testing.assert_allclose(logits, expected, atol=1e-4)
    np.testing.assert_allclose(logits.softmax(1), probe.predict_proba(features), atol=1e-5)
    assert layer.groups == groups
    assert [groups[i] for i in logits.argmax(1)] == probe.predict(features).tolist()


def test_the_layer_knows_its_groups_by_name_and_passes_a_gradient_to_its_input_alone() -> None:
    layer = organs.as_linear(organs.make_probe().fit(*clouds()[:2]))
    assert [layer.index(name) for name in ("lung", "liver", "bone")] == [0, 1, 2]
    with pytest.raises(ValueError, match="knows no 'spleen'; it knows lung, liver, bone"):
        layer.index("spleen")
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    one = torch.zeros(2, 5, requires_grad=True)
    layer(one)[:, 1].sum().backward()
    torch.testing.assert_close(one.grad, layer.weight[1].expand(2, 5))


def test_only_a_fitted_linear_probe_is_a_layer() -> None:
    features, group, _ = clouds()
    for probe in (organs.make_probe(), organs.make_probe("knn").fit(features, group)):
        with pytest.raises(ValueError, match="only a fitted linear probe"):
            organs.as_linear(probe)


def test_a_layer_takes_none_of_the_runs_random_numbers() -> None:
    features, group, _ = clouds()
    probe = organs.make_probe().fit(features, group)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    organs.as_linear(probe)
    assert torch.rand(1) == expected


def test_a_feature_that_never_changes_does_no_harm() -> None:
    features, group, unit = clouds()
    features[:, 2] = 7.0
    layer = organs.as_linear(organs.make_probe().fit(features, group))
    assert torch.isfinite(layer(torch.from_numpy(features))).all()
    without = organs.cross_validated(features[:, [0, 1, 3, 4]], group, unit)
    assert np.array_equal(organs.cross_validated(features, group, unit).predicted, without.predicted)
