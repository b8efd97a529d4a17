"""From solids to a slice: coverage at sub-pixel accuracy, painted in order, HU and label together.

The painter knows no anatomy. A structure is a solid, what it is filled with, and what it may replace; later
structures cover earlier ones. An edge pixel is a mixture, as in a scanner (partial volume), and takes the
label of whatever fills more than half of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.fft
from PIL import Image, ImageDraw, ImageFilter

from alden_lite.phantom.labels import LABEL_ID
from alden_lite.phantom.shapes import Curve, Shape, inset
from alden_lite.physics.hounsfield import AIR_HU

__all__ = ["Grain", "Structure", "Warp", "paint"]

SUPERSAMPLING = 4
OUTLINE = 0.4  # Pillow fills a polygon and draws its outline: so much too wide, in fine pixels
GRAIN_MM = (1.6, 2.5, 4.0, 8.0)
"""Correlation lengths at hand: four fields a slice, shared by all structures."""

Grain = tuple[float, float]
"""(standard deviation in HU, correlation length in mm) of a random texture: a tissue is never flat."""


@dataclass(frozen=True, eq=False)
class Structure:
    """One solid and its filling.

    `label` None colours without relabelling (a septum in fat). `inside` names the labels it may replace,
    all when empty. `blur_mm` softens the edge. `in_front_of_mm` keeps only what lies in front of this y
    (above it, for a patient on the back): gas over fluid. `slope_hu_per_mm` adds a gradient
    in y (dependent lung).
    """

    shape: Shape
    hu: float
    label: str | None
    grain: tuple[Grain, ...] = ()
    blur_mm: float = 0.0
    inside: tuple[str, ...] = ()
    opacity: float = 1.0
    in_front_of_mm: float | None = None
    slope_hu_per_mm: float = 0.0
    warped: bool = True

    def __post_init__(self) -> None:
        unknown = {name for name in (self.label, *self.inside) if name is not None} - LABEL_ID.keys()
        if unknown:
            raise ValueError(f"unknown label {sorted(unknown)}: see phantom.LABELS")


@dataclass(frozen=True)
class Warp:
    """One smooth random deformation a patient: wavelengths of 30 cm and more, a small turn, an offset.

    Being smooth in z too, it leaves neighbouring slices neighbours.
    """

    wave: np.ndarray  # (K, 3) radians a mm
    phase: np.ndarray  # (K, 2)
    amplitude: np.ndarray  # (K, 2) mm
    turn: float
    offset: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator, *, amplitude_mm: float = 3.5, offset_mm: float = 4.0) -> Warp:
        k = 8
        return cls(
            wave=rng.normal(0, 0.012, (k, 3)),
            phase=rng.uniform(0, 2 * np.pi, (k, 2)),
            amplitude=rng.normal(0, amplitude_mm / math.sqrt(k), (k, 2)),
            turn=float(rng.normal(0, 0.025)),
            offset=(float(rng.normal(0, offset_mm)), float(rng.normal(0, offset_mm))),
        )

    def __call__(self, curve: Curve, z_mm: float) -> Curve:
        angle = curve @ self.wave[:, :2].T + z_mm * self.wave[:, 2]  # (N, K)
        swing = np.sin(angle[:, :, None] + self.phase) * self.amplitude  # (N, K, 2)
        moved = curve + swing.sum(1)
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return moved @ np.array([[cos, sin], [-sin, cos]]) + self.offset


def paint(
    structures: Sequence[Structure],
    *,
    z_mm: float,
    matrix: int,
    pixel_mm: float,
    warp: Warp,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """One slice: HU (N, N) float32 and labels (N, N) uint8; the isocentre lies between the middle pixels."""
    canvas = _Canvas(matrix, pixel_mm, z_mm, warp, seed)
    for structure in structures:
        canvas.add(structure)
    return canvas.hu, canvas.labels


@dataclass
class _Canvas:
    n: int
    pixel_mm: float
    z_mm: float
    warp: Warp
    seed: int
    grains: dict[float, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hu = np.full((self.n, self.n), AIR_HU, np.float32)
        self.labels = np.zeros((self.n, self.n), np.uint8)

    def add(self, s: Structure) -> None:
        polygons = s.shape.section(self.z_mm)
        if s.in_front_of_mm is not None:
            polygons = [_in_front(p, s.in_front_of_mm) for p in polygons if p[:, 1].min() < s.in_front_of_mm]
        drawn = self.coverage(polygons, s.blur_mm, s.warped)
        if drawn is None:
            return
        box, cover = drawn
        if s.inside:
            cover = cover * np.isin(self.labels[box], [LABEL_ID[name] for name in s.inside])
        value: np.ndarray = np.full(cover.shape, s.hu, np.float32)
        if s.slope_hu_per_mm:
            y = (np.arange(box[0].start, box[0].stop) - (self.n - 1) / 2) * self.pixel_mm
            value = value + (s.slope_hu_per_mm * y[:, None]).astype(np.float32)
        for deviation, length in s.grain:
            value = value + np.float32(deviation) * self.grain(length)[box]
        self.hu[box] += s.opacity * cover * (value - self.hu[box])
        if s.label is not None:
            self.labels[box][cover > 0.5] = LABEL_ID[s.label]

    def coverage(
        self, polygons: list[Curve], blur_mm: float, warped: bool
    ) -> tuple[tuple[slice, slice], np.ndarray] | None:
        """Share of every pixel that the polygons' union covers, in the box around them."""
        if not polygons:
            return None
        together = np.concatenate(polygons)
        together = (self.warp(together, self.z_mm) if warped else together) / self.pixel_mm + self.n / 2
        margin = 2 + 3 * blur_mm / self.pixel_mm
        x0, y0 = np.maximum(np.floor(together.min(0) - margin), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(together.max(0) + margin), self.n).astype(int)
        if x1 <= x0 or y1 <= y0:
            return None
        image = Image.new("L", ((x1 - x0) * SUPERSAMPLING, (y1 - y0) * SUPERSAMPLING), 0)
        pencil = ImageDraw.Draw(image)
        together = (together - (x0, y0)) * SUPERSAMPLING
        for corners in np.split(together, np.cumsum([len(p) for p in polygons[:-1]])):
            pencil.polygon(inset(corners, OUTLINE).ravel().tolist(), fill=255)
        image = image.reduce(SUPERSAMPLING)
        if blur_mm:
            image = image.filter(ImageFilter.GaussianBlur(blur_mm / self.pixel_mm))
        return (slice(y0, y1), slice(x0, x1)), np.asarray(image, np.float32) / 255

    def grain(self, length_mm: float) -> np.ndarray:
        """Unit-variance Gaussian field (N, N), correlated over about `length_mm` in x, y and z."""
        length = min(GRAIN_MM, key=lambda at_hand: abs(math.log(at_hand / length_mm)))
        if length not in self.grains:
            step = length / 2  # planes of white noise stand at multiples of it; a slice mixes those near it
            nearest = round(self.z_mm / step)
            mixture = np.zeros((self.n, self.n), np.float32)
            power = 0.0
            for k in range(nearest - 2, nearest + 3):
                weight = math.exp(-(((k * step - self.z_mm) / length) ** 2) * 2)
                rng = np.random.default_rng([self.seed, GRAIN_MM.index(length), k + 1_000_000])
                mixture += np.float32(weight) * rng.standard_normal((self.n, self.n), dtype=np.float32)
                power += weight**2
            f = np.fft.fftfreq(self.n, self.pixel_mm)
            across = np.exp(-0.5 * (math.pi * length * f) ** 2)  # separable: a Gaussian along x, one along y
            smooth = (across[:, None] * across[: self.n // 2 + 1]).astype(np.float32)
            field = scipy.fft.irfft2(scipy.fft.rfft2(mixture) * smooth, (self.n, self.n))
            variance = power * (across**2).mean() ** 2
            self.grains[length] = (field / math.sqrt(variance)).astype(np.float32)
        return self.grains[length]


def _in_front(polygon: Curve, y_mm: float) -> Curve:
    return np.column_stack([polygon[:, 0], np.minimum(polygon[:, 1], y_mm)])
