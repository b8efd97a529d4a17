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

from alden_lite.alden.pvm import PVM
from alden_lite.data import assets
from alden_lite.data.npz import read_npz, write_npz

__all__ = ["FeatureCache"]

FORMAT = 1
"""To be raised when the maps of the same weights and input would differ."""

OURS = f"{'[0-9a-f]' * 64}.npz"
"""Names of the cache's files; a person's own arrays in the same folder are none of them."""


class FeatureCache:
    """The maps of a PVM, computed once for each slice; a file a slice, the least used removed first.

    The name of a file is a hash of all that the maps depend on: the SHA-256 of the weights, taps, windows,
    mean and std, precision and kind of device, the pixels, and the versions of torch and timm. Weights that
    you change in place still go by the SHA-256 that the PVM was made with: do not cache those.

    Args:
        folder: where the files lie; `features/` in the assets' cache when None. Other files in it stay.
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
        """What `pvm(hu)` returns, without gradient and in the PVM's own precision, also within an autocast.

        Each slice is computed by itself.

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
        names = [f"tap{tap}" for tap in pvm.taps]
        stored = read_npz(file, names)
        if stored is not None:
            with suppress(OSError):
                file.touch()  # used: the last to be removed
            return [torch.from_numpy(stored[name]).to(hu.device) for name in names]
        # An autocast around the call would round what is stored under the name of exact maps.
        with torch.no_grad(), torch.autocast(hu.device.type, enabled=False):
            maps: list[Tensor] = pvm(hu)
        write_npz(file, **{name: map_.cpu().numpy() for name, map_ in zip(names, maps, strict=True)})
        self._make_room(file)
        return maps

    def _make_room(self, newest: Path) -> None:
        """Remove the files unused for longest until the rest fits; never the newest."""
        files = []
        for file in self.folder.glob(OURS):
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
        "scale": [pvm.mean.flatten().tolist(), pvm.std.flatten().tolist()],
        "bfloat16": pvm.rounds_to_bfloat16(hu.device),
        "device": hu.device.type,
        "pixels": [str(hu.dtype), list(hu.shape)],
    }
    content = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    content.update(hu.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()
