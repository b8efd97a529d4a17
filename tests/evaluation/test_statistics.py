"""Statistics with the patient as the unit, against values by hand, scipy and simulation."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from alden_lite.evaluation.statistics import (
    Comparison,
    by_patient,
    compare,
    holm,
    interval,
    interval_by_patient,
)

SIX = ("a", "b", "c", "d", "e", "f")


def figures(*values: float) -> dict[str, float]:
    return {f"p{number}": value for number, value in enumerate(values)}


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = interval(values.tolist())
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    assert interval([2.0, 2.0, 2.0, math.nan]) == (2, 2)
    with pytest.raises(ValueError, match="3 values or more, got 2"):
        interval([1.0, 2.0, math.nan])


def test_slices_become_one_mean_a_patient() -> None:
    values = [1.0, 10.0, 3.0, math.nan, 5.0]
    assert by_patient(values, [7, "bo", 7, 7, "bo"]) == {"7": 2.0, "bo": 7.5}
    means = by_patient([math.nan, 4.0], ["lung", "liver"])
    assert math.isnan(means["lung"]) and means["liver"] == 4


def test_slices_that_cannot_be_averaged_are_refused() -> None:
    with pytest.raises(ValueError, match=r"values \(3,\) and 2 patients"):
        by_patient([1.0, 2.0, 3.0], SIX[:2])
    with pytest.raises(ValueError, match="no values"):
        by_patient([], [])
    with pytest.raises(ValueError, match="infinite value"):
        by_patient([1.0, math.inf], SIX[:2])


def test_a_difference_is_ours_less_theirs_and_turns_round_with_them() -> None:
    ours, theirs = figures(3, 5, 1, 9, 4, 8, 6), figures(1, 5.5, 0, 5, 2.5, 5, 3.7)
    found, turned = compare(ours, theirs), compare(theirs, ours)
    # Differences 2, -0.5, 1, 4, 1.5, 3, 2.3: the smallest speaks against us, with rank 1 of 28.
    assert (found.n, found.mean) == (7, pytest.approx(13.3 / 7))
    assert found.effect == pytest.approx((27 - 1) / 28)
    # Of 128 choices of signs two have a sum of ranks against us (or for us) of 0, two of 1.
    assert found.p == pytest.approx(4 / 128)
    assert 0 < found.low < found.mean < found.high
    assert (turned.mean, turned.effect, turned.p) == pytest.approx((-found.mean, -found.effect, found.p))
    assert turned.high < 0
    assert (found.low, found.high) == interval([2, -0.5, 1, 4, 1.5, 3, 2.3])


def test_patients_are_paired_by_name_not_by_order() -> None:
    ours, theirs = figures(3, 5, 1, 9, 4, 8), figures(1, 5.5, 0, 5, 2.5, 5)
    assert compare(ours, dict(reversed(theirs.items()))) == compare(ours, theirs)


def test_p_is_exact_with_ties_and_without() -> None:
    for differences in ([0.3, -1.1, 2.0, 1.7, -0.2, 0.9, 1.4], [1, 1, -1, 2, 2, -3, 2, 1]):
        ranks = stats.rankdata(np.abs(differences))
        sums = [ranks @ signs for signs in product((-1, 1), repeat=len(differences))]
        by_hand = np.mean(np.abs(sums) >= abs(ranks @ np.sign(differences)) - 1e-9)
        found = compare(figures(*differences), figures(*[0.0] * len(differences)))
        assert found.p == pytest.approx(by_hand)


def test_patients_without_a_difference_have_no_say_in_the_test() -> None:
    zeros = figures(*[0.0] * 9)
    with_zeros = compare(figures(1, 2, -3, 4, 5, 6, 7, 0, 0), zeros)
    without = compare(figures(1, 2, -3, 4, 5, 6, 7), figures(*[0.0] * 7))
    assert (with_zeros.p, with_zeros.effect) == (without.p, without.effect)
    assert with_zeros.n == 9 and with_zeros.mean == pytest.approx(22 / 9)
    assert compare(zeros, zeros) == Comparison(n=9, mean=0, low=0, high=0, effect=0, p=1)


def test_where_nothing_is_to_be_found_p_falls_below_5_percent_as_often_as_it_should() -> None:
    rng = np.random.default_rng(3)
    p = [compare(figures(*rng.normal(0, 1, 8)), figures(*rng.normal(0, 1, 8))).p for _ in range(150)]
    # With 8 patients the largest attainable p not above 0.05 is 10/256 = 0.039.
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.039, abs=0.035)


def test_p_is_scipys_exact_one_for_many_patients() -> None:
    for n in (13, 30, 60):
        ours = np.random.default_rng(n).normal(0.3, 1, n)
        found = compare(figures(*ours), figures(*[0.0] * n))
        assert found.p == pytest.approx(stats.wilcoxon(ours, method="exact").pvalue, rel=1e-9)
    balanced = compare(figures(1, -1, 2, -2, 3, -3), figures(*[0.0] * 6))
    assert (balanced.p, balanced.effect) == (1, 0)


def test_what_cannot_be_compared_is_refused() -> None:
    six, seven = (dict.fromkeys(range(n), 1.0) for n in (6, 7))
    for few in (1, 5):
        same = figures(*[1.0] * few)
        with pytest.raises(ValueError, match=f"{few} patients cannot show anything.*0.05 with 6"):
            compare(same, same)
    with pytest.raises(ValueError, match=r"other patients: \[6\]"):
        compare(six, seven)  # type: ignore[arg-type]
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match=r"no number for \['b'\]"):
            compare(dict.fromkeys(SIX, 1.0) | {"b": bad}, dict.fromkeys(SIX, 0.0))


def test_six_patients_are_the_fewest_that_can_reach_5_percent() -> None:
    assert 2 / 2**6 < 0.05 < 2 / 2**5
    assert compare(figures(1, 2, 3, 4, 5, 6), figures(*[0.0] * 6)).p == 2 / 2**6


def test_holm_multiplies_by_how_many_are_left_and_never_falls() -> None:
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, which may not be below the one before it.
    found = holm({"w": 0.01, "x": 0.04, "y": 0.03, "z": 0.005})
    assert found == pytest.approx({"w": 0.03, "x": 0.06, "y": 0.06, "z": 0.02})
    assert list(found) == ["w", "x", "y", "z"]
    assert holm({"a": 0.7, "b": 0.6, "c": 1.0}) == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert holm({"alone": 0.04}) == {"alone": 0.04}
    assert holm({}) == {}
    for bad in (math.nan, -0.1, 1.2):
        with pytest.raises(ValueError, match=r"lies in \[0, 1\]"):
            holm({"a": bad, "b": 0.1})


def test_holm_rejects_wrongly_in_one_table_of_twenty() -> None:
    rng = np.random.default_rng(0)
    tables = rng.uniform(size=(4000, 14))
    wrong = np.mean([min(holm(dict(enumerate(row))).values()) <= 0.05 for row in tables])  # type: ignore[arg-type]
    assert wrong == pytest.approx(0.05, abs=0.01)
    assert np.mean(tables.min(1) <= 0.05) > 0.45  # without it


def test_an_interval_over_patients_does_not_shrink_with_more_slices() -> None:
    rng = np.random.default_rng(5)
    means = rng.normal(0, 1, 12)
    widths = []
    for slices in (4, 40):
        values = np.concatenate([rng.normal(mean, 0.2, slices) for mean in means])
        patients = np.repeat(np.arange(12), slices).tolist()
        low, high = interval_by_patient(values.tolist(), patients)
        assert low < 0 < high
        widths.append(high - low)
        naive = np.diff(interval(values.tolist()))[0]
    theory = 2 * 1.96 * means.std() / math.sqrt(12)
    assert widths == pytest.approx([theory, theory], rel=0.08)
    assert naive < widths[1] / 2


def test_slices_of_one_kind_of_patient_vary_too() -> None:
    # All patients alike: what is left is the slices' own variance, of 5 x 6 of them.
    slices = np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 1.5])
    values, patients = np.tile(slices, 5), np.repeat(np.arange(5), 6).tolist()
    low, high = interval_by_patient(values.tolist(), patients)
    assert high - low == pytest.approx(2 * 1.96 * slices.std() / math.sqrt(30), rel=0.06)
    assert (low + high) / 2 == pytest.approx(0, abs=0.05)


def test_patients_count_alike_however_many_slices_they_have() -> None:
    values = [0.0] * 90 + [1.0] + [2.0]
    patients = ["a"] * 90 + ["b", "c"]
    low, high = interval_by_patient(values, patients)
    assert (low + high) / 2 == pytest.approx(1.0, abs=0.1)  # the mean of 0, 1 and 2, not of 92 slices
    assert interval_by_patient([*values, math.nan], [*patients, "d"]) == (low, high)
    with pytest.raises(ValueError, match="3 of them or more, got 2"):
        interval_by_patient([1.0, 2.0, math.nan], ["a", "b", "c"])
