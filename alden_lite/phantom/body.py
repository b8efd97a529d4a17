"""A slice or a stack of a patient: choose the region, the height and the matrix; lesions can be placed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from alden_lite.phantom import abdomen, chest, head, pelvis, shoulders
from alden_lite.phantom.labels import LABEL_ID
from alden_lite.phantom.painting import Structure, Warp, paint
from alden_lite.phantom.parts import table
from alden_lite.phantom.patient import Patient
from alden_lite.phantom.shapes import Ellipsoid

__all__ = ["EXTENT_MM", "REGIONS", "Lesion", "Phantom", "render", "render_stack"]

BUILDERS: dict[str, Callable[[Patient], list[Structure]]] = {
    "chest": chest.build,
    "abdomen": abdomen.build,
    "pelvis": pelvis.build,
    "shoulders": shoulders.build,
    "head": head.build,
}
REGIONS = tuple(BUILDERS)
EXTENT_MM = {
    "chest": chest.EXTENT_MM,
    "abdomen": abdomen.EXTENT_MM,
    "pelvis": pelvis.EXTENT_MM,
    "shoulders": shoulders.EXTENT_MM,
    "head": head.EXTENT_MM,
}
"""Lowest and highest z of each region in mm; z runs to the head, 0 is the region's middle."""

MARGIN_MM = 10.0
"""Air that the field of view leaves around the patient at least."""


@dataclass(frozen=True)
class Lesion:
    """A ball to be placed in a patient: (x, y, z) of its centre and its diameter in mm, its HU and label.

    x runs to the patient's left, y to the back, z to the head, and the patient's warp moves the lesion with
    the organs. It replaces only what is labelled `inside`, everything if that is empty.

    Raises:
        ValueError: on a diameter that is not positive, or an unknown label.
    """

    centre_mm: tuple[float, float, float]
    diameter_mm: float
    hu: float
    label: str = "liver_lesion"
    blur_mm: float = 0.6
    inside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.diameter_mm > 0:
            raise ValueError(f"a lesion's diameter is above 0 mm, got {self.diameter_mm}")
        if self.label not in LABEL_ID:
            raise ValueError(f"unknown label {self.label!r}: see phantom.LABELS")


@dataclass(frozen=True)
class Phantom:
    """Noise-free anatomy: `hu` float32 and `labels` uint8, (N, N) for a slice, (Z, N, N) for a stack.

    `spacing_mm` is (z, y, x); z runs to the head, y to the back, x to the patient's left. `LABELS` names the
    numbers in `labels`.
    """

    hu: torch.Tensor
    labels: torch.Tensor
    spacing_mm: tuple[float, float, float]
    region: str
    z_mm: tuple[float, ...]

    @property
    def pixel_mm(self) -> float:
        """Side of a pixel in mm."""
        return self.spacing_mm[2]


def render(
    patient: Patient,
    region: str,
    *,
    z_mm: float = 0.0,
    matrix: int = 512,
    field_mm: float | None = None,
    lesions: Sequence[Lesion] = (),
) -> Phantom:
    """One noise-free slice of a patient.

    Args:
        region: one of `REGIONS`.
        z_mm: height within the region, in `EXTENT_MM[region]`.
        matrix: pixels a side.
        field_mm: side of the square; the smallest that holds the patient in the whole region when None.
        lesions: balls placed last.

    Raises:
        ValueError: on an unknown region, a height outside it, a matrix under 32, or a field not above 0.
    """
    stack = render_stack(patient, region, z_mm=(z_mm,), matrix=matrix, field_mm=field_mm, lesions=lesions)
    return Phantom(stack.hu[0], stack.labels[0], stack.spacing_mm, region, stack.z_mm)


def render_stack(
    patient: Patient,
    region: str,
    *,
    z_mm: Sequence[float],
    matrix: int = 512,
    field_mm: float | None = None,
    lesions: Sequence[Lesion] = (),
) -> Phantom:
    """Several slices of one patient, consistent in z. `z_mm` ascends evenly, the rest is as for `render`."""
    z = [float(height) for height in z_mm]
    _check(region, z, matrix, field_mm)
    steps = np.diff(z)
    if len(steps) and (steps.min() <= 0 or np.ptp(steps) > 1e-6 * steps.max()):
        raise ValueError("z_mm must ascend in even steps: np.arange(first, last, step)")
    field = field_mm or field_of_view_mm(patient, region)
    structures = [*_structures(patient, region), *map(_ball, lesions)]
    warp = _warp(patient, region)
    slices = [
        paint(
            structures,
            z_mm=height,
            matrix=matrix,
            pixel_mm=field / matrix,
            warp=warp,
            seed=patient.seed,
        )
        for height in z
    ]
    return Phantom(
        hu=torch.from_numpy(np.stack([hu for hu, _ in slices])),
        labels=torch.from_numpy(np.stack([labels for _, labels in slices])),
        spacing_mm=(float(steps[0]) if len(steps) else 1.0, field / matrix, field / matrix),
        region=region,
        z_mm=tuple(z),
    )


@lru_cache(maxsize=64)
def field_of_view_mm(patient: Patient, region: str) -> float:
    """Side of the smallest square, in steps of 10 mm, that holds the patient with a margin all round."""
    reach = float(np.abs(_surface(patient, region)).max())
    return 10.0 * math.ceil(2 * (reach + MARGIN_MM) / 10)


@lru_cache(maxsize=8)
def _structures(patient: Patient, region: str) -> tuple[Structure, ...]:
    rest = table(_surface(patient, region)) if region != "head" else []  # heads lie in a holder, out of sight
    return (*rest, *_anatomy(patient, region))


@lru_cache(maxsize=8)
def _anatomy(patient: Patient, region: str) -> tuple[Structure, ...]:
    return tuple(BUILDERS[region](patient))


@lru_cache(maxsize=64)
def _surface(patient: Patient, region: str) -> np.ndarray:
    """Points (K, 2) on the skin, as it is drawn, at a few heights."""
    warp = _warp(patient, region)
    return np.concatenate(
        [
            warp(curve, float(z))
            for z in np.linspace(*EXTENT_MM[region], 9)
            for structure in _anatomy(patient, region)
            if structure.label in ("skin", "breast")
            for curve in structure.shape.section(float(z))
        ]
    )


def _warp(patient: Patient, region: str) -> Warp:
    rigid = region == "head"
    return Warp.draw(patient.rng(f"warp {region}"), amplitude_mm=1.0 if rigid else 3.5)


def _ball(lesion: Lesion) -> Structure:
    radius = lesion.diameter_mm / 2
    return Structure(
        Ellipsoid(lesion.centre_mm, (radius, radius, radius)),
        lesion.hu,
        lesion.label,
        blur_mm=lesion.blur_mm,
        inside=lesion.inside,
    )


def _check(region: str, z: Sequence[float], matrix: int, field_mm: float | None) -> None:
    if region not in BUILDERS:
        raise ValueError(f"unknown region {region!r}: choose from {', '.join(REGIONS)}")
    low, high = EXTENT_MM[region]
    if not z or not all(low <= height <= high for height in z):
        raise ValueError(f"z_mm of the {region} lies in [{low:g}, {high:g}] mm, got {list(z)}")
    if matrix < 32:
        raise ValueError(f"matrix is the number of pixels a side, at least 32, got {matrix}")
    if field_mm is not None and not field_mm > 0:
        raise ValueError(f"field_mm must be above 0, got {field_mm}")
