"""Metrics against scikit-image and values worked out by hand."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from alden_lite.hounsfield import WINDOWS
from alden_lite.metrics import image_metrics, perceptual_distance, psnr_db, rmse_hu, ssim
from alden_lite.pvm import load_pvm


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


def test_the_judge_sees_blur_that_rmse_forgives(slices: tuple[torch.Tensor, torch.Tensor]) -> None:
    judge = load_pvm("efficientnet_lite0")
    low, normal = slices
    assert perceptual_distance(normal, normal, judge=judge) == 0.0
    assert (
        0
        < perceptual_distance(normal + 1, normal, judge=judge)
        < perceptual_distance(low, normal, judge=judge)
    )


def test_the_network_that_trained_a_generator_may_not_judge_it(
    slices: tuple[torch.Tensor, torch.Tensor],
) -> None:
    judge = load_pvm("efficientnet_lite0")
    with pytest.raises(ValueError, match="judge with another network"):
        perceptual_distance(*slices, judge=judge, training_pvm="efficientnet_lite0")
    assert image_metrics(*slices, judge=judge, training_pvm="dinov2_vits14")["judge"] > 0


def test_bad_input_is_refused() -> None:
    good = torch.zeros(16, 16)
    with pytest.raises(ValueError, match="shapes differ"):
        rmse_hu(good, torch.zeros(16, 17))
    with pytest.raises(ValueError, match="NaN"):
        psnr_db(good, torch.full((16, 16), torch.nan))
    with pytest.raises(ValueError, match="one slice"):
        ssim(torch.zeros(2, 16, 16), torch.zeros(2, 16, 16))
