"""The chest: from the aortic arch over the pulmonary trunk to the four chambers of the heart, arms raised.

Frame: mm for an average adult, the midline is x = 0, vertebral bodies lie at y = 36. What lies in the wall is
told in the wall's own terms: an angle around the cavity (0 = side, 90 = back, -90 = front) and an offset
outwards from it. Proportions were read off a public scan, LIDC-IDRI-0001. `mediastinum` and
`lungs` fill the cavity.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator

from alden_lite.phantom.lungs import emphysema, nodules, pulmonary_trees
from alden_lite.phantom.mediastinum import fat_pad, hila, mediastinum, pericardium
from alden_lite.phantom.painting import Grain, Structure
from alden_lite.phantom.parts import MUSCLE, bone, fat_septa, jitter, outline, spine, under_the_skin
from alden_lite.phantom.patient import Patient
from alden_lite.phantom.ribs import on_wall, ribs
from alden_lite.phantom.shapes import Curve, Ellipsoid, Loft, Shape, Tube, Union, ellipse, mirrored, stadium

EXTENT_MM = (-80.0, 80.0)
SPINE_Y = 36.0
UNDER_SKIN = ("subcutaneous_fat", "breast", "muscle")
WALL_MM = 10.0  # ribs and the muscles between them

# ---------------------------------------------------------------- anatomy
# z -> half-width, front, back of the cavity (mm)
CAVITY = {125: (68, 50, 60), 100: (90, 66, 68), 80: (103, 74, 71), 40: (117, 85, 73), 0: (126, 92, 74),
          -40: (131, 97, 74), -80: (134, 100, 73), -115: (135, 101, 72)}  # fmt: skip

# Skin without fat, as offset from the cavity: z -> mm at these angles; what the fat adds, as a share of it.
ANGLES = (-90, -68, -42, -15, 10, 30, 50, 70, 90)
BODY = {115: (20, 34, 50, 58, 62, 56, 47, 42, 37), 80: (17, 29, 42, 52, 57, 53, 46, 41, 38),
        40: (16, 24, 31, 39, 49, 48, 42, 38, 36), 0: (15, 20, 23, 28, 37, 40, 38, 36, 34),
        -40: (15, 17, 18, 22, 28, 33, 34, 35, 33), -80: (14, 15, 16, 19, 22, 27, 32, 35, 33),
        -115: (14, 14, 15, 18, 21, 25, 30, 33, 32)}  # fmt: skip
FAT_SHARE = (0.62, 0.72, 0.66, 0.6, 0.62, 0.62, 0.6, 0.55, 0.45)

# Muscles (and the shoulder blade) as sheets: z -> from angle, to angle, inner and outer offset
SHEETS: dict[str, dict[int, tuple[float, float, float, float]]] = {
    "serratus_anterior": {100: (-28, 22, 11, 19), 60: (-30, 28, 11, 19), 0: (-38, 34, 11, 17.5),
                          -75: (-34, 10, 11, 15)},
    "pectoralis_minor": {110: (-56, -20, 13, 26), 60: (-60, -34, 12.5, 22), 12: (-56, -42, 12, 15)},
    "pectoralis_major": {110: (-82, -10, 26, 48), 80: (-84, -16, 18, 37), 45: (-85, -28, 13.5, 27),
                         15: (-85, -38, 12, 20.5), -38: (-78, -54, 12, 14)},
    "subscapularis": {110: (0, 56, 16, 32), 80: (4, 55, 14.5, 30), 40: (10, 53, 14, 27),
                      -18: (24, 40, 18, 22)},
    "infraspinatus": {110: (0, 54, 36, 50), 80: (4, 54, 33, 47), 40: (9, 52, 31, 43), -22: (22, 42, 25, 31)},
    "rhomboid": {110: (56, 84, 22, 28), 40: (56, 82, 20, 26), 0: (55, 78, 20, 23)},
    "latissimus": {110: (-12, 8, 36, 56), 75: (-12, 8, 32, 55), 35: (-6, 16, 24, 47), 0: (0, 44, 21, 34),
                   -40: (2, 60, 18, 28), -110: (4, 62, 14, 22)},
    "teres_major": {90: (-2, 16, 42, 58), 40: (2, 20, 36, 52), 5: (10, 24, 30, 38)},
    "trapezius": {110: (52, 89, 28, 38), 40: (58, 90, 25, 32), 0: (64, 91, 25, 30), -62: (74, 91, 25, 27.5)},
}  # fmt: skip
SCAPULA = {110: (-2, 54, 31.5, 37.5), 80: (3, 54, 29.5, 34.5), 40: (8, 52, 27, 32), -24: (24, 41, 22.5, 26.5)}
# Beside the spinous processes, from the vertebral body's centre: iliocostalis and longissimus, multifidus
ERECTORS = [[(17, 38), (30, 33), (44, 34), (51, 40), (45, 51), (28, 57), (15, 55)],
            [(5, 28), (10, 25), (22, 27), (18, 38), (14, 54), (5, 55), (3, 42)]]  # fmt: skip

# Vessels of the armpit and behind the breastbone, left side: tissue, path, radius
WALL_VESSELS: list[tuple[str, list[tuple[float, float, float]], list[float]]] = [
    ("artery", [(104, -44, 125), (121, -24, 95), (131, -8, 66), (132, 4, 30)], [4.2, 3.6, 2.2, 1.4]),
    ("vein", [(100, -54, 125), (116, -36, 95), (128, -20, 66), (132, -6, 20)], [5.2, 4.4, 2.4, 1.3]),
    ("artery", [(26, -80, 95), (27, -90, 20), (28, -97, -90)], [1.4, 1.3, 1.1]),
]
ARMPIT_NODES = [(112, -12, 80), (106, -22, 70), (118, -8, 50)]
STERNUM = {  # half-width and half-depth; it lies in front of the cavity
    100: (28, 7.5), 70: (30, 7), 50: (20, 6), 44: (17, 5.5), 0: (18, 5.5), -50: (21, 5.5), -72: (15, 4.5),
    -90: (7, 3.5),
}  # fmt: skip
CLAVICLE = [(24, -76, 104), (42, -78, 110), (70, -70, 117)]
LUNG_GRAIN: tuple[Grain, ...] = ((13, 4.0), (17, 1.6))


# ---------------------------------------------------------------- building
def build(patient: Patient) -> list[Structure]:
    """The chest's structures in painting order, drawn once for the whole region."""
    s, cavity = patient.size, cavity_of(patient)
    body = body_of(patient, cavity)
    spine_x = float(patient.rng("chest spine").normal(0, 2))
    return [
        *under_the_skin(patient, body),
        *_breasts(patient, body),
        fat_septa(patient, body.section(0)[0], n=22, z_range=EXTENT_MM),
        *_wall_muscles(patient, cavity),
        Structure(cavity, patient.hu["fat"] + 4, "visceral_fat", ((8, 4.0),), 0.3),
        *_lungs(patient, cavity),
        *mediastinum(patient),
        *_erectors(patient),
        _fat_in_muscle(patient, cavity),
        *_wall_vessels(patient),
        *spine(patient, "thoracic", x=spine_x, y=SPINE_Y * s, z_range=EXTENT_MM),
        *ribs(patient, cavity.inset(-0.5 * WALL_MM * s), spine_xy=(spine_x, SPINE_Y * s), z_range=EXTENT_MM),
        *_sternum(patient, cavity),
    ]  # fmt: skip


def cavity_of(patient: Patient) -> Loft:
    """Inside of the ribs."""
    rng, s = patient.rng("cavity"), patient.size
    wide, deep, power = rng.normal(1, 0.03), rng.normal(1, 0.05), rng.uniform(2.05, 2.35)
    waves, phases = rng.normal(0, 0.007, 4), rng.uniform(0, 6.3, 4)  # no chest is symmetric
    sections = {}
    for z, (half_width, front, back) in CAVITY.items():
        curve = outline(half_width * wide * s, front * deep * s, back * s, power=power, groove=0)
        curve[:, 0] *= 1 - 0.10 * np.clip(-curve[:, 1] / (front * deep * s), 0, 1) ** 1.5  # narrower in front
        turn = np.arctan2(curve[:, 1], curve[:, 0])[:, None] * np.arange(1, 5)
        sections[z * s] = curve * (1 + (waves * np.cos(turn + phases)).sum(1, keepdims=True))
    return Loft(sections, dense=True)


def at(solid: Loft, z: float) -> Curve:
    """A loft's outline at a height; beyond its ends, the last one."""
    return solid.section(min(max(z, solid.low), solid.high))[0]


def body_of(patient: Patient, cavity: Loft) -> Loft:
    """The skin: muscles and fat of varying depth outside the cavity."""
    rng, s = patient.rng("body"), patient.size
    share = np.array(FAT_SHARE) * rng.uniform(0.9, 1.1, len(FAT_SHARE))
    angle = np.concatenate([np.linspace(-90, 90, 100), np.linspace(90, -90, 100)[1:-1]])
    side = np.repeat([1, -1], [100, 98])
    mirror = [-180 - ANGLES[1], *ANGLES, 180 - ANGLES[-2]]  # smooth across the midline
    sections = {}
    for z, offsets in BODY.items():
        depth = _bulky(offsets, _bulk(patient)) * s + 4 + share * patient.fat_mm
        depth = PchipInterpolator(mirror, np.r_[depth[1], depth, depth[-2]])(angle)
        curve = at(cavity, z * s)
        left, right = on_wall(curve, angle, 1, depth), on_wall(curve, angle, -1, depth)
        sections[z * s] = np.where(side[:, None] > 0, left, right)
    return Loft(sections, dense=True)


def _bulk(patient: Patient) -> float:
    """How thick the muscles of the wall are, 1 on average."""
    spread = patient.rng("bulk").normal(0, 0.08)
    return 1 + spread + (-0.1 if patient.female else 0.1) - 0.004 * max(patient.age - 50, 0)


def _bulky(offset_mm: ArrayLike, bulk: float) -> np.ndarray:
    """Offsets from the cavity when the muscles outside the ribs are `bulk` times as thick."""
    return WALL_MM + (np.asarray(offset_mm, float) - WALL_MM) * bulk


def sheet(
    rng: np.random.Generator,
    cavity: Loft,
    rows: Mapping[int, tuple[float, float, float, float]],
    side: int,
    size: float,
    bulk: float = 1.0,
) -> Loft:
    """A muscle that lies on the wall (a row of `SHEETS`): thick in the middle, thin at both ends."""
    t = np.linspace(0, 1, 24)
    belly = (4 * t * (1 - t)) ** 0.55
    lean, swell = (
        rng.normal(0, 2, 2),
        1 + 0.12 * np.sin(2 * np.pi * (t * rng.uniform(0.7, 1.6) + rng.random())),
    )
    sections = {}
    for z, (start, end, inner, outer) in rows.items():
        angle = start + lean[0] + (end + lean[1] - start - lean[0]) * t
        inner, outer = _bulky((inner, outer), bulk) * size
        middle, half = (inner + outer) / 2, (outer - inner) / 2 * belly * swell
        curve = at(cavity, z * size)
        sections[z * size] = np.vstack(
            [on_wall(curve, angle, side, middle + half), on_wall(curve, angle, side, middle - half)[::-1]]
        )
    return Loft(sections, dense=True, cap_mm=12.0)


def _wall_muscles(patient: Patient, cavity: Loft) -> list[Structure]:
    rng, s, hu = patient.rng("chest muscles"), patient.size, patient.hu
    out = [Structure(cavity.inset(-WALL_MM * s), hu["muscle"], "muscle", MUSCLE, 0.4)]
    stripe = cavity.inset(-0.45 * WALL_MM * s)  # fat between the layers of intercostal muscle
    out += [Structure(stripe, hu["fat"] + 60, None, ((20, 2.5),), 0.6, ("muscle",), 0.5),
            Structure(stripe.inset(1.3), hu["muscle"], "muscle", MUSCLE, 0.4)]  # fmt: skip
    bulk = _bulk(patient)
    for side in (-1, 1):
        for rows in SHEETS.values():
            muscle = sheet(rng, cavity, rows, side, s, bulk)
            fill = hu["muscle"] + rng.normal(0, 2)
            out.append(Structure(muscle, fill, "muscle", MUSCLE, 0.5, UNDER_SKIN))
        blade = sheet(rng, cavity, SCAPULA, side, s, bulk)
        out += bone(patient, blade, cortex_mm=1.4, cortex=0.9, marrow=0.8)
    return out


def _erectors(patient: Patient) -> list[Structure]:
    rng, s = patient.rng("erector spinae"), patient.size
    return [
        Structure(Loft({0: jitter(rng, mirrored(points, side), 0.7) * s + (0, SPINE_Y * s)}),
                  patient.hu["muscle"] - rng.uniform(2, 10), "muscle", ((9, 2.5), (7, 1.6)), 0.5)
        for side in (-1, 1) for points in ERECTORS
    ]  # fmt: skip


def _fat_in_muscle(patient: Patient, cavity: Loft) -> Structure:
    """Streaks of fat between muscle bundles."""
    rng, s = patient.rng("fat in muscle"), patient.size
    streaks: list[Shape] = []
    for _ in range(160):
        z, side = rng.uniform(*EXTENT_MM), int(rng.choice([-1, 1]))
        angle, offset = rng.uniform(-70, 88), rng.uniform(11, 40) * s
        at = np.array([*on_wall(cavity.section(z)[0], angle, side, offset), z])
        to = np.array(
            [*on_wall(cavity.section(z)[0], angle + rng.uniform(3, 9), side, offset + rng.normal(0, 3)), z]
        )
        streaks.append(
            Tube(
                np.stack([at, (at + to) / 2 + rng.normal(0, 1, 3), to]),
                rng.uniform(0.3, 0.8),
                8,
                smooth=False,
            )
        )
    return Structure(Union(streaks), -60, None, blur_mm=0.4, inside=("muscle",), opacity=0.75)


def _breasts(patient: Patient, body: Loft) -> list[Structure]:
    """In a woman on her back: flat, drawn to the sides, fat with strands and islands of gland."""
    if not patient.female:
        return []
    rng, s, hu = patient.rng("breasts"), patient.size, patient.hu
    fullness = rng.uniform(0.5, 1.1) * (0.55 + patient.fat_mm / 40)
    gland = rng.uniform(15, 45) - 0.9 * max(patient.age - 45, 0)
    n_strands = int(rng.uniform(15, 60) * float(np.clip(1.5 - patient.age / 70, 0.25, 1)))
    out: list[Structure] = []
    for side in (-1, 1):
        z = rng.normal(-22, 4)
        half = np.array([60, 20 + 20 * fullness, 66]) * s * (0.85 + 0.2 * fullness)
        x, y = on_wall(body.section(z)[0], rng.normal(-47, 2), side, -0.5 * half[1])
        shape = Ellipsoid((x, y, z), tuple(half), side * 0.62)
        out.append(Structure(shape, hu["skin"], "skin", inside=("air",)))
        out.append(
            Structure(
                shape.inset(1.8),
                hu["fat"],
                "breast",
                ((8, 8.0), (6, 2.5)),
                0.3,
                ("air", "skin", "subcutaneous_fat"),
            )
        )
        strands: list[Shape] = []
        for _ in range(n_strands):
            at = np.array([x, y - 4, z - 4]) + rng.normal(0, 0.27, 3) * half
            strands.append(Tube(at + np.cumsum(rng.normal(0, 5, (4, 3)), 0), rng.uniform(0.6, 2.6, 4), 1.5))
        out.append(Structure(Union(strands), gland, "breast", ((12, 2.5),), 1.0, ("breast",), 0.8))
    return out


def _lungs(patient: Patient, cavity: Loft) -> list[Structure]:
    """Both lungs as one filling of the cavity; the mediastinum is painted over it and parts them."""
    rng, s, hu = patient.rng("lungs"), patient.size, patient.hu
    gradient = rng.uniform(0.25, 0.5)
    out = [Structure(cavity.inset(1.0), hu["lung"], "lung", LUNG_GRAIN, 0.4, slope_hu_per_mm=gradient)]
    for side in (-1, 1):
        out.append(_fissure(rng, cavity, side, s))
    places = _places(patient, cavity, 3200)
    if patient.age > 55 and rng.random() < 0.3:
        high = places[(places[:, 2] > -20 * s) | (rng.random(len(places)) < 0.25)]
        out.append(emphysema(rng, high[rng.permutation(len(high))[:420]]))
    if rng.random() < 0.5:  # the dependent lung is poorly aired
        dependent = Loft({0: [(-130, 56), (0, 52), (130, 56), (130, 90), (0, 90), (-130, 90)]})
        out.append(Structure(dependent, hu["lung"] + 130, None, ((35, 4.0), (25, 1.6)), 5.0, ("lung",), 0.5))
    out += _trees(patient, places)
    dome = float(rng.uniform(-118, -64))
    liver = Ellipsoid((-64 * s, -18 * s, (dome - 75) * s), (64 * s, 72 * s, 75 * s), 0.1)
    out.append(
        Structure(liver.inset(-1.5), hu["muscle"], "muscle", (), 0.5, ("lung", "lung_vessel", "airway"))
    )
    out.append(Structure(liver, hu["liver"], "liver", ((4.5, 2.5), (3.5, 8.0)), 0.6, ("muscle", "lung")))
    return out + nodules(rng, places[rng.permutation(len(places))[: rng.poisson(5)]])


def _fissure(rng: np.random.Generator, cavity: Loft, side: int, size: float) -> Structure:
    """The oblique fissure: a thin sheet that runs forwards as it goes down, bowed in every slice."""
    tilt, bow = rng.uniform(0.75, 0.95), rng.uniform(-14, 4)
    t = np.linspace(0, 1, 16)
    sections = {}
    for z in range(-100, 101, 20):
        y = (16 + rng.normal(0, 1.0) + tilt * z) * size
        path = np.stack([side * (18 + 112 * t) * size, y + bow * np.sin(2.4 * t + 0.4) + 6 * t], 1)
        sections[z * size] = stadium(path, 0.4)
    return Structure(Loft(sections, dense=True), -600, None, ((40, 2.5),), 0.35, ("lung",), 0.75)


def _places(patient: Patient, cavity: Loft, n: int) -> Curve:
    """Random places in the lungs, (about n, 3): inside the cavity, outside heart and mediastinum."""
    rng, s = patient.rng("places in the lungs"), patient.size
    kept = []
    for z in np.linspace(-122, 118, 41) * s:
        low, high = np.array([-135, -105]) * s, np.array([135, 72]) * s
        tried = rng.uniform(low, high, (3 * n // 41, 2))
        free = _inside(0.975 * at(cavity, float(z)), tried)
        for solid in (pericardium(patient), fat_pad(patient)):
            for curve in solid.section(float(z)):
                free &= ~_inside(curve, tried)
        kept.append(np.column_stack([tried[free], rng.uniform(z - 3 * s, z + 3 * s, free.sum())]))
    places = np.vstack(kept)
    return places[rng.permutation(len(places))[:n]]


def _inside(curve: Curve, points: Curve) -> np.ndarray:
    """Which points (K, 2) lie in the closed curve: (K,). (Count the edges that a ray to the left crosses.)"""
    x, y = points.T[:, :, None]
    following = np.roll(curve, -1, 0)
    crosses = (curve[:, 1] > y) != (following[:, 1] > y)
    rise = np.where(following[:, 1] == curve[:, 1], 1.0, following[:, 1] - curve[:, 1])
    edge = curve[:, 0] + (y - curve[:, 1]) / rise * (following[:, 0] - curve[:, 0])
    return (crosses & (edge < x)).sum(1) % 2 == 1


def _trees(patient: Patient, places: Curve) -> list[Structure]:
    """Half of the places are fed by the hilar arteries, half drained by the veins: each by the nearest."""
    (arteries, veins), half = hila(patient), len(places) // 2
    return pulmonary_trees(
        patient, arteries=_nearest(arteries, places[:half]), veins=_nearest(veins, places[half:])
    )


def _nearest(starts: Curve, places: Curve) -> list[tuple[Curve, Curve]]:
    owner = np.argmin(np.linalg.norm(places[:, None] - starts[None], axis=2), 1)
    owner = np.where(np.sign(starts[owner, 0]) == np.sign(places[:, 0]), owner, -1)
    return [(start, places[owner == k]) for k, start in enumerate(starts)]


def _wall_vessels(patient: Patient) -> list[Structure]:
    """Vessels and lymph nodes of the armpits, the internal thoracic arteries."""
    rng, s, hu = patient.rng("vessels of the wall"), patient.size, patient.hu
    fat = ("subcutaneous_fat", "visceral_fat", "breast")
    out = []
    for side in (-1, 1):
        for tissue, path, radius in WALL_VESSELS:
            tube = Tube(jitter(rng, mirrored(path, side), 1.5) * s, np.array(radius) * s)
            out.append(Structure(tube, hu[tissue], "small_vessel", ((4, 2.5),), 0.5, fat))
        for place in np.repeat(mirrored(ARMPIT_NODES, side), rng.integers(0, 3, len(ARMPIT_NODES)), 0):
            x, y, z = (place + rng.normal(0, 6, 3)) * s
            a, b, c = rng.uniform(2.0, 5.0) * np.array([1.3, 0.8, 1.4]) * rng.uniform(0.8, 1.2, 3)
            node = Ellipsoid((x, y, z), (a, b, c), rng.uniform(0, 3))
            out.append(Structure(node, hu["muscle"] + 5, "lymph_node", ((4, 2.5),), 0.4, fat))
            if a > 3.5:  # the hilum of a large one is fat
                out.append(Structure(node.inset(0.6 * b), hu["fat"] + 40, None, (), 0.6, ("lymph_node",)))
    return out


def _sternum(patient: Patient, cavity: Loft) -> list[Structure]:
    rng, s = patient.rng("sternum"), patient.size
    sections = {}
    for z, (half, depth) in STERNUM.items():
        curve = at(cavity, z * s)
        y = curve[:, 1].min() - 5.5 * s
        plate = ellipse(0, y, half * s, depth * s, power=3.0, n=24)
        plate[:, 1] += 3.5 * s * (np.abs(plate[:, 0]) / (half * s)) ** 2  # bent backwards at its edges
        sections[z * s] = plate
    out = bone(patient, Loft(sections, dense=True), cortex_mm=1.4, cortex=0.7, marrow=0.6)
    for side in (-1, 1):
        head = Tube(
            mirrored(CLAVICLE, side) * s + (0, rng.normal(0, 1), rng.normal(0, 4)), np.array([11, 8, 6.5]) * s
        )
        out += bone(patient, head, cortex_mm=1.8, cortex=0.9)
    return out
