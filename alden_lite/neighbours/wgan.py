"""WGAN with a perceptual loss: a rival of ALDEN's losses. Taught in chapter 09.

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

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from alden_lite.alden.pvm import PVM, load_pvm
from alden_lite.alden.training import Recipe, Training
from alden_lite.data.pairs import Pairs
from alden_lite.engine.crops import Batch
from alden_lite.engine.speed import for_crops
from alden_lite.physics.hounsfield import denormalise

__all__ = ["TAPS", "Critic", "WassersteinTraining", "gradient_penalty"]

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


class WassersteinTraining(Training):
    """`Training` whose generator learns from a critic and from features, not from pixels.

    Args:
        recipe: without losses of ALDEN's; `discriminator_learning_rate` is the critic's.
        pairs: as for `Training`.
        perceptual_weight: w; 0.1 in the paper, for VGG's features.
        pvm: a PVM with taps `TAPS`, loaded already.

    Raises:
        ValueError: if the recipe has losses of ALDEN's.
    """

    def __init__(
        self, recipe: Recipe, pairs: Pairs, *, perceptual_weight: float = 0.1, pvm: PVM | None = None
    ) -> None:
        if recipe.taps or recipe.adversarial:
            raise ValueError("a Wasserstein training has losses of its own: set the recipe's to 0")
        super().__init__(recipe, pairs)
        self.perceptual_weight = perceptual_weight
        self.critic, self.critic_optimiser = self._optimised(
            Critic(recipe.crop), recipe.discriminator_learning_rate
        )
        self.pvm = (pvm or load_pvm("dinov2_vits14", taps=TAPS)).to(self.fabric.device)
        rounded = recipe.precision == "bf16-mixed"
        self._looks = for_crops(self.pvm, rounded=rounded, fused=self.fabric.device.type != "cpu")
        self.bank.normal_features = partial(self._maps, taps=TAPS)

    def generator_step(self, denoised: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        """The critic learns four times, then G once."""
        for _ in range(CRITIC_STEPS):
            critic_loss = self.critic_step(denoised.detach(), batch)
        critic = self.critic.module
        critic.requires_grad_(False)
        with self.fabric.autocast():
            losses = {"adversarial": -critic(denoised).float().mean()}
        maps = self._maps(denormalise(denoised), taps=TAPS)
        apart = [F.mse_loss(maps[tap], batch.normal_maps[tap]) for tap in TAPS]
        losses["perceptual"] = torch.stack(apart).mean()
        self.generator_optimiser.zero_grad()
        self.fabric.backward(losses["adversarial"] + self.perceptual_weight * losses["perceptual"])
        critic.requires_grad_(True)
        self._clip(self.generator, self.generator_optimiser)
        self.generator_optimiser.step()
        return {"critic": critic_loss} | {name: loss.detach() for name, loss in losses.items()}

    def critic_step(self, denoised: torch.Tensor, batch: Batch) -> torch.Tensor:
        """One step of the critic."""
        real, fake = self.critic(torch.cat([batch.normal, denoised])).float().chunk(2)
        with self.fabric.autocast():  # in bfloat16 the penalty is 0.2 % off, and twice as fast
            steep = gradient_penalty(self.critic.module, batch.normal, denoised)
        loss = fake.mean() - real.mean() + PENALTY * steep
        self.critic_optimiser.zero_grad()
        self.fabric.backward(loss)
        self.critic_optimiser.step()
        return loss.detach()
