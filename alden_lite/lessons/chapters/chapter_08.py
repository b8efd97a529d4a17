"""Exercises of chapter 08: three small parts of a training run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alden_lite.lessons.exercises import Attempt, Exercise, Mistake, same

__all__ = [
    "EXERCISES",
    "MODES",
    "Settings",
    "discriminator_loss",
    "exponential_moving_average",
    "learning_rate",
]


def exponential_moving_average(old: Tensor, new: Tensor, decay: float) -> Tensor:
    """Keep the share `decay` of `old`, take the rest from `new`; both any shape, unchanged."""
    return decay * old + (1 - decay) * new


def discriminator_loss(discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """BCE of the discriminator's logits: 1 for `real`, 0 for `fake`, both `(B, 1, H, W)`; a scalar.

    The two means over all logits are added. `fake` is detached: this loss must not teach G.
    """
    on_real = discriminator(real)  # (B, 1, h, w), logits
    on_fake = discriminator(fake.detach())
    loss_real = F.binary_cross_entropy_with_logits(on_real, torch.ones_like(on_real))
    loss_fake = F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
    return loss_real + loss_fake


def learning_rate(step: int, *, steps: int, warmup: int, peak: float) -> float:
    """The rate rises in a line to `peak` over the `warmup` steps, then falls along half a cosine to 0.

    Steps count from 0, and step 0 already has the rate `peak / warmup`.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / (steps - warmup)
    return peak * (1 + math.cos(math.pi * progress)) / 2


# 08.1


def _decay_0_gives_the_new(attempt: Attempt) -> None:
    old, new = _pair()
    same(attempt(old, new, 0.0), new, "for old [1, 2], new [10, 20] and decay 0")


def _decay_1_keeps_the_old(attempt: Attempt) -> None:
    old, new = _pair()
    same(attempt(old, new, 1.0), old, "for old [1, 2], new [10, 20] and decay 1")


def _the_inputs_stay_as_they_are(attempt: Attempt) -> None:
    attempt(*_pair(), 0.5)
    for name, before, after in zip(("old", "new"), _pair(), attempt.received, strict=False):
        if not torch.equal(before, after):
            was, became = before.tolist(), after.tolist()
            raise Mistake(f"`{name}` was {was} before the call and is {became} after it")


def _pair() -> tuple[Tensor, Tensor]:
    old, new = torch.tensor([[1.0, 2.0], [10.0, 20.0]], dtype=torch.float64)
    return old, new


def _any_shape_works(attempt: Attempt) -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((), (3,), (2, 3, 4), (1, 8, 3, 3)):
        old, new = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in "ab")
        expected = exponential_moving_average(old, new, 0.9)
        same(attempt(old, new, 0.9), expected, f"for random tensors of shape {shape} and decay 0.9")


# 08.2

_TELLING_LOSSES = {
    10.01: "are 1 and 0 swapped?",
    1.011: "is there a sigmoid before a loss that has one inside?",
    0.00672: "are the two means added, or is half of the sum returned?",
}
"""What common mistakes give for logits of +5 and -5, where the loss is 0.0134."""


def _a_discriminator_that_is_right_costs_little(attempt: Attempt) -> None:
    def discriminator(image: Tensor) -> Tensor:
        return 5 * image

    real = torch.ones(2, 1, 4, 4, dtype=torch.float64)
    loss = attempt(discriminator, real, -real)
    if not isinstance(loss, Tensor) or loss.shape != ():
        raise Mistake(f"the loss should be a tensor with one number, yours is {_describe(loss)}")
    situation = "for logits of +5 on all real and -5 on all fake pixels"
    for value, question in _TELLING_LOSSES.items():
        if math.isclose(float(loss), value, rel_tol=0.01):
            raise Mistake(f"{situation} expected 0.0134, yours gives {value}: {question}")
    same(loss, discriminator_loss(discriminator, real, -real), situation)


def _undecided_costs_2_log_2(attempt: Attempt) -> None:
    def discriminator(image: Tensor) -> Tensor:
        return 0 * image

    image = torch.ones(2, 1, 3, 3, dtype=torch.float64)
    loss = attempt(discriminator, image, image)
    same(loss, 2 * math.log(2), "for logits of 0 everywhere (log 2 for real, log 2 for fake)")


def _equals_the_reference_loss(attempt: Attempt) -> None:
    discriminator, real, fake = _random_case()
    expected = discriminator_loss(discriminator, real, fake)
    same(attempt(discriminator, real, fake), expected, "for a random discriminator and images")


def _no_gradient_reaches_the_fake(attempt: Attempt) -> None:
    discriminator, real, fake = _random_case()
    fake.requires_grad_()
    loss = attempt(discriminator, real, fake)
    _backward(loss)
    if fake.grad is not None and bool(fake.grad.abs().max() > 0):
        largest = float(fake.grad.abs().max())
        raise Mistake(
            f"after loss.backward() the fake image has gradients up to {largest:.2g}: "
            "this loss would train the generator to help the discriminator"
        )


def _the_discriminator_learns_from_both(attempt: Attempt) -> None:
    reference, real, fake = _random_case()
    _backward(discriminator_loss(reference, real, fake))
    discriminator, _, _ = _random_case()
    _backward(attempt(discriminator, real, fake))
    got, expected = discriminator.weight.grad, reference.weight.grad
    if got is None:
        raise Mistake("after loss.backward() the discriminator's weights have no gradient")
    same(got, expected, "the gradient of the discriminator's weights after loss.backward():")


def _random_case() -> tuple[nn.Conv2d, Tensor, Tensor]:
    """A one-layer patch discriminator, a real and a fake batch `(3, 1, 6, 5)`, always the same."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        discriminator = nn.Conv2d(1, 1, 3, dtype=torch.float64)
        for parameter in discriminator.parameters():
            parameter.normal_(generator=generator)
    real, fake = torch.randn(2, 3, 1, 6, 5, generator=generator, dtype=torch.float64).unbind()
    return discriminator, real, fake.clone()


def _backward(loss: Tensor) -> None:
    if not (isinstance(loss, Tensor) and loss.requires_grad):
        raise Mistake("loss.backward() is impossible: the loss is cut off from the discriminator")
    loss.backward()


def _describe(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


# 08.3

_PLAN: dict[str, Any] = {"steps": 100, "warmup": 10, "peak": 0.5}
_IN_PLAN = "of steps=100, warmup=10, peak=0.5"


def _the_first_step_is_one_share_of_the_peak(attempt: Attempt) -> None:
    same(attempt(0, **_PLAN), 0.05, f"at step 0 {_IN_PLAN}")


def _warms_up_in_a_line(attempt: Attempt) -> None:
    for step in (1, 4, 8):
        same(attempt(step, **_PLAN), 0.05 * (step + 1), f"at step {step} {_IN_PLAN}")


def _reaches_the_peak(attempt: Attempt) -> None:
    same(attempt(9, **_PLAN), 0.5, f"at step 9 {_IN_PLAN}, the last of the warm-up,")
    same(attempt(10, **_PLAN), 0.5, f"at step 10 {_IN_PLAN}, the first of the cosine,")


def _half_way_down_is_half_the_peak(attempt: Attempt) -> None:
    same(attempt(55, **_PLAN), 0.25, f"at step 55 {_IN_PLAN}, midway between 10 and 100,")


def _ends_at_0(attempt: Attempt) -> None:
    same(attempt(100, **_PLAN), 0.0, f"at step 100 {_IN_PLAN}")


def _works_without_warmup(attempt: Attempt) -> None:
    plan = {**_PLAN, "warmup": 0}
    same(attempt(0, **plan), 0.5, "at step 0 of steps=100, warmup=0, peak=0.5")


def _equals_the_reference_rate(attempt: Attempt) -> None:
    for step in (11, 30, 80, 99):
        same(attempt(step, **_PLAN), learning_rate(step, **_PLAN), f"at step {step} {_IN_PLAN}")


EXERCISES = {
    "08.1": Exercise(
        answer=exponential_moving_average,
        properties={
            "decay 0 gives the new": _decay_0_gives_the_new,
            "decay 1 keeps the old": _decay_1_keeps_the_old,
            "the inputs stay as they are": _the_inputs_stay_as_they_are,
            "any shape works": _any_shape_works,
        },
        hints=(
            "Two shares that add up to 1: one of the old value, one of the new.",
            "decay is the share that stays: 0.999 means that a step changes a thousandth.",
            "decay * old + (1 - decay) * new, without += or a method that ends in _.",
        ),
    ),
    "08.2": Exercise(
        answer=discriminator_loss,
        properties={
            "being right costs little": _a_discriminator_that_is_right_costs_little,
            "being undecided costs 2 log 2": _undecided_costs_2_log_2,
            "equals the reference answer": _equals_the_reference_loss,
            "no gradient reaches the fake": _no_gradient_reaches_the_fake,
            "the discriminator learns from both": _the_discriminator_learns_from_both,
        },
        hints=(
            "Two terms: what D says of the real image against 1, of the fake against 0.",
            "D returns logits, and F.binary_cross_entropy_with_logits has the sigmoid inside.",
            "torch.ones_like(logits) and torch.zeros_like(logits) are the targets.",
            "discriminator(fake.detach()) keeps the generator out of it; add the two means.",
        ),
    ),
    "08.3": Exercise(
        answer=learning_rate,
        properties={
            "the first step is peak / warmup": _the_first_step_is_one_share_of_the_peak,
            "warms up in a line": _warms_up_in_a_line,
            "reaches the peak": _reaches_the_peak,
            "half-way down is half the peak": _half_way_down_is_half_the_peak,
            "ends at 0": _ends_at_0,
            "works without warm-up": _works_without_warmup,
            "equals the reference answer": _equals_the_reference_rate,
        },
        hints=(
            "Two cases: before the step `warmup`, and from it on.",
            "Steps count from 0, so the warm-up's shares are (step + 1) / warmup: 1/10, 2/10, ...",
            "progress = (step - warmup) / (steps - warmup) runs from 0 to 1 after the warm-up.",
            "peak * (1 + cos(pi * progress)) / 2 runs from peak to 0.",
        ),
    ),
}


# How much each mode computes


@dataclass(frozen=True)
class Settings:
    """How long the training run is, and what it begins with."""

    every: int  # use every n-th training slice
    warm_start: str | None  # shipped weights to begin with; None: random ones
    report_every: int  # steps between two pictures
    recipe: Mapping[str, Any]  # fields of `alden.Recipe` that differ from its defaults


MODES = {
    "fast": Settings(
        every=8,
        warm_start="l1",
        report_every=8,
        recipe={
            "steps": 48,
            "batch": 4,
            "bank": 32,
            "learning_rate": 5e-4,
            "warmup": 8,
            "accelerator": "cpu",
        },
    ),
    "laptop": Settings(
        every=1,
        warm_start=None,
        report_every=100,
        recipe={"steps": 900, "learning_rate": 5e-4, "reuse": 4, "warmup": 100},
    ),
    "full": Settings(
        every=1,
        warm_start=None,
        report_every=500,
        recipe={
            "steps": 30_000,
            "batch": 32,
            "bank": 1024,
            "learning_rate": 5e-4,
            "warmup": 500,
            "average": 0.999,
            "precision": "bf16-mixed",
        },
    ),
}
