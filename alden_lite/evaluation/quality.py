"""How good is a generator on pairs of slices? One row of figures a slice. Taught in chapters 09 and 10.

`metrics` measures a slice. Here is which measures are taken of a denoised CT slice, where in it, and against
what: always the normal-dose slice, which has noise of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from alden_lite.alden.denoising import denoise
from alden_lite.data.pairs import Pairs
from alden_lite.evaluation.metrics import bias_hu, gmsd, mae_hu, psnr_db, rmse_hu, ssim, vif
from alden_lite.evaluation.perception import Judge, perceptual_distance
from alden_lite.physics.noise import (
    noise_power_spectrum,
    own_noise_hu,
    radial_nps,
    regions_of_interest,
    smooth_tissue,
    texture_hu,
)

__all__ = ["FIGURES", "MORE_FIGURES", "appraise", "image_metrics", "mean_of", "slice_quality"]

FIGURES = {
    "psnr_db": "PSNR in dB, in [-160, 240] HU",
    "ssim": "SSIM in [-160, 240] HU",
    "rmse_hu": "RMSE in HU, in [-160, 240] HU",
    "judge": "perceptual distance; smaller is better",
    "texture": "spread in smooth soft tissue after taking off a 7 x 7 mean, as a share of the reference's",
    "grain": "noise of smooth soft tissue (robust, 5 x 5), as a share of the reference's",
    "noise_frequency": "mean frequency of that noise's power spectrum, as a share of the reference's",
}
"""Figures of a row, and what they mean. Of the last three 1 is best: below 1 is too smooth, or too coarse."""

MORE_FIGURES = {
    "mae_hu": "mean absolute error in HU, in [-160, 240] HU",
    "bias_hu": "mean error in HU, in [-160, 240] HU; 0 is best",
    "gmsd": "gradient magnitude similarity deviation in [-160, 240] HU; smaller is better",
    "vif": "visual information fidelity in [-160, 240] HU; 1 keeps all that the reference shows",
}
"""What `slice_quality(more=True)` adds. VIF alone takes longer than all `FIGURES` but the judge."""

REGION = 16  # pixels: soft tissue without edges comes in small pieces
FEWEST = 500  # pixels of smooth soft tissue; with fewer a slice has no say in noise


def slice_quality(
    image: torch.Tensor,
    reference: torch.Tensor,
    *,
    pixel_mm: float,
    judge: Judge | None = None,
    training_pvm: str | None = None,
    more: bool = False,
) -> dict[str, float]:
    """All `FIGURES` of one slice.

    Args:
        image, reference: (Y, X) in HU; the reference is the normal-dose slice.
        pixel_mm: side of a pixel.
        judge: network of the perceptual distance, which must not have trained the generator; without one
            `judge` is NaN.
        training_pvm: name of the network the generator was trained with.
        more: `MORE_FIGURES` too.

    Returns:
        Figures by name. Those of noise are NaN where the reference has too little smooth soft tissue.

    Raises:
        ValueError: as `evaluation.image_metrics`, and with `more` as `metrics.vif`.
    """
    row = {"judge": math.nan} | image_metrics(image, reference, judge=judge, training_pvm=training_pvm)
    if more:
        row |= {"mae_hu": mae_hu(image, reference), "bias_hu": bias_hu(image, reference)}
        row |= {"gmsd": gmsd(image, reference), "vif": vif(image, reference)}
    tissue = smooth_tissue(reference)
    row |= dict.fromkeys(("texture", "grain", "noise_frequency"), math.nan)
    if tissue.sum() < FEWEST:
        return row
    row["texture"] = texture_hu(image, tissue=tissue) / texture_hu(reference, tissue=tissue)
    row["grain"] = own_noise_hu(image, tissue=tissue) / own_noise_hu(reference, tissue=tissue)
    ours, theirs = (_noise_frequency(hu, tissue, pixel_mm) for hu in (image, reference))
    row["noise_frequency"] = ours / theirs
    return row


def _noise_frequency(hu: torch.Tensor, tissue: torch.Tensor, pixel_mm: float) -> float:
    """Mean frequency in cycles/mm of the noise in small regions of smooth tissue; NaN if none fits."""
    try:
        regions = regions_of_interest(hu, size=REGION, step=REGION // 2, mask=tissue)
    except ValueError:  # not one region lies wholly in smooth tissue
        return math.nan
    return radial_nps(noise_power_spectrum(regions, pixel_mm=pixel_mm, detrend="polynomial")).mean_per_mm


def appraise(
    generator: str | nn.Module | None,
    pairs: Pairs,
    *,
    pixel_mm: float,
    judge: Judge | None = None,
    training_pvm: str | None = None,
    more: bool = False,
    progress: bool = False,
) -> list[dict[str, float]]:
    """A row of `FIGURES` for every pair: the low-dose slice, denoised, against the normal-dose slice.

    Args:
        generator: a network, or the name of a shipped one; None leaves the low-dose slices as they are.
        pairs, pixel_mm: slices in HU, and the side of their pixels.
        judge, training_pvm, more: as for `slice_quality`.
        progress: show a progress bar.
    """
    low, normal = (torch.from_numpy(hu.astype(np.float32)) for hu in (pairs.low, pairs.normal))
    images = low if generator is None else denoise(low, generator, progress=False)
    both = tqdm(
        zip(images, normal, strict=True), total=len(low), desc="slices", disable=not progress, leave=False
    )
    return [
        slice_quality(image, reference, pixel_mm=pixel_mm, judge=judge, training_pvm=training_pvm, more=more)
        for image, reference in both
    ]


def mean_of(rows: Sequence[Mapping[str, float]], figure: str) -> float:
    """Mean over rows that have the figure; NaN if none has."""
    values = np.array([row[figure] for row in rows], dtype=float)
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


def image_metrics(
    image: torch.Tensor,
    reference: torch.Tensor,
    *,
    judge: Judge | None = None,
    training_pvm: str | None = None,
) -> dict[str, float]:
    """PSNR (dB), SSIM and RMSE (HU) in [-160, 240] HU, and the judge's distance if there is a judge."""
    values = {
        "psnr_db": psnr_db(image, reference),
        "ssim": ssim(image, reference),
        "rmse_hu": rmse_hu(image, reference),
    }
    if judge is not None:
        values["judge"] = perceptual_distance(image, reference, judge=judge, training_pvm=training_pvm)
    return values
