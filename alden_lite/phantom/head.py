"""The head: basal ganglia at z = 0, centrum semiovale above, midbrain below. Always without contrast medium.

Grey and white matter differ by 8 to 9 HU only, so the head is looked at in the brain window, L 40 W 80.
Sulci are sheets of fluid with a sleeve of cortex around them: they wander, deepen and fade along z.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from alden_lite.phantom.painting import Grain, Structure
from alden_lite.phantom.parts import MUSCLE, Frame, Sections, jitter
from alden_lite.phantom.patient import Patient
from alden_lite.phantom.shapes import Curve, Loft, Shape, Tube, Union, inset, mirrored, spline, stadium

EXTENT_MM = (-25.0, 35.0)

# --- anatomy: mm, left half; tables reach beyond EXTENT_MM ----------------------------------------------

# Outside of the skull, from the forehead's midline to the back of the head.
SKULL: Sections = {
    -40: [(0, -89), (19, -86), (37, -77), (53, -58), (64, -28), (70, 6), (67, 40), (52, 68), (28, 84),
          (0, 89)],
    -10: [(0, -93), (20, -90), (39, -80), (56, -59), (67, -28), (73, 8), (70, 42), (55, 72), (29, 90),
          (0, 95)],
    20: [(0, -92), (20, -89), (38, -79), (55, -58), (66, -28), (73, 8), (70, 42), (54, 71), (28, 89),
         (0, 94)],
    45: [(0, -82), (18, -79), (35, -70), (50, -51), (61, -24), (67, 8), (64, 38), (49, 64), (26, 80),
         (0, 85)],
}  # fmt: skip
# What parts the hemispheres: height -> y where its front part ends and its back part begins.
FISSURE = {-40: (-34, 66), -24: (-30, 60), -12: (-34, 44), 0: (-41, 40), 14: (-42, 38), 22: (-34, 30),
           27: (-22, 18), 30: (3, -3), 45: (3, -3)}  # fmt: skip
FALX = {-40: (-60, 78), -10: (-58, 52), 10: (-54, 40), 25: (-46, 26), 31: (-12, 8), 37: (3, -3), 45: (3, -3)}

VENTRICLES: dict[str, tuple[Sections, float]] = {  # and the length over which the ends close
    "frontal horn and body": ({
        -5: [(4, -17), (4.5, -20), (6, -25), (9, -30), (12, -32), (13, -30), (11, -26), (8.5, -22),
             (6.5, -18), (5, -16)],
        4: [(2.5, -13), (3, -18), (5, -26), (9, -33), (14, -36), (16, -32), (13, -26), (9, -20), (6, -15),
            (4, -12)],
        13: [(4, 2), (2.5, -14), (4, -27), (9, -35), (15, -36), (17, -31), (14, -22), (11, -10), (9, -2),
             (6, 4)],
        19: [(14, 24), (5, 6), (3, -20), (7, -33), (13, -34), (17, -28), (14, -12), (14, 4), (20, 22),
             (18, 28)],
        29: [(18, 24), (9, 8), (5, -12), (7, -24), (11, -26), (14, -20), (13, -6), (15, 8), (20, 20),
             (20, 26)],
    }, 5.0),
    "atrium and occipital horn": ({
        -9: [(22, 26), (25, 26), (27, 29), (27, 36), (25, 46), (23, 50), (22, 44), (21, 34)],
        3: [(20, 24), (25, 24), (29, 29), (29, 38), (25, 50), (22, 54), (20, 44), (19, 32)],
        14: [(16, 22), (22, 20), (29, 26), (28, 36), (23, 44), (19, 46), (17, 38), (15, 28)],
        24: [(17, 22), (21, 20), (25, 24), (25, 30), (22, 36), (20, 36), (18, 32), (16, 26)],
    }, 6.0),
}  # fmt: skip
TEMPORAL_HORN = [(27, 28, -4, 3), (32, 16, -14, 2.2), (33, 2, -22, 1.8), (30, -8, -27, 1.5),
                 (27, -10, -32, 1)]  # fmt: skip
CHOROID_PLEXUS = [(20, 24, 14, 2), (23, 33, 8, 3.2), (24, 36, 3, 2)]
THIRD_VENTRICLE: Sections = {
    -18: (0, -8, 1.2, 6, 0), -8: (0, -1, 1.6, 11, 0), 2: (0, 1, 1.6, 12, 0), 10: (0, 4, 1.3, 9, 0),
}  # fmt: skip

# Deep grey matter: height -> centre x, y, half-axes a, b, angle in degrees.
NUCLEI: dict[str, Sections] = {
    "caudate": {-8: (11, -21, 4, 6, 15), 2: (13.5, -22, 5.5, 9, 22), 12: (17.5, -22, 4.5, 10, 20),
                20: (19, -14, 3, 11, 8), 30: (18.5, -6, 2, 10, 4)},
    "hippocampus": {-40: (25, 2, 4, 11, 10), -22: (26, 4, 4, 12, 15), -12: (25, 12, 3, 7, 20)},
    "putamen": {-12: (22, -12, 4, 6, 0), -3: (26, -7, 4.5, 14, -8), 6: (26.5, -6, 4.5, 15.5, -8),
                15: (26, -6, 3, 12, -6)},
    "globus pallidus": {-8: (16, -5, 3, 5, -20), 0: (19.5, -4, 4, 7.5, -22), 8: (21, -4, 3, 6, -20)},
    "thalamus": {-7: (9, 8, 6, 8, -25), 2: (11, 8, 8.5, 13, -28), 10: (12.5, 7, 8.5, 13.5, -25),
                 17: (13, 6, 5, 9, -20)},
}  # fmt: skip
CLAUSTRUM: Sections = {
    -12: [(30, -12), (32, -5), (31, 4)],
    0: [(32, -18), (33.8, -5), (32, 10)],
    14: [(31, -16), (32.5, -5), (31, 8)],
}
INSULA: Sections = {
    -16: [(34, -14), (36, -6), (34, 2)],
    -4: [(35, -22), (38.5, -7), (36, 12)],
    10: [(36, -20), (38.5, -5), (35, 16)],
    20: [(37, -14), (38, -4), (36, 8)],
}
SYLVIAN: Sections = {
    -24: [(62, -24), (50, -22), (38, -20), (28, -18)],
    -10: [(66, -20), (56, -17), (46, -14), (40, -12)],
    4: [(68, -10), (58, -8), (48, -5), (40, -3)],
    20: [(68, 4), (60, 7), (50, 10), (42, 12)],
}

MIDBRAIN: Sections = {
    -40: [(0, -8), (8, -9), (14, -4), (16, 6), (13, 16), (6, 21), (0, 20)],
    -26: [(0, -5), (6, -10), (13, -8), (16, 2), (14, 13), (7, 20), (0, 18)],
    -7: [(0, 0), (5, -4), (10, -2), (12, 5), (10, 13), (5, 17), (0, 15)],
}
QUADRIGEMINAL: Sections = {  # the cistern behind the midbrain, up to the pineal gland
    -16: [(0, 18), (8, 16), (13, 17), (9, 21), (0, 23)],
    -4: [(0, 21), (6, 19), (10, 21), (6, 24), (0, 26)],
    6: [(0, 23), (3, 22), (5, 24), (3, 27), (0, 28)],
}
SUPRASELLAR: Sections = {
    -40: [(0, -30), (7, -23), (19, -26), (16, -14), (15, -4), (5, -5), (0, -3)],
    -24: [(0, -27), (6, -22), (16, -24), (13, -14), (12, -6), (5, -6), (0, -3)],
    -16: [(0, -20), (4, -18), (9, -18), (8, -12), (6, -8), (3, -6), (0, -5)],
}
CEREBELLUM: Sections = {
    -40: [(0, 22), (20, 22), (38, 32), (42, 50), (28, 68), (12, 76), (0, 77)],
    -24: [(0, 22), (15, 25), (22, 33), (19, 45), (10, 55), (4, 62), (0, 64)],
    -10: [(0, 22), (4, 23), (7, 27), (7, 31), (4, 34), (2, 36), (0, 36)],
}
TEMPORALIS: Sections = {
    -40: [(57, -56), (66, -42), (72, -22), (75, 0), (73, 14), (71, 0), (67, -22), (61, -42)],
    -10: [(58, -55), (66, -43), (72.5, -22), (75.5, 2), (75.5, 16), (73, 0), (69, -22), (63, -43)],
    25: [(66, -36), (69, -28), (71.5, -14), (73, 4), (73, 12), (71.5, 2), (70, -14), (67.5, -28)],
}

GREY_GRAIN: tuple[Grain, ...] = ((1.7, 2.5), (1.3, 8))
WHITE_GRAIN: tuple[Grain, ...] = ((1.5, 2.5), (1.2, 8))
CSF_GRAIN: tuple[Grain, ...] = ((2.0, 2.5),)
BRAIN = ("brain_grey", "brain_white")
GREY, WHITE, CSF = 38.0, 29.0, 10.0  # HU
CORTEX_MM = 3.4
SULCUS_EVERY_MM = 11.5
STEP_MM = 5.0  # between the sections of a sulcus


# --- the builder ----------------------------------------------------------------------------------------


def build(patient: Patient) -> list[Structure]:
    """The head of a patient: structures in painting order."""
    rng = patient.rng("head frame")
    size = patient.size**0.4  # heads vary less than bodies
    f = Frame(patient, rng, size * np.array([rng.uniform(0.94, 1.06), rng.uniform(0.94, 1.05), 1.0]))
    skull = _ring(f, SKULL, mm=0.7)
    inner = {z: c - _normal(c) * _thickness(f, c, z)[:, None] for z, c in skull.items()}
    gap = 0.9 + 0.045 * max(patient.age - 40, 0) * rng.uniform(0.5, 1.4)  # the brain shrinks from its skull
    brain = Loft({z: inset(curve, gap) for z, curve in inner.items()}, dense=True)
    return [
        *_scalp(f, skull),
        *_skull(f, skull, inner),
        *_temporalis(f),
        Structure(Loft(inner, dense=True), CSF + 2, None, CSF_GRAIN),
        Structure(Loft(inner, dense=True).inset(0.5), CSF + 2, "csf", CSF_GRAIN),  # edge pixels stay bone
        *_brain(f, brain, gap),
        *_ventricles(f),
        *_midbrain(f, gap),
        *_falx(f, inner),
        *_vessels(f, inner, gap),
        *_calcifications(f),
        *_lesions(f),
    ]


def _ring(f: Frame, sections: Sections, *, mm: float) -> dict[float, Curve]:
    """Both halves of a curve that closes in the midline, dense; irregular in the same way at all heights."""
    n = 2 * len(next(iter(sections.values()))) - 2
    angle = 2 * np.pi * np.arange(n) / n
    phase = f.rng.uniform(0, 2 * np.pi, (3, 2))
    wobble = sum(
        mm * np.sin(k * angle[:, None] + phase[k - 2]) for k in (2, 3, 4)
    )  # smooth: bone has no kinks
    rings = {}
    for z, half in sections.items():
        points = np.array([*half, *[(-x, y) for x, y in half[-2:0:-1]]]) * f.scale[:2] + wobble
        rings[float(z)] = spline(points, per_span=10)
    return rings


def _normal(curve: Curve) -> Curve:
    return inset(curve, -1.0) - curve


def _thickness(f: Frame, curve: Curve, z: float) -> np.ndarray:
    """The skull is thickest at the forehead and the back of the head, thinnest at the temples."""
    rng = f.patient.rng("skull")
    base, front, back, phase = (
        rng.uniform(4.8, 6.6),
        rng.uniform(0.5, 2),
        rng.uniform(1, 3),
        rng.uniform(0, 6, 3),
    )
    angle = np.arctan2(curve[:, 1], curve[:, 0])
    waves = sum(0.25 * np.sin((k + 3) * angle + p + 0.02 * z) for k, p in enumerate(phase))
    midline = np.exp(-((curve[:, 0] / 18) ** 2))
    return base + midline * np.where(curve[:, 1] < 0, front, back) + waves


def _scalp(f: Frame, skull: dict[float, Curve]) -> list[Structure]:
    hu, rng = f.patient.hu, f.patient.rng("scalp")
    fat = 1.8 + 0.10 * f.patient.fat_mm * rng.uniform(0.6, 1.2)
    temple = {
        z: 6 * np.exp(-(((np.abs(c[:, 0]) - 68) / 14) ** 2) - ((c[:, 1] + 16) / 30) ** 2)
        for z, c in skull.items()
    }
    low = {z: float(np.clip((22 - z) / 40, 0, 1)) for z in skull}
    skin = Loft(
        {z: c + _normal(c) * (4.2 + fat + low[z] * temple[z])[:, None] for z, c in skull.items()}, dense=True
    )
    galea = Loft({z: inset(c, -1.6) for z, c in skull.items()}, dense=True)
    out = [
        Structure(skin, hu["skin"], "skin"),
        Structure(skin.inset(2.0), hu["fat"] + 25, "subcutaneous_fat", ((14, 2.5), (8, 4.0)), 0.3),
        Structure(galea, 40, None, MUSCLE, 0.3),
    ]
    for side in (-1, 1):
        for _ in range(3):  # superficial temporal artery and other vessels of the scalp
            angle = rng.uniform(-0.9, 0.7)
            ring = galea.section(0)[0]
            i = int(np.argmin(np.abs(np.arctan2(ring[:, 1], side * ring[:, 0]) - angle)))
            path = [(*(curve[i] * 1.03), z) for z, curve in skull.items()]
            out.append(Structure(Tube(path, 0.8), 50, None, blur_mm=0.4, inside=("subcutaneous_fat",)))
    return out


def _temporalis(f: Frame) -> list[Structure]:
    """The muscle outside the temple; painted after the skull, which it must not cover."""
    fat = ("subcutaneous_fat",)
    shapes = [f.loft(TEMPORALIS, side, mm=0.4, cap=(0, 8)).inset(-0.6) for side in (-1, 1)]
    return [Structure(shape, 58, "muscle", MUSCLE, 0.5, fat) for shape in shapes]


def _skull(f: Frame, outer: dict[float, Curve], inner: dict[float, Curve]) -> list[Structure]:
    """Outer table, spongy diploe, inner table; the coronal and lambdoid sutures; a frontal sinus in some."""
    hu, rng = f.patient.hu["cortex"] * 1.25, f.patient.rng("sutures")
    tables: tuple[Grain, ...] = ((70, 2.5),)
    diploe = Loft({z: inset(c, 1.8) for z, c in outer.items()}, dense=True)
    inner_table = Loft({z: inset(c, -1.5) for z, c in inner.items()}, dense=True)
    bony = ("cortical_bone", "bone_marrow")
    out = [
        Structure(Loft(outer, dense=True), hu, "cortical_bone", tables, 0.25),
        Structure(diploe, 520, "bone_marrow", ((130, 1.6), (70, 4.0)), 0.5),
        Structure(inner_table, hu, "cortical_bone", tables, 0.4),
    ]
    k = len(next(iter(outer.values())))
    for share in (0.13, 0.37, 0.63, 0.87):
        i = int((share + rng.normal(0, 0.008)) * k)
        drift = {z: (i + int(z / 5)) % k if share < 0.5 else (i - int(z / 5)) % k for z in outer}
        ends = {z: (outer[z][drift[z]] * 1.01, inner[z][(drift[z] + 1) % k] * 0.99) for z in outer}
        slits = {
            z: stadium(np.linspace(*pair, 6) + rng.normal(0, 0.5, (6, 2)), 0.35) for z, pair in ends.items()
        }
        suture = Loft(slits, dense=True)
        out.append(Structure(suture, 250, None, blur_mm=0.3, inside=bony, opacity=0.7))
    return out


# --- brain ----------------------------------------------------------------------------------------------


def _brain(f: Frame, brain: Loft, gap: float) -> list[Structure]:
    """Cortex, white matter, sulci, the fissure between the hemispheres, insula and deep nuclei."""
    tight = f.patient.rng("sulci").uniform(0.7, 1.2)
    width = tight * (0.38 + 0.013 * max(f.patient.age - 35, 0))  # half-width of a sulcus
    paths = [*_surface_sulci(f, brain), *_medial_sulci(f)]
    fissure = _fissure(f)
    sylvian = [_sheet(f, SYLVIAN, side) for side in (-1, 1)]
    sleeves = [_ribbon(p, CORTEX_MM + width) for p in paths] + [
        _ribbon(p, CORTEX_MM + 1) for p in fissure + sylvian
    ]
    cuts = [
        (Union([_ribbon(p, width, tip=0.7) for p in paths]), CSF + 1),
        (Union([_ribbon(p, 0.6 + 0.35 * gap) for p in fissure]), CSF),
        (Union([_ribbon(p, 0.4 + 0.4 * gap) for p in sylvian]), CSF),
    ]
    return [
        Structure(brain, GREY, "brain_grey", GREY_GRAIN, 0.4),
        Structure(brain.inset(CORTEX_MM), WHITE, "brain_white", WHITE_GRAIN, 0.9),
        Structure(Union(sleeves), GREY, "brain_grey", GREY_GRAIN, 0.8, ("brain_white",)),
        *_nuclei(f, gap),
        *(Structure(cut, hu, "csf", CSF_GRAIN, 0.6, BRAIN) for cut, hu in cuts),
    ]


Sheet = dict[float, Curve]
"""A surface in space: height -> path (K, 2)."""


def _ribbon(sheet: Sheet, half_width: float, tip: float = 1.0) -> Loft:
    """A sheet with a thickness; its deep end as thin as `tip` times its mouth."""
    widths = {z: np.linspace(1, tip, len(path)) * half_width for z, path in sheet.items()}
    return Loft({z: stadium(path, widths[z]) for z, path in sheet.items()}, dense=True)


def _sheet(f: Frame, table: Sections, side: int = 1) -> Sheet:
    sheet = {}
    for z, points in table.items():
        path = jitter(f.rng, mirrored(points, side) * f.scale[:2], 0.5)
        sheet[float(z)] = spline(path, closed=False, per_span=4)
    return sheet


def _surface_sulci(f: Frame, brain: Loft) -> list[Sheet]:
    """Sheets from the surface inwards, every centimetre or so: where they start, how deep they go and where
    they bend drifts slowly with z, so that gyri wind and neighbouring slices agree."""
    rng = f.patient.rng("sulci")
    heights = np.arange(EXTENT_MM[0] - STEP_MM, EXTENT_MM[1] + 2 * STEP_MM, STEP_MM)
    hulls = [_even(brain.section(float(z))[0]) for z in heights]
    n = round(float(np.linalg.norm(np.diff(hulls[5], axis=0), axis=1).sum()) / SULCUS_EVERY_MM)
    return [
        sheet
        for k in range(n)
        for sheet in _sulcus(rng, heights, hulls, (k + rng.uniform(-0.25, 0.25)) / n, rng.uniform(10, 26))
    ]


def _even(curve: Curve, n: int = 360) -> Curve:
    """A closed curve at n points of equal distance."""
    closed = np.vstack([curve, curve[:1]])
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    at = np.linspace(0, length[-1], n, endpoint=False)
    return np.column_stack([np.interp(at, length, closed[:, i]) for i in (0, 1)])


def _drift(rng: np.random.Generator, amplitude: float, wave: tuple[float, float]) -> Callable[[float], float]:
    """A slow swing along z; its wavelength in mm is drawn from a range."""
    phase, pace = rng.uniform(0, 2 * np.pi), 2 * np.pi / rng.uniform(*wave)
    return lambda z: amplitude * math.sin(pace * z + phase)


def _sulcus(
    rng: np.random.Generator, heights: np.ndarray, hulls: Sequence[Curve], share: float, depth: float
) -> list[Sheet]:
    """One sulcus and, in a third of them, the branch that leaves it halfway down."""
    along, deeper, tilt = _drift(rng, 5, (50, 120)), _drift(rng, 0.35, (45, 90)), _drift(rng, 0.28, (50, 120))
    bend, phase = _drift(rng, 1.0, (40, 90)), rng.uniform(0.6, 1.4)
    branch, turn = rng.random() < 0.3, float(rng.choice([-1, 1])) * rng.uniform(0.7, 1.2)
    trunk, twig = {}, {}
    t = np.linspace(0, 1, 9)[:, None]
    for z, hull in zip(heights, hulls, strict=True):
        i = int(share * len(hull) + along(z)) % len(hull)
        inward = -_normal(hull)[i]
        inward = _turned(inward, tilt(z))
        across = np.array([-inward[1], inward[0]])
        # Less deep at the poles, where sulci would meet, and where the insula lies in the way.
        y = abs(hull[i][1])
        most = 14 if z < 22 and y < 28 else 0.26 * (145 - y)
        reach = min(depth, most) * (1 + deeper(z))
        path = hull[i] - 2 * inward + inward * (reach + 2) * t
        path = path + across * (3.2 * bend(z) * np.sin(np.pi * phase * 1.2 * t) * t**0.5)
        trunk[float(z)] = path
        twig[float(z)] = path[5] + _turned(inward, turn) * 0.4 * reach * t
    return [trunk, twig] if branch else [trunk]


def _turned(vector: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([cos * vector[0] - sin * vector[1], sin * vector[0] + cos * vector[1]])


def _medial_sulci(f: Frame) -> list[Sheet]:
    """Short sulci of the medial surfaces: from the fissure sideways, around the corpus callosum."""
    rng, sheets = f.patient.rng("medial sulci"), []
    t = np.linspace(0, 1, 7)[:, None]
    around, above = np.arange(-30.0, 46, STEP_MM), np.array([32.0, 40.0, 48.0])
    places = [(y, around) for y in (-74, -62, -51, 50, 60, 71)]
    places += [(y, above) for y in (-36, -24, -12, 2, 16, 28, 40)]
    for side in (-1, 1):
        for y, heights in places:
            shift, longer = _drift(rng, 3, (50, 100)), _drift(rng, 2.5, (40, 90))
            length, lean = rng.uniform(6, 11), rng.normal(0, 0.35)
            sheet = {}
            for z in heights.tolist():
                reach = np.array([side * (length + longer(z)), lean * length])
                sheet[z] = (np.array([0, y + shift(z)]) + reach * t) * f.scale[:2]
            sheets.append(sheet)
    return sheets


def _fissure(f: Frame) -> list[Sheet]:
    """The longitudinal fissure before and behind what joins the hemispheres."""
    bow = f.rng.normal(0, 0.8)
    front = {float(z): [(0, -96), (bow, (a - 96) / 2), (0, a)] for z, (a, _) in FISSURE.items()}
    back = {float(z): [(0, 96), (-bow, (b + 96) / 2), (0, b)] for z, (_, b) in FISSURE.items()}
    return [_sheet(f, front), _sheet(f, back)]


def _nuclei(f: Frame, gap: float) -> list[Structure]:
    out = []
    for side in (-1, 1):
        for name, ovals in NUCLEI.items():
            hu = GREY + (1.5 if name == "caudate" else 0.5)
            out.append(Structure(f.ovals(ovals, side, mm=0.5, cap=4), hu, "brain_grey", GREY_GRAIN, 0.9))
        for table, half_width in ((CLAUSTRUM, 0.8), (INSULA, 1.9)):
            sheet = _ribbon(_sheet(f, table, side), half_width)
            out.append(Structure(sheet, GREY - 0.5, "brain_grey", GREY_GRAIN, 0.7))
        cistern = {z: path + np.array([side * 2.8, 0]) for z, path in _sheet(f, INSULA, side).items()}
        out.append(Structure(_ribbon(cistern, 0.35 + 0.45 * gap), CSF, "csf", CSF_GRAIN, 0.6))
    return out


def _ventricles(f: Frame) -> list[Structure]:
    """They widen with age; the left and the right are never alike."""
    rng = f.patient.rng("ventricles")
    wide = -0.9 + 0.055 * max(f.patient.age - 40, 0) * rng.uniform(0.4, 1.4) + rng.normal(0, 0.3)
    fluid: list[Shape] = [f.ovals(THIRD_VENTRICLE, mm=0.2, cap=4).inset(-0.5 * wide)]
    for side in (-1, 1):
        k = wide + rng.normal(0, 0.35)
        fluid += [f.loft(table, side, mm=0.4, cap=cap).inset(-k) for table, cap in VENTRICLES.values()]
        fluid.append(f.tube(TEMPORAL_HORN, side).inset(0.6 - 0.6 * k))
    pale = max(0.0, f.patient.age - 58) * 0.02 * rng.uniform(0.3, 1.5)  # white matter around them, in the old
    caps = [shape.inset(-4.0) for shape in fluid[1:]]
    out = [Structure(Union(fluid), CSF - 2, "csf", CSF_GRAIN, 0.6)]
    if pale > 0.15:
        rim = Structure(Union(caps), 21, None, WHITE_GRAIN, 2.5, ("brain_white",), min(pale, 0.8))
        out.insert(0, rim)
    septum = _ribbon(_sheet(f, {4: [(0, -30), (0, -22), (0, -14)], 22: [(0, -28), (0, -16), (0, 0)]}), 0.7)
    return [*out, Structure(septum, 30, "brain_white", (), 0.5, ("csf",))]


def _midbrain(f: Frame, gap: float) -> list[Structure]:
    """Midbrain in its cisterns, the top of the cerebellum under the tentorium."""
    midbrain = Loft(_ring(f, MIDBRAIN, mm=0.5), cap_mm=(0, 5), dense=True)
    around = {z: inset(c, -1.0 - 0.5 * gap) for z, c in _ring(f, MIDBRAIN, mm=0.5).items()}
    ambient = Loft(around, extent_mm=(-40, -10), cap_mm=(0, 3), dense=True)
    star = Loft(_ring(f, SUPRASELLAR, mm=0.6), cap_mm=(0, 4), dense=True)
    behind = Loft(_ring(f, QUADRIGEMINAL, mm=0.4), cap_mm=3, dense=True).inset(-0.3 * gap)
    cerebellum = Loft(_ring(f, CEREBELLUM, mm=0.6), cap_mm=(0, 3), dense=True)
    folia = [
        Tube([(-24, y, -40), (0, y + 4, -30), (24, y, -40)], 0.4, 4)
        for y in np.arange(26, 74, 4.5) * f.scale[1]
    ]
    return [
        Structure(cerebellum.inset(-1.4), 45, "csf", CSF_GRAIN, 0.6),  # the tentorium
        Structure(cerebellum.inset(-0.7), CSF + 4, "csf", CSF_GRAIN, 0.4),
        Structure(cerebellum, GREY, "brain_grey", GREY_GRAIN, 0.5),
        Structure(cerebellum.inset(6), WHITE + 4, "brain_white", WHITE_GRAIN, 2.0),
        Structure(Union(folia), CSF + 8, None, (), 0.6, BRAIN, 0.6),
        Structure(
            Union([ambient.inset(-3), star.inset(-3)]), GREY, "brain_grey", GREY_GRAIN, 0.8, ("brain_white",)
        ),
        Structure(ambient, CSF, "csf", CSF_GRAIN, 0.6),
        Structure(star.inset(-0.4 * gap), CSF, "csf", CSF_GRAIN, 0.6),
        Structure(behind, CSF, "csf", CSF_GRAIN, 0.6),
        Structure(midbrain, 33, "brain_white", WHITE_GRAIN, 0.6),
        Structure(f.ball((0, 13, -28), (1.0, 1.0, 14)), CSF, "csf", (), 0.5),  # aqueduct
    ]


def _falx(f: Frame, inner: dict[float, Curve]) -> list[Structure]:
    front = {float(z): [(0, -98), (0, a)] for z, (a, _) in FALX.items()}
    back = {float(z): [(0, 98), (0, b)] for z, (_, b) in FALX.items()}
    sheets = Union([_ribbon(_sheet(f, part), 0.55) for part in (front, back)])
    return [Structure(sheets, 56, None, ((3, 2.5),), 0.4, ("csf", *BRAIN))]


def _vessels(f: Frame, inner: dict[float, Curve], gap: float) -> list[Structure]:
    """Superior sagittal sinus against the vault, middle cerebral arteries, basilar tip."""
    blood: tuple[Grain, ...] = ((3, 2.5),)
    sinus = []
    for at in (0, 1):
        wedge = {}
        for z, curve in inner.items():
            x, y = curve[at * len(curve) // 2]  # in the midline
            into = -8 if y > 0 else 5
            wedge[z] = [
                (x - 4, y),
                (x + 4, y),
                (x + 1.5, y + into / 2),
                (x, y + into),
                (x - 1.5, y + into / 2),
            ]
        sinus.append(Loft(wedge))
    soft = ("csf", *BRAIN)
    out = [
        Structure(sinus[1], 54, "small_vessel", blood, 0.5, soft),
        Structure(sinus[0].inset(0.8), 52, "small_vessel", blood, 0.5, soft),
        Structure(f.ball((0, -12, -30), (1.7, 1.7, 9)), 46, "small_vessel", blood, 0.5),
    ]
    for side in (-1, 1):
        branch = [
            (8, -20, -24, 1.4),
            (24, -20, -22, 1.3),
            (36, -17, -17, 1.1),
            (40, -12, -8, 0.9),
            (41, -4, 4, 0.8),
        ]
        out.append(Structure(f.tube(branch, side), 46, "small_vessel", blood, 0.5, ("csf",)))
    return out


def _calcifications(f: Frame) -> list[Structure]:
    """Choroid plexus and pineal gland in most adults, pallidum and falx in some of the old."""
    rng, age = f.patient.rng("head calcium"), f.patient.age
    spots: list[tuple[Sequence[float], Sequence[float]]] = []
    if rng.random() < 0.35 + 0.006 * age:
        spots.append(((0, 21, 1), (2.0, 2.4, 2.5)))
    for side in (-1, 1):
        if rng.random() < 0.2 + 0.009 * age:
            spots.append(
                ((side * 22.5, 33, rng.uniform(2, 10)), (rng.uniform(1.5, 3), rng.uniform(2, 4.5), 4))
            )
        if age > 60 and rng.random() < 0.3:
            spots.append(((side * 19, -5, 2), (1.5, 2.5, 3)))
    if age > 50 and rng.random() < 0.35:
        spots.append(((0, rng.uniform(-75, -62), 22), (1.0, rng.uniform(2, 6), 7)))
    plexus = [
        Structure(f.tube(CHOROID_PLEXUS, side), 42, None, ((4, 1.6),), 0.6, ("csf",)) for side in (-1, 1)
    ]
    chalk = [
        Structure(f.ball(centre, axes), rng.uniform(140, 420), "calcification", ((50, 1.6),), 0.6)
        for centre, axes in spots
    ]
    return plexus + chalk


def _cloud(f: Frame, rng: np.random.Generator, centre: Sequence[float], radius: float) -> Union:
    """An irregular lump: overlapping balls."""
    places = rng.normal(centre, 0.25 * radius, (9, 3))
    return Union([f.ball(place, rng.uniform(0.5, 0.8, 3) * radius) for place in places])


def _lesions(f: Frame) -> list[Structure]:
    """In a quarter a haemorrhage with its oedema, in a fifth an infarct, in the old small lacunes."""
    rng = f.patient.rng("head lesions")
    side, chance = float(rng.choice([-1, 1])), rng.random()
    out = []
    if chance < 0.25:
        centre = (side * rng.uniform(20, 30), rng.uniform(-12, 12), rng.uniform(-6, 16))
        lump = _cloud(f, rng, centre, rng.uniform(6, 15))
        out += [
            Structure(lump.inset(-4), 22, None, WHITE_GRAIN, 2.0, BRAIN, 0.8),
            Structure(lump, rng.uniform(58, 72), "hemorrhage", ((3, 2.5), (2, 4.0)), 0.8),
        ]
    elif chance < 0.45:
        centre = (side * rng.uniform(40, 52), rng.uniform(-30, 40), rng.uniform(-10, 25))
        lump = _cloud(f, rng, centre, rng.uniform(9, 22))
        out.append(Structure(lump, rng.uniform(18, 25), None, WHITE_GRAIN, 1.6, BRAIN, 0.8))
    for _ in range(rng.poisson(0.05 * max(f.patient.age - 55, 0))):
        centre = (rng.choice([-1, 1]) * rng.uniform(12, 30), rng.uniform(-25, 20), rng.uniform(-10, 30))
        out.append(Structure(f.ball(centre, rng.uniform(1.2, 3, 3)), 16, None, (), 0.8, BRAIN))
    return out
