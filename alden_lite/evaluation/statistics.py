"""Is one method better than another, for patients not yet seen? Taught in chapter 09.

Slices of one patient resemble each other: a hundred slices of one patient say little about the next one. So
the patient is the unit here. Average each patient's slices, subtract, and ask how the differences vary from
patient to patient: an interval, an effect size, a test, and a correction when many are made.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

__all__ = ["Comparison", "by_patient", "compare", "holm", "interval", "interval_by_patient"]

FEWEST = 6
"""Patients that a test needs: of the 2^n ways to choose signs two are the most extreme, and 2/2^5 > 0.05."""

RESAMPLES = 2000


def interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval (BCa) of the mean of values such as one difference a patient.

    With one value a slice it is narrower than what other patients would show: see `interval_by_patient`.
    With few values it is too narrow as well: of ten it covers the truth in about 90 % of cases.

    Raises:
        ValueError: with fewer than 3 values that are numbers.

    Source: Efron, JASA 82:171 (1987), as scipy has it.
    """
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    if len(known) < 3:
        raise ValueError(f"an interval needs 3 values or more, got {len(known)}")
    if np.ptp(known) == 0:
        return float(known[0]), float(known[0])
    found = stats.bootstrap((known,), np.mean, n_resamples=RESAMPLES, rng=np.random.default_rng(seed))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def by_patient(values: Sequence[float], patients: Sequence[Hashable]) -> dict[str, float]:
    """One number a patient: the mean over the patient's slices.

    Args:
        values: a figure, one a slice. NaN says that a slice has none, such as noise without soft tissue; such
            slices are left out.
        patients: whose slice it is: a name or a number a slice.

    Returns:
        Means by patient (as text), in order of first appearance; NaN where no slice has the figure.

    Raises:
        ValueError: on different lengths, no values, or an infinite one (PSNR of equal slices).

    >>> by_patient([1.0, 3.0, 5.0], ["anna", "anna", "bo"])
    {'anna': 2.0, 'bo': 5.0}
    """
    return {
        name: float(known.mean()) if len(known) else math.nan
        for name, known in _slices(values, patients).items()
    }


@dataclass(frozen=True)
class Comparison:
    """Ours less theirs over n patients: the `mean` difference with its 95 % interval from `low` to `high`;
    `effect` in [-1, 1], 1 where ours is larger in every patient; `p`, two-sided."""

    n: int
    mean: float
    low: float
    high: float
    effect: float
    p: float


def compare(ours: Mapping[str, float], theirs: Mapping[str, float], *, seed: int = 0) -> Comparison:
    """Compare two methods on the same patients.

    The interval is `interval`'s. The test is Wilcoxon's signed-rank test: does the difference lie around 0?
    It is exact, with ties too, for which scipy's is not. Patients without a difference have no say in it.
    The effect is the matched-pairs rank-biserial
    correlation, (sum of ranks for us - sum against us) / sum of all.

    Args:
        ours, theirs: one value a patient, as `by_patient` gives them.
        seed: of the bootstrap.

    Raises:
        ValueError: on other patients, a value that is no number, or fewer than 6 patients: then p cannot
            fall below 0.05, whatever the values.

    Source: Wilcoxon, Biometrics Bulletin 1:80 (1945); Kerby, Comprehensive Psychology 3:1 (2014).

    >>> a = {"p1": 30.0, "p2": 31.0, "p3": 29.0, "p4": 33.0, "p5": 30.5, "p6": 32.0}
    >>> b = {"p1": 29.0, "p2": 29.5, "p3": 28.8, "p4": 32.4, "p5": 30.2, "p6": 31.1}
    >>> compare(a, b).p, compare(a, b).effect
    (0.03125, 1.0)
    """
    if ours.keys() != theirs.keys():
        raise ValueError(f"other patients: {sorted(ours.keys() ^ theirs.keys())} are on one side only")
    if unknown := sorted(name for name in ours if not math.isfinite(ours[name] - theirs[name])):
        raise ValueError(f"no number for {unknown} (NaN or infinite): leave them out on both sides")
    if len(ours) < FEWEST:
        raise ValueError(
            f"{len(ours)} patients cannot show anything: p of a two-sided exact Wilcoxon test reaches 0.05 "
            f"with {FEWEST} at the earliest. More slices do not help, more patients do"
        )
    difference = np.array([ours[name] - theirs[name] for name in ours])
    low, high = interval(difference.tolist(), seed=seed)
    effect, p = _signed_ranks(difference[difference != 0])
    return Comparison(len(difference), float(difference.mean()), low, high, effect, p)


def _signed_ranks(difference: np.ndarray) -> tuple[float, float]:
    """Rank-biserial correlation and two-sided p of differences (n,), none of them 0."""
    if len(difference) == 0:
        return 0.0, 1.0
    ranks = np.rint(2 * stats.rankdata(np.abs(difference))).astype(int)  # doubled: tied ranks are halves
    effect = float((np.sign(difference) * ranks).sum() / ranks.sum())
    chance = np.ones(1)  # of each sum of the ranks that speak for us, when every sign is a coin's
    for rank in ranks:
        chance = (np.pad(chance, (0, rank)) + np.pad(chance, (rank, 0))) / 2
    for_us = ranks[difference > 0].sum()
    return effect, min(1.0, 2 * float(min(chance[: for_us + 1].sum(), chance[for_us:].sum())))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p values adjusted for their number (Holm): one below 0.05 may be called a difference.

    Among 14 tests where nothing is to be found one falls below 0.05 about every second time; after adjusting,
    one table in twenty has such a finding at most, whether the tests depend on each other or not.

    Args:
        p_values: by name of the comparison: all that were made, not only those that look good.

    Returns:
        Adjusted p values in the same order, at most 1.

    Raises:
        ValueError: on a p value outside [0, 1] or NaN.

    Source: Holm, Scandinavian Journal of Statistics 6:65 (1979).

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    if bad := {name: p for name, p in p_values.items() if not 0 <= p <= 1}:
        raise ValueError(f"a p value lies in [0, 1], got {bad}")
    ascending = sorted(p_values, key=p_values.__getitem__)
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(ascending):
        largest = max(largest, min(1.0, (len(ascending) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def interval_by_patient(
    values: Sequence[float], patients: Sequence[Hashable], *, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean over patients, of values such as one difference a slice.

    The bootstrap draws patients with replacement, then each one's slices, and takes the mean of the patients'
    means: patients count alike, however many slices they have. Its ends are the 2.5th and 97.5th percentile.

    Args:
        values, patients: as for `by_patient`; a patient without any value is left out.

    Raises:
        ValueError: as `by_patient`, and with fewer than 3 patients who have values.

    Source: Davison & Hinkley, Bootstrap Methods and their Application (1997), section 3.8: drawing slices too
    makes the interval slightly too wide; with few patients all bootstrap intervals are too narrow.
    """
    groups = [known for known in _slices(values, patients).values() if len(known)]
    if len(groups) < 3:
        raise ValueError(f"an interval over patients needs 3 of them or more, got {len(groups)}")
    rng = np.random.default_rng(seed)
    # Means of resampled slices, for every patient as often as a patient may be drawn: (patients, R, patients)
    n = len(groups)
    means = np.stack([rng.choice(known, (RESAMPLES, n, len(known))).mean(2) for known in groups])
    drawn = rng.integers(n, size=(RESAMPLES, n))
    resampled = means[drawn, np.arange(RESAMPLES)[:, None], np.arange(n)].mean(1)
    low, high = np.percentile(resampled, (2.5, 97.5))
    return float(low), float(high)


def _slices(values: Sequence[float], patients: Sequence[Hashable]) -> dict[str, np.ndarray]:
    """Known values of each patient's slices."""
    numbers = np.asarray(values, dtype=float)
    if numbers.ndim != 1 or len(numbers) != len(patients):
        raise ValueError(f"one patient a value: got values {numbers.shape} and {len(patients)} patients")
    if len(numbers) == 0:
        raise ValueError("no values: not one slice of one patient")
    if np.isinf(numbers).any():
        raise ValueError("an infinite value (PSNR of equal slices?) has no mean: compare RMSE")
    names = np.array([str(patient) for patient in patients])
    order = dict.fromkeys(names.tolist())
    return {name: (own := numbers[names == name])[~np.isnan(own)] for name in order}
