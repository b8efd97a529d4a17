"""Training for so many seconds: what makes a comparison of methods fair."""

from dataclasses import replace
from typing import Any

import pytest

from alden_lite.alden.training import Recipe, Training
from alden_lite.data.pairs import Pairs
from alden_lite.evaluation.studies.methods import (
    METHODS,
)
from stopwatch import affordable_steps, train_for

TINY = Recipe(
    steps=4,
    batch=2,
    crop=112,
    bank=2,
    reuse=2,
    warmup=0,
    accelerator="cpu",
    adversarial_weight=0.0,
    contrastive_weight=0.0,
)


@pytest.mark.parametrize(
    ("seconds", "steps"),
    [(1, 1), (11, 1), (15, 5), (30, 20), (39, 20), (41, 21), (60, 40)],
)
def test_as_many_steps_as_fit_with_their_banks(seconds: float, steps: int) -> None:
    assert affordable_steps(seconds, step=1.0, bank=10.0, period=20) == steps


def test_a_step_is_timed_in_the_middle_of_a_run(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "unet", replace(METHODS["unet"], plan=replace(TINY, steps=300)))
    seen: list[int] = []
    step = Training.step

    def noted(self: Training, batch: Any = None) -> dict[str, float]:
        seen.append(self.done)
        return step(self, batch)

    monkeypatch.setattr(Training, "step", noted)
    train_for("unet", pairs, seconds=0.01)
    assert seen[:4] == [150, 151, 152, 153], "a bank is drawn at a multiple of 2 steps"
    assert seen[4] == 0


def test_training_takes_the_seconds_it_has(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(TINY, warmup=20, steps=300)
    monkeypatch.setitem(METHODS, "unet", replace(METHODS["unet"], plan=plan))
    time = [0.0]

    def clock() -> float:
        return time[0]

    step = Training.step

    def timed(self: Training, batch: Any = None) -> dict[str, float]:
        time[0] += 10.0 if self.done % 2 == 0 else 2.0  # a bank of 2 crops lasts 2 steps
        return step(self, batch)

    monkeypatch.setattr(Training, "step", timed)
    trained = train_for("unet", pairs, seconds=60, seed=5, clock=clock)
    plan = trained.training.plan
    assert trained.training.done == plan.steps > 5 and plan.seed == 5
    assert plan.warmup == plan.steps // 5
    assert trained.seconds == pytest.approx(60, rel=0.35)


def test_what_cannot_be_trained_is_said(pairs: Pairs) -> None:
    with pytest.raises(ValueError, match="nlm is not trained"):
        train_for("nlm", pairs, seconds=1)
    with pytest.raises(ValueError, match="seconds must be above 0"):
        train_for("l1", pairs, seconds=0)
