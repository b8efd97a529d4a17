"""Arrays of pixels, checked before anything is measured on them."""

from __future__ import annotations

import math

import numpy as np
import torch

Pixels = np.ndarray | torch.Tensor


def finite(values: Pixels) -> np.ndarray:
    array = np.asarray(values.detach().cpu() if torch.is_tensor(values) else values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("NaN or infinite HU: no metric means anything then")
    return array


def as_mask(mask: Pixels, like: np.ndarray, name: str) -> np.ndarray:
    where = np.asarray(mask)
    if where.shape != like.shape:
        raise ValueError(f"shapes differ: {name} {where.shape} and image {like.shape}")
    if where.dtype != bool:
        raise ValueError(f"{name} must be boolean, got {where.dtype}: compare label ids with ==")
    if not where.any():
        raise ValueError(f"{name} is empty: not one pixel is chosen")
    return where


def check_pixel_mm(pixel_mm: float) -> None:
    if not 0 < pixel_mm < math.inf:
        raise ValueError(f"pixel_mm must be above 0, got {pixel_mm}")
