"""WGAN with a perceptual loss: the critic, its penalty, and what the generator learns from."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from alden_lite.alden.pvm import PVM, load_pvm
from alden_lite.data.pairs import Pairs
from alden_lite.neighbours.wgan import TAPS, Critic, WassersteinPlan, WassersteinTraining, gradient_penalty
from alden_lite.physics.hounsfield import denormalise

TINY = WassersteinPlan(steps=4, batch=2, crop=112, bank=2, reuse=2, warmup=0, accelerator="cpu")


@pytest.fixture(scope="module")
def shallow() -> PVM:
    return load_pvm("dinov2_vits14", taps=TAPS)


def weights_of(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in network.parameters()])


class Slope(nn.Module):
    """D(u) = a times the sum of a crop: its gradient has the length a sqrt(pixels) everywhere."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        return self.a * u.flatten(1).sum(1)


def test_the_gradient_penalty_is_0_at_slope_1_and_grows_with_the_square() -> None:
    real, fake = torch.randn(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert gradient_penalty(Slope(0.25), real, fake).item() == pytest.approx(0, abs=1e-12)  # sqrt(16) = 4
    steep = Slope(1.0)
    penalty = gradient_penalty(steep, real, fake)
    assert penalty.item() == pytest.approx((4 - 1) ** 2)
    penalty.backward()
    assert steep.a.grad is not None and float(steep.a.grad) == pytest.approx(2 * (4 - 1) * 4)


def test_the_gradient_is_taken_between_real_and_fake_crops() -> None:
    seen = []

    class Spy(Slope):
        def forward(self, u: torch.Tensor) -> torch.Tensor:
            seen.append(u.detach())
            return super().forward(u)

    gradient_penalty(
        Spy(1.0),
        torch.ones(50, 1, 2, 2),
        torch.zeros(50, 1, 2, 2),
        generator=torch.Generator().manual_seed(0),
    )
    (between,) = seen
    places = between[:, 0, 0, 0]
    assert torch.equal(between, places.view(-1, 1, 1, 1).expand_as(between)), "one place a crop"
    assert float(places.min()) < 0.1 and float(places.max()) > 0.9


def test_a_critic_gives_one_number_a_crop_without_bounds() -> None:
    torch.manual_seed(0)
    critic = Critic(28)
    assert critic(torch.randn(3, 1, 28, 28)).shape == (3,)
    assert critic(1e3 * torch.randn(3, 1, 28, 28)).abs().max().item() > 1
    assert Critic(27)(torch.randn(1, 1, 27, 27)).shape == (1,), "odd sides too"


def test_a_wasserstein_step_trains_the_critic_then_the_generator_without_pixels(
    pairs: Pairs, shallow: PVM
) -> None:
    training = WassersteinTraining(replace(TINY, perceptual_weight=100.0), pairs, pvm=shallow)
    before = weights_of(training.critic), weights_of(training.generator)
    losses = training.step()
    assert set(losses) == {"critic", "adversarial", "perceptual"}
    assert losses["perceptual"] > 0
    assert not torch.equal(before[0], weights_of(training.critic))
    assert not torch.equal(before[1], weights_of(training.generator))
    assert all(p.requires_grad for p in training.critic.parameters()), "frozen for the generator's step only"
    assert all(p.grad is None for p in shallow.parameters())


def test_the_critic_learns_to_score_normal_dose_above_what_is_denoised(pairs: Pairs, shallow: PVM) -> None:
    plan = replace(TINY, critic_learning_rate=1e-3, steps=1000)
    training = WassersteinTraining(plan, pairs, pvm=shallow)
    batch = training.bank.at(0)
    for turn in range(12):
        training.critic_step(batch.low, batch, turn)
    with torch.no_grad():
        assert float((training.critic(batch.normal) - training.critic(batch.low)).mean()) > 0.01


def test_the_critic_takes_four_steps_for_each_of_the_generators(pairs: Pairs, shallow: PVM) -> None:
    training = WassersteinTraining(TINY, pairs, pvm=shallow)
    training.step()
    (state, *_) = training.players["critic"].optimiser.state.values()
    assert int(state["step"]) == 4


def test_the_perceptual_loss_is_of_the_shallow_blocks_and_moves_the_generator(
    pairs: Pairs, shallow: PVM
) -> None:
    batch = WassersteinTraining(TINY, pairs, pvm=shallow).bank.at(0)
    assert set(batch.normal_maps) == set(TAPS)
    pulls = {}
    for weight in (0.0, 1000.0):
        training = WassersteinTraining(replace(TINY, perceptual_weight=weight), pairs, pvm=shallow)
        denoised = batch.low.clone().requires_grad_()
        losses = training.generator_step(denoised * 1.0, batch)
        assert denoised.grad is not None
        pulls[weight] = denoised.grad
    there = batch.low.clone().requires_grad_()
    maps = zip(TAPS, shallow(denormalise(there)), strict=True)
    apart = torch.stack([(own - batch.normal_maps[tap]).square().mean() for tap, own in maps]).mean()
    assert float(losses["perceptual"]) == pytest.approx(apart.item(), rel=0.05), "but for bfloat16"
    (wanted,) = torch.autograd.grad(1000 * apart, there)
    cosine = torch.cosine_similarity((pulls[1000.0] - pulls[0.0]).flatten(), wanted.flatten(), dim=0)
    assert float(cosine) > 0.95
    losses = training.generator_step(batch.normal.clone().requires_grad_() * 1.0, batch)
    assert float(losses["perceptual"]) == pytest.approx(0, abs=1e-5)


def test_the_generator_climbs_the_critic(pairs: Pairs, shallow: PVM) -> None:
    training = WassersteinTraining(replace(TINY, perceptual_weight=0.0), pairs, pvm=shallow)
    batch = training.bank.at(0)
    denoised = batch.low.clone().requires_grad_()
    (slope,) = torch.autograd.grad(training.critic.module(denoised).mean(), denoised)
    training.generator_step(denoised * 1.0, batch)
    assert denoised.grad is not None
    torch.testing.assert_close(denoised.grad, -slope)
