"""Volumes, split, pairs and crops."""

import csv
import gzip
from itertools import pairwise
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from alden_lite.data import assets
from alden_lite.data.pairs import DoseProtocol, Pairs, change_kernel, make_pairs
from alden_lite.data.sample import GAP, SPLIT, load_sample, split_slices
from alden_lite.data.volume import Volume, load_nifti
from alden_lite.engine.crops import draw_crops
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


def test_the_sample_patient_lies_as_on_a_reading_station() -> None:
    volume = load_sample()
    assert volume.hu.shape == (133, 512, 512)
    assert volume.hu.dtype == np.int16
    assert volume.hu.min() == -1024  # padding is clipped
    assert volume.spacing_mm == pytest.approx((2.5, 0.703125, 0.703125))
    assert volume.labels is not None
    rows = list(csv.DictReader(assets.path("ct_structures").open()))
    ids = {row["structure"]: int(row["id"]) for row in rows}
    organs = ("liver", "spleen", "aorta", "vertebrae_T12", "heart")
    centre = {organ: np.argwhere(volume.labels == ids[organ]).mean(0) for organ in organs}
    assert centre["liver"][2] < centre["spleen"][2]  # the patient's right is on the left
    assert centre["vertebrae_T12"][1] > centre["aorta"][1]  # the back is below
    assert centre["liver"][0] < centre["heart"][0]  # slices run from the feet to the head
    assert 50 < volume.hu[volume.labels == ids["liver"]].mean() < 150


def test_the_split_keeps_a_gap_between_its_parts() -> None:
    blocks = sorted((first, last, part) for part, ranges in SPLIT.items() for first, last in ranges)
    for (_, end, part), (start, _, other) in pairwise(blocks):
        assert start - end >= GAP, f"{part} and {other} are neighbours"
    assert blocks[0][0] == 0
    assert blocks[-1][1] == 133
    with pytest.raises(ValueError, match="choose from"):
        split_slices("holdout")


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


def ramp_pairs() -> Pairs:
    """Two slices whose pixels say where they are; the normal slice is the low one plus 1000."""
    low = np.arange(2 * 40 * 40, dtype=np.int16).reshape(2, 40, 40)
    return Pairs(low, low + 1000, np.full(2, 0.25), np.arange(2))


def test_crops_of_both_doses_show_the_same_place() -> None:
    low, normal = draw_crops(ramp_pairs(), count=6, size=16, seed=0)
    assert low.shape == normal.shape == (6, 1, 16, 16)
    assert low.dtype == torch.float32
    assert torch.equal(normal - low, torch.full_like(low, 1000))


def test_augmented_crops_are_turned_and_mirrored_in_every_way() -> None:
    low, _ = draw_crops(ramp_pairs(), count=200, size=8, seed=0)
    # In the ramp, a step to the right is +1 and a step down +40: eight ways to lie.
    steps = {(int(c[0, 0, 1] - c[0, 0, 0]), int(c[0, 1, 0] - c[0, 0, 0])) for c in low}
    assert steps == {
        (a, b) for one, other in ((1, 40), (40, 1)) for a in (one, -one) for b in (other, -other)
    }
    plain, _ = draw_crops(ramp_pairs(), count=20, size=8, seed=0, augment=False)
    assert {int(c[0, 0, 1] - c[0, 0, 0]) for c in plain} == {1}


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


def test_crops_follow_their_seed() -> None:
    one, same, other = (draw_crops(ramp_pairs(), count=3, size=16, seed=s)[0] for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_crops_prefer_the_patient_to_the_air() -> None:
    normal = np.full((1, 128, 128), -1000, dtype=np.int16)
    normal[:, 48:80, 48:80] = 40
    pairs = Pairs(normal, normal, np.full(1, 0.25), np.zeros(1, dtype=int))
    _, crops = draw_crops(pairs, count=40, size=32, seed=0)
    assert ((crops > -500).flatten(1).float().mean(1) > 0.2).float().mean() > 0.4


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="crop of 64 x 64 does not fit"):
        draw_crops(ramp_pairs(), count=1, size=64, seed=0)
    with pytest.raises(ValueError, match="outside the volume"):
        make_pairs(phantom_volume(), [7], cache=tmp_path)
    oblong = Volume("oblong", np.zeros((1, 8, 9), dtype=np.int16), (1, 1, 1))
    with pytest.raises(ValueError, match="square"):
        make_pairs(oblong, [0], cache=tmp_path)
    with pytest.raises(ValueError, match="too little soft tissue"):
        own_noise_hu(torch.full((64, 64), -1000.0))
    assert list(tmp_path.iterdir()) == []


def write_nifti(path: Path, voxels: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 5.0, 1.0])), path)
    return path


def test_a_nifti_file_is_read_and_its_padding_clipped(tmp_path: Path) -> None:
    voxels = np.full((4, 5, 6), -2048, dtype=np.int16)
    voxels[3, 4, 5] = 77  # rightmost, frontmost, uppermost in RAS
    volume = load_nifti(write_nifti(tmp_path / "ct.nii.gz", voxels))
    assert volume.hu.shape == (6, 5, 4)
    assert volume.hu.min() == -1024
    assert volume.hu[5, 0, 0] == 77  # top slice, first row is the front, first column the patient's right
    assert volume.spacing_mm == (5.0, 2.0, 2.0)


def test_broken_nifti_files_are_refused(tmp_path: Path) -> None:
    whole = write_nifti(
        tmp_path / "ct.nii.gz", np.random.default_rng(0).integers(0, 99, (40, 40, 9)).astype(np.int16)
    )
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    flipped = tmp_path / "flipped.nii.gz"
    content = bytearray(whole.read_bytes())
    content[len(content) // 2] ^= 0xFF
    flipped.write_bytes(content)
    text = tmp_path / "text.nii.gz"
    text.write_bytes(gzip.compress(b"not a CT"))
    for broken in (cut, text, flipped):
        with pytest.raises(ValueError, match="not a complete NIfTI file"):
            load_nifti(broken)
    with pytest.raises(FileNotFoundError):
        load_nifti(tmp_path / "none.nii")
    small = write_nifti(tmp_path / "labels.nii", np.zeros((2, 2, 2), dtype=np.int16))
    with pytest.raises(ValueError, match="not the same grid"):
        load_nifti(whole, labels=small)
    with pytest.raises(ValueError, match="NaN"):
        load_nifti(write_nifti(tmp_path / "nan.nii", np.full((3, 3, 3), np.nan)))
    with pytest.raises(ValueError, match="3"):
        load_nifti(write_nifti(tmp_path / "flat.nii", np.zeros((3, 3), dtype=np.int16)))
