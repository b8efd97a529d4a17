"""Edges and rods whose blur is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.special import ndtr

from alden_lite.evaluation.sharpness import edge_mtf, insert_rod, mtf50_per_mm, rod_mtf
from alden_lite.physics.scanner import Scanner


def grid_mm(n: int, pixel_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """y (n, 1) and x (1, n) of pixel centres from the middle of a slice."""
    along = (np.arange(n) - (n - 1) / 2) * pixel_mm
    return along[:, None], along[None]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_gaussian_edge_has_a_gaussian_mtf(sign: int) -> None:
    pixel_mm, sigma_mm, radius_mm = 0.5, 0.8, 20.0
    y, x = grid_mm(161, pixel_mm)
    distance = np.hypot(y - 10.3, x + 6.1)
    rod = 30 + sign * 120 * ndtr((radius_mm - distance) / sigma_mm)
    frequency, mtf = edge_mtf(rod, pixel_mm=pixel_mm, radius_mm=radius_mm, centre_mm=(10.3, -6.1))
    assert mtf[0] == 1
    assert frequency[-1] == pytest.approx(1 / pixel_mm, rel=0.01)  # twice the Nyquist frequency
    assert mtf == pytest.approx(np.exp(-2 * (np.pi * sigma_mm * frequency) ** 2), abs=0.02)
    closed_form = math.sqrt(math.log(2) / 2) / (math.pi * sigma_mm)
    assert mtf50_per_mm(frequency, mtf) == pytest.approx(closed_form, rel=0.02)


def test_the_scanners_kernel_halves_the_contrast_at_half_its_cutoff() -> None:
    scanner = Scanner.covering(128, 2.0, n_views=240)
    fine = replace(scanner, matrix=512, pixel_mm=0.5)  # a rod finer than the pixels of its reconstruction
    y, x = grid_mm(2048, 0.125)
    coverage = (np.hypot(y, x) < 60).reshape(512, 4, 512, 4).mean((1, 3), dtype=np.float32)
    rod = scanner.reconstruct(fine.project(torch.from_numpy(coverage * 1000 - 1000)))
    frequency, mtf = edge_mtf(rod, pixel_mm=2.0, radius_mm=60)
    assert mtf50_per_mm(frequency, mtf) == pytest.approx(0.5 * scanner.cutoff_per_mm, rel=0.15)
    hann = np.where(frequency < 0.25, 0.5 + 0.5 * np.cos(np.pi * frequency / 0.25), 0)
    # A channel of 1.4 mm blurs, too.
    assert mtf == pytest.approx(hann * np.sinc(frequency * 1.4), abs=0.03)


def test_an_edge_that_cannot_be_measured_is_refused() -> None:
    y, x = grid_mm(64, 1.0)
    rod = np.where(np.hypot(y, x) < 15, 100.0, 0.0)
    for radius, reach in ((15, 16), (15, 0), (-1, None)):
        with pytest.raises(ValueError, match="0 < reach_mm < radius_mm"):
            edge_mtf(rod, pixel_mm=1.0, radius_mm=radius, reach_mm=reach)
    with pytest.raises(ValueError, match="inside the slice"):
        edge_mtf(rod, pixel_mm=1.0, radius_mm=15, centre_mm=(0.0, 8.0))
    with pytest.raises(ValueError, match="no edge"):
        edge_mtf(np.full((64, 64), 7.0), pixel_mm=1.0, radius_mm=15)
    with pytest.raises(ValueError, match="too few pixels"):
        edge_mtf(rod, pixel_mm=1.0, radius_mm=2.0, reach_mm=1.9)
    with pytest.raises(ValueError, match="one half"):
        mtf50_per_mm(np.array([0.0, 1.0]), np.array([1.0, 0.9]))


def white(count: int, side: int = 32, *, sigma: float = 20.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sigma, (count, side, side))


# Rods


def test_a_rod_covers_its_area_and_nothing_else() -> None:
    hu = torch.full((64, 80), 50.0)
    rod = insert_rod(hu, pixel_mm=0.5, centre_mm=(3.3, -5.1), diameter_mm=20, contrast_hu=-200) - hu
    assert rod.sum().item() / -200 * 0.25 == pytest.approx(math.pi * 100, rel=1e-3)
    y, x = ndimage.center_of_mass(rod.numpy())
    assert ((y - 31.5) * 0.5, (x - 39.5) * 0.5) == pytest.approx((3.3, -5.1), abs=0.01)
    assert rod.min() == -200 and rod.max() == 0
    assert (hu == 50).all()


def test_a_rod_that_does_not_fit_is_refused() -> None:
    hu = torch.zeros(64, 64)
    with pytest.raises(ValueError, match="does not lie inside"):
        insert_rod(hu, pixel_mm=1.0, centre_mm=(0, 25), diameter_mm=20, contrast_hu=1)
    for shape, diameter in (((64,), 10), ((64, 64), 0), ((64, 64), math.nan)):
        with pytest.raises(ValueError, match="lengths above 0"):
            insert_rod(
                torch.zeros(shape), pixel_mm=1.0, centre_mm=(0, 0), diameter_mm=diameter, contrast_hu=1
            )


@pytest.mark.parametrize("contrast", [150.0, -150.0])
def test_a_rod_shows_the_blur_that_was_put_on_it_and_anatomy_does_not(contrast: float) -> None:
    pixel_mm, sigma_mm, anatomy = 0.5, 0.8, torch.from_numpy(100 * white(1, 128)[0]).float()
    centre = (2.2, -3.1)
    rod = insert_rod(anatomy, pixel_mm=pixel_mm, centre_mm=centre, diameter_mm=36, contrast_hu=contrast)
    blurred = [
        ndimage.gaussian_filter(hu.double().numpy(), sigma_mm / pixel_mm)[None] for hu in (rod, anatomy)
    ]
    frequency, mtf = rod_mtf(*blurred, (rod - anatomy), pixel_mm=pixel_mm, diameter_mm=36)
    closed_form = math.sqrt(math.log(2) / 2) / (math.pi * math.hypot(sigma_mm, 0.5 / math.sqrt(12)))
    assert mtf50_per_mm(frequency, mtf) == pytest.approx(closed_form, rel=0.04)
