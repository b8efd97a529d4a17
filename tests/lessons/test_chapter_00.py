"""Chapter 00's exercises: mistakes that their checks must find."""

import numpy as np
import pytest
from planted import planted

from alden_lite.lessons import exercises

# 00.1


def clip(image):
    return np.clip(image, -160, 240)


def forgets_the_root(a, b):
    return np.mean((clip(a) - clip(b)) ** 2)


def forgets_to_clip(a, b):
    return np.sqrt(np.mean((a - b) ** 2))


def clips_the_difference(a, b):
    return np.sqrt(np.mean(clip(a - b) ** 2))


def clips_only_one(a, b):
    return np.sqrt(np.mean((clip(a) - b) ** 2))


def takes_the_mean_of_absolutes(a, b):
    return np.mean(np.abs(clip(a) - clip(b)))


def takes_the_root_before_the_mean(a, b):
    return np.mean(clip(a) - clip(b))


def returns_window_units(a, b):
    return np.sqrt(np.mean(((clip(a) - clip(b)) / 400) ** 2))


def returns_an_image(a, b):
    return np.sqrt((clip(a) - clip(b)) ** 2)


# 00.2


def returns_the_total(own, dose):
    return own / dose**0.5


def subtracts_the_deviations(own, dose):
    return own / dose**0.5 - own


def forgets_the_noises_root(own, dose):
    return own * (1 / dose - 1)


def returns_the_variance(own, dose):
    return own**2 * (1 / dose - 1)


def takes_what_is_missing_of_the_dose(own, dose):
    return own * (1 - dose) ** 0.5


def takes_a_dose_in_percent(own, dose):
    return own * (100 / dose - 1) ** 0.5


MISTAKES = {
    "00.1": {
        forgets_the_root: "a constant offset of 10 HU gives 10 HU",
        forgets_to_clip: "both images are clipped first",
        clips_the_difference: "both images are clipped first",
        clips_only_one: "identical images give 0",
        takes_the_mean_of_absolutes: "the result is in HU",
        takes_the_root_before_the_mean: "a constant offset of 10 HU gives 10 HU",
        returns_window_units: "a constant offset of 10 HU gives 10 HU",
        returns_an_image: "expected one number",
    },
    "00.2": {
        returns_the_total: "full dose adds nothing",
        subtracts_the_deviations: "half the dose adds as much as there was",
        forgets_the_noises_root: "variances add up",
        returns_the_variance: "half the dose adds as much as there was",
        takes_what_is_missing_of_the_dose: "half the dose adds as much as there was",
        takes_a_dose_in_percent: "full dose adds nothing",
    },
}


@pytest.mark.parametrize(("exercise_id", "mistake", "text"), planted(MISTAKES))
def test_a_planted_mistake_is_found_and_named(exercise_id, mistake, text):
    verdict = exercises.judge(exercise_id, mistake)
    assert verdict.status == "wrong"
    assert text in verdict.message
