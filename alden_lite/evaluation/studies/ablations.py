"""Which part of ALDEN earns its keep? One thing changed at a time, several seeds. Taught in chapter 10.

    python benchmarks/ablations.py [--study ablations] [--seeds 0 1 2]

makes the table that chapter 10 reads from `alden_lite/evaluation/studies/`. Every variation begins at the
same shipped generator (`l1`), makes the same number of steps on the same crops, and is looked at on
validation slices: those of the sample patient's validation slab, and of the middle of the development
patients.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import numpy as np

from alden_lite.alden.pvm import PVM, random_pvm
from alden_lite.alden.training import Recipe, Training
from alden_lite.data.pairs import Pairs
from alden_lite.evaluation.perception import Judge
from alden_lite.evaluation.quality import FIGURES, appraise
from alden_lite.evaluation.statistics import interval

__all__ = ["BASE", "VARIATIONS", "Result", "Variation", "against", "look", "read_study", "train_variation"]


@dataclass(frozen=True)
class Variation:
    """One thing changed: `changes` are fields of `alden.Recipe`. Not `trained`: the start as it is."""

    about: str
    changes: Mapping[str, Any]
    trained: bool = True


BASE = Recipe(
    warm_start="l1",
    warm_keep=0.15,
    steps=200,
    learning_rate=2e-4,
    warmup=20,
    reuse=4,
    average=0.98,
    precision="bf16-mixed",
)
"""What all variations share. Shorter than the shipped run: there are some forty runs."""

_NO_GAN = {"adversarial_weight": 0.0}
_NO_SCL = {"contrastive_weight": 0.0}
_PIXEL = {**_NO_GAN, **_NO_SCL}
_NO_KEEP = {"warm_keep": 0.0, "keep": 0.0}

VARIATIONS: dict[str, Variation] = {
    "baseline": Variation("pixel loss alone", {**_PIXEL, **_NO_KEEP}),
    "blend": Variation("no training: l1 with 15 % of the low-dose slice left in", _PIXEL, False),
    "gan": Variation("a plain discriminator", {"anatomy": False, **_NO_SCL}),
    "aad": Variation("the anatomy-aware discriminator", _NO_SCL),
    "scl": Variation("the contrastive loss", _NO_GAN),
    "gan+scl": Variation("a plain discriminator and the contrastive loss", {"anatomy": False}),
    "alden": Variation("both: the method", {}),
    "no noise term": Variation("negatives from other places only", {"noise_term": False}),
    "sum": Variation("two contrastive losses added, not one softmax", {"contrastive_form": "sum"}),
    "half adversarial": Variation("its weight at 0.005", {"adversarial_weight": 0.005}),
    "double adversarial": Variation("its weight at 0.02", {"adversarial_weight": 0.02}),
    "triple contrastive": Variation("its weight at 0.012", {"contrastive_weight": 0.012}),
    "contrastive at 4": Variation("the contrastive loss at block 4", {"contrastive_taps": (4,)}),
    "semantic query": Variation("the PVM's tokens ask, not the image", {"query": "semantic"}),
    "no positions": Variation("the discriminator's tokens have no place", {"positions": False}),
    "taps 3 6 9": Variation("earlier blocks for the discriminator", {"discriminator_taps": (3, 6, 9)}),
    "cnn": Variation(
        "EfficientNet-Lite0 in place of DINOv2",
        {
            "pvm": "efficientnet_lite0",
            "discriminator_taps": (3, 4, 5),
            "contrastive_taps": (4,),
            "crop": 128,
        },
    ),
    "random weights": Variation("a vision model that has learned nothing", {"pvm": "random_vit"}),
}
"""The ablations by name, those that chapter 10 shows."""


@dataclass(frozen=True)
class Result:
    """Figures of one variation and seed on one set of pairs: `rows` has a value a slice for each figure."""

    variation: str
    seed: int
    data: str
    rows: Mapping[str, Sequence[float]]

    def values(self, figure: str) -> np.ndarray:
        """(slices,) float; NaN where a slice has no such figure."""
        return np.array([math.nan if v is None else v for v in self.rows[figure]], dtype=float)


def train_variation(base: Recipe, variation: Variation, pairs: Pairs, *, progress: bool = True) -> Training:
    """Train a variation to its end, with the vision model that it names; `random_vit` is drawn by seed."""
    recipe = replace(base, **variation.changes)
    training = Training(recipe, pairs, pvm=_control(recipe))
    for _ in training.run(
        recipe.steps if variation.trained else 0, report_every=recipe.steps, progress=progress
    ):
        pass
    return training


def _control(recipe: Recipe) -> PVM | None:
    # With LayerScale at 1: else its blocks would do nothing, and taps of all depths would be the same map.
    if recipe.pvm != "random_vit" or not recipe.taps:
        return None
    return random_pvm(recipe.seed, layer_scale=1.0, taps=recipe.taps)


def look(
    training: Training, pairs: Pairs, *, variation: str, data: str, pixel_mm: float, judge: PVM
) -> Result:
    """Look at a finished run's generator; the judge keeps silent if it trained the generator."""
    fair: Judge | None = None if training.recipe.pvm == judge.name and training.recipe.taps else judge
    rows = appraise(training.averaged, pairs, pixel_mm=pixel_mm, judge=fair)
    columns = {figure: [round(row[figure], 5) for row in rows] for figure in FIGURES}
    return Result(variation, training.recipe.seed, data, columns)


def read_study(name: str) -> tuple[dict[str, Any], list[Result]]:
    """What `benchmarks/ablations.py` stored: how it was made, and its results.

    Raises:
        FileNotFoundError: if the study was never run.
    """
    file = files("alden_lite") / "evaluation" / "studies" / f"{name}.json"
    if not file.is_file():
        raise FileNotFoundError(f"no study {name!r}: run `python benchmarks/ablations.py --study {name}`")
    stored = json.loads(file.read_text())
    return stored["made"], [Result(**one) for one in stored["results"]]


def against(
    results: Sequence[Result], variation: str, baseline: str, figure: str
) -> tuple[float, tuple[float, float]]:
    """Mean difference of a figure between two variations, and its 95 % interval over slices.

    The same slice and seed are compared; seeds are averaged first, so that slices are the units.

    Raises:
        ValueError: if a variation has no results, or fewer than 3 slices have the figure.
    """
    ours, theirs = (_by_slice(results, name, figure) for name in (variation, baseline))
    difference = ours - theirs
    known = difference[np.isfinite(difference)]
    return (float(known.mean()) if len(known) else math.nan), interval(known.tolist())


def _by_slice(results: Sequence[Result], variation: str, figure: str) -> np.ndarray:
    chosen = [one for one in results if one.variation == variation]
    if not chosen:
        raise ValueError(f"no results of {variation!r}: there are {sorted({r.variation for r in results})}")
    sets = sorted({one.data for one in chosen})
    means = [np.mean([one.values(figure) for one in chosen if one.data == data], axis=0) for data in sets]
    return np.concatenate(means)
