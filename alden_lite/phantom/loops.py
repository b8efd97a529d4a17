"""Bowel: tubes that wind through whatever room the other organs leave, and what is in them.

No table can hold six metres of small bowel that never cross themselves, so they are grown: a walk in three
dimensions that turns away from obstacles, from earlier loops and from its own past.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt

from alden_lite.phantom.painting import Structure
from alden_lite.phantom.parts import filling
from alden_lite.phantom.patient import Patient
from alden_lite.phantom.shapes import Curve, Shape, Tube, Union, spline

__all__ = ["Room", "hollow", "resampled", "winding"]

GRID_MM = 4.0
STEP_MM = 7.0
TRIES = 40


def resampled(rows: ArrayLike, step_mm: float) -> np.ndarray:
    """Rows (x, y, z, ...) along a smooth curve through the given ones, about a step apart."""
    fine = spline(rows, closed=False, per_span=16)
    along = np.r_[0, np.cumsum(np.linalg.norm(np.diff(fine[:, :3], axis=0), axis=1))]
    where = np.linspace(0, along[-1], max(int(along[-1] / step_mm), 2) + 1)
    return np.column_stack([np.interp(where, along, column) for column in fine.T])


def hollow(
    patient: Patient,
    rng: np.random.Generator,
    tubes: Sequence[Tube],
    *,
    contents: Mapping[str, float],
    stretch_mm: float,
    wall_mm: float,
    inside: tuple[str, ...],
) -> list[Structure]:
    """Bowel in painting order: walls, then fluid, then gas, so that the stretches of a tube share a lumen.

    Args:
        tubes: with a radius a point and `smooth=False`.
        contents: `collapsed` or a name of `CONTENTS` -> how often it fills a stretch.
        stretch_mm: mean length over which the content stays the same; infinite for all of a tube.
        inside: labels that the wall may replace.
    """
    wall, lumen_of = patient.hu["gut_wall"], ("bowel",)
    fluids: list[Structure] = []
    gases: list[Structure] = []
    names, chances = list(contents), np.array(list(contents.values()))
    for piece in (piece for tube in tubes for piece in _stretches(tube, rng, stretch_mm)):
        content = str(rng.choice(names, p=chances / chances.sum()))
        if content == "collapsed":  # feathery: the folds of the lining touch
            core = piece.inset(2.2 * wall_mm)
            fluids.append(Structure(core, 0.6 * wall, "bowel", ((14, 1.6),), 0.8, lumen_of))
            continue
        y, r = np.asarray(piece.path)[:, 1], np.asarray(piece.radius)
        ends = (float((y - r).min()), float((y + r).max()))
        lumen = piece.inset(wall_mm)
        fluid, *gas = filling(rng, lumen, content, label="bowel", y_range=ends, inside=lumen_of)
        fluids.append(fluid)
        gases += gas
    return [Structure(Union(tubes), wall, "bowel", ((8, 2.5),), 0.35, inside), *fluids, *gases]


def _stretches(tube: Tube, rng: np.random.Generator, length_mm: float) -> Iterator[Tube]:
    path, radius = np.asarray(tube.path), np.asarray(tube.radius)
    along = np.r_[0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))]
    first = 0
    while first < len(path) - 1:
        last = int(np.searchsorted(along, along[first] + length_mm * rng.uniform(0.6, 1.5)))
        last = min(max(last, first + 1), len(path) - 1)
        yield Tube(path[first : last + 1], radius[first : last + 1], smooth=tube.smooth)
        first = last


@dataclass(frozen=True)
class Room:
    """Distance in mm to the nearest obstacle on a grid (Z, Y, X) of 4 mm from `origin` (x, y, z) on."""

    origin: Curve
    distance_mm: np.ndarray

    @classmethod
    def between(
        cls,
        walls: Shape,
        obstacles: Sequence[Shape],
        *,
        low: ArrayLike,
        high: ArrayLike,
        where: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    ) -> Room:
        """The room inside walls and outside obstacles, in a box from `low` to `high` (x, y, z).

        `where` takes broadcastable x, y, z in mm and keeps the room where it is true.
        """
        x, y, z = (np.arange(a, b, GRID_MM) for a, b in zip(np.asarray(low), np.asarray(high), strict=True))
        free = np.zeros((len(z), len(y), len(x)), bool)
        for k, height in enumerate(z):
            image = Image.new("L", (len(x), len(y)), 0)
            pencil = ImageDraw.Draw(image)
            for value, shapes in ((255, [walls]), (0, obstacles)):
                for polygon in (p for shape in shapes for p in shape.section(float(height))):
                    pencil.polygon([(u, v) for u, v in (polygon - (x[0], y[0])) / GRID_MM], fill=value)
            free[k] = np.asarray(image) > 0
        free &= where(x, y[:, None], z[:, None, None])
        return cls(np.array([x[0], y[0], z[0]]), distance_transform_edt(free, GRID_MM))

    def clearance(self, points: Curve) -> np.ndarray:
        """Distance to the nearest obstacle at points (K, 3); 0 outside the grid."""
        index = np.round((points - self.origin) / GRID_MM).astype(int)[:, ::-1]
        within = ((index >= 0) & (index < self.distance_mm.shape)).all(1)
        index = np.clip(index, 0, np.array(self.distance_mm.shape) - 1)
        return np.where(within, self.distance_mm[tuple(index.T)], 0.0)

    def starts(self, clearance_mm: float) -> Curve:
        """All grid points (K, 3) with more clearance than that."""
        return self.origin + np.argwhere(self.distance_mm > clearance_mm)[:, ::-1] * GRID_MM


def winding(
    rng: np.random.Generator, room: Room, *, radius: tuple[float, float], gap_mm: float, longest: int = 60
) -> Iterator[Tube]:
    """Tubes that keep a gap to obstacles, to each other and to themselves, till the room is full."""
    placed = np.zeros((0, 4))

    def fits(points: Curve, r: float, others: np.ndarray) -> np.ndarray:
        clear = room.clearance(points) > r
        distance = np.linalg.norm(points[:, None] - others[None, :, :3], axis=2)
        result: np.ndarray = clear & (distance > r + others[:, 3] + gap_mm).all(1)
        return result

    starts = room.starts(radius[0])
    rng.shuffle(starts)
    for start in starts[:1500]:
        r = rng.uniform(*radius)
        if not fits(start[None], r, placed)[0]:
            continue
        rows, heading = [np.r_[start, r]], rng.normal(0, 1, 3)
        while len(rows) < longest:
            r = float(np.clip(r + rng.normal(0, 0.35), *radius))
            heading /= np.linalg.norm(heading)
            tries = np.vstack(
                [heading + rng.normal(0, 0.5, (TRIES // 2, 3)), rng.normal(0, 1, (TRIES // 2, 3))]
            )
            tries /= np.linalg.norm(tries, axis=1, keepdims=True)
            past = rows[
                : max(len(rows) - math.ceil(2.6 * r / STEP_MM) - 1, 0)
            ]  # its end is in reach of itself
            good = fits(rows[-1][:3] + STEP_MM * tries, r, np.vstack([placed, *past]))
            if not good.any():
                if r <= 1.1 * radius[0]:
                    break
                narrower = max(0.85 * r, radius[0])
                good, r = fits(rows[-1][:3] + STEP_MM * tries, narrower, np.vstack([placed, *past])), narrower
                if not good.any():
                    break
            smoothness = tries @ heading - 0.6 * rng.random(TRIES)
            heading = tries[np.argmax(np.where(good, smoothness, -9.0))]
            rows.append(np.r_[rows[-1][:3] + STEP_MM * heading, r])
        if len(rows) >= 4:
            placed = np.vstack([placed, *rows])
            both = np.array(rows)
            yield Tube(both[:, :3], both[:, 3], smooth=False)
