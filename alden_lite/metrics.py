"""How good is a denoised slice? Every figure names window, range and reference. Taught in chapters 03, 09.

The same error of 9 HU is 33 dB over a window of 400 HU and 53 dB over 4,096 HU, so PSNR and SSIM here always
take a window, clip both slices to it, and use its width as the data range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity

from alden_lite.hounsfield import WINDOWS, Window

__all__ = ["Judge", "image_metrics", "perceptual_distance", "psnr_db", "rmse_hu", "ssim"]

EVALUATION = WINDOWS["evaluation"]
Judge = Callable[[torch.Tensor], Sequence[torch.Tensor]]
"""HU (B, 1, H, W) to feature maps (B, C, h, w): frozen, such as `pvm.load_pvm("efficientnet_lite0")`."""


def rmse_hu(image: torch.Tensor, reference: torch.Tensor, *, window: Window = EVALUATION) -> float:
    """Root mean squared error in HU after clipping both to the window.

    Args:
        image, reference: same shape, in HU.
        window: [-160, 240] HU by default, the only range that fits the paper's PSNR 33.18 with RMSE 8.92.

    Raises:
        ValueError: on different shapes, NaN or infinity.

    >>> rmse_hu(torch.zeros(2, 2), torch.full((2, 2), 10.0))
    10.0
    """
    a, b = _clipped(image, reference, window)
    return float((a - b).square().mean().sqrt())


def psnr_db(image: torch.Tensor, reference: torch.Tensor, *, window: Window = EVALUATION) -> float:
    """Peak signal-to-noise ratio in dB; the peak is the window's width. Infinite for equal slices.

    Arguments and errors as for `rmse_hu`.
    """
    error = rmse_hu(image, reference, window=window)
    return math.inf if error == 0 else 20 * math.log10(window.width / error)


def ssim(image: torch.Tensor, reference: torch.Tensor, *, window: Window = EVALUATION) -> float:
    """Structural similarity of two slices (Y, X), in [-1, 1]: scikit-image's, with the Gaussian weights of
    Wang et al., IEEE TIP 13:600 (2004), over the window's width.

    Raises:
        ValueError: on different shapes, NaN, or anything but one slice of at least 11 x 11.
    """
    a, b = _clipped(image, reference, window)
    if a.ndim != 2 or min(a.shape) < 11:
        raise ValueError(f"SSIM takes one slice (Y, X) of at least 11 x 11, got {tuple(a.shape)}")
    return float(
        structural_similarity(
            a.numpy(),
            b.numpy(),
            data_range=window.width,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


@torch.no_grad()
def perceptual_distance(
    image: torch.Tensor, reference: torch.Tensor, *, judge: Judge, training_pvm: str | None = None
) -> float:
    """How differently a network sees two slices: LPIPS without its learned weights (OURS).

    Args:
        image, reference: (Y, X) in HU.
        judge: frozen network with feature maps; its own window and statistics apply.
        training_pvm: name of the network the generator was trained with, which must not judge.

    Returns:
        Mean over taps and places of |a/|a| - b/|b||^2 over channels, in [0, 4]; 0 for equal slices.

    Raises:
        ValueError: on different shapes, NaN, or a judge that trained the generator.

    Source: Zhang et al., CVPR 2018, eq. 1 with unit weights.
    """
    a, b = _checked(image, reference)
    if training_pvm is not None and getattr(judge, "name", None) == training_pvm:
        raise ValueError(f"{training_pvm} trained this generator: judge with another network")
    maps_a, maps_b = judge(a[None, None]), judge(b[None, None])
    distances = [
        (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(1).mean()
        for x, y in zip(maps_a, maps_b, strict=True)
    ]
    return float(torch.stack(distances).mean())


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


def _clipped(
    image: torch.Tensor, reference: torch.Tensor, window: Window
) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = _checked(image, reference)
    return a.clamp(window.low, window.high), b.clamp(window.low, window.high)


def _checked(image: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = (
        torch.as_tensor(np.asarray(t) if not torch.is_tensor(t) else t).detach().cpu().float()
        for t in (image, reference)
    )
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {tuple(a.shape)} and {tuple(b.shape)}")
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise ValueError("a slice holds NaN or infinite HU: no metric means anything then")
    return a, b
