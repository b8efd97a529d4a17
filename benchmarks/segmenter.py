"""Does a frozen segmenter still find the organs? Normal dose, low doses, and denoised low doses.

    python benchmarks/segmenter.py [--doses 0.25 0.1] [--phantoms 8] [--every 1] [--weights FILE]

The segmenter was trained on normal-dose slices without added noise
(`alden_lite.evaluation.segmenter_training`). On the sample's test slabs the truth is what TotalSegmentator
labelled on the normal dose, and the segmenter has learned from other slabs of this patient: its Dice there
says nothing about other patients, only the differences between rows do. On phantoms the truth is exact, and
none of their patients was trained on. Muscle is labelled differently in the two (see `training_slices`).

Dice: over all slices of a patient. HD95: per slab of the sample or slice of a phantom, then their median,
which a lost organ (infinitely far) enters; "lost" counts those.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass

import numpy as np

from alden_lite.alden.denoising import denoise
from alden_lite.data.organs import GROUPS, phantom_groups, sample_groups
from alden_lite.data.pairs import DoseProtocol, as_stored, make_pairs
from alden_lite.data.sample import SPLIT, load_sample
from alden_lite.evaluation.organs import dice, hd95_mm
from alden_lite.evaluation.segmenter import Segmenter, load_segmenter, segment
from alden_lite.evaluation.statistics import interval
from alden_lite.phantom import Patient, render
from alden_lite.physics.dose import simulate_pair
from alden_lite.physics.scanner import Scanner

HEIGHTS_MM = {"chest": 0.0, "abdomen": 20.0, "pelvis": 0.0}
Figures = dict[str, dict[str, float]]
"""By measure (dice, hd95, lost), a number for every group."""


@dataclass(frozen=True)
class Slab:
    """Slices beside each other: `low` by dose and `normal`, `truth`, all (Z, Y, X)."""

    low: dict[float, np.ndarray]
    normal: np.ndarray
    truth: np.ndarray
    spacing_mm: tuple[float, float, float]


def main() -> None:
    """Print two tables for each kind of data and, as the last line, their figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--doses", type=float, nargs="+", default=[0.25, 0.10])
    parser.add_argument("--phantoms", type=int, default=8, help="patients, of seeds 0 and up")
    parser.add_argument("--every", type=int, default=1, help="use every n-th slice of the sample volume")
    parser.add_argument("--generators", nargs="+", default=["l1", "alden"])
    parser.add_argument("--weights", default="segmenter", help="the segmenter: a .safetensors file")
    parser.add_argument("--precision", default="float32", help="of denoising: float32 or bfloat16")
    options = parser.parse_args()
    segmenter = load_segmenter(options.weights)
    figures: dict[str, float] = {}
    for name, patients in (
        ("sample-test", [_sample(options.doses, options.every)]),
        ("phantoms", [_phantom(seed, options.doses) for seed in range(options.phantoms)]),
    ):
        if patients:
            rows = _rows(patients, options, segmenter)
            figures |= _table(name, rows)
    print(json.dumps(figures))


def _sample(doses: list[float], every: int) -> list[Slab]:
    """The sample's two test slabs; with `every`, slices farther apart."""
    volume = load_sample()
    assert volume.labels is not None
    dz, dy, dx = volume.spacing_mm
    slabs = []
    for first, last in SPLIT["test"]:
        z = list(range(first, last, every))
        pairs = {d: make_pairs(volume, z, protocol=DoseProtocol(dose=(d, d)), seed=1) for d in doses}
        low = {dose: pair.low for dose, pair in pairs.items()}
        slabs.append(Slab(low, volume.hu[z], sample_groups(volume.labels[z]), (every * dz, dy, dx)))
    return slabs


def _phantom(seed: int, doses: list[float]) -> list[Slab]:
    """One slice of each region; the normal dose is the first pair's."""
    slabs = []
    for region, z_mm in HEIGHTS_MM.items():
        phantom = render(Patient.draw(seed), region, z_mm=z_mm)
        scanner = Scanner.preset(region, pixel_mm=phantom.pixel_mm)
        scans = {d: simulate_pair(phantom.hu, scanner=scanner, dose=d, seed=seed) for d in doses}
        low = {dose: as_stored(scan.low)[None] for dose, scan in scans.items()}
        normal = as_stored(scans[doses[0]].normal)[None]
        slabs.append(Slab(low, normal, phantom_groups(phantom.labels)[None], phantom.spacing_mm))
    return slabs


def _rows(
    patients: list[list[Slab]], options: argparse.Namespace, segmenter: Segmenter
) -> dict[str, list[Figures]]:
    """Figures of every patient, by dose and method."""
    rows = {"1 normal dose": [_figures(slabs, [s.normal for s in slabs], segmenter) for slabs in patients]}
    for dose in options.doses:
        for method in ["LDCT", *options.generators]:
            rows[f"{dose:g} {method}"] = [
                _figures(slabs, [_image(s.low[dose], method, options.precision) for s in slabs], segmenter)
                for slabs in patients
            ]
    return rows


def _image(low: np.ndarray, method: str, precision: str) -> np.ndarray:
    hu = low.astype(np.float32)
    return hu if method == "LDCT" else denoise(hu, method, precision=precision, progress=False)


def _figures(slabs: list[Slab], images: list[np.ndarray], segmenter: Segmenter) -> Figures:
    found = [segment(image, segmenter) for image in images]
    flat = [np.concatenate([m.ravel() for m in maps]) for maps in (found, [s.truth for s in slabs])]
    far = [hd95_mm(f, s.truth, spacing_mm=s.spacing_mm) for f, s in zip(found, slabs, strict=True)]
    distances = {g: np.array([one[g] for one in far if not math.isnan(one[g])]) for g in GROUPS}
    return {
        "dice": dice(flat[0], flat[1]),
        "hd95": {g: float(np.median(d)) if len(d) else math.nan for g, d in distances.items()},
        "lost": {g: float(np.isinf(d).sum()) for g, d in distances.items()},
    }


def _table(name: str, rows: dict[str, list[Figures]]) -> dict[str, float]:
    """Print Dice and HD95 of one kind of data, and the price in Dice against the normal dose."""
    figures: dict[str, float] = {}
    groups = [g for g in GROUPS if any(not math.isnan(p["dice"][g]) for p in rows["1 normal dose"])]
    for measure, how in (("dice", "{:.3f}"), ("hd95", "{:.1f}")):
        print(f"\n{name}: {'Dice' if measure == 'dice' else 'HD95 in mm (median)'}\n")
        last = "less than normal dose" if measure == "dice" else "lost"
        print(f"| dose | method | mean | {' | '.join(groups)} | {last} |")
        print("|---|---|---|" + "---|" * (len(groups) + 1))
        for row, patients in rows.items():
            dose, method = row.split(" ", 1)
            by_group = {g: _middle([p[measure][g] for p in patients], measure) for g in groups}
            means = [_mean(p["dice"]) for p in patients]
            mean = float(np.mean(means)) if measure == "dice" else _mean(by_group)
            key = f"{name}.{dose}.{method.replace(' ', '_')}"
            figures[f"{key}.{measure}"] = mean
            figures |= {f"{key}.{measure}.{g}": value for g, value in by_group.items()}
            if measure == "dice":
                normal = [_mean(p["dice"]) for p in rows["1 normal dose"]]
                note = _less([m - n for m, n in zip(means, normal, strict=True)])
            else:
                figures[f"{key}.lost"] = sum(sum(p["lost"].values()) for p in patients)
                note = f"{figures[f'{key}.lost']:.0f}"
            cells = [how.format(mean), *(how.format(value) for value in by_group.values())]
            print(f"| {dose} | {method} | {' | '.join(cells)} | {note} |", flush=True)
    return {key: round(value, 4) for key, value in figures.items() if math.isfinite(value)}


def _middle(values: list[float], measure: str) -> float:
    """Over patients that have the group: mean of Dice, median of distances."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known) if measure == "dice" else np.median(known))


def _mean(by_group: dict[str, float]) -> float:
    return float(np.mean([value for value in by_group.values() if not math.isnan(value)]))


def _less(differences: list[float]) -> str:
    """The mean of one difference a patient, with its interval where there are patients enough."""
    mean = float(np.mean(differences))
    if len(differences) < 3:
        return f"{mean:+.3f}"
    low, high = interval(differences)
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    main()
