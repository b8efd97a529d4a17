"""Chapter 10's exercises: mistakes that their checks must find, and right answers they must not refuse."""

import numpy as np
import pytest
from planted import planted

from alden_lite.evaluation.studies.ablations import Result, against
from alden_lite.lessons import exercises
from alden_lite.lessons.chapters import chapter_10

# 10.1


def averages_the_slices(ours, theirs):
    return ours.mean(1) - theirs.mean(1)[: len(ours)]


def subtracts_ours_from_theirs(ours, theirs):
    return theirs.mean(0) - ours.mean(0)


def keeps_the_seeds_apart(ours, theirs):
    return ours - theirs


def pairs_the_seeds_one_by_one(ours, theirs):
    seeds = min(len(ours), len(theirs))
    return (ours[:seeds] - theirs[:seeds]).mean(0)


def subtracts_the_mean_of_all(ours, theirs):
    return ours.mean(0) - theirs.mean()


def takes_the_best_seed(ours, theirs):
    return ours.max(0) - theirs.max(0)


def subtracts_in_place(ours, theirs):
    ours -= theirs.mean(0)
    return ours.mean(0)


def returns_one_difference(ours, theirs):
    return ours.mean() - theirs.mean()


# 10.2


def resampled(values, rng):
    return rng.choice(values, size=(2000, len(values))).mean(1)


def draws_without_replacement(values, rng):
    samples = np.stack([rng.permutation(values) for _ in range(2000)])
    return np.percentile(samples.mean(1), [2.5, 97.5])


def takes_percentiles_of_the_values(values, rng):
    return np.percentile(rng.choice(values, 2000), [2.5, 97.5])


def holds_90_percent(values, rng):
    return np.percentile(resampled(values, rng), [5, 95])


def goes_one_deviation_to_both_sides(values, rng):
    means = resampled(values, rng)
    return means.mean() - means.std(), means.mean() + means.std()


def goes_1_96_deviations_to_both_sides(values, rng):
    means = resampled(values, rng)
    return means.mean() - 1.96 * means.std(), means.mean() + 1.96 * means.std()


def takes_percentages_for_shares(values, rng):
    return np.percentile(resampled(values, rng), [0.025, 0.975])


def puts_the_high_end_first(values, rng):
    return np.percentile(resampled(values, rng), [97.5, 2.5])


def resamples_with_a_seed_of_its_own(values, rng):
    return np.percentile(resampled(values, np.random.default_rng(0)), [2.5, 97.5])


def resamples_the_global_way(values, rng):
    samples = np.random.choice(values, size=(2000, len(values)))
    return np.percentile(samples.mean(1), [2.5, 97.5])


def draws_fewer_than_there_are(values, rng):
    samples = rng.choice(values, size=(2000, len(values) // 2))
    return np.percentile(samples.mean(1), [2.5, 97.5])


# 10.3


def forgets_what_is_wanted(intervals, wanted):
    return chapter_10.verdict(intervals, [1] * len(wanted))


def never_says_no(intervals, wanted):
    return "seen" if chapter_10.verdict(intervals, wanted) == "seen" else "cannot be told"


def takes_doubt_for_a_no(intervals, wanted):
    return "seen" if chapter_10.verdict(intervals, wanted) == "seen" else "not seen"


def judges_by_the_middle(intervals, wanted):
    middles = [sign * (low + high) for (low, high), sign in zip(intervals, wanted, strict=True)]
    return "seen" if min(middles) > 0 else "not seen" if max(middles) < 0 else "cannot be told"


def is_content_with_one(intervals, wanted):
    verdicts = [chapter_10.verdict([one], [sign]) for one, sign in zip(intervals, wanted, strict=True)]
    return next((one for one in ("seen", "not seen") if one in verdicts), "cannot be told")


def wants_every_no(intervals, wanted):
    verdicts = {chapter_10.verdict([one], [sign]) for one, sign in zip(intervals, wanted, strict=True)}
    return verdicts.pop() if len(verdicts) == 1 else "cannot be told"


def counts_0_as_above(intervals, wanted):
    shifted = [
        (low + sign * 1e-9, high + sign * 1e-9) for (low, high), sign in zip(intervals, wanted, strict=True)
    ]
    return chapter_10.verdict(shifted, wanted)


def turns_the_sign_and_not_the_ends(intervals, wanted):
    turned = [(sign * low, sign * high) for (low, high), sign in zip(intervals, wanted, strict=True)]
    if all(low > 0 for low, _ in turned):
        return "seen"
    return "not seen" if any(high < 0 for _, high in turned) else "cannot be told"


def returns_a_truth_value(intervals, wanted):
    return chapter_10.verdict(intervals, wanted) == "seen"


MISTAKES = {
    "10.1": {
        averages_the_slices: "one difference a slice",
        keeps_the_seeds_apart: "your shape is (3, 5)",
        returns_one_difference: "your shape is ()",
        subtracts_ours_from_theirs: "yours has the other sign",
        subtracts_the_mean_of_all: "better is above 0",
        takes_the_best_seed: "a hard slice cancels",
        pairs_the_seeds_one_by_one: "numbers of seeds may differ",
        subtracts_in_place: "does it use -= or +=",
    },
    "10.2": {
        puts_the_high_end_first: "the low one comes first",
        draws_without_replacement: "your interval has no width",
        takes_percentiles_of_the_values: "where values lie, not where their mean does",
        takes_percentages_for_shares: "your middle is",
        holds_90_percent: "it holds 95 %",
        goes_one_deviation_to_both_sides: "it holds 95 %",
        draws_fewer_than_there_are: "it holds 95 %",
        goes_1_96_deviations_to_both_sides: "take percentiles of the means",
        resamples_with_a_seed_of_its_own: "without a seed of your own",
        resamples_the_global_way: "draw with `rng` alone",
    },
    "10.3": {
        never_says_no: "expected 'not seen', yours says 'cannot be told'",
        takes_doubt_for_a_no: "expected 'cannot be told', yours says 'not seen'",
        judges_by_the_middle: "one difference lies on one side",
        returns_a_truth_value: "yours says True",
        forgets_what_is_wanted: "below 0 may be what is wanted",
        turns_the_sign_and_not_the_ends: "below 0 may be what is wanted",
        counts_0_as_above: "touches 0 tells nothing",
        is_content_with_one: "a claim is seen when all of it is",
        wants_every_no: "one clear no is enough",
    },
}


@pytest.mark.parametrize(("exercise_id", "mistake", "text"), planted(MISTAKES))
def test_a_planted_mistake_is_found_and_named(exercise_id, mistake, text):
    verdict = exercises.judge(exercise_id, mistake)
    assert verdict.status == "wrong"
    assert text in verdict.message


def test_differences_intervals_and_verdicts_may_be_found_in_other_ways():
    def loops_over_slices(ours, theirs):
        return [np.mean(a) - np.mean(b) for a, b in zip(ours.T, theirs.T, strict=True)]

    def counts_how_often_each_is_drawn(values, rng):
        n = len(values)
        means = np.sort(rng.multinomial(n, np.full(n, 1 / n), size=4000) @ values / n)
        return [means[100], means[3899]]

    def by_scipy(values, rng):
        from scipy import stats

        found = stats.bootstrap((values,), np.mean, n_resamples=2000, rng=rng, method="percentile")
        return found.confidence_interval

    def with_arrays(intervals, wanted):
        ends = np.array(intervals) * np.array(wanted)[:, None]
        if (ends > 0).all():
            return "seen"
        return "not seen" if (ends < 0).all(axis=1).any() else "cannot be told"

    assert exercises.judge("10.1", loops_over_slices).status == "right"
    assert exercises.judge("10.2", counts_how_often_each_is_drawn).status == "right"
    assert exercises.judge("10.2", by_scipy).status == "right"
    assert exercises.judge("10.3", with_arrays).status == "right"


def test_the_answers_of_chapter_10_are_what_the_package_computes():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(32, 1, (3, 40)), rng.normal(31, 1, (2, 40))
    results = [Result("ours", seed, "", {"psnr_db": list(row)}) for seed, row in enumerate(ours)]
    results += [Result("theirs", seed, "", {"psnr_db": list(row)}) for seed, row in enumerate(theirs)]
    mean, ends = against(results, "ours", "theirs", "psnr_db")
    differences = chapter_10.paired_difference(ours, theirs)
    assert differences.mean() == pytest.approx(mean)
    interval = chapter_10.bootstrap_interval(differences, np.random.default_rng(1))
    assert interval == pytest.approx(ends, abs=0.05)  # another 2000 resamples, and theirs corrects for bias
