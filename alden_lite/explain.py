"""Ways to ask a network what it looked at, and controls that tell whether the answer means anything (ch. 05).

Attention and rollout show where a vision transformer mixes its tokens; principal components and cosine
similarity show which places it takes for the same; attributions (Integrated Gradients, occlusion, Grad-CAM,
by captum) share out a score over the pixels of the CT. None of them is an explanation by itself: `randomised`
destroys what a network has learned, and a map that stays as it was did not show it.

A *score* is always a function from HU (B, 1, H, W) to (B,): `organ_score` asks a probe, `output_at` a
generator, and any function of yours will do. Blocks are counted from 1, maps are (B, C, h, w).

Sources stand at the functions. captum: Kokhlikyan et al., arXiv:2009.07896.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from alden_lite.hounsfield import WINDOWS, denormalise, normalise
from alden_lite.pvm import PVM

__all__ = [
    "BLACK_HU",
    "Attribution",
    "ForegroundColours",
    "attention",
    "attention_map",
    "compact",
    "foreground",
    "grad_cam",
    "gradient_rollout",
    "integrated_gradients",
    "occlusion",
    "organ_score",
    "output_at",
    "radius_of",
    "randomised",
    "rank_correlation",
    "receptive_field",
    "rollout",
    "similarity",
]

Score = Callable[[Tensor], Tensor]
Place = tuple[int, int] | Tensor  # row and column, or a mask of the grid

BLACK_HU = WINDOWS["abdomen"].low
"""-150 HU, black in the abdominal window: what counts as "nothing there" where an attribution needs it."""

_ASKED_TWICE = (
    "the score looks through {name} more than once: look once. A difference of two logits of one block is "
    "one linear layer, with the difference of their weights"
)


# Attention ------------------------------------------------------------------------------------------------


def attention(
    pvm: PVM, hu: Tensor, *, blocks: Sequence[int] | None = None, heads: str = "all"
) -> list[Tensor]:
    """Attention weights of a vision transformer: row i says from which tokens token i takes its update.

    They are the weights that the model itself computes with, softmax(q k^T / sqrt(d)) of each head; timm's
    fused form, which never holds them, is put aside for this call. One block of DINOv2 ViT-S/14 takes 40 MB
    at 504 x 504 (6 heads of 1297 x 1297), all twelve 480 MB; `heads="mean"` brings that to 81 MB.

    Args:
        pvm: a vision transformer with plain attention, such as DINOv2; its taps do not matter.
        hu: (B, 1, H, W), HU.
        blocks: which blocks, the first being 1, in any order; all when None.
        heads: `all`, or `mean`, `max` or `min` over the heads, taken block by block to save memory.

    Returns:
        For each of `blocks` (B, heads, N, N) float32, (B, 1, N, N) for one of the reductions. N = 1 + h * w:
        token 0 is the class token, the others the patches row by row. Rows sum to 1 (not those of a maximum
        or minimum).

    Raises:
        ValueError: for a model without such attention (a CNN has none), a block that there is not, an unknown
            reduction, or HU that the PVM does not take.

    Source: Dosovitskiy et al., arXiv:2010.11929, appendix A.
    """
    last = len(_plain_blocks(pvm))
    chosen = list(range(1, last + 1)) if blocks is None else list(blocks)
    if not chosen or not all(1 <= block <= last for block in chosen):
        raise ValueError(f"blocks of {pvm.name} are numbers from 1 to {last}, got {chosen}")
    if heads not in ("all", *_OVER_HEADS):
        raise ValueError(f"heads is all, {', '.join(_OVER_HEADS)}, got {heads!r}")

    def keep(weights: Tensor) -> Tensor:
        return (weights if heads == "all" else _OVER_HEADS[heads](weights)[:, None]).float()

    with torch.no_grad(), _watched(pvm, chosen, keep) as seen:
        _tapped(pvm, max(chosen))(hu)
    return [seen[block] for block in chosen]


def attention_map(weights: Tensor, *, grid: tuple[int, int], place: Place | None = None) -> Tensor:
    """One token's row of attention as a picture: which patches does it take from?

    Args:
        weights: (..., N, N), attention of `attention` or a rollout.
        grid: (h, w), the patches in a column and in a row; N - h * w tokens stand before them.
        place: whose row: the class token's when None, the patch's at (row, column), or the mean over a mask
            (h, w).

    Returns:
        (..., h, w). The columns of the tokens before the patches are left out and nothing is divided by what
        remains: the sum of a picture is what goes to the patches.

    Raises:
        ValueError: if the grid does not fit N, there is no class token, or the place is not on the grid.
    """
    rows, columns = grid
    extra = weights.shape[-1] - rows * columns
    if weights.ndim < 2 or weights.shape[-1] != weights.shape[-2] or extra < 0:
        raise ValueError(f"a grid of {rows} x {columns} does not fit attention {tuple(weights.shape)}")
    if place is None and extra == 0:
        raise ValueError("these tokens have no class token before them: choose a place (row, column)")
    patches = weights[..., extra:]  # (..., N, h * w)
    if place is None:
        row = patches[..., 0, :]
    else:
        mask = _mask(place, grid).to(weights.device)
        row = patches[..., extra:, :][..., mask.flatten(), :].mean(-2)
    return row.unflatten(-1, grid)


def rollout(attentions: Sequence[Tensor], *, residual: float = 0.5, heads: str = "mean") -> Tensor:
    """Attention through all blocks: how much of each input token is left in each token, to a first guess.

    R = A_L ... A_2 A_1 with A = residual * I + (1 - residual) * (heads joined), rows divided by their sum. It
    leaves out values, projections and the MLPs, so it knows nothing of what is taken, only of where from.

    Args:
        attentions: of consecutive blocks, the first block first, each (B, heads, N, N).
        residual: share of a token that passes by the attention; 1/2 in the paper.
        heads: how heads are joined: `mean` as in the paper, `max` or `min`.

    Returns:
        (B, N, N); rows sum to 1.

    Raises:
        ValueError: on no attention, different shapes, a residual outside [0, 1] or an unknown `heads`.

    Source: Abnar and Zuidema, ACL 2020, arXiv:2005.00928, section 3.
    """
    shapes = {tuple(weights.shape) for weights in attentions}
    shape = min(shapes, default=())
    if len(shapes) != 1 or len(shape) != 4 or shape[2] != shape[3]:
        raise ValueError(f"rollout takes attentions (B, heads, N, N) of one shape, got {sorted(shapes)}")
    if not 0 <= residual <= 1:
        raise ValueError(f"residual is a share from 0 to 1, got {residual}")
    if heads not in _OVER_HEADS:
        raise ValueError(f"heads is {', '.join(_OVER_HEADS)}, got {heads!r}")
    own = torch.eye(shape[2], device=attentions[0].device, dtype=attentions[0].dtype)
    rolled = own.expand(shape[0], -1, -1)
    for weights in attentions:
        mixed = residual * own + (1 - residual) * _OVER_HEADS[heads](weights)
        rolled = mixed / mixed.sum(-1, keepdim=True) @ rolled
    return rolled


def gradient_rollout(pvm: PVM, hu: Tensor, score: Score) -> Tensor:
    """Rollout that counts only the attention which raises a score.

    A = mean over heads of relu(gradient of the score by the weights * weights); R <- R + A R, from the first
    block to the last that the score depends on, beginning with R = I. A score of patches reads its answer in
    their rows (`attention_map` with the same place), a score of the class token in row 0. In a patch's own
    row the 1 of that first I outshines the rest: subtract `torch.eye(N)` to see what it takes from others.

    The graph holds the attention of all blocks and its gradient: about 1.3 GB at 504 x 504 for DINOv2
    ViT-S/14 with its twelve blocks, and 7 s of one core; 0.5 GB and 2 to 3 s at 252 x 252.

    Args:
        pvm: as for `attention`.
        hu: (B, 1, H, W), HU.
        score: asks this PVM, once; such as `organ_score(pvm, ...)`.

    Returns:
        (B, N, N), no longer with rows that sum to 1.

    Raises:
        ValueError: as for `attention`, and if the score does not use this PVM's attention, uses it more than
            once, or is not (B,).

    Source: Chefer, Gur and Wolf, ICCV 2021, arXiv:2103.15679, equations 5 and 6. Deviation: none for
    self-attention alone; the paper reads the class token's row.
    """
    blocks = range(1, len(_plain_blocks(pvm)) + 1)
    with torch.enable_grad(), _watched(pvm, blocks, lambda weights: weights) as seen:
        total = _scores(score, hu.detach().clone().requires_grad_()).sum()
        weights = [seen[block] for block in blocks if block in seen]
        if not weights or not total.requires_grad:
            raise ValueError(f"the score does not use {pvm.name}: make it with this very PVM")
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
    if gradients[0] is None:
        raise ValueError(f"the score does not depend on any attention of {pvm.name}")
    tokens = weights[0].shape[-1]
    rolled = torch.eye(tokens, device=hu.device).repeat(len(hu), 1, 1)
    for one, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:  # else a block behind the score
            rolled = rolled + (gradient * one.detach()).clamp(min=0).mean(1).float() @ rolled
    return rolled


_OVER_HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda weights: weights.mean(1),
    "max": lambda weights: weights.amax(1),
    "min": lambda weights: weights.amin(1),
}


def _plain_blocks(pvm: PVM) -> Sequence[Any]:
    """The transformer blocks of a PVM, or the reason why there are none."""
    from timm.models.vision_transformer import VisionTransformer

    blocks: Any = getattr(pvm.backbone, "blocks", ())
    if isinstance(pvm.backbone, VisionTransformer):
        return blocks
    if any(hasattr(block, "attn") for block in blocks):
        raise ValueError(
            f"{pvm.name} attends in windows with relative positions, which is not one matrix for all tokens: "
            "take a DINOv2"
        )
    raise ValueError(f"{pvm.name} is no vision transformer: a CNN has no attention to show")


@contextmanager
def _watched(
    pvm: PVM, blocks: Sequence[int], keep: Callable[[Tensor], Tensor]
) -> Iterator[dict[int, Tensor]]:
    """Attention weights by block, filled while the PVM runs inside; the model is as before afterwards."""
    seen: dict[int, Tensor] = {}
    layers = {block: _plain_blocks(pvm)[block - 1].attn for block in blocks}
    fused = {block: layer.fused_attn for block, layer in layers.items()}

    def watch(block: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def see(_: nn.Module, __: Any, weights: Tensor) -> None:
            if block in seen:  # a second look would take the place of the first, and half the score be lost
                raise ValueError(_ASKED_TWICE.format(name=pvm.name))
            seen[block] = keep(weights)

        return see

    # timm's unfused form passes its weights through the dropout, which does nothing in evaluation mode.
    hooks = [layer.attn_drop.register_forward_hook(watch(block)) for block, layer in layers.items()]
    try:
        for layer in layers.values():
            layer.fused_attn = False
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
        for block, layer in layers.items():
            layer.fused_attn = fused[block]


def _tapped(pvm: PVM, *taps: int) -> PVM:
    """The same network, its weights shared, with other taps."""
    other = copy.copy(pvm)
    widths: Any = pvm.backbone.feature_info
    other.taps, other.channels = taps, tuple(widths[tap - 1]["num_chs"] for tap in taps)
    return other


def _mask(place: Place, grid: tuple[int, int]) -> Tensor:
    """A place on a grid as a mask (h, w)."""
    rows, columns = grid
    if isinstance(place, Tensor):
        if place.shape != grid or place.dtype != torch.bool or not place.any():
            raise ValueError(
                f"a mask of places is bool {rows} x {columns} with at least one True, got "
                f"{tuple(place.shape)} {place.dtype} with {int(place.sum())}"
            )
        return place
    row, column = place
    if not (0 <= row < rows and 0 <= column < columns):
        raise ValueError(f"place (row, column) = ({row}, {column}) is not on the grid of {rows} x {columns}")
    mask = torch.zeros(grid, dtype=torch.bool)
    mask[row, column] = True
    return mask


# Features -------------------------------------------------------------------------------------------------


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


# Scores ---------------------------------------------------------------------------------------------------


def organ_score(
    pvm: PVM, linear: nn.Linear, group: int | str, *, place: Place | None = None, tap: int | None = None
) -> Score:
    """How much a linear probe takes places for an organ: its logit, averaged over the places.

    Args:
        pvm: the probe's PVM.
        linear: the probe, (C) to (groups), as `organs.as_linear` gives it.
        group: name or number of the organ group, for a probe with `.groups`; of another layer, the number of
            the output.
        place: a token (row, column), or a mask (h, w) of tokens; all when None.
        tap: the probe's block; the last tap when None.

    Returns:
        A function from HU (B, 1, H, W) to the score (B,), through which the gradient reaches the HU.

    Raises:
        ValueError: for a group, tap or place that there is not, or a probe of another width.
    """
    output = _output_of(linear, group)
    tap = pvm.taps[-1] if tap is None else tap
    if tap not in pvm.taps:
        raise ValueError(f"{pvm.name} is tapped at {pvm.taps}, not at {tap}")
    channels = pvm.channels[pvm.taps.index(tap)]
    if linear.in_features != channels:
        raise ValueError(
            f"the probe takes {linear.in_features} channels, tap {tap} of {pvm.name} has {channels}"
        )
    weight = linear.weight[output].detach()
    bias = torch.zeros(()) if linear.bias is None else linear.bias[output].detach()
    single = _tapped(pvm, tap)

    def score(hu: Tensor) -> Tensor:
        (features,) = single(hu)
        grid = (features.shape[2], features.shape[3])
        logits = torch.einsum("bchw,c->bhw", features, weight.to(features)) + bias.to(features)
        if place is None:
            return logits.mean((1, 2))
        return logits[:, _mask(place, grid).to(logits.device)].mean(1)

    return score


def _output_of(linear: nn.Linear, group: int | str) -> int:
    """Which output of a probe is the group's."""
    probe: Any = linear  # `organs.LinearProbe` has more than a layer
    groups = [int(one) for one in getattr(probe, "groups", range(probe.out_features))]
    if isinstance(group, str) and hasattr(probe, "index"):
        return probe.index(group)
    if group not in groups:
        raise ValueError(f"the probe knows groups {groups}, not {group!r}")
    return groups.index(int(group))


def output_at(generator: nn.Module, place: tuple[int, int], *, side: int = 1) -> Score:
    """What a generator makes of one place: the denoised HU of a pixel, or the mean of a small square.

    Args:
        generator: from and to (B, 1, H, W) on the networks' scale, as `load_generator` gives it.
        place: (row, column) of the pixel, or of the square's middle.
        side: of the square, odd.

    Returns:
        A function from HU (B, 1, H, W) to HU (B,), through which the gradient reaches the input.

    Raises:
        ValueError: if the side is even or below 1; when called, if the square is not inside the slice.
    """
    if side < 1 or side % 2 == 0:
        raise ValueError(f"side is an odd number of pixels, got {side}")
    (row, column), half = place, side // 2

    def score(hu: Tensor) -> Tensor:
        height, width = hu.shape[-2:]
        if not (half <= row < height - half and half <= column < width - half):
            raise ValueError(
                f"a square of {side} x {side} at (row, column) = ({row}, {column}) is not inside a slice of "
                f"{height} x {width}"
            )
        quiet = denormalise(generator(normalise(hu)))
        square = quiet[:, 0, row - half : row + half + 1, column - half : column + half + 1]
        return square.mean((1, 2))

    return score


# Attributions ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attribution:
    """A score shared out over the pixels.

    Attributes:
        map: (B, 1, H, W), in the score's unit: what each pixel adds to the score against the baseline.
        delta: (B,), sum of the map minus the difference; 0 if the integral were exact.
        difference: (B,), score of the slice minus score of the baseline.
    """

    map: Tensor
    delta: Tensor
    difference: Tensor

    @property
    def incompleteness(self) -> Tensor:
        """(B,), |delta| as a share of |difference|: what is lost or made up."""
        return self.delta.abs() / self.difference.abs()


def integrated_gradients(
    score: Score, hu: Tensor, *, baseline_hu: float | Tensor = BLACK_HU, steps: int = 64, batch: int = 8
) -> Attribution:
    """Share out the difference of a score between a baseline and a slice: a path of mixtures, summed.

    map = (x - x0) * integral over a from 0 to 1 of the gradient at x0 + a (x - x0); its sum is
    score(x) - score(x0), whatever the score (completeness). The baseline is part of the question: black
    asks "why this and not a black picture?", a blurred slice asks what its detail adds. A pixel that equals
    the baseline gets 0 by definition, and so does one that a PVM's window shows black in both.

    How many steps are enough depends on the place. From black, for an organ score of block 9 on crops of
    126 x 126 of the sample, the incompleteness at 64 steps was 0.1 to 1.4 % at six places and 11 % in the
    lung; at 128 steps it was below 1 % at five of six (3.3 % at the worst). Paths from air (-1000 HU) spend
    most steps on pictures that are all black and need far more than 256.

    Args:
        score: HU (B, 1, H, W) to (B,).
        hu: (B, 1, H, W), HU.
        baseline_hu: a number for all pixels, or a slice that broadcasts to `hu`.
        steps: nodes of the Gauss-Legendre rule; look at `incompleteness`.
        batch: mixtures computed at a time, for memory; at least one of each slice.

    Raises:
        ValueError: for HU of another shape, a baseline that does not fit, fewer than 1 step, or a score that
            is not (B,) or has no gradient.

    Source: Sundararajan, Taly and Yan, ICML 2017, arXiv:1703.01365, equation 1; captum's rule.
    """
    from captum.attr import IntegratedGradients

    _check_slices(hu)
    if steps < 1 or batch < 1:
        raise ValueError(f"steps and batch are 1 or more, got {steps} and {batch}")
    baseline = _baseline(baseline_hu, hu)
    with torch.no_grad():
        difference = _scores(score, hu) - _scores(score, baseline)
    shared: Tensor = IntegratedGradients(_differentiable(score)).attribute(
        hu.detach(), baseline, n_steps=steps, internal_batch_size=max(batch, len(hu))
    )
    shared = shared.detach()
    return Attribution(shared.to(hu), shared.sum((1, 2, 3)).to(difference) - difference, difference)


def occlusion(
    score: Score,
    hu: Tensor,
    *,
    size: int = 28,
    stride: int = 14,
    baseline_hu: float | Tensor = BLACK_HU,
    batch: int = 8,
) -> Tensor:
    """How much a score falls when a square is covered; a pixel gets the mean over the squares that cover it.

    One forward pass a square: 252 x 252 with the defaults takes 289, 504 x 504 takes 1225.

    Args:
        score: HU (B, 1, H, W) to (B,).
        hu: (B, 1, H, W), HU.
        size: side of the square in pixels.
        stride: pixels from one square to the next.
        baseline_hu: what the square is covered with, as for `integrated_gradients`.
        batch: squares computed at a time.

    Returns:
        (B, 1, H, W), in the score's unit; positive where covering lowers the score.

    Raises:
        ValueError: for HU of another shape, a baseline that does not fit, a square larger than the slice, a
            stride above its side (which would leave pixels out), or a score that is not (B,).

    Source: Zeiler and Fergus, ECCV 2014, arXiv:1311.2901, section 4.2, with a score for the class's
    probability and overlapping squares averaged, as in captum.
    """
    from captum.attr import Occlusion

    _check_slices(hu)
    if not 1 <= stride <= size <= min(hu.shape[2:]) or batch < 1:
        raise ValueError(
            f"a square of {size} that moves by {stride} does not cover {hu.shape[2]} x {hu.shape[3]} pixels: "
            "1 <= stride <= size <= side of the slice"
        )
    with torch.no_grad():
        return (
            Occlusion(lambda covered: _scores(score, covered))
            .attribute(
                hu.detach(),
                sliding_window_shapes=(1, size, size),
                strides=(1, stride, stride),
                baselines=_baseline(baseline_hu, hu),
                perturbations_per_eval=batch,
            )
            .to(hu)
        )


def grad_cam(score: Score, hu: Tensor, *, pvm: PVM, block: int, relu: bool = True) -> Tensor:
    """Grad-CAM: a block's map, its channels weighed by how much each raises the score on average.

    For a transformer the tokens of the block, without the class token, are laid out as a map first: captum,
    given the tokens, would take tokens for channels without a word.

    Args:
        score: HU (B, 1, H, W) to (B,), by way of this PVM, once, such as `organ_score(pvm, ...)`.
        hu: (B, 1, H, W), HU.
        pvm: the score's PVM.
        block: whose map, the first being 1; not behind the score's tap.
        relu: keep only what raises the score, as in the paper.

    Returns:
        (B, 1, h, w): for a ViT the grid of patches.

    Raises:
        ValueError: for HU of another shape, a block that there is not or that the score does not use or uses
            more than once, or a score that is not (B,).

    Source: Selvaraju et al., ICCV 2017, arXiv:1610.02391, equations 1 and 2.
    """
    from captum.attr import LayerGradCam

    _check_slices(hu)
    with _map_of(pvm, block, hu) as layer:
        try:  # captum calls the score once
            coarse: Tensor = LayerGradCam(_differentiable(score), layer).attribute(
                hu.detach().clone().requires_grad_(), relu_attributions=relu
            )
        except (AssertionError, IndexError, KeyError, RuntimeError) as error:
            if layer.used and "not have been used" not in str(error):  # torch's words for: not in the graph
                raise
            raise ValueError(f"the score does not use block {block} of {pvm.name}") from error
    return coarse.detach()


class _Map(nn.Module):
    """Gives back the map it is given, once: a layer for captum to look at."""

    used = False

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, features: Tensor) -> Tensor:
        if self.used:  # captum would keep the last map alone
            raise ValueError(_ASKED_TWICE.format(name=self.name))
        self.used = True
        return features.clone()


@contextmanager
def _map_of(pvm: PVM, block: int, hu: Tensor) -> Iterator[_Map]:
    """A layer through which the map of a block goes while the PVM runs inside."""
    backbone: Any = pvm.backbone
    names = [backbone.feature_info[index] for index in range(len(backbone.feature_info))]
    if not 1 <= block <= len(names):
        raise ValueError(f"blocks of {pvm.name} are numbers from 1 to {len(names)}, got {block}")
    layer, grid = _Map(pvm.name), [side // pvm.patch_size for side in hu.shape[2:]]

    def lay_out(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        if output.ndim == 4:  # already a map; SAM's has its channels last
            last = output.shape[1] != names[block - 1]["num_chs"]
            return layer(output.movedim(-1, 1)).movedim(1, -1) if last else layer(output)
        extra = output.shape[1] - grid[0] * grid[1]  # (B, N, C)
        features = output[:, extra:].transpose(1, 2).unflatten(2, grid)  # (B, C, h, w)
        return torch.cat([output[:, :extra], layer(features).flatten(2).transpose(1, 2)], dim=1)

    hook = backbone.get_submodule(names[block - 1]["module"]).register_forward_hook(lay_out)
    try:
        yield layer
    finally:
        hook.remove()


def _scores(score: Score, hu: Tensor) -> Tensor:
    values = score(hu)
    if values.shape != (len(hu),):
        raise ValueError(f"a score is one number a slice, ({len(hu)},), got {tuple(values.shape)}")
    return values


def _differentiable(score: Score) -> Score:
    def checked(hu: Tensor) -> Tensor:
        values = _scores(score, hu)
        if not values.requires_grad:
            raise ValueError("the score has no gradient by the HU: compute it without no_grad or .item()")
        return values

    return checked


def _check_slices(hu: Tensor) -> None:
    if hu.ndim != 4 or hu.shape[1] != 1 or not hu.is_floating_point():
        raise ValueError(f"slices are HU as floating point (B, 1, H, W), got {tuple(hu.shape)} {hu.dtype}")


def _baseline(baseline_hu: float | Tensor, hu: Tensor) -> Tensor:
    baseline = torch.as_tensor(baseline_hu, dtype=hu.dtype, device=hu.device)
    try:
        return baseline.expand_as(hu).clone()
    except RuntimeError as error:
        shapes = f"{tuple(baseline.shape)} to {tuple(hu.shape)}"
        raise ValueError(f"the baseline does not broadcast to the slices: {shapes}") from error


# A generator's view ---------------------------------------------------------------------------------------


def receptive_field(generator: nn.Module, hu: Tensor, place: tuple[int, int], *, side: int = 1) -> Tensor:
    """How the denoised HU of a place changes with the HU of every input pixel: the gradient, in HU per HU.

    For a linear filter this would be its kernel. A network is another filter at every place of every slice;
    this is the one at work here, for small changes.

    Args:
        generator, place, side: as for `output_at`.
        hu: (Y, X), HU: the input of the generator.

    Returns:
        (Y, X).

    Raises:
        ValueError: for another shape, or a place outside.
    """
    if hu.ndim != 2 or not hu.is_floating_point():
        raise ValueError(f"a slice is HU as floating point (Y, X), got {tuple(hu.shape)} {hu.dtype}")
    score = output_at(generator, place, side=side)
    with torch.enable_grad():
        slices = hu.detach().clone()[None, None].requires_grad_()
        (gradient,) = torch.autograd.grad(score(slices).sum(), slices)
    return gradient[0, 0]


def radius_of(field: Tensor, place: tuple[int, int], share: float = 0.5) -> float:
    """Radius in pixels within which a share of all |weights| of a field lies.

    Args:
        field: (Y, X), of `receptive_field`.
        place: (row, column), the middle.
        share: above 0, to 1.

    Returns:
        The smallest distance from the middle of a pixel to that of the place at which the sum over all pixels
        no further away reaches the share.

    Raises:
        ValueError: for another shape, a share outside (0, 1], a place outside or a field of zeros.
    """
    if field.ndim != 2 or not 0 < share <= 1:
        raise ValueError(f"a field (Y, X) and a share above 0 to 1, got {tuple(field.shape)} and {share}")
    (row, column), (height, width) = place, field.shape
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(f"({row}, {column}) is not inside a field of {height} x {width}")
    weights = field.detach().cpu().double().abs()
    if not weights.sum() > 0:
        raise ValueError("a field of zeros (or with NaN) has no radius")
    y, x = torch.meshgrid(torch.arange(height) - row, torch.arange(width) - column, indexing="ij")
    squared, order = (y.square() + x.square()).flatten().sort()
    sums = weights.flatten()[order].cumsum(0)
    reached = int((sums < share * sums[-1] * (1 - 1e-12)).sum())  # the first that is not below
    return float(squared[reached].double().sqrt())


# Controls -------------------------------------------------------------------------------------------------


def randomised(pvm: PVM, *, from_block: int = 1, seed: int = 0) -> PVM:
    """A copy of a PVM that has forgotten its blocks from `from_block` to the last.

    Every tensor of these blocks is drawn anew from a normal distribution with the mean and standard deviation
    that it had. From the fourth such block on, tokens have a cosine of about 0.1 or less to the true ones on
    average (0.3 at most) and are two to ten times as long. OURS: a fresh initialisation, the paper's way, has
    LayerScale at 1e-5 in DINOv2, at which a block does nothing and every map would stay as it was. Patch and
    position embedding stay. Going from the last block down is the paper's cascade.

    Args:
        pvm: as for `attention`; it is not touched.
        from_block: 1 (all blocks) to the last (that one alone).
        seed: same seed, same weights; a block gets the same whatever `from_block`.

    Returns:
        A PVM whose `name` and `weights_sha256` say that it is not the pretrained one.

    Raises:
        ValueError: for a model without plain transformer blocks, or a block that there is not.

    Source: Adebayo et al., NeurIPS 2018, arXiv:1810.03292, section 3.
    """
    last = len(_plain_blocks(pvm))
    if not 1 <= from_block <= last:
        raise ValueError(f"blocks of {pvm.name} are numbers from 1 to {last}, got {from_block}")
    other = copy.deepcopy(pvm)
    for number in range(from_block, last + 1):
        generator = torch.Generator().manual_seed(seed * 1000 + number)
        for tensor in _plain_blocks(other)[number - 1].parameters():
            drawn = torch.randn(tensor.shape, generator=generator).to(tensor)
            tensor.data = drawn * tensor.std(correction=0) + tensor.mean()
    which = f"block {last}" if from_block == last else f"blocks {from_block}-{last}"
    other.name = f"{pvm.name}, {which} random"
    other.weights_sha256 = hashlib.sha256(f"{pvm.weights_sha256} {which} {seed}".encode()).hexdigest()
    return other


def rank_correlation(first: Tensor, second: Tensor, *, where: Tensor | None = None) -> Tensor:
    """How alike two maps order their places by strength: Spearman's correlation of |values|, slice by slice.

    Places that are 0 in both by definition (air, for an attribution) make two maps look alike that are not:
    leave them out with `where`.

    Args:
        first, second: (B, ...) of one shape.
        where: of the same shape, bool: places that count; all when None.

    Returns:
        (B,), float64, -1 to 1; NaN for a map of one value.

    Raises:
        ValueError: for different shapes, or fewer than three places.

    Source: Adebayo et al., arXiv:1810.03292, section 3.
    """
    if first.shape != second.shape or first.ndim < 2:
        raise ValueError(f"maps of one shape (B, ...), got {tuple(first.shape)} and {tuple(second.shape)}")
    if where is None:
        where = torch.ones_like(first, dtype=torch.bool)
    if where.shape != first.shape or where.dtype != torch.bool or where.flatten(1).sum(1).min() < 3:
        raise ValueError(
            f"where is bool {tuple(first.shape)}, with three places or more in every slice: got "
            f"{tuple(where.shape)} {where.dtype}"
        )
    pairs = zip(first, second, where, strict=True)
    values = [_spearman(a[chosen], b[chosen]) for a, b, chosen in pairs]
    return torch.tensor(values, dtype=torch.double)


def _spearman(first: Tensor, second: Tensor) -> float:
    from scipy import stats

    one, other = (values.detach().abs().cpu().numpy() for values in (first, second))
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(stats.spearmanr(one, other).statistic)
