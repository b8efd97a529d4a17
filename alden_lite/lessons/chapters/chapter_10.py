"""Exercises of chapter 10: paired differences, the bootstrap, and what intervals say about a claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alden_lite.lessons.exercises import Attempt, Exercise, Mistake, same

__all__ = ["EXERCISES", "MODES", "Settings", "bootstrap_interval", "paired_difference", "verdict"]


def paired_difference(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Each slice's difference `(slices,)`, ours minus theirs, of means over the seeds of `(seeds, slices)`.

    The two may have different numbers of seeds, but the same slices in the same order.
    """
    return np.mean(ours, axis=0) - np.mean(theirs, axis=0)


def bootstrap_interval(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values` `(n,)`, from 2000 resamples with replacement."""
    samples = rng.choice(values, size=(2000, len(values)))
    low, high = np.percentile(samples.mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def verdict(intervals: Sequence[tuple[float, float]], wanted: Sequence[int]) -> str:
    """What intervals of differences say about a claim: "seen", "not seen" or "cannot be told".

    `wanted` has +1 for each difference that the claim says is above 0, and -1 for one below. A claim is
    seen if all intervals lie on the claimed side of 0, and not seen if one lies wholly on the other side.
    """
    turned = [sorted((sign * low, sign * high)) for (low, high), sign in zip(intervals, wanted, strict=True)]
    if all(low > 0 for low, _ in turned):
        return "seen"
    return "not seen" if any(high < 0 for _, high in turned) else "cannot be told"


# 10.1


def _one_difference_a_slice(attempt: Attempt) -> None:
    ours, theirs = _figures(3, 5), _figures(3, 5, seed=1)
    shape = np.shape(attempt(ours, theirs))
    if shape != (5,):
        raise Mistake(f"3 seeds and 5 slices give one difference a slice, (5,); your shape is {shape}")


def _better_is_above_0(attempt: Attempt) -> None:
    ours, theirs = np.array([[31.0, 34.0]]), np.array([[30.0, 32.0]])
    got = attempt(ours, theirs)
    if np.allclose(got, [-1, -2]):
        raise Mistake("for ours [[31, 34]] and theirs [[30, 32]] expected [1, 2], yours has the other sign")
    same(got, [1.0, 2.0], "for ours [[31, 34]] and theirs [[30, 32]]")


def _a_hard_slice_cancels(attempt: Attempt) -> None:
    ours, theirs, hard = _figures(2, 4), _figures(2, 4, seed=1), np.array([0.0, -9.0, 0.0, 4.0])
    same(
        attempt(ours + hard, theirs + hard),
        paired_difference(ours, theirs),
        "with a slice that is 9 dB harder and one that is 4 dB easier for both,",
    )


def _seeds_are_averaged(attempt: Attempt) -> None:
    same(
        attempt(np.array([[30.0, 30.0], [32.0, 36.0]]), np.array([[30.0, 30.0], [30.0, 30.0]])),
        [1.0, 3.0],
        "for ours [[30, 30], [32, 36]] and theirs all 30",
    )


def _numbers_of_seeds_may_differ(attempt: Attempt) -> None:
    same(
        attempt(np.array([[31.0, 31.0], [32.0, 32.0], [36.0, 36.0]]), np.array([[30.0, 30.0]])),
        [3.0, 3.0],
        "for three seeds of ours (31, 32, 36 dB) and one of theirs (30 dB)",
    )


def _the_figures_stay_as_they_are(attempt: Attempt) -> None:
    ours, theirs = _figures(2, 3), _figures(2, 3, seed=1)
    attempt(ours, theirs)
    for before, after in zip((ours, theirs), attempt.received, strict=False):
        if not np.array_equal(before, after):
            raise Mistake("your function changes the figures it was given: does it use -= or += ?")


def _equals_the_reference_difference(attempt: Attempt) -> None:
    for seeds, slices in ((1, 3), (3, 7), (4, 4)):
        ours, theirs = _figures(seeds, slices), _figures(seeds + 1, slices, seed=1)
        same(attempt(ours, theirs), paired_difference(ours, theirs), f"for {seeds} seeds and {slices} slices")


def _figures(seeds: int, slices: int, *, seed: int = 0) -> np.ndarray:
    return 32 + np.random.default_rng(seed).normal(size=(seeds, slices))


# 10.2


def _two_ends_low_first(attempt: Attempt) -> None:
    low, high = _ends(attempt, np.arange(20.0))
    if low > high:
        raise Mistake(f"for 0, 1, ..., 19 your ends are {low:.3g} and {high:.3g}: the low one comes first")


def _equal_values_have_no_width(attempt: Attempt) -> None:
    ends = _ends(attempt, np.full(9, 4.0))
    same(np.array(ends), [4.0, 4.0], "for nine values of 4")


def _it_is_an_interval_of_the_mean(attempt: Attempt) -> None:
    values = np.random.default_rng(1).normal(0.0, 1.0, 400)
    low, high = _ends(attempt, values)
    if low < -1:
        raise Mistake(
            f"for 400 normal values with spread 1 the mean is known to 0.1, yours goes from {low:.2f} to "
            f"{high:.2f}: that is where values lie, not where their mean does"
        )
    if high - low < 1e-6:
        raise Mistake(
            "for 400 different values your interval has no width: "
            "with replacement, some are drawn twice and others never"
        )
    centre = (low + high) / 2
    if abs(centre - values.mean()) > 0.03:
        raise Mistake(f"for 400 values with the mean {values.mean():.3f} your middle is {centre:.3f}")


def _it_holds_95_percent(attempt: Attempt) -> None:
    for n in (20, 200):
        values = np.random.default_rng(n).normal(0.0, 3.0, n)
        low, high = _ends(attempt, values)
        expected = 2 * 1.96 * values.std() / n**0.5
        if not 0.9 < (high - low) / expected < 1.1:
            raise Mistake(
                f"for {n} normal values the middle 95 % of resampled means are {expected:.2f} wide, yours "
                f"{high - low:.2f}"
            )


def _it_follows_values_that_lean(attempt: Attempt) -> None:
    values = np.array([0.0] * 19 + [20.0])
    low, high = _ends(attempt, values)
    if low < 0:
        raise Mistake(
            "for nineteen 0s and a 20 no resampled mean is below 0, "
            f"yours begins at {low:.2f}: take percentiles of the means"
        )
    if not 2.0 <= high <= 4.0:
        raise Mistake(f"for nineteen 0s and a 20 expected an upper end of about 3, yours is {high:.2f}")


def _chance_comes_from_the_generator(attempt: Attempt) -> None:
    values = np.random.default_rng(2).normal(size=30)
    first, again, other = (_ends(attempt, values, seed=seed) for seed in (5, 5, 6))
    if first != again:
        raise Mistake("with the same generator twice your ends differ: draw with `rng` alone")
    if first == other:
        raise Mistake(
            "with another generator your ends are the same: draw with `rng`, without a seed of your own"
        )


def _ends(attempt: Attempt, values: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    got = np.asarray(attempt(values, np.random.default_rng(seed)), dtype=float)
    if got.shape != (2,) or not np.isfinite(got).all():
        raise Mistake(f"your function should return two numbers, low and high; it returned {got}")
    return float(got[0]), float(got[1])


# 10.3


def _one_difference_one_side(attempt: Attempt) -> None:
    for (low, high), expected in (
        ((0.1, 0.3), "seen"),
        ((-0.3, -0.1), "not seen"),
        ((-0.1, 0.3), "cannot be told"),
    ):
        _says(attempt, [(low, high)], [1], expected)


def _below_0_may_be_what_is_wanted(attempt: Attempt) -> None:
    _says(attempt, [(-0.03, -0.01)], [-1], "seen")
    _says(attempt, [(0.01, 0.03)], [-1], "not seen")
    _says(attempt, [(-0.01, 0.03)], [-1], "cannot be told")


def _touching_0_tells_nothing(attempt: Attempt) -> None:
    _says(attempt, [(0.0, 0.4)], [1], "cannot be told")
    _says(attempt, [(-0.4, 0.0)], [1], "cannot be told")


def _a_claim_is_seen_when_all_of_it_is(attempt: Attempt) -> None:
    _says(attempt, [(0.1, 0.2), (0.01, 0.02), (-3.0, -1.0)], [1, 1, -1], "seen")
    _says(attempt, [(0.1, 0.2), (-0.01, 0.02), (-3.0, -1.0)], [1, 1, -1], "cannot be told")


def _one_clear_no_is_enough(attempt: Attempt) -> None:
    _says(attempt, [(0.1, 0.2), (-0.02, -0.01)], [1, 1], "not seen")
    _says(attempt, [(-0.2, 0.1), (0.01, 0.02)], [1, -1], "not seen")


def _equals_the_reference_verdict(attempt: Attempt) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        count = int(rng.integers(1, 4))
        ends = np.sort(rng.normal(0.8, 1.0, (count, 2)), axis=1)
        wanted = [int(sign) for sign in rng.choice([1, 1, 1, -1], count)]
        intervals = [(round(float(low), 2), round(float(high), 2)) for low, high in ends]
        _says(attempt, intervals, wanted, verdict(intervals, wanted))


def _says(
    attempt: Attempt, intervals: Sequence[tuple[float, float]], wanted: Sequence[int], expected: str
) -> None:
    got = attempt(list(intervals), list(wanted))
    if got != expected:
        raise Mistake(
            f"for intervals {intervals}, wanted {wanted}, expected {expected!r}, yours says {got!r}"
        )


EXERCISES = {
    "10.1": Exercise(
        answer=paired_difference,
        properties={
            "one difference a slice": _one_difference_a_slice,
            "better is above 0": _better_is_above_0,
            "a hard slice cancels": _a_hard_slice_cancels,
            "seeds are averaged": _seeds_are_averaged,
            "numbers of seeds may differ": _numbers_of_seeds_may_differ,
            "the figures stay as they are": _the_figures_stay_as_they_are,
            "equals the reference answer": _equals_the_reference_difference,
        },
        hints=(
            "A row is a training run, a column a slice. Runs are averaged, slices are compared.",
            "Average each table over its rows before you subtract; they may differ in rows.",
            "ours.mean(axis=0) - theirs.mean(axis=0)",
        ),
    ),
    "10.2": Exercise(
        answer=bootstrap_interval,
        properties={
            "two ends, the low one first": _two_ends_low_first,
            "equal values have no width": _equal_values_have_no_width,
            "it is an interval of the mean": _it_is_an_interval_of_the_mean,
            "it holds 95 % of the means": _it_holds_95_percent,
            "it follows values that lean to one side": _it_follows_values_that_lean,
            "chance comes from the generator": _chance_comes_from_the_generator,
        },
        hints=(
            "Make as many new sets of slices as you like: draw n of the n values, with replacement.",
            "rng.choice(values, size=(2000, len(values))) is 2000 such sets, a row each.",
            "Each row has a mean. The interval holds the middle 95 % of these 2000 means.",
            "np.percentile(samples.mean(axis=1), [2.5, 97.5])",
        ),
    ),
    "10.3": Exercise(
        answer=verdict,
        properties={
            "one difference lies on one side, or on both": _one_difference_one_side,
            "below 0 may be what is wanted": _below_0_may_be_what_is_wanted,
            "an interval that touches 0 tells nothing": _touching_0_tells_nothing,
            "a claim is seen when all of it is": _a_claim_is_seen_when_all_of_it_is,
            "one clear no is enough": _one_clear_no_is_enough,
            "equals the reference answer": _equals_the_reference_verdict,
        },
        hints=(
            "Think of one interval first: wholly where it should be, wholly on the other side, or around 0.",
            "With wanted = -1 turn the interval round: its ends become -high and -low.",
            "Seen needs all intervals; not seen needs one; the rest cannot be told.",
            'if all(low > 0 ...): "seen"; elif any(high < 0 ...): "not seen"; else "cannot be told"',
        ),
    ),
}


# How much each mode computes


@dataclass(frozen=True)
class Settings:
    """How long each ablation trains."""

    every: int  # use every n-th training slice
    recipe: Mapping[str, Any]  # fields of `alden.Recipe` that differ from the study's


MODES = {
    "fast": Settings(
        every=8,
        recipe={
            "steps": 10,
            "batch": 4,
            "bank": 16,
            "learning_rate": 5e-4,
            "warmup": 2,
            "average": 0.8,
            "precision": "32-true",
            "accelerator": "cpu",
        },
    ),
    "laptop": Settings(every=2, recipe={"steps": 80, "average": 0.95, "precision": "32-true"}),
    "full": Settings(every=1, recipe={}),
}
