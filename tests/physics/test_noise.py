"""Noise predicted and measured: theory against many scans, power spectra against closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_slices import FINE, SMALL, disk, distance_mm, hips, noise
from scipy import ndimage

from alden_lite.physics.dose import insert_noise
from alden_lite.physics.hounsfield import MU_WATER_PER_MM
from alden_lite.physics.noise import (
    noise_power_spectrum,
    own_noise_hu,
    photons_for_sigma,
    radial_nps,
    regions_of_interest,
    theory_nps,
    theory_sigma,
)
from alden_lite.physics.scanner import Scanner

# What theory predicts


def test_noise_grows_with_the_inverse_root_of_dose() -> None:
    hu, centre = disk(SMALL, 100), distance_mm(SMALL) < 80
    quiet = replace(SMALL, electronic_noise=0.0)
    spreads = [
        noise(quiet, hu, dose=dose, scans=8)[:, centre].std().item() * dose**0.5
        for dose in (1.0, 0.5, 0.25, 0.1, 0.05)
    ]
    assert max(spreads) / min(spreads) < 1.03


def test_noise_in_a_water_cylinder_is_what_theory_says() -> None:
    hu, centre = disk(SMALL, 100), distance_mm(SMALL) < 20
    scanner = replace(SMALL, photons=2e4, electronic_noise=10.0)
    arriving = 2e4 * math.exp(-200 * MU_WATER_PER_MM)  # 430: electronic noise is a fifth of the variance
    sigma = theory_sigma(scanner, 1 / arriving + 100 / arriving**2)
    assert noise(scanner, hu, dose=1.0, scans=24)[:, centre].std().item() == pytest.approx(sigma, rel=0.06)
    wanted = photons_for_sigma(scanner, sigma_hu=sigma, water_mm=200)
    assert wanted == pytest.approx(2e4, rel=1e-9)


def test_theory_of_noise_has_its_closed_form() -> None:
    integrals = {"ram-lak": 1 / 3, "hann": 1 / 8 - 15 / (16 * math.pi**2), "cosine": 1 / 6 - 1 / math.pi**2}
    for kernel, integral in integrals.items():
        scanner = replace(FINE, kernel=kernel)
        sigma = math.sqrt(2 * math.pi**2 / 360 * 0.7 * 1e-4 * 0.7**3 * integral) * 1000 / MU_WATER_PER_MM
        assert theory_sigma(scanner, 1e-4) == pytest.approx(sigma, rel=1e-5)
        f = np.linspace(0, 0.8, 4001)
        over_the_plane = np.trapezoid(theory_nps(scanner, 1e-4, f) * 2 * np.pi * f, f)
        assert over_the_plane == pytest.approx(sigma**2, rel=2e-3)
        assert theory_nps(scanner, 1e-4, np.array([0.71])) == 0


@pytest.mark.parametrize("kernel", ["hann", "ram-lak"])
def test_the_noise_power_spectrum_is_ramp_times_squared_window(kernel: str) -> None:
    scanner, variance, n = replace(FINE, kernel=kernel), 1e-4, 64
    white = np.random.default_rng(0).standard_normal((60, FINE.n_views, FINE.n_channels), dtype=np.float32)
    slices = torch.stack([scanner.reconstruct(torch.from_numpy(w * variance**0.5)) + 1000 for w in white])
    power = torch.fft.fft2(slices[:, 32:96, 32:96]).abs().square().mean(0).numpy() * (0.7 / n) ** 2
    fy, fx = np.fft.fftfreq(n, 0.7)[:, None], np.fft.fftfreq(n, 0.7)
    radius = np.hypot(fy, fx)
    ring, rings = np.digitize(radius, np.arange(0, 0.7, 0.7 / 32)), np.arange(1, 33)
    measured, theory = (ndimage.mean(p, ring, rings) for p in (power, theory_nps(scanner, variance, radius)))
    assert np.corrcoef(measured, theory)[0, 1] > 0.995
    assert np.sqrt(((measured - theory) ** 2).mean()) < 0.1 * theory.max()
    sigma = theory_sigma(scanner, variance)
    assert power.sum() / (n * 0.7) ** 2 == pytest.approx(sigma**2, rel=0.04)


def test_the_noise_map_is_the_spread_of_many_scans() -> None:
    # Enough electronic noise to matter: left out, the map would be a seventh too small.
    scanner, hu = replace(SMALL, photons=3e5, electronic_noise=20.0), hips(SMALL)
    inside = torch.from_numpy(ndimage.binary_erosion((hu > -500).numpy(), iterations=4))
    drawn = noise(scanner, hu, dose=0.25, scans=100).std(0)
    ratio = scanner.noise_map(hu, dose=0.25) / drawn
    assert ratio[inside].mean().item() == pytest.approx(1, abs=0.02)
    smooth = torch.from_numpy(ndimage.gaussian_filter(ratio.numpy(), 3))[inside]
    assert smooth.min() > 0.95
    assert smooth.max() < 1.05


def anisotropy(scanner: Scanner, hu: torch.Tensor) -> float:
    """Power of horizontal streaks over that of vertical ones, in the middle of the slice."""
    middle = noise(scanner, hu, dose=0.1, scans=20)[:, 44:84, 44:84]
    power = torch.fft.fft2(middle).abs().square().mean(0)
    fy, fx = torch.meshgrid(*[torch.fft.fftfreq(40)] * 2, indexing="ij")
    band = (torch.hypot(fy, fx) > 0.05) & (torch.hypot(fy, fx) < 0.35)
    horizontal, vertical = (power[band & (f.abs() > 2 * g.abs())].mean() for f, g in ((fy, fx), (fx, fy)))
    return (horizontal / vertical).item()


def test_between_the_hips_noise_is_streaks_which_tube_modulation_weakens() -> None:
    constant, modulated = (replace(SMALL, photons=3e5, tube_modulation=m) for m in (0.0, 0.5))
    streaks = anisotropy(constant, hips(SMALL))
    assert streaks > 3
    assert anisotropy(modulated, hips(SMALL)) < 0.5 * streaks
    assert anisotropy(constant, disk(SMALL, 100)) == pytest.approx(1, abs=0.1)


def test_a_softer_kernel_is_quieter() -> None:
    hu = disk(SMALL, 100)
    noise = {
        kernel: (
            insert_noise(hu, scanner=Scanner.covering(128, 2.0, kernel=kernel), dose=0.25, seed=0).low - hu
        ).std()
        for kernel in ("hann", "cosine", "ram-lak")
    }
    assert noise["hann"] < noise["cosine"] < noise["ram-lak"]


# What is measured


def white_noise(count: int, n: int, *, sigma_hu: float = 20.0) -> np.ndarray:
    return np.random.default_rng(1).normal(0, sigma_hu, (count, n, n))


def grid_mm(n: int, pixel_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """y (n, 1) and x (1, n) of pixel centres from the middle of a slice."""
    along = (np.arange(n) - (n - 1) / 2) * pixel_mm
    return along[:, None], along[None]


def test_the_integral_of_the_noise_power_is_the_variance() -> None:
    for n in (32, 33):
        noise = white_noise(3, n) + np.array([0.0, 50.0, -7.0])[:, None, None]  # each region has its own mean
        nps = noise_power_spectrum(noise, pixel_mm=0.7)
        assert nps.variance_hu2 == pytest.approx(noise.var((1, 2)).mean(), rel=1e-5)
        assert nps.power[n // 2, n // 2] == pytest.approx(0, abs=1e-9)
        assert nps.frequency_per_mm[n // 2] == 0


def test_white_noise_has_flat_power_of_variance_times_pixel_area() -> None:
    spectrum = radial_nps(noise_power_spectrum(white_noise(200, 32), pixel_mm=0.7))
    assert spectrum.power == pytest.approx(20.0**2 * 0.7**2, rel=0.1)
    assert spectrum.power.mean() == pytest.approx(20.0**2 * 0.7**2, rel=0.02)
    assert spectrum.frequency_per_mm[-1] == pytest.approx(0.5 / 0.7, rel=0.01)


def test_a_wave_has_its_power_at_its_own_frequency() -> None:
    n, pixel_mm, amplitude, turns = 16, 2.0, 3.0, 4
    wave = np.broadcast_to(amplitude * np.cos(2 * np.pi * turns * np.arange(n) / n), (1, n, n))  # along x
    nps = noise_power_spectrum(wave, pixel_mm=pixel_mm)
    expected = np.zeros((n, n))
    expected[8, [8 - turns, 8 + turns]] = (amplitude / 2) ** 2 * n**2 * pixel_mm**2
    np.testing.assert_allclose(nps.power, expected, atol=1e-9)
    assert nps.frequency_per_mm[8 + turns] == turns / (n * pixel_mm) == 0.125
    assert radial_nps(nps).peak_per_mm == pytest.approx(0.125, rel=0.03)  # the mean of its ring's pixels


def test_rings_average_power_over_directions() -> None:
    nps = noise_power_spectrum(white_noise(4, 16), pixel_mm=0.5)
    frequency, power = radial_nps(nps)
    assert len(power) == 8
    nearest = nps.power[7:10, 7:10].sum() / 8  # a step, or sqrt(2) steps, from zero: eight pixels
    assert power[0] == pytest.approx(nearest)
    assert frequency[0] == pytest.approx((1 + math.sqrt(2)) / 2 / 8)
    distance = np.hypot(*np.meshgrid(nps.frequency_per_mm, nps.frequency_per_mm))
    disk = (distance > 0) & (distance <= 1.0 + 0.5 / 8)  # Nyquist, 0.5 / 0.5 mm, and half a step
    one = radial_nps(nps, bins=1)
    assert one.power[0] == pytest.approx(nps.power[disk].mean())
    for figure in (one.mean_per_mm, one.peak_per_mm):
        assert figure == pytest.approx(distance[disk].mean())


def test_a_quadratic_detrend_takes_off_cupping_and_a_mean_does_not() -> None:
    noise = white_noise(50, 32)
    y, x = grid_mm(32, 1.0)
    cupping = 0.3 * (x**2 + y**2) + 0.4 * x * y + 2 * x - y + 15
    clean, cupped = (
        noise_power_spectrum(n, pixel_mm=1.0, detrend="polynomial") for n in (noise, noise + cupping)
    )
    np.testing.assert_allclose(cupped.power, clean.power, rtol=1e-6, atol=1e-6)
    # Of 1024 degrees of freedom, six are gone.
    assert clean.variance_hu2 == pytest.approx(20.0**2 * (1 - 6 / 1024), rel=0.02)
    assert noise_power_spectrum(noise + cupping, pixel_mm=1.0).variance_hu2 > 2 * clean.variance_hu2


def test_the_scanners_noise_power_is_the_ramp_times_its_kernel_squared() -> None:
    scanner = Scanner.covering(128, 2.0, n_views=240)
    variance = 1e-4  # of every line integral
    rng = np.random.default_rng(0)
    shape = (24, scanner.n_views, scanner.n_channels)
    lines = torch.from_numpy(rng.normal(0, math.sqrt(variance), shape).astype(np.float32))
    noise = torch.stack([scanner.reconstruct(view)[32:96, 32:96] + 1000 for view in lines])
    nps = noise_power_spectrum(noise, pixel_mm=scanner.pixel_mm)
    frequency, power = spectrum = radial_nps(nps)
    # Kak & Slaney, ch. 5: (pi / views) * variance * channel width * |f| W(f)^2, here from 1/mm to HU.
    hann = np.where(frequency < 0.25, 0.5 + 0.5 * np.cos(np.pi * frequency / 0.25), 0)
    expected = np.pi / 240 * variance * 1.4 * frequency * hann**2 * (1000 / MU_WATER_PER_MM) ** 2
    assert np.corrcoef(power, expected)[0, 1] > 0.995
    assert np.sqrt(((power - expected) ** 2).mean()) < 0.1 * expected.max()
    sigma2 = 2 * np.pi**2 / 240 * variance * 1.4 * 0.25**3 * 0.03001 * (1000 / MU_WATER_PER_MM) ** 2
    assert nps.variance_hu2 == pytest.approx(sigma2, rel=0.04)
    assert spectrum.peak_per_mm == pytest.approx(0.25 * 0.3, rel=0.15)  # where x W(x)^2 is largest, x = 0.30
    assert spectrum.mean_per_mm == pytest.approx(np.average(frequency, weights=expected), rel=0.03)


def test_regions_lie_inside_the_mask() -> None:
    image = np.arange(36.0).reshape(6, 6)
    mask = np.ones((6, 6), bool)
    mask[0, 0] = False
    regions = regions_of_interest(image, size=3, mask=mask)
    np.testing.assert_array_equal(regions[:, 0, 0], [3, 18, 21])  # the first of four holds the masked corner
    np.testing.assert_array_equal(regions[0], image[:3, 3:])
    assert len(regions_of_interest(image, size=3, step=1)) == 16


def test_physics_metrics_refuse_what_they_cannot_measure() -> None:
    noise, flat = white_noise(2, 16), np.zeros((16, 16))
    for bad in (noise[0], noise[:0], noise[:, :7, :7], noise[:, :, :8]):
        with pytest.raises(ValueError, match=r"\(K, n, n\)"):
            noise_power_spectrum(bad, pixel_mm=1.0)
    for constant in (np.full((3, 16, 16), 40.1), np.zeros((1, 16, 16))):
        with pytest.raises(ValueError, match="no noise"):
            noise_power_spectrum(constant, pixel_mm=1.0)
    with pytest.raises(ValueError, match="NaN"):
        noise_power_spectrum(np.full((1, 16, 16), np.nan), pixel_mm=1.0)
    with pytest.raises(ValueError, match="pixel_mm"):
        noise_power_spectrum(noise, pixel_mm=0.0)
    with pytest.raises(ValueError, match="detrend 'linear'"):
        noise_power_spectrum(noise, pixel_mm=1.0, detrend="linear")
    with pytest.raises(ValueError, match="1 to 8 rings"):
        radial_nps(noise_power_spectrum(noise, pixel_mm=1.0), bins=9)
    with pytest.raises(ValueError, match="cannot be cut"):
        regions_of_interest(flat, size=17)
    with pytest.raises(ValueError, match="fits inside"):
        regions_of_interest(flat, size=9, mask=np.eye(16, dtype=bool))


def test_air_has_no_noise_of_tissue() -> None:
    with pytest.raises(ValueError, match="too little soft tissue"):
        own_noise_hu(torch.full((64, 64), -1000.0))
