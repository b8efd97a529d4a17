"""How sharp is a slice? The modulation transfer function (MTF) of a rod. Taught in chapters 02, 09."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from scipy.signal.windows import tukey

from alden_lite.physics.pixels import Pixels, check_pixel_mm, finite

__all__ = ["edge_mtf", "insert_rod", "mtf50_per_mm", "rod_mtf"]


def edge_mtf(
    hu: Pixels,
    *,
    pixel_mm: float,
    radius_mm: float,
    centre_mm: tuple[float, float] = (0.0, 0.0),
    reach_mm: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Modulation transfer function (MTF) from the edge of a round rod: how sharp, at every frequency.

    Pixels sorted by distance from the rod's centre sample the edge ten times finer than the grid does. The
    derivative of that edge is the line spread; its Fourier transform, 1 at zero frequency, is the MTF. For a
    denoiser the result holds for this contrast and noise only (a task transfer function).

    Args:
        hu: (Y, X) in HU, with one rod. Average repeated scans first: noise looks like sharpness.
        pixel_mm: side of a pixel.
        radius_mm: radius of the rod, many pixels: the edge is taken for straight.
        centre_mm: (y, x) of the rod's centre from the middle of the slice.
        reach_mm: how far inside and outside the edge to look; ten pixels when None.

    Returns:
        `(frequency_per_mm, mtf)`, from 0 to twice the Nyquist frequency, as the edge is finer than the grid.

    Raises:
        ValueError: if the slice is not 2-D or holds NaN, a length is not above 0, the ring of pixels around
            the edge leaves the slice, reaches the rod's centre or has too few pixels, or there is no edge.

    Source: Richard et al., Med Phys 39:4115 (2012); TG-233. Deviation: of the line spread only
    the outer quarters are tapered (Tukey's window); a Hann window over all of it makes the MTF too good.
    """
    slice_ = finite(hu)
    check_pixel_mm(pixel_mm)
    reach = 10 * pixel_mm if reach_mm is None else reach_mm
    if slice_.ndim != 2 or not 0 < reach < radius_mm:
        raise ValueError(
            f"needs one slice (Y, X), got {slice_.shape}, and 0 < reach_mm < radius_mm, "
            f"got {reach:g} and {radius_mm:g}"
        )
    y, x = (
        (np.arange(side) - (side - 1) / 2) * pixel_mm - middle
        for side, middle in zip(slice_.shape, centre_mm, strict=True)
    )
    if radius_mm + reach > min(-y[0], y[-1], -x[0], x[-1]):
        raise ValueError("the rod's edge, with reach_mm around it, does not lie inside the slice")
    step, half = pixel_mm / 10, math.ceil(10 * reach / pixel_mm)
    place = np.hypot(y[:, None], x) - radius_mm  # mm outside the edge
    bins = np.round(place / step).astype(int) + half
    ring = (bins >= 0) & (bins <= 2 * half)
    count, where, value = (
        np.bincount(bins[ring], weights, 2 * half + 1) for weights in (None, place[ring], slice_[ring])
    )
    found = count > 0  # symmetry leaves a few bins empty
    sampled = where[found] / count[found]
    if np.diff(sampled, prepend=-reach, append=reach).max() > pixel_mm / 2:
        raise ValueError("too few pixels around the edge: choose a larger rod or smaller pixels")
    edge = np.interp(np.arange(-half, half + 1) * step, sampled, value[found] / count[found])
    spread = np.diff(edge)
    if abs(edge[-1] - edge[0]) <= 1e-6 * max(1.0, np.abs(edge).max()):
        raise ValueError(f"no edge at {radius_mm:g} mm: the slice has the same HU inside and outside")
    length = 8 * len(spread)  # zero-padded: a smooth curve
    transform = np.abs(np.fft.rfft(spread * tukey(len(spread)), length))
    frequency = np.fft.rfftfreq(length, step)
    shown = frequency <= 1 / pixel_mm
    return frequency[shown], transform[shown] / transform[0]


def mtf50_per_mm(frequency_per_mm: np.ndarray, mtf: np.ndarray) -> float:
    """Frequency in cycles/mm at which the MTF first falls to one half, interpolated between two samples.

    Raises:
        ValueError: if it never does.

    >>> mtf50_per_mm(np.array([0.0, 0.25, 0.5]), np.array([1.0, 0.75, 0.25]))
    0.375
    """
    below = np.flatnonzero(mtf <= 0.5)
    if len(below) == 0 or below[0] == 0:
        raise ValueError("the MTF must start above one half and fall below it: look at the edge")
    ends = slice(below[0] - 1, below[0] + 1)
    return float(np.interp(-0.5, -mtf[ends], frequency_per_mm[ends]))


def insert_rod(
    hu: torch.Tensor,
    *,
    pixel_mm: float,
    centre_mm: tuple[float, float],
    diameter_mm: float,
    contrast_hu: float,
) -> torch.Tensor:
    """A slice (Y, X) in HU with a round rod on top, its edge pixels covered in part: for `rod_mtf`.

    A `phantom.Lesion` is warped with its patient, which no edge method forgives; a rod is round.

    Args:
        centre_mm: (y, x) of the rod from the middle of the slice.
        contrast_hu: added where the rod is.

    Raises:
        ValueError: if the slice is not 2-D, or the rod does not lie in it.
    """
    if hu.ndim != 2 or not 0 < diameter_mm < math.inf or not pixel_mm > 0:
        raise ValueError(
            f"needs one slice (Y, X), got {tuple(hu.shape)}, and lengths above 0, got {diameter_mm} and "
            f"{pixel_mm} mm"
        )
    fine = 8  # samples a pixel and axis
    y, x = (
        (np.arange(side * fine) - (side * fine - 1) / 2) * pixel_mm / fine - at
        for side, at in zip(hu.shape, centre_mm, strict=True)
    )
    reach = diameter_mm / 2
    if reach > min(-y[0], y[-1], -x[0], x[-1]):
        raise ValueError(f"a rod of {diameter_mm:g} mm at {centre_mm} mm does not lie inside the slice")
    rows, columns = (_span(axis, reach, fine) for axis in (y, x))
    inside = np.hypot(y[rows, None], x[columns]) < reach
    covered = inside.reshape(inside.shape[0] // fine, fine, -1, fine).mean((1, 3), dtype=np.float32)
    result = hu.clone()
    result[rows.start // fine : rows.stop // fine, columns.start // fine : columns.stop // fine] += (
        contrast_hu * torch.from_numpy(covered)
    )
    return result


def _span(axis: np.ndarray, reach: float, fine: int) -> slice:
    """The samples within reach of 0, in whole pixels."""
    near = np.flatnonzero(np.abs(axis) <= reach)
    return slice(near[0] // fine * fine, (near[-1] // fine + 1) * fine)


def rod_mtf(
    present: Pixels, absent: Pixels, signal: Pixels, *, pixel_mm: float, diameter_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """MTF at the edge of a rod: `sharpness.edge_mtf` of the mean difference, from which anatomy has gone.

    A denoiser keeps strong edges and blurs weak ones, so this holds for one contrast, noise and place (a task
    transfer function). Divide by that of `signal[None]` and zeros, the scanner's own, for the denoiser alone.

    Args:
        present, absent: (K, Y, X) in HU; many, or noise looks like sharpness.
        signal: (Y, X), as `LesionScans.signal`: it says where the rod is.
        pixel_mm, diameter_mm: of a pixel, and of the rod: more than 20 pixels.

    Returns:
        `(frequency_per_mm, mtf)`, as `sharpness.edge_mtf`.

    Raises:
        ValueError: on different shapes or NaN, and as `sharpness.edge_mtf`.
    """
    there, gone, rod = finite(present), finite(absent), finite(signal)
    if there.shape != gone.shape or there.shape[1:] != rod.shape or rod.ndim != 2:
        raise ValueError(f"shapes differ: {there.shape}, {gone.shape} and a signal {rod.shape}")
    inside = np.abs(rod) > np.abs(rod).max() / 2
    y, x = (
        (at - (side - 1) / 2) * pixel_mm
        for at, side in zip(ndimage.center_of_mass(inside), rod.shape, strict=True)
    )
    return edge_mtf(
        (there - gone).mean(0), pixel_mm=pixel_mm, radius_mm=diameter_mm / 2, centre_mm=(float(y), float(x))
    )
