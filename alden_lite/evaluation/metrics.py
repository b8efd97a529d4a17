"""How far is a slice from its reference? Window, range and reference are named. Taught in chapters 03, 09.

The same error of 9 HU is 33 dB over a window of 400 HU and 53 dB over 4,096 HU, so PSNR and SSIM here always
take a window, clip both slices to it, and use its width as the data range.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from skimage.metrics import structural_similarity

from alden_lite.physics.hounsfield import WINDOWS, Window
from alden_lite.physics.pixels import Pixels, as_mask, finite

__all__ = [
    "bias_hu",
    "cnr",
    "gmsd",
    "mae_hu",
    "psnr_db",
    "rmse_hu",
    "ssim",
    "vif",
]

EVALUATION = WINDOWS["evaluation"]


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


def mae_hu(image: torch.Tensor, reference: torch.Tensor, *, window: Window = EVALUATION) -> float:
    """Mean absolute error in HU after clipping both to the window: large errors count less than in `rmse_hu`.

    Arguments and errors as for `rmse_hu`.

    >>> mae_hu(torch.tensor([0.0, 0.0]), torch.tensor([2.0, -4.0]))
    3.0
    """
    a, b = _clipped(image, reference, window)
    return float((a - b).abs().mean())


def bias_hu(image: torch.Tensor, reference: torch.Tensor, *, window: Window = EVALUATION) -> float:
    """Mean error in HU, image less reference, after clipping both to the window; noise averages out.

    Near the window's ends clipping makes a bias of its own: noise around -160 HU is cut on one side. For
    HU as they are see `errors_by_label`. Arguments and errors as for `rmse_hu`.

    >>> bias_hu(torch.tensor([0.0, 0.0]), torch.tensor([2.0, -4.0]))
    1.0
    """
    a, b = _clipped(image, reference, window)
    return float((a - b).mean())


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
def gmsd(image: torch.Tensor, reference: torch.Tensor, *, window: Window = EVALUATION) -> float:
    """Gradient magnitude similarity deviation of two slices (Y, X), at least 0; 0 is best.

    Compares how steep edges are, place by place, and tells how much that varies over the slice: equal noise
    everywhere is forgiven, a few blurred edges are not. An offset in HU hardly shows. piq's, on the window
    scaled to [0, 1], over means of 2 x 2 pixels.

    Raises:
        ValueError: on different shapes, NaN, or anything but one slice of at least 4 x 4.

    Source: Xue et al., IEEE TIP 23:684 (2014), with its constant for [0, 255], 170.
    """
    import piq

    a, b = as_pictures(image, reference, window, smallest=4)
    return float(piq.gmsd(a, b, data_range=1.0))


@torch.no_grad()
def vif(image: torch.Tensor, reference: torch.Tensor, *, window: Window = EVALUATION) -> float:
    """Visual information fidelity of two slices (Y, X): the share of the reference's information left.

    At least 0, 1 for equal slices, and above 1 where the image has more contrast; an offset does not
    show. Noise of the reference counts as information. piq's form in the pixel domain, over four scales,
    on the window scaled to [0, 255].

    Raises:
        ValueError: on different shapes, NaN, anything but one slice of at least 41 x 41, or a reference that
            is constant in the window: it holds no information.

    Source: Sheikh & Bovik, IEEE TIP 15:430 (2006).
    """
    import piq

    a, b = as_pictures(image, reference, window, smallest=41)
    if b.min() == b.max():
        raise ValueError("the reference is constant in the window: it holds no information to be left over")
    return float(piq.vif_p(a, b, data_range=1.0))


def cnr(hu: Pixels, inside: Pixels, outside: Pixels) -> float:
    """Contrast-to-noise ratio: |mean inside - mean outside| / standard deviation outside, the background.

    Rose: a detail of some size is seen reliably from about 5, after averaging over the detail's area. A
    denoiser that smooths everything raises the CNR too: read it with the MTF.

    Args:
        hu: any shape, in HU.
        inside, outside: bool masks of that shape, without common pixels.

    Raises:
        ValueError: on different shapes, NaN, an empty or common mask, or a background without noise.

    >>> cnr(np.array([50.0, 50.0, -10.0, 10.0]), np.arange(4) < 2, np.arange(4) >= 2)
    5.0
    """
    values = finite(hu)
    detail, background = as_mask(inside, values, "inside"), as_mask(outside, values, "outside")
    if (detail & background).any():
        raise ValueError("inside and outside share pixels: the background must not hold the detail")
    if np.ptp(values[background]) == 0:
        raise ValueError("the background is constant: without noise there is no contrast-to-noise ratio")
    contrast = abs(values[detail].mean() - values[background].mean())
    return float(contrast / values[background].std())


def _clipped(
    image: torch.Tensor, reference: torch.Tensor, window: Window
) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = checked_pair(image, reference)
    return a.clamp(window.low, window.high), b.clamp(window.low, window.high)


def as_pictures(
    image: torch.Tensor, reference: torch.Tensor, window: Window, *, smallest: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both slices as pictures (1, 1, Y, X), the window's ends at 0 and 1."""
    a, b = _clipped(image, reference, window)
    if a.ndim != 2 or min(a.shape) < smallest:
        raise ValueError(f"needs one slice (Y, X) of at least {smallest} x {smallest}, got {tuple(a.shape)}")
    x, y = (((t - window.low) / window.width).clamp(0, 1)[None, None] for t in (a, b))
    return x, y


def checked_pair(image: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = (
        torch.as_tensor(np.asarray(t) if not torch.is_tensor(t) else t).detach().cpu().float()
        for t in (image, reference)
    )
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {tuple(a.shape)} and {tuple(b.shape)}")
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise ValueError("a slice holds NaN or infinite HU: no metric means anything then")
    return a, b
