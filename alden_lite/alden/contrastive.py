"""Semantic-guided contrastive learning (SCL): the same place of the normal-dose slice, no other.

Taught in chapter 07. ALDEN (Wang et al., MICCAI 2025, arXiv 2508.07788) pulls the features of the
denoised slice ŷ towards those of the normal-dose slice y at the same place, and pushes them away
from two kinds of negatives: y at places with other anatomy, and the low-dose slice x at the same
place (FACT, in words). The tensors, the one softmax (InfoNCE, van den Oord et al., 2018) and all
numbers are OURS. This file knows feature maps only, never the network they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["discordant_places", "semantic_contrastive_loss"]

Form = Literal["joint", "sum"]


def semantic_contrastive_loss(
    denoised: Tensor | Sequence[Tensor],
    normal: Tensor | Sequence[Tensor],
    low: Tensor | Sequence[Tensor],
    *,
    temperature: float = 0.07,
    places: int = 256,
    negatives: int = 64,
    min_distance: int = 2,
    form: Form = "joint",
    noise_term: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the contrastive loss of ŷ, in nats: small where ŷ is like y here, unlike y elsewhere
    and unlike x here.

    With cosine similarities over the temperature, `p = <ŷ_k, y_k>/τ`, `n_m = <ŷ_k, y_m>/τ` for the
    discordant places m of place k, and `q = <ŷ_k, x_k>/τ`::

        joint:  l_k = -log e^p / (e^p + Σ_m e^n_m + e^q)
        sum:    l_k = -log e^p / (e^p + Σ_m e^n_m)  -  log e^p / (e^p + e^q)

    averaged over places, images and taps. Gradients reach `denoised` alone. A floor to know: where
    x equals y, the noise term is a coin toss and costs log 2, whatever ŷ is.

    Args:
        denoised: features of ŷ, (B, C, h, w); or a sequence of taps, each with its own C and grid.
        normal: features of y, like `denoised`; no gradient is sent back.
        low: features of x, like `denoised`; no gradient is sent back.
        temperature: τ; OURS: 0.07.
        places: K, sampled anew in each call and shared by the batch; all, if the grid has fewer.
        negatives: M, discordant places for each of the K; all at that distance, if there are fewer.
        min_distance: of negatives, in tokens: the larger of the steps in y and in x.
        form: one softmax over both kinds of negatives ("joint") or two losses added ("sum").
        noise_term: `False` leaves out x (the paper's ablation); both forms are then equal.
        generator: on the CPU; for the same places again.

    Returns:
        A scalar >= 0, at least float32 also under autocast.

    Raises:
        ValueError: if shapes differ, the grid is too small for `min_distance`, or an option is not
            as said.

    Example:
        >>> y, x = torch.randn(2, 1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> bool(semantic_contrastive_loss(y, y, x) < semantic_contrastive_loss(x, y, x))
        True
    """
    if form not in get_args(Form):
        raise ValueError(f"form must be one of {', '.join(get_args(Form))}; got {form!r}")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    losses = []
    for maps in _taps(denoised, normal, low):
        anchors, discordant = discordant_places(
            *maps[0].shape[-2:],
            places=places,
            count=negatives,
            min_distance=min_distance,
            generator=generator,
        )
        logits = _logits(maps, anchors, discordant, temperature=temperature)
        losses.append(_info_nce(*logits, form=form, noise_term=noise_term))
    return torch.stack(losses).mean()


def discordant_places(
    h: int,
    w: int,
    *,
    places: int = 256,
    count: int = 64,
    min_distance: int = 2,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Sample places of an (h, w) grid and, for each, places that are spatially discordant with it.

    Discordant means at least `min_distance` tokens away in y or in x. All samples are uniform and
    without repetition. Sampling K and M places is FACT; the distance and its measure are OURS.

    Args:
        h: rows.
        w: columns.
        places: K; all h w places if there are fewer.
        count: M; a place with fewer discordant places, as in the middle of a small grid, gets all
            of them.
        min_distance: in tokens, >= 1 (1: any other place).
        generator: on the CPU; for the same places again.

    Returns:
        Indices of the K places in row-major order, (K,), and a mask of their discordant places,
        (K, h w), true at no more than M places a row. Both on the CPU.

    Raises:
        ValueError: if a number is below 1, or the place in the middle has no discordant place.

    Example:
        >>> anchors, discordant = discordant_places(4, 4, places=5, count=3)
        >>> anchors.shape, discordant.shape, discordant.sum(1)
        (torch.Size([5]), torch.Size([5, 16]), tensor([3, 3, 3, 3, 3]))
    """
    if min(h, w, places, count, min_distance) < 1:
        raise ValueError(
            f"all must be at least 1: h {h}, w {w}, places {places}, count {count}, "
            f"min_distance {min_distance}"
        )
    if max(h, w) // 2 < min_distance:  # steps from the middle to the farthest edge
        raise ValueError(
            f"a {h} x {w} grid is too small: the place in the middle has none at a distance of "
            f"{min_distance}; take larger crops or a smaller min_distance"
        )
    anchors = torch.randperm(h * w, generator=generator)[:places]  # (K,)
    discordant = _distance(anchors, h, w) >= min_distance  # (K, hw)
    # Random scores, the discordant places above all others: the M best are a uniform sample.
    scores = torch.rand(discordant.shape, generator=generator) + discordant
    best = scores.topk(min(count, h * w), dim=1).indices  # (K, M)
    chosen = torch.zeros_like(discordant).scatter_(1, best, True)
    return anchors, chosen & discordant


def _distance(anchors: Tensor, h: int, w: int) -> Tensor:
    """Return the larger of the steps in y and in x from each anchor to each place: (K, h w)."""
    place = torch.arange(h * w)
    rows = (anchors[:, None] // w - place // w).abs()
    columns = (anchors[:, None] % w - place % w).abs()
    return torch.maximum(rows, columns)


def _logits(
    maps: tuple[Tensor, Tensor, Tensor],
    anchors: Tensor,
    discordant: Tensor,
    *,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return p (B, K, 1), n (B, K, hw) with -inf at places not chosen, and q (B, K, 1)."""
    device = maps[0].device
    anchors, discordant = anchors.to(device), discordant.to(device)
    with torch.autocast(device.type, enabled=False):  # e^(1/0.07) leaves bfloat16 no digits
        f, y, x = (_unit_tokens(m) for m in maps)  # (B, hw, C)
        f, here = f[:, anchors], y[:, anchors]  # (B, K, C)
        positive = (f * here).sum(-1, keepdim=True)
        elsewhere = (f @ y.mT).masked_fill(~discordant, -torch.inf)
        noise = (f * x[:, anchors]).sum(-1, keepdim=True)
    return positive / temperature, elsewhere / temperature, noise / temperature


def _info_nce(positive: Tensor, elsewhere: Tensor, noise: Tensor, *, form: Form, noise_term: bool) -> Tensor:
    location = torch.cat([positive, elsewhere], -1)  # (B, K, 1 + hw)
    if not noise_term:
        return _first_of(location)
    if form == "joint":
        return _first_of(torch.cat([location, noise], -1))
    return _first_of(location) + _first_of(torch.cat([positive, noise], -1))


def _first_of(logits: Tensor) -> Tensor:
    """Return the mean of -log softmax at the first entry of the last dimension."""
    return (logits.logsumexp(-1) - logits[..., 0]).mean()


def _unit_tokens(features: Tensor) -> Tensor:
    """Return (B, C, h, w) as tokens of length 1, (B, hw, C), float32 or better."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    return F.normalize(features.flatten(2).mT, dim=-1)


def _taps(
    denoised: Tensor | Sequence[Tensor],
    normal: Tensor | Sequence[Tensor],
    low: Tensor | Sequence[Tensor],
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return one triple of maps a tap, all but ŷ detached."""
    f, y, x = ([m] if isinstance(m, Tensor) else list(m) for m in (denoised, normal, low))
    if not len(f) == len(y) == len(x) > 0:
        raise ValueError(f"need as many taps of each: {len(f)} denoised, {len(y)} normal, {len(x)} low")
    for tap in zip(f, y, x, strict=True):
        shapes = [tuple(m.shape) for m in tap]
        if len(shapes[0]) != 4 or len(set(shapes)) != 1:
            raise ValueError(
                "denoised, normal and low must be maps (B, C, h, w) of one shape, got "
                + ", ".join(map(str, shapes))
            )
    return [(a, b.detach(), c.detach()) for a, b, c in zip(f, y, x, strict=True)]
