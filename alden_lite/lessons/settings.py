"""The course's numbers: how much each chapter computes in each mode.

`fast` is for tests and a first look (a minute or two on two CPU cores), `laptop` made the figures
that the book shows, `full` wants a GPU. To change a number, change it here; no notebook repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SETTINGS", "Settings", "parameters"]


@dataclass(frozen=True)
class Settings:
    """What one chapter does in one mode.

    `every`: use every n-th slice. `warm_start`: shipped weights to begin from, None for random
    ones. `report_every`: steps between two pictures. `recipe`: fields of `alden.Recipe` that
    differ from its defaults. `matrix`: pixels a side of a phantom. `scans`: how often it is scanned
    where a spread is measured. `patients`: phantom patients, each at `heights_mm` of its abdomen. `inputs`:
    names in `alden.INPUTS` to compare. `steps`: gradients along a path, or steps of a descent. `stride`:
    pixels from one covered square to the next. `places`: output pixels that are asked what they depend on.
    """

    every: int = 1
    warm_start: str | None = None
    report_every: int = 1
    recipe: Mapping[str, Any] = field(default_factory=dict)
    matrix: int = 256
    scans: int = 1
    patients: int = 0
    heights_mm: tuple[float, ...] = ()
    inputs: tuple[str, ...] = ()
    steps: int = 0
    stride: int = 0
    places: int = 0


_PIXEL_LOSS: dict[str, Any] = {
    "adversarial_weight": 0,
    "contrastive_weight": 0,
    "keep": 0.0,
    "steps": 150,
    "crop": 64,
    "bank": 32,
    "reuse": 1,
    "learning_rate": 2e-3,
    "betas": (0.9, 0.999),
    "warmup": 10,
    "average": 0.97,
}
"""Chapter 03's recipe: the pixel loss alone, against the normal dose as it is, so that a step is cheap."""

_DISCRIMINATOR: dict[str, Any] = {
    "adversarial_weight": 1,
    "contrastive_weight": 0,
    "batch": 4,
    "bank": 128,
    "discriminator_learning_rate": 2e-4,
    "warmup": 0,
    "accelerator": "cpu",
}
"""Chapter 06's: a discriminator alone, on slices that a frozen generator denoised once."""

SETTINGS: dict[str, dict[str, Settings]] = {
    "00": {"fast": Settings(), "laptop": Settings(), "full": Settings()},  # the same in all modes
    "01": {"fast": Settings(), "laptop": Settings(), "full": Settings()},  # the same in all modes
    "02": {
        "fast": Settings(matrix=256, scans=40),
        "laptop": Settings(matrix=512, scans=100),
        "full": Settings(matrix=512, scans=200),
    },
    "03": {
        "fast": Settings(every=8, scans=100, report_every=10, recipe=_PIXEL_LOSS | {"accelerator": "cpu"}),
        "laptop": Settings(
            every=2,
            scans=400,
            report_every=50,
            recipe=_PIXEL_LOSS | {"steps": 1500, "crop": 96, "average": 0.99},
        ),
        "full": Settings(
            scans=1000,
            report_every=500,
            recipe=_PIXEL_LOSS | {"steps": 20_000, "crop": 96, "batch": 32, "bank": 128, "average": 0.999},
        ),
    },
    "04": {
        "fast": Settings(every=9, patients=4, heights_mm=(20,), inputs=("soft",)),
        "laptop": Settings(every=2, patients=12, heights_mm=(-50, 20, 60), inputs=("soft", "three", "full")),
        "full": Settings(patients=24, heights_mm=(-50, -15, 20, 60), inputs=("soft", "three", "full")),
    },
    "05": {
        "fast": Settings(every=2, steps=48, stride=28, places=8),
        "laptop": Settings(steps=128, stride=14, places=40),
        "full": Settings(steps=256, stride=7, places=100),
    },
    "06": {
        "fast": Settings(every=8, recipe=_DISCRIMINATOR | {"steps": 150}),
        "laptop": Settings(every=2, recipe=_DISCRIMINATOR | {"steps": 600, "batch": 8, "bank": 256}),
        "full": Settings(recipe=_DISCRIMINATOR | {"steps": 3000, "batch": 16, "bank": 512}),
    },
    "07": {
        "fast": Settings(steps=30),
        "laptop": Settings(steps=100),
        "full": Settings(steps=300),
    },
    "08": {
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
            report_every=100, recipe={"steps": 900, "learning_rate": 5e-4, "reuse": 4, "warmup": 100}
        ),
        "full": Settings(
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
    },
    "09": {
        "fast": Settings(every=4, scans=12, patients=1),
        "laptop": Settings(every=1, scans=80, patients=6),
        "full": Settings(every=1, scans=300, patients=30),
    },
    "10": {
        "fast": Settings(
            every=8,
            recipe={
                "steps": 10,
                "batch": 4,
                "bank": 16,
                "learning_rate": 5e-4,
                "warmup": 2,
                "average": 0.8,
                "precision": "32-true",
                "accelerator": "cpu",
            },
        ),
        "laptop": Settings(every=2, recipe={"steps": 80, "average": 0.95, "precision": "32-true"}),
        "full": Settings(),
    },
}
"""Chapter, then mode, then the values."""


def parameters(chapter: str, mode: str) -> Settings:
    """The values of a chapter in a mode.

    `chapter` is its two digits, `mode` is `fast`, `laptop` or `full`. Raises `ValueError` for
    a chapter or a mode that does not exist, and names those that do.

    >>> parameters("08", "fast").warm_start
    'l1'
    """
    if chapter not in SETTINGS:
        raise ValueError(f"no settings for chapter {chapter!r}; there are {', '.join(SETTINGS)}")
    modes = SETTINGS[chapter]
    if mode not in modes:
        raise ValueError(f"no mode {mode!r} in chapter {chapter}; choose one of {', '.join(modes)}")
    return modes[mode]
