"""Exercises of chapter 01: stored values to HU, a window, a window for two tissues, PSNR from RMSE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from alden_lite.lessons.exercises import Attempt, Exercise, Mistake, same

__all__ = ["EXERCISES", "MODES", "Settings", "psnr_db", "stored_to_hu", "window", "window_for"]

Array = np.ndarray[Any, Any]


def stored_to_hu(stored: Array, slope: float, intercept: float) -> Array:
    """HU from stored values of any shape, with the header's RescaleSlope and RescaleIntercept."""
    return stored * float(slope) + float(intercept)


def window(hu: Array, level: float, width: float) -> Array:
    """Greys from 0, black, to 1, white, of HU of any shape; `level` and `width` in HU."""
    return np.clip((hu - level) / width + 0.5, 0, 1)


def window_for(a_hu: float, b_hu: float, contrast: float) -> tuple[float, float]:
    """Level and width, in HU, that put mid-grey between two tissues, and their greys `contrast` apart."""
    return (a_hu + b_hu) / 2, abs(a_hu - b_hu) / contrast


def psnr_db(rmse_hu: float, low_hu: float, high_hu: float) -> float:
    """PSNR in dB of an error of `rmse_hu`, over the range from `low_hu` to `high_hu`."""
    return 20 * math.log10((high_hu - low_hu) / rmse_hu)


# 01.1


def _stored_1024_is_water(attempt: Attempt) -> None:
    stored = np.array([24, 1024, 1064], dtype=np.int16)
    same(attempt(stored, 1.0, -1024.0), [-1000, 0, 40], "for [24, 1024, 1064], slope 1 and intercept -1024")


def _the_header_decides(attempt: Attempt) -> None:
    stored = np.array([-1000, 0, 40], dtype=np.int16)
    same(attempt(stored, 1.0, 0.0), stored, "for [-1000, 0, 40], slope 1 and intercept 0")


def _slope_comes_first(attempt: Attempt) -> None:
    stored = np.array([[0, 50], [100, 200]], dtype=np.int16)
    situation = "for [[0, 50], [100, 200]], slope 2 and intercept -100"
    same(attempt(stored, 2.0, -100.0), [[-100, 0], [100, 300]], situation)


def _large_unsigned_values_stay(attempt: Attempt) -> None:
    stored = np.array([0, 24, 40_000], dtype=np.uint16)
    situation = "for unsigned [0, 24, 40000], slope 1 and intercept -1024"
    same(attempt(stored, 1.0, -1024.0), [-1024, -1000, 38_976], situation)


def _every_shape_of_stored_values(attempt: Attempt) -> None:
    rng = np.random.default_rng(1)
    for shape in ((5,), (3, 4), (2, 3, 4)):
        stored = rng.integers(0, 4096, shape, dtype=np.int16)
        situation = f"for stored values of shape {shape}, slope 3 and intercept -7"
        same(attempt(stored, 3.0, -7.0), stored_to_hu(stored, 3, -7), situation)


# 01.2


def _the_level_is_mid_grey(attempt: Attempt) -> None:
    for level, width in ((40.0, 400.0), (-600.0, 1500.0)):
        got = attempt(np.array([level]), level, width)
        same(got, [0.5], f"for {level:g} HU in the window L {level:g} W {width:g}")


def _below_is_black(attempt: Attempt) -> None:
    situation = "for -1000, -500 and -160 HU in the window L 40 W 400"
    same(attempt(np.array([-1000.0, -500.0, -160.0]), 40.0, 400.0), [0, 0, 0], situation)


def _above_is_white(attempt: Attempt) -> None:
    situation = "for 240, 500 and 3000 HU in the window L 40 W 400"
    same(attempt(np.array([240.0, 500.0, 3000.0]), 40.0, 400.0), [1, 1, 1], situation)


def _a_straight_line_between(attempt: Attempt) -> None:
    situation = "for -60, 40 and 140 HU in the window L 40 W 400"
    same(attempt(np.array([-60.0, 40.0, 140.0]), 40.0, 400.0), [0.25, 0.5, 0.75], situation)


def _every_shape_of_hu(attempt: Attempt) -> None:
    rng = np.random.default_rng(1)
    for shape in ((7,), (3, 5), (2, 3, 4)):
        hu = rng.integers(-1024, 1500, shape, dtype=np.int16)
        level, width = float(rng.integers(-600, 400)), float(rng.integers(80, 2000))
        situation = f"for HU of shape {shape} in the window L {level:g} W {width:g}"
        same(attempt(hu, level, width), window(hu, level, width), situation)


# 01.3


def _the_level_lies_between(attempt: Attempt) -> None:
    _is_window(attempt, 36.0, 72.0, 0.5)
    _is_window(attempt, -875.0, 40.0, 0.5)


def _full_contrast_is_black_and_white(attempt: Attempt) -> None:
    _is_window(attempt, -100.0, 40.0, 1.0)


def _the_order_does_not_matter(attempt: Attempt) -> None:
    _is_window(attempt, 72.0, 36.0, 0.5)


def _half_the_contrast_is_twice_the_width(attempt: Attempt) -> None:
    _is_window(attempt, 0.0, 60.0, 0.25)
    _is_window(attempt, 0.0, 60.0, 0.125)


def _shown_the_greys_are_that_far_apart(attempt: Attempt) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = rng.choice(np.arange(-1000.0, 1000.0), 2, replace=False)
        _is_window(attempt, float(a), float(b), float(rng.uniform(0.05, 1)))


def _is_window(attempt: Attempt, a_hu: float, b_hu: float, contrast: float) -> None:
    situation = f"for tissues of {a_hu:g} and {b_hu:g} HU and a contrast of {contrast:.3g}"
    got = attempt(a_hu, b_hu, contrast)
    if not isinstance(got, tuple | list | np.ndarray) or np.shape(got) != (2,):
        raise Mistake(f"{situation} expected two numbers, `return level, width`")
    for name, ours, theirs in zip(("level", "width"), window_for(a_hu, b_hu, contrast), got, strict=True):
        same(theirs, ours, f"{situation}, the {name} in HU:")


# 01.4


def _ten_times_the_error_costs_20(attempt: Attempt) -> None:
    small, large = (float(attempt(rmse, 0.0, 1000.0)) for rmse in (10.0, 100.0))
    if not math.isclose(small - large, 20, rel_tol=1e-6):
        raise Mistake(
            f"over 0 to 1000 HU, 10 HU gives {small:.4g} dB and 100 HU gives {large:.4g} dB: not 20 dB less"
        )


def _9_hu_over_400(attempt: Attempt) -> None:
    same(attempt(9.0, -160.0, 240.0), 20 * math.log10(400 / 9), "for 9 HU over -160 to 240 HU")


def _as_wide_as_the_range_is_0(attempt: Attempt) -> None:
    same(attempt(400.0, -160.0, 240.0), 0.0, "for 400 HU over -160 to 240 HU")


def _only_the_width_counts(attempt: Attempt) -> None:
    expected = 20 * math.log10(4096 / 9)
    for low in (-1024.0, 0.0):
        same(attempt(9.0, low, low + 4096), expected, f"for 9 HU over {low:g} to {low + 4096:g} HU")


EXERCISES = {
    "01.1": Exercise(
        answer=stored_to_hu,
        properties={
            "the usual header": _stored_1024_is_water,
            "the header decides": _the_header_decides,
            "the slope comes first": _slope_comes_first,
            "large unsigned values stay large": _large_unsigned_values_stay,
            "every shape": _every_shape_of_stored_values,
        },
        hints=(
            "It is the equation of a straight line.",
            "Multiply first, then add. The intercept has its own sign.",
            "return stored * slope + intercept",
        ),
    ),
    "01.2": Exercise(
        answer=window,
        properties={
            "the level is mid-grey": _the_level_is_mid_grey,
            "below the window all is black": _below_is_black,
            "above the window all is white": _above_is_white,
            "a straight line in between": _a_straight_line_between,
            "every shape": _every_shape_of_hu,
        },
        hints=(
            "How far is a pixel from the level, counted in widths?",
            "That is (hu - level) / width. At the level it is 0, but the grey there is 0.5.",
            "np.clip(values, 0, 1) cuts off what lies below 0 or above 1.",
            "return np.clip((hu - level) / width + 0.5, 0, 1)",
        ),
    ),
    "01.3": Exercise(
        answer=window_for,
        properties={
            "the level lies half-way": _the_level_lies_between,
            "contrast 1 makes one black and one white": _full_contrast_is_black_and_white,
            "the order of the tissues does not matter": _the_order_does_not_matter,
            "half the contrast is twice the width": _half_the_contrast_is_twice_the_width,
            "shown, the greys are that far apart": _shown_the_greys_are_that_far_apart,
        },
        hints=(
            "Mid-grey is the level: where must it be to treat both tissues alike?",
            "Inside the window, d HU are d / width apart in grey. Solve that for the width.",
            "A width is never negative: abs() helps.",
            "return (a_hu + b_hu) / 2, abs(a_hu - b_hu) / contrast",
        ),
    ),
    "01.4": Exercise(
        answer=psnr_db,
        properties={
            "ten times the error costs 20 dB": _ten_times_the_error_costs_20,
            "9 HU over 400 HU is 33 dB": _9_hu_over_400,
            "an error as wide as the range is 0 dB": _as_wide_as_the_range_is_0,
            "only the width of the range counts": _only_the_width_counts,
        },
        hints=(
            "The range is a width: from low to high, how many HU?",
            "Divide it by the error, take the logarithm to base 10, times 20.",
            "return 20 * np.log10((high_hu - low_hu) / rmse_hu)",
        ),
    ),
}


# How much each mode computes


@dataclass(frozen=True)
class Settings:
    """Nothing to set: the chapter computes the same in every mode."""


MODES = dict.fromkeys(("fast", "laptop", "full"), Settings())
