"""Pairs of low and normal dose: noise, protocols, kernels and the cache."""

from pathlib import Path

import numpy as np
import pytest
import torch

from alden_lite.data.pairs import DoseProtocol, change_kernel, make_pairs
from alden_lite.data.volume import Volume
from alden_lite.physics.dose import insert_noise, photons_matching
from alden_lite.physics.noise import own_noise_hu
from alden_lite.physics.scanner import Scanner


def phantom_volume(depth: int = 3, size: int = 96, noise: float = 10.0) -> Volume:
    """A water cylinder with noise of its own, 3 mm pixels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    inside = np.hypot(y, x) * 3 < 110
    hu = np.where(inside, rng.normal(0, noise, (depth, size, size)), -1000).astype(np.int16)
    return Volume("cylinder", hu, (3.0, 3.0, 3.0))


def test_pairs_are_made_once_and_then_read(tmp_path: Path) -> None:
    volume = phantom_volume()
    made = make_pairs(volume, [0, 2], cache=tmp_path, progress=False)
    files = list(tmp_path.iterdir())
    written = files[0].stat().st_mtime_ns
    again = make_pairs(volume, [0, 2], cache=tmp_path, progress=False)
    assert len(files) == 1
    assert files[0].stat().st_mtime_ns == written
    np.testing.assert_array_equal(made.low, again.low)
    assert len(make_pairs(volume, [0, 2], seed=1, cache=tmp_path, progress=False)) == 2
    assert len(list(tmp_path.iterdir())) == 2  # another seed, other pairs


def test_a_quarter_dose_doubles_the_noise_the_slice_already_has(tmp_path: Path) -> None:
    volume = phantom_volume(depth=1, size=128, noise=3.0)  # many photons: no electronic noise to speak of
    pairs = make_pairs(volume, [0], cache=tmp_path, progress=False)
    low, normal = (torch.from_numpy(p[0].astype(np.float32)) for p in (pairs.low, pairs.normal))
    # Noise is strongest in the middle: photons are matched over all the tissue, so is this.
    assert own_noise_hu(low, tissue=_inside()) / own_noise_hu(normal, tissue=_inside()) == pytest.approx(
        2, rel=0.1
    )
    np.testing.assert_array_equal(pairs.normal, volume.hu)


def _inside() -> torch.Tensor:
    along = (torch.arange(128) - 63.5) * 3
    return torch.hypot(along[:, None], along) < 95


def test_matching_photons_reproduce_the_noise_of_a_known_scan() -> None:
    scanner = Scanner.covering(128, 2.0, photons=2e5, electronic_noise=0.0)
    water = torch.from_numpy(phantom_volume(depth=1, size=128, noise=0).hu[0].astype(np.float32))
    scan = insert_noise(water, scanner=scanner, dose=0.5, seed=3).low  # adds what a full dose has
    assert photons_matching(scan, scanner=scanner) == pytest.approx(2e5, rel=0.2)


def test_protocol_ranges_are_drawn_from(tmp_path: Path) -> None:
    wide = DoseProtocol(dose=(0.1, 0.5), sharpness=(0.5, 2.0), average=(1, 2), repeats=4)
    pairs = make_pairs(phantom_volume(), [1], protocol=wide, cache=tmp_path, progress=False)
    assert len(set(pairs.dose)) == 4
    assert 0.1 <= pairs.dose.min() <= pairs.dose.max() <= 0.5
    assert list(pairs.slices) == [1] * 4


def test_a_sharper_kernel_raises_noise_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    hu = 50 + 10 * torch.randn(64, 64)
    sharp, soft = change_kernel(hu, sharpness=2), change_kernel(hu, sharpness=0.5)
    assert soft.std() < hu.std() < sharp.std()
    assert sharp.mean().item() == pytest.approx(hu.mean().item(), abs=1e-3)
    assert change_kernel(hu, sharpness=1) is hu


def test_thicker_slices_are_means_of_neighbours_and_neighbours_are_in_the_cache_key(tmp_path: Path) -> None:
    volume = phantom_volume()
    thick = DoseProtocol(average=(2,))
    pairs = make_pairs(volume, [1], protocol=thick, cache=tmp_path, progress=False)
    np.testing.assert_array_equal(pairs.normal[0], np.round(volume.hu[0:2].astype(np.float32).mean(0)))
    changed = volume.hu.copy()
    changed[0] += 100
    other = Volume("changed", changed, volume.spacing_mm)
    again = make_pairs(other, [1], protocol=thick, cache=tmp_path, progress=False)
    assert not np.array_equal(again.normal, pairs.normal)


def test_a_damaged_cache_file_is_made_again(tmp_path: Path) -> None:
    made = make_pairs(phantom_volume(), [0], cache=tmp_path, progress=False)
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:500])
    again = make_pairs(phantom_volume(), [0], cache=tmp_path, progress=False)
    np.testing.assert_array_equal(made.low, again.low)


def test_pairs_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    threads, found = torch.get_num_threads(), []
    for number in (1, 2):
        torch.set_num_threads(number)
        found.append(make_pairs(phantom_volume(), [0], cache=tmp_path / str(number), progress=False).sha256())
    torch.set_num_threads(threads)
    assert found[0] == found[1]


def test_more_photons_make_less_noise(tmp_path: Path) -> None:
    few, many = (
        make_pairs(
            phantom_volume(), [0], protocol=DoseProtocol(photon_factor=(f, f)), cache=tmp_path, progress=False
        )
        for f in (1.0, 4.0)
    )
    noise = [(p.low.astype(float) - p.normal).std() for p in (few, many)]
    assert 1.7 < noise[0] / noise[1] < 2.4


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outside the volume"):
        make_pairs(phantom_volume(), [7], cache=tmp_path)
    oblong = Volume("oblong", np.zeros((1, 8, 9), dtype=np.int16), (1, 1, 1))
    with pytest.raises(ValueError, match="square"):
        make_pairs(oblong, [0], cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
