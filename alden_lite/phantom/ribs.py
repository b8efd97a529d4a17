"""Ribs in three dimensions: from beside the vertebrae along the chest wall, sloping down to the front.

A slice cuts them obliquely, as short bars; they wander forwards along the wall from slice to slice downwards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from alden_lite.phantom.painting import Structure
from alden_lite.phantom.parts import bone
from alden_lite.phantom.patient import Patient
from alden_lite.phantom.shapes import Curve, Loft, Shape, Tube, Union, spline

__all__ = ["on_wall", "ribs"]

SPACING_MM = 25.0  # a vertebra and a disc
THICKNESS_MM = 6.4
ASPECT = 1.8  # height over thickness

# Course of a rib along the wall: angle in degrees around the chest (0 = side, 90 = back, -90 = front) -> how
# far below its head it lies, as a share of its whole drop. It leaves the spine level, falls steepest at the
# side, and its bone ends beside the breastbone.
COURSE = {54: 0.06, 40: 0.16, 25: 0.29, 8: 0.45, -12: 0.63, -30: 0.80, -46: 0.93, -56: 1.0}
# Head and tubercle, before the wall: mm from the middle of the vertebral body (x outwards, y to the back, z).
NECK = [(15.0, 7.0, 1.0), (26.0, 16.0, 1.5), (39.0, 24.5, 0.0)]
SHORT = {12: 0, 11: -30}  # the floating ribs end at these angles (12: at the side, 11: before it)


def ribs(
    patient: Patient,
    wall: Loft,
    *,
    spine_xy: tuple[float, float],
    z_range: tuple[float, float],
    drop_mm: float = 84.0,
    last_head_mm: float | None = None,
    sternum_low_mm: float | None = None,
    sternum_half_mm: float = 17.0,
) -> list[Structure]:
    """Both sides' ribs with their cartilages, in painting order.

    Args:
        wall: the middle of the chest wall, where the ribs' axes run, one closed curve a height.
        spine_xy: centre of the vertebral bodies in mm.
        z_range: every rib that passes these heights is built.
        drop_mm: how much lower its front end lies than its head.
        last_head_mm: height of the twelfth rib's head; None when it lies far below.
        sternum_low_mm: lower end of the breastbone, to which lower cartilages climb (the costal arch);
            None when it lies far below.
        sternum_half_mm: where cartilages end, in mm beside the midline.
    """
    rng, s = patient.rng("ribs"), patient.size
    spacing, drop = SPACING_MM * s, drop_mm * s
    lowest = z_range[0] - 12 * s if last_head_mm is None else last_head_mm
    number_of_lowest = 0 if last_head_mm is None else 12
    first = lowest + (rng.uniform(0, spacing) if last_head_mm is None else 0.0)
    heads = np.arange(first, z_range[1] + drop + 12 * s, spacing)
    sternum = (sternum_half_mm * s, -np.inf if sternum_low_mm is None else sternum_low_mm)
    out: list[Structure] = []
    for step, head in enumerate(heads):
        number = number_of_lowest - step if number_of_lowest else 0
        for side in (-1, 1):
            path = _course(wall, spine_xy, side, head + rng.normal(0, 2), drop * rng.uniform(0.93, 1.07), s)
            keep = SHORT.get(number)
            if keep is not None:
                path = path[: len(NECK) + sum(angle >= keep for angle in COURSE)]
            path[3:-1] += rng.normal(0, 0.8, path[3:-1].shape) * [0.4, 0.4, 1.0]
            radius = THICKNESS_MM / 2 * s * rng.uniform(0.94, 1.06)
            rib = Tube(spline(path, closed=False, per_span=3), radius, ASPECT, smooth=False)
            out += bone(patient, rib, cortex_mm=1.25 * s, cortex=0.85, marrow=0.8)
            if keep is None:
                out += _cartilage(patient, wall, path[-1], side, sternum, rng)
    return out


def _course(
    wall: Loft, spine_xy: tuple[float, float], side: int, head: float, drop: float, scale: float
) -> Curve:
    """Axis of one rib's bone, (K, 3)."""
    neck = np.array(NECK) * scale * (side, 1, 1) + (*spine_xy, head)
    rows = []
    for angle, share in COURSE.items():
        z = head - share * drop
        rows.append((*on_wall(_around(wall, z), angle, side), z))
    return np.vstack([neck, rows])


def _around(wall: Loft, z: float) -> Curve:
    """The wall at a height; beyond its ends, as it is there: a rib may begin above what is drawn."""
    return wall.section(min(max(z, wall.low), wall.high))[0]


def on_wall(curve: Curve, angle: ArrayLike, side: int, offset_mm: ArrayLike = 0.0) -> Curve:
    """Points (K, 2) of a closed curve, seen from its middle at these angles (degrees; 0 = side, 90 = back).

    `side` is +1 for the patient's left, -1 for the right; the offset moves outwards.
    """
    middle = (curve.min(0) + curve.max(0)) / 2
    dx, dy = (curve - middle).T
    angles = np.degrees(np.arctan2(dy, side * dx))
    order = np.argsort(angles)
    radius = np.interp(
        np.asarray(angle, float), angles[order], np.hypot(dx, dy)[order], period=360
    ) + np.asarray(offset_mm)
    turn = np.radians(np.asarray(angle, float))
    return middle + np.stack([side * radius * np.cos(turn), radius * np.sin(turn)], -1)


def _cartilage(
    patient: Patient,
    wall: Loft,
    end: Curve,
    side: int,
    sternum: tuple[float, float],
    rng: np.random.Generator,
) -> list[Structure]:
    """From the bone's end to the breastbone; it calcifies with age, at the rim and in patches."""
    s = patient.size
    half, low = sternum
    goal = max(end[2] + 5 * s, low)
    path = [end]
    for share in (0.35, 0.7, 1.0):
        z = end[2] + (goal - end[2]) * share**1.5
        curve = _around(wall, z)
        x = end[0] + (side * half - end[0]) * share
        front = curve[(curve[:, 1] < curve[:, 1].mean()) & (np.abs(curve[:, 0] - x) < 12 * s)]
        path.append(np.array([x, front[:, 1].mean() if len(front) else end[1], z]))
    tube = Tube(np.array(path), 4.0 * s, 1.5)
    old = float(np.clip((patient.age - 40) / 40, 0, 1))
    shell = Structure(tube, 100 + 160 * old * rng.uniform(0.3, 1), "disc_cartilage", ((10, 2.5),), 0.4)
    core = Structure(tube.inset(1.3 * s), 92, "disc_cartilage", ((10, 2.5),), 0.5)
    out = [shell, core]
    if rng.random() < 1.3 * old:
        line = tube._beads[0]
        spots: list[Shape] = []
        for _ in range(rng.integers(2, 6)):
            k = int(rng.integers(0, len(line) - 3))
            spots.append(Tube(line[k : k + 3] + rng.normal(0, 1.2, 3), rng.uniform(0.7, 1.7) * s, 1.4))
        out.append(
            Structure(Union(spots), rng.uniform(250, 520), None, ((40, 2.5),), 0.6, ("disc_cartilage",))
        )
    return out
