"""Does a picture still show its organs? A small frozen network that finds them. Taught in chapter 09.

Pixel errors do not say whether a reader, or the next program, can still work with a picture. So a segmenter
is trained once on normal-dose slices (`segmenter_training`), frozen, and asked to find the organ groups of
`data.GROUPS` in low-dose and in denoised slices. What it finds is compared with the true groups.

It is no good segmenter: one real patient and drawn ones taught it. On the sample volume it is tested on other
slabs of the patient it learned from, so only differences between pictures of the same slices mean something.

Source: U-Net (Ronneberger et al., MICCAI 2015) with residual blocks (He et al., CVPR 2016).
Deviation: half resolution, addition for concatenation.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from alden_lite.data.organs import GROUPS
from alden_lite.engine.checkpoint import load_weights, weights_path
from alden_lite.physics.hounsfield import LOWEST_HU, WINDOWS, window

__all__ = ["Segmenter", "load_segmenter", "segment"]

SHOWN = ("evaluation", "lung", "bone")  # windows that the three input channels show, see hounsfield.WINDOWS

Array = np.ndarray | torch.Tensor


class Segmenter(nn.Module):
    """Residual U-Net at half resolution and below: HU in, a score for every group out.

    Pixel-unshuffling loses nothing, so the noise of single pixels gets in.

    Args:
        widths: channels at a half, a quarter, an eighth and so on of the resolution.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 48, 64, 96)) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)  # H and W must be multiples of it
        self.enter = nn.Sequential(nn.PixelUnshuffle(2), *_layer(4 * len(SHOWN), widths[0]))
        self.down = nn.ModuleList(_Block(i, o, stride=2) for i, o in pairwise(widths))
        self.across = nn.ModuleList(nn.Conv2d(o, i, 1) for i, o in pairwise(widths))
        self.up = nn.ModuleList(_Block(width, width) for width in widths[1:-1])
        self.leave = nn.Sequential(*_layer(widths[0], widths[0]), nn.Conv2d(widths[0], 1 + len(GROUPS), 1))

    def forward(self, hu: torch.Tensor) -> torch.Tensor:
        """Scores (logits) of no group and the ten groups at half resolution.

        Args:
            hu: (B, 1, H, W) in HU, H and W multiples of `multiple`.

        Returns:
            (B, 11, H / 2, W / 2).
        """
        shown = [window(hu, WINDOWS[name].level, WINDOWS[name].width) for name in SHOWN]
        x = self.enter(torch.cat(shown, 1) - 0.5)
        maps = [x]
        for block in self.down:
            maps.append(block(maps[-1]))
        x = maps.pop()
        for level in reversed(range(len(maps))):
            x = maps[level] + F.interpolate(self.across[level](x), scale_factor=2.0)
            x = self.up[level - 1](x) if level else x
        return self.leave(x)


class _Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, channels: int, out: int, *, stride: int = 1) -> None:
        super().__init__()
        first = _layer(channels, out, stride=stride)
        self.convs = nn.Sequential(*first, nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out))
        same = channels == out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.convs(x) + self.shortcut(x))


def _layer(channels: int, out: int, *, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]


def load_segmenter(name: str | Path = "segmenter") -> Segmenter:
    """The shipped segmenter, or one from a .safetensors file, frozen and in eval mode.

    Raises:
        checkpoint.CheckpointError: if there is no such file, it is damaged, or holds another network.
    """
    path = weights_path(name)
    segmenter = Segmenter()
    load_weights(segmenter, path)
    return as_frozen(segmenter)


@torch.no_grad()
def segment(hu: Array, segmenter: Segmenter | None = None, *, progress: bool = False) -> np.ndarray:
    """The organ group of every pixel, slice by slice.

    Args:
        hu: a slice (Y, X) or a volume (Z, Y, X) in HU, any number type.
        segmenter: from `load_segmenter`, which is called when None. One in training mode stays in it: a copy
            in eval mode does the work.
        progress: show a progress bar over the slices.

    Returns:
        uint8 of the same shape: 0 for none, else 1 + GROUPS.index(group).

    Raises:
        ValueError: if the array is not 2-D or 3-D, is empty, or holds NaN or infinity.
    """
    values = torch.as_tensor(np.asarray(hu)).float()
    if values.ndim not in (2, 3) or values.numel() == 0:
        raise ValueError(f"expected a slice (Y, X) or a volume (Z, Y, X), got shape {tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise ValueError("the CT holds NaN or infinite HU: replace them (air is -1000) first")
    network = segmenter or load_segmenter()
    if any(part.training for part in network.modules()):
        network = copy.deepcopy(network).eval()  # in training mode, other slices would change the answer
    volume = values if values.ndim == 3 else values[None]
    slices = tqdm(volume, desc="segmenting", unit="slice", disable=not progress)
    found = torch.stack([_one(one, network) for one in slices])
    return (found if values.ndim == 3 else found[0]).numpy()


def as_frozen(segmenter: Segmenter) -> Segmenter:
    return segmenter.eval().requires_grad_(False)


def _one(hu: torch.Tensor, network: Segmenter) -> torch.Tensor:
    """Groups (Y, X) uint8 of one slice; air is put below and to the right until the strides fit."""
    height, width = hu.shape
    room = (0, -width % network.multiple, 0, -height % network.multiple)
    device = next(network.parameters()).device
    scores = network(F.pad(hu, room, value=LOWEST_HU)[None, None].to(device)).float()
    scores = F.interpolate(scores, scale_factor=2.0, mode="bilinear")  # boundaries between half pixels
    return scores.argmax(1)[0, :height, :width].to(torch.uint8).cpu()
