"""Exercises of chapter 06: what a patch discriminator sees, what it minimises, and how tokens ask tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from alden_lite.lessons.exercises import Attempt, Exercise, Mistake, same
from alden_lite.lessons.tensors import returned_tensor

__all__ = ["EXERCISES", "MODES", "Settings", "adversarial_losses", "ask", "pixels_seen"]


def pixels_seen(layers: Sequence[tuple[int, int]]) -> int:
    """Side of the square that one output of a stack of convolutions sees, in pixels of the input.

    `layers`: kernel and stride of each convolution, the one next to the picture first.
    """
    seen, step = 1, 1  # step: pixels between two neighbours of the map so far
    for kernel, stride in layers:
        seen += (kernel - 1) * step
        step *= stride
    return seen


def adversarial_losses(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """What D and G minimise, from D's logits on real and on generated patches, of any shape.

    -log p(real) - log(1 - p(fake)) for D and -log p(fake) for G, p the sigmoid of a logit; means over logits.
    """
    d_loss = F.softplus(-real).mean() + F.softplus(fake).mean()
    return d_loss, F.softplus(-fake).mean()


def ask(asking: Tensor, asked: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor) -> Tensor:
    """Cross-attention: tokens `asking (n, c)` take values from tokens `asked (m, a)`; `(n, e)`.

    `w_q (c, d)`, `w_k (a, d)` and `w_v (a, e)` make queries, keys and values.
    """
    query, key, value = asking @ w_q, asked @ w_k, asked @ w_v
    scores = query @ key.T / math.sqrt(query.shape[1])
    return scores.softmax(dim=1) @ value


# 06.1

DISCRIMINATOR = ((4, 2), (4, 2), (3, 1), (4, 2), (3, 1), (3, 1), (3, 1))
"""Kernel and stride of the package's patch discriminator, without its channel of grain."""


def _one_layer_sees_its_kernel(attempt: Attempt) -> None:
    for kernel, stride in ((5, 1), (4, 2), (1, 1)):
        same(attempt([(kernel, stride)]), kernel, f"for one layer with kernel {kernel} and stride {stride}")


def _kernels_overlap(attempt: Attempt) -> None:
    got = _number(attempt([(3, 1), (3, 1)]))
    if got in (6, 9):
        raise Mistake(
            f"two 3 x 3 convolutions with stride 1 see 5 pixels, not {got:g}: their squares overlap"
        )
    same(got, 5, "for two 3 x 3 convolutions with stride 1")


def _a_stride_spreads_what_follows(attempt: Attempt) -> None:
    got = _number(attempt([(4, 2), (3, 1)]))
    if got == 6:
        raise Mistake(
            "after a stride of 2, neighbours are 2 pixels apart: for kernels 4 (stride 2) and 3, "
            "expected 8, yours gives 6"
        )
    same(got, 8, "for kernel 4 with stride 2, then kernel 3 with stride 1")


def _the_last_stride_does_not_count(attempt: Attempt) -> None:
    same(
        attempt([(3, 1), (4, 2)]), 6, "for kernel 3 with stride 1, then kernel 4 with stride 2, which is last"
    )


def _strides_multiply(attempt: Attempt) -> None:
    same(attempt([(2, 2), (2, 3), (2, 1)]), 1 + 1 + 2 + 6, "for kernels of 2 with strides 2, 3 and 1")


def _no_layer_sees_one_pixel(attempt: Attempt) -> None:
    same(attempt([]), 1, "for no layer at all")


def _is_the_discriminators(attempt: Attempt) -> None:
    same(attempt(list(DISCRIMINATOR)), 78, "for the layers of the discriminator")


# 06.2

_TELLING_LOSSES = {
    -0.693147: "is a sign missing, or is it log(1 - p)? G's loss is -log p",
    0.5: "is that p itself? The loss is -log p",
}
"""What common mistakes give G for logits of 0, where -log(1/2) is 0.693."""


def _two_numbers(attempt: Attempt) -> None:
    _losses(attempt, [0.3, -2.0, 1.0], [0.7, 0.1])


def _guessing_costs_log_2(attempt: Attempt) -> None:
    situation = "for logits of 0, so p = 1/2 everywhere,"
    d_loss, g_loss = _losses(attempt, [0.0, 0.0], [0.0, 0.0])
    for value, question in _TELLING_LOSSES.items():
        if math.isclose(float(g_loss), value, abs_tol=1e-5):
            raise Mistake(f"{situation} G's loss should be 0.693, yours is {float(g_loss):.3f}: {question}")
    same(d_loss, 2 * math.log(2), f"{situation} D's loss, of both parts together:")
    same(g_loss, math.log(2), f"{situation} G's loss:")


def _d_wants_real_up_and_fake_down(attempt: Attempt) -> None:
    right, _ = _losses(attempt, [5.0], [-5.0])
    wrong, _ = _losses(attempt, [-5.0], [5.0])
    if right > wrong:
        raise Mistake(
            f"D's loss is {float(right):.3g} if it is right (5 on real, -5 on fake) and {float(wrong):.3g} "
            "if it is wrong: real and fake seem swapped"
        )
    same(right, 2 * math.log1p(math.exp(-5)), "for 5 on real and -5 on fake, D's loss:")


def _g_wants_fake_up(attempt: Attempt) -> None:
    _, fooled = _losses(attempt, [0.0], [5.0])
    _, caught = _losses(attempt, [0.0], [-5.0])
    if fooled > caught:
        raise Mistake("G's loss should fall when D takes its patch for real (a logit of 5); yours rises")
    same(fooled, math.log1p(math.exp(-5)), "for a logit of 5 on fake, G's loss:")


def _a_g_that_is_caught_still_learns(attempt: Attempt) -> None:
    fake = torch.tensor([-20.0], dtype=torch.float64, requires_grad=True)
    _, g_loss = _pair(attempt(torch.zeros(1, dtype=torch.float64), fake))
    if not g_loss.requires_grad:
        raise Mistake("no gradient reaches the logits: keep them tensors, and do not detach them")
    (slope,) = torch.autograd.grad(g_loss, fake)
    if abs(float(slope)) < 0.5:
        raise Mistake(
            f"D is sure that a patch is generated (logit -20): the slope of G's loss should be near -1, "
            f"yours is {float(slope):.1e}, and nothing is learned. Minimise -log p, and cut nothing off"
        )
    same(slope, torch.tensor([-1.0]), "for a logit of -20 on fake, the slope of G's loss:")


def _sure_logits_stay_finite(attempt: Attempt) -> None:
    d_loss, g_loss = _losses(attempt, [-2000.0], [2000.0])
    if not (torch.isfinite(d_loss) and torch.isfinite(g_loss)):
        raise Mistake(
            "for logits of -2000 and 2000 yours is not finite: log(sigmoid(z)) is log(0). "
            "Use softplus or logsigmoid, which know better"
        )
    same(d_loss, 4000, "for -2000 on real and 2000 on fake, D's loss:")


def _real_and_fake_have_means_of_their_own(attempt: Attempt) -> None:
    d_loss, g_loss = _losses(attempt, [1.0], [-1.0, 2.0, 3.0])
    d_answer, g_answer = adversarial_losses(*_logits([1.0], [-1.0, 2.0, 3.0]))
    same(d_loss, d_answer, "for one real logit and three fake ones, D's loss:")
    same(g_loss, g_answer, "for one real logit and three fake ones, G's loss:")


def _logits(real: list[float], fake: list[float]) -> tuple[Tensor, Tensor]:
    return torch.tensor(real, dtype=torch.float64), torch.tensor(fake, dtype=torch.float64)


def _losses(attempt: Attempt, real: list[float], fake: list[float]) -> tuple[Tensor, Tensor]:
    return _pair(attempt(*_logits(real, fake)))


def _pair(value: Any) -> tuple[Tensor, Tensor]:
    """The attempt's two losses, each one number; anything else is a `Mistake`."""
    try:
        first, second = (torch.as_tensor(one) for one in value)
    except (TypeError, ValueError, RuntimeError):
        raise Mistake("your function should return two numbers: `return d_loss, g_loss`") from None
    if first.ndim or second.ndim:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise Mistake(f"both losses should be one number, a mean over logits; your shapes are {shapes}")
    return first, second


# 06.3


def _as_many_answers_as_questions(attempt: Attempt) -> None:
    shape = tuple(returned_tensor(attempt(*_tokens(2, 5))).shape)
    if shape != (2, 6):
        raise Mistake(f"2 tokens ask 5, whose values have 6 numbers: expected (2, 6), your shape is {shape}")


def _one_token_asked_gives_its_value(attempt: Attempt) -> None:
    asking, asked, w_q, w_k, w_v = _tokens(3, 1)
    same(
        attempt(asking, asked, w_q, w_k, w_v),
        (asked @ w_v).expand(3, -1),
        "when there is only one token to ask, everybody gets its value:",
    )


def _a_question_without_content_gets_the_mean(attempt: Attempt) -> None:
    asking, asked, w_q, w_k, w_v = _tokens(2, 5)
    same(
        attempt(torch.zeros_like(asking), asked, w_q, w_k, w_v),
        (asked @ w_v).mean(0).expand(2, -1),
        "tokens of zeros look everywhere alike, so they get the mean value:",
    )


def _the_order_of_the_asked_does_not_matter(attempt: Attempt) -> None:
    asking, asked, *weights = _tokens(2, 5)
    same(
        attempt(asking, asked.flip(0), *weights),
        returned_tensor(attempt(asking, asked, *weights)),
        "for the asked tokens in reverse order the answers should be the same:",
    )


def _the_order_of_the_asking_does(attempt: Attempt) -> None:
    asking, asked, *weights = _tokens(3, 5)
    same(
        attempt(asking.flip(0), asked, *weights),
        returned_tensor(attempt(asking, asked, *weights)).flip(0),
        "for the asking tokens in reverse order the answers should be reversed, too:",
    )


def _the_scale_is_the_root_of_the_queries_length(attempt: Attempt) -> None:
    one = torch.eye(4, dtype=torch.float64)
    asking, asked = 4 * one[:1], one[:2]  # scores of 4 and 0 at d = 4
    got = float(returned_tensor(attempt(asking, asked, one, one, one)).flatten()[0])
    situation = "for scores of 4 and 0 before scaling, and queries of 4 numbers, the first weight"
    for value, question in {
        0.98201: "are scores divided by the root of d?",
        0.73106: "are scores divided by d, instead of by its root?",
    }.items():
        if math.isclose(got, value, abs_tol=1e-4):
            raise Mistake(f"{situation} should be 0.881, yours is {got:.3f}: {question}")
    same(got, 1 / (1 + math.exp(-2)), f"{situation}:")


def _equals_the_reference_answer(attempt: Attempt) -> None:
    for seed in range(3):
        same(
            attempt(*_tokens(4, 7, seed)),
            ask(*_tokens(4, 7, seed)),
            "for 4 random tokens that ask 7 random ones",
        )


def _tokens(n: int, m: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Random asking tokens `(n, 3)`, asked tokens `(m, 4)`, and matrices to queries, keys and values."""
    generator = torch.Generator().manual_seed(seed)
    sizes = ((n, 3), (m, 4), (3, 5), (4, 5), (4, 6))
    asking, asked, w_q, w_k, w_v = (
        torch.randn(*size, generator=generator, dtype=torch.float64) for size in sizes
    )
    return asking, asked, w_q, w_k, w_v


def _number(value: Any) -> float:
    got = returned_tensor(value)
    if got.numel() != 1:
        raise Mistake(f"one number of pixels is wanted, your answer has the shape {tuple(got.shape)}")
    return float(got)


EXERCISES = {
    "06.1": Exercise(
        answer=pixels_seen,
        properties={
            "one layer sees its kernel": _one_layer_sees_its_kernel,
            "kernels overlap": _kernels_overlap,
            "a stride spreads what follows": _a_stride_spreads_what_follows,
            "the last stride does not count": _the_last_stride_does_not_count,
            "strides multiply": _strides_multiply,
            "no layer sees one pixel": _no_layer_sees_one_pixel,
            "the discriminator's": _is_the_discriminators,
        },
        hints=(
            "Begin with one pixel, and go through the layers from the picture upwards.",
            "A kernel of 4 adds 3 neighbours to what was seen. How far apart do neighbours lie, in pixels?",
            "After strides of 2 and 2, neighbours in the map lie 4 pixels apart: keep that product.",
            "for kernel, stride in layers: seen += (kernel - 1) * step; then step *= stride",
        ),
    ),
    "06.2": Exercise(
        answer=adversarial_losses,
        properties={
            "two numbers come out": _two_numbers,
            "guessing costs log 2": _guessing_costs_log_2,
            "D wants real up and fake down": _d_wants_real_up_and_fake_down,
            "G wants fake up": _g_wants_fake_up,
            "a G that is caught still learns": _a_g_that_is_caught_still_learns,
            "sure logits stay finite": _sure_logits_stay_finite,
            "real and fake have means of their own": _real_and_fake_have_means_of_their_own,
        },
        hints=(
            "p is 1 / (1 + exp(-z)). Write -log p with exp and log, and simplify.",
            "-log p = log(1 + exp(-z)), and -log(1 - p) = log(1 + exp(z)).",
            "log(1 + exp(z)) is torch.nn.functional.softplus(z), which does not overflow.",
            "D: softplus(-real).mean() + softplus(fake).mean(). G: what D would pay if fake were real.",
        ),
    ),
    "06.3": Exercise(
        answer=ask,
        properties={
            "as many answers as questions": _as_many_answers_as_questions,
            "one token asked gives its value": _one_token_asked_gives_its_value,
            "a question without content gets the mean": _a_question_without_content_gets_the_mean,
            "the order of the asked does not matter": _the_order_of_the_asked_does_not_matter,
            "the order of the asking does": _the_order_of_the_asking_does,
            "the scale is the root of the queries' length": _the_scale_is_the_root_of_the_queries_length,
            "equals the reference answer": _equals_the_reference_answer,
        },
        hints=(
            "Queries come from those who ask; keys and values from those who are asked.",
            "query @ key.T is (n, m): how well each asked token fits each asking one.",
            "Divide by the root of the length of a query, and let a softmax make shares of each row.",
            "The shares (n, m) times the values (m, e) are the answers (n, e).",
        ),
    ),
}


# How much each mode computes


@dataclass(frozen=True)
class Settings:
    """How long the discriminators train."""

    every: int  # use every n-th training slice
    recipe: Mapping[str, Any]  # fields of `alden.Recipe` that differ from its defaults


# A discriminator alone, on slices that a frozen generator denoised once.
_DISCRIMINATOR: dict[str, Any] = {
    "adversarial_weight": 1,
    "contrastive_weight": 0,
    "batch": 4,
    "bank": 128,
    "discriminator_learning_rate": 2e-4,
    "warmup": 0,
    "accelerator": "cpu",
}

MODES = {
    "fast": Settings(every=8, recipe=_DISCRIMINATOR | {"steps": 150}),
    "laptop": Settings(every=2, recipe=_DISCRIMINATOR | {"steps": 600, "batch": 8, "bank": 256}),
    "full": Settings(every=1, recipe=_DISCRIMINATOR | {"steps": 3000, "batch": 16, "bank": 512}),
}
