"""The feature cache: the same maps as the network's, computed once, and again whenever anything differs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from alden_lite.alden.pvm import PVM
from alden_lite.data.npz import write_npz
from alden_lite.explain.feature_cache import FeatureCache


class Counted(PVM):
    """A small network that counts how many slices it was shown."""

    seen = 0

    def forward(self, hu: Tensor) -> list[Tensor]:
        self.seen += len(hu)
        return super().forward(hu)


HALF = (0.5, 0.5, 0.5)


def network(*, seed: int = 0, **changes: object) -> Counted:
    torch.manual_seed(seed)
    backbone = timm.create_model(
        "vit_tiny_patch16_224", depth=3, embed_dim=24, num_heads=2, dynamic_img_size=True
    )
    options = {
        "taps": (1, 3),
        "windows": "abdomen",
        "weights_sha256": f"seed {seed}",
        "mean": HALF,
        "std": HALF,
    }
    return Counted(backbone, name="tiny", patch_size=16, **options | changes)


def slices(count: int = 3) -> Tensor:
    return 50 + 40 * torch.randn(count, 1, 32, 48, generator=torch.Generator().manual_seed(1))


def test_maps_are_the_networks_own_and_are_computed_once(tmp_path: Path) -> None:
    cache, pvm, hu = FeatureCache(tmp_path), network(), slices()
    first, second = cache.maps(pvm, hu), cache.maps(pvm, hu)
    assert pvm.seen == 3
    for of_network, made, read in zip(pvm(hu), first, second, strict=True):
        assert made.shape == (3, 24, 2, 3)
        torch.testing.assert_close(made, of_network)
        assert torch.equal(read, made)


def test_what_was_read_can_be_learned_from(tmp_path: Path) -> None:
    cache, pvm = FeatureCache(tmp_path), network()
    for maps in (cache.maps(pvm, slices(1)), cache.maps(pvm, slices(1))):
        weight = torch.ones(24, requires_grad=True)
        (maps[0] * weight[:, None, None]).sum().backward()  # fails on tensors of inference mode
        assert weight.grad is not None and weight.grad.abs().sum() > 0


def test_a_slice_is_found_again_in_another_batch(tmp_path: Path) -> None:
    cache, pvm, hu = FeatureCache(tmp_path), network(), slices()
    cache.maps(pvm, hu)
    cache.maps(pvm, hu[[2, 0]])
    assert pvm.seen == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"taps": (1, 2)},
        {"windows": "lung"},
        {"windows": ["lung", "abdomen", "bone"]},
        {"precision": "bfloat16"},
        {"mean": (0.5, 0.4, 0.5)},
        {"std": (0.5, 0.5, 0.4)},
    ],
    ids=str,
)
def test_another_network_is_another_entry(tmp_path: Path, changes: dict[str, object]) -> None:
    cache, hu = FeatureCache(tmp_path), slices(1)
    cache.maps(network(), hu)
    other = network(**changes)  # type: ignore[arg-type]
    cache.maps(other, hu)
    assert other.seen == 1 and len(list(tmp_path.glob("*.npz"))) == 2


def test_another_pixel_or_version_is_another_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, pvm, hu = FeatureCache(tmp_path), network(), slices(1)
    cache.maps(pvm, hu)
    hu[0, 0, 5, 7] += 1
    cache.maps(pvm, hu)
    cache.maps(pvm, hu.reshape(1, 1, 48, 32))  # the same bytes, another picture
    assert pvm.seen == 3
    monkeypatch.setattr("alden_lite.explain.feature_cache.version", lambda package: "0")
    cache.maps(pvm, hu)
    assert pvm.seen == 4
    monkeypatch.setattr("torch.__version__", "0")
    cache.maps(pvm, hu)
    assert pvm.seen == 5


def test_an_autocast_around_the_call_does_not_round_what_is_kept(tmp_path: Path) -> None:
    cache, pvm, hu = FeatureCache(tmp_path), network(), slices(1)
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(pvm(hu)[0], cache.maps(pvm, hu)[0])
    torch.testing.assert_close(cache.maps(pvm, hu), pvm(hu))


def test_a_file_without_one_of_the_taps_is_made_again(tmp_path: Path) -> None:
    cache, pvm, hu = FeatureCache(tmp_path), network(), slices(1)
    right = cache.maps(pvm, hu)
    (file,) = tmp_path.glob("*.npz")
    write_npz(file, tap1=right[0].numpy())
    assert torch.equal(cache.maps(pvm, hu)[1], right[1])


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    cache, pvm, hu = FeatureCache(tmp_path), network(), slices(1)
    right = cache.maps(pvm, hu)
    (file,) = tmp_path.glob("*.npz")
    content = bytearray(file.read_bytes())
    content[len(content) // 4] ^= 0xFF
    file.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    assert torch.equal(cache.maps(pvm, hu)[0], right[0])
    assert pvm.seen == 2
    cache.maps(pvm, hu)
    assert pvm.seen == 2  # it was written anew


def test_the_least_used_goes_first_when_room_runs_out(tmp_path: Path) -> None:
    roomy, pvm, hu = FeatureCache(tmp_path), network(), slices(3)
    roomy.maps(pvm, hu[:2])
    size = max(file.stat().st_size for file in tmp_path.glob("*.npz"))
    for number, file in enumerate(sorted(tmp_path.glob("*.npz"))):
        os.utime(file, (number, number))
    roomy.maps(pvm, hu[:1])  # used just now
    FeatureCache(tmp_path, limit_gb=2.5 * size / 1e9).maps(pvm, hu[2:])
    before = pvm.seen
    roomy.maps(pvm, hu[[0, 2]])
    assert pvm.seen == before
    roomy.maps(pvm, hu[1:2])
    assert pvm.seen == before + 1


def test_a_limit_too_small_keeps_the_newest(tmp_path: Path) -> None:
    cache, pvm = FeatureCache(tmp_path, limit_gb=1e-9), network()
    cache.maps(pvm, slices(2))
    assert len(list(tmp_path.iterdir())) == 1


def test_files_that_are_not_the_caches_own_are_never_removed(tmp_path: Path) -> None:
    names = ("scans.npz", f"{'0' * 63}x.npz")
    for name in names:
        write_npz(tmp_path / name, hu=np.zeros(9))
        os.utime(tmp_path / name, (0, 0))
    FeatureCache(tmp_path, limit_gb=1e-9).maps(network(), slices(2))
    assert all((tmp_path / name).exists() for name in names)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_run_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("alden_lite.data.npz.os.replace", full)
    with pytest.raises(OSError, match="no space"):
        FeatureCache(tmp_path).maps(network(), slices(1))
    assert list(tmp_path.iterdir()) == []


def test_a_limit_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="limit_gb must be above 0"):
        FeatureCache(tmp_path, limit_gb=0)


def test_by_default_it_lies_in_the_assets_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALDEN_LITE_CACHE", str(tmp_path))
    assert FeatureCache().folder == tmp_path / "features"
