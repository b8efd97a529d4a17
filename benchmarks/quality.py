"""How good are the shipped generators? Test slabs of the sample volume, volumes never trained on, phantoms.

    python benchmarks/quality.py [--doses 0.25 0.1] [--volumes DIR/*.nii.gz] [--every 1] [--phantoms 12]

Low doses are simulated with the course's scanner: noise of a fraction of each slice's own dose (see
`alden_lite.evaluation.cohorts`). A real patient's slice is compared with the normal-dose slice that it was
made of, and holds part of that one's noise: who leaves noise in comes nearer without being any better. One
patient is one patient: rows of a volume are means over slices of a single scan, and their intervals are over
those slices.

Phantom patients, one slice each, abdomen and chest in turn, are scanned at normal dose twice. The low-dose
scan is part of the first; all is compared with the second, whose noise is its own. Slices are patients here,
and so the intervals are over patients. Their row "normal dose" is the first scan against the second: the
floor of the judge's distance, which no denoiser must go below to be perfect. `excess` is how much of the L1
generator's distance above that floor is left. Fewer than three slices have no interval.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from alden_lite.alden.denoising import denoise
from alden_lite.alden.pvm import PVM, load_pvm
from alden_lite.data.sample import development_slices
from alden_lite.data.volume import load_nifti
from alden_lite.engine.checkpoint import read_card, weights_path
from alden_lite.evaluation.cohorts import Cohort, appraise_cohort, phantoms, real_patients, sample_test
from alden_lite.evaluation.quality import mean_of
from alden_lite.evaluation.statistics import interval

COLUMNS = {
    "psnr_db": ("PSNR dB", "{:.2f}"),
    "ssim": ("SSIM", "{:.4f}"),
    "rmse_hu": ("RMSE HU", "{:.2f}"),
    "judge": ("judge", "{:.4f}"),
    "grain": ("grain", "{:.2f}"),
    "texture": ("texture", "{:.2f}"),
    "noise_frequency": ("noise frequency", "{:.2f}"),
}
"""Figures of a row: heading and how it is printed."""

FLOOR = "normal dose"
"""Row of the first normal-dose scan of phantoms, compared with their second."""

Rows = list[dict[str, float]]


def main() -> None:
    """Print two tables and, as the last line, their figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--doses", type=float, nargs="+", default=[0.25, 0.10])
    parser.add_argument("--volumes", type=Path, nargs="*", default=[], help="NIfTI volumes never trained on")
    parser.add_argument(
        "--validation", type=Path, nargs="*", default=[], help="development patients: their validation slices"
    )
    parser.add_argument("--every", type=int, default=1, help="use every n-th slice of real patients")
    parser.add_argument("--phantoms", type=int, default=0, help="phantom patients, with their floor")
    parser.add_argument("--generators", nargs="+", default=["l1", "alden"])
    options = parser.parse_args()
    judge = load_pvm("efficientnet_lite0")
    print("PSNR, SSIM, RMSE in [-160, 240] HU. judge: distance of unit-normalised EfficientNet-Lite0 maps.")
    print("grain, texture, noise frequency: of smooth soft tissue, as a share of the normal-dose slice's.\n")
    print("| data | dose | method | " + " | ".join(heading for heading, _ in COLUMNS.values()) + " |")
    print("|---|---|---|" + "---|" * len(COLUMNS))
    figures: dict[str, float] = {}
    against: list[str] = []
    for dose, cohort in _data(options):
        rows = {method: _rows(cohort, method, judge) for method in ["LDCT", *options.generators]}
        if cohort.again is not None:
            rows[FLOOR] = _rows(cohort, FLOOR, judge)
        where = f"{cohort.name} | {dose:g}"
        for method, of_method in rows.items():
            cells = [how.format(mean_of(of_method, column)) for column, (_, how) in COLUMNS.items()]
            print(f"| {where} | {method} | " + " | ".join(cells) + " |", flush=True)
            figures |= {
                f"{cohort.name}.{dose:g}.{method}.{column}": round(mean_of(of_method, column), 4)
                for column in COLUMNS
            }
        for method in options.generators:
            if "l1" in rows and method != "l1":
                cells, excess = _against(rows, method)
                against.append(f"| {where} | {method} | " + " | ".join(cells) + " |")
                if excess is not None:
                    figures[f"{cohort.name}.{dose:g}.{method}.excess"] = round(excess, 4)
    print("\nAgainst `l1`, with 95 % bootstrap intervals over slices (phantoms: patients)\n")
    print("| data | dose | method | PSNR dB | judge | excess over the floor |\n|---|---|---|---|---|---|")
    print("\n".join(against))
    print(json.dumps(figures))


def _data(options: argparse.Namespace) -> Iterator[tuple[float, Cohort]]:
    """All that is looked at, with its dose: one patient a cohort, but for the phantoms."""
    volumes = []
    for path in options.validation:
        volume = load_nifti(path)
        volumes.append((f"{volume.name}-validation", volume, development_slices(volume, "validation")))
    for path in options.volumes:
        volume = load_nifti(path)
        volumes.append((volume.name, volume, list(range(len(volume.hu)))))
    for dose in options.doses:
        yield dose, sample_test(dose, every=options.every)
    for name, volume, chosen in volumes:
        for dose in options.doses:
            yield dose, real_patients(name, [(volume, chosen[:: options.every])], dose)
    if options.phantoms:
        yield from ((dose, phantoms(options.phantoms, dose)) for dose in options.doses)


def _rows(cohort: Cohort, method: str, judge: PVM) -> Rows:
    """Figures of every slice against the reference: low dose, denoised, or the first normal-dose scan."""
    pvm = None
    scan = cohort.pairs.normal if method == FLOOR else cohort.pairs.low
    images = torch.from_numpy(scan.astype(np.float32))
    if method not in ("LDCT", FLOOR):
        pvm = (read_card(weights_path(method)).get("pvm") or {}).get("name")
        images = denoise(images, method, progress=False)
    return appraise_cohort(cohort, images, judge=judge, training_pvm=pvm)


def _against(rows: dict[str, Rows], method: str) -> tuple[list[str], float | None]:
    """Cells of the second table: a generator less its twin `l1`. And the excess, where there is a floor."""
    psnr = [a["psnr_db"] - b["psnr_db"] for a, b in zip(rows[method], rows["l1"], strict=True)]
    judge = [a["judge"] / b["judge"] - 1 for a, b in zip(rows[method], rows["l1"], strict=True)]
    cells = [_with_interval(psnr, "{:+.2f}"), _with_interval(judge, "{:+.1%}")]
    if FLOOR not in rows:
        return [*cells, "-"], None
    floor, l1, ours = (mean_of(rows[name], "judge") for name in (FLOOR, "l1", method))
    if l1 <= floor:
        return [*cells, "l1 has none"], None
    excess = (ours - floor) / (l1 - floor)
    return [*cells, f"{excess:.0%} of l1's"], excess


def _with_interval(values: Sequence[float], how: str) -> str:
    mean = how.format(float(np.mean(values)))
    if len(values) < 3:
        return mean
    low, high = interval(values)
    return f"{mean} [{how.format(low)}, {how.format(high)}]"


if __name__ == "__main__":
    main()
