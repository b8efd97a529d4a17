"""What fills a lung: arteries that taper from hilum to pleura, bronchi beside them, veins, holes, nodules.

The trees fill the lung as real ones do: the places to be supplied are split in two again and again, and each
half gets a branch; a branch's radius follows from the number of places it feeds (as in
Murray's law). Trees cross fissures and bend less than real ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alden_lite.phantom.painting import Structure
from alden_lite.phantom.patient import Patient
from alden_lite.phantom.shapes import Curve, Ellipsoid, Shape, Tube, Union

__all__ = ["branching", "emphysema", "nodules", "pulmonary_trees"]

TIP_MM = 0.55  # radius of the last branches drawn
TRUNK_MM = 4.2  # and of the first
EXPONENT = 2.35  # a mother's radius to this power is the sum of her daughters'
SLICE = 2.8  # height over width of small vessels: a scanner's slice is thick enough to show more of them
BRONCHI_MM = (1.0, 4.5)  # arteries of these radii have a visible bronchus beside them
LUNG: tuple[str, ...] = ("lung", "lung_vessel")


def branching(rng: np.random.Generator, start: Curve, targets: Curve, tip_mm: float = TIP_MM) -> list[Tube]:
    """A tree of short tubes from `start` (3,) to all `targets` (K, 3), trunk first."""
    n = len(targets)
    if n == 0:
        return []
    centre = targets.mean(0)
    share = 1.0 if n == 1 else 0.28 if n > 60 else 0.38
    end = start + share * (centre - start)
    length = float(np.linalg.norm(end - start))
    bend = rng.normal(0, 0.07 * length, 3)
    radius = min(tip_mm * n ** (1 / EXPONENT), TRUNK_MM)
    taper = np.array([1.0, 0.95, 0.9 if n > 1 else 0.8]) * radius
    if radius > 1.2:
        tubes = [Tube(np.stack([start, (start + end) / 2 + bend, end]), taper, smooth=False)]
    else:
        tubes = [Tube(np.stack([start, end]), taper[[0, 2]], SLICE, smooth=False)]
    if n > 1:
        away, heading = targets - end, (centre - start) / (np.linalg.norm(centre - start) + 1e-9)
        away = away - 0.9 * np.outer(
            away @ heading, heading
        )  # a branch forks to its sides, not back and forth
        _, _, axes = np.linalg.svd(away - away.mean(0), full_matrices=False)
        order = np.argsort(away @ axes[0])
        cut = int(np.clip(round(n * rng.uniform(0.3, 0.7)), 1, n - 1))
        for part in (order[:cut], order[cut:]):
            tubes += branching(rng, end, targets[part], tip_mm)
    return tubes


def pulmonary_trees(
    patient: Patient,
    *,
    arteries: Sequence[tuple[Curve, Curve]],
    veins: Sequence[tuple[Curve, Curve]],
) -> list[Structure]:
    """Vessels and bronchi, painted over lung only: start (3,) and targets (K, 3) of every tree, in mm."""
    rng, blood = patient.rng("pulmonary trees"), patient.hu["lung_artery"]
    red = [tube for start, targets in veins for tube in branching(rng, start, targets)]
    blue = [tube for start, targets in arteries for tube in branching(rng, start, targets)]
    bronchi = [_beside(tube) for tube in blue if BRONCHI_MM[0] < np.max(tube.radius) < BRONCHI_MM[1]]
    grain = ((4.0, 2.5),)
    return [
        Structure(Union(red), 0.95 * blood, "lung_vessel", grain, 0.45, LUNG),
        Structure(Union(bronchi), -80, "airway", (), 0.45, ("lung",), 0.8),
        Structure(Union(blue), blood, "lung_vessel", grain, 0.45, (*LUNG, "airway")),
        Structure(Union([b.inset(0.3 + 0.3 * b.radius) for b in bronchi]), -980, "airway", (), 0.3,
                  ("airway", "lung")),
    ]  # fmt: skip


def _beside(artery: Tube) -> Tube:
    """The bronchus that runs with an artery: about as wide, wall to wall."""
    course = artery.path[-1] - artery.path[0]
    side = np.cross(course, (0.4, 0.2, 1.0))
    side /= np.linalg.norm(side) + 1e-9
    radius = 0.85 * np.asarray(artery.radius)
    return Tube(artery.path + 1.8 * radius[:1] * side, radius, smooth=False)


def emphysema(rng: np.random.Generator, places: Curve) -> Structure:
    """Holes in the lung around `places` (K, 3), as smokers have in the upper lobes."""
    holes: list[Shape] = []
    for place in places:
        a, b, c = rng.uniform(1.5, 6.5) * rng.uniform(0.7, 1.4, 3)
        holes.append(Ellipsoid(tuple(place), (a, b, c), rng.uniform(0, 3)))
    return Structure(Union(holes), -968, "lung", ((6, 2.5),), 1.0, ("lung",), 0.8)


def nodules(rng: np.random.Generator, places: Curve) -> list[Structure]:
    """Solid (three in four) and ground-glass nodules, lobulated, median radius 4 mm."""
    out = []
    for place in places:
        radius = float(np.clip(rng.lognormal(np.log(4), 0.5), 1.8, 13))
        glass = rng.random() < 0.25
        lobes: list[Shape] = []
        for _ in range(rng.integers(3, 6)):
            centre = place + rng.normal(0, 0.3 * radius, 3)
            lobes.append(
                Ellipsoid(tuple(centre), tuple(radius * rng.uniform(0.55, 0.85, 3)), rng.uniform(0, 3))
            )
        hu, blur = (-620, 0.8) if glass else (rng.uniform(15, 70), 0.45)
        out.append(Structure(Union(lobes), hu, "nodule", ((15, 1.6),), blur, LUNG))
    return out
