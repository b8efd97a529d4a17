"""How good are the shipped generators? Test slabs of the sample volume, and volumes never trained on.

    python benchmarks/quality.py [--doses 0.25 0.1] [--volumes DIR/*.nii.gz] [--every 1]

Low doses are simulated with the course's scanner: noise of a fraction of each slice's own dose (see
`alden_lite.data`). Every figure compares with the normal-dose slice, which has noise of its own. One
patient is one patient: rows of the sample volume are means over slices of a single scan.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from alden_lite.checkpoint import read_card, weights_path
from alden_lite.data import (
    DoseProtocol,
    Pairs,
    Volume,
    load_nifti,
    load_sample,
    make_pairs,
    own_noise_hu,
    smooth_tissue,
    split_slices,
)
from alden_lite.denoising import denoise
from alden_lite.metrics import image_metrics
from alden_lite.pvm import PVM, load_pvm

COLUMNS = {
    "psnr_db": ("PSNR dB", "{:.2f}"),
    "ssim": ("SSIM", "{:.4f}"),
    "rmse_hu": ("RMSE HU", "{:.2f}"),
    "judge": ("judge", "{:.4f}"),
    "grain": ("grain", "{:.2f}"),
}
"""Figures of a row: heading and how it is printed."""


def main() -> None:
    """Print one table and, as the last line, its figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--doses", type=float, nargs="+", default=[0.25, 0.10])
    parser.add_argument("--volumes", type=Path, nargs="*", default=[], help="NIfTI volumes never trained on")
    parser.add_argument("--every", type=int, default=1, help="use every n-th slice")
    parser.add_argument("--generators", nargs="+", default=["l1", "alden"])
    options = parser.parse_args()
    judge = load_pvm("efficientnet_lite0")
    print("PSNR, SSIM, RMSE in [-160, 240] HU. judge: distance of unit-normalised EfficientNet-Lite0 maps.")
    print("grain: noise of smooth soft tissue as a share of the normal-dose slice's.\n")
    print("| data | dose | method | " + " | ".join(heading for heading, _ in COLUMNS.values()) + " |")
    print("|---|---|---|" + "---|" * len(COLUMNS))
    figures: dict[str, float] = {}
    for name, volume, slices in _data(options.volumes, options.every):
        for dose in options.doses:
            pairs = make_pairs(volume, slices, protocol=DoseProtocol(dose=(dose, dose)), seed=1)
            for method in ["LDCT", *options.generators]:
                row = _row(pairs, method, judge)
                cells = [how.format(row[column]) for column, (_, how) in COLUMNS.items()]
                print(f"| {name} | {dose:g} | {method} | " + " | ".join(cells) + " |", flush=True)
                figures |= {f"{name}.{dose:g}.{method}.{column}": round(row[column], 4) for column in COLUMNS}
    print(json.dumps(figures))


def _data(volumes: Sequence[Path], every: int) -> Iterator[tuple[str, Volume, list[int]]]:
    yield "sample-test", load_sample(), split_slices("test")[::every]
    for path in volumes:
        volume = load_nifti(path)
        yield volume.name, volume, list(range(len(volume.hu)))[::every]


def _row(pairs: Pairs, method: str, judge: PVM) -> dict[str, float]:
    """Mean figures of one method over all slices."""
    low, normal = (torch.from_numpy(hu.astype(np.float32)) for hu in (pairs.low, pairs.normal))
    images = low if method == "LDCT" else denoise(low, method, progress=False)
    pvm = None if method == "LDCT" else (read_card(weights_path(method)).get("pvm") or {}).get("name")
    rows = [
        image_metrics(image, reference, judge=judge, training_pvm=pvm)
        | {"grain": _grain_share(image, reference)}
        for image, reference in zip(images, normal, strict=True)
    ]
    return {column: float(np.nanmean([row[column] for row in rows])) for column in COLUMNS}


def _grain_share(image: torch.Tensor, reference: torch.Tensor) -> float:
    where = smooth_tissue(reference)
    if where.sum() < 500:  # lung apices and the like: no soft tissue to speak of
        return float("nan")
    return own_noise_hu(image, tissue=where) / own_noise_hu(reference, tissue=where)


if __name__ == "__main__":
    main()
