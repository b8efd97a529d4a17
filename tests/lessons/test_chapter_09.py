"""Chapter 09's exercises: mistakes that their checks must find, and right answers they must not refuse."""

import math

import numpy as np
import pytest
import torch
from planted import planted

from alden_lite.evaluation import lesions, metrics, statistics
from alden_lite.lessons import exercises
from alden_lite.lessons.chapters import chapter_09

# 09.1


def swaps_the_two_means(mse, width):
    return chapter_09.psnr_two_ways(mse, width)[::-1]


def averages_the_decibels_twice(mse, width):
    return (chapter_09.psnr_two_ways(mse, width)[0],) * 2


def averages_the_errors_twice(mse, width):
    return (chapter_09.psnr_two_ways(mse, width)[1],) * 2


def takes_a_fixed_range(mse, width):
    return chapter_09.psnr_two_ways(mse, 400.0)


def does_not_square_the_width(mse, width):
    return tuple(10 * np.log10(width / np.array([np.exp(np.log(mse).mean()), mse.mean()])))


def averages_roots(mse, width):
    return chapter_09.psnr_two_ways(mse, width)[0], 20 * np.log10(width / np.sqrt(mse).mean())


def leaves_the_decibels_unaveraged(mse, width):
    return 10 * np.log10(width**2 / mse), 10 * np.log10(width**2 / mse.mean())


# 09.2


def draws_patients_only(values, rng):
    return chapter_09.patient_interval([np.full(len(v), v.mean()) for v in values], rng)


def draws_slices_only(values, rng):
    means = [np.mean([rng.choice(v, len(v)).mean() for v in values]) for _ in range(2000)]
    return np.percentile(means, [2.5, 97.5])


def pools_the_slices(values, rng):
    pooled = np.concatenate(values)
    return np.percentile(rng.choice(pooled, (2000, len(pooled))).mean(1), [2.5, 97.5])


def averages_all_slices_drawn(values, rng):
    means = []
    for _ in range(2000):
        drawn = rng.integers(len(values), size=len(values))
        means.append(np.concatenate([rng.choice(values[i], len(values[i])) for i in drawn]).mean())
    return np.percentile(means, [2.5, 97.5])


def keeps_90_percent_of_patients_means(values, rng):
    low, high = chapter_09.patient_interval(values, rng)
    middle = (low + high) / 2
    return middle - 0.84 * (middle - low), middle + 0.84 * (high - middle)


def puts_the_high_end_of_patients_first(values, rng):
    return chapter_09.patient_interval(values, rng)[::-1]


def draws_patients_with_a_seed_of_its_own(values, rng):
    return chapter_09.patient_interval(values, np.random.default_rng(0))


def draws_patients_the_global_way(values, rng):
    return chapter_09.patient_interval(values, np.random.default_rng(np.random.randint(2**31)))


# 09.3


def divides_by_k(present, absent, template):
    seen, unseen = ((scans * template).sum((1, 2)) for scans in (present, absent))
    return (seen.mean() - unseen.mean()) / np.sqrt((seen.var() + unseen.var()) / 2)


def adds_both_variances(present, absent, template):
    return chapter_09.observer(present, absent, template) / math.sqrt(2)


def looks_at_one_spread(present, absent, template):
    seen, unseen = ((scans * template).sum((1, 2)) for scans in (present, absent))
    return (seen.mean() - unseen.mean()) / unseen.std(ddof=1)


def averages_deviations(present, absent, template):
    seen, unseen = ((scans * template).sum((1, 2)) for scans in (present, absent))
    return (seen.mean() - unseen.mean()) / (seen.std(ddof=1) + unseen.std(ddof=1)) * 2


def forgets_the_template(present, absent, template):
    return chapter_09.observer(present, absent, np.ones_like(template))


def does_not_divide_by_the_spread(present, absent, template):
    seen, unseen = ((scans * template).sum((1, 2)) for scans in (present, absent))
    return (seen.mean() - unseen.mean()) / template.sum()


def divides_by_the_variance(present, absent, template):
    seen, unseen = ((scans * template).sum((1, 2)) for scans in (present, absent))
    return (seen.mean() - unseen.mean()) / ((seen.var(ddof=1) + unseen.var(ddof=1)) / 2)


def takes_the_size_of_d(present, absent, template):
    return abs(chapter_09.observer(present, absent, template))


# 09.4


def multiplies_all_by_m(p):
    return np.minimum(len(p) * p, 1)


def returns_them_sorted(p):
    return np.sort(chapter_09.holm_adjusted(p))


def lets_a_larger_p_get_ahead(p):
    order = np.argsort(p)
    return np.minimum(((len(p) - np.arange(len(p))) * p[order])[np.argsort(order)], 1)


def exceeds_1(p):
    order = np.argsort(p)
    return np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])[np.argsort(order)]


def pays_from_the_largest(p):
    order = np.argsort(p)
    return np.minimum((np.arange(1, len(p) + 1) * p[order])[np.argsort(order)], 1)


def counts_from_m_plus_1(p):
    order = np.argsort(p)
    factors = len(p) + 1 - np.arange(len(p))
    return np.minimum(np.maximum.accumulate(factors * p[order]), 1)[np.argsort(order)]


def permutes_the_wrong_way(p):
    order = np.argsort(p)
    return np.sort(chapter_09.holm_adjusted(p))[order]


def corrects_by_false_discovery(p):
    order = np.argsort(p)
    steps = p[order] * len(p) / np.arange(1, len(p) + 1)
    return np.minimum.accumulate(steps[::-1])[::-1][np.argsort(order)]


MISTAKES = {
    "09.1": {
        swaps_the_two_means: "first",
        averages_the_decibels_twice: "second",
        averages_the_errors_twice: "first",
        takes_a_fixed_range: "MSE 1, width 10",
        does_not_square_the_width: "for one slice",
        averages_roots: "averages roots",
        leaves_the_decibels_unaveraged: "two numbers",
    },
    "09.2": {
        draws_patients_only: "draw among the patient's slices too",
        draws_slices_only: "your interval has no width",
        pools_the_slices: "repeating a slice tells nothing",
        averages_all_slices_drawn: "the middle should be about 0.5",
        keeps_90_percent_of_patients_means: "the middle 95 % of resampled means",
        puts_the_high_end_of_patients_first: "the low one comes first",
        draws_patients_with_a_seed_of_its_own: "without a seed of your own",
        draws_patients_the_global_way: "draw with `rng` alone",
    },
    "09.3": {
        divides_by_k: "for one pixel, 3 and 5 HU",
        adds_both_variances: "for one pixel, 3 and 5 HU",
        looks_at_one_spread: "variances 32 and 2",
        averages_deviations: "variances 32 and 2",
        forgets_the_template: "where the template is 0",
        does_not_divide_by_the_spread: "for one pixel, 3 and 5 HU",
        divides_by_the_variance: "for one pixel, 3 and 5 HU",
        takes_the_size_of_d: "it should turn its sign",
    },
    "09.4": {
        multiplies_all_by_m: "for 0.001, 0.01 and 0.02",
        returns_them_sorted: "for 0.02, 0.001 and 0.01",
        lets_a_larger_p_get_ahead: "for 0.02, 0.021 and 0.022",
        exceeds_1: "for 0.7, 0.8 and 0.6",
        pays_from_the_largest: "for 0.001 among four",
        counts_from_m_plus_1: "for a single p of 0.03",
        permutes_the_wrong_way: "for 0.02, 0.001 and 0.01",
        corrects_by_false_discovery: "for 0.001, 0.01 and 0.02",
    },
}


@pytest.mark.parametrize(("exercise_id", "mistake", "text"), planted(MISTAKES))
def test_a_planted_mistake_is_found_and_named(exercise_id, mistake, text):
    verdict = exercises.judge(exercise_id, mistake)
    assert verdict.status == "wrong"
    assert text in verdict.message


def test_other_right_ways_and_the_package_agree_with_chapter_09():
    def by_logarithms(mse, width):
        return 20 * math.log10(width) - np.array([10 * np.log10(mse).mean(), 10 * np.log10(mse.mean())])

    def patient_by_patient(values, rng):
        n = len(values)
        drawn = [v[rng.integers(len(v), size=(3000, n, len(v)))].mean(2) for v in values]  # (3000, places)
        who, draw = rng.integers(n, size=(3000, n)), np.arange(3000)[:, None]
        return np.quantile(np.stack(drawn)[who, draw, np.arange(n)].mean(1), [0.025, 0.975])

    def by_loop(p):
        rank = {i: k for k, i in enumerate(sorted(range(len(p)), key=lambda i: p[i]))}
        paid = [(len(p) - rank[i]) * p[i] for i in range(len(p))]
        return [min(1, max(paid[j] for j in rank if rank[j] <= rank[i])) for i in range(len(p))]

    assert exercises.judge("09.1", by_logarithms).status == "right"
    assert exercises.judge("09.2", patient_by_patient).status == "right"
    assert exercises.judge("09.4", by_loop).status == "right"

    rng = np.random.default_rng(0)
    slices = 100 + rng.normal(0, 20, (3, 8, 8))
    mse = ((slices - 100) ** 2).mean((1, 2))
    each = [metrics.psnr_db(torch.tensor(one), torch.full((8, 8), 100.0).double()) for one in slices]
    assert chapter_09.psnr_two_ways(mse, 400.0)[0] == pytest.approx(np.mean(each))
    values = [rng.normal(mean, 1, 5) for mean in (0, 1, 2, 3, 5, 8)]
    ends = statistics.interval_by_patient(np.concatenate(values), np.repeat(np.arange(6), 5))
    assert chapter_09.patient_interval(values, rng) == pytest.approx(ends, abs=0.3)
    present, absent, template = rng.normal(1, 2, (6, 4, 4)), rng.normal(0, 1, (6, 4, 4)), rng.random((4, 4))
    found = lesions.npw(*map(torch.tensor, (present, absent, template))).d_prime
    assert chapter_09.observer(present, absent, template) == pytest.approx(found)
    p = rng.random(7) ** 3
    named = statistics.holm({str(n): one for n, one in enumerate(p)})
    assert chapter_09.holm_adjusted(p) == pytest.approx([*named.values()])
