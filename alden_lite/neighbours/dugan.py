"""DU-GAN: two U-Nets as discriminators, of the image and of its gradients. Taught in chapter 09.

    L_D = d(D(y), 1) + d(D(yhat), 0) + d(D(x), 0)   +   CutMix,     d(a, b) = mean (a - b)²
    L_G = w_pix mean (yhat - y)² + w_grad mean |S yhat - S y|
          + w_adv (d(D_image(yhat), 1) + d(D_gradient(S yhat), 1))

Huang et al., IEEE TIM 71 (2022), arXiv 2108.10772. Each D gives one score for the crop and one for every
pixel; S is the length of the Sobel gradient; x, the low-dose slice, counts as fake too. CutMix (Schönfeld
et al., CVPR 2020): a rectangle of yhat is put into y, D must say of every pixel where it came from, and its
map of the mixed crop must be the mix of its maps. How often that is done rises to one step in two.

Deviations. The discriminators have 8 channels at first and three halvings (the paper: 64 and six); the
generator is the course's U-Net, from its `l1` weights, where the paper has RED-CNN; betas and rates of Adam
are the recipe's: losses are compared here, not networks and not optimisers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from alden_lite.alden.paired import PairedPlan, PairedRun
from alden_lite.data.pairs import Pairs
from alden_lite.engine.crops import Batch, purpose_seed
from alden_lite.engine.loop import frozen

__all__ = ["DualDomainPlan", "DualDomainTraining", "UNetDiscriminator", "cutmix_mask", "gradient_length"]

CUTMIX = 0.5  # largest share of steps
CONSISTENCY = 1.0  # weight of the maps' agreement
SLOPE = 0.2  # of the leaky ReLU


class UNetDiscriminator(nn.Module):
    """Is it normal dose? One answer for the crop, from the bottom of a U-Net, and one for every pixel.

    Args:
        width: channels at full resolution; twice, four and eight times as many further down.
    """

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        sizes = [width * 2**level for level in range(4)]
        self.enter = _block(1, sizes[0])
        self.down = nn.ModuleList(_block(i, o) for i, o in pairwise(sizes))
        self.up = nn.ModuleList(_block(i + o, o) for i, o in zip(sizes[:0:-1], sizes[-2::-1], strict=True))
        self.crop_score = nn.Linear(sizes[-1], 1)
        self.pixel_score = nn.Conv2d(width, 1, 1)

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, H, W), sides divisible by 8, to scores (B,) and (B, 1, H, W)."""
        x, shortcuts = self.enter(u), []
        for block in self.down:
            shortcuts.append(x)
            x = block(F.avg_pool2d(x, 2))
        crop: Tensor = self.crop_score(x.mean((2, 3)))[:, 0]
        for block in self.up:
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), shortcuts.pop()], 1))
        return crop, self.pixel_score(x)


def _block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(inputs, outputs, 3, padding=1)),
        nn.LeakyReLU(SLOPE),
        spectral_norm(nn.Conv2d(outputs, outputs, 3, padding=1)),
        nn.LeakyReLU(SLOPE),
    )


def gradient_length(u: Tensor) -> Tensor:
    """Length of the Sobel gradient, (B, 1, H, W) to the same; a ramp of 1 a pixel has 2.

    Just above 0 where there is none, so that it has a derivative there. Edges are mirrored, not dark.
    """
    across = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]).to(u) / 4
    kernels = torch.stack([across, across.T])[:, None]
    both = F.conv2d(F.pad(u, (1, 1, 1, 1), mode="replicate"), kernels)
    return (both.square().sum(1, keepdim=True) + 1e-8).sqrt()


def cutmix_mask(size: int, rng: np.random.Generator) -> Tensor:
    """(size, size): 1, but 0 in a square whose middle lies anywhere and whose share of the area is drawn
    evenly from 0 to 1. What sticks out is cut off, so that a third of the area is 0 on average."""
    side = size * float(np.sqrt(rng.random()))
    middle = rng.random(2) * size
    (top, left), (bottom, right) = (np.clip(np.round(middle + s * side / 2), 0, size) for s in (-1, 1))
    mask = torch.ones(size, size)
    mask[int(top) : int(bottom), int(left) : int(right)] = 0
    return mask


@dataclass(frozen=True, kw_only=True)
class DualDomainPlan(PairedPlan):
    """A plan with w_adv, w_pix and w_grad (defaults: the paper's), and the rate of both discriminators."""

    dual_weight: float = 0.1
    image_weight: float = 1.0
    gradient_weight: float = 20.0
    keep: float = 0.0  # share of the low-dose slice in the target, as in ALDEN's recipe
    discriminator_learning_rate: float = 2e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_above_zero("discriminator_learning_rate")
        self.check_not_negative("dual_weight", "image_weight", "gradient_weight")
        if not 0 <= self.keep < 1:
            raise ValueError(f"keep is a share in [0, 1), got {self.keep}")


class DualDomainTraining(PairedRun):
    """A generator that learns from pixels, from their gradients, and from a discriminator of each.

    Args:
        plan, pairs, folder: as for every paired run.
    """

    plan: DualDomainPlan
    plan_class = DualDomainPlan

    def __init__(self, plan: DualDomainPlan, pairs: Pairs, folder: str | Path | None = None) -> None:
        super().__init__(plan, pairs, folder)
        self.judges = {
            domain: self.player(
                f"{domain}_discriminator",
                UNetDiscriminator(),
                plan.discriminator_learning_rate,
                clipped=False,
            )
            for domain in ("image", "gradient")
        }

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Both discriminators learn, then G."""
        denoised = self.generate(batch)
        learned = self.discriminators_step(denoised.detach(), batch)
        return {"discriminators": learned} | self.generator_step(denoised, batch)

    def discriminators_step(self, denoised: Tensor, batch: Batch) -> Tensor:
        """Each learns in its own domain; gives the sum of their losses."""
        rng = np.random.default_rng(purpose_seed(self.plan.seed, "cutmix", self.done))
        images = (denoised, batch.normal, batch.low)
        domains = {"image": images, "gradient": tuple(gradient_length(u) for u in images)}
        learned = []
        for domain, (fake, real, low) in domains.items():
            loss = self._judged(self.judges[domain], fake, real, low, rng)
            learned.append(self.minimise(f"{domain}_discriminator", loss))
        return torch.stack(learned).sum()

    def generator_step(self, denoised: Tensor, batch: Batch) -> dict[str, Tensor]:
        """G comes nearer in pixels and gradients, and fools both."""
        target = torch.lerp(batch.normal, batch.low, self.plan.keep)
        domains = {"image": denoised, "gradient": gradient_length(denoised)}
        fooled = []
        for domain, fake in domains.items():
            judge = self.judges[domain].module
            with frozen(judge), self.fabric.autocast():
                fooled.append(least_squares(judge(fake), 1.0))
        losses = {
            "image": F.mse_loss(denoised, target),
            "gradient": F.l1_loss(domains["gradient"], gradient_length(target)),
            "adversarial": torch.stack(fooled).sum(),
        }
        plan = self.plan
        total = plan.image_weight * losses["image"] + plan.gradient_weight * losses["gradient"]
        self.minimise("generator", total + plan.dual_weight * losses["adversarial"])
        return {name: loss.detach() for name, loss in losses.items()}

    def _judged(
        self, judge: Any, fake: Tensor, real: Tensor, low: Tensor, rng: np.random.Generator
    ) -> Tensor:
        """Loss of one discriminator."""
        scores, maps = judge(torch.cat([real, fake, low]))
        count = len(real)
        loss = least_squares((scores[:count], maps[:count]), 1.0)
        for first in (count, 2 * count):
            part = slice(first, first + count)
            loss = loss + least_squares((scores[part], maps[part]), 0.0)
        if rng.random() < CUTMIX * self.done / self.plan.steps:
            mask = cutmix_mask(real.shape[-1], rng).to(real)
            score, found = judge(mask * real + (1 - mask) * fake)
            mixed = mask * maps[:count] + (1 - mask) * maps[count : 2 * count]
            loss = loss + score.float().square().mean() + F.mse_loss(found.float(), mask.expand_as(found))
            loss = loss + CONSISTENCY * F.mse_loss(found.float(), mixed.float())
        return loss


def least_squares(answers: tuple[Tensor, Tensor], wanted: float) -> Tensor:
    """`d(D, wanted)`: of the crop's scores and of the pixels', in float32, added up."""
    both = [(answer.float() - wanted).square().mean() for answer in answers]
    return both[0] + both[1]
