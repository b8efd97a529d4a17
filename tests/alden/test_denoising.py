"""The public entrance: a slice or a volume in HU, in and out."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

import alden_lite
from alden_lite.alden.denoising import denoise, load_generator
from alden_lite.alden.generator import UNet
from alden_lite.commands.train import _recipe_with
from alden_lite.data.pairs import make_pairs
from alden_lite.data.sample import load_sample, split_slices
from alden_lite.engine.checkpoint import CheckpointError, read_card, weights_path, write_weights
from alden_lite.evaluation.metrics import psnr_db

SHIPPED = ("alden", "l1", "gan", "aad", "scl")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_generator_denoises_a_slice_it_never_saw(name: str, tmp_path: Path) -> None:
    pairs = make_pairs(load_sample(), split_slices("test")[5:6], cache=tmp_path, progress=False)
    low, normal = (torch.from_numpy(hu[0].astype(np.float32)) for hu in (pairs.low, pairs.normal))
    gain = psnr_db(alden_lite.denoise(low, name), normal) - psnr_db(low, normal)
    assert gain > 3  # dB


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_generator_says_how_it_was_made(name: str) -> None:
    card = read_card(weights_path(name))
    assert card["recipe"]["generator"] == "unet"
    assert "LIDC-IDRI-0001 training slabs" in card["data"]["volumes"]
    assert "clinical" in card["notice"]
    assert weights_path(name).stat().st_size < 4e6


@pytest.mark.parametrize("name", SHIPPED)
def test_the_makefile_makes_what_is_shipped(name: str) -> None:
    card = read_card(weights_path(name))
    makefile = (Path(__file__).parents[2] / "Makefile").read_text().replace("\\\n", " ")
    further = re.search(r"FURTHER := (.*)", makefile)[1]  # type: ignore[index]
    own = re.search(rf"{name}\.safetensors\s+--set \$\(FURTHER\) (.*)", makefile)[1]  # type: ignore[index]
    told = asdict(_recipe_with(f"{further} {own}".split()))
    assert card["recipe"].pop("r1_weight") == 0.0, "a loss that there was when these were trained"
    assert card["recipe"] == json.loads(json.dumps(told))
    assert card["warm_start"]["card"]["steps"] == 24_000
    assert f"steps={card['warm_start']['card']['steps']}" in makefile


def test_all_shipped_generators_have_one_size_and_start_and_as_many_steps() -> None:
    cards = {name: read_card(weights_path(name)) for name in SHIPPED}
    assert len({(c["steps"], c["recipe"]["seed"], c["warm_start"]["sha256"]) for c in cards.values()}) == 1
    sizes = {sum(p.numel() for p in load_generator(name).parameters()) for name in SHIPPED}
    assert len(sizes) == 1


def test_half_a_file_gives_nearly_the_same_answer(tmp_path: Path) -> None:
    network = load_generator("l1")
    half = write_weights(tmp_path / "half.safetensors", network, read_card(weights_path("l1")), half=True)
    assert half.stat().st_size < 0.55 * weights_path("l1").stat().st_size
    hu = 60 * torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    difference = denoise(hu, half) - denoise(hu, network)
    assert 0 < difference.square().mean().sqrt() < 0.1  # HU


def test_what_goes_in_comes_out_in_kind_and_shape(halving_network: torch.nn.Module) -> None:
    slice_hu = np.arange(-60, 60, dtype=np.int16).reshape(10, 12)
    out = denoise(slice_hu, halving_network)
    assert isinstance(out, np.ndarray)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, slice_hu / 2, atol=1e-4)
    volume = torch.from_numpy(np.stack([slice_hu, 2 * slice_hu, slice_hu]))
    quiet = denoise(volume, halving_network, progress=False)
    assert torch.is_tensor(quiet)
    assert quiet.shape == volume.shape
    torch.testing.assert_close(quiet, volume / 2, atol=1e-4, rtol=0, check_dtype=False)


def test_a_result_can_be_written_to_and_learned_from(halving_network: torch.nn.Module) -> None:
    quiet = denoise(torch.zeros(8, 8), halving_network)
    quiet[0] = 5.0
    weight = torch.ones(1, requires_grad=True)
    (quiet * weight).sum().backward()
    assert weight.grad is not None


def test_big_endian_numbers_lists_and_paths_are_understood() -> None:
    hu = np.zeros((24, 24), dtype=">i2")
    np.testing.assert_array_equal(denoise(hu, "l1"), denoise(hu.astype(np.float32), weights_path("l1")))


def test_a_volume_is_its_slices(halving_network: torch.nn.Module) -> None:
    volume = np.random.default_rng(0).normal(0, 50, (3, 17, 23))
    whole = denoise(volume, "l1", progress=False)
    np.testing.assert_array_equal(whole[1], denoise(volume[1], "l1"))


def test_padding_outside_the_field_of_view_stays_as_it_came(halving_network: torch.nn.Module) -> None:
    hu = np.full((8, 8), -2048.0)
    hu[2:6, 2:6] = -1000
    out = denoise(hu, halving_network)
    assert (out[0] == -2048).all()
    np.testing.assert_allclose(out[2:6, 2:6], -500)


def test_bad_input_is_refused(halving_network: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="NaN"):
        denoise(np.full((8, 8), np.nan), halving_network)
    for shape in ((8,), (1, 1, 8, 8), (0, 8, 8)):
        with pytest.raises(ValueError, match="expected a slice"):
            denoise(np.zeros(shape), halving_network)
    with pytest.raises(CheckpointError, match="choose from"):
        denoise(np.zeros((8, 8)), "alden3")


def test_a_weight_file_without_a_card_is_refused(tmp_path: Path) -> None:
    for number, card in enumerate(({}, {"recipe": {}}, {"recipe": {"generator": "vgg"}}, {"recipe": "unet"})):
        file = write_weights(tmp_path / f"{number}.safetensors", UNet(), card)
        with pytest.raises(CheckpointError, match="no card"):
            load_generator(file)


def test_bfloat16_gives_nearly_the_same_hu_as_float32() -> None:
    noisy = 40 + 30 * torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    exact, rough = (denoise(noisy, "l1", precision=name) for name in ("float32", "bfloat16"))
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).square().mean().sqrt() < 0.5
    with pytest.raises(ValueError, match="choose float32 or bfloat16"):
        denoise(noisy, "l1", precision="half")
