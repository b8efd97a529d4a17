"""Feature maps kept on disk: a PVM is frozen, so a slice's maps never change (ch. 04)."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from alden_lite import assets
from alden_lite.npz import read_npz, write_npz
from alden_lite.pvm import PVM

__all__ = ["FeatureCache"]

FORMAT = 1
"""To be raised when the maps of the same weights and input would differ."""


class FeatureCache:
    """The maps of a PVM, computed once for each slice; a file a slice, the least used removed first.

    The name of a file is a hash of all that the maps depend on: the SHA-256 of the weights, taps, windows,
    precision and kind of device, the pixels, and the versions of torch and timm.

    Args:
        folder: where the files lie; `features/` in the assets' cache when None.
        limit_gb: what all files may take together, above 0. A slice of 504 x 504 takes 2 MB a tap.

    Raises:
        ValueError: if the limit is not above 0.
    """

    def __init__(self, folder: str | Path | None = None, *, limit_gb: float = 2.0) -> None:
        if not limit_gb > 0:
            raise ValueError(f"limit_gb must be above 0, got {limit_gb}")
        self.folder = assets.cache_folder() / "features" if folder is None else Path(folder)
        self.limit_bytes = int(limit_gb * 1e9)

    def maps(self, pvm: PVM, hu: Tensor, *, progress: bool = False) -> list[Tensor]:
        """What `pvm(hu)` returns, without gradient; each slice by itself.

        Args:
            pvm: which network.
            hu: (B, 1, H, W), HU, floating point, B at least 1.
            progress: show a bar over the slices.

        Raises:
            ValueError: as the PVM does.
        """
        bar = tqdm(
            hu.split(1), desc=f"features of {pvm.name}", unit="slice", disable=not progress, leave=False
        )
        slices = [self._of_slice(pvm, one) for one in bar]
        return [torch.cat(maps) for maps in zip(*slices, strict=True)]

    def _of_slice(self, pvm: PVM, hu: Tensor) -> list[Tensor]:
        file = self.folder / f"{_key(pvm, hu)}.npz"
        stored = read_npz(file)
        if stored is not None:
            with suppress(OSError):
                file.touch()  # used: the last to be removed
            return [torch.from_numpy(stored[f"tap{tap}"]).to(hu.device) for tap in pvm.taps]
        with torch.no_grad():
            maps: list[Tensor] = pvm(hu)
        write_npz(file, **{f"tap{tap}": map_.cpu().numpy() for tap, map_ in zip(pvm.taps, maps, strict=True)})
        self._make_room(file)
        return maps

    def _make_room(self, newest: Path) -> None:
        """Remove the files unused for longest until the rest fits; never the newest."""
        files = []
        for file in self.folder.glob("*.npz"):
            with suppress(OSError):  # another process may have removed it
                files.append((file.stat().st_mtime_ns, file.stat().st_size, file))
        total = sum(size for _, size, _ in files)
        for _, size, file in sorted(files):
            if total <= self.limit_bytes or file == newest:
                break
            with suppress(OSError):
                file.unlink()
            total -= size


def _key(pvm: PVM, hu: Tensor) -> str:
    about = {
        "format": FORMAT,
        "torch": torch.__version__,
        "timm": version("timm"),
        "weights": pvm.weights_sha256,
        "name": pvm.name,
        "taps": pvm.taps,
        "windows": [(shown.level, shown.width) for shown in pvm.windows],
        "bfloat16": pvm.rounds_to_bfloat16(hu.device),
        "device": hu.device.type,
        "pixels": [str(hu.dtype), list(hu.shape)],
    }
    content = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    content.update(hu.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()
