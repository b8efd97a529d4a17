"""Between the lungs: heart, great vessels, airways, oesophagus, lymph nodes, and the fat that holds them.

Frame as in `chest`: mm for an average adult, x to the patient's left from the midline, vertebral bodies at
y = 36, the carina at z = 36. Vessels and bronchi are tubes that run through all slices; the heart's chambers
are kneaded ellipsoids inside the pericardium.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alden_lite.phantom.painting import Grain, Structure
from alden_lite.phantom.parts import jitter
from alden_lite.phantom.patient import Patient
from alden_lite.phantom.shapes import Curve, Ellipsoid, Loft, Shape, Tube, Union, ellipse

__all__ = ["fat_pad", "hila", "mediastinum", "pericardium"]

Point = tuple[float, float, float]
BLOOD: tuple[Grain, ...] = ((4, 4.0),)
FATTY: tuple[Grain, ...] = ((9, 4.0), (6, 1.6))
SOFT = ("lung", "lung_vessel", "airway", "nodule", "visceral_fat")  # what heart and fat may push aside

# ---------------------------------------------------------------- anatomy
# Fat around the spine and between the lungs, without what bulges into it: z -> left half, front to back
MEDIASTINUM = {
    95: [(3, -66), (24, -52), (28, -24), (20, -6), (13, 12), (20, 26), (25, 52), (24, 74)],
    60: [(2, -84), (9, -68), (22, -42), (22, -12), (14, 12), (21, 28), (25, 54), (24, 76)],
    30: [(2, -92), (4, -74), (12, -48), (18, -16), (13, 10), (21, 28), (25, 56), (24, 78)],
    -10: [(2, -99), (4, -82), (14, -50), (20, -16), (13, 8), (21, 27), (25, 57), (24, 78)],
    -90: [(4, -107), (16, -93), (28, -56), (22, -14), (12, 4), (21, 27), (25, 57), (24, 78)],
}

# Vessels: label, tissue, path, radius at every point of it; from the head down or with the blood
VESSELS: dict[str, tuple[str, str, list[Point], list[float]]] = {
    "superior_vena_cava": ("vena_cava", "vein",
        [(-24, -40, 74), (-27, -36, 50), (-30, -32, 20), (-32, -30, -14)], [8, 9, 9.5, 11]),
    "left_brachiocephalic_vein": ("vena_cava", "vein",
        [(44, -46, 116), (28, -52, 94), (4, -54, 82), (-24, -40, 72)], [6, 6.5, 7, 7.5]),
    "right_brachiocephalic_vein": ("vena_cava", "vein",
        [(-36, -40, 120), (-30, -40, 95), (-24, -39, 72)], [6.5, 7, 8]),
    "inferior_vena_cava": ("vena_cava", "vein",
        [(-27, -26, -62), (-27, -20, -80), (-24, -14, -125)], [11, 12, 12.5]),
    "brachiocephalic_trunk": ("aorta", "artery",
        [(-3, -36, 66), (-9, -34, 84), (-16, -32, 120)], [6.5, 6, 5.5]),
    "left_carotid": ("aorta", "artery", [(7, -24, 68), (9, -26, 90), (14, -28, 120)], [4.5, 3.8, 3.5]),
    "left_subclavian": ("aorta", "artery", [(16, -8, 66), (20, -10, 90), (30, -16, 120)], [5.5, 4.8, 4.5]),
    "aorta": ("aorta", "artery",
        [(5, -42, -38), (-8, -42, -16), (-15, -43, 8), (-14, -42, 30), (-7, -40, 48), (3, -32, 56),
         (12, -16, 58), (18, -2, 54), (21, 9, 42), (21.5, 15, 25), (21, 17, 0), (19, 15, -45),
         (13, 9, -85), (9, 7, -120)],
        [14, 16, 15.5, 15, 14.2, 13.5, 12.8, 12.5, 12.2, 12, 11.8, 11.5, 11, 10.5]),
    "pulmonary_trunk": ("pulmonary_artery", "lung_artery",
        [(22, -54, -26), (22, -50, -8), (20, -40, 10), (18, -28, 20)], [12, 13.5, 13.5, 12.5]),
    "left_pulmonary_artery": ("pulmonary_artery", "lung_artery",
        [(18, -28, 20), (28, -14, 25), (39, 0, 22), (45, 8, 8), (46, 13, -14)], [12.5, 11.5, 10.5, 8.5, 6]),
    "right_pulmonary_artery": ("pulmonary_artery", "lung_artery",
        [(18, -28, 19), (2, -20, 15), (-20, -16, 11), (-38, -10, 8), (-45, 0, -4), (-47, 8, -22)],
        [12, 11, 10.5, 9, 7.5, 5.5]),
    "right_upper_artery": ("pulmonary_artery", "lung_artery",
        [(-28, -15, 12), (-40, -14, 24), (-48, -14, 36)], [7, 5.5, 4]),
    "azygos": ("small_vessel", "vein",
        [(-5, 15, -120), (-6, 17, -40), (-7, 16, 30), (-11, 13, 46), (-20, 2, 52), (-25, -16, 51),
         (-26, -32, 49)],
        [3, 3.4, 3.8, 4.2, 4.4, 4.6, 5]),
}  # fmt: skip
HILAR_ARTERIES = ("left_pulmonary_artery", "right_pulmonary_artery", "right_upper_artery")
LEFT_UPPER_ARTERY = (42, 2, 24)  # leaves the left pulmonary artery where that crosses the bronchus
PULMONARY_VEINS = [  # from the left atrium to the lung
    [(24, -14, -20), (40, -16, -10), (50, -22, 4)], [(24, -10, -34), (40, -4, -36), (52, 6, -44)],
    [(-20, -14, -20), (-38, -18, -12), (-50, -26, 2)], [(-20, -10, -34), (-38, -4, -38), (-52, 6, -46)],
]  # fmt: skip
AIRWAYS: dict[str, tuple[list[Point], list[float]]] = {  # path, radius of the lumen
    "trachea": ([(-1, -14, 120), (-3, -8, 80), (-3, -4, 55), (-3, -1, 36)], [9.0, 9.0, 9.0, 9.4]),
    "right_bronchus": ([(-3, -1, 38), (-14, 2, 27), (-25, 4, 17), (-31, 4, 2), (-35, 10, -20),
                        (-42, 18, -40)], [7.4, 7.2, 6.6, 5.4, 4.4, 3]),
    "right_upper_lobe": ([(-16, 2, 25), (-34, 1, 28), (-46, -1, 32)], [4.8, 4.2, 3.2]),
    "middle_lobe": ([(-31, 4, 0), (-40, -8, -10), (-50, -22, -20)], [3, 3, 2.2]),
    "left_bronchus": ([(-3, -1, 38), (12, 3, 24), (28, 6, 11), (36, 8, 3), (42, 15, -14), (48, 22, -36)],
                      [7.2, 6.6, 6, 5.2, 4.4, 3]),
    "left_upper_lobe": ([(32, 7, 7), (42, -2, 4), (50, -12, 4)], [4.6, 4, 3]),
}  # fmt: skip
ESOPHAGUS = [(4, 8, 120), (3, 11, 60), (5, 10, 25), (6, 8, -15), (9, 2, -60), (12, -4, -90), (16, -10, -120)]
NODES = [(-12, 2, 58), (-14, -24, 50), (10, -2, 40), (2, 6, 20), (-4, -58, 66), (24, 2, 34), (-30, -4, 20),
         (40, -8, 12), (30, -52, 90)]  # fmt: skip

# The pericardium: z -> 11 points, from the right border over the front to the left
PERICARDIUM = {
    12: [(-30, -30), (-31, -44), (-27, -56), (-10, -62), (20, -60), (34, -50), (34, -36), (26, -24),
         (10, -18), (-8, -22), (-24, -24)],
    -25: [(-50, -32), (-46, -54), (-28, -74), (8, -82), (42, -76), (62, -56), (64, -30), (46, -10), (24, 2),
          (-8, 2), (-38, -8)],
    -60: [(-52, -38), (-48, -64), (-22, -83), (16, -88), (54, -82), (82, -58), (84, -32), (62, -10), (30, 1),
          (-8, 1), (-40, -12)],
    -95: [(-46, -40), (-42, -64), (-18, -84), (18, -90), (58, -84), (84, -62), (86, -40), (64, -20), (34, -8),
          (-2, -6), (-34, -16)],
}  # fmt: skip
# label, blood, centre, half-axes, angle in the slice, thickness of the wall around it
CHAMBERS: dict[str, tuple[str, str, Point, Point, float, float]] = {
    "left_atrium": ("heart_left", "artery", (1, -12, -36), (32, 13.5, 28), 0.05, 2.2),
    "right_atrium": ("heart_right", "lung_artery", (-29, -40, -48), (18, 25, 42), 0.15, 2.2),
    "left_appendage": ("heart_left", "artery", (37, -32, -8), (7, 12, 13), 0.3, 1.6),
    "right_appendage": ("heart_right", "lung_artery", (-25, -58, -16), (9, 11, 15), -0.5, 1.6),
    "right_ventricle": ("heart_right", "lung_artery", (14, -62, -64), (39, 18, 46), -0.36, 3.5),
    "left_ventricle": ("heart_left", "artery", (47, -34, -66), (34, 18.5, 37), -0.66, 9.5),
}
CRUX: tuple[Point, Point, float] = ((6, -33, -50), (19, 16, 28), -0.4)  # where septa and valve rings meet
OUTFLOW = [(12, -66, -46), (20, -62, -30), (23, -54, -18)]  # of the right ventricle
PAPILLARY = [(56, -28, -80), (46, -46, -80)]
CORONARIES = {
    "right": [(-6, -56, -26), (-20, -68, -34), (-25, -72, -52), (-18, -66, -78), (-4, -48, -98)],
    "descending": [(16, -44, -22), (32, -60, -28), (48, -70, -44), (60, -74, -66), (68, -72, -95)],
    "circumflex": [(16, -42, -22), (30, -26, -26), (40, -12, -38), (44, -8, -60), (34, -6, -84)],
}


# ---------------------------------------------------------------- building
def mediastinum(patient: Patient) -> list[Structure]:
    """All that lies between the lungs, in painting order; paint the lungs first."""
    return [
        *_fat(patient),
        *_nodes(patient),
        *_heart(patient),
        *_great_vessels(patient),
        *_airways(patient),
    ]


def hila(patient: Patient) -> tuple[Curve, Curve]:
    """Where arteries enter and veins leave the lungs: (4, 3) and (4, 3) in mm."""
    arteries = [*(VESSELS[name][2][-1] for name in HILAR_ARTERIES), LEFT_UPPER_ARTERY]
    return _placed(patient, arteries), _placed(patient, [path[-1] for path in PULMONARY_VEINS])


def _placed(patient: Patient, points: Sequence[Sequence[float]] | Curve) -> Curve:
    """Table points (K, 3) in this patient: in no two does the heart lie at quite the same place."""
    shift = patient.rng("situs").normal(0, [2.0, 1.5, 6.0])
    return (np.asarray(points, float) + shift) * patient.size


def fat_pad(patient: Patient) -> Loft:
    """The septum of fat from breastbone to spine, wider in front in the stout and in the young (thymus)."""
    rng, s = patient.rng("mediastinal fat"), patient.size
    plump = np.ones(8)
    plump[:2] = np.minimum(rng.uniform([0.5, 0.6], [2.5, 1.8]) * (0.9 + patient.fat_mm / 180), 2.5)
    shift = rng.normal(0, 1.0, (8, 2))
    sections = {}
    for z, points in MEDIASTINUM.items():
        half = (np.array(points) * np.stack([plump, np.ones(8)], 1) + shift) * s
        sections[z * s] = np.vstack([half * (-1, 1), half[::-1]])
    return Loft(sections)


def pericardium(patient: Patient) -> Loft:
    """The sac around the heart; hearts grow with age."""
    rng, s = patient.rng("heart"), patient.size
    shift = rng.normal((0, 1), 1.2, (11, 2))
    scale = rng.uniform(0.93, 1.04) + 0.0012 * (patient.age - 55)
    sections = {}
    for z, points in PERICARDIUM.items():
        p = _placed(patient, [(x, y, z) for x, y in np.array(points) + shift])
        middle = p[:, :2].mean(0)
        sections[float(p[0, 2])] = middle + (p[:, :2] - middle) * scale
    top = max(sections)
    return Loft(sections, extent_mm=(top - 134 * s, top), cap_mm=(30 * s, 12 * s))


def _vessel(patient: Patient, name: str) -> Tube:
    """One vessel of the table; the aorta widens and winds with age."""
    label, _, path, radius = VESSELS[name]
    rng = patient.rng(name)
    old = max(patient.age - 50, 0) if label == "aorta" else 0.0
    wide = rng.uniform(0.92, 1.08) * (1 + 0.004 * old)
    course = _placed(patient, jitter(rng, path, 0.8 + 0.03 * old))
    return Tube(course, np.array(radius) * patient.size * wide)


def _fat(patient: Patient) -> list[Structure]:
    """The fat pad, cuffs of fat around all that bulges into the lungs or runs into the hila, strands."""
    s, fat = patient.size, patient.hu["fat"] + 6
    cuffs: list[Shape] = [_vessel(patient, name).inset(-2.6 * s) for name in VESSELS if name != "azygos"]
    cuffs += [Tube(_placed(patient, path), np.array(r) * s * 1.2 + 2.2) for path, r in AIRWAYS.values()]
    cuffs += [Tube(_placed(patient, path), 6.5 * s) for path in PULMONARY_VEINS]
    cuffs.append(Tube(_placed(patient, ESOPHAGUS), 9.0 * s))
    return [
        Structure(fat_pad(patient), fat, "visceral_fat", FATTY, 0.4, SOFT),
        Structure(Union(cuffs), fat, "visceral_fat", FATTY, 0.5, SOFT),
        *_strands(patient),
    ]


def _strands(patient: Patient) -> list[Structure]:
    """Small vessels and fibres in the fat; the young still have some thymus."""
    rng, s = patient.rng("mediastinal strands"), patient.size
    strands: list[Shape] = []
    for _ in range(110):
        at = rng.normal([2, -34, 0], [22, 30, 60]) * s
        strands.append(Tube(at + np.cumsum(rng.normal(0, 3.5, (4, 3)), 0), rng.uniform(0.35, 0.9), 1.5))
    out = [Structure(Union(strands), 10, None, ((10, 2.5),), 0.5, ("visceral_fat",), 0.7)]
    if patient.age < 60:
        gland = _kneaded(patient, rng, (2, -62, 42), (15, 9, 34), 0.2)
        out.append(Structure(gland, 20 - 1.6 * patient.age, None, ((16, 2.5),), 2.5, ("visceral_fat",), 0.55))
    return out


def _nodes(patient: Patient) -> list[Structure]:
    """Lymph nodes beside the trachea, under the carina and at the hila."""
    rng, s = patient.rng("lymph nodes"), patient.size
    out = []
    for place in _placed(patient, NODES):
        for _ in range(rng.integers(0, 3)):
            half = rng.uniform(2.0, 4.5) * np.array([1.3, 0.8, 1.4]) * rng.uniform(0.8, 1.2, 3) * s
            node = Ellipsoid(_triple(place + rng.normal(0, 5 * s, 3)), _triple(half), rng.uniform(0, 3))
            hu = patient.hu["muscle"] + 5
            out.append(Structure(node, hu, "lymph_node", ((4, 2.5),), 0.4, ("visceral_fat",)))
    return out


def _triple(values: np.ndarray) -> Point:
    x, y, z = map(float, values)
    return x, y, z


def _kneaded(
    patient: Patient, rng: np.random.Generator, centre: Point, half_axes: Point, angle: float
) -> Loft:
    """An ellipsoid as hands would knead it: every cut is a little irregular and leans."""
    (a, b, c), s = half_axes, patient.size
    x, y, z = _placed(patient, [centre])[0]
    lumps = rng.normal(0, 0.035, (5, 12, 1))
    sections = {}
    for k, u in enumerate((-1.0, -0.55, 0.0, 0.55, 1.0)):
        width = np.sqrt(1 - (0.8 * u) ** 2)
        lean = 0.12 * u * a * np.array([np.cos(angle), np.sin(angle)])
        ring = ellipse(0, 0, a * width, b * width, angle, power=2.15, n=12)
        sections[z + u * c * s] = (ring * (1 + lumps[k]) - lean) * s + (x, y)
    return Loft(sections, cap_mm=0.35 * c * s)


def _heart(patient: Patient) -> list[Structure]:
    """Pericardium, the fat in it, myocardium as the chambers' walls, the chambers, and what they hold."""
    rng, s, hu = patient.rng("chambers"), patient.size, patient.hu
    sac = pericardium(patient)
    outflow = Tube(_placed(patient, OUTFLOW), np.array([13, 12.5, 12]) * s)
    thick = rng.uniform(0.85, 1.15) * s
    chambers: list[Structure] = []
    walls: list[Shape] = [outflow.inset(-3.0 * s), _kneaded(patient, rng, *CRUX)]
    for label, blood, centre, half_axes, angle, wall in CHAMBERS.values():
        chamber = _kneaded(patient, rng, centre, half_axes, angle)
        chambers.append(Structure(chamber, hu[blood], label, BLOOD, 0.8))
        walls.append(chamber.inset(-wall * thick))
    muscle = ((5, 2.5), (3, 8.0))
    return [
        Structure(sac.inset(-1.0), 32, "visceral_fat", (), 0.4, SOFT),
        Structure(sac, hu["fat"] + 6, "visceral_fat", FATTY, 0.4),
        Structure(Union(walls), hu["heart_wall"], "heart_myocardium", muscle, 0.6),
        *chambers,
        Structure(outflow, hu["lung_artery"], "heart_right", BLOOD, 0.6),
        _papillary(patient),
        *_coronaries(patient),
    ]


def _papillary(patient: Patient) -> Structure:
    """Papillary muscles of the left ventricle, trabeculae at its apex and in the right one."""
    rng, s = patient.rng("papillary muscles"), patient.size
    parts: list[Shape] = [
        Ellipsoid(_triple(at), (4.5 * s, 3.4 * s, 20 * s), -0.6) for at in _placed(patient, PAPILLARY)
    ]
    for where in ((66, -50, -70), (2, -72, -80)):
        for at in _placed(patient, rng.normal(where, [7, 4, 14], (7, 3))):
            parts.append(Ellipsoid(_triple(at), (2.2 * s, 1.3 * s, 7 * s), rng.uniform(0, 3)))
    hu, inside = patient.hu["heart_wall"], ("heart_left", "heart_right")
    return Structure(Union(parts), hu, "heart_myocardium", ((5, 2.5),), 0.7, inside)


def _coronaries(patient: Patient) -> list[Structure]:
    """The three coronary arteries; from 55 on, in one of two, with calcified plaques."""
    rng, s = patient.rng("coronaries"), patient.size
    lines = [Tube(_placed(patient, jitter(rng, p, 0.8)), np.array([1.9, 1.8, 1.6, 1.4, 1.1]) * s)
             for p in CORONARIES.values()]  # fmt: skip
    out = [Structure(Union(lines), patient.hu["artery"], "small_vessel", BLOOD, 0.5)]
    if patient.age > 55 and rng.random() < 0.5:
        plaques: list[Shape] = []
        for line in lines:
            beads = line._beads[0]
            for start in rng.integers(0, len(beads) - 5, rng.integers(1, 5)):
                stretch = beads[start : start + rng.integers(3, 6)]
                plaques.append(Tube(stretch + rng.normal(0, 0.5, 3), rng.uniform(0.6, 1.4)))
        out.append(Structure(Union(plaques), rng.uniform(350, 800), "calcification", ((40, 1.6),), 0.4))
    return out


def _great_vessels(patient: Patient) -> list[Structure]:
    """Veins, arteries, their walls where they can be seen, plaques in the old aorta."""
    s, hu = patient.size, patient.hu
    # In one of three scans the arm's contrast medium is still on its way: dense veins above the heart.
    dense = 1.9 if patient.contrast and patient.rng("first pass").random() < 0.3 else 1.0
    out = [
        Structure(Tube(_placed(patient, path), np.array([6.5, 5.5, 4]) * s), hu["lung_artery"], "heart_left",
                  BLOOD, 0.5)
        for path in PULMONARY_VEINS
    ]  # fmt: skip
    for name, (label, tissue, _, _) in VESSELS.items():
        solid = _vessel(patient, name)
        blood = hu[tissue] * (dense if name in ("superior_vena_cava", "left_brachiocephalic_vein") else 1.0)
        if label == "aorta":
            out.append(Structure(solid, 0.7 * blood + 12, label, (), 0.35))
            solid = solid.inset(1.2)
        out.append(Structure(solid, blood, label, BLOOD, 0.4))
    return out + _aortic_calcium(patient)


def _aortic_calcium(patient: Patient) -> list[Structure]:
    rng = patient.rng("aortic calcium")
    if patient.age < 58 or rng.random() > 0.75:
        return []
    centre, radius = _vessel(patient, "aorta")._beads
    plaques: list[Shape] = []
    for k in rng.integers(34, len(centre), rng.integers(4, 22)):  # from the arch on
        turn = rng.uniform(0, 2 * np.pi) + np.linspace(0, rng.uniform(0.2, 0.8), 5)
        ring = 0.94 * radius[k] * np.stack([np.cos(turn), np.sin(turn), 0 * turn], 1)
        plaques.append(Tube(centre[k] + ring, rng.uniform(0.6, 1.4) * patient.size, rng.uniform(1, 3)))
    hu, inside = rng.uniform(450, 900), ("aorta", "visceral_fat")
    return [Structure(Union(plaques), hu, "calcification", ((40, 1.6),), 0.4, inside)]


def _airways(patient: Patient) -> list[Structure]:
    """The oesophagus, with air in one of two; trachea and bronchi, walls first so that the lumina join."""
    rng, s, hu = patient.rng("airways"), patient.size, patient.hu
    wide = rng.uniform(0.92, 1.08) * s
    lumina = [Tube(_placed(patient, path), np.array(radius) * wide) for path, radius in AIRWAYS.values()]
    course = _placed(patient, jitter(rng, ESOPHAGUS, 0.8))
    gullet = Tube(course, rng.uniform(5.5, 7.0) * s)
    out = [Structure(gullet, hu["gut_wall"] * 0.8, "esophagus", ((5, 2.5),), 0.5)]
    if rng.random() < 0.5:
        bubble = Tube(course[1:5] - (0, 1, 0), [0.1, 2.2, 0.6, 1.5])
        out.append(Structure(bubble, -800, "esophagus", (), 0.5, ("esophagus",)))
    return [
        *out,
        Structure(Union([lumen.inset(-1.5) for lumen in lumina]), 55, "airway", ((8, 1.6),), 0.4),
        Structure(Union(lumina), -990, "airway", ((5, 2.5),), 0.35),
    ]
