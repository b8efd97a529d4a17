"""The shoulders, arms at the side: two humeral heads, the widest and most opaque slice of a body.

Rays from side to side cross both shoulders, so few photons arrive and low dose turns into streaks. Frame: mm
for an average adult, x = 0 the midline, vertebral bodies at y = 29, z = 0 the middle of the humeral heads.
Tables hold the patient's left side. Proportions were read off a public scan, LIDC-IDRI-0001.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from alden_lite.phantom.lungs import pulmonary_trees
from alden_lite.phantom.painting import Structure
from alden_lite.phantom.parts import MUSCLE, bone, fat_septa, jitter, spine, under_the_skin
from alden_lite.phantom.patient import Patient
from alden_lite.phantom.shapes import Curve, Ellipsoid, Loft, Shape, Tube, Union, mirrored, spline, stadium

EXTENT_MM = (-30.0, 30.0)
SPINE_Y = 29.0
Point = tuple[float, float, float]
UNDER_SKIN = ("subcutaneous_fat", "visceral_fat", "muscle")

# ---------------------------------------------------------------- anatomy
# Skin without fat, left half, front to back
BODY = {
    -50: [(0, -68), (50, -76), (110, -80), (165, -72), (202, -50), (217, -8), (205, 40), (158, 68), (100, 79),
          (50, 86), (0, 84)],
    0: [(0, -59), (50, -68), (110, -72), (158, -66), (193, -48), (207, -8), (195, 38), (150, 66), (98, 76),
        (48, 82), (0, 81)],
    18: [(0, -56), (44, -58), (84, -52), (128, -57), (166, -46), (201, -8), (188, 34), (142, 61), (92, 72),
         (46, 80), (0, 79)],
    45: [(0, -52), (40, -48), (78, -16), (124, -36), (166, -37), (184, -8), (172, 26), (126, 50), (84, 66),
         (44, 77), (0, 77)],
}  # fmt: skip

# Muscles, left side: z -> outline; a muscle ends where its first and last heights lie
MUSCLES: dict[str, dict[int, list[tuple[float, float]]]] = {
    "deltoid": {
        -60: [(150, -60), (178, -58), (202, -38), (212, -6), (204, 32), (176, 52), (156, 52), (168, 34),
              (188, 16),
              (192, -10), (182, -34), (160, -46)],
        0: [(122, -60), (156, -63), (188, -46), (203, -8), (192, 34), (162, 58), (140, 60), (152, 44),
            (180, 26),
            (192, -6), (178, -36), (146, -46)],
        40: [(120, -42), (146, -46), (172, -34), (184, -8), (172, 22), (146, 40), (132, 44), (144, 28),
             (162, 14),
             (170, -8), (158, -26), (138, -30)]},
    "pectoralis_major": {
        -60: [(10, -66), (50, -74), (100, -76), (146, -66), (150, -52), (110, -58), (60, -59), (14, -56)],
        -5: [(34, -62), (60, -68), (96, -70), (124, -62), (124, -50), (96, -56), (62, -58), (38, -56)],
        12: [(60, -62), (76, -66), (98, -66), (118, -59), (116, -52), (98, -55), (78, -58), (64, -58)]},
    "pectoralis_minor": {
        -60: [(78, -57), (104, -55), (124, -44), (118, -34), (98, -40), (80, -47)],
        14: [(112, -46), (122, -46), (130, -40), (128, -34), (120, -36), (113, -40)]},
    "coracobrachialis": {
        -60: [(138, -36), (152, -38), (164, -28), (160, -18), (146, -18), (137, -26)],
        8: [(126, -46), (138, -46), (148, -36), (146, -28), (134, -30), (126, -37)]},
    "subscapularis": {
        -60: [(148, -16), (122, -12), (98, 10), (86, 38), (92, 50), (110, 34), (128, 18), (146, 2)],
        0: [(150, -28), (122, -22), (90, 4), (66, 40), (72, 50), (98, 30), (124, 6), (140, -10)],
        24: [(136, -18), (120, -14), (98, 4), (80, 32), (86, 40), (104, 24), (124, 4), (134, -8)]},
    "infraspinatus": {
        -60: [(156, 10), (140, 16), (116, 36), (94, 54), (98, 66), (122, 64), (146, 46), (162, 24)],
        0: [(164, 24), (142, 14), (104, 38), (74, 57), (80, 67), (112, 63), (144, 50), (166, 36)],
        14: [(150, 28), (136, 20), (108, 40), (86, 55), (92, 63), (112, 59), (136, 48), (152, 36)]},
    "teres_and_triceps": {
        -60: [(164, 14), (150, 22), (138, 44), (150, 52), (170, 46), (188, 30), (184, 16), (174, 8)],
        -14: [(160, 30), (152, 34), (146, 44), (150, 50), (160, 48), (172, 40), (174, 32), (168, 28)]},
    "supraspinatus": {
        2: [(142, 2), (118, 8), (92, 28), (78, 47), (90, 56), (114, 46), (132, 32), (148, 14)],
        50: [(142, -20), (114, -16), (82, 8), (66, 38), (82, 52), (112, 38), (136, 20), (150, -4)]},
    "serratus_anterior": {
        -60: [(92, -22), (98, 4), (92, 30), (78, 50), (72, 46), (84, 24), (88, 2), (84, -20)],
        8: [(68, -16), (76, 4), (72, 24), (62, 40), (54, 38), (62, 20), (66, 4), (62, -14)]},
    "trapezius": {
        -60: [(3, 76), (36, 76), (72, 75), (104, 68), (103, 75), (72, 81), (36, 83), (3, 82)],
        0: [(3, 68), (40, 66), (84, 66), (126, 56), (130, 66), (88, 75), (40, 77), (3, 77)],
        50: [(3, 60), (34, 56), (66, 40), (104, 16), (118, 26), (84, 56), (40, 71), (3, 71)]},
    "rhomboid_and_levator": {
        -60: [(24, 65), (50, 65), (82, 56), (86, 64), (54, 73), (24, 73)],
        0: [(30, 58), (50, 54), (70, 46), (77, 56), (54, 64), (30, 64)],
        50: [(40, 12), (54, 6), (64, 14), (62, 28), (50, 36), (41, 26)]},
    "erector": {
        -60: [(5, 58), (14, 50), (36, 50), (50, 57), (36, 66), (6, 74)],
        0: [(5, 54), (14, 45), (36, 43), (48, 52), (38, 61), (6, 67)],
        50: [(4, 48), (12, 36), (34, 29), (48, 38), (38, 53), (5, 65)]},
    "multifidus": {
        -60: [(4, 46), (10, 44), (24, 46), (20, 54), (8, 60), (4, 56)],
        50: [(4, 38), (10, 34), (24, 30), (20, 42), (8, 50), (4, 46)]},
    "scalenes": {
        -8: [(40, -18), (50, -20), (58, -8), (54, 2), (44, 0), (38, -8)],
        20: [(28, -10), (40, -13), (50, -4), (48, 12), (36, 18), (26, 6)],
        50: [(20, -4), (32, -8), (40, 0), (38, 14), (28, 20), (20, 10)]},
    "longus_colli": {
        -60: [(4, 12), (9, 11), (13, 15), (12, 19), (7, 18), (4, 15)],
        50: [(3, 12), (9, 8), (16, 12), (15, 19), (8, 18), (3, 16)]},
    "sternocleidomastoid": {
        -24: [(10, -56), (20, -57), (28, -52), (26, -46), (18, -47), (10, -50)],
        50: [(26, -47), (40, -44), (48, -32), (44, -22), (32, -28), (25, -38)]},
    "strap_muscles": {
        -40: [(2, -47), (14, -47), (23, -41), (21, -36), (12, -39), (2, -40)],
        50: [(2, -47), (10, -47), (19, -40), (19, -34), (10, -38), (2, -40)]},
    "omohyoid": {
        10: [(66, -32), (76, -32), (84, -24), (82, -18), (74, -22), (66, -27)],
        50: [(46, -36), (54, -36), (60, -29), (58, -24), (51, -27), (46, -31)]},
}  # fmt: skip

# The lung's apex: centre and half-axes; then bones: path, half-thickness, aspect
APEX: tuple[Point, Point] = ((41, 5, -40), (38, 42, 54))
BONES: dict[str, tuple[list[Point], list[float], float]] = {
    "first_rib": ([(16, 37, 10), (34, 42, 11), (56, 28, 4), (66, 2, -6), (62, -28, -16), (40, -46, -28)],
                  [4.6, 4.4, 5, 5.5, 5.5, 5.5], 0.8),
    "second_rib": ([(16, 38, -16), (36, 48, -14), (66, 44, -20), (85, 16, -30), (88, -14, -42),
                    (66, -46, -56)],
                   [4.2, 4, 3.6, 3.4, 3.4, 3.6], 1.7),
    "third_rib": ([(16, 39, -42), (38, 52, -40), (74, 50, -46), (98, 24, -58)], [4.2, 4, 3.5, 3.4], 1.8),
    "clavicle": ([(20, -53, -24), (48, -60, -8), (86, -53, 6), (122, -38, 17), (154, -26, 24)],
                 [9.5, 6.8, 5.6, 5.6, 6.4], 1.0),
    "scapular_spine": ([(76, 60, 0), (106, 62, 9), (140, 54, 19), (168, 30, 28), (176, 2, 31),
                        (166, -14, 31)],
                       [3, 4.2, 5.2, 6.5, 6.5, 5], 0.9),
    "coracoid": ([(130, -4, 18), (124, -20, 22), (130, -36, 15), (134, -42, 8)], [6.5, 6.2, 5.5, 4.5], 1.0),
}  # fmt: skip
# The blade of the scapula: z -> path from the glenoid inwards, half-thickness
BLADE = {
    -60: ([(132, 8), (124, 18), (110, 36), (98, 52)], [4.0, 3.0, 1.8, 2.2]),
    -22: ([(140, 3), (126, 14), (104, 34), (84, 52)], [6.5, 4.0, 2.0, 2.4]),
    0: ([(140, -2), (126, 8), (102, 32), (76, 54)], [8.5, 6.0, 2.0, 2.4]),
    18: ([(138, -4), (124, 8), (106, 28), (88, 46)], [8.0, 6.5, 2.2, 2.2]),
    30: ([(130, -2), (122, 8), (110, 24), (96, 40)], [5.0, 4.0, 2.0, 1.8]),
}
GLENOID: tuple[Point, Point, float] = ((139, -2, 2), (5.5, 15, 19), 0.12)
HUMERUS_HEAD: tuple[Point, Point] = ((165, -8, 3), (24.5, 24.5, 25))
TUBERCLE: tuple[Point, Point] = ((181, -16, -2), (10, 13, 18))
SHAFT: list[Point] = [(172, -8, -120), (171, -9, -48), (168, -10, -12)]

VESSELS: dict[str, tuple[str, list[Point], list[float]]] = {  # tissue, path, radius
    "carotid": ("artery", [(12, -22, -60), (17, -22, -10), (23, -22, 60)], [4.2, 3.8, 3.6]),
    "subclavian_artery": ("artery", [(14, -8, -60), (20, -12, -20), (32, -18, 2), (54, -22, 7), (84, -30, -4),
                                     (112, -30, -22), (138, -22, -60)], [5.2, 5, 4.8, 4.5, 4.2, 4, 3.6]),
    "vertebral_artery": ("artery", [(26, -10, -6), (22, 4, 14), (19, 16, 60)], [2.4, 2.2, 2]),
    "jugular": ("vein", [(20, -36, -26), (26, -31, 0), (31, -26, 60)], [7.5, 6.2, 5.6]),
    "subclavian_vein": ("vein", [(18, -38, -30), (46, -42, -16), (82, -40, -10), (112, -38, -26),
                                 (136, -30, -60)],
                        [7.5, 6.5, 6, 5.4, 4.6]),
    "brachiocephalic_vein": ("vein", [(19, -37, -26), (14, -38, -60)], [8, 8]),
    "suprascapular": ("artery", [(60, -16, 20), (96, 0, 24), (124, 16, 20)], [1.4, 1.4, 1.2]),
    "cephalic_vein": ("vein", [(108, -50, 4), (130, -58, -20), (150, -66, -60)], [1.8, 2, 2.2]),
    "circumflex": ("artery", [(140, -24, -34), (156, 12, -26), (186, 18, -22)], [1.8, 1.6, 1.2]),
}  # fmt: skip
NECK_FAT = {-60: [(0, -52), (26, -48), (40, -30), (36, 10), (14, 20), (0, 20)],
            50: [(0, -46), (24, -40), (40, -20), (40, 6), (18, 22), (0, 22)]}  # fmt: skip
NODES: list[Point] = [
    (104, -14, -24),
    (112, -10, -10),
    (96, -26, -28),
    (60, -34, 14),
    (46, -24, 20),
    (36, -34, 24),
]


# ---------------------------------------------------------------- building
def build(patient: Patient) -> list[Structure]:
    """The shoulders' structures in painting order, drawn once for the whole region."""
    body = _body(patient)
    x = float(patient.rng("shoulder spine").normal(0, 2))
    first_thoracic = replace(patient, size=1.25 * patient.size)  # like the lowest of the neck, but larger
    return [
        *under_the_skin(patient, body),
        fat_septa(patient, body.section(0)[0], n=40, z_range=EXTENT_MM),
        *_neck_fat(patient),
        *_muscles(patient),
        *_lungs(patient),
        *_vessels(patient),
        *_neck(patient),
        *spine(first_thoracic, "cervical", x=x, y=SPINE_Y * patient.size, z_range=EXTENT_MM),
        *_bones(patient),
    ]


def _scaled(patient: Patient, points: object, side: int = 1, mm: float = 0.0, purpose: str = "") -> Curve:
    """Table points of one side in this patient's size, moved at random by `mm`."""
    p = mirrored(np.asarray(points, float), side)
    return (jitter(patient.rng(f"{purpose} {side}"), p, mm) if mm else p) * patient.size


def _body(patient: Patient) -> Loft:
    rng, s = patient.rng("shoulder skin"), patient.size
    slope = rng.normal(0, 3)  # of the shoulders
    sections = {}
    for z, half in BODY.items():
        left = np.array(half, float) + rng.normal(0, 1.0, (len(half), 2))
        left[0, 0] = left[-1, 0] = 0.0
        both = np.vstack([left, (left * (-1, 1))[-2:0:-1]]) * s
        depth = 5 + patient.fat_mm * rng.uniform(0.42, 0.5)
        sections[(z + slope) * s] = _grown(spline(both), depth)
    return Loft(sections, dense=True)


def _grown(curve: Curve, depth: float) -> Curve:
    """Outwards by a depth: more in front and behind than at the sides."""
    middle = curve.mean(0)
    away = curve - middle
    distance = np.linalg.norm(away, axis=1, keepdims=True)
    return middle + away * (1 + depth / distance)


def _neck_fat(patient: Patient) -> list[Structure]:
    s = patient.size
    sections = {}
    for z, half in NECK_FAT.items():
        p = np.array(half, float)
        sections[z * s] = np.vstack([p, (p * (-1, 1))[-2:0:-1]]) * s
    return [Structure(Loft(sections), patient.hu["fat"] + 8, "visceral_fat", ((9, 4.0), (7, 1.6)), 0.5)]


def _muscles(patient: Patient) -> list[Structure]:
    rng, s, hu = patient.rng("shoulder muscles"), patient.size, patient.hu
    out = []
    thin = 0.02 * max(patient.age - 50, 0) + (0.6 if patient.female else -1.0)  # fat planes widen with age
    for side in (-1, 1):
        for name, heights in MUSCLES.items():
            sections = {z * s: _scaled(patient, p, side, 1.3, f"{name} {z}") for z, p in heights.items()}
            belly = Loft(sections, cap_mm=7.0 * s).inset(0.5 * thin)
            out.append(Structure(belly, hu["muscle"] + rng.normal(0, 3), "muscle", MUSCLE, 0.5, UNDER_SKIN))
    return [*out, _streaks(patient)]


def _streaks(patient: Patient) -> Structure:
    """Fat between the bundles of muscles, along their course."""
    rng, s = patient.rng("streaks"), patient.size
    streaks: list[Shape] = []
    for _ in range(260):
        side = int(rng.choice([-1, 1]))
        at = np.array([side * rng.uniform(10, 205), rng.uniform(-70, 76), rng.uniform(*EXTENT_MM)]) * s
        course = np.array([rng.normal(0, 6), rng.normal(0, 6), rng.normal(0, 5)])
        path = np.stack([at, at + course + rng.normal(0, 1, 3), at + 2.2 * course])
        streaks.append(Tube(path, rng.uniform(0.3, 0.9), 6, smooth=False))
    return Structure(Union(streaks), -55, None, blur_mm=0.4, inside=("muscle",), opacity=0.8)


def _lungs(patient: Patient) -> list[Structure]:
    """Apices in their shell of ribs and muscle, with the last branches of the vessels."""
    rng, s, hu = patient.rng("apices"), patient.size, patient.hu
    out: list[Structure] = []
    trees = []
    for side in (-1, 1):
        centre, half = np.array(APEX) * s * rng.normal(1, 0.03, (2, 3))
        x, y, z = centre * (side, 1, 1)
        a, b, c = half
        lung = Ellipsoid((x, y, z), (a, b, c), power=2.2)
        shell = Ellipsoid((x, y, z), (a + 4 * s, b + 4 * s, c + 1), power=2.2)
        out += [
            Structure(shell, hu["muscle"], "muscle", MUSCLE, 0.5),
            Structure(lung.inset(-1.5), hu["fat"] + 50, None, ((15, 2.5),), 0.6, opacity=0.6),
            Structure(lung, hu["lung"] + 15, "lung", ((13, 4.0), (17, 1.6)), 0.4, slope_hu_per_mm=0.3),
        ]
        places = rng.normal(0, 1, (900, 3))
        places *= rng.uniform(0, 1, (900, 1)) ** 0.4 * 0.93 / np.linalg.norm(places, axis=1, keepdims=True)
        places = places * (a, b, c) + (x, y, z)
        trees.append((np.array([x - side * 12 * s, y, z - 45 * s]), places[places[:, 2] > z - 10 * s]))
    halves = [(start, places[: len(places) // 2]) for start, places in trees]
    others = [(start, places[len(places) // 2 :]) for start, places in trees]
    return out + pulmonary_trees(patient, arteries=halves, veins=others)


def _vessels(patient: Patient) -> list[Structure]:
    """Neck and arm vessels; in one of four contrast scans one arm's vein is still dense."""
    rng, s, hu = patient.rng("shoulder vessels"), patient.size, patient.hu
    dense_side = int(rng.choice([-1, 1])) if patient.contrast and rng.random() < 0.25 else 0
    out = []
    for side in (-1, 1):
        for name, (tissue, path, radius) in VESSELS.items():
            blood = hu[tissue] * (1.9 if side == dense_side and name == "subclavian_vein" else 1.0)
            tube = Tube(
                _scaled(patient, path, side, 1.0, name), np.array(radius) * s * rng.uniform(0.88, 1.1)
            )
            label = "vena_cava" if name == "brachiocephalic_vein" else "small_vessel"
            out.append(Structure(tube, blood, label, ((4, 2.5),), 0.45, UNDER_SKIN))
        for x, y, z in np.repeat(np.array(NODES), rng.integers(0, 3, len(NODES)), 0):
            at = (np.array([side * x, y, z]) + rng.normal(0, 5, 3)) * s
            a, b, c = rng.uniform(2, 4.2) * np.array([1.3, 0.8, 1.4])
            node = Ellipsoid((at[0], at[1], at[2]), (a, b, c), rng.uniform(0, 3))
            out.append(Structure(node, hu["muscle"] + 5, "lymph_node", ((4, 2.5),), 0.4, UNDER_SKIN[:2]))
    return out


def _neck(patient: Patient) -> list[Structure]:
    """Trachea and oesophagus."""
    rng, s, hu = patient.rng("neck"), patient.size, patient.hu
    lean = rng.normal(0, 2)
    course = np.array([(-2, -10, -70), (lean, -16, 0), (lean, -24, 60)]) * s
    trachea = Tube(course, rng.uniform(8.2, 9.8) * s)
    gullet = np.array([(3, 6, -70), (lean + 4, 2, 0), (lean + 3, -6, 60)]) * s
    return [
        Structure(
            Tube(gullet, rng.uniform(5.0, 6.5) * s), 0.8 * hu["gut_wall"], "esophagus", ((5, 2.5),), 0.5
        ),
        Structure(trachea.inset(-1.7), 60, "airway", ((8, 1.6),), 0.4),
        Structure(trachea, -990, "airway", ((5, 2.5),), 0.35),
    ]


def _bones(patient: Patient) -> list[Structure]:
    out: list[Structure] = []
    manubrium = Loft(
        {-80: [(-26, -56), (0, -60), (26, -56), (24, -47), (0, -47), (-24, -47)],
         -26: [(-27, -53), (0, -56), (27, -53), (24, -45), (0, -44), (-24, -45)]}, cap_mm=(0, 6)
    )  # fmt: skip
    sections = {
        z * patient.size: p * patient.size for z, p in zip(manubrium.heights, manubrium.points, strict=True)
    }
    out += bone(patient, Loft(sections, cap_mm=(0.0, 6.0)), cortex_mm=1.5, cortex=0.7, marrow=0.7)
    for side in (-1, 1):
        out += _scapula(patient, side)
        for name, (path, radius, aspect) in BONES.items():
            tube = Tube(_scaled(patient, path, side, 0.8, name), np.array(radius) * patient.size, aspect)
            out += bone(patient, tube, cortex_mm=1.5, cortex=0.9, marrow=0.8)
        out += _humerus(patient, side)
    return out


def _scapula(patient: Patient, side: int) -> list[Structure]:
    s = patient.size
    sections = {}
    for z, (path, half) in BLADE.items():
        line = spline(_scaled(patient, path, side, 0.6, f"blade {z}"), closed=False, per_span=6)
        width = np.interp(np.linspace(0, 1, len(line)), np.linspace(0, 1, len(half)), half) * s
        sections[z * s] = stadium(line, width)
    place, half_axes, angle = GLENOID
    x, y, height = np.array(place) * s
    a, b, c = np.array(half_axes) * s
    socket = Ellipsoid((side * x, y, height), (a, b, c), side * angle)
    return bone(patient, Union([Loft(sections, dense=True), socket]), cortex_mm=1.6, cortex=0.95, marrow=0.85)


def _humerus(patient: Patient, side: int) -> list[Structure]:
    """Head with cartilage towards the socket, tubercle and shaft as one bone; the shaft's marrow is fat."""
    s, hu = patient.size, patient.hu
    solids: list[Shape] = []
    for (x, y, z), half_axes in (HUMERUS_HEAD, TUBERCLE):
        a, b, c = np.array(half_axes) * s
        solids.append(Ellipsoid((side * x * s, y * s, z * s), (a, b, c)))
    shaft = Tube(_scaled(patient, SHAFT, side), np.array([11.5, 13.5, 19.0]) * s)
    whole = Union([*solids, shaft])
    fat = ("subcutaneous_fat", "muscle")
    return [
        Structure(solids[0].inset(-2.0 * s), 75, "disc_cartilage", ((8, 2.5),), 0.5, fat),
        *bone(patient, whole, cortex_mm=2.0, cortex=0.95, marrow=1.05),
        Structure(
            shaft.inset(6.5 * s), 0.35 * hu["marrow"], "bone_marrow", ((18, 2.5),), 2.5, ("bone_marrow",)
        ),
    ]
