"""Parts that several regions share: trunk and skin, spine, ribs, bowel, trees of vessels, the table.

A part returns structures in painting order. Tables hold shapes for an average adult in mm, the patient's left
side (x > 0) standing for both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from alden_lite.phantom.painting import Grain, Structure
from alden_lite.phantom.patient import Patient
from alden_lite.phantom.shapes import (
    Curve,
    Ellipsoid,
    Loft,
    Shape,
    Tube,
    Union,
    ellipse,
    inset,
    mirrored,
    spline,
)

__all__ = [
    "Frame",
    "Sections",
    "bone",
    "fat_septa",
    "filling",
    "gut",
    "jitter",
    "outline",
    "spine",
    "table",
    "under_the_skin",
    "vessel_tree",
]

MUSCLE: tuple[Grain, ...] = ((7, 2.5), (5, 1.6))
FAT: tuple[Grain, ...] = ((6, 8), (5, 2.5))
"""Textures that tissues share: (HU, mm)."""


def jitter(rng: np.random.Generator, points: ArrayLike, mm: float) -> Curve:
    """Control points moved at random by so many mm (standard deviation)."""
    p = np.asarray(points, float)
    return p + rng.normal(0, mm, p.shape)


Sections = Mapping[float, Any]
"""A table of a solid: height z -> control points (K, 2), mm, the patient's left side."""


@dataclass(frozen=True)
class Frame:
    """Maps a table (an average adult, left side, mm) onto a patient: his size and a little irregularity."""

    patient: Patient
    rng: np.random.Generator
    scale: np.ndarray  # (3,) x, y, z
    tilt: float = 0.0  # mm of z a mm of x: one side lies higher

    def loft(
        self, sections: Sections, side: int = 1, *, mm: float = 1.0, cap: float | tuple[float, float] = 0.0
    ) -> Loft:
        placed = {z: mirrored(points, side) * self.scale[:2] for z, points in sections.items()}
        lift = self.tilt * float(np.mean([points[:, 0].mean() for points in placed.values()]))
        raised = {z * self.scale[2] + lift: jitter(self.rng, points, mm) for z, points in placed.items()}
        return Loft(raised, cap_mm=cap)

    def ovals(
        self, sections: Sections, side: int = 1, *, mm: float = 0.6, cap: float | tuple[float, float] = 4.0
    ) -> Loft:
        """Height -> centre x, y, half-axes a, b, angle in degrees."""
        curves = {z: ellipse(x, y, a, b, math.radians(w), n=10) for z, (x, y, a, b, w) in sections.items()}
        return self.loft(curves, side, mm=mm, cap=cap)

    def ring(self, sections: Sections, *, mm: float = 1.0) -> dict[float, Curve]:
        """Both halves of a curve that closes in the midline, dense (K, 2)."""
        rings = {}
        for z, half in sections.items():
            points = np.array([*half, *[(-x, y) for x, y in half[-2:0:-1]]]) * self.scale[:2]
            rings[z * float(self.scale[2])] = spline(jitter(self.rng, points, mm))
        return rings

    def tube(self, path: ArrayLike, side: int = 1, *, mm: float = 1.0, aspect: float = 1.0) -> Tube:
        """Rows of x, y, z and radius."""
        p = mirrored(np.asarray(path, float), side)
        course = p[:, :3] * self.scale
        course[:, 2] += self.tilt * course[:, 0]
        return Tube(jitter(self.rng, course, mm), p[:, 3] * self.patient.size, aspect)

    def ball(self, centre: ArrayLike, half_axes: ArrayLike, side: int = 1) -> Ellipsoid:
        x, y, z = np.array(centre) * self.scale * (side, 1, 1)
        a, b, c = np.array(half_axes) * self.patient.size
        return Ellipsoid((float(x), float(y), float(z + self.tilt * x)), (float(a), float(b), float(c)))


def outline(
    half_width: float, front: float, back: float, *, power: float = 2.25, groove: float = 5.0
) -> Curve:
    """A trunk's cross-section (200, 2): extents in mm from the isocentre, with the groove over the spine."""
    t = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    cos, sin = np.cos(t), np.sin(t)
    x = half_width * np.sign(cos) * np.abs(cos) ** (2 / power)
    y = np.sign(sin) * np.abs(sin) ** (2 / power) * np.where(sin > 0, back, front)
    spine = groove * np.exp(-((x / 16) ** 2)) * (sin > 0)
    navel_line = 0.5 * groove * np.exp(-((x / 30) ** 2)) * (sin < 0)
    return np.stack([x, y - spine + navel_line], 1)


def under_the_skin(patient: Patient, body: Shape) -> list[Structure]:
    """Skin and the fat below it; what lies deeper is painted over it."""
    hu = patient.hu
    return [
        Structure(body, hu["skin"], "skin"),
        Structure(body.inset(1.8), hu["fat"], "subcutaneous_fat", FAT),
    ]


def fat_septa(patient: Patient, region: Curve, *, n: int, z_range: tuple[float, float]) -> Structure:
    """Thin strands of connective tissue in the fat below the skin, near a curve (K, 2): n a 10 mm of z."""
    rng = patient.rng("septa of subcutaneous_fat")
    strands = []
    for _ in range(int(n * (z_range[1] - z_range[0]) / 10)):
        x, y = region[rng.integers(len(region))] * rng.uniform(0.86, 0.99)
        start = np.array([x, y, rng.uniform(*z_range)])
        course = rng.normal(0, 1, 3) * [8, 8, 4]
        bend = [*rng.normal(0, 1.5, 2), 0]
        strands.append(Tube(np.array([start, start + course / 2 + bend, start + course]), 0.5, aspect=6))
    return Structure(Union(strands), -60, None, (), 0.3, ("subcutaneous_fat",), 0.6)


def bone(
    patient: Patient, shape: Shape, *, cortex_mm: float = 2.0, cortex: float = 1.0, marrow: float = 1.0
) -> list[Structure]:
    """A solid with a dense shell and spongy marrow; `cortex` and `marrow` scale the patient's HU."""
    return [
        Structure(shape, patient.hu["cortex"] * cortex, "cortical_bone", ((60, 2.5),)),
        Structure(
            shape.inset(cortex_mm), patient.hu["marrow"] * marrow, "bone_marrow", ((22, 1.6), (18, 4.0)), 0.45
        ),
    ]


# half-width and half-depth of a vertebral body, height of body and disc, scale of the arch behind it (mm)
VERTEBRA = {
    "lumbar": (24, 17, 27, 9, 1.0),
    "thoracic": (16, 14.5, 20, 5, 0.8),
    "cervical": (11, 8, 13, 5, 0.55),
}
BODY = [(0, -1), (0.7, -0.82), (1, 0), (0.8, 0.75), (0, 0.62), (-0.8, 0.75), (-1, 0), (-0.7, -0.82)]
CANAL = [(-11, 1), (-6, -3.5), (6, -3.5), (11, 1), (6, 12), (0, 16), (-6, 12)]  # behind the vertebral body

# The arch of a lumbar vertebra, left side: path from the middle of the body's back (mm), half-thickness,
# height over thickness. Pedicles leave the upper half of a body; below them the nerve roots come out.
ARCH = {
    "pedicle": ([(15, -4, 0), (15, 12, -2)], [4.4, 4.4], 1.6),
    "lamina": ([(15, 12, -4), (8, 21, -9), (0, 25, -12)], [4.2, 4.2, 4.2], 2.2),
    "transverse process": ([(18, 0, 0), (36, 6, 0), (48, 10, 2)], [5, 4.2, 3.2], 1.3),
    "facet joint": ([(17, 11, 10), (17, 14, -16)], [5, 5], 1.0),
}
SPINOUS = {  # thoracic ones point down
    "lumbar": [(0, 22, -10), (0, 36, -18), (0, 50, -27)],
    "thoracic": [(0, 22, -10), (0, 36, -25), (0, 50, -44)],
    "cervical": [(0, 22, -10), (0, 36, -25), (0, 50, -44)],
}


def spine(
    patient: Patient, kind: str, *, x: float, y: float, z_range: tuple[float, float], waist: float = 0.10
) -> list[Structure]:
    """Vertebrae, discs, arches and the spinal canal over a range of z; (x, y) is the bodies' centre."""
    rng = patient.rng(f"spine {kind}")
    w, d, height, disc, k = (length * patient.size for length in VERTEBRA[kind])
    bodies: list[Structure] = []
    arches: list[Structure] = []
    lowest = z_range[0] - (height + disc) * rng.uniform(0, 1)
    for z in np.arange(lowest, z_range[1] + height + disc, height + disc).tolist():
        outline_mm = jitter(rng, np.array(BODY) * (w, d) + (x, y), 0.006 * w)
        bodies += _vertebral_body(patient, rng, outline_mm, z, height, disc, waist)
        arches += _arch(patient, rng, kind, np.array([x, y + d, z + 0.7 * height]), k)
    canal, back = Loft({0: np.array(CANAL) * k + (x, y + d)}), y + d
    sac, cord = (
        Loft({0: ellipse(x, back + depth * k, a * k, b * k)})
        for depth, a, b in ((5.5, 9, 7.5), (6, 5.5, 4.2))
    )
    return [
        *arches,
        *bodies,
        Structure(canal, -60, "spinal_canal"),
        Structure(sac, 22, "spinal_canal", ((4, 2.5),)),
        Structure(cord, 42, "spinal_canal", ((3, 2.5),), 0.5),
    ]


def _vertebral_body(
    patient: Patient,
    rng: np.random.Generator,
    plate: Curve,
    z: float,
    height: float,
    disc: float,
    waist: float,
) -> list[Structure]:
    """One body from z upwards, waisted between its end plates, and the disc above it."""
    (x, y), (w, d) = plate.mean(0), np.ptp(plate, axis=0) / 2
    body = Loft({z: plate, z + height / 2: (plate - (x, y)) * (1 - waist) + (x, y), z + height: plate})
    between = Loft({0: plate}, extent_mm=(z + height, z + height + disc))
    vein = Tube([(x, y + 0.1 * d, z + height / 2), (x, y + 0.6 * d, z + height / 2)], 0.9)  # basivertebral
    out = [
        Structure(between, 85, "disc_cartilage", ((8, 4.0),)),
        Structure(between.inset(0.28 * w), 70, "disc_cartilage", ((6, 4.0),), 2.0),
        *bone(patient, body, cortex_mm=1.0, cortex=0.5),
        Structure(vein, 40, "bone_marrow", blur_mm=0.5, inside=("bone_marrow",)),
    ]
    if patient.age > 60 and rng.random() < 0.6:
        side = int(rng.choice([-1, 1]))
        spur = Ellipsoid(
            (x + side * 0.93 * w, y - 0.62 * d, z + height), (0.17 * w, 0.11 * w, 0.17 * w), side * 0.8
        )
        out.append(Structure(spur, patient.hu["cortex"] * 0.8, "cortical_bone", ((50, 2.5),)))
    return out


def _arch(patient: Patient, rng: np.random.Generator, kind: str, at: Curve, k: float) -> list[Structure]:
    """Everything behind one vertebral body; `at` (x, y, z) is the middle of its back at the pedicles."""
    tubes = [
        Tube(mirrored(path, side) * k + at, np.array(radius) * k, aspect)
        for side in (-1, 1)
        for path, radius, aspect in ARCH.values()
    ]
    sideways = [(0.0, 0, 0), (rng.normal(0, 1), 0, 0), (rng.normal(0, 1.5), 0, 0)]
    tubes.append(Tube(np.array(SPINOUS[kind]) * k + sideways + at, np.array([3.0, 3.4, 4.2]) * k, 2.4))
    return [part for tube in tubes for part in bone(patient, tube, cortex_mm=1.5, cortex=0.8)]


def vessel_tree(
    rng: np.random.Generator,
    start: ArrayLike,
    direction: ArrayLike,
    *,
    length: float,
    radius: float,
    depth: int,
    spread: float = 0.5,
    wiggle: float = 0.25,
    shrink: float = 0.78,
) -> list[Tube]:
    """A random tree of tubes in 3-D, trunk first; start (x, y, z) in mm, `depth` times branching.

    Daughters are 0.6 to 0.85 as thick as their mother, about what Murray's law asks of two equal ones (0.79).
    """
    steps = 4
    heading = np.asarray(direction, float) / np.linalg.norm(direction)
    path = [np.asarray(start, float)]
    for _ in range(steps):
        heading = heading + rng.normal(0, wiggle / math.sqrt(steps), 3)
        heading /= np.linalg.norm(heading)
        path.append(path[-1] + heading * length / steps)
    tubes = [Tube(np.array(path), np.linspace(radius, radius * shrink, steps + 1))]
    if depth > 0 and radius > 0.35:
        across = np.cross(heading, rng.normal(0, 1, 3))
        across /= np.linalg.norm(across)
        for side in (-1, 1):
            tubes += vessel_tree(
                rng,
                path[-1],
                heading + side * abs(rng.normal(spread, 0.2)) * across,
                length=length * rng.uniform(0.65, 0.9),
                radius=radius * rng.uniform(0.6, 0.85),
                depth=depth - 1,
                spread=spread,
                wiggle=wiggle,
                shrink=shrink,
            )
    return tubes


# what a hollow organ holds: fluid HU range, texture, share of the lumen's height that is gas (low, high)
CONTENTS: dict[str, tuple[tuple[float, float], tuple[Grain, ...], tuple[float, float]]] = {
    "fluid": ((5, 32), ((9, 4.0),), (0, 0)),
    "mixed": ((5, 32), ((9, 4.0),), (0.15, 0.5)),
    "gas": ((5, 32), ((9, 4.0),), (0.55, 0.97)),
    "oral": ((180, 380), ((18, 4.0),), (0, 0.2)),
    "feces": ((-40, 50), ((70, 4.0), (45, 1.6)), (0.05, 0.3)),
}


def gut(
    patient: Patient,
    rng: np.random.Generator,
    shape: Shape,
    *,
    content: str,
    wall_mm: float = 2.8,
    label: str = "bowel",
    y_range: tuple[float, float] | None = None,
) -> list[Structure]:
    """A hollow organ: wall, content, and gas above a level that is flat because the patient lies on the back.

    Args:
        y_range: front and back of the lumen in mm, which set the gas level; needed if `content` has gas.
        content: `collapsed` or one of `CONTENTS`.
    """
    wall = patient.hu["gut_wall"]
    out = [Structure(shape, wall, label, ((8, 2.5),), 0.3)]
    if content == "collapsed":
        return [*out, Structure(shape.inset(1.8 * wall_mm), 0.55 * wall, label, ((8, 2.5),), 0.8)]
    return out + filling(rng, shape.inset(wall_mm), content, label=label, y_range=y_range)


def filling(
    rng: np.random.Generator,
    lumen: Shape,
    content: str,
    *,
    label: str,
    y_range: tuple[float, float] | None,
    inside: tuple[str, ...] = (),
) -> list[Structure]:
    """What a lumen holds: fluid, and where `content` has any, gas on top of it. Arguments as for `gut`."""
    fluid, grain, gas = CONTENTS[content]
    out = [Structure(lumen, rng.uniform(*fluid), label, grain, 0.4, inside)]
    if gas[1] > 0:
        if y_range is None:
            raise ValueError(f"gas needs the lumen's y_range (content {content!r})")
        level = y_range[0] + rng.uniform(*gas) * (y_range[1] - y_range[0])
        out.append(Structure(lumen, -960, "bowel_gas", ((8, 2.5),), 0.35, inside, in_front_of_mm=level))
    return out


def table(body: Curve) -> list[Structure]:
    """The patient's table, a curved shell filled with foam; a body's surface (K, 2) rests on it."""
    half_width, rise = 205.0, 26.0  # mm; its edges are higher than its middle
    body = body[np.abs(body[:, 0]) < half_width]
    y = float((body[:, 1] + rise * (body[:, 0] / half_width) ** 2).max())
    t = np.linspace(-1, 1, 60)
    top = np.stack([half_width * t, y - rise * t**2], 1)
    bottom = np.stack([half_width * t[::-1], y + 32 - 2 * rise * t**2], 1)
    shell = np.vstack([top, bottom])
    return [
        Structure(Loft({0: outside}, dense=True), hu, "table", grain, inside=(where,), warped=False)
        for outside, hu, grain, where in (
            (shell, -820, ((10, 2.5),), "air"),
            (inset(shell, 2.2), -945, ((6, 4.0),), "table"),
        )
    ]
