"""A CT scanner: line integrals, photon noise and filtered back-projection (FBP).

Projection and back-projection rest on the Fourier slice theorem (`slice_theorem`); everything else about CT
is below. Rays are parallel, as after the fan-to-parallel rebinning that clinical reconstruction does first
(`fan_beam` shows it): the channel sets a ray's bowtie, the view its tube current. Taught in chapter 02.
Lengths are mm, attenuation 1/mm, slices HU.

`line_integrals`, `adjoint`, `project`, `filter` and `reconstruct` are differentiable in torch; what
draws counts or noise is not. A slice is seen on the same grid that it is drawn on, which flatters a little
(mild inverse crime): fine for noise, not for studying resolution.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from alden_lite.physics.hounsfield import AIR_HU, MU_WATER_PER_MM, PADDING_BELOW_HU, hu_to_mu, mu_to_hu
from alden_lite.physics.slice_theorem import Geometry, Lines, Smear, slice_theorem

__all__ = [
    "KERNELS",
    "PRESETS",
    "PaddingWarning",
    "Scanner",
    "TruncationWarning",
    "line_variance",
]

KERNELS = {
    "ram-lak": lambda x: np.ones_like(x),
    "cosine": lambda x: np.cos(np.pi / 2 * x),
    "hann": lambda x: 0.5 + 0.5 * np.cos(np.pi * x),
}
"""Apodisation of the ramp by name: weight at x = frequency / cut-off, for x in [0, 1]."""

PRESETS: dict[str, dict[str, float]] = {
    "abdomen": {"photons": 1.0e6, "electronic_noise": 5.0, "cutoff_per_mm": 0.70, "field_mm": 360.0},
    "chest": {"photons": 3.0e5, "electronic_noise": 5.0, "cutoff_per_mm": 0.70, "field_mm": 360.0},
    "pelvis": {"photons": 1.0e6, "electronic_noise": 5.0, "cutoff_per_mm": 0.70, "field_mm": 400.0},
    "head": {"photons": 1.0e6, "electronic_noise": 5.0, "cutoff_per_mm": 0.70, "field_mm": 250.0},
}
"""Acquisitions by name, for 512 x 512 slices; `field_mm` is the side of the slice. See `Scanner.preset`."""

MATTER_ABOVE_HU = -300.0  # tissue, not lung, foam or blankets


class PaddingWarning(UserWarning):
    """A slice holds values that no matter can have, such as the -2000 around a round field of view."""


class TruncationWarning(UserWarning):
    """A patient reaches beyond what the slice or the detector covers: line integrals miss that part."""


@dataclass(frozen=True)
class Scanner:
    """Geometry, beam and kernel of one acquisition of a square slice.

    Geometry follows the SOMATOM Definition AS+ (as in LDCT-and-Projection-data). Choose `pixel_mm` to be
    the slice's own; `Scanner.covering` also widens the detector until the whole slice is inside.

    Raises:
        ValueError: when a length or count is not positive, a strength is negative, the kernel is unknown,
            or its cut-off lies above what pixels or channels can carry.
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
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("matrix", "n_views", "n_channels"):
            if getattr(self, name) != int(getattr(self, name)):
                raise ValueError(f"{name} must be a whole number, got {getattr(self, name)}")
        for name in ("electronic_noise", "bowtie_mm", "bowtie_strength", "tube_modulation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or above, got {getattr(self, name)}")
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
        _check_pixels(matrix, pixel_mm)
        channel_mm = 0.70 if matrix > 256 else 1.40
        values: dict[str, float | str] = {
            "channel_mm": channel_mm,
            "n_channels": math.ceil(math.sqrt(2) * matrix * pixel_mm / channel_mm) + 2,
            "n_views": 720 if matrix > 256 else 360,
            "cutoff_per_mm": min(0.70, 0.5 / max(pixel_mm, channel_mm)),
        }
        return cls(matrix=matrix, pixel_mm=pixel_mm, **(values | changes))  # type: ignore[arg-type]

    @classmethod
    def preset(
        cls, name: str, *, matrix: int = 512, pixel_mm: float | None = None, **changes: float | str
    ) -> Scanner:
        """An acquisition of `PRESETS` whose detector covers the slice to its corners.

        At 256 x 256 there are half the views, channels twice as wide and half the cut-off. Noise variance
        goes with channel x cut-off^3 / (views x photons), so half the photons a ray keep the noise in HU as
        at 512 x 512 (OURS; within 4 %). A real scanner loses no photons by wider channels and fewer views:
        it would count four times those of 512 x 512 on each ray, and show 2.8 times less noise than this.

        Args:
            name: abdomen, chest, pelvis or head.
            matrix: pixels a side, 512 or 256.
            pixel_mm: size of a pixel; the preset's usual field of view when None. The cut-off is lowered to
                what pixels and channels carry, which lowers the noise: larger patients in larger fields are
                reconstructed more softly. For statistics over patients set one pixel_mm for all.
            changes: any other fields.

        Raises:
            ValueError: on an unknown name, or what `Scanner` refuses.

        >>> Scanner.preset("chest", matrix=256).photons
        150000.0
        """
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}: choose from {sorted(PRESETS)}")
        values = dict(PRESETS[name])
        _check_pixels(matrix, pixel_mm)
        field_mm = values.pop("field_mm")
        pixel_mm = field_mm / matrix if pixel_mm is None else pixel_mm
        covering = cls.covering(matrix, pixel_mm)
        values["photons"] *= 1.0 if matrix > 256 else 0.5
        values["cutoff_per_mm"] = min(values["cutoff_per_mm"], covering.cutoff_per_mm)
        return cls.covering(matrix, pixel_mm, **(values | changes))

    @property
    def geometry(self) -> Geometry:
        """Where pixels and rays lie, without beam and kernel."""
        return Geometry(self.matrix, self.pixel_mm, self.n_views, self.n_channels, self.channel_mm)

    @property
    def view_angles(self) -> np.ndarray:
        """Angles in radians, (n_views,), over half a turn."""
        return self.geometry.view_angles

    @property
    def channel_positions_mm(self) -> np.ndarray:
        """Distance of each channel's ray from the isocentre in mm, (n_channels,)."""
        return self.geometry.channel_positions_mm

    def project(self, hu: torch.Tensor) -> torch.Tensor:
        """Noise-free line integrals of a slice.

        The ray of angle theta and position t runs through all points with x cos(theta) + y sin(theta) = t;
        x grows with the column, y with the row. Linear in attenuation but for two clamps, where gradients
        are zero: HU of air and below, and lines below 0 (the ringing of sharp edges).

        Args:
            hu: (N, N) in HU; values below -1000 count as air.

        Returns:
            Sinogram (n_views, n_channels), dimensionless (attenuation x length), never negative.

        Raises:
            ValueError: if the slice is not N x N for this scanner or holds NaN or infinity.

        Warns:
            PaddingWarning: values below -1500 HU.
            TruncationWarning: the patient is cut by the edge of the slice, or lies beyond the detector.
        """
        return lines_of(checked_slice(hu, self, whole=True), self)

    def line_integrals(self, mu_per_mm: torch.Tensor) -> torch.Tensor:
        """The linear part of `project`: attenuation (N, N) in 1/mm to lines (n_views, n_channels)."""
        theorem = slice_theorem(self.geometry)
        return Lines.apply(_finite_slice(mu_per_mm, self), theorem, theorem.seen)

    def adjoint(self, lines: torch.Tensor) -> torch.Tensor:
        """Adjoint of `line_integrals`: <line_integrals(x), y> = <x, adjoint(y)>.

        Every pixel collects the rays through it, each times the length of its path (mm) in the pixel.
        `reconstruct` collects them without the width of pixel and channel: a back-projection of its own.

        Args:
            lines: (n_views, n_channels).

        Returns:
            (N, N), in mm times the unit of `lines`.
        """
        theorem = slice_theorem(self.geometry)
        return Smear.apply(_finite_lines(lines, self), theorem, theorem.seen) / theorem.padded

    def reconstruct(self, sinogram: torch.Tensor) -> torch.Tensor:
        """Filtered back-projection: (n_views, n_channels) line integrals to an (N, N) slice in HU.

        Affine: no attenuation at all reads -1000 HU. Not clamped.
        """
        return mu_to_hu(_back_projection(self.filter(_finite_lines(sinogram, self)), self))

    def filter(self, sinogram: torch.Tensor) -> torch.Tensor:
        """Ramp x kernel along the channels: (..., n_channels) to the same, in 1/mm."""
        if sinogram.shape[-1] != self.n_channels:
            raise ValueError(f"this scanner has {self.n_channels} channels, got {tuple(sinogram.shape)}")
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

    def expected_counts(self, sinogram: torch.Tensor, *, dose: float = 1.0) -> torch.Tensor:
        """Photons that the detector sees on average (Beer and Lambert): dose x incident x exp(-lines).

        Args:
            sinogram: noise-free line integrals (n_views, n_channels).
            dose: fraction of the full dose, in (0, 1].

        Returns:
            (n_views, n_channels) float64, in photons.
        """
        check_dose(dose)
        return dose * (self.incident_photons(sinogram).double() * torch.exp(-sinogram.double()))

    def noise_map(self, hu: torch.Tensor, *, dose: float = 1.0) -> torch.Tensor:
        """Standard deviation of each pixel's noise, computed instead of drawn.

        A pixel is a weighted sum of independent rays, so its variance is the sum of their variances times
        the squared weights. The weights are the spatial kernel h of `filter`, so: filter the *variance* of
        the lines with h^2, back-project it, take the root.

        Var f(x) = (pi / n_views)^2 sum_views (h^2 * Var p)(x cos(theta) + y sin(theta))

        Args:
            hu: (N, N) in HU: a noise-free slice, or a real one (its own noise hardly changes the lines).
            dose: fraction of the full dose, in (0, 1].

        Returns:
            (N, N) in HU. Rays that count less than one photon are taken to count one. As in `insert_noise`,
            noise is too small where few photons arrive: by 2 % at 80 a ray, by 7 % at 32, by a quarter at 16.

        Source: Kak & Slaney ch. 5; Wunderlich & Noo, PMB 53:2471 (2008) for fan beams.
        """
        sinogram = lines_of(checked_slice(hu, self), self)
        counts = self.expected_counts(sinogram, dose=dose).clamp(min=1.0)
        variance = line_variance(counts, self.electronic_noise).float()
        ramp, length = _ramp(self)
        squared_kernel = torch.fft.irfft(ramp, length) ** 2
        spectrum = torch.fft.rfft(variance, length) * torch.fft.rfft(squared_kernel)
        filtered = torch.fft.irfft(spectrum, length)[..., : self.n_channels]
        pixel_variance = _back_projection(filtered, self) * (math.pi / self.n_views)
        return pixel_variance.clamp(min=0).sqrt() * (1000 / MU_WATER_PER_MM)


def line_variance(counts: torch.Tensor, electronic_noise: float) -> torch.Tensor:
    """Variance of a line integral that was measured with so many photons: 1/L + sigma_e^2/L^2.

    Args:
        counts: expected photons L, any shape, above 0.
        electronic_noise: sigma_e, in photons.
    """
    return 1 / counts + electronic_noise**2 / counts**2


def _check_pixels(matrix: int, pixel_mm: float | None) -> None:
    if matrix < 1 or not (pixel_mm is None or 0 < pixel_mm < math.inf):
        raise ValueError(f"matrix and pixel_mm must be above 0, got {matrix} and {pixel_mm}")


def check_dose(dose: float) -> None:
    if not 0 < dose <= 1:
        raise ValueError(f"dose is a fraction of the full dose in (0, 1], got {dose}")


def _finite_slice(values: torch.Tensor, scanner: Scanner) -> torch.Tensor:
    if isinstance(values, np.ndarray):
        values = np.ascontiguousarray(values)  # torch takes no flipped views
    image = torch.as_tensor(values, dtype=torch.float32)
    if tuple(image.shape) != (scanner.matrix, scanner.matrix):
        raise ValueError(
            f"this scanner takes slices of {scanner.matrix} x {scanner.matrix}, got {tuple(image.shape)}: "
            "choose Scanner.covering(matrix, pixel_mm) for your slice, which must be square"
        )
    if not torch.isfinite(image).all():
        raise ValueError("the slice holds NaN or infinite HU: replace them (air is -1000) before scanning")
    return image


def _finite_lines(values: torch.Tensor, scanner: Scanner) -> torch.Tensor:
    lines = torch.as_tensor(values, dtype=torch.float32)
    if tuple(lines.shape) != (scanner.n_views, scanner.n_channels):
        raise ValueError(
            f"this scanner has {scanner.n_views} views of {scanner.n_channels} channels, "
            f"got a sinogram of {tuple(lines.shape)}"
        )
    if not torch.isfinite(lines).all():
        raise ValueError("the sinogram holds NaN or infinity: were counts of 0 photons put through a log?")
    return lines


def checked_slice(hu: torch.Tensor, scanner: Scanner, *, whole: bool = False) -> torch.Tensor:
    """A finite slice of the right size; warns the caller of the public function of padding, and where the
    `whole` patient is needed, of one who is cut."""
    slice_hu = _finite_slice(hu, scanner)
    if slice_hu.min() < PADDING_BELOW_HU:
        warnings.warn(
            f"the slice holds values below {PADDING_BELOW_HU:g} HU, which is padding, not matter: they count "
            "as air; clip the slice at -1024 HU first to be rid of them",
            PaddingWarning,
            stacklevel=3,
        )
    if whole and (beyond := _cut_by(slice_hu.detach().flatten(), scanner)):
        warnings.warn(
            f"the patient extends beyond {beyond}: line integrals lack what lies outside. Take a larger "
            "field of view (a larger pixel_mm, and Scanner.covering for the detector)",
            TruncationWarning,
            stacklevel=3,
        )
    return slice_hu


def lines_of(slice_hu: torch.Tensor, scanner: Scanner) -> torch.Tensor:
    return scanner.line_integrals(hu_to_mu(slice_hu.clamp(min=AIR_HU))).clamp(min=0.0)


def _cut_by(values: torch.Tensor, scanner: Scanner) -> str | None:
    """What cuts the patient, if anything: the edge of the slice, or the detector. `values` (N * N,) HU."""
    border, outside_circle = _border(scanner.matrix, scanner.pixel_mm)
    # Round reconstructions hold nothing outside the inscribed circle: there the circle is the edge.
    is_round = bool((values[outside_circle] <= AIR_HU).all())
    along_edge = values[border[int(is_round)]].amin(0)  # (L,) lowest of the outermost 10 mm
    patch = min(max(1, round(20 / scanner.pixel_mm)), len(along_edge))
    around = torch.cat([along_edge, along_edge[:patch]])[None]
    # A table that runs off the slice is a shell of a few mm around foam: it fills no patch of 20 x 10 mm.
    if torch.nn.functional.avg_pool1d(around, patch, stride=1).max() > MATTER_ABOVE_HU:
        return "the edge of the slice"
    reach = scanner.n_channels * scanner.channel_mm / 2
    unseen = values[_distance_mm(scanner.matrix, scanner.pixel_mm) > reach] > MATTER_ABOVE_HU
    if unseen.sum().item() * scanner.pixel_mm**2 > 20 * 10:
        return f"the detector, which reaches {reach:.0f} mm from the middle"
    return None


@lru_cache(maxsize=4)
def _distance_mm(matrix: int, pixel_mm: float) -> torch.Tensor:
    """Distance of every pixel from the isocentre, (N * N,) mm."""
    along = (torch.arange(matrix) - (matrix - 1) / 2) * pixel_mm
    return torch.hypot(along[:, None], along).flatten()


@lru_cache(maxsize=4)
def _border(matrix: int, pixel_mm: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Where to look for a cut patient: flat indices (2, D, L) of the outermost D pixels (10 mm) along the
    edge of the slice and of its inscribed circle; and (N * N,) bool, the pixels outside that circle."""
    half = matrix / 2
    angle = torch.arange(math.ceil(2 * math.pi * half)) / half
    x, y = angle.cos(), angle.sin()
    depth = torch.arange(max(1, round(10 / pixel_mm)))[:, None]
    rings = []
    for norm, margin in ((torch.maximum(x.abs(), y.abs()), 0.5), (torch.ones_like(x), 2.5)):
        radius = (half - margin - depth).clamp(min=0) / norm  # 2 pixels in: a round field's rim is rough
        row, column = ((half - 0.5 + radius * along).round().long().clamp(0, matrix - 1) for along in (y, x))
        rings.append(row * matrix + column)
    return torch.stack(rings), _distance_mm(matrix, pixel_mm) > (half + 2) * pixel_mm


def _back_projection(filtered: torch.Tensor, scanner: Scanner) -> torch.Tensor:
    """FBP's: pi / n_views times the sum over views of the value at each pixel's foot, (N, N)."""
    theorem = slice_theorem(scanner.geometry)
    return Smear.apply(filtered, theorem, theorem.sharp) * (math.pi / (scanner.n_views * theorem.padded))


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
