"""One generator for all doses: where does it do too much, where too little? And other kernels, other vendors.

    python benchmarks/doses.py [--doses 0.05 0.1 0.25 0.5] [--volumes GE.nii.gz] [--unseen CHEST.nii.gz]
    python benchmarks/doses.py --per-dose 0.1 0.5 --minutes 3  # also models of one dose each
    python benchmarks/doses.py --page book/doses.md ...  # the tables into a file, too

What the figures mean is said in `MEANING`, which stands on the page too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from alden_lite.alden.denoising import denoise
from alden_lite.alden.pvm import load_pvm
from alden_lite.data.pairs import PROTOCOLS, DoseProtocol, make_pairs
from alden_lite.data.sample import development_slices, load_sample, split_slices
from alden_lite.data.volume import load_nifti
from alden_lite.evaluation.cohorts import Cohort, appraise_cohort, phantoms, real_patients, sample_test
from alden_lite.evaluation.statistics import by_patient
from alden_lite.evaluation.studies.methods import untrained_generator
from stopwatch import train_for

COLUMNS = {
    "grain": "{:.2f}",
    "texture": "{:.2f}",
    "bias_hu": "{:+.2f}",
    "psnr_db": "{:.2f}",
    "judge": "{:.4f}",
}
TITLES = ("grain", "texture", "bias HU", "PSNR dB", "judge")
KERNELS = {"soft": 0.6, "as it came": 1.0, "sharp": 3.0}
"""Gain at the Nyquist frequency, see `pairs.change_kernel`; the shipped generators have seen 0.6 to 4."""

MEANING = """\
Slices are compared with the normal-dose scan that they were made of (phantoms, if any, with a second one,
whose noise is its own). `development`: validation slices of patients who trained the shipped generators;
`unseen`: patients who trained nothing. grain is the noise left in smooth soft tissue as a share of the normal
dose's: above 1 is under-corrected, below 1 over-corrected. bias is the mean error in HU in [-160, 240] HU;
where few photons arrive, a scan is biased itself. Kernels: the same slices, filtered to 0.6, 1 and 3 times
the gain at the pixels' Nyquist frequency. A model of one dose is the shipped `l1`, further trained with L1 on
that dose alone, on one scan of the sample's training slabs (the shipped one saw three patients, five scans
each), for so many minutes of processor time."""


def main() -> None:
    """Print three tables and, as the last line, their figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--doses", type=float, nargs="+", default=[0.05, 0.1, 0.15, 0.25, 0.35, 0.5])
    parser.add_argument("--every", type=int, default=4, help="look at every n-th slice of real patients")
    parser.add_argument(
        "--volumes", type=Path, nargs="*", default=[], help="development patients: their validation slices"
    )
    parser.add_argument("--unseen", type=Path, nargs="*", default=[], help="patients never trained on")
    parser.add_argument("--phantoms", type=int, default=0)
    parser.add_argument("--per-dose", type=float, nargs="*", default=[], help="doses to train a model for")
    parser.add_argument("--minutes", type=float, default=3.0, help="of training, for each model of one dose")
    parser.add_argument("--page", type=Path, help="a Markdown file to write the tables to")
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
    tables = []
    for heading, cohorts in (("dose", _doses(options)), ("kernel", _kernels(options))):
        lines = [f"| data | {heading} | method | " + " | ".join(TITLES) + " |"]
        lines.append("|---|---|---|" + "---|" * len(COLUMNS))
        print("", *lines, sep="\n")
        for value, cohort in cohorts:
            for name, network in networks.items():
                means = _means(cohort, network, judge)
                cells = [form.format(means[column]) for column, form in COLUMNS.items()]
                lines.append(f"| {cohort.name} | {value} | {name} | " + " | ".join(cells) + " |")
                print(lines[-1], flush=True)
                figures |= {f"{cohort.name}.{value}.{name}.{k}": round(v, 4) for k, v in means.items()}
        tables.append("\n".join(lines))
    if options.page:
        command = " ".join(["python benchmarks/doses.py", *(_shown(word) for word in sys.argv[1:])])
        about = f"Written by `{command}`; do not edit. Not for clinical use."
        text = "\n\n".join(["# One model at many doses", about, MEANING, *tables]) + "\n"
        options.page.write_text(text, encoding="utf-8")
    print(json.dumps(figures))


def _shown(word: str) -> str:
    """A word of the command line without the folder of a scan."""
    return Path(word).name if word.endswith((".nii", ".nii.gz")) else word


def _doses(options: argparse.Namespace) -> Iterator[tuple[str, Cohort]]:
    volumes, unseen = ([load_nifti(path) for path in paths] for paths in (options.volumes, options.unseen))
    for dose in options.doses:
        yield f"{dose:g}", sample_test(dose, every=options.every)
        if volumes:
            chosen = [(one, development_slices(one, "validation")[:: options.every]) for one in volumes]
            yield f"{dose:g}", real_patients("development", chosen, dose)
        if unseen:
            chosen = [(one, range(len(one.hu))[:: 4 * options.every]) for one in unseen]
            yield f"{dose:g}", real_patients("unseen", chosen, dose)
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
    low = torch.from_numpy(cohort.pairs.low.astype(np.float32))
    images = low if network is None else denoise(low, network, progress=False)
    rows = appraise_cohort(cohort, images, judge=judge, more=True)
    means = {column: by_patient([row[column] for row in rows], cohort.patients) for column in COLUMNS}
    return {column: _mean(list(values.values())) for column, values in means.items()}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]  # NaN is not itself
    return sum(known) / len(known) if known else float("nan")


if __name__ == "__main__":
    main()
