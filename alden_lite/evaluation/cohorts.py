"""Sets of slices to evaluate on: the sample's test slabs, other patients, phantoms. Taught in chapter 09.

Every set holds low-dose simulations by the course's scanner: whole slices in HU, each with its patient's
name. A low-dose slice holds part of the noise of the scan it was made of, so a method that keeps some of the
low-dose noise scores better against that scan without being better. Only phantoms have what no patient can
have: a second normal-dose scan with noise of its own as the reference, a noise-free scan, and thirty
patients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from alden_lite.data.organs import phantom_groups, sample_groups
from alden_lite.data.pairs import DoseProtocol, Pairs, as_stored, make_pairs
from alden_lite.data.sample import development_slices, load_sample, split_slices
from alden_lite.data.volume import Volume, load_nifti
from alden_lite.evaluation.perception import Judge
from alden_lite.evaluation.quality import slice_quality
from alden_lite.phantom import Patient, render
from alden_lite.physics.dose import simulate_pair
from alden_lite.physics.scanner import Scanner

__all__ = [
    "PHANTOMS",
    "TEST",
    "Cohort",
    "appraise_cohort",
    "first_patients",
    "phantoms",
    "real_patients",
    "sample_test",
    "validation",
]

TEST = "sample-test"
PHANTOMS = "phantoms"

PLACES = (("abdomen", 20.0), ("chest", 0.0))
"""Region and height in mm of the phantom patients' slices, in turn."""


@dataclass(frozen=True)
class Cohort:
    """Slices to evaluate on: `patients` and `pixel_mm` have an entry for each slice. On phantoms `again` is a
    second normal-dose scan, independent of the low-dose one, and `clean` one without noise. `groups` are the
    organ groups where they are known. All arrays are (N, Y, X)."""

    name: str
    patients: Sequence[str]
    pairs: Pairs
    pixel_mm: Sequence[float]
    again: np.ndarray | None = None
    clean: np.ndarray | None = None
    groups: np.ndarray | None = None

    @property
    def reference(self) -> np.ndarray:
        """What results are compared with, (N, Y, X) int16 in HU: `again` where there is one, else the
        normal-dose scan, whose noise the low-dose one partly has."""
        return self.pairs.normal if self.again is None else self.again


def sample_test(dose: float, *, every: int = 1, seed: int = 1) -> Cohort:
    """The sample patient's test slabs, every n-th slice, at a fraction of its own dose."""
    volume, chosen = load_sample(), split_slices("test")[::every]
    cohort = real_patients(TEST, [(volume, chosen)], dose, seed=seed)
    return cohort if volume.labels is None else replace(cohort, groups=sample_groups(volume.labels[chosen]))


def real_patients(
    name: str,
    chosen: Sequence[tuple[Volume, Sequence[int]]],
    dose: float,
    *,
    seed: int = 1,
    protocol: DoseProtocol | None = None,
) -> Cohort:
    """Chosen slices of real patients.

    Args:
        name: of the cohort.
        chosen: volumes of one slice size, and numbers of their slices.
        dose: fraction of each slice's own dose.
        seed: of the noise.
        protocol: kernel and thickness; the course's when None.

    Raises:
        ValueError: as `data.make_pairs`, or without any volume.
    """
    if not chosen:
        raise ValueError(f"{name}: no patient to look at")
    drawn = replace(protocol or DoseProtocol(), dose=(dose, dose))
    parts = [make_pairs(v, slices, protocol=drawn, seed=seed, progress=False) for v, slices in chosen]
    whose = [volume for (volume, _), part in zip(chosen, parts, strict=True) for _ in range(len(part))]
    return Cohort(
        name, [volume.name for volume in whose], Pairs.joined(parts), [v.spacing_mm[1] for v in whose]
    )


def validation(
    volumes: Sequence[str | Path], dose: float, *, every: int = 1, seed: int = 2
) -> Iterator[Cohort]:
    """What settings are chosen on: the sample's validation slab, and the middle of development patients."""
    chosen = [(load_sample(), split_slices("validation"))]
    chosen += [(one, development_slices(one, "validation")) for one in map(load_nifti, volumes)]
    for volume, slices in chosen:
        yield real_patients(volume.name, [(volume, slices[every // 2 :: every])], dose, seed=seed)


def phantoms(count: int, dose: float, *, progress: bool = True) -> Cohort:
    """One slice of each phantom patient, seeds from 0 on, abdomen and chest in turn.

    Args:
        count: patients.
        dose: fraction of the full dose; the low-dose scan is nested in the normal-dose one.
        progress: show a progress bar: a patient takes about a second.

    Raises:
        ValueError: with fewer than one patient.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    names = ("low", "normal", "again", "clean", "groups", "pixel_mm")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for seed in tqdm(range(count), desc="phantoms", disable=not progress, leave=False):
        region, z_mm = PLACES[seed % len(PLACES)]
        phantom = render(Patient.draw(seed), region, z_mm=z_mm)
        scanner = Scanner.preset(region, pixel_mm=phantom.pixel_mm)
        first, second = (
            simulate_pair(phantom.hu, scanner=scanner, dose=dose, seed=2 * seed + n) for n in (0, 1)
        )
        assert first.clean is not None  # simulated, not inserted
        values = (
            *(as_stored(scan) for scan in (first.low, first.normal, second.normal)),
            first.clean.float().numpy(),
            phantom_groups(phantom.labels),
            phantom.pixel_mm,
        )
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    pixel_mm = columns.pop("pixel_mm")
    low, normal, again, clean, groups = (np.stack(column) for column in columns.values())
    pairs = Pairs(low, normal, np.full(count, dose), np.arange(count))
    return Cohort(PHANTOMS, [f"phantom {n}" for n in range(count)], pairs, pixel_mm, again, clean, groups)


def first_patients(cohort: Cohort, count: int) -> Cohort:
    """The slices of the first so many patients."""
    chosen = list(dict.fromkeys(cohort.patients))[:count]
    own = [number for number, name in enumerate(cohort.patients) if name in chosen]
    arrays = (None if a is None else a[own] for a in (cohort.again, cohort.clean, cohort.groups))
    return Cohort(
        cohort.name,
        [cohort.patients[n] for n in own],
        Pairs(*(getattr(cohort.pairs, name)[own] for name in ("low", "normal", "dose", "slices"))),
        [cohort.pixel_mm[n] for n in own],
        *arrays,
    )


def appraise_cohort(
    cohort: Cohort,
    images: torch.Tensor,
    *,
    judge: Judge,
    training_pvm: str | None = None,
    more: bool = False,
) -> list[dict[str, float]]:
    """A row of `quality.FIGURES` for every slice of a cohort, against its reference.

    Args:
        cohort: the slices.
        images: what a method made of them, (N, Y, X) in HU.
        judge, training_pvm, more: as for `evaluation.slice_quality`.
    """
    reference = torch.from_numpy(cohort.reference.astype(np.float32))
    return [
        slice_quality(image, hu, pixel_mm=pixel_mm, judge=judge, training_pvm=training_pvm, more=more)
        for image, hu, pixel_mm in zip(images, reference, cohort.pixel_mm, strict=True)
    ]
