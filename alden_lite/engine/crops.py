"""Batches of crops by step number, and a bank that keeps their features. Taught in chapter 08.

The features of the normal-dose and the low-dose crop never change when the network that sees them is frozen.
So they are computed once for a bank of crops, which is reused for some passes and then drawn anew: what makes
a step of ALDEN affordable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alden_lite.data.pairs import Pairs
from alden_lite.physics.hounsfield import normalise

__all__ = ["Batch", "CropBank", "draw_crops", "purpose_seed"]


def draw_crops(
    pairs: Pairs,
    *,
    count: int,
    size: int,
    seed: int | Sequence[int],
    augment: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops of the same places in low- and normal-dose slices, turned and mirrored alike.

    Crops are drawn uniformly, but one that is mostly air is drawn again (up to ten times).

    Args:
        pairs: paired slices.
        count: number of crops B.
        size: side S in pixels.
        seed: same seed, same crops.
        augment: quarter turns and mirror images.

    Returns:
        `(low, normal)`, each (B, 1, S, S) float32 in HU.

    Raises:
        ValueError: if a crop does not fit into a slice, or there are no slices.
    """
    if len(pairs) == 0:
        raise ValueError("no slices to draw crops from")
    height, width = pairs.low.shape[1:]
    if not 0 < size <= min(height, width):
        raise ValueError(f"a crop of {size} x {size} does not fit into a slice of {height} x {width}")
    rng = np.random.default_rng(seed)
    crops = np.stack([_one_crop(pairs, size, rng, augment) for _ in range(count)])  # (B, 2, S, S)
    low, normal = torch.from_numpy(crops.astype(np.float32)).unsqueeze(2).unbind(1)
    return low, normal


def _one_crop(pairs: Pairs, size: int, rng: np.random.Generator, augment: bool) -> np.ndarray:
    height, width = pairs.low.shape[1:]
    for _ in range(10):
        n, y, x = (int(rng.integers(end)) for end in (len(pairs), height - size + 1, width - size + 1))
        place = (n, slice(y, y + size), slice(x, x + size))
        if (pairs.normal[place][::4, ::4] > -500).mean() > 0.25:
            break
    both = np.stack([pairs.low[place], pairs.normal[place]])
    if augment:
        both = np.rot90(both, int(rng.integers(4)), axes=(1, 2))
        both = both[:, :, ::-1] if rng.integers(2) else both
    return both


Features = Callable[[torch.Tensor], Mapping[int, torch.Tensor]]
"""HU (B, 1, S, S) to maps (B, C, h, w) by tap."""


@dataclass(frozen=True)
class Batch:
    """What a step sees: `low`, `normal` (B, 1, S, S) on the networks' scale, and the PVM's maps (B, C, h, w)
    of both by tap; `normal_maps` for every tap, `low_maps` for the contrastive ones."""

    low: torch.Tensor
    normal: torch.Tensor
    normal_maps: Mapping[int, torch.Tensor]
    low_maps: Mapping[int, torch.Tensor]

    def take(self, index: torch.Tensor) -> Batch:
        """Some of the crops, (N,) indices."""
        return Batch(
            self.low[index],
            self.normal[index],
            {tap: maps[index] for tap, maps in self.normal_maps.items()},
            {tap: maps[index] for tap, maps in self.low_maps.items()},
        )


class CropBank:
    """Batches by step number: a function of seed and step alone, so a resumed run sees the same ones.

    A bank is `size / batch` rows of crops; each pass shuffles every column. A process owns columns, so that
    several processes together see exactly the batches of one.

    Args:
        pairs: slices to draw from.
        crop: side S in pixels.
        size: crops in a bank, a multiple of `batch`.
        batch: crops a step, over all processes.
        reuse: passes over a bank before another is drawn.
        seed: same seed, same batches.
        normal_features, low_features: maps to keep with the crops, or None.
        rank, processes: which of how many processes this is.
        device: where the bank lives.
    """

    def __init__(
        self,
        pairs: Pairs,
        *,
        crop: int,
        size: int,
        batch: int,
        reuse: int,
        seed: int,
        normal_features: Features | None = None,
        low_features: Features | None = None,
        rank: int = 0,
        processes: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.pairs, self.crop, self.size, self.reuse, self.seed = pairs, crop, size, reuse, seed
        self.rows, self.batch = size // batch, batch
        self.columns = range(rank * batch // processes, (rank + 1) * batch // processes)
        self.normal_features, self.low_features, self.device = normal_features, low_features, device
        self._number, self._crops = -1, Batch(torch.empty(0), torch.empty(0), {}, {})

    def at(self, step: int) -> Batch:
        """This process's part of the batch of a step."""
        number, place = divmod(step, self.rows * self.reuse)
        one_pass, row = divmod(place, self.rows)
        shuffle = torch.Generator().manual_seed(purpose_seed(self.seed, "order", number, one_pass))
        order = torch.stack([torch.randperm(self.rows, generator=shuffle) for _ in range(self.batch)], dim=1)
        mine = order[row, self.columns.start : self.columns.stop]  # a row for each of my columns
        index = mine * len(self.columns) + torch.arange(len(self.columns))
        return self.crops(number).take(index.to(self.device))

    def crops(self, number: int) -> Batch:
        """All of this process's crops of a bank, row by row; drawn when first asked for."""
        if number != self._number:
            drawn = draw_crops(
                self.pairs, count=self.size, size=self.crop, seed=purpose_seed(self.seed, "crops", number)
            )
            low, normal = (self._mine(hu).to(self.device) for hu in drawn)
            self._crops = Batch(
                normalise(low),
                normalise(normal),
                _kept(self.normal_features, normal),
                _kept(self.low_features, low),
            )
            self._number = number
        return self._crops

    def _mine(self, hu: torch.Tensor) -> torch.Tensor:
        rows = hu.reshape(self.rows, self.batch, *hu.shape[1:])
        return rows[:, self.columns.start : self.columns.stop].flatten(0, 1)


def _kept(features: Features | None, hu: torch.Tensor) -> dict[int, torch.Tensor]:
    """Maps of all crops, 16 at a time."""
    if features is None:
        return {}
    with torch.no_grad():
        parts = [features(part) for part in torch.split(hu, 16)]
    return {tap: torch.cat([part[tap] for part in parts]) for tap in parts[0]}


def purpose_seed(*purpose: object) -> int:
    """A seed for each purpose and step, so that nothing depends on what was drawn before."""
    return int.from_bytes(hashlib.sha256(repr(purpose).encode()).digest()[:6], "big")
