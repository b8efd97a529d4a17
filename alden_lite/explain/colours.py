"""Which places does a network take for the same? Principal components, similarity. Taught in chapter 05."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

__all__ = ["ForegroundColours", "compact", "foreground", "similarity"]


@dataclass(frozen=True)
class ForegroundColours:
    """Principal components of features as red, green and blue: the same colours for every slice.

    `fit` finds components, signs and range on the foreground of some slices; called with maps of the same
    tap, it gives their colours. Air and table, which would take up the first component, are left out.

    Attributes:
        mean: (C,), float64.
        axes: (C, 3), float64: components 1, 2, 3, each with its largest entry positive.
        low, high: (3,): scores drawn as 0 and 1, the 1st and 99th percentile of the foreground.
        explained: (3,): each component's share of the foreground's variance.

    Source: Oquab et al., DINOv2, arXiv:2304.07193, section 7.5. Deviation: the foreground comes from the CT
    (`foreground`), not from a threshold on a first component.
    """

    mean: Tensor
    axes: Tensor
    low: Tensor
    high: Tensor
    explained: Tensor

    @classmethod
    def fit(cls, maps: Tensor, foreground: Tensor | None = None) -> ForegroundColours:
        """Find the components.

        Args:
            maps: (B, C, h, w) of one tap, C at least 3.
            foreground: (B, h, w) bool, tokens to look at; all when None.

        Raises:
            ValueError: for maps of another shape or with NaN, a foreground of another shape, or with fewer
                than two tokens in it.
        """
        tokens = _finite_tokens(maps)
        if foreground is not None:
            _check_foreground(foreground, maps)
            tokens = tokens[foreground.cpu()]
        tokens = tokens.reshape(-1, maps.shape[1])  # (tokens, C)
        if len(tokens) < 2:
            raise ValueError(f"components need two tokens in the foreground or more, got {len(tokens)}")
        mean = tokens.mean(0)
        centred = tokens - mean
        values, axes = torch.linalg.eigh(centred.T @ centred)  # the smallest first
        axes = axes[:, -3:].flip(1)
        axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # the same on every machine
        low, high = (centred @ axes).quantile(torch.tensor([0.01, 0.99], dtype=torch.double), dim=0)
        explained = values[-3:].flip(0).clamp(min=0) / values.clamp(min=0).sum().clamp(min=1e-300)
        return cls(mean, axes, low, high, explained)

    def __call__(self, maps: Tensor, foreground: Tensor | None = None) -> Tensor:
        """Colours of maps of the same tap.

        Args:
            maps: (B, C, h, w).
            foreground: (B, h, w) bool; other places come out black. All are coloured when None.

        Returns:
            (B, h, w, 3), float64 in [0, 1].

        Raises:
            ValueError: for maps of another number of channels, shape or with NaN.
        """
        tokens = _finite_tokens(maps)
        if maps.shape[1] != len(self.mean):
            raise ValueError(f"colours of {len(self.mean)} channels do not fit maps {tuple(maps.shape)}")
        scores = (tokens - self.mean) @ self.axes
        colours = ((scores - self.low) / (self.high - self.low).clamp(min=1e-12)).clamp(0, 1)
        if foreground is None:
            return colours
        _check_foreground(foreground, maps)
        return colours * foreground.cpu()[..., None]


def foreground(hu: Tensor, patch_size: int = 14) -> Tensor:
    """Patches that are mostly patient: neither air around, nor table. Air inside the body counts as body.

    Pixels above -500 HU, without what is thinner than 7 pixels (the table's shells), holes filled; then every
    part of at least a twentieth of the largest. Made for slices with the whole body in view.

    Args:
        hu: (B, 1, H, W), HU.
        patch_size: side of a patch in pixels.

    Returns:
        (B, h, w) bool, at least half of the patch being body.

    Raises:
        ValueError: for another shape, H, W that are not multiples of the patch, or NaN.
    """
    if hu.ndim != 4 or hu.shape[1] != 1 or hu.shape[2] % patch_size or hu.shape[3] % patch_size:
        raise ValueError(
            f"foreground takes (B, 1, H, W) with H, W multiples of {patch_size}, got {tuple(hu.shape)}"
        )
    if not torch.isfinite(hu).all():  # NaN is above no threshold, and would pass for air
        raise ValueError("the slices hold NaN or infinite values: HU must be finite")
    bodies = [_body(one.cpu().numpy()) for one in hu[:, 0]]
    share = functional.avg_pool2d(torch.from_numpy(np.stack(bodies)).float()[:, None], patch_size)
    return (share[:, 0] >= 0.5).to(hu.device)


def similarity(query: Tensor, maps: Tensor) -> Tensor:
    """Cosine of the angle between one token's features and those of every place: -1 to 1, 1 for its like.

    Args:
        query: (C,), such as `maps[0, :, row, column]`.
        maps: (B, C, h, w) of the same tap.

    Returns:
        (B, h, w).

    Raises:
        ValueError: if the shapes do not fit.
    """
    if maps.ndim != 4 or query.shape != maps.shape[1:2]:
        raise ValueError(f"a query (C,) and maps (B, C, h, w), got {tuple(query.shape)}, {tuple(maps.shape)}")
    return torch.einsum("c,bchw->bhw", functional.normalize(query, dim=0), functional.normalize(maps, dim=1))


def compact(maps: Tensor, channels: int = 96) -> Tensor:
    """The same maps in fewer channels, with cosines kept as well as that number of channels can.

    Tokens are projected onto the leading right singular vectors of all tokens at unit length, not centred:
    of all projections it is the one that loses least of their inner products' squares. Of DINOv2's 384
    channels, 96 keep 99 % of the cosines of a slice to 0.04 (block 4), 0.02 (block 9) and 0.001 (block 12).
    Maps that will be compared must come in one batch.

    Args:
        maps: (B, C, h, w) of one tap.
        channels: how many to keep, 1 to C.

    Returns:
        (B, channels, h, w), as `maps` in type.

    Raises:
        ValueError: for another shape, NaN, or a number of channels that there is not.

    Source: Eckart and Young, Psychometrika 1 (1936) 211.
    """
    tokens = _finite_tokens(maps, least=1)
    if not 1 <= channels <= maps.shape[1]:
        raise ValueError(f"channels is a number from 1 to {maps.shape[1]}, got {channels}")
    unit = functional.normalize(tokens.flatten(0, 2), dim=1)
    axes = torch.linalg.eigh(unit.T @ unit).eigenvectors[:, -channels:].flip(1)  # (C, channels)
    return (tokens @ axes).permute(0, 3, 1, 2).to(maps)


def _finite_tokens(maps: Tensor, *, least: int = 3) -> Tensor:
    """(B, C, h, w) to (B, h, w, C), float64 on the CPU."""
    if maps.ndim != 4 or maps.shape[1] < least or not torch.isfinite(maps).all():
        shape = tuple(maps.shape)
        raise ValueError(f"feature maps are finite (B, C, h, w) with C of {least} or more: {shape}")
    return maps.detach().cpu().double().permute(0, 2, 3, 1)


def _check_foreground(foreground: Tensor, maps: Tensor) -> None:
    expected = (len(maps), *maps.shape[2:])
    if tuple(foreground.shape) != expected or foreground.dtype != torch.bool:
        found = f"{tuple(foreground.shape)} {foreground.dtype}"
        raise ValueError(f"the foreground of these maps is bool {expected}, got {found}")


def _body(hu: np.ndarray) -> np.ndarray:
    """(H, W) HU to the patient as bool."""
    solid = np.pad(hu > -500, 3, mode="edge")  # a body cut off by the border stays whole
    disc = np.hypot(*np.ogrid[-3:4, -3:4]) <= 3.2
    opened = ndimage.binary_opening(solid, disc)[3:-3, 3:-3]
    filled = ndimage.binary_fill_holes(opened)
    parts, _ = ndimage.label(filled)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (sizes >= max(sizes.max() / 20, 1))[parts]
