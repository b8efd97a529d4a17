"""Chapter 05's exercises: mistakes that their checks must find, and right answers they must not refuse."""

import pytest
import torch
from planted import planted

from alden_lite import explain
from alden_lite.lessons import exercises
from alden_lite.lessons.chapters import chapter_05

# 05.1


def forgets_the_root_of_d(q, k):
    return (q @ k.T).softmax(dim=1)


def divides_by_d(q, k):
    return (q @ k.T / q.shape[1]).softmax(dim=1)


def takes_the_number_of_keys_for_d(q, k):
    return (q @ k.T / len(k) ** 0.5).softmax(dim=1)


def lets_keys_choose_queries(q, k):
    return (q @ k.T / q.shape[1] ** 0.5).softmax(dim=0)


def swaps_queries_and_keys(q, k):
    return (k @ q.T / q.shape[1] ** 0.5).softmax(dim=1)


def takes_a_sigmoid(q, k):
    return (q @ k.T / q.shape[1] ** 0.5).sigmoid()


def divides_scores_by_their_sum(q, k):
    scores = (q @ k.T / q.shape[1] ** 0.5).abs()
    return scores / scores.sum(1, keepdim=True)


def lets_the_exponential_overflow(q, k):
    weights = (q @ k.T / q.shape[1] ** 0.5).exp()
    return weights / weights.sum(1, keepdim=True)


# 05.2


def forgets_the_residual(attentions):
    rolled = torch.eye(len(attentions[0]), dtype=attentions[0].dtype)
    for attention in attentions:
        rolled = attention @ rolled
    return rolled


def forgets_to_halve(attentions):
    own = torch.eye(len(attentions[0]), dtype=attentions[0].dtype)
    rolled = own
    for attention in attentions:
        rolled = (own + attention) @ rolled
    return rolled


def forgets_to_halve_but_divides_at_the_end(attentions):
    rolled = forgets_to_halve(attentions)
    return rolled / 2


def puts_the_later_block_on_the_right(attentions):
    own = torch.eye(len(attentions[0]), dtype=attentions[0].dtype)
    rolled = own
    for attention in attentions:
        rolled = rolled @ (own + attention) / 2
    return rolled


def averages_the_blocks(attentions):
    own = torch.eye(len(attentions[0]), dtype=attentions[0].dtype)
    return (own + torch.stack(attentions).mean(0)) / 2


def multiplies_place_by_place(attentions):
    own = torch.eye(len(attentions[0]), dtype=attentions[0].dtype)
    rolled = torch.ones_like(own)
    for attention in attentions:
        rolled = (own + attention) / 2 * rolled
    return rolled


def adds_the_identity_only_once(attentions):
    return (torch.eye(len(attentions[0]), dtype=attentions[0].dtype) + forgets_the_residual(attentions)) / 2


def adds_the_identity_in_place(attentions):
    rolled = torch.eye(len(attentions[0]), dtype=attentions[0].dtype)
    for attention in attentions:
        attention += torch.eye(len(attention), dtype=attention.dtype)
        rolled = attention / 2 @ rolled
    return rolled


# 05.3


def gradients_along_a_path(f, x, baseline, steps):
    points = [baseline + (n + 0.5) / steps * (x - baseline) for n in range(steps)]
    return [torch.autograd.grad(f(point.requires_grad_()), point)[0] for point in points]


def takes_the_gradient_at_the_end(f, x, baseline, steps):
    return (x - baseline) * gradients_along_a_path(f, x, x, 1)[0]


def returns_the_mean_gradient(f, x, baseline, steps):
    return sum(gradients_along_a_path(f, x, baseline, steps)) / steps


def forgets_to_divide_by_the_steps(f, x, baseline, steps):
    return (x - baseline) * sum(gradients_along_a_path(f, x, baseline, steps))


def multiplies_with_x(f, x, baseline, steps):
    return x * sum(gradients_along_a_path(f, x, baseline, steps)) / steps


def walks_from_0(f, x, baseline, steps):
    return (x - baseline) * sum(gradients_along_a_path(f, x, torch.zeros_like(x), steps)) / steps


def walks_with_the_wrong_sign(f, x, baseline, steps):
    return (baseline - x) * sum(gradients_along_a_path(f, x, baseline, steps)) / steps


def returns_the_sum_of_the_shares(f, x, baseline, steps):
    return ((x - baseline) * sum(gradients_along_a_path(f, x, baseline, steps)) / steps).sum()


def takes_absolute_gradients(f, x, baseline, steps):
    return (x - baseline) * sum(one.abs() for one in gradients_along_a_path(f, x, baseline, steps)) / steps


def shares_the_difference_evenly(f, x, baseline, steps):
    return (f(x) - f(baseline)) / x.numel() * torch.ones_like(x)


def stops_half_way(f, x, baseline, steps):
    return (x - baseline) * sum(gradients_along_a_path(f, (x + baseline) / 2, baseline, steps)) / steps


MISTAKES = {
    "05.1": {
        forgets_the_root_of_d: "are the scores divided by the root of d?",
        divides_by_d: "instead of by its root?",
        takes_the_number_of_keys_for_d: "not the number of keys",
        lets_keys_choose_queries: "rows sum to 1",
        swaps_queries_and_keys: "a row for every query, (2, 4); your shape is (4, 2)",
        takes_a_sigmoid: "rows sum to 1",
        divides_scores_by_their_sum: "a query of zeros looks everywhere alike",
        lets_the_exponential_overflow: "are not finite: exp(2000) is",
    },
    "05.2": {
        forgets_the_residual: "half of a token passes by it",
        forgets_to_halve: "looking at oneself changes nothing",
        forgets_to_halve_but_divides_at_the_end: "looking at oneself changes nothing",
        puts_the_later_block_on_the_right: "the later block belongs on the left",
        averages_the_blocks: "the later block stands on the left",
        multiplies_place_by_place: "the later block stands on the left",
        adds_the_identity_only_once: "the later block stands on the left",
        adds_the_identity_in_place: "changes the attentions it was given",
    },
    "05.3": {
        takes_the_gradient_at_the_end: "take the gradient all along the way",
        returns_the_mean_gradient: "a linear function gives its weights",
        forgets_to_divide_by_the_steps: "a linear function gives its weights",
        multiplies_with_x: "a linear function gives its weights",
        walks_from_0: "the way begins at the baseline",
        walks_with_the_wrong_sign: "a linear function gives its weights",
        returns_the_sum_of_the_shares: "the shape should be (3,)",
        takes_absolute_gradients: "a linear function gives its weights",
        shares_the_difference_evenly: "a linear function gives its weights",
        stops_half_way: "the way counts",
    },
}


@pytest.mark.parametrize(("exercise_id", "mistake", "text"), planted(MISTAKES))
def test_a_planted_mistake_is_found_and_named(exercise_id, mistake, text):
    verdict = exercises.judge(exercise_id, mistake)
    assert verdict.status == "wrong"
    assert text in verdict.message


def test_attention_rollout_and_path_may_be_written_in_other_ways():
    def loops_over_queries(q, k):
        rows = []
        for query in q:
            scores = (query * k).sum(-1) * q.shape[1] ** -0.5
            weights = (scores - scores.max()).exp()
            rows.append(weights / weights.sum())
        return torch.stack(rows)

    def from_the_last_block_down(attentions):
        rolled = torch.eye(len(attentions[0]), dtype=torch.float64)
        for attention in reversed(attentions):
            rolled = 0.5 * rolled + 0.5 * rolled @ attention
        return rolled

    def ends_on_the_right(f, x, baseline, steps):
        gradients = []
        for share in torch.linspace(1 / steps, 1, steps):
            point = torch.lerp(baseline, x, share.double()).detach().clone()
            point.requires_grad = True
            f(point).backward()
            gradients.append(point.grad)
        return torch.stack(gradients).mean(0) * (x - baseline)

    assert exercises.judge("05.1", loops_over_queries).status == "right"
    assert exercises.judge("05.2", from_the_last_block_down).status == "right"
    assert exercises.judge("05.3", ends_on_the_right).status == "right"


def test_the_answers_of_chapter_05_are_what_the_package_computes():
    generator = torch.Generator().manual_seed(0)
    attentions = torch.randn(4, 2, 5, 5, generator=generator, dtype=torch.float64).softmax(-1)  # two heads
    averaged = list(attentions.mean(1))
    rolled = explain.rollout(list(attentions[:, None]))[0]
    torch.testing.assert_close(chapter_05.roll_out(averaged), rolled)
    slices = torch.randn(1, 1, 4, 4, generator=generator)
    shares = explain.integrated_gradients(lambda hu: (hu**3).sum((1, 2, 3)), slices, baseline_hu=-1.0)
    by_hand = chapter_05.share_out(lambda hu: (hu**3).sum(), slices, torch.full_like(slices, -1), 400)
    torch.testing.assert_close(by_hand, shares.map, rtol=1e-3, atol=1e-3)
