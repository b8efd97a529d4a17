"""One generator for all doses: where does it do too much, where too little? And other kernels, other vendors.

    python benchmarks/doses.py [--doses 0.05 0.1 0.25 0.5] [--volumes DIR/*.nii.gz] [--phantoms 8]
    python benchmarks/doses.py --per-dose 0.1 0.5 --minutes 3  # also models of one dose each

grain is the noise left in smooth soft tissue as a share of the normal dose's: above 1 is under-corrected,
below 1 over-corrected. bias is the mean error in HU in [-160, 240] HU; where few photons arrive, a scan is
biased itself. Kernels: the same slices, filtered to 0.6, 1 and 3 times the gain at the pixels' Nyquist
frequency. A model of one dose is the shipped `l1`, further trained with L1 on that dose alone, for as many
minutes each of processor time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from alden_lite.cohorts import Cohort, phantoms, real_patients, sample_test
from alden_lite.comparison import by_patient
from alden_lite.data import (
    PROTOCOLS,
    DoseProtocol,
    Pairs,
    development_slices,
    load_nifti,
    load_sample,
    make_pairs,
    split_slices,
)
from alden_lite.peers import train_for, untrained_generator
from alden_lite.pvm import load_pvm
from alden_lite.quality import appraise

COLUMNS = {
    "grain": "{:.2f}",
    "texture": "{:.2f}",
    "bias_hu": "{:+.2f}",
    "psnr_db": "{:.2f}",
    "judge": "{:.4f}",
}
KERNELS = {"soft": 0.6, "as it came": 1.0, "sharp": 3.0}
"""Gain at the Nyquist frequency, see `data.change_kernel`; the shipped generators have seen 0.6 to 4."""


def main() -> None:
    """Print three tables and, as the last line, their figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--doses", type=float, nargs="+", default=[0.05, 0.1, 0.15, 0.25, 0.35, 0.5])
    parser.add_argument("--every", type=int, default=4, help="look at every n-th slice of real patients")
    parser.add_argument("--volumes", type=Path, nargs="*", default=[], help="development patients")
    parser.add_argument("--phantoms", type=int, default=0)
    parser.add_argument("--per-dose", type=float, nargs="*", default=[], help="doses to train a model for")
    parser.add_argument("--minutes", type=float, default=3.0, help="of training, for each model of one dose")
    options = parser.parse_args()
    if options.every < 1 or not all(0 < dose < 1 for dose in [*options.doses, *options.per_dose]):
        parser.error("--every must be positive, doses between 0 and 1")
    networks: dict[str, nn.Module | None] = {
        "ldct": None,
        "l1": untrained_generator("l1_shipped"),
        "blend": untrained_generator("blend"),
        "alden": untrained_generator("alden_shipped"),
    }
    for dose in options.per_dose:
        networks[f"l1 for {dose:g}"] = _of_one_dose(dose, options.minutes)
    judge = load_pvm("efficientnet_lite0")
    figures: dict[str, float] = {}
    for heading, cohorts in (("dose", _doses(options)), ("kernel", _kernels(options))):
        print(f"\n| data | {heading} | method | " + " | ".join(COLUMNS) + " |")
        print("|---|---|---|" + "---|" * len(COLUMNS))
        for value, cohort in cohorts:
            for name, network in networks.items():
                means = _means(cohort, network, judge)
                cells = [form.format(means[column]) for column, form in COLUMNS.items()]
                print(f"| {cohort.name} | {value} | {name} | " + " | ".join(cells) + " |", flush=True)
                figures |= {f"{cohort.name}.{value}.{name}.{k}": round(v, 4) for k, v in means.items()}
    print(f"\nDoses at which `alden` leaves more grain than the normal dose has: {_under(figures, options)}")
    print(json.dumps(figures))


def _doses(options: argparse.Namespace) -> Iterator[tuple[str, Cohort]]:
    volumes = [load_nifti(path) for path in options.volumes]
    for dose in options.doses:
        yield f"{dose:g}", sample_test(dose, every=options.every)
        if volumes:
            chosen = [(one, development_slices(one, "validation")[:: options.every]) for one in volumes]
            yield f"{dose:g}", real_patients("development", chosen, dose)
        if options.phantoms:
            yield f"{dose:g}", phantoms(options.phantoms, dose)


def _kernels(options: argparse.Namespace) -> Iterator[tuple[str, Cohort]]:
    """The test slabs at a quarter of the dose, as other kernels would have shown them."""
    chosen = [(load_sample(), split_slices("test")[:: options.every])]
    for name, sharpness in KERNELS.items():
        protocol = DoseProtocol(sharpness=(sharpness, sharpness))
        yield name, real_patients("sample-test", chosen, 0.25, protocol=protocol)


def _of_one_dose(dose: float, minutes: float) -> nn.Module:
    """L1 from the shipped `l1`, on one scan of the training slabs at one dose; all else as in `wide`."""
    protocol = replace(PROTOCOLS["wide"], dose=(dose, dose), repeats=1)
    pairs = make_pairs(load_sample(), split_slices("train"), protocol=protocol, seed=0)
    return train_for("l1", pairs, seconds=60 * minutes).training.averaged.eval()


def _means(cohort: Cohort, network: nn.Module | None, judge: Any) -> dict[str, float]:
    """Mean over patients of every column."""
    rows = [
        row
        for pixel_mm, pairs in _by_pixel(cohort)
        for row in appraise(network, pairs, pixel_mm=pixel_mm, judge=judge, more=True)
    ]
    patients = [whose for pixel in dict.fromkeys(cohort.pixel_mm) for whose in _whose(cohort, pixel)]
    means = {column: by_patient([row[column] for row in rows], patients) for column in COLUMNS}
    return {column: _mean(list(values.values())) for column, values in means.items()}


def _by_pixel(cohort: Cohort) -> Iterator[tuple[float, Pairs]]:
    for pixel_mm in dict.fromkeys(cohort.pixel_mm):
        own = [n for n, size in enumerate(cohort.pixel_mm) if size == pixel_mm]
        names = ("low", "normal", "dose", "slices")
        yield pixel_mm, Pairs(*(getattr(cohort.pairs, name)[own] for name in names))


def _whose(cohort: Cohort, pixel_mm: float) -> list[str]:
    return [name for name, size in zip(cohort.patients, cohort.pixel_mm, strict=True) if size == pixel_mm]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]  # NaN is not itself
    return sum(known) / len(known) if known else float("nan")


def _under(figures: dict[str, float], options: argparse.Namespace) -> str:
    found = [f"{d:g}" for d in options.doses if figures[f"sample-test.{d:g}.alden.grain"] > 1]
    return ", ".join(found) or "none"


if __name__ == "__main__":
    main()
