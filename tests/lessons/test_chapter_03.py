"""Chapter 03's exercises: mistakes that their checks must find, and right answers they must not refuse."""

import numpy as np
import pytest
import torch
from planted import planted

from alden_lite.lessons import exercises
from alden_lite.lessons.chapters import chapter_03

# 03.1


def takes_the_correlation(detail, residual):
    return np.corrcoef(detail, residual)[0, 1]


def divides_by_the_residuals_power(detail, residual):
    return (detail * residual).sum() / (residual**2).sum()


def compares_the_spreads(detail, residual):
    return np.std(residual) / np.std(detail)


def forgets_to_divide(detail, residual):
    return (detail * residual).mean()


def takes_the_size_only(detail, residual):
    return abs((detail * residual).sum()) / (detail**2).sum()


def compares_absolute_values(detail, residual):
    return abs(residual).sum() / abs(detail).sum()


def averages_the_ratios(detail, residual):
    there = detail != 0
    return (residual[there] / detail[there]).mean()


def returns_what_is_left(detail, residual):
    return 1 - (detail * residual).sum() / (detail**2).sum()


# 03.2


def takes_the_mean_for_both(slices):
    return slices.mean(0), slices.mean(0)


def takes_the_median_for_both(slices):
    return np.median(slices, 0), np.median(slices, 0)


def takes_the_median_first(slices):
    return np.median(slices, 0), slices.mean(0)


def takes_one_number_for_all_pixels(slices):
    return np.full(slices[0].shape, slices.mean()), np.full(slices[0].shape, np.median(slices))


def averages_along_a_row(slices):
    return slices.mean(1), np.median(slices, 1)


def takes_the_middle_of_the_range(slices):
    return (slices.min(0) + slices.max(0)) / 2, np.median(slices, 0)


def takes_the_first_slice(slices):
    return slices.mean(0), slices[0]


def returns_the_mean_alone(slices):
    return slices.mean(0).tolist()[0][0]


# 03.3


def takes_the_ratio_of_the_wanted(noisy, smooth, wanted_hu):
    return wanted_hu / np.std(noisy)


def goes_along_the_deviations(noisy, smooth, wanted_hu):
    return (wanted_hu - np.std(smooth)) / (np.std(noisy) - np.std(smooth))


def goes_along_the_variances(noisy, smooth, wanted_hu):
    return (wanted_hu**2 - np.var(smooth)) / (np.var(noisy) - np.var(smooth))


def forgets_the_covariance(noisy, smooth, wanted_hu):
    a, b, c = np.var(noisy) + np.var(smooth), -2 * np.var(smooth), np.var(smooth) - wanted_hu**2
    return (-b + np.sqrt(b**2 - 4 * a * c)) / (2 * a)


def gives_the_share_of_the_smooth(noisy, smooth, wanted_hu):
    return 1 - chapter_03.share_of_noisy(noisy, smooth, wanted_hu)


def returns_the_blend(noisy, smooth, wanted_hu):
    a = chapter_03.share_of_noisy(noisy, smooth, wanted_hu)
    return a * noisy + (1 - a) * smooth


MISTAKES = {
    "03.1": {
        takes_the_correlation: "a tenth of it is 0.1: for the detail",
        divides_by_the_residuals_power: "expected 0.1, yours gives 10",
        compares_the_spreads: "noise alone is 0: for the detail",
        forgets_to_divide: "all of the detail is 1: for the detail",
        takes_the_size_only: "expected -0.1, yours gives 0.1",
        compares_absolute_values: "noise alone is 0: for the detail",
        averages_the_ratios: "noise alone is 0: for the detail",
        returns_what_is_left: "expected 1, yours gives 0",
    },
    "03.2": {
        takes_the_mean_for_both: "the second picture, for 40, 40 and 100 HU",
        takes_the_median_for_both: "the first picture, for 40, 40 and 100 HU",
        takes_the_median_first: "a rare vessel is a veil in the first",
        takes_one_number_for_all_pixels: "each pixel has guesses of its own",
        averages_along_a_row: "(3, 1, 2) went in, so a picture has the shape (1, 2), yours has (3, 2)",
        takes_the_middle_of_the_range: "expected 60 at [0, 0], yours gives 70",
        takes_the_first_slice: "each pixel has guesses of its own: picture 2",
        returns_the_mean_alone: "end with `return first, second`",
    },
    "03.3": {
        takes_the_ratio_of_the_wanted: "none of it gives what is left",
        goes_along_the_deviations: "the smooth one's of its own",
        goes_along_the_variances: "expected 0.3, yours gives 0.09",
        forgets_the_covariance: "equal to the smooth one's expected 0, yours gives 0.1176",
        gives_the_share_of_the_smooth: "equal to the noisy one's expected 1, yours gives 0",
        returns_the_blend: "expected one number a, yours is of the type ndarray",
    },
}


@pytest.mark.parametrize(("exercise_id", "mistake", "text"), planted(MISTAKES))
def test_a_planted_mistake_is_found_and_named(exercise_id, mistake, text):
    verdict = exercises.judge(exercise_id, mistake)
    assert verdict.status == "wrong"
    assert text in verdict.message


def test_shares_and_guesses_may_be_found_in_other_ways():
    def fits_a_line(detail, residual):
        return np.linalg.lstsq(detail[:, None], residual, rcond=None)[0][0]

    def sorts(slices):
        ordered = torch.sort(torch.as_tensor(slices), 0).values
        return [slices.sum(0) / len(slices), ordered[len(slices) // 2]]  # of 8, the upper one of the middle

    def solves_for_a(noisy, smooth, wanted_hu):
        (x, c), (_, s) = np.cov(noisy, smooth, bias=True)
        return max(np.roots([x + s - 2 * c, 2 * (c - s), s - wanted_hu**2]).real)

    def tries_a_thousand(noisy, smooth, wanted_hu):
        shares = np.linspace(0, 1, 2001)
        spreads = [np.std(share * noisy + (1 - share) * smooth) for share in shares]
        return shares[np.argmin(np.abs(np.array(spreads) - wanted_hu))]

    assert exercises.judge("03.1", fits_a_line).status == "right"
    assert exercises.judge("03.2", sorts).status == "right"
    assert exercises.judge("03.3", solves_for_a).status == "right"
    assert exercises.judge("03.3", tries_a_thousand).status == "right"
