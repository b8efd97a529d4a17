"""How good are the shipped generators? Test slabs of the sample volume, volumes never trained on, phantoms.

    python benchmarks/quality.py [--doses 0.25 0.1] [--volumes DIR/*.nii.gz] [--every 1] [--phantoms 6]

Low doses are simulated with the course's scanner: noise of a fraction of each slice's own dose (see
`alden_lite.data`). Every figure compares with the normal-dose slice, which has noise of its own. One
patient is one patient: rows of the sample volume are means over slices of a single scan.

Phantom patients can be scanned twice. Their row "normal dose" is a second scan at normal dose, with other
noise: the floor of the judge's distance, which no denoiser must go below to be perfect. `excess` is how much
of the L1 generator's distance above that floor is left.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from alden_lite.checkpoint import read_card, weights_path
from alden_lite.data import (
    DoseProtocol,
    Pairs,
    Volume,
    as_stored,
    development_slices,
    load_nifti,
    load_sample,
    make_pairs,
    split_slices,
)
from alden_lite.phantom import Patient, render
from alden_lite.pvm import PVM, load_pvm
from alden_lite.quality import appraise, interval, mean_of, slice_quality
from alden_lite.scanner import Scanner, simulate_pair

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

HEIGHTS_MM = {"abdomen": (20.0,), "chest": (0.0,)}
Rows = list[dict[str, float]]


@dataclass(frozen=True)
class Slices:
    """Pairs to look at; `again` is a second normal-dose scan where there is one, (N, Y, X) in HU."""

    name: str
    dose: float
    pairs: Pairs
    pixel_mm: float
    again: np.ndarray | None = None


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
    parser.add_argument("--every", type=int, default=1, help="use every n-th slice")
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
    for slices in _data(options):
        rows = {method: _rows(slices, method, judge) for method in ["LDCT", *options.generators]}
        if slices.again is not None:
            rows["normal dose"] = _floor(slices, judge)
        for method, of_method in rows.items():
            _print_row(slices, method, of_method)
            figures |= {
                f"{slices.name}.{slices.dose:g}.{method}.{column}": round(mean_of(of_method, column), 4)
                for column in COLUMNS
            }
        for method in options.generators:
            if "l1" in rows and method != "l1":
                against.append(_against(slices, rows, method, figures))
    print("\nAgainst `l1`, with 95 % bootstrap intervals over slices\n")
    print("| data | dose | method | PSNR dB | judge | excess over the floor |\n|---|---|---|---|---|---|")
    print("\n".join(against))
    print(json.dumps(figures))


def _data(options: argparse.Namespace) -> Iterator[Slices]:
    volumes: list[tuple[str, Volume, list[int]]] = [("sample-test", load_sample(), split_slices("test"))]
    for path in options.validation:
        volume = load_nifti(path)
        volumes.append((f"{volume.name}-validation", volume, development_slices(volume, "validation")))
    for path in options.volumes:
        volume = load_nifti(path)
        volumes.append((volume.name, volume, list(range(len(volume.hu)))))
    for name, volume, chosen in volumes:
        for dose in options.doses:
            protocol = DoseProtocol(dose=(dose, dose))
            pairs = make_pairs(volume, chosen[:: options.every], protocol=protocol, seed=1)
            yield Slices(name, dose, pairs, volume.spacing_mm[1])
    if options.phantoms:
        yield from (_phantoms(options.phantoms, dose) for dose in options.doses)


def _phantoms(count: int, dose: float) -> Slices:
    """Slices of procedural patients, scanned at normal and low dose, and once more at normal dose."""
    low, normal, again, pixel_mm = [], [], [], 0.0
    for seed in range(count):
        patient = Patient.draw(seed)
        for region, heights in HEIGHTS_MM.items():
            for z_mm in heights:
                phantom = render(patient, region, z_mm=z_mm)
                scanner = Scanner.preset(region, pixel_mm=phantom.pixel_mm)
                scans = [
                    simulate_pair(phantom.hu, scanner=scanner, dose=dose, seed=2 * seed + n) for n in (0, 1)
                ]
                low.append(as_stored(scans[0].low))
                normal.append(as_stored(scans[0].normal))
                again.append(as_stored(scans[1].normal))
                pixel_mm = phantom.pixel_mm
    indices = np.arange(len(low))
    pairs = Pairs(np.stack(low), np.stack(normal), np.full(len(low), dose), indices)
    return Slices("phantoms", dose, pairs, pixel_mm, np.stack(again))


def _rows(slices: Slices, method: str, judge: PVM) -> Rows:
    pvm = None if method == "LDCT" else (read_card(weights_path(method)).get("pvm") or {}).get("name")
    generator = None if method == "LDCT" else method
    return appraise(generator, slices.pairs, pixel_mm=slices.pixel_mm, judge=judge, training_pvm=pvm)


def _floor(slices: Slices, judge: PVM) -> Rows:
    """What a second normal-dose scan scores against the first."""
    assert slices.again is not None
    both = zip(slices.again, slices.pairs.normal, strict=True)
    scans = [tuple(torch.from_numpy(hu.astype(np.float32)) for hu in one) for one in both]
    return [slice_quality(a, b, pixel_mm=slices.pixel_mm, judge=judge) for a, b in scans]


def _print_row(slices: Slices, method: str, rows: Rows) -> None:
    cells = [how.format(mean_of(rows, column)) for column, (_, how) in COLUMNS.items()]
    print(f"| {slices.name} | {slices.dose:g} | {method} | " + " | ".join(cells) + " |", flush=True)


def _against(slices: Slices, rows: dict[str, Rows], method: str, figures: dict[str, float]) -> str:
    """A line of the second table: a generator less its twin `l1`."""
    psnr = [a["psnr_db"] - b["psnr_db"] for a, b in zip(rows[method], rows["l1"], strict=True)]
    judge = [a["judge"] / b["judge"] - 1 for a, b in zip(rows[method], rows["l1"], strict=True)]
    excess = "-"
    if "normal dose" in rows:
        floor, l1, ours = (mean_of(rows[name], "judge") for name in ("normal dose", "l1", method))
        figures[f"{slices.name}.{slices.dose:g}.{method}.excess"] = round((ours - floor) / (l1 - floor), 4)
        excess = f"{(ours - floor) / (l1 - floor):.0%} of l1's"
    cells = [_with_interval(psnr, "{:+.2f}"), _with_interval(judge, "{:+.1%}"), excess]
    return f"| {slices.name} | {slices.dose:g} | {method} | " + " | ".join(cells) + " |"


def _with_interval(values: Sequence[float], how: str) -> str:
    low, high = interval(values)
    return f"{how.format(float(np.mean(values)))} [{how.format(low)}, {how.format(high)}]"


if __name__ == "__main__":
    main()
