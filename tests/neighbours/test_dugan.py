"""DU-GAN: two U-Nets as discriminators, CutMix, and the generator's three weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from alden_lite.data.pairs import Pairs
from alden_lite.neighbours.dugan import (
    DualDomainPlan,
    DualDomainTraining,
    UNetDiscriminator,
    cutmix_mask,
    gradient_length,
)

TINY = DualDomainPlan(steps=4, batch=2, crop=112, bank=2, reuse=2, warmup=0, accelerator="cpu")


def weights_of(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in network.parameters()])


def test_the_length_of_the_gradient_of_a_ramp() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    inside = gradient_length(ramp)[..., 1:-1]
    torch.testing.assert_close(inside, torch.full_like(inside, 2.0))
    diagonal = ramp + ramp.mT
    torch.testing.assert_close(gradient_length(diagonal)[..., 1:-1, 1:-1], torch.full((1, 1, 6, 6), 8**0.5))
    assert float(gradient_length(torch.full((1, 1, 4, 4), 3.0)).max()) < 1e-3, "no edge around the picture"


def test_a_u_net_discriminator_scores_the_crop_and_every_pixel() -> None:
    torch.manual_seed(0)
    crop, pixels = UNetDiscriminator(4)(torch.randn(2, 1, 16, 24))
    assert crop.shape == (2,) and pixels.shape == (2, 1, 16, 24)


def test_cutmix_cuts_one_rectangle_of_any_size() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        mask = cutmix_mask(32, rng)
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        hole = mask == 0
        rows, columns = hole.any(1), hole.any(0)
        assert int(hole.sum()) == int(rows.sum()) * int(columns.sum()), "a rectangle"
        shares.append(float(hole.float().mean()))
    assert min(shares) < 0.05 and max(shares) > 0.6 and 0.2 < float(np.mean(shares)) < 0.5


def test_a_dual_domain_step_trains_both_discriminators_and_the_generator(pairs: Pairs) -> None:
    training = DualDomainTraining(TINY, pairs)
    networks = [*training.judges.values(), training.generator]
    before = [weights_of(one) for one in networks]
    losses = training.step()
    assert set(losses) == {"discriminators", "image", "gradient", "adversarial"}
    assert all(not torch.equal(old, weights_of(now)) for old, now in zip(before, networks, strict=True))
    assert all(p.requires_grad for judge in training.judges.values() for p in judge.parameters())


class Constant(nn.Module):
    """A discriminator that says the same of every crop and pixel."""

    def __init__(self, answer: float) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.tensor(answer))

    def forward(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.answer.expand(len(u)), self.answer.expand_as(u)


def test_least_squares_of_an_undecided_discriminator(pairs: Pairs) -> None:
    training = DualDomainTraining(TINY, pairs)
    u = torch.zeros(2, 1, 16, 16)
    rng = np.random.default_rng(0)
    # Crop and pixels: (a - 1)² for normal dose, a² for what is denoised, a² for low dose.
    for a in (0.5, 0.2):
        loss = training._judged(Constant(a), u, u, u, rng)
        assert loss.item() == pytest.approx(2 * ((a - 1) ** 2 + 2 * a**2))


def test_cutmix_comes_in_as_training_goes_on(pairs: Pairs) -> None:
    training = DualDomainTraining(replace(TINY, steps=10), pairs)
    u = torch.zeros(2, 1, 16, 16)
    calls = []

    class Counting(Constant):
        def forward(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            calls.append(len(u))
            return super().forward(u)

    rng = np.random.default_rng(0)
    for done, fewest, most in ((0, 40, 40), (10, 50, 70)):
        training.done = done
        calls.clear()
        for _ in range(40):
            training._judged(Counting(0.5), u, u, u, rng)
        assert fewest <= len(calls) <= most


class Oracle(nn.Module):
    """A discriminator that is right of every pixel where normal dose is 1 and all else 0."""

    def forward(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return u.mean((1, 2, 3)), u


def test_who_is_right_of_every_pixel_of_a_mixed_crop_pays_for_the_crop_alone(pairs: Pairs) -> None:
    training = DualDomainTraining(TINY, pairs)
    training.done = 2 * TINY.steps  # CutMix in every step
    normal, other = torch.ones(2, 1, 16, 16), torch.zeros(2, 1, 16, 16)
    for seed in range(5):
        loss = training._judged(Oracle(), other, normal, other, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        rng.random()  # whether to mix
        share = cutmix_mask(16, rng).mean().item()  # of normal dose: the crop as a whole counts as fake
        assert loss.item() == pytest.approx(share**2, abs=1e-6)


def test_the_generator_of_du_gan_follows_its_three_weights(pairs: Pairs) -> None:
    plan = replace(TINY, keep=0.25, dual_weight=0.0, image_weight=1.0, gradient_weight=0.0)
    training = DualDomainTraining(plan, pairs)
    batch = training.bank.at(0)
    denoised = batch.normal.clone().requires_grad_()
    losses = training.generator_step(denoised * 1.0, batch)
    assert float(losses["image"]) == pytest.approx(float((0.25 * (batch.low - batch.normal)).square().mean()))
    assert denoised.grad is not None
    expected = -2 * 0.25 * (batch.low - batch.normal) / batch.normal.numel()
    torch.testing.assert_close(denoised.grad, expected, rtol=1e-3, atol=1e-9)


def test_the_generator_wants_both_discriminators_to_say_normal_dose(pairs: Pairs) -> None:
    training = DualDomainTraining(
        replace(TINY, dual_weight=1.0, image_weight=0.0, gradient_weight=0.0), pairs
    )
    for judge in training.judges.values():
        judge.eval()  # spectral norm keeps still
    batch = training.bank.at(0)
    denoised = batch.low.clone().requires_grad_()
    fooled = torch.zeros(())
    for judge, u in zip(training.judges.values(), (denoised, gradient_length(denoised)), strict=True):
        crop, pixels = judge.module(u)
        fooled = fooled + (crop - 1).square().mean() + (pixels - 1).square().mean()
    (expected,) = torch.autograd.grad(fooled, denoised)
    losses = training.generator_step(denoised * 1.0, batch)
    assert losses["adversarial"].item() == pytest.approx(fooled.item(), rel=1e-4)
    assert denoised.grad is not None
    torch.testing.assert_close(denoised.grad, expected, rtol=1e-3, atol=1e-9)
