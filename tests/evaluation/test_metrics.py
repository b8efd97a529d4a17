"""Metrics against scikit-image, closed forms and values worked out by hand."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import piq
import pytest
import torch
from scipy import ndimage
from scipy.special import ndtr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn
from torchvision.models import vgg

from alden_lite.alden.pvm import load_pvm
from alden_lite.evaluation.metrics import (
    bias_hu,
    cnr,
    gmsd,
    mae_hu,
    psnr_db,
    rmse_hu,
    ssim,
    vif,
    water_equivalent_diameter_mm,
)
from alden_lite.evaluation.organs import errors_by_label, noise_by_label
from alden_lite.evaluation.perception import LPIPS_WEIGHTS, load_lpips, lpips_distance, perceptual_distance
from alden_lite.evaluation.quality import image_metrics
from alden_lite.evaluation.sharpness import edge_mtf, mtf50_per_mm
from alden_lite.physics.hounsfield import MU_WATER_PER_MM, WINDOWS
from alden_lite.physics.noise import noise_power_spectrum, radial_nps, regions_of_interest
from alden_lite.physics.scanner import Scanner


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


def test_lpips_without_its_weights_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"not in {tmp_path}") as raised:
        load_lpips(tmp_path)
    assert all(address in str(raised.value) for address in LPIPS_WEIGHTS.values())
    (tmp_path / "lpips_weights.pt").touch()
    with pytest.raises(FileNotFoundError, match="vgg16-397923af.pth") as raised:
        load_lpips(tmp_path)
    assert LPIPS_WEIGHTS["lpips_weights.pt"] not in str(raised.value)


def test_lpips_is_the_weighted_distance_of_normalised_features(
    slices: tuple[torch.Tensor, torch.Tensor],
) -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 6, 3, stride=2), nn.Sigmoid())
    weights = [torch.rand(1, 4, 1, 1), torch.rand(1, 6, 1, 1)]
    network = piq.ContentLoss(backbone, layers=("1", "3"), weights=weights, normalize_features=True)

    expected = 0.0
    low, normal = ((t.clamp(-160, 240) + 160) / 400 for t in slices)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    a, b = ((grey[..., None] - mean).div(deviation).permute(2, 0, 1)[None] for grey in (low, normal))
    for layers, weight in ((backbone[:2], weights[0]), (backbone[2:], weights[1])):
        a, b = layers(a), layers(b)
        distance = (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).square()
        expected += float((weight * distance).sum(1).mean())
    assert lpips_distance(*slices, network=network) == pytest.approx(expected, rel=1e-3)
    assert lpips_distance(slices[0], slices[0], network=network) == 0
    with pytest.raises(ValueError, match="32 x 32"):
        lpips_distance(low[:31], normal[:31], network=network)


def test_lpips_takes_its_weights_from_files_and_its_features_from_vgg16(
    tmp_path: Path, slices: tuple[torch.Tensor, torch.Tensor]
) -> None:
    torch.manual_seed(0)
    features = vgg.make_layers(vgg.cfgs["D"])
    stored = {f"features.{key}": value for key, value in features.state_dict().items()}
    torch.save(stored | {"classifier.0.weight": torch.zeros(1)}, tmp_path / "vgg16-397923af.pth")
    taps = [features[: last + 1] for last in (3, 8, 15, 22, 29)]  # relu1_2, 2_2, 3_3, 4_3, 5_3
    assert all(isinstance(tap[-1], nn.ReLU) for tap in taps)
    mean, deviation = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    linear, expected = [], 0.0
    with torch.no_grad():
        for tap in taps:
            a, b = (
                tap((((t.clamp(-160, 240) + 160) / 400).expand(1, 3, 64, 64) - mean) / deviation)
                for t in slices
            )
            distance = (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).square()
            linear.append(torch.rand(1, a.shape[1], 1, 1) / distance.sum(1).mean())  # all taps count
            expected += float((linear[-1] * distance).sum(1).mean())
    torch.save(linear, tmp_path / "lpips_weights.pt")
    network = load_lpips(tmp_path)
    assert lpips_distance(*slices, network=network) == pytest.approx(expected, rel=1e-3)
    assert not any(parameter.requires_grad for parameter in network.parameters())  # type: ignore[attr-defined]


def test_errors_by_organ_are_those_of_its_own_pixels_unclipped() -> None:
    reference = np.array([[0.0, 0.0, -900.0], [1200.0, 5.0, 7.0]])
    image = reference + np.array([[3.0, -1.0, 100.0], [-300.0, 1e6, 1e6]])
    labels = np.array([[2, 2, 1], [9, 0, 4]])
    found = errors_by_label(
        image, torch.from_numpy(reference), labels, {9: "bone", 1: "lung", 2: "liver", 3: "no"}
    )
    assert list(found) == ["bone", "lung", "liver"]
    assert found["bone"] == (300, 300, -300)
    assert found["lung"] == (100, 100, 100)
    assert found["liver"] == (math.sqrt(5), 2, 1)
    assert found["liver"].rmse_hu == math.sqrt(5) and found["liver"].bias_hu == 1
    with pytest.raises(ValueError, match="none of the 1 named organs"):
        errors_by_label(image, reference, labels, {3: "spleen"})
    with pytest.raises(ValueError, match="none of the 0"):
        errors_by_label(image, reference, labels, {0: "no organ"})
    with pytest.raises(ValueError, match="shapes differ"):
        errors_by_label(image, reference, labels[:1], {2: "liver"})
    with pytest.raises(ValueError, match="NaN"):
        errors_by_label(image * math.nan, reference, labels, {2: "liver"})


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


def test_contrast_to_noise_takes_its_noise_from_the_background() -> None:
    hu = torch.tensor([[60.0, 80.0, 0.0, 20.0], [60.0, 80.0, 0.0, 20.0]])  # 70 +- 10 against 10 +- 10
    inside = torch.zeros(2, 4, dtype=torch.bool)
    inside[:, :2] = True
    assert cnr(hu, inside, ~inside) == 6.0
    assert cnr(-hu, inside, ~inside) == 6.0
    hu[:, :2] = 70.0
    assert cnr(hu, inside, ~inside) == 6.0


def test_a_water_cylinder_is_its_own_water_equivalent() -> None:
    y, x = grid_mm(400, 1.0)
    cylinder = np.where(np.hypot(y, x) < 150, 0.0, -1000.0)
    assert water_equivalent_diameter_mm(cylinder, pixel_mm=1.0) == pytest.approx(300, rel=1e-3)
    assert water_equivalent_diameter_mm(cylinder, pixel_mm=0.5) == pytest.approx(150, rel=1e-3)
    half_dense = np.where(cylinder == 0, -500.0, -1000.0)
    assert water_equivalent_diameter_mm(half_dense, pixel_mm=1.0) == pytest.approx(
        300 / math.sqrt(2), rel=1e-3
    )
    table = cylinder.copy()
    table[380:390] = 200.0
    above_it = np.broadcast_to(y < 175, table.shape)
    assert water_equivalent_diameter_mm(table, pixel_mm=1.0, mask=above_it) == pytest.approx(300, rel=1e-3)
    assert water_equivalent_diameter_mm(table, pixel_mm=1.0) > 305


def test_every_organ_has_its_own_noise() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], [100, 10_000, 10_000, 1]).reshape(1, -1)
    sigma = np.array([500.0, 10.0, 30.0, 1.0])[labels]
    noise = torch.from_numpy(rng.normal(0, 1, labels.shape) * sigma + 5 * labels)
    rows = noise_by_label(noise, labels, {2: "lung", 1: "liver", 3: "gallbladder", 9: "spleen"})
    assert list(rows) == ["lung", "liver"]  # one pixel has no spread, and there is no spleen
    assert rows["liver"].sigma_hu == pytest.approx(10, rel=0.03)
    assert rows["lung"].sigma_hu == pytest.approx(30, rel=0.03)
    assert rows["lung"].pixels == 10_000


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


def test_masks_are_checked() -> None:
    hu, half = white_noise(1, 16)[0], np.arange(256).reshape(16, 16) < 128
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
    with pytest.raises(ValueError, match="mask is empty"):
        water_equivalent_diameter_mm(hu, pixel_mm=1.0, mask=half & False)
    with pytest.raises(ValueError, match="-2048 HU is padding"):
        water_equivalent_diameter_mm(np.where(half, hu, -2048), pixel_mm=1.0)
    with pytest.raises(ValueError, match="one slice"):
        water_equivalent_diameter_mm(hu[None], pixel_mm=1.0)
    with pytest.raises(ValueError, match="shapes differ: noise"):
        noise_by_label(hu, half[:8], {1: "liver"})
    with pytest.raises(ValueError, match="none of the 1 named organs"):
        noise_by_label(hu, half.astype(int), {7: "spleen"})


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
