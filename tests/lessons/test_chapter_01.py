"""Chapter 01's exercises: mistakes that their checks must find, and right answers they must not refuse."""

import numpy as np
import pytest
import torch
from planted import planted

from alden_lite.data.dicom import stack
from alden_lite.evaluation import metrics
from alden_lite.lessons import exercises
from alden_lite.lessons.chapters import chapter_01
from alden_lite.physics import hounsfield

# 01.1


def always_subtracts_1024(stored, slope, intercept):
    return stored * slope - 1024


def forgets_the_intercept(stored, slope, intercept):
    return stored * slope


def forgets_the_slope(stored, slope, intercept):
    return stored + intercept


def adds_the_intercept_first(stored, slope, intercept):
    return (stored + intercept) * slope


def subtracts_the_intercept(stored, slope, intercept):
    return stored * slope - intercept


def reads_all_as_signed(stored, slope, intercept):
    return stored.astype(np.int16) * slope + intercept


def stores_the_result_unsigned(stored, slope, intercept):
    return (stored * slope + intercept).astype(np.int64).astype(stored.dtype)


def flattens(stored, slope, intercept):
    return np.array([value * slope + intercept for value in stored.ravel()])


# 01.2


def never_clips(hu, level, width):
    return (hu - level) / width + 0.5


def clips_below_only(hu, level, width):
    return np.maximum((hu - level) / width + 0.5, 0)


def takes_the_level_for_black(hu, level, width):
    return np.clip((hu - level) / width, 0, 1)


def takes_the_width_to_both_sides(hu, level, width):
    return np.clip((hu - level) / (2 * width) + 0.5, 0, 1)


def returns_greys_of_8_bits(hu, level, width):
    return 255 * np.clip((hu - level) / width + 0.5, 0, 1)


def turns_black_and_white_round(hu, level, width):
    return np.clip(0.5 - (hu - level) / width, 0, 1)


def swaps_level_and_width(hu, level, width):
    return np.clip((hu - width) / level + 0.5, 0, 1)


def has_only_black_and_white(hu, level, width):
    return np.where(hu > level, 1.0, np.where(hu < level, 0.0, 0.5))


def clips_the_hu_only(hu, level, width):
    return np.clip(hu, level - width / 2, level + width / 2)


# 01.3


def lets_the_width_be_negative(a_hu, b_hu, contrast):
    return (a_hu + b_hu) / 2, (b_hu - a_hu) / contrast


def multiplies_by_the_contrast(a_hu, b_hu, contrast):
    return (a_hu + b_hu) / 2, abs(a_hu - b_hu) * contrast


def forgets_the_contrast(a_hu, b_hu, contrast):
    return (a_hu + b_hu) / 2, abs(a_hu - b_hu)


def puts_the_level_on_a_tissue(a_hu, b_hu, contrast):
    return a_hu, abs(a_hu - b_hu) / contrast


def takes_half_the_distance_for_the_level(a_hu, b_hu, contrast):
    return abs(a_hu - b_hu) / 2, abs(a_hu - b_hu) / contrast


def returns_the_width_first(a_hu, b_hu, contrast):
    return abs(a_hu - b_hu) / contrast, (a_hu + b_hu) / 2


def returns_the_width_alone(a_hu, b_hu, contrast):
    return abs(a_hu - b_hu) / contrast


# 01.4


def counts_power_and_not_amplitude(rmse_hu, low_hu, high_hu):
    return 10 * np.log10((high_hu - low_hu) / rmse_hu)


def takes_the_natural_logarithm(rmse_hu, low_hu, high_hu):
    return 20 * np.log((high_hu - low_hu) / rmse_hu)


def takes_the_largest_hu_for_the_range(rmse_hu, low_hu, high_hu):
    return 20 * np.log10(high_hu / rmse_hu)


def turns_the_ratio_round(rmse_hu, low_hu, high_hu):
    return 20 * np.log10(rmse_hu / (high_hu - low_hu))


def takes_half_the_range(rmse_hu, low_hu, high_hu):
    return 20 * np.log10((high_hu - low_hu) / 2 / rmse_hu)


def always_takes_400(rmse_hu, low_hu, high_hu):
    return 20 * np.log10(400 / rmse_hu)


MISTAKES = {
    "01.1": {
        always_subtracts_1024: "the header decides",
        forgets_the_intercept: "the usual header",
        forgets_the_slope: "the slope comes first",
        adds_the_intercept_first: "the slope comes first",
        subtracts_the_intercept: "the usual header",
        reads_all_as_signed: "large unsigned values stay large",
        stores_the_result_unsigned: "large unsigned values stay large",
        flattens: "the shape should be (2, 2)",
    },
    "01.2": {
        never_clips: "below the window all is black",
        clips_below_only: "above the window all is white",
        takes_the_level_for_black: "the level is mid-grey",
        takes_the_width_to_both_sides: "below the window all is black",
        returns_greys_of_8_bits: "the level is mid-grey",
        turns_black_and_white_round: "below the window all is black",
        swaps_level_and_width: "the level is mid-grey",
        has_only_black_and_white: "a straight line in between",
        clips_the_hu_only: "the level is mid-grey",
    },
    "01.3": {
        lets_the_width_be_negative: "the order of the tissues does not matter",
        multiplies_by_the_contrast: "the width in HU: expected 72",
        forgets_the_contrast: "the width in HU: expected 72",
        puts_the_level_on_a_tissue: "the level in HU: expected 54",
        takes_half_the_distance_for_the_level: "the level in HU: expected 54",
        returns_the_width_first: "the level in HU: expected 54",
        returns_the_width_alone: "`return level, width`",
    },
    "01.4": {
        counts_power_and_not_amplitude: "not 20 dB less",
        takes_the_natural_logarithm: "not 20 dB less",
        takes_the_largest_hu_for_the_range: "9 HU over 400 HU is 33 dB",
        turns_the_ratio_round: "not 20 dB less",
        takes_half_the_range: "9 HU over 400 HU is 33 dB",
        always_takes_400: "only the width of the range counts",
    },
}


@pytest.mark.parametrize(("exercise_id", "mistake", "text"), planted(MISTAKES))
def test_a_planted_mistake_is_found_and_named(exercise_id, mistake, text):
    verdict = exercises.judge(exercise_id, mistake)
    assert verdict.status == "wrong"
    assert text in verdict.message


def test_windows_and_hu_may_be_written_in_other_ways():
    def cuts_first(hu, level, width):
        black, white = level - width / 2, level + width / 2
        return (np.minimum(np.maximum(hu, black), white) - black) / (white - black)

    def as_a_tensor(stored, slope, intercept):
        return torch.tensor(stored.astype(float)) * slope + intercept

    def as_a_list(a_hu, b_hu, contrast):
        width = max(a_hu - b_hu, b_hu - a_hu) / contrast
        return [min(a_hu, b_hu) + width * contrast / 2, width]

    assert exercises.judge("01.1", as_a_tensor).status == "right"
    assert exercises.judge("01.2", cuts_first).status == "right"
    assert exercises.judge("01.3", as_a_list).status == "right"


def test_the_answers_of_chapter_01_are_what_the_package_computes():
    stored = np.arange(0, 4096, 5, dtype=np.uint16)
    hu = chapter_01.stored_to_hu(stored, 2, -1024)
    np.testing.assert_array_equal(hu, stack.hu_from_stored(stored, slope=2, intercept=-1024))
    np.testing.assert_array_equal(chapter_01.window(hu, 40, 400), hounsfield.window(hu, 40, 400))
    level, width = chapter_01.window_for(72, 36, 0.5)
    assert hounsfield.window(72.0, level, width) - hounsfield.window(36.0, level, width) == 0.5
    flat = torch.zeros(8, 8)
    assert chapter_01.psnr_db(9, -160, 240) == pytest.approx(metrics.psnr_db(flat + 9, flat))
