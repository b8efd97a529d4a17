"""Where a vision transformer mixes its tokens: attention and rollout. Taught in chapter 05.

Neither is an explanation by itself: `controls.randomised` destroys what a network has learned, and a map that
stays as it was did not show it. A *score* is always a function from HU (B, 1, H, W) to (B,). Blocks are
counted from 1.

Sources stand at the functions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from alden_lite.alden.pvm import PVM

__all__ = ["attention", "attention_map", "gradient_rollout", "rollout"]

Score = Callable[[Tensor], Tensor]
Place = tuple[int, int] | Tensor  # row and column, or a mask of the grid

ASKED_TWICE = (
    "the score looks through {name} more than once: look once. A difference of two logits of one block is "
    "one linear layer, with the difference of their weights"
)


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
    last = len(plain_blocks(pvm))
    chosen = list(range(1, last + 1)) if blocks is None else list(blocks)
    if not chosen or not all(1 <= block <= last for block in chosen):
        raise ValueError(f"blocks of {pvm.name} are numbers from 1 to {last}, got {chosen}")
    if heads not in ("all", *_OVER_HEADS):
        raise ValueError(f"heads is all, {', '.join(_OVER_HEADS)}, got {heads!r}")

    def keep(weights: Tensor) -> Tensor:
        return (weights if heads == "all" else _OVER_HEADS[heads](weights)[:, None]).float()

    with torch.no_grad(), _watched(pvm, chosen, keep) as seen:
        tapped(pvm, max(chosen))(hu)
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
        mask = image_mask(place, grid).to(weights.device)
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
    blocks = range(1, len(plain_blocks(pvm)) + 1)
    with torch.enable_grad(), _watched(pvm, blocks, lambda weights: weights) as seen:
        total = scores_of(score, hu.detach().clone().requires_grad_()).sum()
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


def plain_blocks(pvm: PVM) -> Sequence[Any]:
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
    layers = {block: plain_blocks(pvm)[block - 1].attn for block in blocks}
    fused = {block: layer.fused_attn for block, layer in layers.items()}

    def watch(block: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def see(_: nn.Module, __: Any, weights: Tensor) -> None:
            if block in seen:  # a second look would take the place of the first, and half the score be lost
                raise ValueError(ASKED_TWICE.format(name=pvm.name))
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


def tapped(pvm: PVM, *taps: int) -> PVM:
    """The same network, its weights shared, with other taps."""
    other = copy.copy(pvm)
    widths: Any = pvm.backbone.feature_info
    other.taps, other.channels = taps, tuple(widths[tap - 1]["num_chs"] for tap in taps)
    return other


def image_mask(place: Place, grid: tuple[int, int]) -> Tensor:
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


def scores_of(score: Score, hu: Tensor) -> Tensor:
    values = score(hu)
    if values.shape != (len(hu),):
        raise ValueError(f"a score is one number a slice, ({len(hu)},), got {tuple(values.shape)}")
    return values
