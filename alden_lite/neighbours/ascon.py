"""ASCON's loss, reduced: structure, and a contrast between yhat and y at two scales. Taught in chapter 09.

    L_G = 10 mean (yhat - y)² + (1 - SSIM(yhat, y)) + w (L_patch + L_pixel) / 2

Chen et al., MICCAI 2023, "ASCON". An online encoder sees yhat; its copy, the target, whose weights follow
slowly (He et al., CVPR 2020), sees y. L_patch asks the online token at a place of the coarse map to predict
the mean of the k target tokens most like y's own there: 2 - 2 cos, without negatives (BYOL). L_pixel is
InfoNCE on the fine map: yhat's pixel must find y's among y's pixels of the same patch. The online encoder
learns from the same loss.

Reduced (OURS): the encoder is five convolutions (the paper: a disentangled U-Net), its fine map is at half
resolution, a patch is 8 x 8 of its pixels and all its other pixels are negatives (the authors' code: 8 of
them), one temperature (the code: 1, unnormalised; here unit vectors at 0.1), no weighting of the likely
neighbours. SSIM's range is 400 HU. Weights are those of the authors' code, divided by 10.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alden_lite.alden.paired import PairedPlan, PairedRun
from alden_lite.data.pairs import Pairs
from alden_lite.engine.crops import Batch, purpose_seed
from alden_lite.engine.loop import frozen
from alden_lite.physics.hounsfield import HU_PER_UNIT

__all__ = ["AnatomicalEncoder", "AsconPlan", "AsconTraining", "patch_loss", "pixel_loss", "soft_ssim"]

RANGE = 400 / HU_PER_UNIT  # of SSIM, on the networks' scale
MOMENTUM = 0.99
NEAREST = 3
TEMPERATURE = 0.1
PATCH = 8  # fine pixels
PLACES = 128  # of the fine map, a step


class AnatomicalEncoder(nn.Module):
    """Two maps of a crop: fine (B, C, H/2, W/2) and coarse (B, 2C, H/16, W/16).

    Args:
        width: C.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.enter = _halving(1, width)
        self.fine = nn.Conv2d(width, width, 3, padding=1)
        self.deep = nn.Sequential(
            _halving(width, width), _halving(width, 2 * width), _halving(2 * width, 2 * width)
        )

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, H, W) on the networks' scale, sides divisible by 16."""
        x = self.enter(u)
        return self.fine(x), self.deep(x)


def _halving(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2))


def patch_loss(predicted: Tensor, target: Tensor, *, nearest: int = NEAREST) -> Tensor:
    """2 - 2 cos between each predicted token and the mean of the target tokens most like the one there.

    Args:
        predicted, target: (B, N, C); a target token is among its own nearest.
        nearest: k, at most N.
    """
    unit = F.normalize(target.detach(), dim=-1)
    close = (unit @ unit.mT).topk(nearest, dim=-1).indices  # (B, N, k)
    rows = torch.arange(len(unit), device=unit.device)[:, None, None]
    mean = F.normalize(unit[rows, close].mean(2), dim=-1)
    return (2 - 2 * (F.normalize(predicted, dim=-1) * mean).sum(-1)).mean()


def pixel_loss(
    online: Tensor, target: Tensor, *, patch: int = PATCH, places: int = PLACES, seed: int = 0
) -> Tensor:
    """InfoNCE in nats: a pixel of `online` must find the same pixel of `target` in its patch.

    Args:
        online, target: (B, C, h, w), sides multiples of `patch`.
        patch: side of a patch; its pixels other than the one asked for are the negatives.
        places: drawn, with repetition, in each crop.
        seed: of the draw.
    """
    both = [F.normalize(_patches(maps, patch), dim=-1) for maps in (online, target.detach())]
    generator = torch.Generator().manual_seed(seed)
    which, pixel = (torch.randint(both[0].shape[n], (places,), generator=generator) for n in (1, 2))
    asked = both[0][:, which, pixel]  # (B, places, C)
    logits = (both[1][:, which] @ asked[..., None])[..., 0] / TEMPERATURE  # (B, places, p²)
    return F.cross_entropy(logits.flatten(0, 1), pixel.repeat(len(online)).to(logits.device))


def _patches(maps: Tensor, patch: int) -> Tensor:
    """(B, C, h, w) to (B, patches, patch², C), both row by row."""
    b, c, h, w = maps.shape
    cut = maps.reshape(b, c, h // patch, patch, w // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, patch * patch, c)


def soft_ssim(a: Tensor, b: Tensor, *, value_range: float = RANGE) -> Tensor:
    """Mean SSIM of (B, 1, H, W), with gradient; Gaussian of 11 pixels with sigma 1.5, no padding.

    Source: Wang et al., IEEE TIP 13:600 (2004), eq. 13. Nothing is clipped to a window.
    """
    line = torch.exp(-((torch.arange(11.0) - 5) ** 2) / (2 * 1.5**2))
    line = (line / line.sum()).to(a)
    kernel = torch.outer(line, line)[None, None]

    def mean(u: Tensor) -> Tensor:
        return F.conv2d(u, kernel)

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    together = mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    above = (2 * mean_a * mean_b + c1) * (2 * together + c2)
    return (above / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))).mean()


@dataclass(frozen=True, kw_only=True)
class AsconPlan(PairedPlan):
    """A plan with the weight w of the contrast, and the encoder's rate."""

    anatomical_weight: float = 0.01
    encoder_learning_rate: float = 2e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_above_zero("encoder_learning_rate")
        self.check_not_negative("anatomical_weight")
        if self.crop % (2 * PATCH):
            raise ValueError(f"crop={self.crop} must be a multiple of {2 * PATCH} pixels, ASCON's patches")


class AsconTraining(PairedRun):
    """A generator that learns from pixels, structure and an encoder's contrast between yhat and y.

    Args:
        plan, pairs, folder: as for every paired run.
    """

    plan: AsconPlan
    plan_class = AsconPlan

    def __init__(self, plan: AsconPlan, pairs: Pairs, folder: str | Path | None = None) -> None:
        super().__init__(plan, pairs, folder)
        encoder = AnatomicalEncoder()
        self.target = copy.deepcopy(encoder).requires_grad_(False).to(self.fabric.device)
        self.followers["target"] = self.target
        width = 2 * encoder.fine.out_channels
        predictor = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        both = nn.ModuleDict({"encoder": encoder, "predictor": predictor})
        self.online = self.player("online", both, plan.encoder_learning_rate, clipped=False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The online encoder learns, the target follows, then G learns."""
        denoised = self.generate(batch)
        self.minimise("online", self._contrast(denoised.detach(), batch.normal))
        self._follow()
        return self.generator_step(denoised, batch)

    def generator_step(self, denoised: Tensor, batch: Batch) -> dict[str, Tensor]:
        """G comes nearer in pixels, in structure and as the encoder sees it."""
        with frozen(self.online.module):
            contrast = self._contrast(denoised, batch.normal)
        losses = {
            "pixel": F.mse_loss(denoised, batch.normal),
            "structure": 1 - soft_ssim(denoised, batch.normal),
            "contrast": contrast,
        }
        total = 10 * losses["pixel"] + losses["structure"] + self.plan.anatomical_weight * contrast
        self.minimise("generator", total)
        return {name: loss.detach() for name, loss in losses.items()}

    def _contrast(self, denoised: Tensor, normal: Tensor) -> Tensor:
        seed = purpose_seed(self.plan.seed, "pixels", self.done)
        online = self.online.module
        with self.fabric.autocast():
            fine, coarse = online["encoder"](denoised)
            predicted = online["predictor"](coarse.flatten(2).mT)
            with torch.no_grad():
                fine_target, coarse_target = self.target(normal)
        patches = patch_loss(predicted.float(), coarse_target.float().flatten(2).mT)
        return (patches + pixel_loss(fine.float(), fine_target.float(), seed=seed)) / 2

    @torch.no_grad()
    def _follow(self) -> None:
        now = self.online.module["encoder"].parameters()
        for slow, fast in zip(self.target.parameters(), now, strict=True):
            slow.lerp_(fast, 1 - MOMENTUM)
