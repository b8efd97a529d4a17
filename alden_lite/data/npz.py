"""Arrays on disk, whole or not at all: what was computed once and can be computed again."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

__all__ = ["read_npz", "write_npz"]


def read_npz(file: Path, names: Sequence[str]) -> dict[str, np.ndarray] | None:
    """These arrays of an .npz file; None if there is no file, one is missing, or damage."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile):  # by where it is
        return None


def write_npz(file: Path, **arrays: np.ndarray) -> None:
    """Write beside the final name, then rename: a cut-off run leaves no half file behind."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=".npz.part", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            np.savez(out, **arrays)  # type: ignore[arg-type]
        os.replace(name, file)
    finally:
        Path(name).unlink(missing_ok=True)
