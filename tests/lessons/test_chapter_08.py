"""Chapter 08's exercises: mistakes that their checks must find, and right answers they must not refuse."""

import math

import pytest
import torch
from planted import planted
from torch.nn import functional as F

from alden_lite.engine.loop import learning_rate as of_training
from alden_lite.lessons import exercises
from alden_lite.lessons.chapters.chapter_08 import learning_rate


def bce(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


# 08.1


def swaps_the_shares(old, new, decay):
    return (1 - decay) * old + decay * new


def adds_the_whole_new(old, new, decay):
    return decay * old + new


def averages(old, new, decay):
    return (old + new) / 2


def changes_old(old, new, decay):
    old.mul_(decay).add_((1 - decay) * new)
    return old


def changes_new_and_returns_a_copy(old, new, decay):
    new *= 1 - decay
    return decay * old + new


def returns_one_number(old, new, decay):
    return (decay * old + (1 - decay) * new).mean()


# 08.2


def does_not_detach(discriminator, real, fake):
    return bce(discriminator(real), 1.0) + bce(discriminator(fake), 0.0)


def swaps_the_labels(discriminator, real, fake):
    return bce(discriminator(real), 0.0) + bce(discriminator(fake.detach()), 1.0)


def applies_the_sigmoid_twice(discriminator, real, fake):
    real_score = torch.sigmoid(discriminator(real))
    fake_score = torch.sigmoid(discriminator(fake.detach()))
    return bce(real_score, 1.0) + bce(fake_score, 0.0)


def sums_over_the_logits(discriminator, real, fake):
    means = bce(discriminator(real), 1.0) + bce(discriminator(fake.detach()), 0.0)
    return means * real.numel()


def halves_the_sum(discriminator, real, fake):
    return (bce(discriminator(real), 1.0) + bce(discriminator(fake.detach()), 0.0)) / 2


def sees_only_the_real(discriminator, real, fake):
    return bce(discriminator(real), 1.0)


def detaches_the_discriminator(discriminator, real, fake):
    return bce(discriminator(real), 1.0) + bce(discriminator(fake).detach(), 0.0)


def cuts_everything_off(discriminator, real, fake):
    with torch.no_grad():
        return bce(discriminator(real), 1.0) + bce(discriminator(fake), 0.0)


def returns_a_python_number(discriminator, real, fake):
    return does_not_detach(discriminator, real, fake).item()


# 08.3


def cosine(progress):
    return (1 + math.cos(math.pi * progress)) / 2


def skips_the_warmup(step, *, steps, warmup, peak):
    return peak * cosine(step / steps)


def begins_with_nothing(step, *, steps, warmup, peak):
    return peak * step / warmup if step < warmup else peak * cosine((step - warmup) / (steps - warmup))


def runs_the_cosine_from_step_0(step, *, steps, warmup, peak):
    return peak * (step + 1) / warmup if step < warmup else peak * cosine(step / steps)


def forgets_the_half(step, *, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 2 * cosine((step - warmup) / (steps - warmup))


def falls_below_0(step, *, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * math.cos(math.pi * (step - warmup) / (steps - warmup))


def falls_in_a_line(step, *, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / (steps - warmup)


def divides_by_the_warmup(step, *, steps, warmup, peak):
    return min(peak * (step + 1) / warmup, peak * cosine(max(0, step - warmup) / (steps - warmup)))


MISTAKES = {
    "08.1": {
        swaps_the_shares: "decay 0 gives the new",
        adds_the_whole_new: "decay 1 keeps the old",
        averages: "decay 0 gives the new",
        changes_old: "the inputs stay as they are",
        changes_new_and_returns_a_copy: "the inputs stay as they are",
        returns_one_number: "the shape should be (2,)",
    },
    "08.2": {
        does_not_detach: "no gradient reaches the fake",
        swaps_the_labels: "are 1 and 0 swapped?",
        applies_the_sigmoid_twice: "is there a sigmoid before",
        sums_over_the_logits: "being right costs little",
        halves_the_sum: "added",
        sees_only_the_real: "added",
        detaches_the_discriminator: "the discriminator learns from both",
        cuts_everything_off: "cut off from the discriminator",
        returns_a_python_number: "should be a tensor with one number",
    },
    "08.3": {
        skips_the_warmup: "the first step is peak / warmup",
        begins_with_nothing: "the first step is peak / warmup",
        runs_the_cosine_from_step_0: "reaches the peak",
        forgets_the_half: "reaches the peak",
        falls_below_0: "half-way down is half the peak",
        falls_in_a_line: "equals the reference answer",
        divides_by_the_warmup: "ZeroDivisionError",
    },
}


@pytest.mark.parametrize(("exercise_id", "mistake", "text"), planted(MISTAKES))
def test_a_planted_mistake_is_found_and_named(exercise_id, mistake, text):
    verdict = exercises.judge(exercise_id, mistake)
    assert verdict.status == "wrong"
    assert text in verdict.message


def test_an_other_right_way_to_write_it_is_right():
    def softplus_form(discriminator, real, fake):
        logits = discriminator(torch.cat([real, fake.detach()]))
        on_real, on_fake = logits.chunk(2)
        return F.softplus(-on_real).mean() + F.softplus(on_fake).mean()

    def with_float32_targets(discriminator, real, fake):
        loss = torch.nn.BCEWithLogitsLoss()
        on_real, on_fake = discriminator(real), discriminator(fake.detach())
        return loss(on_real, torch.ones(on_real.shape)) + loss(on_fake, torch.zeros(on_fake.shape))

    assert exercises.judge("08.2", softplus_form).status == "right"
    assert exercises.judge("08.2", with_float32_targets).status == "right"
    assert exercises.judge("08.1", lambda old, new, decay: torch.lerp(new, old, decay)).status == "right"
    assert exercises.judge("08.1", lambda old, new, decay: new + decay * (old - new)).status == "right"


def test_the_learning_rate_of_the_exercise_is_the_one_of_the_training():
    for step in (0, 3, 9, 10, 11, 60, 100):
        plan = {"steps": 100, "warmup": 10, "peak": 1e-4}
        assert learning_rate(step, **plan) == pytest.approx(of_training(step, **plan), abs=1e-12)
