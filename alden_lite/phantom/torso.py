"""The trunk of the abdomen: skin, fat, muscles, diaphragm, lung bases; how organs are fitted to a patient.

Tables are in mm of an average adult: x to the left, y to the back, z to the head; muscles are the left ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from alden_lite.phantom.loops import resampled
from alden_lite.phantom.painting import Grain, Structure
from alden_lite.phantom.parts import FAT, MUSCLE, fat_septa, jitter, outline, under_the_skin, vessel_tree
from alden_lite.phantom.patient import Patient
from alden_lite.phantom.shapes import (
    Curve,
    Loft,
    Shape,
    Tube,
    Union,
    ellipse,
    inset,
    mirrored,
    spline,
    stadium,
)

__all__ = ["BLOOD", "Course", "EXTENT_MM", "SPINE_Y", "Sections", "Torso", "crura", "rib_course", "trunk"]

EXTENT_MM = (-80.0, 80.0)
SPINE_Y = 24.0  # centre of the vertebral bodies
BACK_Y = 98.0  # surface of the muscles of the back
BLOOD: tuple[Grain, ...] = ((4.0, 4.0),)

Sections = Mapping[int, Sequence[tuple[float, float]]]
"""Height -> closed curve of control points (x, y)."""
Course = Sequence[tuple[float, float, float, float]]
"""Points (x, y, z) of a tube and its radius there."""

# fmt: off
# height: half-width and front of the cavity, thickness of the muscles, fat in front, at the side and behind
# (relative to the patient's), room that the lung takes from the cavity at the side and behind
WALL: Mapping[int, tuple[float, ...]] = {
    100: (122, 80, 12, 0.7, 0.6, 0.7, 26, 54), 60: (134, 89, 12, 0.8, 0.62, 0.75, 9, 30),
    30: (137, 92, 12, 0.9, 0.66, 0.85, 2, 12), 5: (133, 92, 11, 0.95, 0.72, 0.95, 0, 0),
    -40: (126, 89, 10, 1.05, 0.8, 1.05, 0, 0), -100: (129, 84, 10, 1.15, 0.85, 1.15, 0, 0),
}
MEDIASTINUM: Sections = {  # the fat between the lungs, wide where they end
    4: [(-66, 60), (-66, 10), (-40, -20), (6, -26), (48, -20), (70, 10), (70, 60)],
    28: [(-38, 50), (-38, 8), (-22, -14), (6, -22), (30, -14), (40, 8), (40, 50)],
    60: [(-19, 30), (-22, 6), (-16, -13), (6, -20), (22, -14), (25, 4), (24, 30)],
}
ERECTOR: Sections = {
    100: [(8, 52), (14, 46), (30, 44), (48, 47), (58, 56), (53, 68), (36, 80), (15, 86), (8, 80)],
    0: [(8, 50), (16, 45), (34, 42), (54, 46), (65, 57), (62, 71), (44, 84), (17, 90), (8, 84)],
    -100: [(8, 50), (16, 46), (34, 44), (54, 50), (63, 60), (60, 74), (44, 86), (17, 91), (8, 85)],
}
PSOAS: Mapping[int, tuple[float, float, float, float, float]] = {  # centre, half-axes, angle
    24: (27, 24, 3, 5, 0.2), 0: (32, 24, 6, 11, 0.3), -40: (38, 22, 11, 17, 0.35),
    -100: (46, 18, 18, 21, 0.4),
}
QUADRATUS: Sections = {
    40: [(46, 42), (54, 40), (62, 44), (64, 48), (56, 49), (47, 47)],
    0: [(45, 41), (56, 37), (70, 43), (76, 51), (66, 53), (49, 48)],
    -100: [(47, 44), (60, 36), (80, 43), (90, 54), (74, 58), (52, 53)],
}
RECTUS: Sequence[tuple[float, float]] = [(4, 1), (26, 0), (50, 2.5), (61, 5), (62, 8.5), (48, 10.5),
                                         (26, 10), (5, 8)]  # x, and y below the wall's front
CRUS: Sections = {  # the right one, from before the aorta to the spine
    70: [(7, -16), (-6, -13), (-17, -1), (-21, 14)],
    35: [(5, -18), (-8, -12), (-16, 0), (-21, 14)],
    18: [(-3, -13), (-9, -7), (-15, 2), (-20, 14)],
    -30: [(-7, -2), (-10, 1), (-13, 5), (-16, 10)],
}

# fmt: on


@dataclass(frozen=True)
class Torso:
    """The trunk of a patient, and the way from the tables' millimetres to the patient's.

    `muscle` is the surface of the muscles under the fat, `chest` the room inside the wall, `cavity` what the
    lungs leave of it.
    """

    patient: Patient
    build: tuple[float, float]  # width and depth of the belly, relative to the average
    body: Loft
    muscle: Loft
    chest: Loft
    cavity: Loft

    @classmethod
    def of(cls, patient: Patient) -> Torso:
        """The trunk of this patient."""
        rng, s = patient.rng("torso"), patient.size
        wide = float(np.clip(rng.normal(0, 0.045), -0.09, 0.09))
        build, power = (1 + wide, 1 - 0.7 * wide), rng.uniform(2.05, 2.5)
        asymmetry = rng.normal(0, 0.009, 3), rng.uniform(0, 2 * np.pi, 3)
        curves: list[dict[float, Curve]] = [{}, {}, {}, {}]
        body, muscle, chest, cavity = curves
        for z, (half_width, front, thick, *fat, lung_side, lung_back) in WALL.items():
            (a, _), (_, top) = np.abs(_fit(patient, build, [(half_width, 0), (0, -front)]))
            ring = outline(a + thick * s, top + thick * s, BACK_Y * s, power=power, groove=4.0)
            t = np.linspace(0, 2 * np.pi, len(ring), endpoint=False)
            for k, (wave, phase) in enumerate(zip(*asymmetry, strict=True), start=2):
                ring = ring * (1 + wave * np.cos(k * t + phase))[:, None]
            muscle[z] = ring
            body[z] = (
                ring + (ring - inset(ring, 1.0)) * (patient.fat_mm * _fat_profile(ring, *fat) + 1.8)[:, None]
            )
            inner = inset(ring, thick * s)
            chest[z], cavity[z] = _room(inner, s, 0, 0), _room(inner, s, lung_side, lung_back)
        return cls(patient, build, *(Loft(sections, dense=True) for sections in curves))

    def at(self, points: ArrayLike) -> Curve:
        """Points (K, 2 or more) of an average adult, in this patient: x and y fitted, other columns kept."""
        return _fit(self.patient, self.build, points)

    def tube(
        self, rows: ArrayLike, rng: np.random.Generator, *, shift: ArrayLike = 0.0, mm: float = 1.5
    ) -> Tube:
        """A tube from a `Course`, moved by a shift (x, y, z) and made irregular by so many mm."""
        course = np.asarray(rows, float)
        path = self.at(course[:, :3] + np.asarray(shift))
        path[1:-1] = jitter(rng, path[1:-1], mm)
        radius = course[:, 3] * self.patient.size * np.exp(rng.normal(0, 0.05, len(course)))
        fine = resampled(np.column_stack([path, radius]), float(np.clip(radius.min(), 3.0, 6.0)))
        return Tube(fine[:, :3], fine[:, 3], smooth=False)

    def organ(
        self,
        rows: Sections,
        rng: np.random.Generator,
        *,
        cap_mm: float | tuple[float, float],
        mm: float = 2.2,
    ) -> Loft:
        """A solid from a table, irregular by so many mm, held back by the cavity's wall."""
        common = rng.normal(0, mm, (len(next(iter(rows.values()))), 2))  # the same change at all heights
        sections = {}
        for z, points in rows.items():
            curve = spline(jitter(rng, self.at(points), 0.5 * mm) + common)
            sections[float(z)] = _inside(curve, self.cavity.section(z)[0], gap_mm=1.2)
        return Loft(sections, cap_mm=cap_mm, dense=True)


def _fit(patient: Patient, build: tuple[float, float], points: ArrayLike) -> Curve:
    p = np.array(points, float)
    p[:, 0] *= patient.size * build[0] * (1 + 0.3 * (patient.visceral - 1))
    depth = np.where(p[:, 1] < SPINE_Y, patient.visceral * build[1], 1.0)
    p[:, 1] = patient.size * (SPINE_Y + (p[:, 1] - SPINE_Y) * depth)
    return p


def _fat_profile(ring: Curve, front: float, side: float, back: float) -> np.ndarray:
    """Thickness of the fat under the skin all round, relative to the patient's."""
    share = np.abs(ring / np.abs(ring).max(0)) ** 2
    profile = share[:, 0] * side + share[:, 1] * np.where(ring[:, 1] < 0, front, back)
    return np.asarray(profile / share.sum(1))


def _room(ring: Curve, s: float, side: float, back: float) -> Curve:
    """The room inside a wall: the spine bulges in from behind, the lungs (mm at side and back) from above."""
    x, y = ring.T
    back = back * (1 + 0.1 * np.tanh(x / 30))  # the left dome is lower
    bulge = np.exp(-((np.abs(x) / (40 * s)) ** 3))
    rise = 44 - back - (64 - back + 20 * np.minimum(back / 30, 1)) * bulge
    limit = s * (SPINE_Y + rise - 20 * (np.abs(x) / x.max()) ** 4)
    x = x * (1 - side * s / x.max() * np.clip((y + 75 * s) / (50 * s), 0, 1))
    soft = 5 * s  # the smaller of both, with round corners
    return np.column_stack([x, -soft * np.logaddexp(-y / soft, -limit / soft)])


def _inside(curve: Curve, wall: Curve, gap_mm: float) -> Curve:
    """The curve with every point at least a gap inside the wall, along rays from the middle of its half."""
    edge = wall[:, 0].max() if curve[:, 0].mean() > 0 else wall[:, 0].min()
    centre = np.array([0.45 * edge, wall[:, 1].mean()])
    ray, rim = curve - centre, wall - centre
    angle = np.arctan2(rim[:, 1], rim[:, 0])
    order = np.argsort(angle)
    reach = np.interp(
        np.arctan2(ray[:, 1], ray[:, 0]), angle[order], np.hypot(*rim[order].T), period=2 * np.pi
    )
    length = np.hypot(*ray.T)
    shrink = np.minimum(length, reach - gap_mm) / np.maximum(length, 1e-6)
    return np.asarray(centre + ray * shrink[:, None])


def _at_all_heights(loft: Loft) -> dict[float, Curve]:
    return dict(zip(loft.heights, loft.points, strict=True))


def rib_course(torso: Torso) -> Loft:
    """The middle of the chest wall, where ribs run; their cartilages lie behind the rectus."""
    ring = {}
    for z, curve in _at_all_heights(torso.muscle).items():
        in_front = np.clip(-curve / np.abs(curve).max(0), 0, 1)[:, 1:]
        ring[z] = curve + (inset(curve, 1.0) - curve) * (6.0 + 3.5 * in_front**2) * torso.patient.size
    return Loft(ring, dense=True)


def trunk(torso: Torso) -> list[Structure]:
    """Everything around the organs, in painting order; the cavity is left full of fat."""
    patient, hu = torso.patient, torso.patient.hu
    return [
        *under_the_skin(patient, torso.body),
        fat_septa(patient, torso.body.inset(3).section(0)[0], n=8, z_range=EXTENT_MM),
        Structure(torso.muscle, hu["muscle"], "muscle", MUSCLE, 0.4),
        *_oblique_planes(torso),
        *_lung_bases(torso),
        Structure(torso.cavity, hu["muscle"], "muscle", MUSCLE, 0.4),  # diaphragm and transversus
        Structure(torso.cavity.inset(1.8 * patient.size), hu["fat"] + 2, "visceral_fat", FAT, 0.4),
        *(part for side in (-1, 1) for part in _back_muscles(torso, side)),
        *(part for side in (-1, 1) for part in _rectus(torso, side)),
    ]


def _oblique_planes(torso: Torso) -> list[Structure]:
    """Fat between external oblique, internal oblique and transversus, as thin shells at the side."""
    out = []
    for share in (0.36, 0.68):
        for side in (-1, 1):
            t = np.linspace(-0.78, 0.66, 40) if side > 0 else np.pi - np.linspace(-0.78, 0.66, 40)
            sections = {}
            for z, curve in _at_all_heights(torso.muscle).items():
                depth = share * WALL[int(z)][2] * torso.patient.size
                index = np.round(t / (2 * np.pi) * len(curve)).astype(int) % len(curve)
                sections[z] = stadium(inset(curve, depth)[index], 0.6)
            out.append(Structure(Loft(sections, dense=True), -70, None, (), 0.5, ("muscle",), 0.75))
    return out


def _rectus(torso: Torso, side: int) -> list[Structure]:
    """One belly of the rectus in its sheath of fat; between both, the linea alba."""
    s, rng = torso.patient.size, torso.patient.rng(f"rectus {side}")
    thick, wide = rng.uniform(0.75, 1.15), rng.uniform(0.9, 1.12)
    belly, sheath = {}, {}
    for z, curve in _at_all_heights(torso.muscle).items():
        front = curve[curve[:, 1] < 0]
        front = front[np.argsort(front[:, 0])]
        x, depth = (mirrored(RECTUS, side) * (s * wide, s * thick)).T
        belly[z] = np.column_stack([x, np.interp(x, front[:, 0], front[:, 1]) + depth + 0.8])
        sheath[z] = inset(spline(belly[z]), -1.3)
    return [
        Structure(Loft(sheath, dense=True), -70, "subcutaneous_fat", FAT, 0.5, ("muscle",)),
        Structure(Loft(belly), torso.patient.hu["muscle"], "muscle", MUSCLE, 0.5),
    ]


def _back_muscles(torso: Torso, side: int) -> list[Structure]:
    """Quadratus, erector and psoas, each in a plane of fat."""
    hu, rng = torso.patient.hu, torso.patient.rng(f"back muscles {side}")

    def loft(rows: Sections, mm: float, cap_mm: tuple[float, float] = (0, 0)) -> Loft:
        sections = {float(z): jitter(rng, torso.at(mirrored(np.array(p), side)), mm) for z, p in rows.items()}
        return Loft(sections, cap_mm=cap_mm)

    psoas = {z: list(ellipse(x, y, a, b, -angle, n=12)) for z, (x, y, a, b, angle) in PSOAS.items()}
    out = []
    for muscle in (loft(QUADRATUS, 0.6), loft(ERECTOR, 1.0), loft(psoas, 0.6, (0, 12))):
        around = ("muscle", "visceral_fat")
        out.append(Structure(muscle.inset(-0.8), hu["fat"] + 15, None, (), 0.6, around, 0.8))
        out.append(Structure(muscle, hu["muscle"] + 2, "muscle", ((8, 2.5), (6, 1.6)), 0.45))
    return [*out, *_fat_in_muscle(torso, side, rng)]


def _fat_in_muscle(torso: Torso, side: int, rng: np.random.Generator) -> list[Structure]:
    """Streaks of fat in the erector, more with age, and the plane between multifidus and longissimus."""
    streaks: list[Shape] = []
    for _ in range(int(35 + 1.4 * (torso.patient.age - 30))):
        start = np.array([side * rng.uniform(12, 56), rng.uniform(46, 84), rng.uniform(-95, 95)])
        path = torso.at([start, start + rng.normal(0, (7, 9, 24))])
        streaks.append(Tube(path, rng.uniform(0.4, 1.0) * torso.patient.size))
    path = torso.at(mirrored([(26, 45), (29, 62), (24, 88)], side))
    plane = Loft({0: stadium(path, 0.55)}, dense=True)
    return [
        Structure(Union(streaks), -40, None, (), 0.5, ("muscle",), 0.75),
        Structure(plane, -50, None, (), 0.5, ("muscle",), 0.7),
    ]


def _lung_bases(torso: Torso) -> list[Structure]:
    """What of the lungs reaches down behind and beside the diaphragm, and the fat between both."""
    hu, rng = torso.patient.hu, torso.patient.rng("lung bases")
    lung = Loft(_at_all_heights(torso.chest), extent_mm=(6, 100), dense=True)
    vessels: list[Tube] = []
    for side in (-1, 1):
        for _ in range(18):
            start = torso.at([(side * rng.uniform(26, 95), rng.uniform(10, 50), rng.uniform(75, 110))])[0]
            heading = (side * rng.uniform(0, 1.2), rng.uniform(0, 1), -1)
            vessels += vessel_tree(rng, start, heading, length=24, radius=rng.uniform(0.9, 2.2), depth=3)
    middle = Loft({z: torso.at(points) for z, points in MEDIASTINUM.items()}, extent_mm=(4, 130))
    straight = [replace(tube, smooth=False) for tube in vessels]
    return [
        Structure(lung.inset(1.0), hu["lung"] + 25, "lung", ((22, 4.0), (18, 1.6)), 0.5, slope_hu_per_mm=0.6),
        Structure(Union(straight), 20, "lung_vessel", BLOOD, 0.4, ("lung",)),
        Structure(middle, hu["fat"] + 4, "visceral_fat", FAT, 0.5, ("lung", "muscle")),
    ]


def crura(torso: Torso) -> list[Structure]:
    """The diaphragm's legs, from before the aorta down to the lumbar spine."""
    rng, s = torso.patient.rng("crura"), torso.patient.size
    out = []
    for side in (-1, 1):
        sections: dict[float, Curve] = {}
        for z, path in CRUS.items():
            points = np.array(path, float)
            points[:, 0] = points[:, 0] if side < 0 else 14 - points[:, 0]  # mirrored about the aorta
            curve = spline(jitter(rng, torso.at(points), 0.7), closed=False)
            sections[z] = stadium(curve, np.linspace(2.2, 3.4, len(curve)) * s * rng.uniform(0.8, 1.25))
        shape = Loft(sections, extent_mm=(-30, 90), cap_mm=(12, 0), dense=True)
        inside = ("visceral_fat", "muscle", "lung")
        out.append(Structure(shape, torso.patient.hu["muscle"] + 3, "muscle", MUSCLE, 0.5, inside))
    return out
