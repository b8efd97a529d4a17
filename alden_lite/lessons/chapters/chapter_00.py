"""Exercises of chapter 00: how far two CT images are apart, and how much noise a lower dose adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from alden_lite.lessons.exercises import Attempt, Exercise, Mistake, same

__all__ = ["EXERCISES", "MODES", "Settings", "added_noise_hu", "rmse"]

Image = np.ndarray[Any, np.dtype[np.float64]]


def rmse(a: Image, b: Image) -> float:
    """Root mean square error in HU of two images `(H, W)` in HU, clipped to [-160, 240] HU."""
    difference = np.clip(a, -160, 240) - np.clip(b, -160, 240)
    return float(np.sqrt(np.mean(difference**2)))


def added_noise_hu(own_noise_hu: float, dose: float) -> float:
    """Noise in HU to add to a scan with `own_noise_hu`, so that it looks like a scan at the fraction `dose`.

    Variances add up, and the variance of a scan is proportional to 1 / dose:
    own**2 + added**2 = own**2 / dose.
    """
    return float(own_noise_hu * (1 / dose - 1) ** 0.5)


# 00.1


def _identical_images_give_0(attempt: Attempt) -> None:
    image = _images()[0]
    same(attempt(image, image), 0.0, "for an image and itself")


def _an_offset_of_10_hu_gives_10_hu(attempt: Attempt) -> None:
    image = np.full((4, 5), 40.0)
    same(attempt(image, image + 10), 10.0, "for a picture of 40 HU and one of 50 HU")


def _twice_the_error_is_twice_the_rmse(attempt: Attempt) -> None:
    image, error = np.zeros((1, 2)), np.array([[30.0, -10.0]])
    same(attempt(image, image + error), 500**0.5, "for [0, 0] HU and [30, -10] HU")
    same(attempt(image, image + 2 * error), 2 * 500**0.5, "for [0, 0] HU and [60, -20] HU")


def _outside_the_window_nothing_counts(attempt: Attempt) -> None:
    air, bone = np.array([[-1000.0, 500.0]]), np.array([[-700.0, 1200.0]])
    same(
        attempt(air, bone),
        0.0,
        "for [-1000, 500] HU and [-700, 1200] HU, both clipped to [-160, 240],",
    )
    half_outside = attempt(np.array([[200.0]]), np.array([[300.0]]))
    same(half_outside, 40.0, "for 200 HU and 300 HU, which the window shows as 240 HU,")


def _the_order_does_not_matter(attempt: Attempt) -> None:
    a, b = _images()
    forward, backward = attempt(a, b), attempt(b, a)
    if not np.isclose(float(forward), float(backward)):
        raise Mistake(f"rmse(a, b) is {float(forward):.6g} HU but rmse(b, a) {float(backward):.6g} HU")


def _equals_the_reference(attempt: Attempt) -> None:
    a, b = _images()
    same(attempt(a, b), rmse(a, b), "for two random images from -1000 to 1000 HU")


def _images() -> tuple[Image, Image]:
    """Two images of 7 x 9 pixels that reach far out of the window on both sides, in HU."""
    generator = np.random.default_rng(0)
    return generator.uniform(-1000, 1000, (7, 9)), generator.uniform(-1000, 1000, (7, 9))


# 00.2


def _full_dose_adds_nothing(attempt: Attempt) -> None:
    same(attempt(15.0, 1.0), 0.0, "for a scan with 15 HU and a dose of 1, the full dose,")


def _half_the_dose_adds_as_much_again(attempt: Attempt) -> None:
    same(attempt(15.0, 0.5), 15.0, "for 15 HU and a dose of 0.5 (variance 225 becomes 450)")


def _variances_add_up(attempt: Attempt) -> None:
    same(attempt(3.0, 0.36), 4.0, "for 3 HU and a dose of 0.36 (5 HU in all, and 3² + 4² = 5²)")


def _a_noiseless_scan_stays_so(attempt: Attempt) -> None:
    same(attempt(0.0, 0.25), 0.0, "for a scan without noise and a dose of 0.25")


def _equals_the_reference_noise(attempt: Attempt) -> None:
    for own, dose in ((15.7, 0.25), (8.0, 0.1), (22.0, 0.8)):
        same(attempt(own, dose), added_noise_hu(own, dose), f"for {own} HU and a dose of {dose}")


EXERCISES = {
    "00.1": Exercise(
        answer=rmse,
        properties={
            "identical images give 0": _identical_images_give_0,
            "a constant offset of 10 HU gives 10 HU": _an_offset_of_10_hu_gives_10_hu,
            "the result is in HU": _twice_the_error_is_twice_the_rmse,
            "both images are clipped first": _outside_the_window_nothing_counts,
            "the order of the images does not matter": _the_order_does_not_matter,
            "equals the reference answer": _equals_the_reference,
        },
        hints=(
            "Read the name backwards: error first, then square, then mean, then root.",
            "Before the error, bring each image into the window: np.clip(image, -160, 240).",
            "np.sqrt(np.mean(difference**2)), where difference is between the two clipped images.",
        ),
    ),
    "00.2": Exercise(
        answer=added_noise_hu,
        properties={
            "full dose adds nothing": _full_dose_adds_nothing,
            "half the dose adds as much as there was": _half_the_dose_adds_as_much_again,
            "variances add up": _variances_add_up,
            "a scan without noise stays without": _a_noiseless_scan_stays_so,
            "equals the reference answer": _equals_the_reference_noise,
        },
        hints=(
            "How much noise will there be in all? Noise grows as 1 / sqrt(dose).",
            "Squares of noise, variances, add up: own**2 + added**2 = total**2.",
            "Solve own**2 + added**2 = own**2 / dose for added.",
        ),
    ),
}


# How much each mode computes


@dataclass(frozen=True)
class Settings:
    """Nothing to set: the chapter computes the same in every mode."""


MODES = dict.fromkeys(("fast", "laptop", "full"), Settings())
