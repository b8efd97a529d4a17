"""The scanner against closed forms and scikit-image. Small matrices where the physics allows."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_slices import FINE, SMALL, along_axes_mm, disk, distance_mm, hips
from scipy import ndimage
from skimage.transform import radon

from alden_lite.data.sample import load_sample
from alden_lite.physics.dose import insert_noise, log_transform, simulate_pair
from alden_lite.physics.hounsfield import MU_WATER_PER_MM, hu_to_mu, mu_to_hu
from alden_lite.physics.noise import photons_for_sigma, theory_sigma
from alden_lite.physics.scanner import (
    KERNELS,
    PRESETS,
    PaddingWarning,
    Scanner,
    TruncationWarning,
    _back_projection,
    _ramp,
    line_variance,
)

SHEPP_LOGAN = [  # density added, half axes (x, y), centre (x, y) up, degrees; the head is 2 units high
    (2, 0.69, 0.92, 0, 0, 0),
    (-0.98, 0.6624, 0.874, 0, -0.0184, 0),
    (-0.02, 0.11, 0.31, 0.22, 0, -18),
    (-0.02, 0.16, 0.41, -0.22, 0, 18),
    (0.01, 0.21, 0.25, 0, 0.35, 0),
    (0.01, 0.046, 0.046, 0, 0.1, 0),
    (0.01, 0.046, 0.046, 0, -0.1, 0),
    (0.01, 0.046, 0.023, -0.08, -0.605, 0),
    (0.01, 0.023, 0.023, 0, -0.606, 0),
    (0.01, 0.023, 0.046, 0.06, -0.605, 0),
]


def shepp_logan(scanner: Scanner, unit_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """The phantom (N, N) and its exact line integrals (V, C), in densities (1 is water) and density x mm."""
    fine = (np.arange(5) - 2) / 5  # samples across a pixel, and across a channel
    y, x = (axis.numpy() for axis in along_axes_mm(scanner))
    theta, t = scanner.view_angles[:, None], scanner.channel_positions_mm
    image, lines = np.zeros((scanner.matrix,) * 2), np.zeros((scanner.n_views, scanner.n_channels))
    for density, *shape, degrees in SHEPP_LOGAN:
        a, b, x0, y0 = (unit_mm * length for length in shape)
        phi = math.radians(degrees)  # the slice's y runs downwards
        for dx in fine * scanner.channel_mm:
            foot = t + dx - (x0 * np.cos(theta) - y0 * np.sin(theta))
            square = (a * np.cos(theta - phi)) ** 2 + (b * np.sin(theta - phi)) ** 2
            chord = 2 * a * b * np.sqrt(np.maximum(square - foot**2, 0)) / square
            lines += density * chord / len(fine)
        for dx in fine * scanner.pixel_mm:
            for dy in fine * scanner.pixel_mm:
                u, v = x + dx - x0, y + dy + y0
                along, across = u * np.cos(phi) + v * np.sin(phi), v * np.cos(phi) - u * np.sin(phi)
                image += density * ((along / a) ** 2 + (across / b) ** 2 <= 1) / len(fine) ** 2
    return image, lines


# Line integrals


def test_projection_of_a_disk_is_its_chord() -> None:
    scanner = Scanner()
    lines = scanner.project(disk(scanner, 150))
    chord = 2 * np.sqrt(np.maximum(150**2 - scanner.channel_positions_mm**2, 0)) * MU_WATER_PER_MM
    error = np.sqrt(((lines.numpy() - chord) ** 2).mean()) / chord.max()
    assert error < 2e-3


def test_projection_agrees_with_scikit_image() -> None:
    # Odd, with channels as wide as pixels: then both have their centre in the middle pixel.
    scanner = Scanner(
        matrix=129, pixel_mm=2.0, channel_mm=2.0, n_channels=183, n_views=60, cutoff_per_mm=0.25
    )
    y, x = torch.meshgrid(*[torch.arange(129) - 64.0] * 2, indexing="ij")
    smooth_blobs = torch.exp(-((x - 20) ** 2 + (y + 12) ** 2) / 200) + torch.exp(
        -((x + 25) ** 2 + y**2) / 400
    )
    ours = scanner.project((smooth_blobs - 1) * 1000)
    padded = np.pad(smooth_blobs.numpy(), 27)  # scikit-image's detector is as wide as its image
    theirs = radon(padded, np.degrees(scanner.view_angles), circle=True).T * 2.0 * MU_WATER_PER_MM
    # It turns the other way: views and channels run backwards.
    error = np.sqrt(((ours.numpy() - theirs[::-1, ::-1]) ** 2).mean()) / ours.max().item()
    assert error < 1e-3


def test_projection_of_a_real_slice_agrees_with_scikit_image() -> None:
    scanner = Scanner(
        matrix=129, pixel_mm=2.8, channel_mm=2.8, n_channels=183, n_views=60, cutoff_per_mm=0.17
    )
    hu = load_sample().hu[28].astype(np.float32).clip(-1000)
    mu = hu_to_mu(ndimage.zoom(ndimage.uniform_filter(hu, 4), 129 / 512, order=1))
    ours = scanner.line_integrals(torch.from_numpy(mu)).numpy()
    theirs = radon(np.pad(mu, 27), np.degrees(scanner.view_angles), circle=True).T[::-1, ::-1] * 2.8
    assert np.sqrt(((ours - theirs) ** 2).mean()) / theirs.max() < 1e-2


def test_a_shepp_logan_head_with_sharp_edges_agrees_with_scikit_image() -> None:
    scanner = Scanner(matrix=129, pixel_mm=1.0, channel_mm=1.0, n_channels=183, n_views=60, cutoff_per_mm=0.5)
    image, _ = shepp_logan(scanner, 60)
    ours = scanner.line_integrals(torch.from_numpy(image))
    theirs = radon(np.pad(image, 27), np.degrees(scanner.view_angles), circle=True).T[::-1, ::-1]
    assert np.sqrt(((ours.numpy() - theirs) ** 2).mean()) / theirs.max() < 1e-2


@pytest.mark.parametrize("scanner", [SMALL, Scanner.covering(65, 3.0, n_views=50)], ids=["even", "odd"])
def test_back_projection_is_the_adjoint_of_the_line_integrals(scanner: Scanner) -> None:
    seed = torch.Generator().manual_seed(0)
    x = torch.randn(scanner.matrix, scanner.matrix, generator=seed)
    y = torch.randn(scanner.n_views, scanner.n_channels, generator=seed)
    lines, smeared = scanner.line_integrals(x).double(), scanner.adjoint(y).double()
    gap = ((lines * y).sum() - (x * smeared).sum()).abs()
    assert gap < 1e-5 * lines.norm() * y.norm()
    both_positive = (scanner.line_integrals(x.abs()).double() * y.abs()).sum()
    assert ((x.abs() * scanner.adjoint(y.abs()).double()).sum() / both_positive).item() == (
        pytest.approx(1, abs=1e-5)
    )


def directional_derivative_error(function, x: torch.Tensor, direction: torch.Tensor) -> float:
    """Relative gap between autograd and a central difference, which is exact for a quadratic function."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(x), x)
    with torch.no_grad():
        difference = (function(x + direction) - function(x - direction)) / 2
    return abs(((gradient.double() * direction).sum() / difference).item() - 1)


def test_gradients_flow_through_projection_and_reconstruction() -> None:
    seed = torch.Generator().manual_seed(0)
    hu, step = (200 * torch.rand(128, 128, generator=seed) for _ in range(2))
    lines, change = (torch.rand(SMALL.n_views, SMALL.n_channels, generator=seed) for _ in range(2))
    mask = (distance_mm(SMALL) < 100).double()

    def energy_of_lines(x: torch.Tensor) -> torch.Tensor:
        return SMALL.line_integrals(hu_to_mu(x)).double().square().sum()

    def energy_of_slice(y: torch.Tensor) -> torch.Tensor:
        return ((SMALL.reconstruct(y).double() / 1000 + 1) * mask).square().sum()

    assert directional_derivative_error(energy_of_lines, hu, step) < 1e-4
    assert directional_derivative_error(energy_of_slice, lines, change) < 1e-4
    assert (
        directional_derivative_error(lambda y: SMALL.adjoint(y).double().square().sum(), lines, change) < 1e-4
    )


def test_the_gradient_of_a_projection_is_a_back_projection_except_in_air() -> None:
    hu = disk(SMALL, 80)
    hu[0, 0] = -1010.0
    hu.requires_grad_()
    weights = torch.rand(SMALL.n_views, SMALL.n_channels, generator=torch.Generator().manual_seed(0))
    lines = SMALL.project(hu)
    (lines * weights).sum().backward()
    expected = SMALL.adjoint(weights * (lines > 0)) * MU_WATER_PER_MM / 1000
    water = distance_mm(SMALL) < 80
    torch.testing.assert_close(hu.grad[water], expected[water], atol=0, rtol=1e-3)
    assert hu.grad[0, 0] == 0  # clamped to air


def test_line_integrals_are_linear() -> None:
    a, b = torch.rand(2, 128, 128, generator=torch.Generator().manual_seed(0))
    both = SMALL.line_integrals(2 * a - 3 * b)
    apart = 2 * SMALL.line_integrals(a) - 3 * SMALL.line_integrals(b)
    assert ((both - apart).norm() / apart.norm()).item() < 1e-5


def test_a_short_detector_sees_the_same_rays_as_a_long_one() -> None:
    image = disk(SMALL, 100) / 1000 + 1
    wide, short = SMALL.line_integrals(image), replace(SMALL, n_channels=61).line_integrals(image)
    torch.testing.assert_close(short, wide[:, 100:161], atol=0.05, rtol=0)  # of 200 mm: nothing wraps around


def test_scanning_a_turned_patient_turns_the_slice() -> None:
    hu = hips(SMALL) + 20 * torch.randn(128, 128, generator=torch.Generator().manual_seed(0))

    def scan(x: torch.Tensor) -> torch.Tensor:
        return SMALL.reconstruct(SMALL.project(x))

    difference = scan(torch.rot90(hu)) - torch.rot90(scan(hu))
    assert difference.square().mean().sqrt() < 0.1


# Beam and counts


def test_the_bowtie_evens_out_and_the_tube_current_follows_the_patient() -> None:
    scanner = Scanner.covering(128, 2.0, n_views=240, tube_modulation=0.0)
    flat = torch.zeros(scanner.n_views, scanner.n_channels)
    incident = scanner.incident_photons(flat)[0]
    middle = scanner.n_channels // 2
    assert incident[middle].item() == pytest.approx(scanner.photons, rel=1e-3)
    beyond_the_bowtie = scanner.photons * np.exp(-0.5 * MU_WATER_PER_MM * scanner.bowtie_mm)
    assert incident[0].item() == pytest.approx(beyond_the_bowtie, rel=1e-3)
    modulated = Scanner.covering(128, 2.0, n_views=240, tube_modulation=0.5)
    thick = flat.clone()
    thick[120:] = 4.0  # the second half of the views sees a longer path
    current = modulated.incident_photons(thick)[:, middle] / incident[middle]
    assert current.mean().item() == pytest.approx(1, rel=1e-3)
    assert (current[-1] / current[0]).item() == pytest.approx(np.exp(0.5 * 4.0), rel=1e-3)


def test_counts_follow_beer_and_lambert() -> None:
    scanner = replace(SMALL, bowtie_strength=0.0, tube_modulation=0.0, photons=1000.0)
    lines = torch.full((scanner.n_views, scanner.n_channels), math.log(10))
    counts = scanner.expected_counts(lines, dose=0.5)
    torch.testing.assert_close(counts, torch.full_like(counts, 50.0), rtol=1e-6, atol=0)
    back = log_transform(counts, 0.5 * scanner.incident_photons(lines))
    torch.testing.assert_close(back, lines, rtol=1e-6, atol=0)


def test_the_variance_of_a_line_is_that_of_its_counts_logarithm() -> None:
    rng = np.random.default_rng(0)
    read = rng.poisson(400, 500_000) + rng.normal(0, 10, 500_000)
    measured = log_transform(torch.from_numpy(read), torch.tensor(400.0)).var().item()
    assert line_variance(torch.tensor(400.0), 10.0).item() == pytest.approx(1 / 400 + 100 / 400**2)
    assert measured == pytest.approx(1 / 400 + 100 / 400**2, rel=0.02)


def test_noise_free_water_reads_zero_hu() -> None:
    scanner = Scanner()
    inside = scanner.reconstruct(scanner.project(disk(scanner, 150)))[distance_mm(scanner) < 140]
    assert abs(inside.mean().item()) < 0.5
    assert inside.std().item() < 0.5


def test_a_shepp_logan_head_from_exact_lines_reads_its_densities() -> None:
    scanner = Scanner(
        matrix=256, pixel_mm=0.976, channel_mm=0.7, n_channels=400, n_views=600, cutoff_per_mm=0.512
    )
    image, lines = shepp_logan(scanner, 115)
    read = scanner.reconstruct(torch.from_numpy(lines * MU_WATER_PER_MM)).numpy() / 1000 + 1
    brain = ndimage.binary_erosion((image > 1.005) & (image < 1.045), iterations=4)
    error_hu = (read - image)[brain] * 1000
    assert abs(error_hu.mean()) < 0.5
    assert np.sqrt((error_hu**2).mean()) < 1


def test_an_edge_is_as_sharp_as_kernel_pixel_and_channel_allow() -> None:
    y, x = (axis.numpy() for axis in along_axes_mm(FINE))
    fine = (np.arange(16) - 7.5) / 16 * FINE.pixel_mm
    inside = np.mean([np.hypot(x + dx, y + dy) < 27 for dx in fine for dy in fine], axis=0)
    scan = FINE.reconstruct(FINE.project(torch.from_numpy(100 * inside - 1000))).numpy()
    step = FINE.pixel_mm / 4
    bins = np.arange(12, 42, step)
    edges = [
        ndimage.mean(image, np.digitize(np.hypot(x, y), bins), np.arange(1, len(bins)))
        for image in (scan, inside)
    ]
    after, before = (np.abs(np.fft.rfft(np.diff(edge) * np.hanning(len(bins) - 2))) for edge in edges)
    mtf, frequency = after / before * before[0] / after[0], np.fft.rfftfreq(len(bins) - 2, step)
    half = frequency[np.argmax(mtf < 0.5)]
    assert half == pytest.approx(0.5 * FINE.cutoff_per_mm, rel=0.15)
    band = frequency <= 0.9 * FINE.cutoff_per_mm
    expected = KERNELS["hann"](frequency / FINE.cutoff_per_mm) * np.sinc(0.7 * frequency) ** 2
    assert np.abs(mtf - expected)[band].max() < 0.03


def test_every_view_has_the_mass_of_the_slice() -> None:
    hu = disk(SMALL, 80)
    mass = MU_WATER_PER_MM * (hu > -500).sum().item() * SMALL.pixel_mm**2
    views = SMALL.project(hu).sum(1) * SMALL.channel_mm
    assert ((views / mass - 1).abs() < 5e-4).all()


# The filter


def test_a_sampled_ramp_reads_too_low_and_unpadded_much_more_so() -> None:
    hu = disk(SMALL, 100)
    lines = SMALL.project(hu)
    low = {}
    for name, length in (("padded", _ramp(SMALL)[1]), ("as it is", SMALL.n_channels)):
        f = torch.fft.rfftfreq(length, SMALL.channel_mm)
        x = f / SMALL.cutoff_per_mm
        ramp = f * torch.where(x <= 1, 0.5 + 0.5 * torch.cos(math.pi * x), torch.zeros(()))
        filtered = torch.fft.irfft(torch.fft.rfft(lines, length) * ramp, length)[..., : SMALL.n_channels]
        wrong = mu_to_hu(_back_projection(filtered, SMALL)) - SMALL.reconstruct(lines)
        low[name] = wrong[distance_mm(SMALL) < 80].mean().item()
    print(low)
    assert low["as it is"] < 3 * low["padded"] < -10


@pytest.mark.parametrize("n_channels", [255, 256])
def test_channels_lie_evenly_around_the_isocentre(n_channels: int) -> None:
    positions = replace(SMALL, n_channels=n_channels).channel_positions_mm
    np.testing.assert_allclose(positions, -positions[::-1], atol=1e-12)
    np.testing.assert_allclose(np.diff(positions), SMALL.channel_mm)


def test_the_filter_is_the_ramp_in_space_and_nothing_wraps_around() -> None:
    scanner = replace(SMALL, n_channels=256, kernel="ram-lak", channel_mm=2.0, cutoff_per_mm=0.25)
    lines = torch.zeros(scanner.n_channels)
    lines[0] = 1.0
    k = np.arange(scanner.n_channels)
    odd = -1 / (np.pi * np.maximum(k, 1) * 2.0) ** 2  # Kak & Slaney eq. 3.61, times the channel's width
    kernel = np.where(k == 0, 1 / (4 * 2.0**2), np.where(k % 2, odd, 0.0)) * 2.0
    np.testing.assert_allclose(scanner.filter(lines).numpy(), kernel, atol=1e-7)


def test_every_row_is_filtered_by_itself() -> None:
    lines = torch.randn(2, 3, SMALL.n_channels, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(SMALL.filter(lines)[1, 2], SMALL.filter(lines[1, 2]))


# Presets


@pytest.mark.parametrize(
    ("name", "photons", "field_mm"),
    [("abdomen", 1e6, 360), ("chest", 3e5, 360), ("pelvis", 1e6, 400), ("head", 1e6, 250)],
)
def test_a_preset_is_the_acquisition_of_its_name(name: str, photons: float, field_mm: float) -> None:
    scanner = Scanner.preset(name)
    assert (scanner.matrix, scanner.n_views, scanner.channel_mm) == (512, 720, 0.7)
    assert (scanner.photons, scanner.electronic_noise) == (photons, 5.0)
    assert scanner.pixel_mm * 512 == pytest.approx(field_mm)
    assert Scanner.preset(name, matrix=256).n_views == 360


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_has_the_same_noise_in_hu_at_both_sizes(name: str) -> None:
    sigmas = []
    for matrix in (512, 256):
        scanner = Scanner.preset(name, matrix=matrix)
        water_mm = 160.0 if name == "head" else 300.0
        arriving = scanner.photons * math.exp(-MU_WATER_PER_MM * water_mm)
        sigmas.append(theory_sigma(scanner, 1 / arriving + scanner.electronic_noise**2 / arriving**2))
    assert sigmas[1] / sigmas[0] == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("matrix", [512, 256])
def test_a_preset_covers_its_slice_to_the_corners(matrix: int) -> None:
    for name in PRESETS:
        scanner = Scanner.preset(name, matrix=matrix)
        diagonal_mm = math.sqrt(2) * matrix * scanner.pixel_mm
        assert scanner.n_channels * scanner.channel_mm >= diagonal_mm


def test_a_preset_takes_other_pixels_and_other_fields() -> None:
    scanner = Scanner.preset("head", matrix=256, pixel_mm=2.0, n_views=90, kernel="cosine")
    assert (scanner.pixel_mm, scanner.n_views, scanner.kernel) == (2.0, 90, "cosine")
    assert scanner.cutoff_per_mm == 0.25  # all that pixels of 2 mm carry
    with pytest.raises(ValueError, match="unknown preset 'knee'.*abdomen"):
        Scanner.preset("knee")


# What is warned of, and what refused


def test_padding_is_named_and_counts_as_air() -> None:
    hu = disk(SMALL, 80)
    padded = torch.where(distance_mm(SMALL) < 120, hu, -2000.0)
    with pytest.warns(PaddingWarning, match="clip the slice at -1024"):
        lines = SMALL.project(padded)
    assert torch.equal(lines, SMALL.project(hu))
    with pytest.warns(PaddingWarning):
        insert_noise(padded, scanner=SMALL, dose=0.25, seed=0)


def cut_by_the_edge() -> torch.Tensor:
    y, x = along_axes_mm(SMALL)
    return torch.where(torch.hypot(x - 60, y) < 90, 0.0, -1000.0)


def cut_by_a_round_field() -> torch.Tensor:
    return torch.where(distance_mm(SMALL) < 127, cut_by_the_edge(), -1024.0)


@pytest.mark.parametrize("cut", [cut_by_the_edge(), cut_by_a_round_field()], ids=["square", "round"])
def test_a_patient_cut_by_the_field_of_view_is_named(cut: torch.Tensor) -> None:
    with pytest.warns(TruncationWarning, match="beyond the edge of the slice"):
        SMALL.project(cut)
    with pytest.warns(TruncationWarning):
        simulate_pair(cut, scanner=SMALL, dose=0.25, seed=0)


def test_a_patient_beside_the_detector_is_named() -> None:
    with pytest.warns(TruncationWarning, match="the detector, which reaches 70 mm"):
        replace(SMALL, n_channels=100).project(disk(SMALL, 100))


def test_what_is_whole_is_not_warned_of() -> None:
    y, x = along_axes_mm(SMALL)
    table = ((y - 100).abs() < 9) & ((y - 100).abs() > 5)  # two shells around foam, from edge to edge
    lying = torch.where(table, 100.0, disk(SMALL, 90))
    seed = torch.Generator().manual_seed(0)
    close = torch.where((x.abs() < 126) & (y.abs() < 60), 0.0, -1000.0)  # one pixel of air beside it
    underside = torch.where(y > SMALL.matrix * SMALL.pixel_mm / 2 - 4, 100.0, disk(SMALL, 90)) + 0 * x
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SMALL.project(lying)
        SMALL.project(underside)
        SMALL.project(close)
        SMALL.project(torch.where(distance_mm(SMALL) < 127, lying, -1024.0))
        SMALL.project(disk(SMALL, 90) + 60 * torch.randn(128, 128, generator=seed))  # noise in air
        insert_noise(cut_by_the_edge(), scanner=SMALL, dose=0.25, seed=0)


def test_bad_slices_and_settings_are_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match="Scanner.covering"):
        SMALL.project(torch.zeros(64, 64))
    with pytest.raises(ValueError, match="NaN"):
        SMALL.project(torch.full((128, 128), torch.nan))
    with pytest.raises(ValueError, match="alias"):
        Scanner(cutoff_per_mm=2.0)
    with pytest.raises(ValueError, match="n_views must be above 0"):
        Scanner(n_views=0)
    with pytest.raises(ValueError, match="n_views must be a whole number"):
        Scanner(n_views=0.5)
    with pytest.raises(ValueError, match="electronic_noise must be 0 or above"):
        Scanner(electronic_noise=-1.0)
    with pytest.raises(ValueError, match="must be square"):
        SMALL.project(torch.zeros(128, 127))
    with pytest.raises(ValueError, match="240 views of 261 channels"):
        SMALL.reconstruct(torch.zeros(240, 183))
    with pytest.raises(ValueError, match="261 channels"):
        SMALL.filter(torch.zeros(183))
    with pytest.raises(ValueError, match="photons put through a log"):
        SMALL.reconstruct(torch.full((240, SMALL.n_channels), torch.inf))
    with pytest.raises(ValueError, match="photons must be above 0"):
        insert_noise(disk(SMALL, 50), scanner=SMALL, dose=0.5, seed=0, photons=0.0)
    with pytest.raises(ValueError, match="variance is 0 or above"):
        theory_sigma(SMALL, -1.0)
    with pytest.raises(ValueError, match="sigma_hu and water_mm must be above 0"):
        photons_for_sigma(SMALL, sigma_hu=0.0)
    with pytest.raises(ValueError, match="unknown kernel"):
        Scanner(kernel="soft")
    with pytest.raises(ValueError, match="unknown mode"):
        simulate_pair(disk(SMALL, 50), scanner=SMALL, dose=0.5, seed=0, mode="both")
