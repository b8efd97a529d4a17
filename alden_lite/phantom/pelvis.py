"""The pelvis: both hips at z = 0, iliac wings and sacrum above, pubis and ischium below.

Tables hold an average adult in mm, the left half (x > 0): height z -> control points. Every table reaches
beyond `EXTENT_MM`, since small patients shrink in z too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from alden_lite.phantom.painting import Grain, Structure
from alden_lite.phantom.parts import (
    FAT,
    MUSCLE,
    Frame,
    Sections,
    bone,
    gut,
    jitter,
    under_the_skin,
    vessel_tree,
)
from alden_lite.phantom.patient import Patient
from alden_lite.phantom.shapes import Curve, Loft, Shape, Tube, Union, ellipse, mirrored, spline, stadium

EXTENT_MM = (-38.0, 50.0)

ANY_FAT = ("visceral_fat", "subcutaneous_fat")

# --- anatomy: mm, left half -----------------------------------------------------------------------------

# Outer border of the muscles (the deep fascia), from the front's midline to the back's.
FASCIA: Sections = {
    -50: [(0, -70), (38, -79), (80, -83), (114, -78), (141, -54), (155, -20), (155, 12), (141, 44), (113, 74),
          (74, 95), (38, 96), (0, 80)],
    -20: [(0, -76), (40, -82), (80, -84), (112, -78), (140, -56), (154, -20), (154, 12), (140, 42), (111, 69),
          (72, 92), (36, 95), (0, 82)],
    10: [(0, -84), (40, -86), (78, -85), (109, -78), (137, -56), (148, -24), (149, 6), (132, 40), (108, 62),
         (72, 85), (36, 92), (0, 80)],
    66: [(0, -98), (40, -97), (80, -88), (112, -74), (133, -54), (141, -26), (141, 4), (127, 36), (104, 60),
         (70, 80), (36, 86), (0, 78)],
}  # fmt: skip
# Inside of the pelvis, lined by muscle: what lies in it is visceral fat until an organ is painted.
CAVITY: Sections = {
    -50: [(0, -34), (12, -34), (30, -16), (40, 4), (40, 26), (30, 44), (14, 58), (0, 60)],
    -28: [(0, -50), (20, -46), (42, -28), (50, 2), (48, 26), (36, 44), (14, 56), (0, 56)],
    -8: [(0, -72), (30, -66), (52, -38), (53, -6), (48, 26), (32, 46), (12, 52), (0, 53)],
    20: [(0, -78), (36, -76), (62, -54), (56, -16), (56, 16), (40, 46), (14, 54), (0, 55)],
    44: [(0, -86), (44, -84), (78, -62), (62, -24), (62, 8), (46, 34), (16, 44), (0, 45)],
    66: [(0, -90), (48, -88), (88, -66), (72, -28), (66, 4), (44, 24), (16, 32), (0, 33)],
}  # fmt: skip
# Ilium with the acetabulum; the femoral head's socket is carved from it. From the medial front, clockwise
# seen from the feet's end of the picture: front, lateral, behind, medial.
HIP_BONE: Sections = {
    -26: [(60, -20), (63, -30), (68, -32), (74, -28), (76, -20), (78, 0), (84, 16), (86, 26), (76, 34),
          (66, 28), (59, 10), (58, -8)],
    -14: [(56, -26), (61, -38), (72, -41), (81, -35), (80, -20), (80, 0), (93, 18), (93, 28), (76, 37),
          (62, 29), (57, 12), (55, -8)],
    0: [(56, -28), (64, -42), (76, -45), (90, -36), (92, -20), (92, 0), (103, 17), (96, 30), (77, 39),
        (61, 31), (56.5, 12), (55, -8)],
    12: [(57, -28), (66, -45), (80, -48), (96, -40), (102, -20), (103, 0), (105, 16), (94, 29), (76, 37),
         (61, 28), (57, 11), (55, -9)],
    24: [(61, -28), (71, -47), (87, -52), (102, -43), (109, -22), (108, -2), (101, 15), (87, 28), (72, 32),
         (62, 22), (60, 8), (58, -10)],
    36: [(68, -28), (79, -47), (94, -55), (106, -47), (108, -28), (103, -8), (94, 13), (82, 27), (71, 30),
         (65, 22), (70, 6), (70, -10)],
    47: [(81, -27), (93, -46), (104, -55), (112, -48), (110, -30), (102, -9), (89, 14), (74, 38), (58, 54),
         (49, 52), (67, 18), (80, -6)],
    66: [(101, -26), (107, -46), (117, -54), (123, -46), (116, -28), (102, -6), (86, 20), (72, 50),
         (54, 68), (45, 62), (68, 24), (91, -4)],
}  # fmt: skip
ISCHIUM: Sections = {
    -60: [(50, 4), (64, 0), (80, 12), (84, 28), (70, 36), (54, 26)],
    -36: [(57, 6), (70, 4), (84, 13), (87, 27), (75, 35), (61, 27)],
    -6: [(60, 8), (70, 4), (88, 14), (90, 27), (76, 36), (63, 28)],
}  # fmt: skip
SACRUM: Sections = {
    16: [(0, 56), (8, 56), (13, 58), (14, 62), (10, 66), (0, 68)],
    26: [(0, 53), (14, 53), (25, 55), (24, 60), (15, 67), (0, 71)],
    38: [(0, 47), (20, 46), (38, 47), (40, 54), (25, 66), (0, 75)],
    47: [(0, 42), (22, 40), (49, 39), (52, 51), (34, 65), (0, 76)],
    56: [(0, 37), (23, 36), (56, 32), (56, 48), (38, 63), (0, 77)],
    68: [(0, 30), (24, 29), (62, 24), (57, 45), (42, 60), (0, 77)],
}  # fmt: skip
PUBIS: Sections = {
    -60: [(8, -52), (14, -60), (26, -58), (30, -48), (24, -42), (12, -44)],
    -40: [(2.5, -56), (6, -66), (20, -68), (28, -58), (20, -50), (6, -47)],
    -26: [(2.5, -58), (6, -65), (22, -64), (36, -56), (24, -51), (6, -51)],
}  # fmt: skip
COCCYX: Sections = {
    -18: (0, 50, 3, 2, 0),
    -6: (0, 57, 6, 3.5, 0),
    6: (0, 61, 10, 4.5, 0),
    20: (0, 62, 12, 5, 0),
}
FORAMINA = [(12, 26), (15, 46), (17, 66)]  # x, z: each runs from the front of the sacrum to its back
PUBIC_RAMUS = [(76, -34, -8, 8), (58, -45, -15, 7), (38, -55, -22, 6.5), (18, -60, -29, 7), (10, -58, -34, 6)]
ISCHIAL_SPINE = [(66, 32, 0, 5), (58, 38, -2, 3.5), (50, 43, -4, 2)]

FEMORAL_HEAD = ((88, -7, 0), 23.5)  # centre and radius
NECK = [(91, -6, -5, 18.5), (105, -3, -13, 16), (122, 2, -22, 16)]
TROCHANTER = ((138, 9, -24), (12.5, 19, 27))  # centre and half-axes
SHAFT = [(128, 3, -30, 19), (128, 4, -48, 17), (126, 5, -70, 14)]

MUSCLES: Mapping[str, Sections] = {
    "gluteus maximus": {
        -60: [(18, 76), (38, 93), (74, 92), (112, 68), (138, 34), (126, 30), (98, 48), (62, 54), (36, 62)],
        -30: [(14, 76), (37, 93), (73, 90), (112, 64), (140, 30), (130, 27), (100, 46), (62, 55), (32, 62)],
        0: [(7, 75), (36, 90), (72, 84), (109, 58), (128, 36), (116, 38), (92, 52), (62, 60), (30, 64)],
        30: [(10, 74), (36, 88), (70, 81), (100, 58), (116, 38), (106, 42), (86, 55), (60, 64), (32, 69)],
        66: [(34, 74), (44, 84), (66, 80), (88, 66), (102, 50), (94, 52), (80, 60), (66, 68), (48, 70)],
    },
    "gluteus medius": {
        -18: [(142, -20), (147, -14), (149, -4), (148, 4), (144, 6), (142, -4)],
        0: [(126, -40), (143, -26), (147, -4), (142, 18), (134, 16), (134, -12)],
        20: [(114, -44), (136, -42), (146, -16), (138, 20), (114, 37), (122, 2)],
        44: [(116, -50), (133, -44), (140, -12), (130, 24), (92, 46), (116, 4)],
        66: [(124, -46), (134, -40), (138, -8), (122, 34), (76, 56), (106, 12)],
    },
    "gluteus minimus": {
        -14: [(126, -34), (136, -28), (140, -18), (136, -14), (130, -20), (124, -28)],
        0: [(112, -38), (124, -38), (132, -24), (131, -8), (121, -10), (114, -24)],
        20: [(112, -41), (122, -38), (130, -16), (120, 6), (112, 4), (113, -18)],
        40: [(112, -42), (121, -36), (124, -12), (112, 14), (100, 16), (109, -14)],
        58: [(121, -38), (123, -34), (116, -14), (104, 6), (98, 12), (110, -14)],
    },
    "tensor fasciae latae": {
        -60: [(122, -60), (139, -50), (150, -28), (145, -22), (134, -36), (120, -50)],
        -20: [(118, -64), (135, -57), (148, -34), (144, -28), (131, -42), (116, -54)],
        10: [(118, -65), (130, -58), (140, -40), (135, -37), (126, -46), (117, -54)],
        40: [(121, -60), (127, -56), (131, -49), (128, -47), (124, -49), (120, -54)],
    },
    "iliopsoas": {
        -60: [(80, -32), (84, -48), (98, -53), (110, -45), (110, -33), (100, -26), (90, -25), (82, -27)],
        -30: [(79, -40), (84, -56), (99, -62), (112, -55), (112, -42), (103, -34), (93, -32), (83, -34)],
        0: [(74, -50), (81, -64), (97, -68), (109, -60), (109, -48), (99, -44), (89, -46), (80, -48)],
        20: [(64, -42), (69, -60), (86, -67), (102, -62), (102, -54), (90, -56), (78, -52), (68, -44)],
        40: [(57, -24), (63, -50), (82, -63), (104, -61), (98, -56), (86, -46), (76, -32), (68, -14)],
        66: [(50, -10), (54, -36), (78, -55), (112, -60), (106, -48), (98, -30), (88, -6), (68, 10)],
    },
    "obturator internus": {
        -60: [(42, -22), (50, -20), (54, -4), (50, 14), (44, 20), (40, 0)],
        -30: [(44, -30), (54, -24), (57, -2), (60, 20), (51, 33), (42, 4)],
        0: [(42, -18), (53, -27), (56, -4), (61, 22), (56, 40), (44, 24)],
        26: [(51, -12), (58, -16), (59, -2), (61, 12), (59, 20), (51, 8)],
    },
    "obturator externus": {
        -60: [(38, -36), (60, -32), (76, -8), (80, 2), (60, -2), (46, -18)],
        -36: [(38, -47), (68, -40), (99, -14), (108, 12), (82, 6), (56, -22)],
        -22: [(54, -36), (70, -35), (88, -22), (94, -10), (78, -14), (60, -26)],
    },
    "pectineus": {
        -60: [(26, -64), (50, -68), (74, -56), (84, -42), (74, -38), (48, -48)],
        -30: [(34, -66), (56, -70), (76, -56), (80, -44), (68, -40), (50, -52)],
        -12: [(48, -62), (58, -64), (70, -54), (72, -48), (66, -46), (56, -54)],
    },
    "adductors": {
        -60: [(8, -66), (24, -74), (44, -74), (50, -68), (32, -60), (22, -52)],
        -34: [(10, -72), (18, -75), (28, -74), (30, -70), (24, -66), (16, -66)],
    },
    "quadratus femoris": {
        -60: [(82, 30), (104, 20), (126, 22), (126, 28), (106, 32), (86, 38)],
        -22: [(86, 32), (106, 24), (124, 27), (124, 32), (106, 35), (88, 40)],
    },
    "levator ani": {
        -60: [(5, -30), (10, -8), (12, 20), (7, 36), (10, 37), (16, 20), (14, -8), (8, -32)],
        -34: [(7, -40), (17, -8), (22, 18), (9, 42), (12, 43), (26, 19), (21, -9), (10, -42)],
        -14: [(32, -36), (40, -8), (40, 16), (16, 48), (18, 50), (44, 18), (44, -9), (36, -38)],
    },
    "abdominal wall": {
        10: [(44, -80), (64, -81), (84, -78), (96, -72), (92, -66), (80, -71), (64, -75), (44, -76)],
        40: [(44, -91), (72, -88), (98, -77), (116, -61), (109, -53), (92, -64), (68, -77), (44, -85)],
        66: [(44, -98), (76, -93), (104, -78), (123, -56), (115, -50), (96, -62), (70, -79), (44, -90)],
    },
}  # fmt: skip
# Rounded muscles: height -> centre x, y, half-axes a, b, angle in degrees.
OVALS: Mapping[str, Sections] = {
    "sartorius": {-60: (88, -80, 12, 5.5, -5), -20: (101, -76, 10, 6.5, 15), 20: (113, -69, 8, 6, 35),
                  60: (121, -58, 4, 4, 40)},
    "rectus femoris": {-60: (112, -70, 13, 8, 10), -20: (112, -66, 9, 7.5, 25), 10: (108, -59, 7, 6, 20),
                       34: (101, -58, 4, 4, 0)},
    "rectus abdominis": {-30: (9, -67, 6, 4, 0), -10: (15, -74, 12, 5, 5), 20: (21, -83, 17, 5, 2),
                         66: (25, -93, 20, 5.5, 4)},
    "vastus lateralis": {-60: (142, -10, 9, 24, -8), -40: (146, -14, 5, 15, -4), -30: (148, -16, 3, 9, 0)},
}  # fmt: skip
# Muscles that run across the slice: x, y, z, radius.
STRAPS: Mapping[str, Sequence[tuple[float, ...]]] = {
    "piriformis": [(22, 50, 42, 9), (44, 47, 34, 11), (66, 42, 23, 10), (94, 34, 11, 7), (130, 12, 1, 3.5)],
    "gemellus superior": [(58, 40, -1, 5), (72, 43, 2, 6.5), (100, 34, 0, 6.5), (132, 16, -4, 4)],
    "gemellus inferior": [(62, 38, -16, 5), (76, 40, -13, 6.5), (102, 32, -11, 6.5), (132, 18, -10, 4)],
    "coccygeus": [(18, 58, 12, 4), (34, 52, 4, 4), (50, 44, -4, 3)],
}  # fmt: skip

VESSELS: Mapping[str, tuple[str, Sequence[tuple[float, float, float, float]]]] = {
    "external iliac artery": ("artery", [(38, -4, 72, 5), (47, -18, 50, 5), (56, -36, 32, 4.8),
                                         (66, -58, 12, 4.8),
                                         (73, -70, -6, 4.8), (76, -72, -30, 4.4), (78, -66, -60, 3.8)]),
    "deep femoral artery": ("artery", [(76, -70, -22, 3), (88, -64, -36, 2.8), (92, -58, -60, 2.5)]),
    "internal iliac artery": ("artery", [(40, 2, 66, 3.6), (46, 14, 52, 3.4), (50, 26, 38, 3),
                                         (50, 36, 24, 2)]),
    "external iliac vein": ("vein", [(36, 12, 72, 6.5), (49, -6, 50, 6), (54, -26, 32, 6), (58, -50, 12, 6),
                                     (62, -64, -6, 6), (66, -68, -30, 6), (74, -60, -60, 5)]),
    "internal iliac vein": ("vein", [(40, 16, 64, 4.5), (44, 24, 50, 4.2), (46, 32, 36, 3.6),
                                     (46, 38, 22, 2.5)]),
    "great saphenous vein": ("vein", [(66, -72, -24, 2.2), (66, -82, -34, 2.4), (62, -86, -64, 2.2)]),
    "inferior epigastric artery": ("artery", [(62, -64, 8, 1.2), (46, -78, 16, 1.2), (32, -83, 36, 1.2),
                                              (28, -88, 66, 1.2)]),
    "superior gluteal artery": ("artery", [(50, 28, 40, 1.8), (64, 44, 34, 1.5), (80, 55, 37, 1.1),
                                           (104, 46, 46, 0.7)]),
    "inferior gluteal artery": ("artery", [(50, 36, 24, 2), (60, 52, 8, 1.8), (68, 58, -14, 1.5),
                                           (72, 66, -40, 1)]),
}  # fmt: skip
NODES = [
    (56, -58, 24),
    (63, -48, 30),
    (50, -22, 40),
    (74, -82, -22),
    (84, -83, -34),
    (66, -80, -14),
    (44, 4, 20),
]
SCIATIC_NERVE = [
    (56, 46, 30, 4.5),
    (70, 49, 8, 4.5),
    (80, 45, -12, 4.5),
    (88, 40, -40, 4.5),
    (92, 40, -66, 4.5),
]
SPERMATIC_CORD = [(60, -72, 6, 4), (46, -84, -10, 5.5), (32, -88, -28, 6.5), (26, -90, -60, 8)]
ROUND_LIGAMENT = [(22, -10, 24, 2), (42, -34, 22, 1.8), (56, -62, 10, 1.8), (44, -84, -10, 1.6),
                  (30, -88, -30, 1.2)]  # fmt: skip

RECTUM: Sections = {
    -60: (0, 28, 8, 9, 0), -42: (0, 36, 8, 10, 0), -30: (0, 39, 11, 11, 0), -20: (1, 39, 16, 12, 5),
    -10: (2, 37, 19, 14, -5), 0: (-1, 38, 17, 13, 8), 10: (-3, 38, 15, 12, -5), 20: (2, 38, 15, 11, 10),
    30: (6, 34, 13, 11, 20), 44: (12, 27, 11, 9, 30),
}  # fmt: skip
SIGMOID = [(8, 31, 36, 10), (22, 16, 42, 11), (30, 2, 36, 12), (20, -14, 34, 12), (-2, -6, 42, 11),
           (-20, 4, 50, 12), (-12, 16, 62, 12), (12, 4, 70, 11)]  # fmt: skip
UTERUS = [(0, 8, -16, 9), (0, 5, -6, 11), (0, -1, 6, 14), (0, -11, 20, 19), (0, -17, 27, 17)]
VAGINA = [(0, 6, -14, 9, 6), (0, 4, -30, 11, 4.5), (0, 0, -60, 9, 4)]  # x, y, z, half-axes
SEMINAL_VESICLE = [(4, 0, -12, 3.5), (12, 1, -7, 5), (20, 5, -4, 5.5), (29, 5, 1, 5), (36, 9, 4, 3.5)]


# --- the builder ----------------------------------------------------------------------------------------


def build(patient: Patient) -> list[Structure]:
    """The pelvis of a patient: structures in painting order."""
    rng = patient.rng("pelvis frame")
    width = (1.02 if patient.female else 0.985) * rng.normal(1, 0.012)
    scale = patient.size * np.array([width, rng.normal(1, 0.02), 1.0])
    frame = Frame(patient, rng, scale, tilt=float(np.clip(rng.normal(0, 0.018), -0.034, 0.034)))
    fascia, body = _contours(frame)
    return [
        *under_the_skin(patient, body),
        *_deep_fascia(frame, fascia),
        _septa(frame, fascia, body),
        *_cavity(frame),
        *_muscles(frame),
        *_bones(frame),
        *_viscera(frame),
        *_vessels(frame),
        *_calcifications(frame),
    ]


def _belly(patient: Patient, sections: Sections) -> Sections:
    """A table with its front bulged (or hollowed) above the hips: all layers of the belly's wall alike."""
    bulged = {}
    for z, points in sections.items():
        p = np.atleast_2d(np.array(points, float))
        share = np.clip(z / 50, 0, 1) * np.clip((-50 - p[:, 1]) / 25, 0, 1)
        p[:, 1] *= 1 + share * (patient.visceral - 1)
        bulged[z] = p if p.shape[1] == 2 else p[0]
    return bulged


def _contours(f: Frame) -> tuple[Loft, Loft]:
    """Deep fascia and skin: fat of varying depth lies between, so that muscles never leave the body."""
    rings = f.ring(_belly(f.patient, FASCIA), mm=1.2)
    skins = {z: _skin(f.patient, ring, z) for z, ring in rings.items()}
    return Loft(rings, dense=True), Loft(skins, dense=True)


def _skin(patient: Patient, fascia: Curve, z: float) -> Curve:
    angle = np.arctan2(fascia[:, 1], fascia[:, 0])
    front, behind = np.clip(-np.sin(angle), 0, 1), np.clip(np.sin(angle), 0, 1)
    flank = np.exp(-(((np.abs(np.cos(angle)) - 0.75) / 0.3) ** 2)) * behind  # the buttock's fullest part
    depth = 4.5 + patient.fat_mm * (0.75 + 0.25 * front**2 + 0.2 * behind + 0.35 * flank)
    out = fascia * (1 + depth / np.linalg.norm(fascia, axis=1))[:, None]
    deep, wide = patient.size * (5 + 0.4 * np.clip(10 - z, 0, 50)), 9 + 0.1 * patient.fat_mm
    cleft = deep * np.exp(-((out[:, 0] / wide) ** 2))  # between the buttocks
    out[:, 1] -= np.where(out[:, 1] > 0, cleft, 0)
    return out


def _deep_fascia(f: Frame, fascia: Loft) -> list[Structure]:
    """The sheet that wraps all muscles, laterally the iliotibial tract."""
    fat = ("subcutaneous_fat",)
    return [
        Structure(fascia, 20, None, blur_mm=0.3, inside=fat, opacity=0.6),
        Structure(fascia.inset(0.9), f.patient.hu["fat"], "subcutaneous_fat", FAT, 0.3, fat),
    ]


def _septa(f: Frame, fascia: Loft, body: Loft) -> Structure:
    """Sheets of connective tissue below the skin: some cross the fat, some run along it (Scarpa's fascia)."""
    rng = f.patient.rng("septa")
    strands = []
    for _ in range(280):
        z = rng.uniform(*EXTENT_MM)
        (deep,), (skin,) = fascia.section(z), body.section(z)
        along = rng.random() < 0.4
        first, steps = rng.integers(len(deep)), int(rng.integers(6, 22)) if along else int(rng.integers(2, 8))
        at = (first + np.arange(3) * steps // 2) % len(deep)
        low, high = (rng.uniform(0.35, 0.6),) * 2 if along else rng.uniform(0, 1, 2)
        share = (np.linspace(low, high, 3) + rng.normal(0, 0.04, 3))[:, None]
        path = np.column_stack([deep[at] * (1 - share) + skin[at] * share, z + rng.normal(0, 2, 3)])
        strands.append(Tube(path, rng.uniform(0.25, 0.5), 12, smooth=False))
    return Structure(Union(strands), -40, None, blur_mm=0.4, inside=("subcutaneous_fat",), opacity=0.5)


def _cavity(f: Frame) -> list[Structure]:
    cavity = Loft(f.ring(_belly(f.patient, CAVITY), mm=1.5), dense=True)
    rng = f.patient.rng("pelvic fat")
    strands = []
    for _ in range(90):
        start = rng.uniform((-50, -60, -45), (50, 30, 60)) * f.scale
        strands += vessel_tree(rng, start, rng.normal(0, 1, 3), length=22, radius=0.9, depth=1, wiggle=0.5)
    fibrous, fat = f.patient.hu["muscle"], ("visceral_fat",)
    return [
        Structure(cavity, f.patient.hu["fat"] + 4, "visceral_fat", FAT, 0.5),
        Structure(_angular(strands), fibrous, None, blur_mm=0.3, inside=fat, opacity=0.7),
    ]


def _angular(tubes: Sequence[Tube]) -> Union:
    """Tubes without smoothing: for threads too thin to show their corners, and several times faster."""
    return Union([replace(tube, smooth=False) for tube in tubes])


def _muscles(f: Frame) -> list[Structure]:
    """Muscles with the fat planes that the tables leave between them; they waste with age."""
    patient, hu = f.patient, f.patient.hu["muscle"]
    rng = patient.rng("wasting")
    wasted = 0.035 * max(patient.age - 50, 0) * float(rng.uniform(0, 1.4))
    bulk = float(
        rng.normal(1.2 if patient.female else 1.9, 0.7)
    )  # mm that muscles are thicker than the tables'
    out = []
    for side in (-1, 1):
        for name, sections in MUSCLES.items():
            thin = name in ("levator ani", "abdominal wall")
            shape = f.loft(_belly(patient, sections), side, mm=0.5 if thin else 1.1, cap=0 if thin else 6)
            out += _muscle(f, shape if thin else shape.inset(wasted - bulk), hu + f.rng.normal(0, 2))
        for oval in OVALS.values():
            out += _muscle(f, f.ovals(_belly(patient, oval), side).inset(0.5 * wasted - 1), hu)
        for path in STRAPS.values():
            out += _muscle(f, f.tube(path, side), hu)
        out += _fat_streaks(f, side, wasted)
    return out


def _muscle(f: Frame, shape: Shape, hu: float) -> list[Structure]:
    """A muscle and the fat plane that keeps it apart from those painted before."""
    return [
        Structure(shape.inset(-0.9), f.patient.hu["fat"], "subcutaneous_fat", FAT, 0.4, ("muscle",)),
        Structure(shape, hu, "muscle", MUSCLE, 0.5),
    ]


def _fat_streaks(f: Frame, side: int, wasted: float) -> list[Structure]:
    """Fat between the bundles of gluteus maximus, along its fibres: from the sacrum down to the femur."""
    rng, bundles, marbling = f.patient.rng(f"bundles {side}"), [], []
    for z in np.arange(-60, 110, 10.0 - wasted) + rng.uniform(-3, 3):
        depth = rng.normal(0, 3)
        path = [(14, 72 + depth, z), (44, 80 + depth, z - 14), (80, 72 + depth, z - 32), (118, 42, z - 54)]
        bundles.append(Tube(jitter(rng, mirrored(path, side) * f.scale, 2), rng.uniform(0.4, 0.8, 4), 3))
    for _ in range(int(40 * (1 + wasted) * rng.lognormal(0, 0.6))):
        x, y, z = rng.uniform((70, -70, -60), (150, 80, 70))
        strand = np.array([(x, y, z), rng.normal((x, y, z), (4, 6, 8))])
        marbling.append(Tube(mirrored(strand, side) * f.scale, rng.uniform(0.3, 0.9), 3))
    fat = f.patient.hu["fat"]
    return [
        Structure(Union(bundles), fat, None, blur_mm=0.5, inside=("muscle",), opacity=0.75),
        Structure(Union(marbling), fat, None, blur_mm=0.7, inside=("muscle",), opacity=0.55),
    ]


def _bones(f: Frame) -> list[Structure]:
    out: list[Structure] = []
    for side in (-1, 1):
        hip: list[Shape] = [
            f.loft(HIP_BONE, side, mm=0.6, cap=(5, 0)),
            f.loft(ISCHIUM, side, mm=0.6, cap=(0, 8)),
            f.tube(PUBIC_RAMUS, side, mm=0.5),
            f.loft(PUBIS, side, mm=0.6, cap=(0, 5)),
            f.tube(ISCHIAL_SPINE, side, mm=0.4),
        ]
        out += _fused(f, hip, cortex_mm=1.7)
        out += _hip_joint(f, side)
    symphysis = f.loft({-70: [(-4, -66), (4, -66), (3.5, -46), (-3.5, -46)],
                        -24: [(-3, -66), (3, -66), (2.5, -50), (-2.5, -50)]}, mm=0.3)  # fmt: skip
    return [*out, *_sacrum(f), Structure(symphysis, 95, "disc_cartilage", ((8, 2.5),), 0.5)]


def _fused(f: Frame, shapes: Sequence[Shape], *, cortex_mm: float, marrow: float = 1.0) -> list[Structure]:
    """Several solids grown together to one bone: all cortex first, then the marrow through all of them."""
    pairs = [bone(f.patient, shape, cortex_mm=cortex_mm, cortex=0.9, marrow=marrow) for shape in shapes]
    return [cortex for cortex, _ in pairs] + [marrow for _, marrow in pairs]


def _hip_joint(f: Frame, side: int) -> list[Structure]:
    """Socket with its hard rim, cartilage, and the femur; the ball is a sphere, so it changes with z."""
    centre, r = FEMORAL_HEAD
    gap = 2.6 - 0.02 * max(f.patient.age - 50, 0)
    sizes = (r + 5.5, r + gap + 2.2, r + gap, r)
    capsule, rim, joint, head = (f.ball(centre, (radius,) * 3, side) for radius in sizes)
    fat_pad = f.ball((67, 0, -6), (5, 9, 10), side)
    femur: list[Shape] = [f.tube(NECK, side), f.ball(*TROCHANTER, side), f.tube(SHAFT, side)]
    marrow = f.patient.hu["marrow"]
    dense = f.ball((94, -6, -2), (13, 14, 18), side)  # weight-bearing trabeculae
    return [
        Structure(rim, f.patient.hu["cortex"] * 0.75, "cortical_bone", ((60, 2.5),), 0.6, ("bone_marrow",)),
        Structure(capsule, 55, "muscle", MUSCLE, 0.6, ("subcutaneous_fat",)),
        Structure(joint, 75, "disc_cartilage", ((8, 2.5),), 0.3),
        Structure(fat_pad, -60, "visceral_fat", FAT, 0.8),
        *_fused(f, [*femur, head], cortex_mm=1.9, marrow=0.6),
        Structure(head.inset(1.2), marrow, "bone_marrow", ((22, 1.6), (18, 4.0)), 0.5),
        Structure(dense, marrow * 1.2, "bone_marrow", ((35, 1.6), (25, 4.0)), 3.0, ("bone_marrow",)),
    ]


def _sacrum(f: Frame) -> list[Structure]:
    sacrum = Loft(f.ring(SACRUM, mm=0.7), dense=True)
    bony = ("cortical_bone", "bone_marrow")
    cortex = f.patient.hu["cortex"] * 0.8
    canal: Sections = {20: (0, 67, 4, 1.5, 0), 40: (0, 67, 10, 4, 0), 66: (0, 64, 14, 6, 0)}
    out = [  # the sacro-iliac joint: the sacrum's ear-shaped side pressed into the ilium
        Structure(sacrum.inset(-4.2), cortex, "cortical_bone", ((60, 2.5),), 0.3, ("bone_marrow",)),
        Structure(sacrum.inset(-2.2), 90, "disc_cartilage", ((10, 2.5),), 0.4, bony),
        *_fused(f, [sacrum, f.ovals(COCCYX, cap=3)], cortex_mm=1.4, marrow=0.8),
        Structure(f.ovals(canal, cap=0), 12, "spinal_canal", ((10, 2.5),), 0.4),
    ]
    for side in (-1, 1):
        for x, z in FORAMINA:
            course = [(x * 0.8, 66, z + 3), (x, 56, z), (x + 3, 44, z - 5), (x + 4, 38, z - 8)]
            hole = f.tube(np.column_stack([course, [3, 3.5, 4.5, 5]]), side, mm=0.5)
            root = f.tube(np.column_stack([course, [1.6, 2, 2.4, 2.6]]), side, mm=0.4)
            out.append(Structure(hole, -80, "visceral_fat", FAT, 0.4, bony))
            out.append(Structure(root, 35, None, ((5, 2.5),), 0.4, ("visceral_fat",)))
    return out


# --- organs ---------------------------------------------------------------------------------------------


def _viscera(f: Frame) -> list[Structure]:
    rng = f.patient.rng("pelvic organs")
    fullness = rng.uniform(0.6, 1.3)
    return [
        *_mesorectal_fascia(f),
        *_small_bowel(f, rng),
        *_rectum(f, rng),
        *_bladder(f, rng, fullness),
        *(_female(f, rng) if f.patient.female else _male(f, rng)),
    ]


def _mesorectal_fascia(f: Frame) -> list[Structure]:
    arc = [(30 * math.sin(t), 34 - 24 * math.cos(t)) for t in np.linspace(-2.5, 2.5, 15)]
    sheets = {}
    for z, k in ((-30, 0.8), (-10, 1.0), (12, 1.05), (34, 1.0)):
        path = jitter(f.rng, np.array(arc) * f.scale[:2] * k, 1.6)
        sheets[z * f.scale[2]] = stadium(spline(path, closed=False), 0.6)
    fascia = Loft(sheets, dense=True)
    return [Structure(fascia, 20, None, blur_mm=0.4, inside=("visceral_fat",), opacity=0.45)]


def _bowel(
    f: Frame, rng: np.random.Generator, path: np.ndarray, content: str, *, wall: float
) -> list[Structure]:
    """A stretch of gut along a path (K, 4) of x, y, z and radius, in mm of this patient."""
    shape = Tube(path[:, :3], path[:, 3])
    lumen = (float((path[:, 1] - path[:, 3]).min()) + wall, float((path[:, 1] + path[:, 3]).max()) - wall)
    if content == "mixed" and lumen[1] - lumen[0] > 45:
        content = "fluid"  # one gas level over loops far apart in y would be a sliver
    hollow = ("bowel", "bowel_gas")
    gap = Structure(shape.inset(-0.8), f.patient.hu["fat"], "visceral_fat", FAT, 0.4, hollow, 0.8)
    parts = gut(f.patient, rng, shape, content=content, wall_mm=wall, y_range=lumen)
    return [gap, *(replace(part, inside=("visceral_fat", *hollow)) for part in parts)]


def _rectum(f: Frame, rng: np.random.Generator) -> list[Structure]:
    path = np.array(SIGMOID, float) * [*f.scale, f.patient.size]
    path = spline(path + rng.normal(0, [2.5, 2.0, 2.0, 1.6], path.shape), closed=False, per_span=3)
    path[:, 3] *= rng.uniform(0.85, 1.15, len(path))  # folds
    contents = ("gas", "feces", "collapsed", "feces")
    width = rng.uniform(0.75, 1.15)
    wide = {z: (x, y, a * width, b * width, w + rng.normal(0, 8)) for z, (x, y, a, b, w) in RECTUM.items()}
    rectum = f.ovals(wide, mm=1.1, cap=(0, 8))
    depth = (rectum.points[4, :, 1].min() + 3, rectum.points[4, :, 1].max() - 3)
    content = str(rng.choice(contents))
    return [
        *_stretches(f, rng, path, contents, wall=3.2, steps=(4, 7)),
        *gut(f.patient, rng, rectum, content=content, wall_mm=3.2, label="rectum", y_range=depth),
    ]


def _small_bowel(f: Frame, rng: np.random.Generator) -> list[Structure]:
    """Loops of ileum above the bladder: one path wound through the cavity, cut into stretches that differ."""
    points: list[tuple[float, ...]] = []
    lowest = rng.uniform(6, 34)  # how far the loops hang down
    for k, z in enumerate(
        (lowest, lowest + 20, lowest + 40, lowest + 60)
    ):  # rows run left to right in one layer, front to back in the next
        for j, row in enumerate((-60, -38, -16) if k % 2 == 0 else (-44, -22, 0, 22, 44)):
            stops = (-44, -22, 0, 22, 44) if k % 2 == 0 else (-62, -40, -18)
            line = [(stop, row, z) if k % 2 == 0 else (row, stop, z) for stop in stops]
            points += line if j % 2 == 0 else line[::-1]
    path = jitter(rng, np.array(points) * f.scale, 4.5)
    radius = rng.uniform(7.5, 12, len(path)) * f.patient.size
    contents = ("collapsed", "collapsed", "fluid", "mixed", "oral" if f.patient.oral_contrast else "fluid")
    return _stretches(f, rng, np.column_stack([path, radius]), contents, wall=2.2, steps=(2, 5))


def _stretches(f: Frame, rng: np.random.Generator, path: Curve, contents: Sequence[str], *, wall: float,
               steps: tuple[int, int]) -> list[Structure]:  # fmt: skip
    """Gut along a path, cut into stretches of some steps: contents differ, each has its own gas level."""
    out: list[Structure] = []
    first = 0
    while first < len(path) - 2:
        last = min(first + int(rng.integers(*steps)), len(path) - 1)
        out += _bowel(f, rng, path[first : last + 1], str(rng.choice(contents)), wall=wall)
        first = last
    return out


def _bladder(f: Frame, rng: np.random.Generator, fullness: float) -> list[Structure]:
    a, b = 34 * fullness, 22 * fullness**0.6
    blob = {}
    for z, k in ((-26, 0.35), (-16, 0.8), (-2, 1.0), (12, 0.95), (26 * fullness, 0.5)):
        y = -37 - 0.35 * max(z, 0)  # the dome leans forward
        blob[z] = ellipse(0, y, a * k, b * (0.4 + 0.6 * k), power=2.2, n=14)
    shape = f.loft(blob, mm=1.0, cap=9)
    wall = 2.4 + 1.2 * (fullness < 0.9)
    return [
        Structure(shape, f.patient.hu["gut_wall"] * 0.8, "bladder", ((7, 2.5),), 0.5),
        Structure(shape.inset(wall), rng.uniform(2, 12), "bladder", ((3, 4.0),), 0.5),
    ]


def _female(f: Frame, rng: np.random.Generator) -> list[Structure]:
    """Uterus (smaller after the menopause), ovaries with follicles before it, vagina, round ligaments."""
    after = f.patient.age > 52
    path = np.array(UTERUS, float)
    path[:, 0] += rng.normal(0, 6) * np.linspace(0, 1, len(path))
    path[:, 3] *= rng.uniform(0.62, 0.78) if after else rng.uniform(0.85, 1.1)
    aside = np.array([0.3 * path[3, 3], 0, 0, 0])  # the uterus is wider than deep
    uterus = Union([f.tube(path + side * aside, mm=0.8) for side in (-1, 1)])
    hu = f.patient.hu["uterus"]
    vagina = Loft({z * f.scale[2]: ellipse(0, y * f.scale[1], a, b) for _, y, z, a, b in VAGINA}, cap_mm=3)
    out = [Structure(vagina, hu * 0.85, "prostate_uterus", ((7, 2.5),), 0.5)]
    for side in (-1, 1):
        ligament = f.tube(ROUND_LIGAMENT, side)
        out.append(Structure(ligament, 45, None, ((5, 2.5),), 0.5, ANY_FAT))
        k = 0.6 if after else 1.0
        centre = rng.uniform((32, -8, 12), (42, 8, 26))
        ovary = f.ball(centre, (14 * k, 10 * k, 13 * k), side)
        out.append(Structure(ovary, hu * 0.75, "prostate_uterus", ((7, 2.5),), 0.5))
        for _ in range(0 if after else int(rng.integers(1, 5))):
            cyst = f.ball(centre + rng.normal(0, 4, 3), (rng.uniform(2, 6),) * 3, side)
            out.append(Structure(cyst, 14, "prostate_uterus", ((4, 2.5),), 0.6, ("prostate_uterus",)))
    cavity = f.tube(path * (1, 1, 1, 0.25), mm=0.5)
    out += [
        Structure(uterus.inset(-2.2), 40, "bladder", ((6, 2.5),), 0.4, ("bladder",)),
        Structure(uterus, hu, "prostate_uterus", ((8, 4.0), (5, 2.5)), 0.6),
        Structure(cavity, hu - 30, "prostate_uterus", ((5, 2.5),), 1.2, ("prostate_uterus",)),
    ]
    if rng.random() < 0.25:  # a fibroid
        ball = f.ball(path[3, :3] + rng.normal(0, 10, 3), (rng.uniform(7, 16),) * 3)
        out.append(Structure(ball, hu - 12, "prostate_uterus", ((10, 2.5),), 0.6))
    return out


def _male(f: Frame, rng: np.random.Generator) -> list[Structure]:
    """Prostate (it grows with age), seminal vesicles, spermatic cords."""
    grown = 1 + 0.008 * max(f.patient.age - 45, 0) * rng.uniform(0.5, 1.5)
    hu = f.patient.hu["uterus"] - 12
    out = []
    prostate = f.ball((0, -6, -28), (21 * grown, 15 * grown, 17 * grown))
    for side in (-1, 1):
        vesicle = np.array(SEMINAL_VESICLE, float)
        vesicle[:, 3] *= rng.uniform(0.7, 1.2, len(vesicle))
        shape = f.tube(vesicle, side, mm=1.2)
        out.append(Structure(shape, 32, "prostate_uterus", ((10, 1.6), (6, 2.5)), 0.5))
        cord = f.tube(SPERMATIC_CORD, side)
        out += [
            Structure(cord, 30, None, MUSCLE, 0.4, ("subcutaneous_fat",), 0.8),
            Structure(cord.inset(1.3), f.patient.hu["fat"] + 10, None, FAT, 0.5, ("subcutaneous_fat",)),
        ]
        strands = [Tube(jitter(rng, cord.path, 1.6), rng.uniform(0.8, 1.4)) for _ in range(5)]
        out.append(Structure(Union(strands), 60, None, ((6, 2.5),), 0.4, ("subcutaneous_fat",)))
    inner = f.ball((0, -10, -26), (12 * grown, 9 * grown, 11 * grown))
    return [
        *out,
        Structure(prostate.inset(-1.2), -20, None, FAT, 0.6, ("bladder",)),
        Structure(prostate, hu, "prostate_uterus", ((8, 2.5),), 0.6),
        Structure(inner, hu + 14, "prostate_uterus", ((11, 2.5),), 1.5),
    ]


# --- vessels, nodes, nerves, calcium --------------------------------------------------------------------


def _vessels(f: Frame) -> list[Structure]:
    rng, hu = f.patient.rng("pelvic vessels"), f.patient.hu
    blood: tuple[Grain, ...] = ((4, 2.5),)
    out = []
    for side in (-1, 1):
        out.append(Structure(f.tube(SCIATIC_NERVE, side), 38, None, ((14, 1.6),), 0.7, ANY_FAT))
        out += _nodes(f, rng, side)
        for kind, path in reversed(list(VESSELS.values())):
            out.append(Structure(f.tube(path, side), hu[kind], "small_vessel", blood, 0.4))
        twigs = []
        for start in mirrored(((50, 28, 38), (50, 36, 22), (46, 24, 10), (44, 10, -4)), side) * f.scale:
            heading = (-0.6 * side, -0.3, -0.8)
            twigs += vessel_tree(rng, start, heading, length=20, radius=1.6, depth=3, wiggle=0.5)
        out.append(Structure(_angular(twigs), hu["vein"], "small_vessel", blood, 0.4, ("visceral_fat",)))
    return [*out, _cutaneous_vessels(f, rng)]


def _cutaneous_vessels(f: Frame, rng: np.random.Generator) -> Structure:
    """Small vessels in the fat under the skin."""
    twigs = []
    for _ in range(28):
        x, z = rng.uniform((-150, -50), (150, 60))
        y = 92 * float(rng.choice([-1, 1])) * math.sqrt(max(1 - (x / 165) ** 2, 0.05))
        start = np.array([x, y, z]) * f.scale * (1 + 0.003 * f.patient.fat_mm)
        twigs += vessel_tree(rng, start, rng.normal(0, 1, 3), length=26, radius=0.9, depth=1, wiggle=0.6)
    return Structure(_angular(twigs), 40, None, ((4, 2.5),), 0.4, ("subcutaneous_fat",), 0.8)


def _nodes(f: Frame, rng: np.random.Generator, side: int) -> list[Structure]:
    """Lymph nodes along the vessels, flat, some with a fatty hilum."""
    out = []
    for centre in NODES:
        axes = rng.uniform((3, 2, 3.5), (6.5, 3.8, 8))
        node = f.ball(np.array(centre) + rng.normal(0, 2.5, 3), axes, side)
        out.append(Structure(node, f.patient.hu["muscle"] + 8, "lymph_node", ((5, 2.5),), 0.4, ANY_FAT))
        if axes[1] > 3:
            out.append(Structure(node.inset(1.9), -40, None, blur_mm=0.6, inside=("lymph_node",)))
    return out


def _calcifications(f: Frame) -> list[Structure]:
    """Plaques on arteries and phleboliths in pelvic veins, with age."""
    rng = f.patient.rng("pelvic calcium")
    years = max(f.patient.age - 45, 0)
    artery = np.array(VESSELS["external iliac artery"][1], float)
    out = []
    for side in (-1, 1):
        for _ in range(rng.poisson(0.14 * years)):
            at, turn = rng.uniform(0, len(artery) - 1), rng.uniform(0, 2 * np.pi)
            x, y, z, r = (np.interp(at, np.arange(len(artery)), column) for column in artery.T)
            centre = (x + r * math.cos(turn), y + r * math.sin(turn), z)
            plaque = f.ball(centre, (1.0, rng.uniform(1.2, 2.4), rng.uniform(2, 6)), side)
            out.append(Structure(plaque, rng.uniform(350, 800), "calcification", blur_mm=0.4))
        for _ in range(rng.poisson(0.04 * years)):
            stone = f.ball(rng.uniform((26, -2, -26), (46, 30, 4)), (rng.uniform(1.2, 2.6),) * 3, side)
            hu = rng.uniform(250, 600)
            out.append(Structure(stone, hu, "calcification", blur_mm=0.5, inside=("visceral_fat",)))
    return out
