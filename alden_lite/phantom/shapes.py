"""Solids that a slice can cut: everything in a phantom is one of three.

A `Loft` is a closed curve that changes along z (an organ), a `Tube` a sphere that runs along a path
(a vessel, a rib, a loop of bowel), an `Ellipsoid` what it says. Each knows its `section(z)`: closed polygons
in mm, x to the patient's left, y to the back, z to the head. Sections of one solid at neighbouring heights
are neighbours, so slices stack up to a volume.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator

__all__ = ["Ellipsoid", "Loft", "Shape", "Tube", "Union", "ellipse", "inset", "mirrored", "spline", "stadium"]

Curve = np.ndarray
"""Points (K, 2) or (K, 3) in mm."""


class Shape(Protocol):
    """What the painter needs of a solid."""

    def section(self, z_mm: float) -> list[Curve]:
        """Closed polygons (K, 2) in mm whose union is the cut at this height; none when it misses."""
        ...

    def inset(self, depth_mm: float) -> Shape:
        """The solid shrunk by a depth on all sides (negative: grown)."""
        ...


def ellipse(
    x: float, y: float, a: float, b: float, angle: float = 0.0, *, power: float = 2.0, n: int = 48
) -> Curve:
    """Ellipse, or with `power` above 2 a rounder rectangle: (n, 2) points around (x, y), angle in radians."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    cos, sin = np.cos(t), np.sin(t)
    u = a * np.sign(cos) * np.abs(cos) ** (2 / power)
    v = b * np.sign(sin) * np.abs(sin) ** (2 / power)
    return np.stack([x + u * np.cos(angle) - v * np.sin(angle), y + u * np.sin(angle) + v * np.cos(angle)], 1)


def spline(points: ArrayLike, *, closed: bool = True, per_span: int = 8) -> Curve:
    """Catmull-Rom curve through control points, (K, D) to about (K * per_span, D)."""
    p = np.asarray(points, float)
    if closed:
        a, b, c, d = np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)
    else:
        ends = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
        a, b, c, d = ends[:-3], ends[1:-2], ends[2:-1], ends[3:]
    t = np.linspace(0, 1, per_span, endpoint=False)[None, :, None]
    a, b, c, d = (q[:, None] for q in (a, b, c, d))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    curve = curve.reshape(-1, p.shape[1])
    return curve if closed else np.vstack([curve, p[-1:]])


def inset(curve: Curve, depth_mm: float) -> Curve:
    """A closed curve moved inwards along its normals (negative: outwards)."""
    round_trip = np.concatenate([curve[-1:], curve, curve[:1]])
    tangent = round_trip[2:] - round_trip[:-2]
    x, y = curve.T
    area = x @ round_trip[2:, 1] - round_trip[2:, 0] @ y  # twice the area; its sign is the turn's
    depth = depth_mm * np.sign(area) / (np.hypot(tangent[:, 0], tangent[:, 1]) + 1e-9)
    return np.column_stack([x - tangent[:, 1] * depth, y + tangent[:, 0] * depth])


def stadium(path: ArrayLike, width: ArrayLike) -> Curve:
    """Outline of a ribbon: path (K, 2), half-width in mm, one or (K,); the ends are round."""
    p = np.asarray(path, float)
    half = np.broadcast_to(np.asarray(width, float), (len(p),))
    tangent = np.gradient(p, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
    turn = np.linspace(0.3, math.pi - 0.3, 5)[:, None]
    last = p[-1] + half[-1] * (tangent[-1] * np.sin(turn) + normal[-1] * np.cos(turn))
    first = p[0] + half[0] * (-tangent[0] * np.sin(turn) - normal[0] * np.cos(turn))
    side = normal * half[:, None]
    return np.vstack([p + side, last, (p - side)[::-1], first])


class Loft:
    """A closed curve that changes along z: control points at a few heights, interpolated in between.

    Args:
        sections: height in mm -> control points (K, 2), as many and in the same order at all heights.
            A single height means the same curve everywhere.
        extent_mm: (lowest, highest) z; from the first to the last height when None, endless for one height.
        cap_mm: the curve shrinks to nothing over so many mm at both ends, as an ellipsoid does; 0 cuts flat.
            A pair names (lower, upper).
        dense: the points are the curve itself, not control points of a spline.
    """

    def __init__(
        self,
        sections: Mapping[Any, Any],
        *,
        extent_mm: tuple[float, float] | None = None,
        cap_mm: float | tuple[float, float] = 0.0,
        dense: bool = False,
    ) -> None:
        heights: list[float] = sorted(sections)
        points = np.stack([np.asarray(sections[z], float) for z in heights])  # (H, K, 2)
        self.heights, self.points, self.dense = heights, points, dense
        self.low, self.high = extent_mm or (
            (heights[0], heights[-1]) if len(heights) > 1 else (-math.inf, math.inf)
        )
        self.caps = cap_mm if isinstance(cap_mm, tuple) else (cap_mm, cap_mm)
        self.depth = 0.0
        self._between = PchipInterpolator(heights, points) if len(heights) > 1 else None

    def section(self, z_mm: float) -> list[Curve]:
        low, high = self.low + self.depth, self.high - self.depth
        if not low <= z_mm <= high:
            return []
        z = min(max(z_mm, self.heights[0]), self.heights[-1])
        points = self.points[0] if self._between is None else self._between(z)
        curve = points if self.dense else spline(points)
        size = min(_cap(z_mm - low, self.caps[0]), _cap(high - z_mm, self.caps[1]))
        if size < 1:
            centre = curve.mean(0)
            curve = centre + (curve - centre) * size
        return [inset(curve, self.depth) if self.depth else curve]

    def inset(self, depth_mm: float) -> Loft:
        smaller = Loft.__new__(Loft)
        smaller.__dict__.update(self.__dict__, depth=self.depth + depth_mm)
        return smaller


def _cap(distance: float, cap: float) -> float:
    """Relative size at a distance from the end of a solid whose end is half an ellipse `cap` mm long."""
    if cap <= 0 or distance >= cap:
        return 1.0
    return math.sqrt(max(1 - (1 - distance / cap) ** 2, 0.0))


@dataclass(frozen=True, eq=False)
class Tube:
    """A sphere run along a smooth path: path (K, 3) in mm, radius in mm (one or one a point).

    `aspect` stretches the sphere along z (a rib is higher than thick). `smooth=False` keeps the corners.
    """

    path: Any
    radius: Any
    aspect: float = 1.0
    smooth: bool = True

    @cached_property
    def _beads(self) -> tuple[Curve, np.ndarray]:
        """Centres (M, 3) and radii (M,) of spheres set so closely that their chain is the tube."""
        path = np.asarray(self.path, float)
        radius = np.broadcast_to(np.asarray(self.radius, float), (len(path),))
        both = np.column_stack([path, radius])
        if self.smooth and len(both) > 2:
            both = spline(both, closed=False, per_span=8)
        return both[:, :3], np.maximum(both[:, 3], 0.0)

    def section(self, z_mm: float) -> list[Curve]:
        centre, radius = self._beads
        low, high = np.minimum(centre[:-1, 2], centre[1:, 2]), np.maximum(centre[:-1, 2], centre[1:, 2])
        reach = self.aspect * np.maximum(radius[:-1], radius[1:])
        spans = np.flatnonzero((low - reach < z_mm) & (z_mm < high + reach))
        polygons: list[Curve] = []
        for i in spans:
            polygons += self._span(centre[i : i + 2], radius[i : i + 2], z_mm)
        return polygons

    def _span(self, ends: Curve, radius: np.ndarray, z_mm: float) -> list[Curve]:
        """The cut of one short stretch: disks along it and what lies between them."""
        length = float(np.linalg.norm(ends[1] - ends[0]))
        n = 2 + math.ceil(length / max(0.7 * float(radius.max()), 0.3))
        rise = ends[1, 2] - ends[0, 2]
        widest = np.clip((z_mm - ends[0, 2]) / rise, 0, 1) if rise else 0.0  # where the axis is nearest
        t = np.sort(np.append(np.linspace(0, 1, n), widest))
        beads = ends[0] + (ends[1] - ends[0]) * t[:, None]
        across = (radius[0] + (radius[1] - radius[0]) * t) ** 2 - ((beads[:, 2] - z_mm) / self.aspect) ** 2
        cut = across > 0
        if not cut.any():
            return []
        centres, widths = beads[cut, :2], np.sqrt(across[cut])
        if len(centres) < 2 or np.hypot(*(centres[-1] - centres[0])) < 1e-3:
            return [_disk(centres[int(np.argmax(widths))], widths.max())]
        return [_disk(centres[0], widths[0]), _disk(centres[-1], widths[-1]), stadium(centres, widths)]

    def inset(self, depth_mm: float) -> Tube:
        return replace(self, radius=np.maximum(np.asarray(self.radius, float) - depth_mm, 0.0))


DISK = ellipse(0, 0, 1.0083, 1.0083, n=20)  # as large as the unit circle; corners on it would lose 1.6 %


def _disk(centre: Curve, radius: float) -> Curve:
    return centre + radius * DISK


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """Centre (x, y, z) and half-axes (a, b, c) in mm; `angle` turns it about z, in radians."""

    centre: tuple[float, float, float]
    half_axes: tuple[float, float, float]
    angle: float = 0.0
    power: float = 2.0

    def section(self, z_mm: float) -> list[Curve]:
        a, b, c = self.half_axes
        if min(a, b, c) <= 0 or abs(z_mm - self.centre[2]) >= c:
            return []
        size = math.sqrt(1 - ((z_mm - self.centre[2]) / c) ** 2)
        return [ellipse(*self.centre[:2], a * size, b * size, self.angle, power=self.power)]

    def inset(self, depth_mm: float) -> Ellipsoid:
        a, b, c = (side - depth_mm for side in self.half_axes)
        return replace(self, half_axes=(a, b, c))


@dataclass(frozen=True, eq=False)
class Union:
    """Several solids of one filling, painted at once: a tree of vessels, the strands in fat."""

    parts: Sequence[Shape]

    @cached_property
    def _heights(self) -> np.ndarray:
        """Lowest and highest z of each part, (K, 2): hundreds of tubes miss a slice, and need no look."""
        return np.array([_reach(part) for part in self.parts]).reshape(-1, 2)

    def section(self, z_mm: float) -> list[Curve]:
        near = np.flatnonzero((self._heights[:, 0] <= z_mm) & (z_mm <= self._heights[:, 1])).tolist()
        return [polygon for i in near for polygon in self.parts[i].section(z_mm)]

    def inset(self, depth_mm: float) -> Union:
        return Union([part.inset(depth_mm) for part in self.parts])


def _reach(part: Shape) -> tuple[float, float]:
    if not isinstance(part, Tube):
        return -math.inf, math.inf
    centre, radius = part._beads
    return (centre[:, 2] - part.aspect * radius).min(), (centre[:, 2] + part.aspect * radius).max()


def mirrored(points: Sequence[tuple[float, ...]] | np.ndarray, side: int) -> Curve:
    """Points written for the patient's left (x > 0), for side +1, or their mirror image, for side -1."""
    p = np.array(points, float)
    p[:, 0] *= side
    return p
