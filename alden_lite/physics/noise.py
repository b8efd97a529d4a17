"""Noise, measured and predicted: deviation, noise power spectrum (NPS), texture. Chapters 02 and 03.

Two pictures of the same standard deviation can have coarse or fine noise; the NPS says which. The theory of
filtered back-projection predicts both from the scanner, so each measurement here can be held against it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage

from alden_lite.physics.hounsfield import MU_WATER_PER_MM
from alden_lite.physics.pixels import Pixels, as_mask, check_pixel_mm, finite
from alden_lite.physics.scanner import KERNELS, Scanner

__all__ = [
    "NoisePower",
    "RadialNoisePower",
    "noise_power_spectrum",
    "own_noise_hu",
    "photons_for_sigma",
    "radial_nps",
    "regions_of_interest",
    "smooth_tissue",
    "texture_hu",
    "theory_nps",
    "theory_sigma",
]


def texture_hu(hu: Pixels, *, tissue: Pixels) -> float:
    """Texture of a tissue: standard deviation in HU of what a 7 x 7 mean leaves over.

    Noise counts, and so does fine structure; over-smoothing lowers it.

    Args:
        hu: (Y, X) in HU.
        tissue: (Y, X) bool, where to look: best without edges, as `physics.smooth_tissue` gives it.

    Raises:
        ValueError: on NaN, or a mask that is empty or of another shape.

    >>> board = 10.0 * (-1) ** (np.arange(9)[:, None] + np.arange(9))
    >>> round(texture_hu(board, tissue=np.ones((9, 9), bool)), 1)
    10.0
    """
    values = finite(hu)
    rest = values - ndimage.uniform_filter(values, 7)
    return float(rest[as_mask(tissue, values, "tissue")].std())


@dataclass(frozen=True)
class NoisePower:
    """Noise power of an n x n region: `power` (n, n) in HU² mm², (fy, fx), zero frequency in the middle;
    `frequency_per_mm` (n,), the frequencies of either axis, ascending, in cycles/mm."""

    power: np.ndarray
    frequency_per_mm: np.ndarray

    @property
    def variance_hu2(self) -> float:
        """Integral over all frequencies: the variance of the detrended noise in HU²."""
        return float(self.power.sum() * (self.frequency_per_mm[1] - self.frequency_per_mm[0]) ** 2)


class RadialNoisePower(NamedTuple):
    """Noise power averaged over directions: `frequency, power = radial_nps(...)`, each (bins,)."""

    frequency_per_mm: np.ndarray
    power: np.ndarray  # HU² mm²

    @property
    def peak_per_mm(self) -> float:
        """Frequency with the most power, in cycles/mm."""
        return float(self.frequency_per_mm[self.power.argmax()])

    @property
    def mean_per_mm(self) -> float:
        """Mean frequency weighted by power, in cycles/mm: lower means blotchier noise (TG-233's f_av)."""
        return float(np.average(self.frequency_per_mm, weights=self.power))


def noise_power_spectrum(noise: Pixels, *, pixel_mm: float, detrend: str = "mean") -> NoisePower:
    """How much of the noise is coarse, how much is fine: `dx dy / (nx ny) * <|DFT(noise)|²>`.

    Args:
        noise: (K, n, n) in HU, K realisations or regions of one kind of noise, without anatomy: the image
            less its noise-free version, or the difference of two independent scans over sqrt(2).
        pixel_mm: side of a pixel.
        detrend: what is taken off each region first: its `mean`, or a quadratic `polynomial` fitted to it,
            which also removes cupping (and six of its n² degrees of freedom).

    Returns:
        NoisePower; the zero frequency is 0 after detrending.

    Raises:
        ValueError: on another shape, no region, regions below 8 x 8, NaN, regions that are constant, a pixel
            that is not above 0 mm, or an unknown `detrend`.

    Source: ICRU Report 87 (2012); Samei et al. (AAPM TG-233), Med Phys 46:e735 (2019).
    """
    regions = finite(noise)
    if regions.ndim != 3 or len(regions) < 1 or regions.shape[1] != regions.shape[2] or regions.shape[1] < 8:
        raise ValueError(
            f"noise must be (K, n, n) with K of 1 or more and n of 8 or more, got {regions.shape}: "
            "add an axis to a single region, cut long ones with regions_of_interest"
        )
    check_pixel_mm(pixel_mm)
    n = regions.shape[1]
    rest = regions - _trend(regions, detrend)
    if np.abs(rest).max() <= 1e-9 * np.abs(regions).max():
        raise ValueError("the regions hold no noise: each is constant, or nothing but its trend")
    power = (np.abs(np.fft.fft2(rest)) ** 2).mean(0) * (pixel_mm / n) ** 2
    return NoisePower(np.fft.fftshift(power), np.fft.fftshift(np.fft.fftfreq(n, pixel_mm)))


def radial_nps(nps: NoisePower, *, bins: int | None = None) -> RadialNoisePower:
    """Noise power averaged over rings, from just above zero frequency (which detrending takes) to Nyquist.

    Args:
        nps: from `noise_power_spectrum`. Streaks make it depend on direction, which a ring hides.
        bins: rings of equal width, 1 to n // 2; n // 2 when None. A ring's frequency is its pixels' mean.

    Raises:
        ValueError: if `bins` is out of range.
    """
    n = len(nps.frequency_per_mm)
    bins = n // 2 if bins is None else bins
    if not 1 <= bins <= n // 2:
        raise ValueError(f"an {n} x {n} spectrum has 1 to {n // 2} rings, got bins={bins}")
    distance = np.hypot(nps.frequency_per_mm[:, None], nps.frequency_per_mm)
    steps = distance / (nps.frequency_per_mm[1] - nps.frequency_per_mm[0])
    # Rings begin half a step from zero: with n // 2 of them, each is centred on a whole step.
    ring = np.floor((steps - 0.5) * bins / (n // 2) + 1).astype(int)
    count, frequency, power = (
        np.bincount(ring.ravel(), weights)[1 : bins + 1]
        for weights in (None, distance.ravel(), nps.power.ravel())
    )
    return RadialNoisePower(frequency / count, power / count)


def regions_of_interest(
    image: Pixels, *, size: int, step: int | None = None, mask: Pixels | None = None
) -> np.ndarray:
    """Square regions of a slice that lie wholly inside a mask, for `noise_power_spectrum`.

    Args:
        image: (Y, X), any unit.
        size: side of a region in pixels.
        step: pixels from one region to the next; `size` when None, so that none overlap.
        mask: (Y, X) bool; the whole slice when None.

    Returns:
        (K, size, size), row by row.

    Raises:
        ValueError: if shapes differ, `size` or `step` is below 1, or no region fits.
    """
    slice_ = finite(image)
    where = as_mask(mask, slice_, "mask") if mask is not None else np.ones(slice_.shape, bool)
    step = size if step is None else step
    if slice_.ndim != 2 or not 1 <= size <= min(slice_.shape) or step < 1:
        raise ValueError(f"regions of size {size}, step {step} cannot be cut from a slice {slice_.shape}")
    values, inside = (
        np.lib.stride_tricks.sliding_window_view(a, (size, size))[::step, ::step] for a in (slice_, where)
    )
    regions = values[inside.all((2, 3))]
    if len(regions) == 0:
        raise ValueError(f"no region of {size} x {size} fits inside the mask: choose a smaller size or step")
    return regions


def _trend(regions: np.ndarray, kind: str) -> np.ndarray:
    """What detrending takes off, (K, n, n) or (K, 1, 1)."""
    if kind == "mean":
        return regions.mean((1, 2), keepdims=True)
    if kind != "polynomial":
        raise ValueError(f"unknown detrend {kind!r}: choose 'mean' or 'polynomial'")
    n = regions.shape[1]
    y, x = (axis.ravel() for axis in np.meshgrid(*[np.linspace(-1, 1, n)] * 2, indexing="ij"))
    basis, _ = np.linalg.qr(np.stack([np.ones(n * n), x, y, x * x, x * y, y * y], 1))  # (n², 6), orthonormal
    flat = regions.reshape(-1, n * n)
    return (flat @ basis @ basis.T).reshape(regions.shape)


def own_noise_hu(hu: torch.Tensor, *, tissue: torch.Tensor | None = None) -> float:
    """Noise of a slice in HU: spread of what a 5 x 5 mean leaves over in soft tissue, away from edges.

    Args:
        hu: (Y, X) in HU.
        tissue: (Y, X) bool, where to look; `smooth_tissue` of the slice itself when None.

    Returns:
        Robust standard deviation (1.4826 x median absolute deviation) in HU.

    Raises:
        ValueError: if there is next to no tissue to look at.
    """
    where = smooth_tissue(hu) if tissue is None else tissue
    if where.sum() < 500:
        raise ValueError("the slice has too little soft tissue (-50 to 150 HU) to read its noise from")
    values = hu.numpy().astype(np.float32)
    rest = values - ndimage.uniform_filter(values, 5)
    return float(1.4826 * np.median(np.abs(rest[where.numpy()])))


def smooth_tissue(hu: torch.Tensor) -> torch.Tensor:
    """Pixels whose 9 x 9 surroundings average to soft tissue (-50 to 150 HU) and hold no edge.

    Args:
        hu: (Y, X) in HU.

    Returns:
        (Y, X) bool.
    """
    values = hu.numpy().astype(np.float32)
    mean = ndimage.uniform_filter(values, 9)
    steep = ndimage.gaussian_gradient_magnitude(values, 3) > 8  # HU a pixel
    return torch.from_numpy((mean > -50) & (mean < 150) & ~steep)


def theory_sigma(scanner: Scanner, variance: float) -> float:
    """Noise in HU of a slice whose every line has the same variance (white noise through FBP).

    sigma^2 = 2 pi^2 / n_views * channel * variance * f_c^3 * integral of x^2 W(x)^2 over [0, 1]

    Args:
        scanner: views, channel width, kernel W and cut-off f_c.
        variance: of a line integral, dimensionless, at least 0.

    Source: the integral of `theory_nps` over all frequencies; Kak & Slaney ch. 5.
    """
    x = np.linspace(0, 1, 10_001)
    integral = np.trapezoid((x * KERNELS[scanner.kernel](x)) ** 2, x)
    power = 2 * math.pi**2 / scanner.n_views * scanner.channel_mm * scanner.cutoff_per_mm**3 * integral
    return math.sqrt(power * _not_negative(variance)) * 1000 / MU_WATER_PER_MM


def theory_nps(scanner: Scanner, variance: float, frequency_per_mm: np.ndarray) -> np.ndarray:
    """Noise power spectrum of white projection noise after FBP.

    NPS(f) = pi / n_views * variance * channel * |f| W(f)^2

    Args:
        scanner: views, channel width, kernel W and cut-off.
        variance: of a line integral, dimensionless, at least 0.
        frequency_per_mm: distance f from frequency 0, any shape.

    Returns:
        Same shape, in HU^2 mm^2; 0 above the cut-off. Its integral over the plane is `theory_sigma` squared.

    Source: Riederer, Pelc & Chesler, PMB 23:446 (1978).
    """
    frequency = np.abs(np.asarray(frequency_per_mm, dtype=np.float64))
    x = frequency / scanner.cutoff_per_mm
    window = np.where(x <= 1, KERNELS[scanner.kernel](np.minimum(x, 1)), 0)
    power = math.pi / scanner.n_views * _not_negative(variance) * scanner.channel_mm * frequency * window**2
    return power * (1000 / MU_WATER_PER_MM) ** 2


def photons_for_sigma(scanner: Scanner, *, sigma_hu: float, water_mm: float = 300.0) -> float:
    """Photons a ray at which the centre of a water cylinder has so much noise: turns `theory_sigma` round.

    Args:
        scanner: geometry, kernel, electronic noise; its own `photons` do not matter.
        sigma_hu: wanted standard deviation in HU, above 0.
        water_mm: diameter of the cylinder, centred, so that no view has more current than another.

    Returns:
        Unattenuated photons a ray: L exp(mu d), with L from variance = 1/L + sigma_e^2 / L^2.

    Raises:
        ValueError: if `sigma_hu` or `water_mm` is not above 0.
    """
    if not (0 < sigma_hu < math.inf and 0 < water_mm < math.inf):
        raise ValueError(f"sigma_hu and water_mm must be above 0, got {sigma_hu} and {water_mm}")
    variance = (sigma_hu / theory_sigma(scanner, 1.0)) ** 2
    detected = (1 + math.sqrt(1 + 4 * variance * scanner.electronic_noise**2)) / (2 * variance)
    return detected * math.exp(MU_WATER_PER_MM * water_mm)


def _not_negative(variance: float) -> float:
    if not 0 <= variance < math.inf:
        raise ValueError(f"a variance is 0 or above, got {variance}")
    return variance
