"""Exercises of chapter 07: places far away, InfoNCE, and what each similarity is pulled by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alden_lite.lessons.exercises import Attempt, Exercise, Mistake, same
from alden_lite.lessons.tensors import returned_tensor

__all__ = ["EXERCISES", "MODES", "Settings", "far_from", "info_nce", "pulls"]


def far_from(row: int, column: int, h: int, w: int, distance: int) -> Tensor:
    """Places of an `(h, w)` grid at least `distance` tokens from a place: `(h, w)`, True where far.

    The distance is the larger of the number of rows and the number of columns between two places.
    """
    rows = (torch.arange(h) - row).abs()[:, None]  # (h, 1)
    columns = (torch.arange(w) - column).abs()  # (w,)
    return torch.maximum(rows, columns) >= distance


def info_nce(positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Losses `(K,)` in nats from similarities: `positive` `(K,)`, `negatives` `(K, N)`."""
    logits = torch.cat([positive[:, None], negatives], dim=1) / temperature  # (K, 1 + N)
    return logits.logsumexp(dim=1) - logits[:, 0]


def pulls(positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Derivative of each place's loss by its similarities, the positive first: `(K, 1 + N)`."""
    logits = torch.cat([positive[:, None], negatives], dim=1) / temperature
    wanted = torch.zeros_like(logits)
    wanted[:, 0] = 1
    return (logits.softmax(dim=1) - wanted) / temperature


# 07.1


def _the_mask_is_the_grid(attempt: Attempt) -> None:
    shape = tuple(returned_tensor(attempt(1, 2, 4, 6, 2)).shape)
    if shape != (4, 6):
        raise Mistake(f"a grid of 4 rows and 6 columns should give a mask (4, 6); yours is {shape}")


def _a_place_is_not_far_from_itself(attempt: Attempt) -> None:
    mask = _mask(attempt(2, 2, 5, 5, 2))
    if bool(mask[2, 2]):
        raise Mistake("place (2, 2) is called far from itself: True should mean far, False near")


def _the_distance_itself_is_far(attempt: Attempt) -> None:
    mask = _mask(attempt(2, 2, 5, 5, 2))
    if not bool(mask[2, 4]):
        raise Mistake("for a distance of 2, a place 2 tokens to the right is far: at least means >=")


def _one_direction_is_enough(attempt: Attempt) -> None:
    mask = _mask(attempt(0, 0, 4, 4, 3))
    if not bool(mask[3, 0]):
        raise Mistake(
            "a place 3 rows below in the same column is 3 tokens away: take the larger of the two "
            "steps, not the smaller"
        )


def _a_diagonal_step_counts_once(attempt: Attempt) -> None:
    mask = _mask(attempt(2, 2, 6, 6, 2))
    if bool(mask[3, 3]):
        raise Mistake(
            "one step down and one to the right is 1 token away, for a distance of 2 not far: "
            "do you add the steps up?"
        )
    mask = _mask(attempt(2, 2, 8, 8, 4))
    if bool(mask[5, 5]):
        raise Mistake(
            "three steps down and three to the right are 3 tokens, for a distance of 4 not far: "
            "yours seems to be the straight line, 4.2"
        )


def _rows_come_first(attempt: Attempt) -> None:
    mask = _mask(attempt(0, 4, 3, 5, 2))
    if bool(mask[0, 4]) or not bool(mask[0, 0]):
        raise Mistake(
            "for the place in row 0 and column 4 of a 3 x 5 grid, the top right is near and the top "
            "left is far; yours says otherwise: are rows and columns swapped?"
        )


def _equals_the_reference_mask(attempt: Attempt) -> None:
    for row, column, h, w, distance in ((0, 0, 1, 7, 3), (3, 1, 6, 4, 1), (5, 9, 8, 12, 4)):
        got = _mask(attempt(row, column, h, w, distance))
        situation = f"from ({row}, {column}) on a {h} x {w} grid, at least {distance}: far (1) or not (0)"
        same(got.double(), far_from(row, column, h, w, distance).double(), situation)


def _mask(value: Any) -> Tensor:
    mask = returned_tensor(value)
    if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
        raise Mistake("the mask should be True where a place is far and False elsewhere, not a distance")
    return mask.bool()


# 07.2


def _a_loss_for_every_place(attempt: Attempt) -> None:
    shape = tuple(returned_tensor(attempt(*_similarities(3, 5), 0.5)).shape)
    if shape != (3,):
        raise Mistake(f"3 places with 5 negatives each should give 3 losses, (3,); your shape is {shape}")


def _when_all_are_alike_it_is_a_guess(attempt: Attempt) -> None:
    situation = "for a positive and three negatives, all of similarity 0.5,"
    got = float(
        returned_tensor(attempt(_column(0.5), torch.full((1, 3), 0.5, dtype=torch.float64), 1.0)).flatten()[0]
    )
    for value, question in _TELLING_LOSSES.items():
        if math.isclose(got, value, abs_tol=1e-6):
            raise Mistake(f"{situation} expected log 4 = 1.386, yours is {got:.3f}: {question}")
    same(got, math.log(4), situation)


_TELLING_LOSSES = {
    math.log(3): "the positive belongs into the sum below, too",
    -math.log(4): "a loss is minus the logarithm",
    math.log(2): "the negatives are summed, not averaged",
    2.0: "a logarithm to the base of 2? Nats take the natural one",
    0.25: "that is the share; the loss is minus its logarithm",
}
"""What common mistakes give for four similarities that are all equal."""


def _the_temperature_divides(attempt: Attempt) -> None:
    situation = "for similarities 0.8 and 0.3 at a temperature of 0.5"
    got = returned_tensor(attempt(_column(0.8), _column(0.3)[:, None], 0.5))
    expected = math.log1p(math.exp(-1.0))
    if torch.allclose(got.double(), torch.tensor(math.log1p(math.exp(-0.25)), dtype=torch.float64)):
        raise Mistake(f"{situation} you multiply by the temperature; divide by it")
    if torch.allclose(got.double(), torch.tensor(math.log1p(math.exp(-0.5)), dtype=torch.float64)):
        raise Mistake(f"{situation} the temperature has no say in yours")
    same(got, [expected], situation)


def _a_sure_choice_costs_nothing(attempt: Attempt) -> None:
    got = float(
        returned_tensor(attempt(_column(1.0), torch.tensor([[-1.0, -1.0]]).double(), 0.05)).flatten()[0]
    )
    if not 0 <= got < 1e-6:
        raise Mistake(
            f"a positive of 1 against negatives of -1 should cost nearly nothing, never less than nothing; "
            f"yours is {got:.3g}"
        )


def _small_temperatures_stay_finite(attempt: Attempt) -> None:
    situation = "for similarities 0.9 and 0.8 at a temperature of 0.001"
    got = returned_tensor(attempt(_column(0.8), _column(0.9)[:, None], 0.001))
    if not torch.isfinite(got).all():
        raise Mistake(
            f"{situation} your loss is {float(got.flatten()[0])}: exp(900) is infinite. Take logsumexp, or "
            "subtract the largest first"
        )
    same(got, [100.0], situation)


def _a_negative_left_out_costs_nothing(attempt: Attempt) -> None:
    positive, negatives = _similarities(2, 3)
    left_out = torch.cat([negatives, torch.full((2, 1), -torch.inf, dtype=torch.float64)], dim=1)
    same(
        attempt(positive, left_out, 0.2),
        info_nce(positive, negatives, 0.2),
        "with a fourth negative of -inf, which is how a place is left out,",
    )


def _equals_the_reference_loss(attempt: Attempt) -> None:
    for seed in range(3):
        positive, negatives = _similarities(6, 9, seed=seed)
        same(
            attempt(positive, negatives, 0.07),
            info_nce(positive, negatives, 0.07),
            "for 6 random places with 9 negatives at a temperature of 0.07",
        )


# 07.3


def _a_pull_for_every_similarity(attempt: Attempt) -> None:
    shape = tuple(returned_tensor(attempt(*_similarities(3, 5), 0.5)).shape)
    if shape != (3, 6):
        raise Mistake(
            f"3 places with a positive and 5 negatives each should give (3, 6); your shape is {shape}"
        )


def _the_positive_comes_first(attempt: Attempt) -> None:
    got = returned_tensor(attempt(*_similarities(4, 3), 0.5))
    if bool((got[:, 0] > 0).all()) and bool((got[:, 1:] < 0).all()):
        raise Mistake(
            "your signs are turned round: a higher positive lowers the loss, so its derivative is below 0"
        )
    if not bool((got[:, 0] < 0).all()):
        raise Mistake(
            f"the first column is the positive's: a higher one lowers the loss, so it is below 0; "
            f"yours is {float(got[:, 0].max()):.3f} for one of four random places"
        )
    if bool((got[:, 1:] < 0).any()):
        raise Mistake("a higher negative never lowers the loss: columns from the second on are 0 or more")


def _a_guess_among_four(attempt: Attempt) -> None:
    got = attempt(_column(0.5), torch.full((1, 3), 0.5, dtype=torch.float64), 1.0)
    same(got, [[-0.75, 0.25, 0.25, 0.25]], "for four equal similarities at a temperature of 1")


def _pulls_of_a_place_sum_to_0(attempt: Attempt) -> None:
    got = returned_tensor(attempt(*_similarities(4, 3), 0.5))
    same(got.sum(1), torch.zeros(4), "for random similarities, the sum over a place's pulls:")


def _the_temperature_divides_twice(attempt: Attempt) -> None:
    situation = "for similarities 0.8 and 0.3 at a temperature of 0.5"
    got = returned_tensor(attempt(_column(0.8), _column(0.3)[:, None], 0.5)).double()
    share = 1 / (1 + math.exp(1.0))  # of the negative, in the softmax
    for value, question in {
        share: "you have the softmax right; the similarities stand there divided by the temperature, so "
        "the chain rule divides once more",
        2 / (1 + math.exp(0.5)): "the softmax is one of similarities over the temperature",
    }.items():
        if torch.allclose(got[0, 1], torch.tensor(value, dtype=torch.float64)):
            raise Mistake(
                f"{situation} expected {2 * share:.4f} for the negative, yours is {value:.4f}: {question}"
            )
    same(got, [[-2 * share, 2 * share]], situation)


def _pulls_stay_finite(attempt: Attempt) -> None:
    got = returned_tensor(attempt(_column(0.8), _column(0.9)[:, None], 0.001))
    if not torch.isfinite(got).all():
        raise Mistake(
            "for similarities 0.8 and 0.9 at a temperature of 0.001 your pulls are not finite: exp(900) is "
            "infinite; torch's softmax takes care of that"
        )
    same(got, [[-1000.0, 1000.0]], "for similarities 0.8 and 0.9 at a temperature of 0.001")


def _equals_what_autograd_finds(attempt: Attempt) -> None:
    for seed in range(3):
        positive, negatives = _similarities(5, 7, seed=seed)
        together = torch.cat([positive[:, None], negatives], dim=1).requires_grad_()
        total = info_nce(together[:, 0], together[:, 1:], 0.07).sum()
        (expected,) = torch.autograd.grad(total, together)
        got = attempt(positive, negatives, 0.07)
        same(got, expected, "for 5 random places with 7 negatives, against autograd on info_nce:")


def _similarities(places: int, negatives: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random cosines `(K,)` and `(K, N)`, float64."""
    generator = torch.Generator().manual_seed(seed)
    cosines = 2 * torch.rand(places, 1 + negatives, generator=generator, dtype=torch.float64) - 1
    return cosines[:, 0], cosines[:, 1:]


def _column(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


EXERCISES = {
    "07.1": Exercise(
        answer=far_from,
        properties={
            "the mask has the shape of the grid": _the_mask_is_the_grid,
            "a place is not far from itself": _a_place_is_not_far_from_itself,
            "the distance itself is far": _the_distance_itself_is_far,
            "one direction is enough": _one_direction_is_enough,
            "a diagonal step counts once": _a_diagonal_step_counts_once,
            "rows come first": _rows_come_first,
            "equals the reference answer": _equals_the_reference_mask,
        },
        hints=(
            "Two lists of steps are enough: from `row` to each row, from `column` to each column.",
            "(torch.arange(h) - row).abs() are the steps down or up; as [:, None] they are (h, 1).",
            "torch.maximum of (h, 1) and (w,) is (h, w), the larger of the two steps; compare it with >=.",
        ),
    ),
    "07.2": Exercise(
        answer=info_nce,
        properties={
            "a loss for every place": _a_loss_for_every_place,
            "when all are alike it is a guess": _when_all_are_alike_it_is_a_guess,
            "the temperature divides": _the_temperature_divides,
            "a sure choice costs nothing": _a_sure_choice_costs_nothing,
            "small temperatures stay finite": _small_temperatures_stay_finite,
            "a negative left out costs nothing": _a_negative_left_out_costs_nothing,
            "equals the reference answer": _equals_the_reference_loss,
        },
        hints=(
            "Put the positive in front of its negatives: one row of similarities for each place.",
            "torch.cat([positive[:, None], negatives], dim=1) / temperature is (K, 1 + N).",
            "-log(e^p / sum of e^all) = log(sum of e^all) - p: logsumexp does the first part safely.",
        ),
    ),
    "07.3": Exercise(
        answer=pulls,
        properties={
            "a pull for every similarity": _a_pull_for_every_similarity,
            "the positive comes first, and below 0": _the_positive_comes_first,
            "a guess among four": _a_guess_among_four,
            "the pulls of a place sum to 0": _pulls_of_a_place_sum_to_0,
            "the temperature divides twice": _the_temperature_divides_twice,
            "small temperatures stay finite": _pulls_stay_finite,
            "equals what autograd finds": _equals_what_autograd_finds,
        },
        hints=(
            "Begin as in 07.2: the positive in front of its negatives, divided by the temperature.",
            "The derivative of a logsumexp is the softmax; that of `- logits[:, 0]` is -1 at the positive.",
            "(softmax - [1, 0, ..., 0]) / temperature",
        ),
    ),
}


# How much each mode computes


@dataclass(frozen=True)
class Settings:
    """How far features descend along the loss."""

    steps: int  # of the descent


MODES = {"fast": Settings(steps=30), "laptop": Settings(steps=100), "full": Settings(steps=300)}
