"""Rivals on equal terms: the same pairs, the same crops, the same seconds. Taught in chapter 09.

Two families of what learns, since a comparison of everything with everything says little:

- `architecture`: networks from scratch, each with the loss it was published with, or L1;
- `loss`: one network, the course's U-Net, which begins at the shipped `l1` weights, and the losses that
  others train with (`wgan`, `dugan`), beside plain L1, a plain discriminator, and ALDEN. The recipe of the
  last two begins at the blend of the next paragraph, and aims at it; so `blend` is their start, and `l1` is
  not. WGAN's and DU-GAN's may choose it too.

Beside them filters, which learn nothing (`filters`), and the strong rival that costs nothing: the shipped
`l1` with 15 % of the low-dose slice left in (`alden.keep_input`). Every method has a handful of
settings to choose from, on validation slices (`search_score`). `benchmarks/peers.py` runs it all,
`standings` reads it.

The package ldct-benchmark has RED-CNN, WGAN-VGG and DU-GAN too; it is not used here, because it pins a
version of pydicom that is not ours, brings an experiment tracker, and trains each with a network of its
own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import nn

from alden_lite.alden.denoising import load_generator
from alden_lite.alden.generator import keep_input
from alden_lite.alden.training import Recipe, Training
from alden_lite.data.pairs import Pairs
from alden_lite.evaluation.studies.ablations import BASE, STUDIES
from alden_lite.neighbours.ascon import AsconTraining
from alden_lite.neighbours.dugan import DualDomainTraining
from alden_lite.neighbours.wgan import WassersteinTraining

__all__ = [
    "BLEND",
    "FAMILIES",
    "METHODS",
    "Method",
    "Trained",
    "affordable_steps",
    "search_score",
    "starts_from_blend",
    "train_for",
    "untrained_generator",
]

FAMILIES = {
    "input": "the low-dose slice as it is",
    "filter": "filters, told the noise",
    "untrained": "no further training",
    "architecture": "networks from scratch",
    "loss": "one U-Net from the shipped `l1` weights, further trained",
    "shipped": "shipped generators, trained far longer",
}
"""What may be compared with what: methods of one family had the same weights at first and the same time.
`gan` and `alden` moreover begin at the blend, see `starts_from_blend`."""

BLEND = 0.15
"""Share of the low-dose slice in the blend: what ALDEN's recipe begins with."""


@dataclass(frozen=True)
class Method:
    """A rival. `settings` are fields of `alden.Recipe`, and arguments of `training` or of the filter;
    `search` holds what the small search tries instead."""

    about: str
    family: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: type[Training] | None = None
    search: tuple[Mapping[str, Any], ...] = ()


_PIXEL = {"adversarial_weight": 0.0, "contrastive_weight": 0.0}
_NORMAL_DOSE = {"keep": 0.0, "warm_keep": 0.0}  # the target is y, the start is l1 itself
_BLENDED = {"keep": BLEND, "warm_keep": BLEND}
_SCRATCH = {**_PIXEL, **_NORMAL_DOSE, "warm_start": None, "betas": (0.9, 0.999)}
_STRENGTHS = tuple({"strength": s} for s in (0.5, 0.75, 1.0, 1.25, 1.5))
_RATES = tuple({"learning_rate": rate} for rate in (2.5e-4, 5e-4, 1e-3, 2e-3))

METHODS: dict[str, Method] = {
    "ldct": Method("nothing is done", "input"),
    "nlm": Method("non-local means", "filter", {"strength": 1.0}, search=_STRENGTHS),
    "bm3d": Method("BM3D, given the noise's spectrum", "filter", {"strength": 1.0}, search=_STRENGTHS[1:4]),
    "tv": Method("least total variation", "filter", {"strength": 1.0}, search=_STRENGTHS),
    "blend": Method(f"{1 - BLEND:g} l1(x) + {BLEND:g} x, shipped `l1`, untrained", "untrained"),
    "unet": Method(
        "the course's U-Net, L1", "architecture", {**_SCRATCH, "learning_rate": 1e-3}, Training, _RATES
    ),
    "redcnn": Method(
        "RED-CNN, L1 in place of its squared error",
        "architecture",
        {**_SCRATCH, "generator": "redcnn", "learning_rate": 5e-4},
        Training,
        _RATES[:3],
    ),
    "esau": Method(
        "ESAU-Net with ASCON's loss, reduced",
        "architecture",
        {**_SCRATCH, "generator": "esau", "learning_rate": 5e-4, "anatomical_weight": 0.01},
        AsconTraining,
        (*_RATES[:3], {"anatomical_weight": 0.1}),
    ),
    "l1": Method(
        "L1 alone",
        "loss",
        {**_PIXEL, **_NORMAL_DOSE},
        Training,
        tuple({"learning_rate": rate} for rate in (1e-4, 2e-4, 4e-4)),
    ),
    "wgan_dino": Method(
        "WGAN-VGG's losses, DINOv2 in place of VGG",
        "loss",
        {**_PIXEL, **_NORMAL_DOSE, "perceptual_weight": 1000.0},
        WassersteinTraining,
        (
            {"perceptual_weight": 100.0},
            {"perceptual_weight": 1000.0},
            {"perceptual_weight": 10000.0},
            {"perceptual_weight": 1000.0, "learning_rate": 5e-5},
            {"perceptual_weight": 1000.0, "warm_keep": BLEND},
        ),
    ),
    "dugan": Method(
        "DU-GAN's losses, small discriminators",
        "loss",
        {**_PIXEL, **_NORMAL_DOSE, "dual_weight": 0.1},
        DualDomainTraining,
        (
            {"dual_weight": 0.1},
            {"dual_weight": 0.01},
            {"dual_weight": 0.1, "learning_rate": 5e-5},
            {"dual_weight": 0.1, **_BLENDED},
            {"dual_weight": 0.01, **_BLENDED},
        ),
    ),
    "gan": Method(
        "a plain discriminator and L1",
        "loss",
        STUDIES["ablations"]["gan"].changes,
        Training,
        tuple({"adversarial_weight": weight} for weight in (0.005, 0.01, 0.02)),
    ),
    "alden": Method(
        "ALDEN's three losses",
        "loss",
        {},
        Training,
        tuple({"adversarial_weight": weight} for weight in (0.005, 0.01, 0.02)),
    ),
    "l1_shipped": Method("the shipped `l1`", "shipped"),
    "alden_shipped": Method("the shipped `alden`", "shipped"),
}
"""By the names that tables and `studies/peers.json` use. Who is trained has a `training`."""


@dataclass(frozen=True)
class Trained:
    """A finished training, and the seconds it took; what was measured before it is not counted."""

    training: Training
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
    recipe, arguments, training = _configured(name, settings or {}, seed)
    period = recipe.reuse * recipe.bank // recipe.batch
    trial = training(replace(recipe, warmup=0), pairs, **arguments)
    trial.done = recipe.steps // 2 // period * period  # later steps may cost more, as with DU-GAN's CutMix
    times = [_timed(trial.step, clock) for _ in range(4)]  # the first one draws a bank, too
    step = sum(times[1:]) / 3
    steps = affordable_steps(seconds, step=step, bank=max(times[0] - step, 0.0), period=period)
    run = training(replace(recipe, steps=steps, warmup=min(recipe.warmup, steps // 5)), pairs, **arguments)
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


def untrained_generator(name: str) -> nn.Module:
    """The generator of a method that needs no training here: `blend`, `l1_shipped`, `alden_shipped`.

    Raises:
        ValueError: on another method.
    """
    if name == "blend":
        return keep_input(load_generator("l1"), BLEND)
    if METHODS[name].family != "shipped":
        raise ValueError(f"{name} is no generator that is there already: it is {METHODS[name].about!r}")
    return load_generator(name.removesuffix("_shipped"))


def search_score(name: str, *, psnr_db: float, judge: float, l1_psnr_db: float) -> float:
    """What the small search makes as large as it can, for a method, on validation slices.

    Methods that aim at the pixels (filters, `architecture`, `l1`) are chosen by PSNR. The others aim at the
    look: by the judge's distance, as long as PSNR is not more than 1 dB below that of the shipped `l1`.
    """
    method = METHODS[name]
    if method.family != "loss" or name == "l1":
        return psnr_db
    too_low = max(l1_psnr_db - 1 - psnr_db, 0.0)
    return -judge - too_low if math.isfinite(judge) else -math.inf


def starts_from_blend(name: str, settings: Mapping[str, Any] | None = None) -> bool:
    """Whether a method's training begins with 15 % of the low-dose slice left in, as `blend` has.

    Raises:
        ValueError: if the method is not trained.
    """
    recipe, _, _ = _configured(name, settings or {}, 0)
    return recipe.warm_start is not None and recipe.warm_keep > 0


def _configured(
    name: str, settings: Mapping[str, Any], seed: int
) -> tuple[Recipe, dict[str, Any], Callable[..., Training]]:
    """Recipe, and arguments of the training beside it."""
    method = METHODS[name]
    if method.training is None:
        raise ValueError(f"{name} is not trained: {method.about}")
    merged = {**method.settings, **settings}
    known = {one.name for one in fields(Recipe)}
    recipe = replace(BASE, **{k: v for k, v in merged.items() if k in known}, seed=seed)
    return recipe, {k: v for k, v in merged.items() if k not in known}, method.training


def _timed(what: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    what()
    return clock() - start
