"""Exercises of chapter 02: noise at another dose, a power spectrum's integral, photons thinned out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from alden_lite.lessons.exercises import Attempt, Exercise, Mistake, same

__all__ = ["EXERCISES", "MODES", "Settings", "noise_at_dose", "thin", "variance_of"]

Array = np.ndarray[Any, np.dtype[np.float64]]
Counts = np.ndarray[Any, np.dtype[np.int64]]


def noise_at_dose(sigma_hu: float, dose: float, photons: float, electronic: float) -> float:
    """Noise in HU at the fraction `dose`, of a scan with `sigma_hu` and `photons` a ray at full dose.

    A line integral from n photons, read with the electronic noise e, has the variance 1/n + e**2/n**2.
    """

    def variance(n: float) -> float:
        return 1 / n + electronic**2 / n**2

    return float(sigma_hu * math.sqrt(variance(dose * photons) / variance(photons)))


def variance_of(power: Array, frequency: Array) -> float:
    """Variance in HU² from the radial noise power `(n,)` in HU² mm² at `frequency` `(n,)` in 1/mm, ascending.

    A ring of radius f and width df has the area 2 pi f df.
    """
    return float(np.trapezoid(2 * np.pi * frequency * power, frequency))


def thin(counts: Counts, dose: float, rng: np.random.Generator) -> Counts:
    """What is left of `counts` (any shape) when each photon stays with the probability `dose`."""
    return rng.binomial(counts, dose)


# 02.1


def _full_dose_changes_nothing(attempt: Attempt) -> None:
    same(attempt(12.0, 1.0, 1000.0, 5.0), 12.0, "for 12 HU and a dose of 1, the full dose,")


def _without_electronics_it_is_the_law(attempt: Attempt) -> None:
    same(attempt(12.0, 0.25, 1000.0, 0.0), 24.0, "for 12 HU, dose 0.25 and no electronic noise")


def _electronics_matter_when_photons_are_few(attempt: Attempt) -> None:
    # Variances 1/100 + 100/100² = 0.02 at full dose, 1/50 + 100/50² = 0.06 at half of it.
    situation = "for 10 HU, dose 0.5, 100 photons and electronic noise 10 (variances 0.02 and 0.06)"
    same(attempt(10.0, 0.5, 100.0, 10.0), 10 * 3**0.5, situation)


def _twice_the_noise_is_twice_the_noise(attempt: Attempt) -> None:
    once, twice = (float(attempt(sigma, 0.1, 500.0, 5.0)) for sigma in (8.0, 16.0))
    if not math.isclose(twice, 2 * once, rel_tol=1e-6):
        raise Mistake(
            f"a scan with 8 HU gives {once:.4g} HU and one with 16 HU gives {twice:.4g} HU, not twice as much"
        )


def _equals_the_reference_noise(attempt: Attempt) -> None:
    for case in ((13.0, 0.1, 700.0, 5.0), (9.0, 0.02, 3000.0, 8.0), (20.0, 0.75, 50.0, 5.0)):
        sigma, dose, photons, electronic = case
        situation = f"for {sigma:g} HU, dose {dose:g}, {photons:g} photons, electronic noise {electronic:g}"
        same(attempt(*case), noise_at_dose(*case), situation)


# 02.2

_FLAT_TO_HALF = math.pi * 0.5**2  # area of the disc of frequencies up to 0.5/mm
_TELLING_VARIANCES = {
    0.5: "the area below the curve counts every frequency once; but a ring at f is 2 pi f long",
    0.125: "is the 2 pi of the ring's length there?",
    math.pi: "is the frequency f of the ring's length there?",
    math.sqrt(_FLAT_TO_HALF): "is a root taken? The variance was asked for, in HU²",
    _FLAT_TO_HALF / 2.5e-4: "is each ring as wide as two frequencies are apart? Here 0.00025/mm",
    math.pi / 2: "is this a mean over the frequencies? The rings add up, each with its width",
}
"""What common mistakes give for a power of 1 HU² mm² up to 0.5/mm, whose variance is pi/4 = 0.785 HU²."""


def _a_flat_spectrum_fills_a_disc(attempt: Attempt) -> None:
    frequency = np.linspace(0, 0.5, 2001)
    situation = "for a power of 1 HU² mm² from 0 to 0.5/mm"
    got = _number(attempt(np.ones(2001), frequency), situation)
    for value, question in _TELLING_VARIANCES.items():
        if math.isclose(got, value, rel_tol=2e-3):
            raise Mistake(
                f"{situation} expected {_FLAT_TO_HALF:.4g} HU², yours gives {value:.4g}: {question}"
            )
    _about(got, _FLAT_TO_HALF, situation)


def _variance_is_proportional_to_power(attempt: Attempt) -> None:
    frequency = np.linspace(0, 0.5, 2001)
    got = attempt(np.full(2001, 4.0), frequency)
    _about(got, 4 * _FLAT_TO_HALF, "for a power of 4 HU² mm² from 0 to 0.5/mm")


def _the_step_of_frequency_does_not_matter(attempt: Attempt) -> None:
    for points in (1001, 4001):
        got = attempt(np.ones(points), np.linspace(0, 0.5, points))
        _about(got, _FLAT_TO_HALF, f"for a power of 1 HU² mm² at {points} frequencies from 0 to 0.5/mm")


def _fine_noise_counts_more(attempt: Attempt) -> None:
    frequency = np.linspace(0, 0.3, 3001)
    expected = 2 * math.pi * 0.3**3 / 3
    _about(attempt(frequency.copy(), frequency), expected, "for a power that grows as f up to 0.3/mm")


def _about(got: object, expected: float, situation: str) -> None:
    """Like `same`, but to half a percent: a sum and the trapezoidal rule are both right answers."""
    number = _number(got, situation)
    if not math.isclose(number, expected, rel_tol=5e-3):
        raise Mistake(f"{situation} expected {expected:.4g} HU², yours gives {number:.4g}")


def _number(got: Any, situation: str) -> float:
    try:
        return float(got)
    except (TypeError, ValueError):
        kind = f"an array of shape {np.shape(got)}" if np.ndim(got) else type(got).__name__
        raise Mistake(f"{situation} expected one number, yours gives {kind}") from None


# 02.3

_MEAN, _DOSE, _RAYS = 100, 0.25, 40_000


def _dose_1_keeps_every_photon(attempt: Attempt) -> None:
    counts = np.array([[0, 1, 5], [40, 300, 2]])
    same(attempt(counts, 1.0, np.random.default_rng(0)), counts, "for [[0, 1, 5], [40, 300, 2]] and dose 1")


def _no_ray_gains_photons(attempt: Attempt) -> None:
    counts = np.repeat([0, 1, 2], 200)
    left = _thinned(attempt, counts, 0.5)
    if left.shape != counts.shape:
        raise Mistake(f"600 counts went in, the shape of yours is {left.shape}")
    wrong = np.flatnonzero((left > counts) | (left < 0))
    if wrong.size:
        ray = int(wrong[0])
        raise Mistake(
            f"a ray of {counts[ray]} photons has {left[ray]:g} left at dose 0.5: "
            "draw from the photons that were counted"
        )


def _photons_are_whole(attempt: Attempt) -> None:
    left = _thinned(attempt, np.array([1, 3, 7, 9]), 0.5)
    if not np.array_equal(left, np.round(left)):
        raise Mistake(f"of [1, 3, 7, 9] photons at dose 0.5 you leave {left.tolist()}: half a photon is none")


def _the_mean_falls_with_the_dose(attempt: Attempt) -> None:
    left = _thinned(attempt, _full_dose(), _DOSE)
    if not abs(left.mean() - _DOSE * _MEAN) < 0.2:
        raise Mistake(f"{_CASE} the mean should be near 25, yours is {left.mean():.4g}")


def _what_is_left_is_poisson_again(attempt: Attempt) -> None:
    left = _thinned(attempt, _full_dose(), _DOSE)
    if not 0.95 < left.var() / left.mean() < 1.05:
        raise Mistake(
            f"{_CASE} the variance should be near the mean, 25; yours is {left.var():.3g}: "
            "does chance decide about each photon, and only once?"
        )


def _the_two_scans_share_photons(attempt: Attempt) -> None:
    full = _full_dose()
    found = float(np.corrcoef(full, _thinned(attempt, full, _DOSE))[0, 1])
    if not abs(found - _DOSE**0.5) < 0.03:
        raise Mistake(f"{_CASE} the correlation with them should be near 0.5, yours is {found:.2f}")


_CASE = "for counts around 100 and dose 0.25"


def _full_dose() -> Counts:
    return np.random.default_rng(1).poisson(_MEAN, _RAYS)


def _thinned(attempt: Attempt, counts: Counts, dose: float) -> Array:
    left = attempt(counts, dose, np.random.default_rng(2))
    try:
        return np.asarray(left, dtype=np.float64)
    except (TypeError, ValueError):
        kind = type(left).__name__
        raise Mistake(f"your function should return an array of counts, it returned {kind}") from None


EXERCISES = {
    "02.1": Exercise(
        answer=noise_at_dose,
        properties={
            "full dose changes nothing": _full_dose_changes_nothing,
            "without electronic noise a quarter of the dose doubles it": _without_electronics_it_is_the_law,
            "electronic noise counts when photons are few": _electronics_matter_when_photons_are_few,
            "it is proportional to the noise of the scan": _twice_the_noise_is_twice_the_noise,
            "equals the reference answer": _equals_the_reference_noise,
        },
        hints=(
            "Noise in HU is proportional to the root of a line integral's variance.",
            "Write the variance as a function of the photons: 1 / n + electronic**2 / n**2.",
            "At the dose a, n is a * photons, in both terms.",
            "sigma_hu * (variance(dose * photons) / variance(photons)) ** 0.5",
        ),
    ),
    "02.2": Exercise(
        answer=variance_of,
        properties={
            "a flat spectrum fills a disc": _a_flat_spectrum_fills_a_disc,
            "four times the power is four times the variance": _variance_is_proportional_to_power,
            "the number of frequencies does not matter": _the_step_of_frequency_does_not_matter,
            "fine noise counts more": _fine_noise_counts_more,
        },
        hints=(
            "The variance is the volume below the power over the plane of fx and fy.",
            "The radial power is the same all along a ring. How long is a ring of radius f?",
            "Add up 2 * pi * f * power over f; each step is as wide as two frequencies are apart.",
            "np.trapezoid(2 * np.pi * frequency * power, frequency)",
        ),
    ),
    "02.3": Exercise(
        answer=thin,
        properties={
            "dose 1 keeps every photon": _dose_1_keeps_every_photon,
            "photons stay whole": _photons_are_whole,
            "the mean falls with the dose": _the_mean_falls_with_the_dose,
            "what is left is Poisson again": _what_is_left_is_poisson_again,
            "the two scans share photons": _the_two_scans_share_photons,
            "no ray gains photons": _no_ray_gains_photons,
        },
        hints=(
            "Toss a coin for every photon; it shows heads with the probability dose.",
            "The number of heads among n tosses has a name: it is a binomial number.",
            "rng.binomial takes a whole array of counts at once.",
            "return rng.binomial(counts, dose)",
        ),
    ),
}


# How much each mode computes


@dataclass(frozen=True)
class Settings:
    """How fine slices are, and how often water is scanned."""

    matrix: int  # pixels a side of a slice
    scans: int  # repeated scans of water, whose spread is the noise


MODES = {
    "fast": Settings(matrix=256, scans=40),
    "laptop": Settings(matrix=512, scans=100),
    "full": Settings(matrix=512, scans=200),
}
