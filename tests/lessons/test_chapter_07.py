"""Chapter 07's exercises: mistakes that their checks must find, and right answers they must not refuse."""

import math

import numpy as np
import pytest
import torch
from planted import planted
from torch.nn import functional as F

from alden_lite.alden.contrastive import discordant_places, semantic_contrastive_loss
from alden_lite.lessons import exercises
from alden_lite.lessons.chapters import chapter_07

# 07.1


def adds_rows_and_columns(row, column, h, w, distance):
    rows, columns = (torch.arange(h) - row).abs()[:, None], (torch.arange(w) - column).abs()
    return rows + columns >= distance


def takes_the_straight_line(row, column, h, w, distance):
    rows, columns = (torch.arange(h) - row)[:, None], torch.arange(w) - column
    return (rows**2 + columns**2) ** 0.5 >= distance


def leaves_the_distance_itself_out(row, column, h, w, distance):
    return chapter_07.far_from(row, column, h, w, distance + 1)


def wants_both_directions(row, column, h, w, distance):
    rows, columns = (torch.arange(h) - row).abs()[:, None], (torch.arange(w) - column).abs()
    return (rows >= distance) & (columns >= distance)


def swaps_row_and_column(row, column, h, w, distance):
    return chapter_07.far_from(column, row, h, w, distance)


def marks_what_is_near(row, column, h, w, distance):
    return ~chapter_07.far_from(row, column, h, w, distance)


def flattens_the_grid(row, column, h, w, distance):
    return chapter_07.far_from(row, column, h, w, distance).flatten()


def returns_the_distance(row, column, h, w, distance):
    return torch.maximum((torch.arange(h) - row).abs()[:, None], (torch.arange(w) - column).abs())


def forgets_the_absolute_value(row, column, h, w, distance):
    return torch.maximum((torch.arange(h) - row)[:, None], torch.arange(w) - column) >= distance


# 07.2


def logits_of(positive, negatives, temperature):
    return torch.cat([positive[:, None], negatives], 1) / temperature


def leaves_the_positive_out_below(positive, negatives, temperature):
    return (negatives / temperature).logsumexp(1) - positive / temperature


def forgets_the_minus(positive, negatives, temperature):
    return -chapter_07.info_nce(positive, negatives, temperature)


def averages_the_negatives(positive, negatives, temperature):
    own = (positive / temperature).exp()
    return -(own / (own + (negatives / temperature).exp().mean(1))).log()


def takes_bits(positive, negatives, temperature):
    return chapter_07.info_nce(positive, negatives, temperature) / math.log(2)


def returns_the_share(positive, negatives, temperature):
    return logits_of(positive, negatives, temperature).softmax(1)[:, 0]


def multiplies_by_the_temperature(positive, negatives, temperature):
    return chapter_07.info_nce(positive, negatives, 1 / temperature)


def forgets_the_temperature(positive, negatives, temperature):
    return chapter_07.info_nce(positive, negatives, 1.0)


def cools_the_positive_only(positive, negatives, temperature):
    return chapter_07.info_nce(positive / temperature, negatives, 1.0)


def averages_over_places(positive, negatives, temperature):
    return chapter_07.info_nce(positive, negatives, temperature).mean()


def lets_the_exponentials_overflow(positive, negatives, temperature):
    shares = logits_of(positive, negatives, temperature).exp()
    return -(shares[:, 0] / shares.sum(1)).log()


def takes_off_a_largest_that_may_not_count(positive, negatives, temperature):
    logits = logits_of(positive, negatives, temperature)
    logits = logits - logits.min(1, keepdim=True).values
    return logits.logsumexp(1) - logits[:, 0]


# 07.3


def forgets_the_one_at_the_positive(positive, negatives, temperature):
    return logits_of(positive, negatives, temperature).softmax(1) / temperature


def turns_the_pulls_round(positive, negatives, temperature):
    return -chapter_07.pulls(positive, negatives, temperature)


def puts_the_positive_last(positive, negatives, temperature):
    return chapter_07.pulls(positive, negatives, temperature).roll(-1, 1)


def forgets_the_chain_rule(positive, negatives, temperature):
    return chapter_07.pulls(positive, negatives, temperature) * temperature


def heats_the_softmax(positive, negatives, temperature):
    return chapter_07.pulls(positive, negatives, 1.0) / temperature


def averages_the_pulls(positive, negatives, temperature):
    return chapter_07.pulls(positive, negatives, temperature) / len(positive)


def sums_the_pulls_of_negatives(positive, negatives, temperature):
    one = chapter_07.pulls(positive, negatives, temperature)
    return torch.stack([one[:, 0], one[:, 1:].sum(1)], 1)


def takes_the_wrong_softmax(positive, negatives, temperature):
    shares = logits_of(positive, negatives, temperature).softmax(0)
    shares[:, 0] -= 1
    return shares / temperature


def lets_the_softmax_overflow(positive, negatives, temperature):
    shares = logits_of(positive, negatives, temperature).exp()
    shares = shares / shares.sum(1, keepdim=True)
    shares[:, 0] -= 1
    return shares / temperature


MISTAKES = {
    "07.1": {
        adds_rows_and_columns: "do you add the steps up?",
        takes_the_straight_line: "the straight line, 4.2",
        leaves_the_distance_itself_out: "at least means >=",
        wants_both_directions: "the distance itself is far",
        swaps_row_and_column: "are rows and columns swapped?",
        marks_what_is_near: "called far from itself",
        flattens_the_grid: "a mask (4, 6); yours is (24,)",
        returns_the_distance: "not a distance",
        forgets_the_absolute_value: "rows come first",
    },
    "07.2": {
        leaves_the_positive_out_below: "the positive belongs into the sum below, too",
        forgets_the_minus: "a loss is minus the logarithm",
        averages_the_negatives: "summed, not averaged",
        takes_bits: "a logarithm to the base of 2?",
        returns_the_share: "that is the share",
        multiplies_by_the_temperature: "you multiply by the temperature",
        forgets_the_temperature: "the temperature has no say in yours",
        cools_the_positive_only: "the temperature divides",
        averages_over_places: "a loss for every place",
        lets_the_exponentials_overflow: "exp(900) is infinite",
        takes_off_a_largest_that_may_not_count: "a negative left out costs nothing",
    },
    "07.3": {
        forgets_the_one_at_the_positive: "the positive comes first, and below 0",
        turns_the_pulls_round: "your signs are turned round",
        puts_the_positive_last: "the first column is the positive's",
        forgets_the_chain_rule: "the chain rule divides once more",
        heats_the_softmax: "the softmax is one of similarities over the temperature",
        averages_the_pulls: "equals what autograd finds",
        sums_the_pulls_of_negatives: "should give (3, 6); your shape is (3, 2)",
        takes_the_wrong_softmax: "a guess among four",
        lets_the_softmax_overflow: "exp(900) is infinite",
    },
}


@pytest.mark.parametrize(("exercise_id", "mistake", "text"), planted(MISTAKES))
def test_a_planted_mistake_is_found_and_named(exercise_id, mistake, text):
    verdict = exercises.judge(exercise_id, mistake)
    assert verdict.status == "wrong"
    assert text in verdict.message


def test_distance_contrast_and_pulls_may_be_written_in_other_ways():
    def marks_a_square(row, column, h, w, distance):
        far = np.ones((h, w), dtype=int)
        near = distance - 1
        far[max(row - near, 0) : row + near + 1, max(column - near, 0) : column + near + 1] = 0
        return far

    def asks_for_class_0(positive, negatives, temperature):
        logits = logits_of(positive, negatives, temperature)
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long), reduction="none")

    def lets_torch_differentiate(positive, negatives, temperature):
        together = torch.cat([positive[:, None], negatives], 1).requires_grad_()
        (-(together / temperature).log_softmax(1)[:, 0].sum()).backward()
        return together.grad

    assert exercises.judge("07.1", marks_a_square).status == "right"
    assert exercises.judge("07.2", asks_for_class_0).status == "right"
    assert exercises.judge("07.3", lets_torch_differentiate).status == "right"


def test_the_answers_of_chapter_07_are_what_the_package_computes():
    anchors, discordant = discordant_places(5, 7, places=35, count=35)
    for place, mask in zip(anchors.tolist(), discordant, strict=True):
        assert torch.equal(chapter_07.far_from(*divmod(place, 7), 5, 7, 2).flatten(), mask)
    maps = torch.randn(3, 1, 6, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f, y, x = F.normalize(maps[:, 0].flatten(2).mT, dim=-1)  # (16, 6) each
    far = torch.stack([chapter_07.far_from(*divmod(place, 4), 4, 4, 2).flatten() for place in range(16)])
    elsewhere = (f @ y.T).masked_fill(~far, -math.inf)
    negatives = torch.cat([elsewhere, (f * x).sum(1, keepdim=True)], 1)
    losses = chapter_07.info_nce((f * y).sum(1), negatives, 0.07)
    torch.testing.assert_close(losses.mean(), semantic_contrastive_loss(*maps))
