"""Lower doses: inserted noise against direct low-dose scans, and what few photons do to the logarithm."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_slices import SMALL, disk, distance_mm, hips, noise
from scipy import ndimage

from alden_lite.physics.dose import insert_noise, log_transform, simulate_pair
from alden_lite.physics.hounsfield import MU_WATER_PER_MM
from alden_lite.physics.scanner import Scanner

# Few photons


def test_the_logarithm_has_a_floor_of_one_photon() -> None:
    read = torch.tensor([-7.0, 0.0, 0.5, 1.0, 100.0])
    expected = torch.tensor([100.0, 100.0, 100.0, 100.0, 1.0]).log()
    torch.testing.assert_close(log_transform(read, torch.full((5,), 100.0)), expected)


@pytest.mark.parametrize("photons", [20, 50, 200])
def test_the_logarithm_is_biased_by_half_the_inverse_of_the_counts(photons: int) -> None:
    counts = torch.from_numpy(np.random.default_rng(0).poisson(photons, 2_000_000)).double()
    bias = log_transform(counts, torch.tensor(float(photons))).double().mean().item()
    second_order = 1 / (2 * photons) + 5 / (12 * photons**2)
    assert bias == pytest.approx(second_order, rel=0.05)


def test_slices_are_not_biased_while_more_than_300_photons_arrive() -> None:
    hu, centre = disk(SMALL, 100), distance_mm(SMALL) < 80
    through_the_middle = math.exp(-200 * MU_WATER_PER_MM)
    flat = replace(SMALL, tube_modulation=0.0, bowtie_strength=0.0, electronic_noise=0.0)
    biases = [
        noise(replace(flat, photons=arriving / through_the_middle), hu, dose=1.0, scans=16)[:, centre].mean()
        for arriving in (300, 10)
    ]
    assert abs(biases[0]) < 0.5
    assert biases[1] > 5


def test_below_that_slices_are_biased_as_their_lines_are() -> None:
    hu, centre = disk(SMALL, 100), distance_mm(SMALL) < 80
    scanner = replace(SMALL, photons=50 / math.exp(-200 * MU_WATER_PER_MM), electronic_noise=0.0)
    lines = scanner.project(hu)
    counts = scanner.expected_counts(lines)  # 50 and more
    expected = scanner.reconstruct(lines + (1 / (2 * counts) + 5 / (12 * counts**2)).float())
    bias = noise(scanner, hu, dose=1.0, scans=64)[:, centre].mean().item()
    predicted = (expected - scanner.reconstruct(lines))[centre].mean().item()
    assert bias == pytest.approx(predicted, rel=0.15)
    assert predicted > 0.5


def test_electronic_noise_is_inserted_as_the_formula_says() -> None:
    hu = disk(SMALL, 100)
    scanner = Scanner.covering(128, 2.0, n_views=240, photons=2e3, bowtie_strength=0.0, tube_modulation=0.0)
    quiet = replace(scanner, electronic_noise=0.0)
    with_it, without = (insert_noise(hu, scanner=s, dose=0.25, seed=0).low - hu for s in (scanner, quiet))
    counts = 2e3 * np.exp(-200 * MU_WATER_PER_MM)  # the ray through the middle
    expected = np.sqrt(1 + (1 + 0.25) / 0.25 * 25 / counts)
    centre = distance_mm(SMALL) < 20
    assert (with_it[centre].std() / without[centre].std()).item() == pytest.approx(expected, rel=0.05)


# Noise inserted and scanned


@pytest.mark.parametrize("dose", [0.25, 0.1])
@pytest.mark.parametrize("mode", ["nested", "independent"])
def test_pairs_are_correlated_as_their_mode_says(mode: str, dose: float) -> None:
    expected, within = (math.sqrt(dose), 0.03) if mode == "nested" else (0.0, 0.02)
    hu, centre = disk(SMALL, 100), distance_mm(SMALL) < 80
    scanner = replace(SMALL, electronic_noise=0.0)
    pairs = [simulate_pair(hu, scanner=scanner, dose=dose, seed=seed, mode=mode) for seed in range(12)]
    low = torch.cat([(p.low - p.clean)[centre] for p in pairs])
    normal = torch.cat([(p.normal - p.clean)[centre] for p in pairs])
    assert np.corrcoef(low, normal)[0, 1] == pytest.approx(expected, abs=within)


def test_inserted_noise_has_the_strength_of_a_direct_low_dose_scan() -> None:
    clean, centre = disk(SMALL, 100), distance_mm(SMALL) < 60
    direct, inserted = [], []
    for seed in range(6):
        pair = simulate_pair(clean, scanner=SMALL, dose=0.25, seed=seed)
        direct.append((pair.low - pair.clean)[centre])
        low = insert_noise(pair.normal, scanner=SMALL, dose=0.25, seed=100 + seed).low
        inserted.append((low - pair.clean)[centre])
    ratio = torch.cat(inserted).std() / torch.cat(direct).std()
    assert ratio.item() == pytest.approx(1, abs=0.03)
    assert abs(torch.cat(inserted).mean() - torch.cat(direct).mean()) < 0.3


def test_inserted_noise_lies_where_that_of_a_direct_scan_lies() -> None:
    scanner, clean = replace(SMALL, photons=3e5), hips(SMALL)
    pairs = [simulate_pair(clean, scanner=scanner, dose=0.25, seed=seed) for seed in range(60)]
    inserted = [
        insert_noise(pair.normal, scanner=scanner, dose=0.25, seed=100 + k).low
        for k, pair in enumerate(pairs)
    ]
    maps = [torch.stack(scans).std(0) for scans in (inserted, [pair.low for pair in pairs])]
    smooth = [ndimage.gaussian_filter(spread.numpy(), 3) for spread in maps]
    inside = ndimage.binary_erosion((clean > -500).numpy(), iterations=4)
    ratio = (smooth[0] / smooth[1])[inside]
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    assert ratio.std() < 0.05


def test_where_few_photons_arrive_inserted_noise_falls_short_of_a_scan() -> None:
    hu, centre = disk(SMALL, 100), distance_mm(SMALL) < 80
    flat = replace(SMALL, tube_modulation=0.0, bowtie_strength=0.0)
    for arriving, share, within in ((79, 0.98, 0.03), (32, 0.93, 0.03), (16, 0.75, 0.06)):
        low = replace(flat, photons=arriving / 0.01 / math.exp(-200 * MU_WATER_PER_MM))
        direct = noise(low, hu, dose=0.01, scans=16)[:, centre]
        added = [insert_noise(hu, scanner=low, dose=0.01, seed=seed).low - hu for seed in range(16)]
        inserted = torch.stack(added)[:, centre]
        full_dose = math.sqrt(1 - 0.01)  # insertion adds what the full dose lacks
        assert inserted.std() / full_dose / direct.std() == pytest.approx(share, abs=within), arriving


def test_a_seed_gives_the_noise_that_shipped_pairs_were_made_with() -> None:
    hu = disk(SMALL, 100)
    inserted = insert_noise(hu, scanner=SMALL, dose=0.25, seed=0).low[64, 20:120:33]
    pair = simulate_pair(hu, scanner=SMALL, dose=0.25, seed=0)
    for values, recorded in (
        (inserted, [-2.80, 4.37, 0.20, -1000.28]),
        (pair.low[64, 20:120:33], [-6.33, -10.65, -1.17, -999.50]),
        (pair.normal[64, 20:120:33], [-1.16, -2.84, 3.16, -999.60]),
    ):
        np.testing.assert_allclose(values.numpy(), recorded, atol=0.05)


def test_photons_of_a_slice_replace_those_of_the_scanner() -> None:
    hu = disk(SMALL, 100)
    given = insert_noise(hu, scanner=SMALL, dose=0.25, seed=0, photons=2e4).low
    own = insert_noise(hu, scanner=replace(SMALL, photons=2e4), dose=0.25, seed=0).low
    torch.testing.assert_close(given, own, atol=0.01, rtol=0)


def test_full_dose_insertion_changes_nothing() -> None:
    hu = disk(SMALL, 100)
    pair = insert_noise(hu, scanner=SMALL, dose=1.0, seed=0)
    torch.testing.assert_close(pair.low, hu, atol=0.01, rtol=0)


def test_the_same_seed_gives_the_same_scan() -> None:
    hu = disk(SMALL, 100)
    one, same, other = (insert_noise(hu, scanner=SMALL, dose=0.25, seed=s).low for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_clean_slice_is_a_scan_too_not_the_phantom() -> None:
    hu = hips(SMALL)
    pair = simulate_pair(hu, scanner=SMALL, dose=0.25, seed=0)
    assert pair.clean is not None
    torch.testing.assert_close(pair.clean, SMALL.reconstruct(SMALL.project(hu)))
    assert (pair.clean - hu)[hu > -500].square().mean().sqrt() > 20  # what the scanner's resolution changes


@pytest.mark.parametrize("dose", [0.0, -0.1, 1.5, float("nan")])
def test_a_dose_that_is_no_fraction_is_refused(dose: float) -> None:
    with pytest.raises(ValueError, match="dose is a fraction"):
        insert_noise(disk(SMALL, 50), scanner=SMALL, dose=dose, seed=0)
    with pytest.raises(ValueError, match="dose is a fraction"):
        SMALL.noise_map(disk(SMALL, 50), dose=dose)
