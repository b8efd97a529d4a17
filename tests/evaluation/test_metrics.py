"""Metrics against scikit-image, closed forms and values worked out by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from alden_lite.evaluation.metrics import (
    bias_hu,
    cnr,
    gmsd,
    mae_hu,
    psnr_db,
    rmse_hu,
    ssim,
    vif,
)
from alden_lite.physics.hounsfield import WINDOWS


@pytest.fixture
def slices() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    normal = rng.normal(20, 60, (64, 64)).astype(np.float32)
    return torch.from_numpy(normal + rng.normal(0, 30, normal.shape).astype(np.float32)), torch.from_numpy(
        normal
    )


def test_psnr_and_ssim_are_scikit_images_in_the_window(slices: tuple[torch.Tensor, torch.Tensor]) -> None:
    low, normal = (t.clamp(-160, 240).numpy().astype(np.float64) for t in slices)
    assert psnr_db(*slices) == pytest.approx(peak_signal_noise_ratio(normal, low, data_range=400), abs=1e-5)
    expected = structural_similarity(
        low, normal, data_range=400, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(*slices) == pytest.approx(expected, abs=1e-5)


def test_the_papers_psnr_and_rmse_fit_this_window() -> None:
    reference = torch.zeros(32, 32)
    assert psnr_db(reference + 8.92, reference) == pytest.approx(33.03, abs=0.01)


def test_the_same_error_reads_twenty_decibels_better_over_the_full_range() -> None:
    image, reference = torch.full((16, 16), 9.0), torch.zeros(16, 16)
    gain = psnr_db(image, reference, window=WINDOWS["full"]) - psnr_db(image, reference)
    assert gain == pytest.approx(20 * math.log10(4096 / 400))


def test_errors_outside_the_window_do_not_count() -> None:
    assert rmse_hu(torch.full((4, 4), 3000.0), torch.full((4, 4), 1000.0)) == 0.0
    assert psnr_db(torch.ones(4, 4), torch.ones(4, 4)) == math.inf


def test_absolute_error_and_bias_are_taken_in_the_window() -> None:
    image, reference = torch.tensor([10.0, -20.0, 3000.0, -900.0]), torch.tensor([0.0, 0.0, 200.0, -1000.0])
    assert mae_hu(image, reference) == (10 + 20 + 40 + 0) / 4  # 3000 counts as 240, air as -160
    assert bias_hu(image, reference) == (10 - 20 + 40 + 0) / 4
    assert bias_hu(reference, image) == -7.5
    assert mae_hu(image, reference, window=WINDOWS["full"]) > 100
    assert bias_hu(image[1:2], reference[1:2]) == -20


def gmsd_by_hand(image: np.ndarray, reference: np.ndarray) -> float:
    """Xue et al. 2014 in float64, on [0, 1]: means of 2 x 2, Prewitt over 3 with zeros around."""
    steepness = []
    for picture in (image, reference):
        small = picture.reshape(picture.shape[0] // 2, 2, -1, 2).mean((1, 3))
        steps = [ndimage.prewitt(small, axis, mode="constant") / 3 for axis in (0, 1)]
        steepness.append(np.hypot(*steps))
    a, b = steepness
    constant = 170 / 255**2
    return float(((2 * a * b + constant) / (a**2 + b**2 + constant)).std())


def vif_by_hand(image: np.ndarray, reference: np.ndarray) -> float:
    """Sheikh & Bovik 2006 in the pixel domain, float64, on [0, 255], visual noise of variance 2."""
    kept = there = 0.0
    for scale in range(4):
        n = 2 ** (4 - scale) + 1
        along = np.exp(-((np.arange(n) - n // 2) ** 2) / (2 * (n / 5) ** 2))
        along /= along.sum()

        def mean(x: np.ndarray, along: np.ndarray = along) -> np.ndarray:
            smooth = ndimage.convolve1d(ndimage.convolve1d(x, along, 0), along, 1)
            margin = len(along) // 2
            return smooth[margin:-margin, margin:-margin]

        if scale:
            image, reference = mean(image)[::2, ::2], mean(reference)[::2, ::2]
        a, b = mean(image), mean(reference)
        var_a, var_b = (np.maximum(mean(x * x) - m * m, 0) for x, m in ((image, a), (reference, b)))
        gain = (mean(image * reference) - a * b) / (var_b + 1e-8)
        rest = np.where(gain < 0, var_a, var_a - gain * (mean(image * reference) - a * b))
        gain = np.maximum(gain, 0)
        kept += np.log10(1 + gain**2 * var_b / (np.maximum(rest, 1e-8) + 2)).sum()
        there += np.log10(1 + var_b / 2).sum()
    return float(kept / there)


def test_gmsd_and_vif_are_those_of_their_papers_in_the_window(
    slices: tuple[torch.Tensor, torch.Tensor],
) -> None:
    low, normal = ((t.clamp(-160, 240).double().numpy() + 160) / 400 for t in slices)
    assert gmsd(*slices) == pytest.approx(gmsd_by_hand(low, normal), rel=1e-4)
    assert vif(*slices) == pytest.approx(vif_by_hand(255 * low, 255 * normal), rel=1e-4)
    lung = WINDOWS["lung"]
    low, normal = ((t.clamp(lung.low, lung.high).double().numpy() - lung.low) / lung.width for t in slices)
    assert gmsd(*slices, window=lung) == pytest.approx(gmsd_by_hand(low, normal), rel=1e-4)
    assert vif(*slices, window=lung) == pytest.approx(vif_by_hand(255 * low, 255 * normal), rel=1e-4)


def test_gmsd_and_vif_of_a_slice_against_itself_are_perfect(
    slices: tuple[torch.Tensor, torch.Tensor],
) -> None:
    low, normal = slices
    assert gmsd(normal, normal) == pytest.approx(0, abs=1e-6)
    assert vif(normal, normal) == pytest.approx(1, abs=1e-5)
    inside = normal.clamp(-100, 200)
    assert gmsd(inside + 5, inside) == pytest.approx(0, abs=1e-3)  # an offset does not show
    assert vif(inside + 5, inside) == pytest.approx(1, abs=1e-3)
    assert vif(1.2 * inside, inside, window=WINDOWS["full"]) > 1
    blurred = torch.from_numpy(ndimage.gaussian_filter(normal.numpy(), 1))
    assert vif(blurred, normal) < vif(low, normal) < 1
    assert gmsd(blurred, normal) > gmsd(0.9 * normal, normal)


def test_figures_of_pictures_refuse_what_they_cannot_look_at(
    slices: tuple[torch.Tensor, torch.Tensor],
) -> None:
    low, normal = slices
    for figure, smallest in ((gmsd, 4), (vif, 41)):
        with pytest.raises(ValueError, match=f"at least {smallest} x {smallest}"):
            figure(low[: smallest - 1], normal[: smallest - 1])
        with pytest.raises(ValueError, match="one slice"):
            figure(low[None], normal[None])
        with pytest.raises(ValueError, match="shapes differ"):
            figure(low[1:], normal)
        with pytest.raises(ValueError, match="NaN"):
            figure(low * math.nan, normal)
        assert math.isfinite(figure(low[:smallest, :smallest], normal[:smallest, :smallest]))
    with pytest.raises(ValueError, match="constant in the window"):
        vif(low, torch.full((64, 64), -1000.0) - normal.abs())
    assert vif(torch.zeros(64, 64), normal) == pytest.approx(0, abs=1e-6)


def test_bad_input_is_refused() -> None:
    good = torch.zeros(16, 16)
    with pytest.raises(ValueError, match="shapes differ"):
        rmse_hu(good, torch.zeros(16, 17))
    with pytest.raises(ValueError, match="NaN"):
        psnr_db(good, torch.full((16, 16), torch.nan))
    with pytest.raises(ValueError, match="one slice"):
        ssim(torch.zeros(2, 16, 16), torch.zeros(2, 16, 16))


def grid_mm(n: int, pixel_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """y (n, 1) and x (1, n) of pixel centres from the middle of a slice."""
    along = (np.arange(n) - (n - 1) / 2) * pixel_mm
    return along[:, None], along[None]


def test_contrast_to_noise_takes_its_noise_from_the_background() -> None:
    hu = torch.tensor([[60.0, 80.0, 0.0, 20.0], [60.0, 80.0, 0.0, 20.0]])  # 70 +- 10 against 10 +- 10
    inside = torch.zeros(2, 4, dtype=torch.bool)
    inside[:, :2] = True
    assert cnr(hu, inside, ~inside) == 6.0
    assert cnr(-hu, inside, ~inside) == 6.0
    hu[:, :2] = 70.0
    assert cnr(hu, inside, ~inside) == 6.0


def test_masks_are_checked() -> None:
    hu = np.random.default_rng(1).normal(0, 20, (16, 16))
    half = np.arange(256).reshape(16, 16) < 128
    with pytest.raises(ValueError, match="outside is empty"):
        cnr(hu, half, half & False)
    with pytest.raises(ValueError, match="shapes differ: inside"):
        cnr(hu, half[:8], ~half)
    with pytest.raises(ValueError, match="must be boolean"):
        cnr(hu, half.astype(int), ~half)
    with pytest.raises(ValueError, match="share pixels"):
        cnr(hu, half, half)
    with pytest.raises(ValueError, match="background is constant"):
        cnr(np.where(half, hu, 0.1), half, ~half)
