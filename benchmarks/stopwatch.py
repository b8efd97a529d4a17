"""Train a method for so many seconds: what makes a comparison fair. Used by neighbours.py and doses.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from alden_lite.alden.paired import PairedRun
from alden_lite.data.pairs import Pairs
from alden_lite.evaluation.studies.methods import METHODS, plan_of


@dataclass(frozen=True)
class Trained:
    """A finished training, and the seconds it took; what was measured before it is not counted."""

    training: PairedRun
    seconds: float


def train_for(
    name: str,
    pairs: Pairs,
    *,
    seconds: float,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    clock: Callable[[], float] = time.process_time,
    progress: bool = False,
) -> Trained:
    """Train a method for so long: as many steps as fit, the learning rate falling to zero at the last one.

    How long a step and a bank of crops take is measured first, on a run that is thrown away.

    Args:
        name: of `METHODS`, one that is trained.
        pairs: low- and normal-dose slices.
        seconds: on `clock`.
        settings: in place of the method's own, such as a choice of `search`.
        seed: of weights, crops and places.
        clock: processor time counts the work of this process alone: fair on a machine that is busy.
        progress: show a progress bar.

    Raises:
        ValueError: on a method that is not trained, an unknown setting, or seconds not above 0.
    """
    if not seconds > 0:
        raise ValueError(f"seconds must be above 0, got {seconds}")
    plan = plan_of(name, settings or {}, seed=seed)
    training = METHODS[name].training
    assert training  # as it has a plan
    period = plan.reuse * plan.bank // plan.batch
    trial = training(replace(plan, warmup=0), pairs)
    trial.done = plan.steps // 2 // period * period  # later steps may cost more, as with DU-GAN's CutMix
    times = [_timed(trial.step, clock) for _ in range(4)]  # the first one draws a bank, too
    step = sum(times[1:]) / 3
    steps = affordable_steps(seconds, step=step, bank=max(times[0] - step, 0.0), period=period)
    run = training(replace(plan, steps=steps, warmup=min(plan.warmup, steps // 5)), pairs)
    spent = _timed(lambda: list(run.run(report_every=steps, progress=progress)), clock)
    return Trained(run, spent)


def affordable_steps(seconds: float, *, step: float, bank: float, period: int) -> int:
    """How many steps fit into so many seconds, at least 1.

    Args:
        seconds: there are.
        step: seconds of a step.
        bank: seconds to draw a bank of crops with their features, before the first of every `period` steps.
        period: steps that a bank lasts.

    >>> affordable_steps(100.0, step=1.0, bank=10.0, period=20)
    60
    """
    banks, rest = divmod(seconds, bank + period * step)
    return max(int(banks) * period + max(int((rest - bank) / step), 0), 1)


def _timed(what: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    what()
    return clock() - start
