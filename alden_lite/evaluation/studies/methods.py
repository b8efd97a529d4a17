"""The methods of the comparison: the same pairs, the same crops, the same seconds. Taught in chapter 09.

Methods are compared within a family, since a comparison of everything with everything says little:

| family | methods | first weights | target of the pixel loss |
|---|---|---|---|
| architecture | `unet`, `redcnn`, `esau` | new | y |
| loss | `l1`, `wgan_dino`, `dugan` | the shipped `l1`, or the blend for the last two | y |
| loss | `gan`, `alden` | the blend | 85 % y and 15 % x |
| untrained | `blend` | the shipped `l1`, 15 % of x left in (`alden.keep_input`) | - |
| filter | `nlm`, `bm3d`, `tv` | - | - |

The blend is the method to beat, since it costs nothing. Every method has a handful of settings, chosen on
validation slices: `benchmarks/neighbours.py` has them and runs all methods, `outcome` reads the results.

The package ldct-benchmark has RED-CNN, WGAN-VGG and DU-GAN too; it is not used here, because it pins a
version of pydicom that is not ours, brings an experiment tracker, and trains each with a network of its
own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from torch import nn

from alden_lite.alden.denoising import load_generator
from alden_lite.alden.generator import keep_input
from alden_lite.alden.paired import PairedPlan, PairedRun
from alden_lite.alden.training import Training
from alden_lite.evaluation.studies.ablations import BASE, VARIATIONS
from alden_lite.neighbours.ascon import AsconPlan, AsconTraining
from alden_lite.neighbours.dugan import DualDomainPlan, DualDomainTraining
from alden_lite.neighbours.wgan import WassersteinPlan, WassersteinTraining

__all__ = ["BLEND", "FAMILIES", "METHODS", "Method", "plan_of", "starts_from_blend", "untrained_generator"]

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
    """One that takes part: what it is, what it may be compared with, and how it is trained if it is."""

    about: str
    family: str
    training: type[PairedRun] | None = None
    plan: PairedPlan | None = None


_Plan = TypeVar("_Plan", bound=PairedPlan)


def _plan(kind: type[_Plan], **own: Any) -> _Plan:
    """A plan that has everything in common with `BASE` but what is its own."""
    common = {field.name: getattr(BASE, field.name) for field in fields(PairedPlan)}
    return kind(**{**common, **own})


_NORMAL_DOSE = replace(BASE, warm_keep=0.0, keep=0.0)  # the target is y, the start is l1 itself
_PIXEL = replace(_NORMAL_DOSE, adversarial_weight=0.0, contrastive_weight=0.0)
_SCRATCH = replace(_PIXEL, warm_start=None, betas=(0.9, 0.999))

METHODS: dict[str, Method] = {
    "ldct": Method("nothing is done", "input"),
    "nlm": Method("non-local means", "filter"),
    "bm3d": Method("BM3D, given the noise's spectrum", "filter"),
    "tv": Method("least total variation", "filter"),
    "blend": Method(f"{1 - BLEND:g} l1(x) + {BLEND:g} x, shipped `l1`, untrained", "untrained"),
    "unet": Method("the course's U-Net, L1", "architecture", Training, replace(_SCRATCH, learning_rate=1e-3)),
    "redcnn": Method(
        "RED-CNN, L1 in place of its squared error",
        "architecture",
        Training,
        replace(_SCRATCH, generator="redcnn", learning_rate=5e-4),
    ),
    "esau": Method(
        "ESAU-Net with ASCON's loss, reduced",
        "architecture",
        AsconTraining,
        _plan(
            AsconPlan,
            generator="esau",
            warm_start=None,
            warm_keep=0.0,
            betas=(0.9, 0.999),
            learning_rate=5e-4,
            anatomical_weight=0.01,
        ),
    ),
    "l1": Method("L1 alone", "loss", Training, _PIXEL),
    "wgan_dino": Method(
        "WGAN-VGG's losses, DINOv2 in place of VGG",
        "loss",
        WassersteinTraining,
        _plan(WassersteinPlan, warm_keep=0.0, perceptual_weight=1000.0),
    ),
    "dugan": Method(
        "DU-GAN's losses, small discriminators",
        "loss",
        DualDomainTraining,
        _plan(DualDomainPlan, warm_keep=0.0, dual_weight=0.1),
    ),
    "gan": Method(
        "a plain discriminator and L1", "loss", Training, replace(BASE, **VARIATIONS["gan"].changes)
    ),
    "alden": Method("ALDEN's three losses", "loss", Training, BASE),
    "l1_shipped": Method("the shipped `l1`", "shipped"),
    "alden_shipped": Method("the shipped `alden`", "shipped"),
}
"""By the names that tables and `studies/neighbours.json` use. Who is trained has a `training`."""


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


def starts_from_blend(name: str, settings: Mapping[str, Any] | None = None) -> bool:
    """Whether a method's training begins with 15 % of the low-dose slice left in, as `blend` has.

    Raises:
        ValueError: if the method is not trained.
    """
    plan = plan_of(name, settings or {})
    return plan.warm_start is not None and plan.warm_keep > 0


def plan_of(name: str, settings: Mapping[str, Any], *, seed: int = 0) -> PairedPlan:
    """A trained method's plan, with some of its fields changed.

    Raises:
        ValueError: if the method is not trained, or its plan has no such field.
    """
    plan = METHODS[name].plan
    if plan is None:
        raise ValueError(f"{name} is not trained: {METHODS[name].about}")
    if unknown := set(settings) - {field.name for field in fields(plan)}:
        raise ValueError(f"{name}'s plan has no field {', '.join(sorted(unknown))}")
    return replace(plan, **settings, seed=seed)
