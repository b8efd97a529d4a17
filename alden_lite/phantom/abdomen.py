"""The abdomen, from the liver's dome to the fourth lumbar vertebra.

Anatomy is in the tables, in mm of an average adult: x to the left, y to the back, z to the head. The code
below makes solids of them, fits them to a patient and orders them for the painter. What no table can hold
is grown: trees of vessels, the lobules of the pancreas, and the small bowel in the room that is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from alden_lite.phantom.loops import Room, hollow, resampled, winding
from alden_lite.phantom.painting import Grain, Structure
from alden_lite.phantom.parts import FAT, gut, spine, vessel_tree
from alden_lite.phantom.patient import Patient
from alden_lite.phantom.ribs import ribs
from alden_lite.phantom.shapes import Ellipsoid, Loft, Shape, Tube, Union, ellipse
from alden_lite.phantom.torso import (
    BLOOD,
    EXTENT_MM,
    SPINE_Y,
    Course,
    Sections,
    Torso,
    crura,
    rib_course,
    trunk,
)

__all__ = ["EXTENT_MM", "build"]

Point = tuple[float, float, float]

# fmt: off
# organs: height -> control points; those beyond the cavity are drawn back, so the organ lies against its wall
LIVER: Sections = {
    90: [(-150, -10), (-140, -55), (-105, -88), (-60, -98), (-10, -98), (22, -88), (46, -66), (40, -44),
         (26, -34), (8, -26), (-2, -12), (-10, 6), (-36, 34), (-90, 50), (-140, 30)],
    65: [(-150, -5), (-140, -55), (-105, -88), (-60, -98), (-10, -98), (38, -94), (82, -68), (60, -50),
         (32, -41), (7, -32), (-3, -13), (-14, 8), (-40, 40), (-95, 56), (-145, 36)],
    40: [(-150, 0), (-140, -55), (-105, -88), (-60, -98), (-8, -98), (34, -92), (64, -72), (42, -54),
         (14, -46), (-8, -38), (-14, -18), (-25, 4), (-48, 40), (-95, 62), (-142, 44)],
    20: [(-150, 2), (-140, -52), (-108, -84), (-64, -97), (-14, -97), (14, -92), (34, -76), (22, -62),
         (0, -56), (-24, -46), (-36, -30), (-40, -2), (-54, 40), (-96, 64), (-140, 46)],
    0: [(-150, 4), (-140, -48), (-112, -80), (-80, -92), (-54, -95), (-34, -90), (-28, -78), (-32, -66),
        (-40, -56), (-52, -46), (-60, -30), (-62, -4), (-68, 34), (-98, 60), (-138, 46)],
    -20: [(-150, 6), (-138, -42), (-118, -68), (-100, -78), (-86, -80), (-76, -75), (-73, -66), (-74, -56),
          (-77, -45), (-80, -34), (-82, -20), (-82, 0), (-86, 28), (-104, 50), (-136, 42)],
    -42: [(-150, 8), (-136, -30), (-124, -48), (-116, -53), (-109, -52), (-105, -48), (-103, -42),
          (-102, -34), (-101, -26), (-101, -17), (-101, -7), (-102, 5), (-105, 20), (-114, 36), (-134, 36)],
}
CAUDATE: Mapping[int, tuple[float, float, float, float]] = {  # centre, half-axes
    66: (-8, -20, 9, 8), 48: (-13, -22, 13, 9), 30: (-17, -23, 11, 8), 16: (-22, -22, 6, 4),
}
FISSURES: Mapping[str, tuple[float, Course]] = {  # of the liver: height over thickness, then x, y, z, radius
    "porta": (1, [(-14, -34, 20, 8), (-30, -34, 24, 7), (-46, -32, 28, 4)]),
    "teres": (2.6, [(-6, -100, 12, 4.5), (-8, -88, 26, 4), (-10, -72, 36, 3.2), (-12, -56, 40, 2)]),
    "venosum": (5, [(-10, -46, 40, 1.8), (-2, -36, 46, 1.3), (6, -30, 54, 1), (10, -26, 66, 0.6)]),
}
SPLEEN: Sections = {
    90: [(150, -5), (140, -36), (112, -46), (92, -42), (80, -26), (70, -12), (58, -4), (48, 20), (80, 50),
         (130, 40)],
    66: [(150, 0), (145, -34), (124, -48), (102, -40), (92, -18), (82, -2), (64, 4), (38, 12), (42, 46),
         (100, 70)],
    42: [(150, 4), (146, -28), (126, -40), (106, -28), (97, -6), (90, 6), (78, 13), (58, 24), (62, 62),
         (110, 70)],
    12: [(150, 14), (144, -6), (128, -10), (116, 3), (110, 12), (106, 18), (101, 26), (94, 36), (98, 60),
         (125, 60)],
}
# hollow organs and glands: x, y, z, radius
STOMACH: Course = [(60, 0, 108, 22), (58, -12, 86, 32), (62, -28, 60, 31), (62, -44, 36, 26),
                   (52, -56, 14, 22), (34, -64, -4, 19), (8, -66, -12, 18), (-14, -60, -8, 15),
                   (-30, -52, 0, 9)]
ESOPHAGUS: Course = [(10, -16, 130, 8), (12, -19, 96, 8), (20, -22, 80, 8), (36, -18, 72, 7)]
GALLBLADDER: Course = [(-44, -36, 16, 4), (-52, -44, 8, 9), (-60, -54, -4, 13), (-68, -64, -16, 13),
                       (-72, -70, -24, 8)]
DUODENUM: Course = [(-28, -52, 0, 8), (-40, -44, 5, 11), (-46, -30, 2, 11), (-48, -18, -12, 11),
                    (-48, -10, -32, 11), (-42, -10, -48, 11), (-24, -14, -56, 10), (0, -23, -57, 8),
                    (22, -20, -52, 10), (36, -22, -36, 11), (40, -32, -20, 12), (46, -44, -24, 12)]
COLON: Course = [(-106, -18, -110, 20), (-105, -20, -84, 21), (-100, -24, -60, 21), (-90, -34, -46, 20),
                 (-78, -50, -42, 20), (-60, -62, -44, 20), (-30, -70, -54, 20), (4, -72, -58, 19),
                 (38, -70, -48, 19), (64, -64, -24, 18), (84, -52, 10, 18), (98, -44, 34, 18),
                 (108, -30, 42, 17), (113, -16, 28, 16), (112, -8, 4, 15), (109, -2, -30, 15),
                 (107, 0, -70, 15), (104, 4, -110, 15)]
PANCREAS: Course = [(94, 4, 32, 5), (80, -2, 28, 8), (60, -10, 23, 9), (38, -24, 16, 9), (14, -34, 9, 9),
                    (-6, -35, 2, 7.5), (-22, -29, -6, 11), (-30, -22, -18, 12), (-30, -18, -32, 11),
                    (-22, -15, -42, 7)]
UNCINATE: Course = [(-26, -18, -24, 9), (-14, -13, -30, 8), (-4, -14, -32, 4)]
ADRENAL: Mapping[str, Course] = {  # of the left side: a body and two limbs
    "body": [(30, -6, 36, 2.4), (33, -2, 24, 2.8), (34, 2, 10, 2.2)],
    "medial limb": [(32, -2, 32, 2), (31, 6, 26, 2), (30, 12, 16, 1.5)],
    "lateral limb": [(33, -2, 32, 2), (39, 3, 24, 2), (44, 9, 12, 1.5)],
}
# a kidney around its axis: lateral side x > 0; at its middle the hilum opens at x = -6
KIDNEY: Sections = {
    -54: [(0, -22), (13, -17), (18, -3), (15, 13), (3, 21), (-9, 18), (-14, 10), (-16, 0), (-15, -9),
          (-9, -18)],
    -24: [(0, -27), (16, -21), (23, -4), (20, 16), (5, 27), (-11, 22), (-17, 12), (-17, 1), (-17, -10),
          (-12, -21)],
    0: [(0, -29), (17, -23), (25, -4), (22, 18), (6, 29), (-12, 24), (-15, 11), (-6, 1), (-14, -10),
        (-13, -23)],
    24: [(0, -26), (15, -21), (22, -4), (20, 16), (5, 26), (-11, 22), (-18, 12), (-18, 1), (-18, -10),
         (-12, -20)],
    54: [(0, -20), (12, -16), (17, -3), (15, 12), (3, 20), (-9, 17), (-14, 9), (-16, 0), (-14, -9),
         (-9, -16)],
}
SINUS: Course = [(-9, 0, 0, 8.5), (-2, 0, 8, 8), (-2, 0, -8, 8), (-3, 1, 20, 6.5), (-3, 0, -20, 6.5),
                 (-16, -1, 0, 9)]  # its fat: balls
KIDNEY_AXIS: tuple[Point, Point] = ((67, 9, -54), (54, 21, 54))  # the lower pole lies out and in front
KIDNEY_HEIGHT = {-1: -34.0, 1: -20.0}  # the liver pushes the right one down
PYRAMID_HEIGHTS = (-40, -26, -13, 0, 13, 26, 40)

# vessels: x, y, z, radius
AORTA: Course = [(9, 4, 130, 11.5), (8, 1, 80, 11), (8, -4, 40, 10.5), (9, -5, 0, 9.5), (8, -6, -50, 8.5),
                 (5, -6, -110, 8)]
CAVA: Course = [(-24, -24, 120, 12), (-25, -20, 78, 12), (-22, -9, 45, 11), (-18, -3, 10, 10.5),
                (-17, -2, -50, 10), (-15, -2, -110, 9.5)]
ARTERIES: Mapping[str, Course] = {
    "coeliac": [(8, -10, 27, 3.8), (7, -19, 28, 3.6), (3, -27, 31, 3.4)],
    "hepatic": [(3, -27, 31, 2.8), (-12, -33, 26, 2.4), (-26, -36, 20, 2.2), (-36, -36, 26, 1.6)],
    "splenic artery": [(3, -27, 31, 2.8), (18, -29, 37, 2.7), (30, -16, 34, 2.6), (44, -18, 40, 2.5),
                       (56, -4, 35, 2.5), (70, -5, 41, 2.3), (84, 6, 38, 2), (96, 10, 42, 1.4)],
    "left gastric": [(3, -27, 31, 2), (16, -32, 44, 1.8), (26, -34, 56, 1.4), (34, -40, 66, 1)],
    "superior mesenteric": [(9, -10, 14, 4), (9, -20, 8, 3.8), (8, -27, -10, 3.6), (6, -31, -40, 3.4),
                            (2, -34, -75, 3), (-6, -34, -110, 2.4)],
    "inferior mesenteric": [(8, -12, -56, 2), (14, -16, -66, 1.9), (20, -15, -90, 1.8),
                            (24, -12, -110, 1.7)],
    "renal right": [(4, -3, -14, 3), (-16, 8, -18, 2.8), (-36, 12, -24, 2.6), (-50, 14, -28, 2)],
    "renal left": [(14, -2, -8, 3), (30, 8, -9, 2.8), (46, 11, -13, 2.3)],
    "phrenic and lumbar": [(12, 6, 70, 0.9), (26, 12, 66, 0.9), (40, 26, 64, 0.7)],
}
VEINS: Mapping[str, Course] = {
    "portal": [(-6, -25, -2, 7), (-14, -28, 10, 6.8), (-26, -31, 20, 6.8), (-38, -31, 27, 6.5),
               (-52, -28, 31, 5.2)],
    "superior mesenteric vein": [(-6, -25, -2, 6.2), (-7, -28, -18, 5.8), (-7, -31, -42, 5.4),
                                 (-10, -34, -75, 4.6), (-16, -34, -110, 3.8)],
    "splenic vein": [(-6, -25, -1, 5.2), (12, -24, 5, 4.6), (28, -19, 13, 4.4), (44, -10, 14, 4.2),
                     (58, -1, 21, 4.2), (74, 4, 23, 4), (88, 9, 31, 3.6), (98, 12, 36, 2.6)],
    "inferior mesenteric vein": [(22, -22, 9, 2.2), (30, -16, -10, 2.2), (28, -14, -45, 2.1),
                                 (30, -12, -110, 2)],
    "renal vein left": [(-12, -6, -6, 4.6), (9, -17.5, -7, 3.4), (24, -8, -9, 4.8), (38, 2, -12, 4.6),
                        (52, 10, -15, 3.4)],
    "renal vein right": [(-24, -1, -20, 4.8), (-38, 6, -25, 4.6), (-52, 10, -29, 3.4)],
    "gonadal left": [(30, -2, -12, 1.6), (40, -2, -50, 1.6), (46, 0, -110, 1.6)],
    "gonadal right": [(-26, -4, -40, 1.6), (-38, -4, -70, 1.6), (-44, -2, -110, 1.6)],
    "azygos": [(-5, 4, 120, 2.8), (-6, 4, 60, 2.4), (-7, 5, 30, 1.6)],
    "hemiazygos": [(19, 10, 120, 2), (18, 10, 60, 1.6), (17, 10, 34, 1)],
}
URETER: Course = [(46, 8, -22, 2.6), (42, 2, -45, 1.9), (40, 0, -75, 1.8), (38, -2, -110, 1.8)]
LEFT_PORTAL: Course = [(-38, -31, 27, 5.2), (-24, -38, 36, 5), (-12, -50, 42, 4.8), (-9, -64, 41, 4.2),
                       (-8, -74, 38, 2.4)]
# end of the trunk, radius, direction
PORTAL_BRANCHES: Sequence[tuple[Point, float, Point]] = [((-52, -28, 31), 4.8, (-1, -0.45, 0.35)),
                                                         ((-52, -28, 31), 4.6, (-1, 0.55, 0.2)),
                                                         ((-56, -27, 29), 4.2, (-1, 0.5, -0.9)),
                                                         ((-56, -28, 30), 4.4, (-0.9, -0.7, -0.8)),
                                                         ((-60, -26, 32), 3.8, (-0.9, 0.3, 0.9))]
HEPATIC_VEINS: Sequence[Course] = [  # the last is the inferior right one
    [(-25, -20, 80, 5), (-48, -12, 72, 4.6), (-72, -2, 60, 3.8), (-94, 6, 42, 2.8), (-108, 10, 22, 1.5)],
    [(-24, -24, 79, 5), (-36, -44, 70, 4.4), (-48, -60, 54, 3.6), (-56, -70, 34, 2.6), (-60, -76, 14, 1.4)],
    [(-20, -25, 78, 4.6), (0, -44, 72, 4), (20, -58, 62, 3), (38, -68, 52, 1.8)],
    [(-24, -14, 48, 3.2), (-46, 4, 34, 2.8), (-70, 18, 18, 2.2), (-90, 26, 4, 1.2)],
]
OMENTA: Sequence[tuple[Point, Point, int]] = [  # fat between the organs: a box, how many small vessels
    ((-95, -82, -100), (95, -45, 10), 40), ((-60, -45, -40), (60, -10, 40), 22),
    ((50, -30, 0), (105, 25, 75), 34), ((5, -60, 20), (50, -10, 75), 14),
    ((50, -20, -100), (100, 20, -10), 14), ((-95, -20, -100), (-50, 10, -50), 8),
]
NODES: Sequence[tuple[Point, Point, int]] = [  # in the mesentery, behind it, by the stomach: a box, how many
    ((-40, -55, -90), (45, -22, 0), 5), ((-26, -12, -95), (28, 4, 20), 3), ((10, -44, 20), (60, -20, 60), 2),
]

# fmt: on

PARENCHYMA: tuple[Grain, ...] = ((4.5, 2.5), (3.5, 8.0))
CORTEX = ("kidney_cortex", "kidney_medulla")
Place = Callable[[float, float, float], Point]


def build(patient: Patient) -> list[Structure]:
    """Everything between the diaphragm and the fourth lumbar vertebra, in painting order."""
    torso, rng = Torso.of(patient), patient.rng("abdomen")
    liver, spleen, pancreas, gallbladder = (
        _liver(torso),
        _spleen(torso),
        _pancreas(torso),
        _gallbladder(torso),
    )
    stomach, duodenum, colon = _stomach(torso), _duodenum(torso), _colon(torso)
    (right, right_room), (left, left_room) = _kidney(torso, -1), _kidney(torso, 1)
    arteries = _named_vessels(torso, "artery", ARTERIES)
    veins = _named_vessels(torso, "vein", VEINS)
    first_of_each = (liver, spleen, stomach, duodenum, colon, pancreas, gallbladder, arteries, veins)
    obstacles = [parts[0].shape for parts in first_of_each if parts]
    spine_xy = (0.0, SPINE_Y * patient.size)
    return [
        *trunk(torso),
        *stomach, *spleen, *liver, *right, *left, *_adrenals(torso), *crura(torso), *pancreas,
        *_great_vessels(torso), *veins, *arteries, *duodenum, *gallbladder, *colon,
        *_small_bowel(torso, [*obstacles, right_room, left_room]),
        *_mesentery(torso),
        *ribs(patient, rib_course(torso), spine_xy=spine_xy, z_range=EXTENT_MM,
              last_head_mm=32.0 + rng.normal(0, 6), sternum_low_mm=95.0),
        *spine(patient, "lumbar", x=spine_xy[0], y=spine_xy[1], z_range=EXTENT_MM),
    ]  # fmt: skip


def _lump(rng: np.random.Generator, where: ArrayLike, radius: float) -> Union:
    """A ball with a bumpy surface."""
    parts = []
    for _ in range(5):
        x, y, z = np.asarray(where) + rng.normal(0, 0.16 * radius, 3)
        a, b, c = radius * rng.uniform(0.78, 1.0, 3)
        parts.append(Ellipsoid((x, y, z), (a, b, c), rng.uniform(0, 3)))
    return Union(parts)


# ----------------------------------------------------------------------------------------------- liver
def _liver(torso: Torso) -> list[Structure]:
    """The liver with its fissures; the left lobe may be short or reach the spleen, the right one hang low."""
    hu, rng = torso.patient.hu, torso.patient.rng("liver")
    tip, left = rng.uniform(0.75, 1.35), rng.uniform(0.55, 1.3)
    rows = {
        z if z > 0 else round(z * tip): [(x if x < -5 else x * left, y) for x, y in points]
        for z, points in LIVER.items()
    }
    liver = torso.organ(rows, rng, cap_mm=(16, 0), mm=3.5)
    caudate = Loft({float(z): torso.at(ellipse(*row, n=10)) for z, row in CAUDATE.items()}, cap_mm=10)
    fissures = [replace(torso.tube(rows, rng, mm=1), aspect=aspect) for aspect, rows in FISSURES.values()]
    return [
        Structure(liver, hu["liver"], "liver", PARENCHYMA, 0.4),
        Structure(Union(fissures), hu["fat"] + 20, "visceral_fat", FAT, 0.7, ("liver",)),
        Structure(caudate, hu["liver"], "liver", PARENCHYMA, 0.4),
        *_liver_vessels(torso, rng),
        *_liver_lesions(torso, rng),
    ]


def _liver_vessels(torso: Torso, rng: np.random.Generator) -> list[Structure]:
    """Portal tree from the porta, hepatic veins to the vena cava; thin branches fade by partial volume."""
    hu, s = torso.patient.hu, torso.patient.size

    def tree(start: ArrayLike, heading: ArrayLike, radius: float, depth: int, length: float) -> list[Tube]:
        return vessel_tree(rng, start, heading, length=length * s, radius=radius * s, depth=depth, spread=0.6,
                           wiggle=0.35)  # fmt: skip

    tubes = [torso.tube(LEFT_PORTAL, rng)]
    for start, radius, direction in PORTAL_BRANCHES:
        tubes += tree(torso.at([start])[0], direction, 0.8 * radius, 5, 27)
    for *where, radius in LEFT_PORTAL[2:]:
        for side in (-1, 1):
            tubes += tree(torso.at([where])[0], (side, -0.5, rng.normal(0, 0.5)), 0.5 * radius, 4, 20)
    for rows in HEPATIC_VEINS:
        vein = torso.tube(rows, rng, mm=3)
        tubes.append(vein)
        for share in np.linspace(0.3, 0.95, 6):
            i = int(share * (len(vein.path) - 2))
            along = vein.path[i + 1] - vein.path[i]
            heading = along / np.linalg.norm(along) + rng.normal(0, 0.7, 3)
            tubes += tree(vein.path[i], heading, 0.6 * float(vein.radius[i]) / s, 3, 18)
    visible = [replace(tube, smooth=False) for tube in tubes if tube.radius[0] > 0.55]
    value = hu["vein"] + (15 if torso.patient.contrast else 0)
    return [Structure(Union(visible), value, "liver_vessel", BLOOD, 0.6, ("liver", "liver_vessel"))]


def _liver_lesions(torso: Torso, rng: np.random.Generator) -> list[Structure]:
    """Metastases, cysts and haemangiomas: about one a patient."""
    hu, inside, out = torso.patient.hu, ("liver", "liver_vessel", "liver_lesion"), []
    for _ in range(rng.poisson(1.2)):
        where = torso.at([rng.uniform((-115, -70, -15), (-35, 40, 75))])[0]
        radius = float(np.clip(rng.lognormal(math.log(6.5), 0.55), 2.5, 22))
        lump = _lump(rng, where, radius)
        kind = rng.choice(["metastasis", "cyst", "haemangioma"], p=[0.55, 0.3, 0.15])
        if kind == "cyst":
            out.append(Structure(lump, rng.uniform(0, 14), "liver_lesion", ((3, 2.5),), 0.4, inside))
        elif kind == "metastasis":  # its middle is dead
            drop = rng.uniform(18, 45)
            out.append(Structure(lump, hu["liver"] - 0.45 * drop, "liver_lesion", ((4, 2.5),), 1.4, inside))
            core = lump.inset(0.35 * radius)
            out.append(Structure(core, hu["liver"] - drop, "liver_lesion", ((5, 2.5),), 1.6, inside))
        else:
            value = hu["liver"] + (45 if torso.patient.contrast else -18)
            out.append(Structure(lump, value, "liver_lesion", ((8, 4.0),), 1.2, inside))
    return out


def _gallbladder(torso: Torso) -> list[Structure]:
    hu, rng = torso.patient.hu, torso.patient.rng("gallbladder")
    if rng.random() < 0.12:  # taken out
        return []
    rows = np.array(GALLBLADDER) * (1, 1, 1, rng.uniform(0.7, 1.15))
    bladder = torso.tube(rows, rng, shift=rng.normal(0, (2, 2, 4)), mm=1)
    out = [
        Structure(bladder, 0.7 * hu["gut_wall"], "gallbladder", ((4, 2.5),), 0.4),
        Structure(bladder.inset(1.6), rng.uniform(3, 16), "gallbladder", ((3, 4.0),), 0.4),
    ]
    if rng.random() < 0.2:  # stones sink to the back
        widest = int(np.argmax(bladder.radius))
        bottom = bladder.path[widest] + (0, 0.5 * bladder.radius[widest], 0)
        stones = [_lump(rng, bottom + rng.normal(0, 2.4, 3), 2.6) for _ in range(4)]
        value = rng.uniform(90, 380)
        out.append(Structure(Union(stones), value, "calcification", ((30, 1.6),), 0.3, ("gallbladder",)))
    return out


# -------------------------------------------------------------------------- spleen, pancreas, adrenals
def _spleen(torso: Torso) -> list[Structure]:
    hu, rng = torso.patient.hu, torso.patient.rng("spleen")
    low = rng.uniform(-14, 10) - (22 if rng.random() < 0.1 else 0)  # one in ten is large
    rows = {z if z > 20 else round(z + low): points for z, points in SPLEEN.items()}
    out = [Structure(torso.organ(rows, rng, cap_mm=(16, 0), mm=3), hu["spleen"], "spleen", PARENCHYMA, 0.35)]
    if rng.random() < 0.15:  # accessory spleen
        lump = _lump(rng, torso.at([rng.uniform((82, 8, 10), (92, 18, 40))])[0], 6.0)
        out.append(Structure(lump, hu["spleen"], "spleen", PARENCHYMA, 0.35, ("visceral_fat",)))
    return out


def _pancreas(torso: Torso) -> list[Structure]:
    """Tail to head and the uncinate process, with lobules on the surface and clefts of fat, more with age."""
    patient, hu, rng = torso.patient, torso.patient.hu, torso.patient.rng("pancreas")
    plump = float(np.clip(1.12 - 0.006 * (patient.age - 40) + rng.normal(0, 0.07), 0.7, 1.2))
    shift = rng.normal(0, (0, 1.5, 4))
    lobules: list[Shape] = []
    clefts: list[Shape] = []
    ducts: list[Shape] = []
    for rows in (PANCREAS, UNCINATE):
        gland = torso.tube(np.array(rows) * (1, 1, 1, 0.84 * plump), rng, shift=shift, mm=2)
        lobules.append(gland)
        ducts.append(Tube(gland.path[2:-2], 0.7 + 0.012 * (patient.age - 30)))
        for i in rng.integers(len(gland.path), size=8 * len(gland.path)):
            outward = rng.normal(0, 1, 3)
            outward *= gland.radius[i] / np.linalg.norm(outward)
            x, y, z = gland.path[i] + outward * rng.uniform(0.72, 1.0)
            r = rng.uniform(0.26, 0.52) * gland.radius[i]
            lobules.append(Ellipsoid((x, y, z), (r, r * rng.uniform(0.7, 1.2), r)))
            if rng.random() < 0.12 + 0.005 * (patient.age - 30):
                ends = [gland.path[i] + 1.3 * outward, gland.path[i] + 0.45 * outward + rng.normal(0, 1.5, 3)]
                clefts.append(Tube(ends, rng.uniform(0.4, 0.9), aspect=3))
    return [
        Structure(Union(lobules), hu["pancreas"], "pancreas", ((8, 2.5), (6, 4.0)), 0.6),
        Structure(Union(ducts), 18, None, (), 0.5, ("pancreas",), 0.7),
        Structure(Union(clefts), -10 - 0.8 * (patient.age - 40), None, (), 0.6, ("pancreas",), 0.7),
    ]


def _adrenals(torso: Torso) -> list[Structure]:
    rng, hu = torso.patient.rng("adrenals"), torso.patient.hu
    limbs: list[Shape] = []
    for side, typical in ((-1, (-3, 0, 4)), (1, (0, 0, 0))):
        shift = rng.normal(typical, (1, 1, 4))
        limbs += [
            torso.tube(np.array(rows) * (side, 1, 1, 1.2), rng, shift=shift, mm=0.8)
            for rows in ADRENAL.values()
        ]
    value = hu["muscle"] + 8 + 18 * torso.patient.contrast
    return [Structure(Union(limbs), value, "adrenal", ((4, 2.5),), 0.5, ("visceral_fat", "liver", "spleen"))]


# --------------------------------------------------------------------------------------------- kidneys
def _kidney(torso: Torso, side: int) -> tuple[list[Structure], Shape]:
    """One kidney in its fat, and the room that both take."""
    patient, hu, rng = torso.patient, torso.patient.hu, torso.patient.rng(f"kidney {side}")
    scale, height = rng.uniform(0.9, 1.08), KIDNEY_HEIGHT[side] + rng.normal(0, 8)
    turn, move = rng.normal(0.4, 0.1), rng.normal(0, 3, 2)

    def place(x: float, y: float, z: float) -> Point:
        """From the kidney's own axes to the patient's."""
        (x0, y0, z0), (x1, y1, z1) = KIDNEY_AXIS
        t = (z - z0) / (z1 - z0)
        u = scale * (x * math.cos(turn) - y * math.sin(turn)) + x0 + (x1 - x0) * t + move[0]
        v = scale * (x * math.sin(turn) + y * math.cos(turn)) + y0 + (y1 - y0) * t + move[1]
        return side * u * patient.size, v * patient.size, height + z * scale

    lobes = rng.normal(0, 0.8, (10, 2))  # of the unborn, still to be seen
    rows = {}
    for z, points in KIDNEY.items():
        rows[height + z * scale] = np.array([place(x, y, z)[:2] for x, y in np.array(points) + lobes])
    kidney = Loft(rows, cap_mm=26 * scale)
    around = 4 + 0.22 * patient.fat_mm + 18 * (patient.visceral - 1) + rng.normal(0, 1)
    fat_mm = float(np.clip(around, 3, 15))
    slack = 1 + np.interp(np.arange(10), [0, 3, 6, 9], rng.uniform(-0.04, 0.2, 4))[:, None]
    loose = {z: points.mean(0) + (points - points.mean(0)) * slack for z, points in rows.items()}
    ends = (min(rows) + 8, max(rows) - 8)
    fascia = Loft(loose, extent_mm=ends, cap_mm=22 * scale).inset(-fat_mm)
    spared = ("visceral_fat", "liver", "spleen", "stomach")
    out = [
        Structure(fascia, -45, None, (), 0.5, ("visceral_fat",), 0.6),  # Gerota's
        Structure(fascia.inset(0.9), hu["fat"], "visceral_fat", FAT, 0.4, spared),
        _strands(rng, place, fat_mm),
        Structure(kidney, hu["kidney_cortex"], "kidney_cortex", ((6, 2.5),), 0.35),
        _pyramids(torso, rng, place, side, turn, patient.size * scale),
        *_sinus(torso, rng, place, patient.size * scale),
        *(_renal_cyst(rng, place) for _ in range(rng.integers(1, 4) if rng.random() < 0.35 else 0)),
    ]
    return out, fascia


def _pyramids(
    torso: Torso, rng: np.random.Generator, place: Place, side: int, turn: float, scale: float
) -> Structure:
    """The medulla: cones around the sinus."""
    pyramids: list[Shape] = []
    for z in PYRAMID_HEIGHTS:
        k = math.sqrt(1 - (z / 54) ** 2)  # smaller at the poles
        for angle in np.linspace(-2.1, 2.1, 6) + rng.normal(0, 0.14, 6):
            x, y = 13.5 * k * math.cos(angle) - 2 * (1 - k), 18 * k * math.sin(angle)
            a, b = k * rng.uniform((4.5, 2.9), (6.1, 4.3)) * scale
            tilt = side * (math.atan2(y, x) + turn)
            pyramids.append(Ellipsoid(place(x, y, z + rng.normal(0, 2)), (a, b, 5.2 * scale), tilt))
    value = torso.patient.hu["kidney_medulla"]
    return Structure(Union(pyramids), value, "kidney_medulla", ((5, 2.5),), 0.8, CORTEX)


def _sinus(torso: Torso, rng: np.random.Generator, place: Place, scale: float) -> list[Structure]:
    """Fat in the hilum, more with age, with the renal pelvis and its calyces."""
    hu, k = torso.patient.hu, scale * (rng.uniform(0.8, 1.0) + 0.003 * (torso.patient.age - 40))
    fat: list[Shape] = [
        Ellipsoid(place(x, y, z), (r * k, 1.3 * r * k, 1.3 * r * scale)) for x, y, z, r in SINUS
    ]
    urine: list[Shape] = []
    for angle in rng.uniform(-1.9, 1.9, 9):  # between the pyramids
        z = rng.uniform(-26, 26)
        fat.append(Tube([place(-4, 0, z), place(8 * math.cos(angle), 11 * math.sin(angle), z)], 1.8 * scale))
    for angle in rng.uniform(-1.7, 1.7, 7):  # calyces, to their papillae
        z = rng.uniform(-24, 24)
        path = [place(-9, 0, 0.4 * z), place(-2, 0, z), place(6 * math.cos(angle), 9 * math.sin(angle), z)]
        urine.append(Tube(path, np.array([2.2, 1.5, 2.0]) * scale))
    pelvis = Tube([place(-5, 0, 0), place(-14, 1, -2), place(-22, 2, -8)], np.array([4.5, 5.0, 3.0]) * scale)
    inside = (*CORTEX, "visceral_fat", "kidney_sinus")
    return [
        Structure(Union(fat), hu["fat"] + 22, "kidney_sinus", ((10, 2.5),), 0.8, CORTEX),
        Structure(Union([*urine, pelvis]), rng.uniform(5, 15), "kidney_sinus", ((3, 2.5),), 0.6, inside),
    ]


def _renal_cyst(rng: np.random.Generator, place: Place) -> Structure:
    radius, angle = float(np.clip(rng.lognormal(math.log(7), 0.5), 3, 18)), rng.uniform(-1.6, 1.6)
    centre = place(23 * math.cos(angle), 27 * math.sin(angle), rng.uniform(-40, 40))
    cyst = Ellipsoid(centre, (radius, radius, radius * rng.uniform(0.9, 1.2)))
    inside = (*CORTEX, "visceral_fat", "kidney_sinus")
    return Structure(cyst, rng.uniform(0, 12), "kidney_cyst", ((3, 2.5),), 0.4, inside)


def _strands(rng: np.random.Generator, place: Place, fat_mm: float) -> Structure:
    """Septa and small vessels that bridge the fat around a kidney."""
    tubes: list[Shape] = []
    for _ in range(40):
        angle, z, reach = rng.uniform(-2.4, 2.4), rng.uniform(-50, 50), 1 + (fat_mm + 3) / 24
        near = place(22 * math.cos(angle), 27 * math.sin(angle), z)
        x, y = 22 * reach * math.cos(angle + 0.2), 27 * reach * math.sin(angle + 0.2)
        tubes.append(Tube([near, place(x, y, z + rng.normal(0, 6))], rng.uniform(0.25, 0.55)))
    return Structure(Union(tubes), -30, None, (), 0.4, ("visceral_fat",), 0.6)


# --------------------------------------------------------------------------------------------- vessels
def _great_vessels(torso: Torso) -> list[Structure]:
    """Aorta, winding and wide in the old, with plaques; vena cava; ureters."""
    patient, hu, rng = torso.patient, torso.patient.hu, torso.patient.rng("great vessels")
    rows = np.array(AORTA, float)
    rows[:, 3] *= rng.uniform(0.88, 1.12) * (1 + 0.003 * max(patient.age - 50, 0))
    if patient.age > 65 and rng.random() < 0.08:
        rows[-2:, 3] *= rng.uniform(1.5, 2.1)  # an aneurysm below the renal arteries
    rows[2:, :2] += rng.normal(0, 0.05 * max(patient.age - 45, 5), (len(rows) - 2, 2)) * (1, 0.3)
    aorta = torso.tube(rows, rng, mm=0.4)
    flat = np.array([1, 1, 1, rng.uniform(0.68, 0.9)])  # two tubes side by side are flatter than one
    cava = Union([torso.tube(CAVA * flat, rng, shift=(dx, 0, 0), mm=0.5) for dx in (-3, 3)])
    ureters = Union([torso.tube(np.array(URETER) * (side, 1, 1, 1), rng) for side in (-1, 1)])
    inside = ("visceral_fat", "liver", "muscle", "liver_vessel", "lung")
    out = [
        Structure(cava, hu["vein"], "vena_cava", BLOOD, 0.4, inside),
        Structure(aorta, hu["artery"] * 0.7, "aorta", BLOOD, 0.4),
        Structure(aorta.inset(1.2), hu["artery"], "aorta", BLOOD, 0.3),
        Structure(ureters, 30, "small_vessel", BLOOD, 0.4, ("visceral_fat",)),
    ]
    if patient.age > 55 and rng.random() < 0.8:
        out.append(_plaques(aorta, rng, at_most=int(6 + 0.8 * (patient.age - 50))))
    return out


def _plaques(aorta: Tube, rng: np.random.Generator, *, at_most: int) -> Structure:
    plaques: list[Shape] = []
    for i in rng.integers(len(aorta.path), size=rng.integers(4, at_most)):
        turn = rng.uniform(0, 6.3) + np.linspace(0, rng.uniform(0.2, 0.9), 5)
        rim = 0.92 * aorta.radius[i] * np.column_stack([np.cos(turn), np.sin(turn), np.zeros(5)])
        plaques.append(Tube(aorta.path[i] + rim, rng.uniform(0.6, 1.3), aspect=rng.uniform(1.5, 5)))
    return Structure(Union(plaques), rng.uniform(450, 950), "calcification", ((60, 1.6),), 0.4, ("aorta",))


def _named_vessels(torso: Torso, kind: str, courses: Mapping[str, Course]) -> list[Structure]:
    rng, portal = torso.patient.rng(kind), 10 * torso.patient.contrast * (kind == "vein")
    tubes = [torso.tube(rows, rng, mm=2.2 if "splenic" in name else 0.6) for name, rows in courses.items()]
    inside = ("visceral_fat", "pancreas", "kidney_sinus", "small_vessel", "liver", "muscle", "liver_vessel")
    return [Structure(Union(tubes), torso.patient.hu[kind] + portal, "small_vessel", BLOOD, 0.4, inside)]


def _mesentery(torso: Torso) -> list[Structure]:
    """Vessels that fan out from the mesentery's root and run through the omenta; haze and lymph nodes."""
    hu, s, rng = torso.patient.hu, torso.patient.size, torso.patient.rng("mesentery")
    tubes: list[Tube] = []
    for z in np.repeat(np.arange(-100, 10, 7.0), 2):
        root, radius = torso.at([(rng.uniform(-8, 8), -32, z)])[0], rng.uniform(1.4, 2.4)
        heading = rng.uniform((-1, -0.9, -0.7), (1, -0.1, 0.3))
        tubes += vessel_tree(rng, root, heading, length=30 * s, radius=radius, depth=3, wiggle=0.4)
    for low, high, n in OMENTA:
        for where in torso.at(rng.uniform(low, high, (n, 3))):
            heading, radius = rng.normal(0, 1, 3), rng.uniform(0.7, 1.9)
            tubes += vessel_tree(rng, where, heading, length=18, radius=radius, depth=2, wiggle=0.6)
    nodes: list[Shape] = []
    for low, high, n in NODES:
        for where in torso.at(rng.uniform(low, high, (rng.poisson(n), 3))):
            nodes.append(_lump(rng, where, rng.uniform(1.8, 4.4)))
    haze = [Tube(where + rng.normal(0, 4, (3, 3)), 0.5, aspect=3)
            for where in torso.at(rng.uniform((-90, -75, -95), (90, 10, 60), (160, 3)))]  # fmt: skip
    straight = [replace(tube, smooth=False) for tube in tubes]
    fat = ("visceral_fat",)
    return [
        Structure(Union(haze), -55, None, (), 0.6, fat, 0.6),
        Structure(Union(straight), 0.85 * hu["vein"], "small_vessel", BLOOD, 0.45, fat),
        Structure(Union(nodes), hu["muscle"] + 12, "lymph_node", ((3, 2.5),), 0.4, fat),
    ]


# ----------------------------------------------------------------------------------- stomach and bowel
def _stomach(torso: Torso) -> list[Structure]:
    """Fundus, body and antrum with the folds of the lining, and the gullet."""
    patient, rng = torso.patient, torso.patient.rng("stomach")
    full, wall = rng.uniform(0.6, 1.15), rng.uniform(2.6, 4.5)
    rows = resampled(np.array(STOMACH) * (1, 1, 1, full), 9.0)
    rows[:, 3] *= 1 + rng.normal(0, 0.05, len(rows))
    stomach = torso.tube(rows, rng, shift=rng.normal(0, (5, 3, 5)), mm=1.5)
    filling = "collapsed" if full < 0.75 else str(rng.choice(["mixed", "gas", "fluid"]))
    y, r = stomach.path[:, 1], stomach.radius
    parts = gut(patient, rng, stomach, content="oral" if patient.oral_contrast else filling, wall_mm=wall,
                label="stomach", y_range=(float((y - r).min()), float((y + r).max())))  # fmt: skip
    gullet = torso.tube(ESOPHAGUS, rng, mm=0.8)
    return [
        # a full stomach presses against the wall, not into it
        *(replace(part, inside=("visceral_fat", "stomach")) for part in parts),
        _folds(patient, rng, stomach, wall, full),
        Structure(gullet, patient.hu["muscle"], "esophagus", ((4, 2.5),), 0.4),
        Structure(gullet.inset(5.5 * patient.size), -300 if rng.random() < 0.4 else 30, "esophagus", (), 0.6),
    ]


def _folds(patient: Patient, rng: np.random.Generator, stomach: Tube, wall: float, full: float) -> Structure:
    """Rugae: they run along the stomach, and are lower where it is stretched."""
    along = np.gradient(stomach.path, axis=0)
    across = np.cross(along, (0.3, 1.0, 0.1))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    upright = np.cross(along, across)
    upright /= np.linalg.norm(upright, axis=1, keepdims=True)
    folds: list[Shape] = []
    for start in rng.uniform(0, 2 * np.pi, 16):
        turn = (start + np.cumsum(rng.normal(0, 0.12, len(along))))[:, None]
        rim = (stomach.radius - wall)[:, None] * (np.cos(turn) * across + np.sin(turn) * upright)
        height = patient.size * rng.uniform(0.8, 5.2) * max(1.5 - full, 0.4)
        folds.append(Tube(stomach.path + rim, height, smooth=False))
    inside = ("stomach", "bowel_gas")
    return Structure(Union(folds), patient.hu["gut_wall"], "stomach", ((8, 2.5),), 0.5, inside)


def _duodenum(torso: Torso) -> list[Structure]:
    rng = torso.patient.rng("duodenum")
    tube = torso.tube(resampled(np.array(DUODENUM) * (1, 1, 1, rng.uniform(0.78, 1.0)), 9.0), rng, mm=1)
    contents = {"collapsed": 0.5, "fluid": 0.35, "mixed": 0.15}
    return _bowel(torso, rng, [tube], contents, stretch_mm=55, wall_mm=2.4)


def _colon(torso: Torso) -> list[Structure]:
    """Right colon, both flexures, transverse and left colon: one tube with haustra."""
    rng = torso.patient.rng("colon")
    rows = np.array(COLON, float)
    rows[5:10, 2] -= rng.uniform(-6, 45) * np.sin(np.linspace(0.3, 2.8, 5))  # the transverse colon sags
    rows[2:5, 2] += rng.normal(0, 4)
    rows = resampled(rows, 5.0)
    along = np.r_[0, np.cumsum(np.linalg.norm(np.diff(rows[:, :3], axis=0), axis=1))]
    haustra = np.cumsum(rng.uniform(0.8, 1.25, len(rows))) / len(rows) * along[-1] / 27
    knots = np.arange(0, along[-1] + 60, 60)
    calibre = rng.uniform(0.72, 1.05) * (1 + 0.14 * np.interp(along, knots, rng.normal(0, 1, len(knots))))
    rows[:, 3] *= calibre * (1 - 0.17 * np.abs(np.cos(np.pi * haustra)) ** 3)
    colon = torso.tube(rows, rng, mm=0.5)
    flexure = int(np.argmax(colon.path[:, 2]))  # left of it the content is another, with its own level of gas
    parts = [Tube(colon.path[part], colon.radius[part], smooth=False)
             for part in (slice(flexure + 1), slice(flexure, None))]  # fmt: skip
    contents = {"feces": 0.58, "gas": 0.24, "mixed": 0.18}
    return _bowel(torso, rng, parts, contents, stretch_mm=math.inf, wall_mm=1.9)


def _bowel(
    torso: Torso, rng: np.random.Generator, tubes: Sequence[Tube], contents: Mapping[str, float],
    *, stretch_mm: float, wall_mm: float,
) -> list[Structure]:  # fmt: skip
    return hollow(torso.patient, rng, tubes, contents=contents, stretch_mm=stretch_mm, wall_mm=wall_mm,
                  inside=("visceral_fat", "small_vessel", "bowel", "lymph_node"))  # fmt: skip


def _small_bowel(torso: Torso, obstacles: Sequence[Shape]) -> list[Structure]:
    """Jejunum and ileum, in front of kidneys and great vessels, higher on the left."""
    patient, s, rng = torso.patient, torso.patient.size, torso.patient.rng("small bowel")
    low, high = torso.body.points.min((0, 1)), torso.body.points.max((0, 1))
    front_of = torso.at([(0, -14)])[0, 1]
    room = Room.between(
        torso.cavity.inset(4), obstacles, low=(*low, -104), high=(*high, 24),
        where=lambda x, y, z: (z < -34 + 40 / (1 + np.exp(-(x - 20) / 14))) & (y < front_of),
    )  # fmt: skip
    gap = 0.5 + 10 * max(patient.visceral - 0.95, 0)  # fat keeps loops apart
    tubes = list(winding(rng, room, radius=(8 * s, 13 * s), gap_mm=gap))
    plain = {"collapsed": 0.46, "fluid": 0.4, "mixed": 0.14}
    contents = {"oral": 0.5, "collapsed": 0.3, "fluid": 0.2} if patient.oral_contrast else plain
    return _bowel(torso, rng, tubes, contents, stretch_mm=70, wall_mm=2.6)
