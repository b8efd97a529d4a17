"""A CT scanner in a page: line integrals, photon noise and filtered back-projection (FBP).

Projection rests on the Fourier slice theorem (Kak & Slaney, ch. 3): the 1-D Fourier transform of a
parallel projection is a radial line through the slice's 2-D transform. `finufft` evaluates those lines;
everything about CT is below. Rays are parallel, as after the fan-to-parallel rebinning that clinical
reconstruction does first: the channel sets a ray's bowtie, the view its tube current. Taught in chapter
02. Lengths are mm, attenuation 1/mm, slices HU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import finufft
import numpy as np
import scipy.fft
import torch

from alden_lite.hounsfield import MU_WATER_PER_MM, hu_to_mu, mu_to_hu

__all__ = ["Pair", "Scanner", "insert_noise", "simulate_pair"]

KERNELS = {
    "ram-lak": lambda x: np.ones_like(x),
    "cosine": lambda x: np.cos(np.pi / 2 * x),
    "hann": lambda x: 0.5 + 0.5 * np.cos(np.pi * x),
}
"""Apodisation of the ramp by name: weight at x = frequency / cut-off, for x in [0, 1]."""


@dataclass(frozen=True)
class Scanner:
    """Geometry, beam and kernel of one acquisition of a square slice.

    Geometry follows the SOMATOM Definition AS+ (as in LDCT-and-Projection-data). Choose `pixel_mm` to be
    the slice's own; `Scanner.covering` also widens the detector until the whole slice is inside.

    Raises:
        ValueError: when a length or count is not positive, the kernel is unknown, or its cut-off lies
            above what pixels or channels can carry.
    """

    matrix: int = 512  # pixels a side
    pixel_mm: float = 0.703
    n_views: int = 720  # over 180 degrees
    n_channels: int = 736
    channel_mm: float = 0.70  # at the isocentre
    photons: float = 1.0e6  # a ray, unattenuated, at full dose
    electronic_noise: float = 5.0  # standard deviation, in photons
    bowtie_mm: float = 320.0  # diameter of the water cylinder that the bowtie evens out
    bowtie_strength: float = 0.5  # 0 none, 1 completely
    tube_modulation: float = 0.5  # tube current ~ exp(strength * path); 0 constant
    kernel: str = "hann"
    cutoff_per_mm: float = 0.70

    def __post_init__(self) -> None:
        for name in ("matrix", "pixel_mm", "n_views", "n_channels", "channel_mm", "photons"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.kernel not in KERNELS:
            raise ValueError(f"unknown kernel {self.kernel!r}: choose from {sorted(KERNELS)}")
        nyquist = 0.5 / max(self.pixel_mm, self.channel_mm)
        if not 0 < self.cutoff_per_mm <= nyquist * 1.001:
            raise ValueError(
                f"cutoff_per_mm={self.cutoff_per_mm} must lie in (0, {nyquist:.3f}]: above it, pixels of "
                f"{self.pixel_mm} mm and channels of {self.channel_mm} mm alias"
            )

    @classmethod
    def covering(cls, matrix: int, pixel_mm: float, **changes: float | str) -> Scanner:
        """A scanner whose detector covers a slice to its corners; the cut-off is lowered to fit its pixels.

        `changes` are any other fields. Channels stay 0.70 mm (1.40 mm for 256 x 256 slices).
        """
        channel_mm = 0.70 if matrix > 256 else 1.40
        values: dict[str, float | str] = {
            "channel_mm": channel_mm,
            "n_channels": math.ceil(math.sqrt(2) * matrix * pixel_mm / channel_mm) + 2,
            "n_views": 720 if matrix > 256 else 360,
            "cutoff_per_mm": min(0.70, 0.5 / max(pixel_mm, channel_mm)),
        }
        return cls(matrix=matrix, pixel_mm=pixel_mm, **(values | changes))  # type: ignore[arg-type]

    @property
    def view_angles(self) -> np.ndarray:
        """Angles in radians, (n_views,), over half a turn."""
        return (np.arange(self.n_views) + 0.5) * np.pi / self.n_views

    @property
    def channel_positions_mm(self) -> np.ndarray:
        """Distance of each channel's ray from the isocentre in mm, (n_channels,)."""
        return (np.arange(self.n_channels) - (self.n_channels - 1) / 2) * self.channel_mm

    def project(self, hu: torch.Tensor) -> torch.Tensor:
        """Noise-free line integrals of a slice.

        Args:
            hu: (N, N) in HU; values below -1000 count as air.

        Returns:
            Sinogram (n_views, n_channels), dimensionless (attenuation x length), never negative.

        Raises:
            ValueError: if the slice is not N x N for this scanner or holds NaN or infinity.
        """
        mu_per_mm = hu_to_mu(_checked(hu, self).clamp(min=-1000.0))
        return _slice_theorem(self).project(mu_per_mm).clamp(min=0.0)

    def reconstruct(self, sinogram: torch.Tensor) -> torch.Tensor:
        """Filtered back-projection: (n_views, n_channels) line integrals to an (N, N) slice in HU."""
        return mu_to_hu(_slice_theorem(self).back_project(self.filter(sinogram)))

    def filter(self, sinogram: torch.Tensor) -> torch.Tensor:
        """Ramp x kernel along the channels: (n_views, n_channels) to the same, in 1/mm."""
        ramp, length = _ramp(self)
        spectrum = torch.fft.rfft(sinogram, length) * ramp
        return torch.fft.irfft(spectrum, length)[..., : self.n_channels]

    def incident_photons(self, sinogram: torch.Tensor) -> torch.Tensor:
        """Photons a ray before the patient, at full dose: bowtie across channels, modulation over views.

        Args:
            sinogram: noise-free line integrals (n_views, n_channels), which the tube current follows.

        Returns:
            (n_views, n_channels), in photons; the mean tube current is the same with and without modulation.
        """
        position = torch.as_tensor(self.channel_positions_mm, dtype=torch.float32)
        radius = self.bowtie_mm / 2
        chord = 2 * (radius**2 - position**2).clamp(min=0).sqrt()
        bowtie = torch.exp(-self.bowtie_strength * MU_WATER_PER_MM * (2 * radius - chord))
        longest_path = torch.quantile(sinogram, 0.98, dim=-1, keepdim=True)
        current = torch.exp(self.tube_modulation * longest_path)
        return self.photons * bowtie * current / current.mean()


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
    `nested`, as in the Mayo data sets.

    Args:
        hu: (N, N) in HU, a real slice.
        scanner: geometry, kernel, photons.
        dose: fraction of the full dose, in (0, 1].
        seed: same seed, same noise.
        photons: unattenuated photons a ray at full dose; the scanner's own when None.

    Returns:
        Pair with `low` and `normal` (the slice itself).

    Raises:
        ValueError: on a dose outside (0, 1] or a slice that does not fit the scanner.

    Source: Yu et al., JCAT 36:477 (2012), eq. 5, with electronic noise. With a = dose and L = detected
    photons at full dose, the added variance is (1-a)/(aL) * [1 + (1+a)/a * sigma_e^2/L].
    """
    _check_dose(dose)
    slice_hu = _checked(hu, scanner)
    sinogram = scanner.project(slice_hu)
    scale = 1.0 if photons is None else photons / scanner.photons
    detected = (scale * scanner.incident_photons(sinogram) * torch.exp(-sinogram)).clamp(min=1.0)
    electronic = scanner.electronic_noise**2 / detected
    variance = (1 - dose) / (dose * detected) * (1 + (1 + dose) / dose * electronic)
    white = np.random.default_rng(seed).standard_normal(sinogram.shape, dtype=np.float32)
    # FBP is linear in attenuation, and zero attenuation reads -1000 HU.
    noise_hu = scanner.reconstruct(torch.from_numpy(white) * variance.sqrt()) + 1000
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
    """
    _check_dose(dose)
    if mode not in ("nested", "independent"):
        raise ValueError(f"unknown mode {mode!r}: choose 'nested' or 'independent'")
    rng = np.random.default_rng(seed)
    sinogram = scanner.project(hu)
    incident = scanner.incident_photons(sinogram).numpy().astype(np.float64)
    expected = incident * np.exp(-sinogram.numpy().astype(np.float64))
    low = rng.poisson(dose * expected)
    # A thinned Poisson count and what was left out of it are independent Poisson counts: adding them up
    # is exactly binomial thinning, many times faster.
    full = low + rng.poisson((1 - dose) * expected) if mode == "nested" else rng.poisson(expected)
    normal_lines = _log(full, incident, scanner, rng)
    low_lines = _log(low, dose * incident, scanner, rng)
    return Pair(
        low=scanner.reconstruct(low_lines),
        normal=scanner.reconstruct(normal_lines),
        clean=scanner.reconstruct(sinogram),
    )


def _log(
    counts: np.ndarray, incident: np.ndarray, scanner: Scanner, rng: np.random.Generator
) -> torch.Tensor:
    """Noisy line integrals from counts: electronic noise, floor of one photon, logarithm."""
    detected = counts + rng.normal(0, scanner.electronic_noise, counts.shape)
    return torch.from_numpy(np.log(incident / np.maximum(detected, 1.0)).astype(np.float32))


def _check_dose(dose: float) -> None:
    if not 0 < dose <= 1:
        raise ValueError(f"dose is a fraction of the full dose in (0, 1], got {dose}")


def _checked(hu: torch.Tensor, scanner: Scanner) -> torch.Tensor:
    slice_hu = torch.as_tensor(hu, dtype=torch.float32)
    if tuple(slice_hu.shape) != (scanner.matrix, scanner.matrix):
        raise ValueError(
            f"this scanner takes slices of {scanner.matrix} x {scanner.matrix}, got {tuple(slice_hu.shape)}: "
            "choose Scanner.covering(matrix, pixel_mm) for your slice"
        )
    if not torch.isfinite(slice_hu).all():
        raise ValueError("the slice holds NaN or infinite HU: replace them (air is -1000) before scanning")
    return slice_hu


class _SliceTheorem:
    """The Fourier slice theorem for one geometry: slice to line integrals, filtered lines back to a slice."""

    EPS = 1e-4  # relative accuracy of the non-uniform transform; single precision carries no more than 1e-6

    def __init__(self, scanner: Scanner) -> None:
        s = self.scanner = scanner
        # Zero-pad the detector until the slice's diagonal fits: no view may wrap around.
        need = max(s.n_channels, 1.02 * math.sqrt(2) * s.matrix * s.pixel_mm / s.channel_mm)
        self.padded = scipy.fft.next_fast_len(math.ceil(need / 2), real=True) * 2
        frequency = np.fft.rfftfreq(self.padded, s.channel_mm)  # (F,) cycles/mm
        cos, sin = np.cos(s.view_angles)[:, None], np.sin(s.view_angles)[:, None]
        self.kx = 2 * np.pi * s.pixel_mm * cos * frequency  # (V, F) radians a pixel
        self.ky = 2 * np.pi * s.pixel_mm * sin * frequency
        # The transform counts pixels from matrix // 2; the isocentre lies between the middle pixels.
        half_pixel = s.matrix // 2 - (s.matrix - 1) / 2
        first_channel = s.channel_positions_mm[0]
        shift = np.exp(-1j * half_pixel * (self.kx + self.ky) + 2j * np.pi * frequency * first_channel)
        # A pixel is a square and a channel has a width: both blur the projection.
        square = np.sinc(cos * frequency * s.pixel_mm) * np.sinc(sin * frequency * s.pixel_mm)
        blur = square * np.sinc(frequency * s.channel_mm) * s.pixel_mm**2 / s.channel_mm
        self.forward_weight = torch.from_numpy((shift * blur).astype(np.complex64))
        self.backward_weight = torch.from_numpy(
            (shift.conj() * _both_halves(self.padded)).astype(np.complex64)
        )
        self.plans: dict[int, finufft.Plan] = {}

    def plan(self, kind: int) -> finufft.Plan:
        """finufft's plan: kind 2 is grid to radial lines, kind 1 is radial lines to grid."""
        if kind not in self.plans:
            n = self.scanner.matrix
            plan = finufft.Plan(
                kind,
                (n, n),
                eps=self.EPS,
                dtype="complex64",
                isign=-1 if kind == 2 else 1,
                nthreads=1,  # sums in one order: the same seed gives the same scan on any number of cores
            )
            plan.setpts(self.ky.ravel().astype(np.float32), self.kx.ravel().astype(np.float32))
            self.plans[kind] = plan
        return self.plans[kind]

    def project(self, mu_per_mm: torch.Tensor) -> torch.Tensor:
        lines = self.plan(2).execute(mu_per_mm.numpy().astype(np.complex64))  # 2-D transform on radial lines
        spectrum = torch.from_numpy(lines).reshape(self.kx.shape) * self.forward_weight
        return torch.fft.irfft(spectrum, self.padded)[..., : self.scanner.n_channels]

    def back_project(self, filtered: torch.Tensor) -> torch.Tensor:
        s = self.scanner
        spectrum = torch.fft.rfft(filtered, self.padded) * self.backward_weight
        slice_sum = self.plan(1).execute(spectrum.reshape(-1).numpy())
        return torch.from_numpy(slice_sum.real.copy()) * (math.pi / (s.n_views * self.padded))


def _both_halves(n: int) -> np.ndarray:
    """Weights that make a half spectrum of length n // 2 + 1 stand for the whole: its ends count once."""
    weight = np.full(n // 2 + 1, 2.0)
    weight[0] = weight[-1] = 1.0  # n is even
    return weight


@lru_cache(maxsize=32)
def _ramp(s: Scanner) -> tuple[torch.Tensor, int]:
    """Frequency response of ramp x kernel, sampled from the spatial ramp (Kak & Slaney eq. 3.61)."""
    n = 2 ** math.ceil(math.log2(2 * s.n_channels))
    k = np.minimum(np.arange(n), n - np.arange(n))  # distance in channels, circular
    odd = k % 2 == 1
    spatial = np.zeros(n)
    spatial[0] = 1 / (4 * s.channel_mm**2)
    spatial[odd] = -1 / (np.pi * k[odd] * s.channel_mm) ** 2
    x = np.fft.rfftfreq(n, s.channel_mm) / s.cutoff_per_mm
    response = (
        np.fft.rfft(spatial).real * s.channel_mm * np.where(x <= 1, KERNELS[s.kernel](np.minimum(x, 1)), 0)
    )
    return torch.from_numpy(response.astype(np.float32)), n


@lru_cache(maxsize=4)
def _slice_theorem_for(geometry: Scanner) -> _SliceTheorem:
    return _SliceTheorem(geometry)


def _slice_theorem(scanner: Scanner) -> _SliceTheorem:
    """Plans are costly and depend on the geometry alone, so doses and kernels share them."""
    geometry = replace(scanner, photons=1.0, electronic_noise=0.0, kernel="ram-lak", cutoff_per_mm=1e-3)
    return _slice_theorem_for(geometry)
