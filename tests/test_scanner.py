"""The scanner against closed forms and scikit-image. Small matrices where the physics allows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.transform import radon

from alden_lite.hounsfield import MU_WATER_PER_MM
from alden_lite.scanner import Scanner, insert_noise, simulate_pair

SMALL = Scanner.covering(128, 2.0, n_views=240)


def disk(scanner: Scanner, radius_mm: float) -> torch.Tensor:
    """A cylinder of water in air, (N, N) HU."""
    return torch.where(distance_mm(scanner) < radius_mm, 0.0, -1000.0)


def distance_mm(scanner: Scanner) -> torch.Tensor:
    along = (torch.arange(scanner.matrix) - (scanner.matrix - 1) / 2) * scanner.pixel_mm
    return torch.hypot(along[:, None], along)


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


def test_electronic_noise_is_inserted_as_the_formula_says() -> None:
    hu = disk(SMALL, 100)
    scanner = Scanner.covering(128, 2.0, n_views=240, photons=2e3, bowtie_strength=0.0, tube_modulation=0.0)
    quiet = replace(scanner, electronic_noise=0.0)
    with_it, without = (insert_noise(hu, scanner=s, dose=0.25, seed=0).low - hu for s in (scanner, quiet))
    counts = 2e3 * np.exp(-200 * MU_WATER_PER_MM)  # the ray through the middle
    expected = np.sqrt(1 + (1 + 0.25) / 0.25 * 25 / counts)
    centre = distance_mm(SMALL) < 20
    assert (with_it[centre].std() / without[centre].std()).item() == pytest.approx(expected, rel=0.05)


def test_noise_free_water_reads_zero_hu() -> None:
    scanner = Scanner()
    inside = scanner.reconstruct(scanner.project(disk(scanner, 150)))[distance_mm(scanner) < 140]
    assert abs(inside.mean().item()) < 0.5
    assert inside.std().item() < 0.5


def test_every_view_has_the_mass_of_the_slice() -> None:
    hu = disk(SMALL, 80)
    mass = MU_WATER_PER_MM * (hu > -500).sum().item() * SMALL.pixel_mm**2
    views = SMALL.project(hu).sum(1) * SMALL.channel_mm
    assert ((views / mass - 1).abs() < 5e-4).all()


def test_noise_grows_with_the_inverse_root_of_dose() -> None:
    hu = disk(SMALL, 100)
    centre = distance_mm(SMALL) < 40
    scanner = Scanner.covering(128, 2.0, n_views=240, electronic_noise=0.0)
    spreads = []
    for dose in (1.0, 0.25, 0.05):
        noise = [
            simulate_pair(hu, scanner=scanner, dose=dose, seed=seed, mode="independent") for seed in range(4)
        ]
        spreads.append(torch.stack([(p.low - p.clean)[centre] for p in noise]).std().item() * dose**0.5)
    assert max(spreads) / min(spreads) < 1.06


@pytest.mark.parametrize(("mode", "expected"), [("nested", 0.5), ("independent", 0.0)])
def test_pairs_are_correlated_as_their_mode_says(mode: str, expected: float) -> None:
    hu, centre = disk(SMALL, 100), distance_mm(SMALL) < 60
    scanner = Scanner.covering(128, 2.0, n_views=240, electronic_noise=0.0)
    pairs = [simulate_pair(hu, scanner=scanner, dose=0.25, seed=seed, mode=mode) for seed in range(4)]
    low = torch.cat([(p.low - p.clean)[centre] for p in pairs])
    normal = torch.cat([(p.normal - p.clean)[centre] for p in pairs])
    assert np.corrcoef(low, normal)[0, 1] == pytest.approx(expected, abs=0.04)


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


def test_full_dose_insertion_changes_nothing() -> None:
    hu = disk(SMALL, 100)
    pair = insert_noise(hu, scanner=SMALL, dose=1.0, seed=0)
    torch.testing.assert_close(pair.low, hu, atol=0.01, rtol=0)


def test_the_same_seed_gives_the_same_scan() -> None:
    hu = disk(SMALL, 100)
    one, same, other = (insert_noise(hu, scanner=SMALL, dose=0.25, seed=s).low for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_softer_kernel_is_quieter() -> None:
    hu = disk(SMALL, 100)
    noise = {
        kernel: (
            insert_noise(hu, scanner=Scanner.covering(128, 2.0, kernel=kernel), dose=0.25, seed=0).low - hu
        ).std()
        for kernel in ("hann", "cosine", "ram-lak")
    }
    assert noise["hann"] < noise["cosine"] < noise["ram-lak"]


@pytest.mark.parametrize("dose", [0.0, -0.1, 1.5, float("nan")])
def test_a_dose_that_is_no_fraction_is_refused(dose: float) -> None:
    with pytest.raises(ValueError, match="dose is a fraction"):
        insert_noise(disk(SMALL, 50), scanner=SMALL, dose=dose, seed=0)


def test_bad_slices_and_settings_are_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match="Scanner.covering"):
        SMALL.project(torch.zeros(64, 64))
    with pytest.raises(ValueError, match="NaN"):
        SMALL.project(torch.full((128, 128), torch.nan))
    with pytest.raises(ValueError, match="alias"):
        Scanner(cutoff_per_mm=2.0)
    with pytest.raises(ValueError, match="n_views must be above 0"):
        Scanner(n_views=0)
    with pytest.raises(ValueError, match="unknown kernel"):
        Scanner(kernel="soft")
    with pytest.raises(ValueError, match="unknown mode"):
        simulate_pair(disk(SMALL, 50), scanner=SMALL, dose=0.5, seed=0, mode="both")
