"""Hounsfield units: what the numbers in a CT picture are, and how a screen shows them.

HU is linear in attenuation: water is 0, air is -1000, and 1 HU is a thousandth of water's attenuation.
A screen has 256 greys and CT has 4,096 numbers, so a picture is always a *window* of them, given by its
level (the HU in the middle) and width (how many HU from black to white). Taught in chapter 01.

Every function takes numpy arrays, torch tensors or plain numbers and gives back the same kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

__all__ = [
    "AIR_HU",
    "LOWEST_HU",
    "MU_WATER_PER_MM",
    "PADDING_BELOW_HU",
    "WINDOWS",
    "Window",
    "denormalise",
    "grey_levels",
    "hu_to_mu",
    "mu_to_hu",
    "normalise",
    "window",
]

Array = TypeVar("Array", np.ndarray, torch.Tensor, float)

MU_WATER_PER_MM = 0.0192
"""Attenuation of water in 1/mm at about 70 keV, the effective energy of a filtered 120 kVp beam."""

AIR_HU = -1000.0
"""HU of no attenuation at all; real air reads close to it."""

LOWEST_HU = -1024.0
"""Smallest HU that is stored: scanners cut off below, where only noise and padding are."""

PADDING_BELOW_HU = -1500.0
"""Below is a file's filler outside the field of view (-2000, -2048, -3024); noisy air stays well above."""

HU_PER_UNIT = 1024.0
"""HU in one unit of the networks' scale. A power of two, so that whole HU survive the way there and back."""


@dataclass(frozen=True)
class Window:
    """A display window: `level` is the HU shown mid-grey, `width` the HU from black to white."""

    level: float
    width: float

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ValueError(f"a window needs a width above 0 HU, got {self.width}")

    @property
    def low(self) -> float:
        """HU at and below which the picture is black."""
        return self.level - self.width / 2

    @property
    def high(self) -> float:
        """HU at and above which the picture is white."""
        return self.level + self.width / 2

    def __str__(self) -> str:
        return f"L {self.level:g} W {self.width:g} HU"


WINDOWS: dict[str, Window] = {
    "evaluation": Window(40, 400),  # [-160, 240] HU, the range of the paper's PSNR
    "abdomen": Window(50, 400),
    "mediastinum": Window(50, 350),
    "liver": Window(60, 150),
    "lung": Window(-600, 1500),
    "bone": Window(400, 1800),
    "brain": Window(40, 80),
    "full": Window(1024, 4096),  # [-1024, 3072] HU, everything a 12-bit scanner stores
}


def window(hu: Array, level: float, width: float) -> Array:
    """Show HU through a window: black (0) to white (1), clipped at both ends.

    Args:
        hu: any shape, in HU.
        level: HU in the middle of the window.
        width: HU from black to white, above 0.

    Returns:
        Same shape and kind, in [0, 1]: `clip((hu - level) / width + 1/2, 0, 1)`.

    Raises:
        ValueError: if the width is not above 0.

    Source: DICOM PS3.3 C.11.2.1.3.2, LINEAR_EXACT.

    >>> window(np.array([-160.0, 40.0, 240.0]), level=40, width=400)
    array([0. , 0.5, 1. ])
    """
    if not width > 0:
        raise ValueError(f"a window needs a width above 0 HU, got {width}")
    grey = (hu - level) / width + 0.5
    if isinstance(grey, torch.Tensor):
        return grey.clamp(0, 1)
    return np.clip(grey, 0, 1)


def grey_levels(hu: np.ndarray, level: float, width: float) -> np.ndarray:
    """8-bit greys of HU in a window: `floor(255 * window(hu, level, width) + 1/2)`, in float64.

    Args:
        hu: any shape, in HU.
        level, width: of the window, in HU; need not be whole.

    Returns:
        Same shape, uint8.

    Raises:
        ValueError: if the width is not above 0.

    >>> grey_levels(np.array([-200, 40, 41, 300]), level=40, width=400)
    array([  0, 128, 128, 255], dtype=uint8)
    """
    return np.floor(255 * window(np.asarray(hu, dtype=np.float64), level, width) + 0.5).astype(np.uint8)


def hu_to_mu(hu: Array) -> Array:
    """Attenuation in 1/mm from HU, any shape: `mu = mu_water * (1 + HU / 1000)`.

    >>> hu_to_mu(0.0)
    0.0192
    """
    return MU_WATER_PER_MM * (1 + hu / 1000)


def mu_to_hu(mu_per_mm: Array) -> Array:
    """HU from attenuation in 1/mm, any shape: the inverse of `hu_to_mu`.

    >>> mu_to_hu(0.0)
    -1000.0
    """
    return (mu_per_mm / MU_WATER_PER_MM - 1) * 1000


def normalise(hu: Array) -> Array:
    """The networks' scale: air -1, water 0, dense bone 1 to 3. Nothing is clipped.

    Dividing by 1024 instead of 1000 makes the way back exact in floating point (OURS; the paper names no
    normalisation).

    >>> normalise(-1024.0)
    -1.0
    """
    return hu / HU_PER_UNIT


def denormalise(u: Array) -> Array:
    """HU from the networks' scale: the exact inverse of `normalise`.

    >>> denormalise(normalise(37.0))
    37.0
    """
    return u * HU_PER_UNIT
