"""The anatomy-aware discriminator (AAD): a patch discriminator that may look at anatomy.

Taught in chapter 06. ALDEN (Wang et al., MICCAI 2025, arXiv 2508.07788) gives its discriminator the
frozen features of the normal-dose slice and fuses them by cross-attention, at several depths: FACT.
Everything finer is OURS, after SeD (Li et al., CVPR 2024, arXiv 2402.19387): a PatchGAN (Isola et
al., CVPR 2017) with three fusions, spectral norm (Miyato et al., ICLR 2018), fusions that start at
zero. This file knows feature maps only, never the network they come from. Its order is that of the
chapter: the discriminator, its losses, the fusion inside it, attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as normalise_spectrum

from alden_lite.alden.fusion import AttentionFeatureFusion, Query, check_choice, convolution

__all__ = ["AnatomyAwareDiscriminator", "discriminator_loss", "generator_loss"]

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
        self.mix = nn.ModuleList(convolution(here, here, normed=spectral_norm) for here in sites)
        self.judge = convolution(sites[-1], 1, normed=False)
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

    def _fusions(self) -> list[AttentionFeatureFusion]:
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


def _halving(inputs: int, outputs: int, *, normed: bool) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
    return nn.Sequential(normalise_spectrum(conv) if normed else conv, nn.LeakyReLU(SLOPE))


def _distance(logits: Tensor, *, real: bool, kind: AdversarialLoss) -> Tensor:
    """Return how far logits are from the wanted answer, in float32 also under autocast."""
    check_choice("kind", kind, get_args(AdversarialLoss))
    logits = logits.float()
    if kind == "bce":  # -log sigmoid(z) = softplus(-z)
        return F.softplus(-logits if real else logits).mean()
    return 0.5 * (logits - float(real)).square().mean()
