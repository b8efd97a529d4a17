"""The anatomy-aware discriminator (AAD): a patch discriminator that may look at anatomy.

Taught in chapter 06. ALDEN (Wang et al., MICCAI 2025, arXiv 2508.07788) gives its discriminator the
frozen features of the normal-dose slice and fuses them by cross-attention, at several depths: FACT.
Everything finer is OURS, after SeD (Li et al., CVPR 2024, arXiv 2402.19387): a PatchGAN (Isola et
al., CVPR 2017) with three fusions, spectral norm (Miyato et al., ICLR 2018), fusions that start at
zero. This file knows feature maps only, never the network they come from. Its order is that of the
chapter: the discriminator, its losses, the fusion inside it, attention.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as normalise_spectrum

__all__ = [
    "AnatomyAwareDiscriminator",
    "Attention",
    "AttentionFeatureFusion",
    "discriminator_loss",
    "generator_loss",
]

Query = Literal["image", "semantic"]
AdversarialLoss = Literal["bce", "lsgan"]

SITES = 3  # shallow, middle, deep
SMALLEST = 16  # pixels: three halvings leave 2 x 2 logits
SLOPE = 0.2  # of the leaky ReLU, as usual in discriminators
SURROUNDINGS = 15  # pixels: grain is what the mean of this square leaves over


class AnatomyAwareDiscriminator(nn.Module):
    """Say for every patch of a CT slice whether it looks like normal dose, given the anatomy.

    A stem at half resolution, then three sites (at 1/4, 1/8 and 1/8) that mix a 3 x 3
    neighbourhood with what the anatomy has to say. `F' = act(conv3x3(concat[F, E]))` is computed
    as `act(conv3x3(F) + conv3x3(E))`, the same map written as a sum; spectral norm takes each half
    on its own. The evidence E starts at zero, so that at the first step the AAD equals the plain
    discriminator exactly: built from the same seed, the two have the same skeleton.

    Args:
        semantic_channels: channels of the three semantic maps, shallow to deep (ALDEN: the outputs
            of blocks 4, 8, 12); `None` builds the plain discriminator, without fusions.
        width: channels of the stem; the sites have two, three and three times as many.
        fusion_width: width of the tokens inside a fusion.
        heads: attention heads of a fusion.
        query: which side asks, see `AttentionFeatureFusion`.
        residual: see `AttentionFeatureFusion`.
        positions: see `AttentionFeatureFusion`.
        locality: see `AttentionFeatureFusion`.
        spectral_norm: divide the weight of each convolution of the skeleton, as a matrix, by its
            largest singular value. The last layer is left free, so that logits can be of any size.
        level: HU, the middle of what is seen.
        scale: HU that become 1.
        limit: what is seen is clamped to +-`limit`, by default [-550, 650] HU. Beyond it no
            gradient reaches the image.
        grain: HU that become 1 in a second channel, which holds what a 15 x 15 mean leaves over, clamped
            to +-`limit`; `None` leaves the channel out.

    Raises:
        ValueError: if `semantic_channels` has not three entries, or `scale`, `limit` or `grain` is not > 0.

    Soft tissue at gain is OURS: fed with the whole HU range, a prototype's texture did not move. So is the
    channel of grain: organs differ by 100 HU, real and denoised grain by 5, and without it the first
    hundreds of steps are spent on the organs, which are the same in both. A mean of 5 x 5 would hide the
    middle frequencies, where most of the noise is: a generator taught so made too fine a grain.

    Example:
        >>> aad = AnatomyAwareDiscriminator(semantic_channels=(6, 6, 6))
        >>> aad(torch.zeros(2, 1, 64, 64), [torch.ones(2, 6, 4, 4)] * 3).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        *,
        semantic_channels: Sequence[int] | None = (384, 384, 384),
        width: int = 32,
        fusion_width: int = 48,
        heads: int = 4,
        query: Query = "image",
        residual: bool = True,
        positions: bool = False,
        locality: bool = True,
        spectral_norm: bool = True,
        level: float = 50.0,
        scale: float = 200.0,
        limit: float = 3.0,
        grain: float | None = 10.0,
    ) -> None:
        super().__init__()
        if semantic_channels is not None and len(semantic_channels) != SITES:
            raise ValueError(
                f"semantic_channels needs {SITES} entries (shallow, middle, deep), "
                f"got {tuple(semantic_channels)}"
            )
        if scale <= 0 or limit <= 0 or (grain is not None and grain <= 0):
            raise ValueError(
                f"scale, limit and grain must be positive, got {scale} HU, {limit} and {grain} HU"
            )
        self.level, self.scale, self.limit, self.grain = level, scale, limit, grain
        sites = (2 * width, 3 * width, 3 * width)  # channels
        self.stem = _halving(1 if grain is None else 2, width, normed=spectral_norm)
        self.approach = nn.ModuleList(
            [
                _halving(width, sites[0], normed=spectral_norm),
                _halving(sites[0], sites[1], normed=spectral_norm),
                nn.Identity(),
            ]
        )
        self.mix = nn.ModuleList(_conv(here, here, normed=spectral_norm) for here in sites)
        self.judge = _conv(sites[-1], 1, normed=False)
        # The fusions come last: the skeleton then draws the same random numbers with or without.
        self.fusions = nn.ModuleList(
            AttentionFeatureFusion(
                here,
                semantic,
                width=fusion_width,
                heads=heads,
                query=query,
                residual=residual,
                positions=positions,
                locality=locality,
                spectral_norm=spectral_norm,
            )
            for here, semantic in zip(sites, semantic_channels or (), strict=False)
        )

    def forward(self, image: Tensor, semantics: Sequence[Tensor] | None = None) -> Tensor:
        """Return one logit a patch, positive for "normal dose".

        Args:
            image: HU, (B, 1, H, W), at least 16 x 16; H and W best divisible by 8.
            semantics: three maps (B, C_i, h_i, w_i), shallow to deep, of any grid, showing the same
                field as `image`. Of the normal-dose slice for the real and the fake pass alike
                (OURS). `None` leaves the fusions out: what the same weights say without anatomy.

        Returns:
            Logits (B, 1, H/8, W/8). One logit sees 92 x 92 pixels of the image, 78 x 78 without the channel
            of grain (pix2pix: 70 x 70); with `query="semantic"` fusions, once awake, see all.

        Raises:
            ValueError: if a shape does not fit, or semantics come to a plain discriminator.
        """
        self._check(image, semantics)
        x = self.stem(self._see(image))  # (B, width, H/2, W/2)
        for site in range(SITES):
            x = self.approach[site](x)  # (B, 2 width, H/4, W/4), then (B, 3 width, H/8, W/8)
            x = self._mix(site, x, None if semantics is None else semantics[site])
        logits: Tensor = self.judge(x)  # (B, 1, H/8, W/8)
        return logits

    @torch.no_grad()
    def attention(self, image: Tensor, semantics: Sequence[Tensor]) -> list[Tensor]:
        """Return the cross-attention of the three sites, each (B, heads, asking, asked).

        Arguments and errors as in `forward`; tokens are in row-major order of their grids.
        """
        self._check(image, semantics)
        x, maps = self.stem(self._see(image)), []
        for site, fusion in enumerate(self._fusions()):
            x = self.approach[site](x)
            maps.append(fusion.attention(x, semantics[site]))
            x = self._mix(site, x, semantics[site])
        return maps

    def _see(self, image: Tensor) -> Tensor:
        """Return the image in its window and, beside it, its grain: (B, 1 or 2, H, W), no unit."""
        seen = ((image - self.level) / self.scale).clamp(-self.limit, self.limit)
        if self.grain is None:
            return seen
        mean = _surroundings_mean(seen)
        grain = ((seen - mean) * (self.scale / self.grain)).clamp(-self.limit, self.limit)
        return torch.cat([seen, grain], 1)

    def _mix(self, site: int, x: Tensor, semantics: Tensor | None) -> Tensor:
        mixed: Tensor = self.mix[site](x)
        if semantics is not None:
            mixed = mixed + self.fusions[site](x, semantics)
        return F.leaky_relu(mixed, SLOPE)

    def _fusions(self) -> list["AttentionFeatureFusion"]:
        return [f for f in self.fusions if isinstance(f, AttentionFeatureFusion)]

    def _check(self, image: Tensor, semantics: Sequence[Tensor] | None) -> None:
        if image.ndim != 4 or image.shape[1] != 1 or min(image.shape[-2:]) < SMALLEST:
            raise ValueError(f"image must be (B, 1, H, W) with H, W >= {SMALLEST}, got {tuple(image.shape)}")
        if semantics is None:
            return
        if not self.fusions:
            raise ValueError("this is the plain discriminator (semantic_channels=None): no semantics")
        if len(semantics) != SITES:
            raise ValueError(f"semantics needs {SITES} maps (shallow, middle, deep), got {len(semantics)}")


def _surroundings_mean(seen: Tensor) -> Tensor:
    """Return the mean of the square around each pixel: rows first, then columns, as that is faster."""
    half = SURROUNDINGS // 2
    rows = F.avg_pool2d(seen, (1, SURROUNDINGS), 1, (0, half), count_include_pad=False)
    return F.avg_pool2d(rows, (SURROUNDINGS, 1), 1, (half, 0), count_include_pad=False)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, *, kind: AdversarialLoss = "bce") -> Tensor:
    """Return what the discriminator minimises: real patches towards 1, fake ones towards 0.

    `bce` is `BCE(real, 1) + BCE(fake, 0)` on logits (Goodfellow et al., 2014); `lsgan` is
    `½ mean((real - 1)²) + ½ mean(fake²)` (Mao et al., ICCV 2017). The choice is OURS. Feed the fake
    image detached: `D(ŷ.detach(), A(y))`.

    Args:
        real_logits: `D(y, A(y))`, any shape.
        fake_logits: `D(ŷ, A(y))`, any shape.
        kind: "bce" or "lsgan".

    Raises:
        ValueError: if `kind` is unknown.

    Example:
        >>> discriminator_loss(torch.zeros(4), torch.zeros(4))  # undecided: 2 log 2
        tensor(1.3863)
    """
    return _distance(real_logits, real=True, kind=kind) + _distance(fake_logits, real=False, kind=kind)


def generator_loss(fake_logits: Tensor, *, kind: AdversarialLoss = "bce") -> Tensor:
    """Return what the generator adds to its loss: its patches should pass as real.

    `bce` is the non-saturating `BCE(fake, 1)`; `lsgan` is `½ mean((fake - 1)²)`.

    Args:
        fake_logits: `D(ŷ, A(y))`, any shape, not detached.
        kind: "bce" or "lsgan".

    Raises:
        ValueError: if `kind` is unknown.
    """
    return _distance(fake_logits, real=True, kind=kind)


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
        _check_choice("query", query, get_args(Query))
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
        self.spread = _conv(width, image_channels, bias=False, normed=spectral_norm)

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
        """Return who looks where in the cross-attention: (B, heads, asking, asked), rows sum to 1.

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


def _conv(inputs: int, outputs: int, *, normed: bool, bias: bool = True) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    return normalise_spectrum(conv) if normed else conv


def _halving(inputs: int, outputs: int, *, normed: bool) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
    return nn.Sequential(normalise_spectrum(conv) if normed else conv, nn.LeakyReLU(SLOPE))


def _distance(logits: Tensor, *, real: bool, kind: AdversarialLoss) -> Tensor:
    """Return how far logits are from the wanted answer, in float32 also under autocast."""
    _check_choice("kind", kind, get_args(AdversarialLoss))
    logits = logits.float()
    if kind == "bce":  # -log sigmoid(z) = softplus(-z)
        return F.softplus(-logits if real else logits).mean()
    return 0.5 * (logits - float(real)).square().mean()


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
