"""Attention feature fusion (AFF): image features ask the anatomy, place by place. Taught in chapter 06.

ALDEN (Wang et al., MICCAI 2025) fuses the discriminator's image features with the vision model's features of
the normal-dose slice by cross-attention: FACT. Everything finer is OURS, after SeD (Li et al., CVPR 2024,
arXiv 2402.19387): gated feed-forward, layer norm over channels, a fusion that starts at zero. This file knows
feature maps only, never the network they come from.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as normalise_spectrum

__all__ = ["Attention", "AttentionFeatureFusion"]

Query = Literal["image", "semantic"]


class AttentionFeatureFusion(nn.Module):
    """Let discriminator features F and semantic features A look at each other (AFF).

    That features are fused by cross-attention is FACT; the block is OURS, after SeD::

        S = tokens(conv1x1(groupnorm(A)))    (B, hw, d)
        T = tokens(conv1x1(F))               (B, HW, d)
        S = S + attn(LN S, LN S)
        query "semantic":  Q = S + attn(q=LN S, kv=LN T)
        query "image":     Q = T + attn(q=LN T, kv=LN S)
        Q = Q + GEGLU(LN Q)
        E = resize_to(H, W, zero_init_conv1x1(Q))

    and `conv3x3(E)` is returned, the anatomy's half of `conv3x3(concat[F, E])`. It is zero at first
    and learns all the same: the gradient of a zero weight is its input times what comes back, and
    neither is zero. One step later the layers behind it learn too.

    With query "image" every place of the image searches all semantic tokens by content alone, so
    that shuffling the tokens changes nothing; `positions` tells both sides where they are, and
    `locality` lets near ones count more. With query "semantic" the answer is laid back on the grid
    of A, so that places matter anyhow.

    Args:
        image_channels: channels of F.
        semantic_channels: channels of A.
        width: d, of the tokens; divisible by `heads`, and by 4 with `positions`.
        heads: attention heads.
        query: the side that asks. SeD: "semantic". OURS: "image", already at F's resolution.
        residual: `False` leaves out all three adds, as SeD's code does.
        positions: add sines of the place in the crop to S and T. OURS, off: not in SeD.
        locality: in the cross-attention, take from the score of two tokens their distance, in tokens
            of A, times 2, 1, 1/2, ... in the first, second, third, ... head, and nothing in the last of
            several. OURS, after ALiBi (Press et al., ICLR 2022): fresh attention looks everywhere alike,
            and in our training it stayed so for hundreds of steps; then the anatomy is one mean a crop.
        spectral_norm: normalise the 3 x 3 convolution. Never the zero one: 0/0.

    Raises:
        ValueError: if `query` is unknown or `width` is not divisible as said.
    """

    def __init__(
        self,
        image_channels: int,
        semantic_channels: int,
        *,
        width: int = 48,
        heads: int = 4,
        query: Query = "image",
        residual: bool = True,
        positions: bool = False,
        locality: bool = True,
        spectral_norm: bool = True,
    ) -> None:
        super().__init__()
        check_choice("query", query, get_args(Query))
        if positions and width % 4:
            raise ValueError(f"positions need a width divisible by 4, got {width}")
        self.semantic_channels, self.width = semantic_channels, width
        self.query, self.residual = query, residual
        self.positions, self.locality = positions, locality
        groups = math.gcd(32, semantic_channels)  # 32 as in SeD, fewer for hand-made maps
        self.semantic_in = nn.Sequential(
            nn.GroupNorm(groups, semantic_channels), nn.Conv2d(semantic_channels, width, 1)
        )
        self.image_in = nn.Conv2d(image_channels, width, 1)
        self.self_attention = Attention(width, heads=heads)
        self.cross_attention = Attention(width, heads=heads)
        self.feed_forward = _GatedFeedForward(width)
        self.zero = nn.Conv2d(width, width, 1, bias=False)
        nn.init.zeros_(self.zero.weight)
        self.spread = convolution(width, image_channels, bias=False, normed=spectral_norm)

    def forward(self, features: Tensor, semantics: Tensor) -> Tensor:
        """Return what the anatomy adds to the discriminator's features before their activation.

        Args:
            features: F, (B, image_channels, H, W).
            semantics: A, (B, semantic_channels, h, w), of any grid, on the same field as F.

        Returns:
            (B, image_channels, H, W), zero before the first step.

        Raises:
            ValueError: if `semantics` does not fit.
        """
        asking, asked = self._tokens(features, semantics)
        near = self._nearness(features, semantics)
        asking = self._add(asking, self.cross_attention(asking, asked, near))
        asking = self._add(asking, self.feed_forward(asking))
        grid = (semantics if self.query == "semantic" else features).shape[-2:]
        evidence: Tensor = self.zero(asking.mT.reshape(-1, self.width, *grid))
        if grid != features.shape[-2:]:
            evidence = F.interpolate(evidence, features.shape[-2:], mode="bilinear")
        spread: Tensor = self.spread(evidence)  # (B, image_channels, H, W)
        return spread

    def attention(self, features: Tensor, semantics: Tensor) -> Tensor:
        """Weights of the cross-attention, (B, heads, asking, asked): each row of an asking token sums to 1.

        Arguments and errors as in `forward`.
        """
        near = self._nearness(features, semantics)
        return self.cross_attention.weights(*self._tokens(features, semantics), near)

    def _tokens(self, features: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens that ask and the tokens that are asked."""
        self._check(features, semantics)
        image = self._with_places(self.image_in(features))  # (B, HW, d)
        semantic = self._with_places(self.semantic_in(semantics))  # (B, hw, d)
        semantic = self._add(semantic, self.self_attention(semantic, semantic))
        return (semantic, image) if self.query == "semantic" else (image, semantic)

    def _nearness(self, features: Tensor, semantics: Tensor) -> Tensor | None:
        """Return what distance adds to the scores, (heads, asking, asked), 0 or below; None without."""
        if not self.locality:
            return None
        unit = (int(semantics.shape[-2]), int(semantics.shape[-1]))
        image, semantic = (_places(*x.shape[-2:], unit=unit) for x in (features, semantics))
        distance = torch.cdist(semantic, image) if self.query == "semantic" else torch.cdist(image, semantic)
        return -(_slopes(self.cross_attention.heads)[:, None, None] * distance).to(features)

    def _with_places(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT  # (B, d, h, w) -> (B, hw, d)
        if self.positions:
            tokens = tokens + _sines(*x.shape[-2:], width=self.width).to(tokens)
        return tokens

    def _add(self, x: Tensor, update: Tensor) -> Tensor:
        return x + update if self.residual else update

    def _check(self, features: Tensor, semantics: Tensor) -> None:
        if semantics.ndim != 4 or semantics.shape[1] != self.semantic_channels:
            raise ValueError(
                f"semantics must be (B, {self.semantic_channels}, h, w), got {tuple(semantics.shape)}"
            )
        if len(semantics) != len(features):
            raise ValueError(f"{len(features)} images but {len(semantics)} semantic maps: batches must match")


class Attention(nn.Module):
    """Multi-head attention on layer-normed tokens (Vaswani et al., NeurIPS 2017, eq. 1).

    The layer norms have no weights of their own: the linear layers right behind would absorb them.

    Args:
        width: of the tokens.
        heads: each works on `width / heads` channels.

    Raises:
        ValueError: if `width` is not divisible by `heads`.
    """

    def __init__(self, width: int, *, heads: int = 4) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.width, self.heads = width, heads
        self.to_query = nn.Linear(width, width)
        self.to_key = nn.Linear(width, width)
        self.to_value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, asking: Tensor, asked: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return what each asking token found: (B, q, d) and (B, k, d) -> (B, q, d).

        `bias` (heads, q, k) is added to the scores.
        """
        asked = _layer_norm(asked)
        value = self._split(self.to_value(asked))
        # Written out: for so few and narrow tokens, a fused kernel is slower on a CPU.
        found = self._weights(_layer_norm(asking), asked, bias) @ value  # (B, heads, q, d / heads)
        answer: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return answer

    def weights(self, asking: Tensor, asked: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the weights behind `forward`, `softmax(q kᵀ / √(d / heads) + bias)`: (B, heads, q, k)."""
        return self._weights(_layer_norm(asking), _layer_norm(asked), bias)

    def _weights(self, asking: Tensor, asked: Tensor, bias: Tensor | None) -> Tensor:
        query, key = self._split(self.to_query(asking)), self._split(self.to_key(asked))
        scores = query / math.sqrt(query.shape[-1]) @ key.mT
        return (scores if bias is None else scores + bias).softmax(-1)

    def _split(self, tokens: Tensor) -> Tensor:
        b, n, d = tokens.shape
        return tokens.reshape(b, n, self.heads, d // self.heads).transpose(1, 2)


class _GatedFeedForward(nn.Module):
    """GEGLU (Shazeer, 2020): one half of the channels gates the other, token by token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * width)  # SeD: 8 times; this one must stay cheap on a CPU
        self.down = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        value, gate = self.up(_layer_norm(tokens)).chunk(2, -1)
        out: Tensor = self.down(value * F.gelu(gate))
        return out


def _layer_norm(tokens: Tensor) -> Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:])


def _places(h: int, w: int, *, unit: tuple[int, int]) -> Tensor:
    """Return (h w, 2): y and x of the middle of every place of a grid, where `unit` is the crop's size."""
    y, x = ((torch.arange(n) + 0.5) / n * size for n, size in zip((h, w), unit, strict=True))
    return torch.cartesian_prod(y, x)


def _slopes(heads: int) -> Tensor:
    """Return (heads,): how much a score loses by a token of distance: 2, 1, 1/2, ..., and at last 0."""
    slopes = 2.0 ** (1 - torch.arange(heads))
    slopes[1:][-1:] = 0.0  # one head sees the whole crop, unless there is but one
    return slopes


def _sines(h: int, w: int, *, width: int) -> Tensor:
    """Return (h w, width): sines of y and x, in crops, from half a period a crop to eight."""
    frequency = math.pi * 2 ** torch.linspace(0, 4, width // 4)
    y, x = ((torch.arange(n) + 0.5)[:, None] / n * frequency for n in (h, w))  # (h or w, width / 4)
    angle = torch.cat([y[:, None].expand(-1, w, -1), x.expand(h, -1, -1)], -1)
    return torch.cat([angle.sin(), angle.cos()], -1).flatten(0, 1)


def convolution(inputs: int, outputs: int, *, normed: bool, bias: bool = True) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    return normalise_spectrum(conv) if normed else conv


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
