"""WGAN with a perceptual loss: a critic of whole crops, and features. Taught in chapter 09.

    L_D = mean D(yhat) - mean D(y) + 10 mean (|grad D(u)| - 1)²,    u on the line between y and yhat
    L_G = -mean D(yhat) + w mean (phi(yhat) - phi(y))²

Yang et al., IEEE TMI 37:1348 (2018), "WGAN-VGG": a critic that scores whole crops and has slope 1
(Gulrajani et al., NeurIPS 2017), four of its steps for each of the generator's, features of a network in
place of pixels.

Deviations. phi is DINOv2 at blocks 3 and 6, because VGG's weights are not to be had offline, and because
the network that judges (EfficientNet-Lite0) must not train; so the method is called `wgan_dino`. The critic
has a quarter of the paper's channels; the generator is the course's U-Net, from its `l1` weights, and betas
and rates of Adam are the recipe's (the paper: 0.5 and 0.9, 1e-5), so that losses are compared, not networks
and not optimisers. The critic's four steps see the generator's crops of that step, not four batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from alden_lite.alden.paired import PairedPlan, PairedRun
from alden_lite.alden.pvm import PVM, load_pvm
from alden_lite.data.pairs import Pairs
from alden_lite.engine.crops import Batch, purpose_seed
from alden_lite.engine.loop import frozen
from alden_lite.physics.hounsfield import denormalise

__all__ = ["TAPS", "Critic", "WassersteinPlan", "WassersteinTraining", "gradient_penalty"]

TAPS = (3, 6)
"""Blocks of DINOv2 that the perceptual loss compares: shallow ones, as texture is."""

PENALTY = 10.0
CRITIC_STEPS = 4  # of which each sees the same crops


class Critic(nn.Module):
    """How much a crop looks like normal dose: one number without bounds for each.

    Six convolutions of 3 x 3, every second one halving, then two linear layers (Yang et al., fig. 2).

    Args:
        size: side of the crops in pixels.
        width: channels of the first layer; 64 in the paper.
    """

    def __init__(self, size: int, *, width: int = 16) -> None:
        super().__init__()
        channels = (1, width, width, 2 * width, 2 * width, 4 * width, 4 * width)
        layers: list[nn.Module] = []
        for number, (i, o) in enumerate(pairwise(channels)):
            layers += [nn.Conv2d(i, o, 3, stride=1 + number % 2, padding=1), nn.LeakyReLU(0.2)]
            size = size if number % 2 == 0 else (size + 1) // 2
        self.look = nn.Sequential(*layers)
        self.score = nn.Sequential(
            nn.Linear(channels[-1] * size * size, 16 * width), nn.LeakyReLU(0.2), nn.Linear(16 * width, 1)
        )
        # He's start (OURS): with torch's own, eight layers make the slope a thousandth, and it must become 1.
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, a=0.2)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """(B, 1, S, S) on the networks' scale to (B,)."""
        answer: torch.Tensor = self.score(self.look(u).flatten(1))[:, 0]
        return answer


def gradient_penalty(
    critic: nn.Module, real: torch.Tensor, fake: torch.Tensor, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Mean of (|grad D(u)| - 1)² over the batch, u at a random place between each real and its fake crop.

    Args:
        critic: (B, 1, S, S) to (B,).
        real, fake: (B, 1, S, S), without a graph.
        generator: of the places, for the same ones again.

    Source: Gulrajani et al., NeurIPS 2017, eq. 3.
    """
    place = torch.rand(len(real), 1, 1, 1, generator=generator).to(real)
    between = torch.lerp(fake, real, place).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    length = slope.flatten(1).norm(dim=1)
    return (length - 1).square().mean()


@dataclass(frozen=True, kw_only=True)
class WassersteinPlan(PairedPlan):
    """A plan with w, the perceptual loss's weight (the paper: 0.1, for VGG), and the critic's rate."""

    perceptual_weight: float = 0.1
    critic_learning_rate: float = 2e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_above_zero("critic_learning_rate")
        self.check_not_negative("perceptual_weight")


class WassersteinTraining(PairedRun):
    """A generator that learns from a critic and from features, not from pixels.

    Args:
        plan, pairs, folder: as for every paired run.
        pvm: a PVM with taps `TAPS`, loaded already.
    """

    plan: WassersteinPlan
    plan_class = WassersteinPlan

    def __init__(
        self, plan: WassersteinPlan, pairs: Pairs, folder: str | Path | None = None, *, pvm: PVM | None = None
    ) -> None:
        super().__init__(plan, pairs, folder)
        self.critic = self.player("critic", Critic(plan.crop), plan.critic_learning_rate, clipped=False)
        self.look_with(pvm or load_pvm("dinov2_vits14", taps=TAPS))
        self.bank = self.crop_bank(normal_features=partial(self.maps, taps=TAPS))

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The critic learns four times, then G once."""
        denoised = self.generate(batch)
        for turn in range(CRITIC_STEPS):
            critic_loss = self.critic_step(denoised.detach(), batch, turn)
        return {"critic": critic_loss} | self.generator_step(denoised, batch)

    def critic_step(self, denoised: torch.Tensor, batch: Batch, turn: int) -> torch.Tensor:
        """One step of the critic."""
        places = torch.Generator().manual_seed(purpose_seed(self.plan.seed, "between", self.done, turn))
        real, fake = self.critic(torch.cat([batch.normal, denoised])).float().chunk(2)
        with self.fabric.autocast():  # in bfloat16 the penalty is 0.2 % off, and twice as fast
            steep = gradient_penalty(self.critic.module, batch.normal, denoised, generator=places)
        return self.minimise("critic", fake.mean() - real.mean() + PENALTY * steep)

    def generator_step(self, denoised: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        """G climbs the critic and comes nearer in features."""
        with frozen(self.critic.module), self.fabric.autocast():
            losses = {"adversarial": -self.critic.module(denoised).float().mean()}
        maps = self.maps(denormalise(denoised), taps=TAPS)
        apart = [F.mse_loss(maps[tap], batch.normal_maps[tap]) for tap in TAPS]
        losses["perceptual"] = torch.stack(apart).mean()
        self.minimise("generator", losses["adversarial"] + self.plan.perceptual_weight * losses["perceptual"])
        return {name: loss.detach() for name, loss in losses.items()}
