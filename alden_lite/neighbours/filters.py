"""Filters that learned nothing: non-local means, BM3D, total variation. Chapter 09 reads their results.

They are told the noise: its standard deviation, and its spectrum to BM3D, measured on the pair. That is
more than any network here is told. Strengths were chosen on validation slices (`benchmarks/neighbours.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from alden_lite.physics.noise import noise_power_spectrum, radial_nps, regions_of_interest

__all__ = ["FILTERS", "Noise", "bm3d", "measure_noise", "nlm", "tv"]

REGION = 32  # pixels
BODY_HU = -300  # above it: tissue, averaged over about 1 cm; what it encloses, the lungs, counts too


@dataclass(frozen=True)
class Noise:
    """Noise of a slice: `sigma_hu`, and `power` in HU² mm² at `frequency_per_mm`, alike in all directions."""

    sigma_hu: float
    frequency_per_mm: np.ndarray
    power: np.ndarray

    def plane(self, shape: tuple[int, int], *, pixel_mm: float) -> np.ndarray:
        """Variance of each coefficient of `numpy.fft.fft2` of noise of this shape, in HU²."""
        fy, fx = (np.fft.fftfreq(size, pixel_mm) for size in shape)
        radial = np.interp(np.hypot(fy[:, None], fx), self.frequency_per_mm, self.power)
        return radial * shape[0] * shape[1] / pixel_mm**2


def measure_noise(low: np.ndarray, normal: np.ndarray, *, pixel_mm: float) -> Noise:
    """Noise of a low-dose slice from its difference to the normal dose, inside the body.

    The difference of nested scans holds no anatomy; it lacks the normal dose's own noise, a quarter of the
    variance at a quarter of the dose, which a filter's strength has to make up for.

    Args:
        low, normal: (Y, X) in HU.
        pixel_mm: side of a pixel.

    Raises:
        ValueError: if the two differ in shape or not at all, hold NaN, or show no body that holds a square of
            32 pixels.
    """
    if low.shape != normal.shape or low.ndim != 2:
        raise ValueError(
            f"low and normal dose must be slices of one shape, got {low.shape} and {normal.shape}"
        )
    difference = low.astype(np.float64) - normal
    if not np.isfinite(difference).all():
        raise ValueError("the slices hold NaN or infinite HU: replace them (air is -1000) first")
    body = ndimage.binary_fill_holes(ndimage.uniform_filter(normal.astype(np.float32), 15) > BODY_HU)
    if not body.any():
        raise ValueError(f"no body in the slice: nothing above {BODY_HU} HU, where noise could be measured")
    squares = regions_of_interest(
        torch.from_numpy(difference), size=REGION, step=REGION // 2, mask=torch.from_numpy(body)
    )
    sigma = float(difference[body].std())
    if sigma == 0:
        raise ValueError("the two slices are the same: there is no noise to measure")
    spectrum = radial_nps(noise_power_spectrum(squares, pixel_mm=pixel_mm))
    return Noise(sigma, np.asarray(spectrum.frequency_per_mm), np.asarray(spectrum.power))


def nlm(hu: np.ndarray, noise: Noise, *, pixel_mm: float, strength: float = 1.0) -> np.ndarray:
    """Non-local means: patches of 5 x 5 within 13 x 13, h = `strength` sigma.

    Args:
        hu: (Y, X).
        noise: what to take away.
        pixel_mm: not used; all filters are called alike.
        strength: above 0.

    Source: Buades et al., CVPR 2005; scikit-image's `denoise_nl_means` with integral images, so that pixels
    of a patch count alike.
    """
    from skimage.restoration import denoise_nl_means

    smooth: np.ndarray = denoise_nl_means(
        hu.astype(np.float64),
        patch_size=5,
        patch_distance=6,
        h=_positive(strength) * noise.sigma_hu,
        sigma=noise.sigma_hu,
        fast_mode=True,
    )
    return smooth.astype(np.float32)


def bm3d(hu: np.ndarray, noise: Noise, *, pixel_mm: float, strength: float = 1.0) -> np.ndarray:
    """BM3D for correlated noise, given its spectrum; `strength` multiplies the noise's standard deviation.

    Args: as for `nlm`.

    Raises:
        ImportError: without the package bm3d, which is free for non-commercial use only.

    Source: Mäkinen, Azzari & Foi, IEEE TIP 29:8339 (2020).
    """
    try:
        library: Any = import_module("bm3d")
    except (ImportError, OSError) as error:
        raise ImportError(
            "BM3D needs the package bm3d, free for non-commercial use only: pip install 'bm3d>=4.0.3'"
        ) from error
    profile = library.BM3DProfile()
    profile.num_threads = torch.get_num_threads()
    shape = (hu.shape[0], hu.shape[1])
    plane = _positive(strength) ** 2 * noise.plane(shape, pixel_mm=pixel_mm)
    with _numpy_with_trapz():
        smooth: np.ndarray = library.bm3d(hu.astype(np.float64), plane, profile)
    return smooth.astype(np.float32)


@contextmanager
def _numpy_with_trapz() -> Iterator[None]:
    """Lend NumPy the name `trapz`, which 2.4 took away and bm4d 4.2.5, below bm3d, asks for."""
    lent = not hasattr(np, "trapz")
    if lent:
        np.trapz = np.trapezoid  # type: ignore[attr-defined]  # noqa: NPY201
    try:
        yield
    finally:
        if lent:
            del np.trapz  # type: ignore[attr-defined]  # noqa: NPY201


def tv(hu: np.ndarray, noise: Noise, *, pixel_mm: float, strength: float = 1.0) -> np.ndarray:
    """Least total variation: the u of least |u - hu|² / (2 w) + TV(u), w = `strength` sigma.

    Args: as for `nlm`.

    Source: Rudin, Osher & Fatemi, Physica D 60:259 (1992), solved as in Chambolle, JMIV 20:89 (2004) by
    scikit-image.
    """
    from skimage.restoration import denoise_tv_chambolle

    weight = _positive(strength) * noise.sigma_hu
    # With the library's own tolerance strong smoothing stops early, and smooths less than weak.
    smooth: np.ndarray = denoise_tv_chambolle(
        hu.astype(np.float64), weight=weight, eps=2e-5, max_num_iter=400
    )
    return smooth.astype(np.float32)


FILTERS: dict[str, Callable[..., np.ndarray]] = {"nlm": nlm, "bm3d": bm3d, "tv": tv}
"""By the names of `evaluation.METHODS`: `(hu, noise, *, pixel_mm, strength)` to (Y, X) float32 in HU."""


def _positive(strength: float) -> float:
    if not strength > 0:
        raise ValueError(f"strength must be above 0, got {strength}")
    return strength
