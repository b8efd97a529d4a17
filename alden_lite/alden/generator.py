"""Generators: a low-dose slice in, a denoised slice out. Inference needs nothing else.

The paper does not name its generator. `UNet` is ours and made for a CPU; `ESAUNet` is the generator of ASCON
(Chen et al., MICCAI 2023); `REDCNN` is the baseline everybody compares with (Chen et al., IEEE TMI 2017).
All take and give `(B, 1, H, W)` on the networks' scale (HU / 1024), for any H and W.
Taught in chapters 03 and 08.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["GENERATORS", "REDCNN", "ESAUNet", "UNet", "build_generator", "keep_input"]


def build_generator(name: str) -> nn.Module:
    """A fresh generator by name: `unet`, `esau` or `redcnn`, in the memory layout that is fastest.

    Raises:
        ValueError: on an unknown name.
    """
    if name not in GENERATORS:
        raise ValueError(f"unknown generator {name!r}: choose from {sorted(GENERATORS)}")
    return GENERATORS[name]().to(memory_format=torch.channels_last)


@torch.no_grad()
def keep_input(generator: nn.Module, share: float) -> nn.Module:
    """Let a trained U-Net leave a share of its input in: `G'(u) = share u + (1 - share) G(u)`.

    With nested doses, part of what the low-dose slice shows is the normal dose's own grain. Of all pictures
    with a given amount of grain, such a blend of the mean and the input is the nearest to the normal dose if
    noise is Gaussian, as it makes the mean's own grain stronger and adds none that has nothing to do with it
    (Freirich et al., NeurIPS 2021): the least a learned method must beat, and a good start for one.

    Args:
        generator: changed in place, and returned.
        share: in [0, 1); 0 changes nothing.

    Raises:
        ValueError: if the share is out of range, or the generator is no `UNet`.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share must be in [0, 1), got {share}")
    if share:
        if not isinstance(generator, UNet):
            raise ValueError(f"only a UNet adds to its input; got {type(generator).__name__}")
        for weight in generator.leave[0].parameters():
            weight.mul_(1 - share)
    return generator


class UNet(nn.Module):
    """Residual U-Net that works at half resolution and below (OURS).

    Pixel-unshuffling turns 2 x 2 pixels into four channels, so nothing is lost and every convolution costs a
    quarter. The last layer starts at zero: before training, the network returns its input.

    Args:
        width: channels at half resolution; 3/2 and 2 of it at a quarter and an eighth.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        half, quarter, eighth = width, width * 3 // 2, width * 2
        self.enter = nn.Sequential(nn.PixelUnshuffle(2), _convs(4, half, half, half))
        self.down_quarter = _convs(half, quarter, quarter, quarter, stride=2)
        self.down_eighth = _convs(quarter, eighth, eighth, eighth, stride=2)
        self.up_quarter = _convs(eighth, quarter)
        self.mix_quarter = _convs(quarter, quarter)
        self.up_half = _convs(quarter, half)
        self.mix_half = _convs(half, half, half)
        self.leave = nn.Sequential(nn.Conv2d(half, 4, 3, padding=1), nn.PixelShuffle(2))
        nn.init.zeros_(self.leave[0].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.leave[0].bias)  # type: ignore[arg-type]

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Denoise `(B, 1, H, W)` on the networks' scale."""
        return u + _on_multiples_of(8, self._residual, u)

    def _residual(self, u: torch.Tensor) -> torch.Tensor:
        half = self.enter(u)
        quarter = self.down_quarter(half)
        eighth = self.down_eighth(quarter)
        quarter = self.mix_quarter(quarter + _double(self.up_quarter(eighth)))
        half = self.mix_half(half + _double(self.up_half(quarter)))
        return self.leave(half)


class REDCNN(nn.Module):
    """RED-CNN: five convolutions, five transposed convolutions, three shortcuts, no padding.

    Source: Chen et al., IEEE TMI 36:2524 (2017), fig. 1; 96 filters of 5 x 5.
    """

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        channels = [1] + [width] * 5
        pairs = list(pairwise(channels))
        self.encode = nn.ModuleList(nn.Conv2d(i, o, 5) for i, o in pairs)
        self.decode = nn.ModuleList(nn.ConvTranspose2d(o, i, 5) for i, o in reversed(pairs))

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Denoise `(B, 1, H, W)` on the networks' scale; H and W at least 21.

        Raises:
            ValueError: if the slice is smaller than the five unpadded convolutions need.
        """
        if min(u.shape[-2:]) < 21:
            raise ValueError(f"RED-CNN needs slices of at least 21 x 21, got {tuple(u.shape[-2:])}")
        shortcuts, x = [u], u
        for number, convolution in enumerate(self.encode):
            x = F.relu(convolution(x))
            if number in (1, 3):
                shortcuts.append(x)
        for number, deconvolution in enumerate(self.decode):
            x = deconvolution(x)
            if number in (0, 2, 4):
                x = x + shortcuts.pop()
            x = F.relu(x) if number < 4 else x  # deviation: no ReLU at the end, air is negative here
        return x


class ESAUNet(nn.Module):
    """ESAU-Net: a U-Net whose blocks attend across channels, then convolve.

    Source: ASCON (Chen et al., MICCAI 2023) and its published layout: 1, 2, 4, 8 heads, max-pooling, bilinear
    upsampling, added shortcuts, no residual around the whole. Deviation: none known.

    Args:
        width: channels at full resolution.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        w = width
        self.enter = nn.Sequential(nn.Conv2d(1, w // 2, 3, padding=1, bias=False), nn.LeakyReLU(0.01))
        self.down = nn.ModuleList(
            [
                _ChannelAttentionBlock(w // 2, w, heads=1),
                _ChannelAttentionBlock(w, 2 * w, heads=2),
                _ChannelAttentionBlock(2 * w, 4 * w, heads=4),
                _ChannelAttentionBlock(4 * w, 4 * w, heads=8, hidden=8 * w),
            ]
        )
        self.up = nn.ModuleList(
            [
                _ChannelAttentionBlock(4 * w, 2 * w, heads=4),
                _ChannelAttentionBlock(2 * w, w, heads=2),
                _ChannelAttentionBlock(w, w // 2, heads=1),
            ]
        )
        self.leave = nn.Sequential(
            nn.Conv2d(w // 2, w // 2, 3, padding=1, bias=False),
            nn.LeakyReLU(0.01),
            nn.Conv2d(w // 2, 1, 3, padding=1, bias=False),
        )

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Denoise `(B, 1, H, W)` on the networks' scale."""
        return _on_multiples_of(8, self._whole, u)

    def _whole(self, u: torch.Tensor) -> torch.Tensor:
        x, shortcuts = self.enter(u), []
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else F.max_pool2d(x, 2))
            shortcuts.append(x)
        shortcuts.pop()
        for block in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = block(x + shortcuts.pop())
        return self.leave(x)


class _ChannelAttentionBlock(nn.Module):
    """Attention between channels (each channel's whole map is one token), then two convolutions."""

    def __init__(self, channels: int, out: int, *, heads: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or channels
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Sequential(
            nn.Conv2d(channels, 3 * channels, 1, bias=False),
            nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False),
        )
        self.project = nn.Conv2d(channels, channels, 1, bias=False)
        self.convs = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
            nn.LeakyReLU(0.01),
            nn.Conv2d(hidden, out, 3, padding=1, bias=False),
            nn.LeakyReLU(0.01),
        )
        self.shortcut = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (  # each (B, heads, C / heads, H * W)
            t.flatten(2).unflatten(1, (self.heads, -1)) for t in self.qkv(x).chunk(3, dim=1)
        )
        likeness = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.temperature
        attended = (likeness.softmax(-1) @ v).flatten(1, 2).unflatten(2, x.shape[-2:])
        x = x + self.project(attended)
        return self.convs(x) + self.shortcut(x)


GENERATORS: dict[str, Callable[[], nn.Module]] = {"unet": UNet, "esau": ESAUNet, "redcnn": REDCNN}


def _convs(*channels: int, stride: int = 1) -> nn.Sequential:
    """3 x 3 convolutions with leaky ReLU through the given channel numbers; the first may stride."""
    layers: list[nn.Module] = []
    for number, (i, o) in enumerate(pairwise(channels)):
        layers += [nn.Conv2d(i, o, 3, stride if number == 0 else 1, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


def _double(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2.0)


def _on_multiples_of(
    multiple: int, network: Callable[[torch.Tensor], torch.Tensor], u: torch.Tensor
) -> torch.Tensor:
    """Pad below and to the right until the network's strides fit, run it, cut the padding off again."""
    height, width = u.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if not (down or right):
        return network(u)
    # Mirror images look most like CT, but need more pixels than padding.
    mode = "reflect" if height > down and width > right else "replicate"
    return network(F.pad(u, (0, right, 0, down), mode=mode))[..., :height, :width]
