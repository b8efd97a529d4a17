"""Exercises of chapter 09: means of decibels, patients as units, an observer, and many comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alden_lite.lessons.exercises import Attempt, Exercise, Mistake, same

__all__ = ["EXERCISES", "MODES", "Settings", "holm_adjusted", "observer", "patient_interval", "psnr_two_ways"]


def psnr_two_ways(mse: np.ndarray, width: float) -> tuple[float, float]:
    """Mean of the slices' PSNRs, and the PSNR of their mean squared error, both in dB.

    `mse` `(n,)` in HU², one a slice; `width` of the window in HU.
    """
    each = 10 * np.log10(width**2 / mse)
    return float(each.mean()), float(10 * np.log10(width**2 / mse.mean()))


def patient_interval(values: Sequence[np.ndarray], rng: np.random.Generator) -> tuple[float, float]:
    """95 % interval of the mean over patients: 2000 times draw patients, then slices of each.

    `values` has one array a patient, of any length; all drawing is with replacement.
    """
    means = np.empty(2000)
    for number in range(2000):
        drawn = rng.integers(len(values), size=len(values))
        means[number] = np.mean(
            [rng.choice(values[patient], len(values[patient])).mean() for patient in drawn]
        )
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def observer(present: np.ndarray, absent: np.ndarray, template: np.ndarray) -> float:
    """d' of an observer that multiplies each scan with the template and adds up.

    `present` and `absent` `(K, Y, X)` in HU, `template` `(Y, X)`.
    """
    seen, unseen = ((scans * template).sum((1, 2)) for scans in (present, absent))
    spread = math.sqrt((seen.var(ddof=1) + unseen.var(ddof=1)) / 2)
    return float((seen.mean() - unseen.mean()) / spread)


def holm_adjusted(p: np.ndarray) -> np.ndarray:
    """p values `(m,)` after Holm's correction, in the order they came in."""
    order = np.argsort(p)
    factors = len(p) - np.arange(len(p))  # m for the smallest, 1 for the largest
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1)
    return adjusted


# 09.1


def _both_means(attempt: Attempt, mse: np.ndarray, width: float) -> tuple[float, float]:
    return _two_numbers(attempt(mse, width), "the mean of PSNRs and the PSNR of the mean")


def _one_slice_has_one_psnr(attempt: Attempt) -> None:
    for error, width in ((100.0, 400.0), (81.0, 400.0), (1.0, 10.0)):
        expected = 20 * math.log10(width / math.sqrt(error))
        got = _both_means(attempt, np.array([error]), width)
        same(np.array(got), [expected, expected], f"for one slice with MSE {error:g}, width {width:g}")


def _the_width_counts(attempt: Attempt) -> None:
    mse = np.array([50.0, 200.0])
    narrow, wide = (np.array(_both_means(attempt, mse, width)) for width in (400.0, 4000.0))
    same(wide - narrow, [20.0, 20.0], "for a window ten times as wide, the gain in dB:")


def _decibels_are_averaged_first(attempt: Attempt) -> None:
    first, _ = _both_means(attempt, np.array([1.0, 10_000.0]), 1000.0)
    same(first, 40.0, "for MSE 1 and 10,000 and width 1000 (60 and 20 dB), first")


def _errors_are_averaged_second(attempt: Attempt) -> None:
    _, second = _both_means(attempt, np.array([1.0, 19_999.0]), 1000.0)
    if math.isclose(second, 20 * math.log10(1000 / ((1 + 19_999**0.5) / 2)), rel_tol=1e-6):
        raise Mistake("for MSE 1 and 19,999 your second number averages roots: average squared errors")
    same(second, 20.0, "for MSE 1 and 19,999 (mean 10,000) and width 1000, second")


def _the_first_is_never_below(attempt: Attempt) -> None:
    for seed in range(5):
        first, second = _both_means(attempt, _errors(6, seed=seed), 400.0)
        if first < second:
            raise Mistake(
                f"for unequal errors the mean of PSNRs is above the PSNR of the mean; yours are {first:.3f} "
                f"and {second:.3f}"
            )


def _equals_the_reference_psnr(attempt: Attempt) -> None:
    for n, width in ((2, 400.0), (7, 1500.0), (30, 4096.0)):
        mse = _errors(n, seed=n)
        same(np.array(_both_means(attempt, mse, width)), psnr_two_ways(mse, width), f"for {n} slices")


def _errors(n: int, *, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(20, 900, n)


def _two_numbers(got: object, what: str) -> tuple[float, float]:
    try:
        numbers = np.asarray(got, dtype=float)
    except (TypeError, ValueError):  # text, or arrays of different lengths
        numbers = np.empty(0)
    if numbers.shape != (2,) or not np.isfinite(numbers).all():
        raise Mistake(f"your function should return two numbers, {what}; it returned {got}")
    return float(numbers[0]), float(numbers[1])


# 09.2


def _ends(attempt: Attempt, values: Sequence[np.ndarray], *, seed: int = 0) -> tuple[float, float]:
    got = attempt(list(values), np.random.default_rng(seed))
    return _two_numbers(got, "the low and the high end")


def _two_ends_low_first(attempt: Attempt) -> None:
    low, high = _ends(attempt, _patients(5, 4))
    if low > high:
        raise Mistake(f"your ends are {low:.3g} and {high:.3g}: the low one comes first")


def _equal_values_have_no_width(attempt: Attempt) -> None:
    same(np.array(_ends(attempt, [np.full(3, 4.0)] * 4)), [4.0, 4.0], "for four patients, all slices 4,")


def _more_slices_of_the_same_do_not_help(attempt: Attempt) -> None:
    means = np.array([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0])
    widths = [np.ptp(_ends(attempt, [np.full(n, mean) for mean in means])) for n in (2, 30)]
    if widths[0] < 1e-6:
        raise Mistake(
            "for seven patients who differ your interval has no width: draw with replacement, "
            "so that some patients come twice and others never"
        )
    if widths[1] < 0.8 * widths[0]:
        raise Mistake(
            f"for seven patients whose slices are all alike, 2 slices each give a width of {widths[0]:.2f} "
            f"and 30 slices each {widths[1]:.2f}: repeating a slice tells nothing about other patients"
        )


def _slices_are_drawn_as_well(attempt: Attempt) -> None:
    low, high = _ends(attempt, [np.array([-3.0, 3.0])] * 4)
    if high - low < 1e-6:
        raise Mistake(
            "for four patients with slices of -3 and 3 each your interval has no width: "
            "after a patient is drawn, draw among the patient's slices too"
        )


def _patients_count_alike(attempt: Attempt) -> None:
    many, few = [np.full(60, 0.0)] * 4, [np.full(2, 1.0)] * 4
    middle = float(np.mean(_ends(attempt, [*many, *few])))
    if not 0.35 < middle < 0.65:
        raise Mistake(
            "for four patients with 60 slices of 0 and four with 2 slices of 1 the middle should be about "
            f"0.5, yours is {middle:.2f}: take the mean of each patient drawn, then the mean of those"
        )


def _it_is_as_wide_as_it_should_be(attempt: Attempt) -> None:
    for values in (_patients(6, 3), [np.arange(-6.0, 7.0)] * 5):
        expected, got = (
            np.ptp(patient_interval(values, np.random.default_rng(1))),
            np.ptp(_ends(attempt, values)),
        )
        if not 0.88 < got / expected < 1.12:
            raise Mistake(
                f"for {len(values)} patients of {len(values[0])} slices the middle 95 % of resampled means "
                f"are {expected:.2f} wide, yours {got:.2f}"
            )


def _chance_comes_from_the_generator(attempt: Attempt) -> None:
    values = _patients(5, 3)
    first, again, other = (_ends(attempt, values, seed=seed) for seed in (5, 5, 6))
    if first != again:
        raise Mistake("with the same generator twice your ends differ: draw with `rng` alone")
    if first == other:
        raise Mistake("with another generator your ends are the same: use `rng`, without a seed of your own")


def _patients(count: int, slices: int) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    return [rng.normal(mean, 1.0, slices) for mean in rng.normal(0, 3.0, count)]


# 09.3


def _responses_by_hand(attempt: Attempt) -> None:
    present, absent = np.array([[[3.0]], [[5.0]]]), np.array([[[0.0]], [[2.0]]])
    same(
        attempt(present, absent, np.ones((1, 1))),
        3 / math.sqrt(2),
        "for one pixel, 3 and 5 HU with the lesion, 0 and 2 without (means 4 and 1, variances 2),",
    )


def _both_spreads_count(attempt: Attempt) -> None:
    present, absent = np.array([[[0.0]], [[8.0]]]), np.array([[[0.0]], [[2.0]]])
    same(
        attempt(present, absent, np.ones((1, 1))),
        3 / math.sqrt(17),
        "for 0 and 8 HU with the lesion, 0 and 2 without (variances 32 and 2, mean 17),",
    )


def _only_the_template_is_looked_at(attempt: Attempt) -> None:
    rng = np.random.default_rng(0)
    present, absent, template = _scans(rng, 0.0)
    first = _number(attempt(present, absent, template))
    elsewhere = np.where(template == 0, 1.0, 0.0)
    same(
        attempt(present + 50 * elsewhere, absent, template),
        first,
        "after 50 HU were added to the scans with the lesion where the template is 0,",
    )


def _the_templates_scale_is_free(attempt: Attempt) -> None:
    present, absent, template = _scans(np.random.default_rng(1), 10.0)
    expected = observer(present, absent, template)
    same(attempt(present, absent, 7 * template), expected, "for a template seven times as strong")


def _a_dark_lesion_is_a_lesion(attempt: Attempt) -> None:
    present, absent, template = _scans(np.random.default_rng(2), 10.0)
    expected = observer(present, absent, template)
    same(attempt(-present, -absent, -template), expected, "for a dark lesion and a dark template")


def _a_lesion_that_is_not_there(attempt: Attempt) -> None:
    present, absent, template = _scans(np.random.default_rng(3), 5.0)
    one, other = _number(attempt(present, absent, template)), _number(attempt(absent, present, template))
    if one != 0 and math.isclose(one, other):
        raise Mistake("with both kinds of scans swapped your d' is the same: it should turn its sign")
    same(other, -one, "with both kinds of scans swapped")


def _equals_the_reference_observer(attempt: Attempt) -> None:
    for seed in range(4):
        present, absent, template = _scans(np.random.default_rng(seed), 8.0)
        same(attempt(present, absent, template), observer(present, absent, template), "for 9 and 9 scans")


def _scans(rng: np.random.Generator, contrast: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    template = np.zeros((6, 5))
    template[2:4, 1:4] = ((0.5, 1.0, 0.5), (0.5, 1.0, 0.5))
    present, absent = rng.normal(40, 12, (2, 9, 6, 5))
    return present + contrast * template, absent, template


def _number(got: object) -> float:
    value = np.asarray(got, dtype=float)
    if value.shape != () or not np.isfinite(value):
        raise Mistake(f"your function should return one number, it returned {got}")
    return float(value)


# 09.4


def _one_p_stays(attempt: Attempt) -> None:
    same(attempt(np.array([0.03])), [0.03], "for a single p of 0.03")


def _the_smallest_pays_for_all(attempt: Attempt) -> None:
    got = np.asarray(attempt(np.array([0.001, 0.5, 0.6, 0.7])), dtype=float)
    if got.shape != (4,):
        raise Mistake(f"four p values in, four out; your shape is {got.shape}")
    same(got[0], 0.004, "for 0.001 among four, the first")


def _the_next_pays_for_one_less(attempt: Attempt) -> None:
    same(attempt(np.array([0.001, 0.01, 0.02])), [0.003, 0.02, 0.02], "for 0.001, 0.01 and 0.02")


def _the_order_is_kept(attempt: Attempt) -> None:
    same(attempt(np.array([0.02, 0.001, 0.01])), [0.02, 0.003, 0.02], "for 0.02, 0.001 and 0.01")


def _a_larger_p_never_gets_ahead(attempt: Attempt) -> None:
    same(attempt(np.array([0.02, 0.021, 0.022])), [0.06, 0.06, 0.06], "for 0.02, 0.021 and 0.022")


def _none_is_above_1(attempt: Attempt) -> None:
    same(attempt(np.array([0.4, 0.9])), [0.8, 0.9], "for 0.4 and 0.9")
    same(attempt(np.array([0.7, 0.8, 0.6])), [1.0, 1.0, 1.0], "for 0.7, 0.8 and 0.6")


def _equals_the_reference_holm(attempt: Attempt) -> None:
    rng = np.random.default_rng(0)
    for m in (2, 5, 14):
        p = rng.uniform(0, 1, m) ** 3
        same(attempt(p.copy()), holm_adjusted(p), f"for {m} p values")


EXERCISES = {
    "09.1": Exercise(
        answer=psnr_two_ways,
        properties={
            "one slice has one PSNR": _one_slice_has_one_psnr,
            "the window's width counts": _the_width_counts,
            "first: decibels are averaged": _decibels_are_averaged_first,
            "second: squared errors are averaged": _errors_are_averaged_second,
            "the first is never below the second": _the_first_is_never_below,
            "equals the reference answer": _equals_the_reference_psnr,
        },
        hints=(
            "PSNR of one slice is 10 log10(width² / MSE). First number: one for each slice, then the mean.",
            "The second: the mean of the MSEs, then one PSNR.",
            "10 * np.log10(width**2 / mse).mean() is not 10 * np.log10(width**2 / mse.mean())",
        ),
    ),
    "09.2": Exercise(
        answer=patient_interval,
        properties={
            "two ends, the low one first": _two_ends_low_first,
            "equal values have no width": _equal_values_have_no_width,
            "more slices of the same do not help": _more_slices_of_the_same_do_not_help,
            "slices are drawn as well": _slices_are_drawn_as_well,
            "patients count alike": _patients_count_alike,
            "it is as wide as it should be": _it_is_as_wide_as_it_should_be,
            "chance comes from the generator": _chance_comes_from_the_generator,
        },
        hints=(
            "One resample: draw as many patients as there are, with replacement.",
            "For each of them, as often as it was drawn: draw as many slices as it has, and take their mean.",
            "The mean of those means is one resampled mean. Make 2000, and take percentiles 2.5 and 97.5.",
            "rng.integers(len(values), size=len(values)) draws patients, rng.choice(v, len(v)) one's slices",
        ),
    ),
    "09.3": Exercise(
        answer=observer,
        properties={
            "responses by hand": _responses_by_hand,
            "both spreads count": _both_spreads_count,
            "only the template is looked at": _only_the_template_is_looked_at,
            "the template's scale is free": _the_templates_scale_is_free,
            "a dark lesion is a lesion": _a_dark_lesion_is_a_lesion,
            "swapped, the sign turns": _a_lesion_that_is_not_there,
            "equals the reference answer": _equals_the_reference_observer,
        },
        hints=(
            "First the responses: (scans * template).sum((1, 2)), one number a scan.",
            "Then the difference of their means, with the lesion less without.",
            "Divide by the root of the mean of both variances; var(ddof=1) divides by K - 1.",
        ),
    ),
    "09.4": Exercise(
        answer=holm_adjusted,
        properties={
            "one p stays as it is": _one_p_stays,
            "the smallest pays for all": _the_smallest_pays_for_all,
            "the next pays for one less": _the_next_pays_for_one_less,
            "the order is kept": _the_order_is_kept,
            "a larger p never gets ahead": _a_larger_p_never_gets_ahead,
            "none is above 1": _none_is_above_1,
            "equals the reference answer": _equals_the_reference_holm,
        },
        hints=(
            "Sort. Of m values, the smallest is multiplied by m, the next by m - 1, the largest by 1.",
            "No product may be below the one before it (np.maximum.accumulate), and none above 1.",
            "Put them back: with order = np.argsort(p), adjusted[order] = what you found in sorted order.",
        ),
    ),
}


# How much each mode computes


@dataclass(frozen=True)
class Settings:
    """How many slices, scans and phantoms the methods are compared on."""

    every: int  # use every n-th test slice
    scans: int  # repeated scans with the lesion, and as many without
    patients: int  # phantom patients


MODES = {
    "fast": Settings(every=4, scans=12, patients=1),
    "laptop": Settings(every=1, scans=80, patients=6),
    "full": Settings(every=1, scans=300, patients=30),
}
