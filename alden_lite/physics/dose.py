"""A scan at a lower dose: from photon counts, or by inserting noise into a slice. Taught in chapter 02.

`simulate_pair` scans a noise-free slice twice, once at each dose. `insert_noise` takes a real slice, which
has noise of its own, and adds what a lower dose would add. Slices are HU, doses are fractions of the full
one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from alden_lite.physics.noise import own_noise_hu, smooth_tissue
from alden_lite.physics.scanner import (
    Scanner,
    check_dose,
    checked_slice,
    line_variance,
    lines_of,
)

__all__ = ["Pair", "insert_noise", "log_transform", "photons_matching", "simulate_pair"]


@dataclass(frozen=True)
class Pair:
    """Two scans of the same anatomy, each (N, N) in HU. `clean` has no noise; None for a real slice."""

    low: torch.Tensor
    normal: torch.Tensor
    clean: torch.Tensor | None = None


def insert_noise(
    hu: torch.Tensor, *, scanner: Scanner, dose: float, seed: int, photons: float | None = None
) -> Pair:
    """The scan this real slice would have been at a fraction of its dose.

    Only noise is reconstructed and added, so the slice keeps its resolution and its own noise: the pair is
    `nested`, as in the Mayo data sets. A patient cut by the field of view is accepted without a warning: the
    missing part of a line only makes its noise somewhat too small.

    Where few photons arrive this falls short of a real low-dose scan: it has no bias from the logarithm, and
    noise that is too small: by 2 % at 80 photons a ray, by 7 % at 32, by a quarter at 16 (chapter 02).

    Args:
        hu: (N, N) in HU, a real slice.
        scanner: geometry, kernel, photons.
        dose: fraction of the full dose, in (0, 1].
        seed: same seed, same noise.
        photons: unattenuated photons a ray at full dose; the scanner's own when None.

    Returns:
        Pair with `low` and `normal` (the slice itself).

    Raises:
        ValueError: on a dose outside (0, 1], photons not above 0, or a slice that does not fit the scanner.

    Warns:
        PaddingWarning: values below -1500 HU; they count as air, and stay in the result.

    Source: Yu et al., JCAT 36:477 (2012). With a = dose and L = detected photons at full dose, the variance
    added to a line is what it lacks, `line_variance(aL) - line_variance(L)`; with electronic noise that is
    (1-a)/(aL) * [1 + (1+a)/a * sigma_e^2/L].
    """
    check_dose(dose)
    if photons is not None:
        scanner = replace(scanner, photons=photons)
    slice_hu = checked_slice(hu, scanner).detach()
    detected = scanner.expected_counts(lines_of(slice_hu, scanner)).clamp(min=1.0)
    variance = line_variance(dose * detected, scanner.electronic_noise)
    variance -= line_variance(detected, scanner.electronic_noise)
    white = np.random.default_rng(seed).standard_normal(detected.shape, dtype=np.float32)
    # FBP is linear in attenuation, and zero attenuation reads -1000 HU.
    noise_hu = scanner.reconstruct(torch.from_numpy(white) * variance.sqrt().float()) + 1000
    return Pair(low=slice_hu + noise_hu, normal=slice_hu)


def simulate_pair(
    hu: torch.Tensor, *, scanner: Scanner, dose: float, seed: int, mode: str = "nested"
) -> Pair:
    """Scan a noise-free slice (a phantom) at full dose and at a fraction of it, from photon counts.

    Args:
        hu: (N, N) in HU, without noise.
        scanner: geometry, kernel, photons.
        dose: fraction of the full dose, in (0, 1].
        seed: same seed, same counts.
        mode: `nested` keeps each full-dose photon with probability `dose` (correlation sqrt(dose) with the
            full-dose noise, as in inserted low dose); `independent` scans twice.

    Returns:
        Pair with `low`, `normal` and the noise-free reconstruction `clean`.

    Raises:
        ValueError: on an unknown mode, a dose outside (0, 1], or a slice that does not fit the scanner.

    Warns:
        PaddingWarning, TruncationWarning: as `Scanner.project`.
    """
    check_dose(dose)
    if mode not in ("nested", "independent"):
        raise ValueError(f"unknown mode {mode!r}: choose 'nested' or 'independent'")
    rng = np.random.default_rng(seed)
    sinogram = lines_of(checked_slice(hu, scanner, whole=True).detach(), scanner)
    incident = scanner.incident_photons(sinogram).double()
    expected = scanner.expected_counts(sinogram).numpy()
    low = rng.poisson(dose * expected)
    # A thinned Poisson count and what was left out of it are independent Poisson counts: adding them up
    # is exactly binomial thinning, many times faster.
    full = low + rng.poisson((1 - dose) * expected) if mode == "nested" else rng.poisson(expected)
    full_read, low_read = (
        torch.from_numpy(counts + rng.normal(0, scanner.electronic_noise, counts.shape))
        for counts in (full, low)
    )
    return Pair(
        low=scanner.reconstruct(log_transform(low_read, dose * incident)),
        normal=scanner.reconstruct(log_transform(full_read, incident)),
        clean=scanner.reconstruct(sinogram),
    )


def log_transform(counts: torch.Tensor, incident: torch.Tensor) -> torch.Tensor:
    """Line integrals from what the detector read: ln(incident / max(counts, 1)).

    The logarithm of a noisy count is too large on average, by about 1 / (2 counts); the floor of one photon,
    which keeps it finite, makes it too small where next to nothing arrives.

    Args:
        counts: photons with electronic noise, any shape.
        incident: photons before the patient at the same dose, same shape.

    Returns:
        float32, dimensionless.
    """
    return torch.log(incident / counts.clamp(min=1.0)).float()


def photons_matching(hu: torch.Tensor, *, scanner: Scanner) -> float:
    """Photons a ray at which this scanner's full-dose noise equals the noise the slice already has.

    Noise inserted for half the dose has the variance of a full-dose scan but for the electronics' part (about
    2 % on the sample), and falls as 1/sqrt(photons).

    Args:
        hu: (N, N) in HU, a real slice.
        scanner: geometry and kernel; its `photons` is the starting point.
    """
    half = insert_noise(hu, scanner=scanner, dose=0.5, seed=0)
    tissue = smooth_tissue(hu)
    own = own_noise_hu(hu, tissue=tissue)
    if own == 0:
        raise ValueError("the slice has no noise of its own: scan it with `physics.simulate_pair`")
    return float(scanner.photons * (own_noise_hu(half.low - half.normal, tissue=tissue) / own) ** 2)
