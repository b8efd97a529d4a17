"""Exercises of chapter 05: one head of attention, rollout, and gradients summed along a path."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alden_lite.lessons.exercises import Attempt, Exercise, Mistake, same
from alden_lite.lessons.tensors import returned_tensor

__all__ = ["EXERCISES", "MODES", "Settings", "attend", "roll_out", "share_out"]


def attend(q: Tensor, k: Tensor) -> Tensor:
    """Attention weights `(n, m)` of n queries `(n, d)` to m keys `(m, d)`: a softmax of each row."""
    scores = q @ k.T / math.sqrt(q.shape[1])
    return scores.softmax(dim=1)


def roll_out(attentions: list[Tensor]) -> Tensor:
    """Attention through all blocks `(N, N)`, from `attentions`, each `(N, N)`, the first block first.

    Each block keeps half of every token and mixes the other half by its attention.
    """
    own = torch.eye(len(attentions[0]), dtype=attentions[0].dtype)
    rolled = own
    for attention in attentions:
        rolled = (own + attention) / 2 @ rolled
    return rolled


def share_out(f: Callable[[Tensor], Tensor], x: Tensor, baseline: Tensor, steps: int) -> Tensor:
    """Integrated gradients of `f`, like `x`: (x - baseline) * mean gradient on the way from baseline to x."""
    total = torch.zeros_like(x)
    for step in range(steps):
        point = baseline + (step + 0.5) / steps * (x - baseline)
        total += torch.autograd.grad(f(point.requires_grad_()), point)[0]
    return (x - baseline) * total / steps


# 05.1

_ONE_QUERY = torch.tensor([[2.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
_TWO_KEYS = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 5.0, 0.0, 0.0]], dtype=torch.float64)
_TELLING_WEIGHTS = {
    0.98201: "are the scores divided by the root of d? Here d is 4",
    0.73106: "are the scores divided by d, instead of by its root?",
    0.94420: "d is the length of a query, not the number of keys",
}
"""What common mistakes give for scores of 4 and 0 at d = 4, where the first weight is 0.88."""


def _a_row_for_every_query(attempt: Attempt) -> None:
    q, k = _queries_and_keys(2, 4, 3)
    shape = tuple(returned_tensor(attempt(q, k)).shape)
    if shape != (2, 4):
        raise Mistake(
            f"2 queries and 4 keys should give a row for every query, (2, 4); your shape is {shape}"
        )


def _rows_sum_to_1(attempt: Attempt) -> None:
    q, k = _queries_and_keys(3, 5, 4)
    weights = returned_tensor(attempt(q, k))
    if (weights < 0).any():
        raise Mistake(f"for random queries and keys one of your weights is {float(weights.min()):.3g}")
    same(weights.sum(1), torch.ones(3), "for 3 random queries and 5 keys, the sum of a row:")


def _a_query_of_zeros_looks_everywhere_alike(attempt: Attempt) -> None:
    _, k = _queries_and_keys(1, 4, 3)
    same(attempt(torch.zeros(1, 3, dtype=k.dtype), k), torch.full((1, 4), 0.25), "for a query of zeros")


def _the_scale_is_the_root_of_d(attempt: Attempt) -> None:
    situation = "for q [[2, 0, 0, 0]] and k [[2, 0, 0, 0], [0, 5, 0, 0]]"
    got = returned_tensor(attempt(_ONE_QUERY, _TWO_KEYS))
    first = float(got.flatten()[0])
    for value, question in _TELLING_WEIGHTS.items():
        if math.isclose(first, value, abs_tol=1e-4):
            raise Mistake(f"{situation} expected a first weight of 0.881, yours is {first:.3f}: {question}")
    same(got, attend(_ONE_QUERY, _TWO_KEYS), situation)


def _large_scores_stay_finite(attempt: Attempt) -> None:
    q, k = _ONE_QUERY * 1000, _TWO_KEYS
    weights = returned_tensor(attempt(q, k))
    if not torch.isfinite(weights).all():
        raise Mistake(
            "for scores of 2000 and 0 your weights are not finite: exp(2000) is. "
            "Subtract the largest score first, or let torch's softmax do it"
        )
    same(weights, torch.tensor([[1.0, 0.0]]), "for scores of 2000 and 0")


def _equals_the_reference_attention(attempt: Attempt) -> None:
    for seed in range(3):
        q, k = _queries_and_keys(5, 7, 6, seed=seed)
        same(attempt(q, k), attend(q, k), "for 5 random queries and 7 keys of length 6")


def _queries_and_keys(n: int, m: int, d: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(size, d, generator=generator, dtype=torch.float64) for size in (n, m))
    return q, k


# 05.2

_SWAP = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
_TO_THE_FIRST = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)


def _looking_at_oneself_changes_nothing(attempt: Attempt) -> None:
    own = torch.eye(3, dtype=torch.float64)
    same(
        attempt([own.clone() for _ in range(4)]),
        own,
        "for four blocks in which every token looks at itself alone",
    )


def _one_block_is_half_attention(attempt: Attempt) -> None:
    situation = "for one block in which two tokens look at each other"
    got = returned_tensor(attempt([_SWAP]))
    if torch.equal(got, _SWAP):
        raise Mistake(f"{situation} you return the attention itself: half of a token passes by it")
    if torch.equal(got, _SWAP + torch.eye(2)):
        raise Mistake(f"{situation} your rows sum to 2: attention and identity have one half each")
    same(got, torch.full((2, 2), 0.5), situation)


def _the_later_block_stands_on_the_left(attempt: Attempt) -> None:
    situation = "for a block that swaps two tokens and then one that looks at the first token"
    got = returned_tensor(attempt([_SWAP, _TO_THE_FIRST]))
    if torch.allclose(got.double(), roll_out([_TO_THE_FIRST, _SWAP])):
        raise Mistake(f"{situation} yours multiplies A₁ A₂; the later block belongs on the left: A₂ A₁")
    same(got, roll_out([_SWAP, _TO_THE_FIRST]), situation)


def _rolled_rows_sum_to_1(attempt: Attempt) -> None:
    rolled = returned_tensor(attempt(_blocks(5, 4)))
    same(rolled.sum(-1), torch.ones(4), "for five random blocks of 4 tokens, the sum of a row:")


def _every_block_has_its_own_half(attempt: Attempt) -> None:
    # Half of token 1 stays at each block, so three blocks leave an eighth.
    same(
        attempt([_TO_THE_FIRST.clone() for _ in range(3)])[1],
        [0.875, 0.125],
        "for three blocks that look at the first token, row 1:",
    )


def _the_attentions_stay_as_they_are(attempt: Attempt) -> None:
    attempt(_blocks(2, 3))
    for before, after in zip(_blocks(2, 3), attempt.received[0], strict=False):
        if not torch.equal(before, after):
            raise Mistake("your function changes the attentions it was given: does it use += or fill_?")


def _equals_the_reference_rollout(attempt: Attempt) -> None:
    for blocks in (1, 2, 12):
        same(
            attempt(_blocks(blocks, 5)),
            roll_out(_blocks(blocks, 5)),
            f"for {blocks} random blocks of 5 tokens",
        )


def _blocks(number: int, tokens: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(number)
    scores = 2 * torch.randn(number, tokens, tokens, generator=generator, dtype=torch.float64)
    return list(scores.softmax(-1))


# 05.3

_STEPS = 200
_ROUGHLY = 0.02  # a sum over the left or the right ends of 200 steps is a right answer


def _a_linear_function_gives_its_weights(attempt: Attempt) -> None:
    x, baseline, weights = _vectors([3.0, -1.0, 2.0], [1.0, 1.0, 1.0], [2.0, -5.0, 0.5])
    got = attempt(lambda point: (weights * point).sum(), x, baseline, _STEPS)
    same(
        got,
        weights * (x - baseline),
        "for f(x) = 2 x₁ - 5 x₂ + 0.5 x₃ from [1, 1, 1] to [3, -1, 2], weight times way:",
    )


def _the_way_counts_not_the_end(attempt: Attempt) -> None:
    x, baseline = _vectors([4.0], [0.0])
    got = attempt(lambda point: point.clamp(max=1).sum(), x, baseline, _STEPS)
    situation = "for f(x) = min(x, 1) from 0 to 4, which rises by 1 and is flat at its end,"
    if float(returned_tensor(got).abs().max()) == 0:
        raise Mistake(f"{situation} expected 1, yours gives 0: take the gradient all along the way")
    _about(got, torch.ones(1), situation, slack=0.05)


def _the_sum_is_the_difference(attempt: Attempt) -> None:
    x, baseline = _vectors([2.0, 3.0], [1.0, 0.0])
    got = returned_tensor(attempt(lambda point: point.prod() ** 2, x, baseline, _STEPS))
    if got.shape != x.shape:
        raise Mistake(
            f"x has the shape {tuple(x.shape)}, your answer {tuple(got.shape)}: one share a feature"
        )
    _about(got.sum(), torch.tensor(36.0), "for f(x) = (x₁ x₂)² from [1, 0] to [2, 3], the sum of the shares:")


def _the_way_begins_at_the_baseline(attempt: Attempt) -> None:
    x, baseline = _vectors([3.0], [1.0])
    got = attempt(lambda point: (point**2).sum(), x, baseline, _STEPS)
    _about(got, torch.tensor([8.0]), "for f(x) = x² from 1 to 3")


def _what_is_not_used_gets_nothing(attempt: Attempt) -> None:
    x, baseline = _vectors([2.0, 5.0], [0.0, -1.0])
    got = returned_tensor(attempt(lambda point: point[0] ** 3 + 0 * point[1], x, baseline, _STEPS))
    same(got[1], 0.0, "for f(x) = x₁³, the share of x₂:")


def _any_shape_may_be_shared_out(attempt: Attempt) -> None:
    x = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    got = attempt(lambda point: (point**2).sum(), x, torch.zeros_like(x), _STEPS)
    _about(got, x**2, "for f(x) = sum of x² and x of shape (2, 3) from 0")


def _vectors(*values: list[float]) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(one, dtype=torch.float64) for one in values)


def _about(got: Any, expected: Tensor, situation: str, *, slack: float = _ROUGHLY) -> None:
    """Like `same`, but with as much slack as rules for an integral differ at 200 steps."""
    values = returned_tensor(got).double()
    if values.shape == expected.shape and torch.allclose(values, expected.double(), rtol=slack, atol=1e-6):
        return
    same(values, expected, situation)


EXERCISES = {
    "05.1": Exercise(
        answer=attend,
        properties={
            "a row for every query": _a_row_for_every_query,
            "rows sum to 1": _rows_sum_to_1,
            "a query of zeros looks everywhere alike": _a_query_of_zeros_looks_everywhere_alike,
            "the scale is the root of d": _the_scale_is_the_root_of_d,
            "large scores stay finite": _large_scores_stay_finite,
            "equals the reference answer": _equals_the_reference_attention,
        },
        hints=(
            "Each query meets each key: their dot product is a score. All of them at once are one product.",
            "q @ k.T is (n, m): a row for every query.",
            "Divide by the root of d = q.shape[1], so that long vectors do not make every choice a sure one.",
            "The softmax goes along a row, over the keys: scores.softmax(dim=1).",
        ),
    ),
    "05.2": Exercise(
        answer=roll_out,
        properties={
            "looking at oneself changes nothing": _looking_at_oneself_changes_nothing,
            "one block is half attention, half identity": _one_block_is_half_attention,
            "the later block stands on the left": _the_later_block_stands_on_the_left,
            "rows sum to 1": _rolled_rows_sum_to_1,
            "every block has its own half": _every_block_has_its_own_half,
            "the attentions stay as they are": _the_attentions_stay_as_they_are,
            "equals the reference answer": _equals_the_reference_rollout,
        },
        hints=(
            "Begin with the identity: before the first block, every token is itself.",
            "A block makes half of a token from itself and half from where it attends: (I + A) / 2.",
            "A row of the new product mixes rows of the old one: new = half @ old.",
            "for attention in attentions: rolled = (own + attention) / 2 @ rolled",
        ),
    ),
    "05.3": Exercise(
        answer=share_out,
        properties={
            "a linear function gives its weights": _a_linear_function_gives_its_weights,
            "the way counts, not the end": _the_way_counts_not_the_end,
            "the way begins at the baseline": _the_way_begins_at_the_baseline,
            "the sum is the difference": _the_sum_is_the_difference,
            "what is not used gets nothing": _what_is_not_used_gets_nothing,
            "any shape may be shared out": _any_shape_may_be_shared_out,
        },
        hints=(
            "Walk from the baseline to x in equal steps, and take the gradient of f at each of them.",
            "A point on the way: baseline + share * (x - baseline), share = 0.5 / steps, 1.5 / steps, ...",
            "torch.autograd.grad(f(point.requires_grad_()), point)[0] is the gradient at a point.",
            "(x - baseline) * (sum of the gradients) / steps",
        ),
    ),
}


# How much each mode computes


@dataclass(frozen=True)
class Settings:
    """How finely the network is asked what it looks at."""

    every: int  # use every n-th slice near the chosen one for the probe
    steps: int  # gradients along a path
    stride: int  # pixels from one covered square to the next
    places: int  # output pixels that are asked what they depend on


MODES = {
    "fast": Settings(every=2, steps=48, stride=28, places=8),
    "laptop": Settings(every=1, steps=128, stride=14, places=40),
    "full": Settings(every=1, steps=256, stride=7, places=100),
}
