"""Exercises of chapter 03: detail that was taken for noise, best guesses, how much input to mix back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from alden_lite.lessons.exercises import Attempt, Exercise, Mistake, same

__all__ = ["EXERCISES", "MODES", "Settings", "best_guesses", "share_of_noisy", "share_removed"]

Array = np.ndarray[Any, np.dtype[np.float64]]


def share_removed(detail: Array, residual: Array) -> float:
    """Share b of `detail` in `residual`, both `(n,)` in HU, with the least sum of (residual - b detail)²."""
    return float((detail * residual).sum() / (detail**2).sum())


def best_guesses(slices: Array) -> tuple[Array, Array]:
    """Two pictures `(Y, X)` in HU for K equally likely `slices` `(K, Y, X)` in HU.

    The first has the least squared error on average over the slices, the second the least absolute error.
    """
    return slices.mean(0), np.median(slices, 0)


def share_of_noisy(noisy: Array, smooth: Array, wanted_hu: float) -> float:
    """The a in [0, 1] at which a * noisy + (1 - a) * smooth has a standard deviation of `wanted_hu`.

    `noisy` and `smooth` `(n,)` in HU: the same pixels of even tissue before and after a denoiser;
    `wanted_hu` lies between their standard deviations.
    """
    low, high = 0.0, 1.0
    for _ in range(50):  # halve the interval that holds the answer
        a = (low + high) / 2
        if np.std(a * noisy + (1 - a) * smooth) < wanted_hu:
            low = a
        else:
            high = a
    return high


# 03.1


def _everything_taken_is_1(attempt: Attempt) -> None:
    same(attempt(_DETAIL, _DETAIL), 1.0, f"for the detail {_DETAIL.tolist()} HU, and the same as residual,")


def _a_tenth_is_a_tenth(attempt: Attempt) -> None:
    same(
        attempt(_DETAIL, _DETAIL / 10), 0.1, f"for the detail {_DETAIL.tolist()} HU, a tenth in the residual,"
    )


def _noise_alone_is_0(attempt: Attempt) -> None:
    same(attempt(_DETAIL, _NOISE), 0.0, f"for {_TEXT}, nothing of the detail in it,")


def _noise_on_top_changes_nothing(attempt: Attempt) -> None:
    got = attempt(_DETAIL, 0.2 * _DETAIL + _NOISE)
    same(got, 0.2, f"for {_TEXT} and a fifth of the detail in it,")


def _sharpened_is_negative(attempt: Attempt) -> None:
    got = attempt(_DETAIL, -0.1 * _DETAIL + _NOISE)
    same(got, -0.1, "for a filter that made the detail a tenth stronger, so that less than nothing is gone,")


def _equals_the_reference_share(attempt: Attempt) -> None:
    rng = np.random.default_rng(0)
    detail, noise = rng.normal(0, 30, 400), rng.normal(0, 20, 400)
    residual = 0.3 * detail + noise
    same(attempt(detail, residual), share_removed(detail, residual), "for 400 random pixels")


_DETAIL, _NOISE = np.array([30.0, -10.0, 20.0, 0.0]), np.array([10.0, 30.0, 0.0, -40.0])
_TEXT = f"the detail {_DETAIL.tolist()} HU and a residual with the noise {_NOISE.tolist()} HU"

# 03.2


def _three_slices(attempt: Attempt) -> tuple[Array, Array]:
    """The attempt's two pictures for three slices; one slice has a vessel."""
    return _two(attempt, _slices([40.0, 40.0, 100.0]))


def _a_rare_vessel_is_a_veil_in_the_first(attempt: Attempt) -> None:
    same(_three_slices(attempt)[0], np.full((1, 2), 60.0), f"the first picture, {_VESSEL}, is grey:")


def _a_rare_vessel_is_gone_from_the_second(attempt: Attempt) -> None:
    same(_three_slices(attempt)[1], np.full((1, 2), 40.0), f"the second picture, {_VESSEL}, is liver:")


def _each_pixel_has_guesses_of_its_own(attempt: Attempt) -> None:
    slices = np.array([[[0.0, 1], [2, 3], [4, 9]], [[3, 1], [2, 0], [4, 0]], [[9, 1], [2, 6], [1, 0]]])
    for number, (got, expected) in enumerate(zip(_two(attempt, slices), best_guesses(slices), strict=True)):
        same(got, expected, f"picture {number + 1} of three slices of 3 x 2 pixels:")


def _no_other_picture_has_less_squared_error(attempt: Attempt) -> None:
    slices = np.random.default_rng(1).exponential(30, (9, 4, 5))
    _cheapest(_two(attempt, slices)[0], slices, np.square, "squared")


def _no_other_picture_has_less_absolute_error(attempt: Attempt) -> None:
    slices = np.random.default_rng(2).exponential(
        30, (8, 4, 5)
    )  # of 8, any value between the middle two is a median
    _cheapest(_two(attempt, slices)[1], slices, np.abs, "absolute")


_VESSEL = "for 40, 40 and 100 HU in every pixel, equally likely"


def _slices(values: list[float]) -> Array:
    return np.repeat(values, 2).reshape(-1, 1, 2)


def _two(attempt: Attempt, slices: Array) -> tuple[Array, Array]:
    """The attempt's two pictures, each of the shape of a slice; anything else is a `Mistake`."""
    got = attempt(slices)
    try:
        first, second = (np.asarray(picture, dtype=np.float64) for picture in got)
    except (TypeError, ValueError):
        raise Mistake("two pictures were asked for: end with `return first, second`") from None
    for picture in (first, second):
        if picture.shape != slices.shape[1:]:
            shapes = f"{slices.shape} went in, so a picture has the shape {slices.shape[1:]}"
            raise Mistake(f"{shapes}, yours has {picture.shape}")
    return first, second


def _cheapest(picture: Array, slices: Array, cost: np.ufunc, name: str) -> None:
    """Raise `Mistake` if the picture costs less with a little more or less HU in some pixel."""

    def per_pixel(guess: Array) -> Array:
        return cost(guess - slices).mean(0)

    here = per_pixel(picture)
    for change in (-1.0, -0.01, 0.01, 1.0):
        if (per_pixel(picture + change) < here - 1e-9).any():
            raise Mistake(f"with {change:+g} HU, some pixel would have less {name} error on average")


# 03.3


def _all_of_it_for_the_noise_of_the_input(attempt: Attempt) -> None:
    noisy = _noise()
    got = attempt(noisy, noisy / 4, float(noisy.std()))
    _near(got, 1, "for a wanted noise equal to the noisy one's")


def _nothing_for_the_noise_that_is_there(attempt: Attempt) -> None:
    noisy = _noise()
    got = attempt(noisy, noisy / 4, float(noisy.std()) / 4)
    _near(got, 0, "for a wanted noise equal to the smooth one's")


def _a_share_of_the_noise_where_nothing_was_left(attempt: Attempt) -> None:
    noisy = _noise()
    got = attempt(noisy, np.zeros_like(noisy), 0.3 * float(noisy.std()))
    _near(got, 0.3, "for a smooth part without any noise, and three tenths of the noise wanted,")


def _what_is_left_counts_too(attempt: Attempt) -> None:
    noisy = _noise()
    got = attempt(noisy, noisy / 4, 0.5 * float(noisy.std()))
    _near(
        got,
        1 / 3,
        "for a smooth part with a quarter of the same noise, and half wanted, a + (1 - a)/4 = 1/2,",
    )


def _the_blend_has_the_wanted_noise(attempt: Attempt) -> None:
    rng = np.random.default_rng(4)
    for likeness in (0.0, 0.4, 0.9):
        noisy, own = rng.normal(0, 20, 500), rng.normal(0, 5, 500)
        smooth = likeness * noisy / 4 + (1 - likeness) * own
        a = _share(attempt(noisy, smooth, 10.0))
        found = float(np.std(a * noisy + (1 - a) * smooth))
        if not (0 <= a <= 1 and math.isclose(found, 10, rel_tol=2e-3)):
            kind = "of its own" if likeness == 0 else "partly that of the noisy one"
            raise Mistake(
                f"for noise of {noisy.std():.3g} and {smooth.std():.3g} HU, the smooth one's {kind}, "
                f"your a = {a:.4g} gives a blend of {found:.4g} HU instead of 10"
            )


def _noise() -> Array:
    return np.random.default_rng(3).normal(0, 20, 300)


def _near(got: Any, expected: float, situation: str) -> None:
    """Like `same`, but to a thousandth: a search may stop early."""
    number = _share(got)
    if not math.isclose(number, expected, abs_tol=1e-3):
        raise Mistake(f"{situation} expected {expected:.4g}, yours gives {number:.4g}")


def _share(got: Any) -> float:
    try:
        return float(got)
    except (TypeError, ValueError):
        raise Mistake(f"expected one number a, yours is of the type {type(got).__name__}") from None


EXERCISES = {
    "03.1": Exercise(
        answer=share_removed,
        properties={
            "all of the detail is 1": _everything_taken_is_1,
            "a tenth of it is 0.1": _a_tenth_is_a_tenth,
            "noise alone is 0": _noise_alone_is_0,
            "noise on top changes nothing": _noise_on_top_changes_nothing,
            "sharpened detail is negative": _sharpened_is_negative,
            "equals the reference answer": _equals_the_reference_share,
        },
        hints=(
            "Model the residual as b * detail + noise, and look for b.",
            "Noise is as often up as down where the detail is up: multiplied with it, it adds up to nothing.",
            "sum(residual * detail) is then b times sum(detail * detail).",
            "(detail * residual).sum() / (detail**2).sum()",
        ),
    ),
    "03.2": Exercise(
        answer=best_guesses,
        properties={
            "a rare vessel is a veil in the first": _a_rare_vessel_is_a_veil_in_the_first,
            "a rare vessel is gone from the second": _a_rare_vessel_is_gone_from_the_second,
            "each pixel has guesses of its own": _each_pixel_has_guesses_of_its_own,
            "nothing else has less squared error": _no_other_picture_has_less_squared_error,
            "nothing else has less absolute error": _no_other_picture_has_less_absolute_error,
        },
        hints=(
            "Every pixel can be solved alone. The slices are along the first axis.",
            "Set the derivative of the mean of (g - v)² by g to 0. What is g?",
            "The derivative of |g - v| is +1 or -1: as many values must lie above g as below.",
            "return slices.mean(0), np.median(slices, 0)",
        ),
    ),
    "03.3": Exercise(
        answer=share_of_noisy,
        properties={
            "all of it gives the input's noise": _all_of_it_for_the_noise_of_the_input,
            "none of it gives what is left": _nothing_for_the_noise_that_is_there,
            "a share of it where nothing was left": _a_share_of_the_noise_where_nothing_was_left,
            "what is left counts too": _what_is_left_counts_too,
            "the blend has the wanted noise": _the_blend_has_the_wanted_noise,
        },
        hints=(
            "Try some a between 0 and 1, blend, and measure np.std. Too little? Then more a.",
            "Halving finds it: keep an interval, test its middle, keep the half with the answer.",
            "Or solve for a: the blend's variance is a² Var(noisy) + 2a(1-a) Cov + (1-a)² Var(smooth).",
            "After 50 halvings of [0, 1] the two ends are the answer; lessons.solution shows the loop.",
        ),
    ),
}


# How much each mode computes


@dataclass(frozen=True)
class Settings:
    """How long the network trains, and how many plausible scans its best guess averages."""

    every: int  # use every n-th training slice
    scans: int  # plausible normal-dose scans of one low-dose scan
    report_every: int  # steps between two points of the loss curve
    recipe: Mapping[str, Any]  # fields of `alden.Recipe` that differ from its defaults


# The pixel loss alone, against the normal dose as it is, so that a step is cheap.
_PIXEL_LOSS: dict[str, Any] = {
    "adversarial_weight": 0,
    "contrastive_weight": 0,
    "keep": 0.0,
    "steps": 150,
    "crop": 64,
    "bank": 32,
    "reuse": 1,
    "learning_rate": 2e-3,
    "betas": (0.9, 0.999),
    "warmup": 10,
    "average": 0.97,
}

MODES = {
    "fast": Settings(every=8, scans=100, report_every=10, recipe=_PIXEL_LOSS | {"accelerator": "cpu"}),
    "laptop": Settings(
        every=2,
        scans=400,
        report_every=50,
        recipe=_PIXEL_LOSS | {"steps": 1500, "crop": 96, "average": 0.99},
    ),
    "full": Settings(
        every=1,
        scans=1000,
        report_every=500,
        recipe=_PIXEL_LOSS | {"steps": 20_000, "crop": 96, "batch": 32, "bank": 128, "average": 0.999},
    ),
}
