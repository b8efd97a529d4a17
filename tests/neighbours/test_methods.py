"""Rivals on equal terms: their losses, their time, and how the benchmark goes on."""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from alden_lite.alden.denoising import denoise
from alden_lite.alden.pvm import PVM, load_pvm
from alden_lite.alden.training import Recipe, Training
from alden_lite.data.pairs import Pairs
from alden_lite.evaluation.cohorts import Cohort, first_patients
from alden_lite.evaluation.studies import methods as peers
from alden_lite.evaluation.studies.methods import (
    BLEND,
    FAMILIES,
    METHODS,
    affordable_steps,
    search_score,
    starts_from_blend,
    train_for,
    untrained_generator,
)
from alden_lite.neighbours.ascon import AnatomicalEncoder, AsconTraining, patch_loss, pixel_loss, soft_ssim
from alden_lite.neighbours.dugan import DualDomainTraining, UNetDiscriminator, cutmix_mask, gradient_length
from alden_lite.neighbours.filters import FILTERS
from alden_lite.neighbours.wgan import TAPS, Critic, WassersteinTraining, gradient_penalty
from alden_lite.physics.hounsfield import denormalise

TINY = Recipe(
    steps=4,
    batch=2,
    crop=112,
    bank=2,
    reuse=2,
    warmup=0,
    accelerator="cpu",
    adversarial_weight=0.0,
    contrastive_weight=0.0,
)


@pytest.fixture(scope="module")
def shallow() -> PVM:
    return load_pvm("dinov2_vits14", taps=TAPS)


def weights_of(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in network.parameters()])


# WGAN


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
    training = WassersteinTraining(TINY, pairs, perceptual_weight=100.0, pvm=shallow)
    before = weights_of(training.critic), weights_of(training.generator)
    losses = training.step()
    assert set(losses) == {"critic", "adversarial", "perceptual"}
    assert losses["perceptual"] > 0
    assert not torch.equal(before[0], weights_of(training.critic))
    assert not torch.equal(before[1], weights_of(training.generator))
    assert all(p.requires_grad for p in training.critic.parameters()), "frozen for the generator's step only"
    assert all(p.grad is None for p in shallow.parameters())


def test_the_critic_learns_to_score_normal_dose_above_what_is_denoised(pairs: Pairs, shallow: PVM) -> None:
    recipe = replace(TINY, discriminator_learning_rate=1e-3, steps=1000)
    training = WassersteinTraining(recipe, pairs, pvm=shallow)
    batch = training.bank.at(0)
    training._set_rates()
    for _ in range(12):
        training.critic_step(batch.low, batch)
    with torch.no_grad():
        assert float((training.critic(batch.normal) - training.critic(batch.low)).mean()) > 0.01


def test_the_critic_takes_four_steps_for_each_of_the_generators(pairs: Pairs, shallow: PVM) -> None:
    training = WassersteinTraining(TINY, pairs, pvm=shallow)
    training.step()
    (state, *_) = training.critic_optimiser.state.values()
    assert int(state["step"]) == 4


def test_the_perceptual_loss_is_of_the_shallow_blocks_and_moves_the_generator(
    pairs: Pairs, shallow: PVM, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = WassersteinTraining(TINY, pairs, pvm=shallow).bank.at(0)
    assert set(batch.normal_maps) == set(TAPS)
    pulls = {}
    for weight in (0.0, 1000.0):
        training = WassersteinTraining(TINY, pairs, perceptual_weight=weight, pvm=shallow)
        monkeypatch.setattr(training, "critic_step", lambda *_: torch.zeros(()))
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


def test_the_generator_climbs_the_critic(pairs: Pairs, shallow: PVM, monkeypatch: pytest.MonkeyPatch) -> None:
    training = WassersteinTraining(TINY, pairs, perceptual_weight=0.0, pvm=shallow)
    monkeypatch.setattr(training, "critic_step", lambda *_: torch.zeros(()))
    batch = training.bank.at(0)
    denoised = batch.low.clone().requires_grad_()
    (slope,) = torch.autograd.grad(training.critic.module(denoised).mean(), denoised)
    training.generator_step(denoised * 1.0, batch)
    assert denoised.grad is not None
    torch.testing.assert_close(denoised.grad, -slope)


# DU-GAN


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
    networks = [judge for judge, _ in training.judges] + [training.generator]
    before = [weights_of(one) for one in networks]
    losses = training.step()
    assert set(losses) == {"discriminators", "image", "gradient", "adversarial"}
    assert all(not torch.equal(old, weights_of(now)) for old, now in zip(before, networks, strict=True))
    assert all(p.requires_grad for judge, _ in training.judges for p in judge.parameters())


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
    training = DualDomainTraining(
        replace(TINY, keep=0.25), pairs, dual_weight=0.0, image_weight=1.0, gradient_weight=0.0
    )
    batch = training.bank.at(0)
    denoised = batch.normal.clone().requires_grad_()
    losses = training.generator_step(denoised * 1.0, batch)
    assert float(losses["image"]) == pytest.approx(float((0.25 * (batch.low - batch.normal)).square().mean()))
    assert denoised.grad is not None
    expected = -2 * 0.25 * (batch.low - batch.normal) / batch.normal.numel()
    torch.testing.assert_close(denoised.grad, expected, rtol=1e-3, atol=1e-9)


def test_the_generator_wants_both_discriminators_to_say_normal_dose(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = DualDomainTraining(TINY, pairs, dual_weight=1.0, image_weight=0.0, gradient_weight=0.0)
    nothing = torch.zeros((), requires_grad=True)
    monkeypatch.setattr(training, "_judged", lambda *_: 0 * nothing)
    for judge, _ in training.judges:
        judge.eval()  # spectral norm keeps still
    batch = training.bank.at(0)
    denoised = batch.low.clone().requires_grad_()
    fooled = torch.zeros(())
    for (judge, _), u in zip(training.judges, (denoised, gradient_length(denoised)), strict=True):
        crop, pixels = judge.module(u)
        fooled = fooled + (crop - 1).square().mean() + (pixels - 1).square().mean()
    (expected,) = torch.autograd.grad(fooled, denoised)
    losses = training.generator_step(denoised * 1.0, batch)
    assert losses["adversarial"].item() == pytest.approx(fooled.item(), rel=1e-4)
    assert denoised.grad is not None
    torch.testing.assert_close(denoised.grad, expected, rtol=1e-3, atol=1e-9)


# ASCON


def test_ssim_with_gradient_is_that_of_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(0)
    a = rng.normal(0, 0.1, (40, 48))
    b = a + rng.normal(0, 0.03, a.shape)
    options: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, whole = structural_similarity(a, b, data_range=400 / 1024, full=True, win_size=11, **options)
    found = soft_ssim(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None])
    assert float(found) == pytest.approx(whole[5:-5, 5:-5].mean(), abs=1e-6)


def test_pixels_that_agree_are_found_and_others_are_not() -> None:
    maps = torch.randn(2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    same, other = pixel_loss(maps, maps), pixel_loss(maps.roll(1, -1), maps)
    assert float(same) < 0.1 < math.log(64) < float(other)


def test_the_pixel_loss_is_an_info_nce_in_the_patch() -> None:
    target = torch.zeros(1, 2, 2, 2)
    target[0, 0, :, 0], target[0, 1, :, 1] = 1, 1  # left column e0, right column e1
    online = torch.zeros(1, 2, 2, 2)
    online[0, 0] = 1  # everybody says e0
    loss = pixel_loss(online, target, patch=2, places=4000)
    # Asked on the left: e^10 / (2 e^10 + 2); on the right: 1 / (2 e^10 + 2).
    both = 2 * math.exp(10) + 2
    expected = 0.5 * (math.log(both) - 10) + 0.5 * math.log(both)
    assert float(loss) == pytest.approx(expected, rel=0.05)


def test_patches_are_cut_row_by_row() -> None:
    from alden_lite.neighbours.ascon import _patches

    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert _patches(maps, 2)[0, :, :, 0].tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]


def test_a_patch_predicts_the_mean_of_the_targets_nearest() -> None:
    target = torch.tensor([[[1.0, 0.0], [0.8, 0.6], [0.0, -3.0]]])
    mean = torch.tensor([0.9, 0.3])  # of the two that are alike
    predicted = torch.stack([mean, mean, torch.tensor([0.0, -1.0])])[None]
    close_to_0 = patch_loss(predicted[:, :2], target[:, :2], nearest=2)
    assert float(close_to_0) == pytest.approx(0, abs=1e-6)
    opposite = patch_loss(-predicted[:, :2], target[:, :2], nearest=2)
    assert float(opposite) == pytest.approx(4, abs=1e-6)
    assert float(patch_loss(target, target, nearest=1)) == pytest.approx(0, abs=1e-6)


def test_contrast_sends_no_gradient_to_the_target() -> None:
    online, target = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    online.requires_grad_()
    target.requires_grad_()
    (pixel_loss(online, target) + patch_loss(online.flatten(2).mT, target.flatten(2).mT)).backward()
    assert online.grad is not None and target.grad is None


def test_a_step_of_ascon_trains_encoder_and_generator_and_the_target_follows_slowly(pairs: Pairs) -> None:
    training = AsconTraining(TINY, pairs)
    online = training.online.module["encoder"]
    start = weights_of(training.target)
    assert torch.equal(start, weights_of(online))
    generator = weights_of(training.generator)
    losses = training.step()
    assert set(losses) == {"pixel", "structure", "contrast"}
    assert not torch.equal(generator, weights_of(training.generator))
    moved, followed = weights_of(online) - start, weights_of(training.target) - start
    torch.testing.assert_close(followed, 0.01 * moved, rtol=1e-2, atol=1e-7)
    assert all(p.requires_grad for p in online.parameters())


def test_a_perfect_picture_costs_ascon_its_contrast_only(pairs: Pairs) -> None:
    training = AsconTraining(TINY, pairs)
    batch = training.bank.at(0)
    perfect = batch.normal.clone().requires_grad_()
    losses = training.generator_step(perfect * 1.0, batch)
    assert losses["pixel"].item() == 0 and losses["structure"].item() == pytest.approx(0, abs=1e-5)
    assert losses["contrast"].item() > 0


def test_the_encoder_has_a_fine_and_a_coarse_map() -> None:
    fine, coarse = AnatomicalEncoder(6)(torch.randn(2, 1, 32, 48))
    assert fine.shape == (2, 6, 16, 24) and coarse.shape == (2, 12, 2, 3)


@pytest.mark.parametrize("training", [WassersteinTraining, DualDomainTraining, AsconTraining])
def test_a_peer_has_losses_of_its_own(training: type[Training], pairs: Pairs) -> None:
    with pytest.raises(ValueError, match="losses of its own"):
        training(replace(TINY, adversarial_weight=0.01), pairs)
    with pytest.raises(ValueError, match="losses of its own"):
        training(replace(TINY, contrastive_weight=0.01), pairs)


def test_crops_that_cannot_be_cut_into_patches_are_refused(pairs: Pairs) -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        AsconTraining(replace(TINY, crop=104), pairs)


@pytest.mark.parametrize("name", ["wgan_dino", "dugan", "esau"])
def test_the_rates_of_both_sides_fall_together(name: str, pairs: Pairs, shallow: PVM) -> None:
    training_class = METHODS[name].training
    assert training_class is not None
    options: dict[str, Any] = {"pvm": shallow} if name == "wgan_dino" else {}
    recipe = replace(TINY, steps=10, learning_rate=1e-3, discriminator_learning_rate=4e-3)
    training = training_class(recipe, pairs, **options)
    if isinstance(training, WassersteinTraining):
        others = [training.critic_optimiser]
    elif isinstance(training, DualDomainTraining):
        others = [optimiser for _, optimiser in training.judges]
    else:
        assert isinstance(training, AsconTraining)
        others = [training.online_optimiser]
    for done in (0, 5, 9):
        training.done = done
        training._set_rates()
        rate = training.generator_optimiser.param_groups[0]["lr"]
        assert all(one.param_groups[0]["lr"] == pytest.approx(4 * rate) for one in others)


# Equal terms


def test_every_method_belongs_to_a_family_and_says_what_it_is() -> None:
    assert {method.family for method in METHODS.values()} == set(FAMILIES)
    assert all(method.about for method in METHODS.values())
    assert set(FILTERS) == {name for name, method in METHODS.items() if method.family == "filter"}


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.training])
def test_methods_of_a_family_have_the_same_first_weights_and_crops(name: str) -> None:
    method = METHODS[name]
    for settings in ({}, *method.search):
        recipe, _, _ = peers._configured(name, settings, 3)
        assert recipe.seed == 3
        crops = (recipe.crop, recipe.batch, recipe.bank, recipe.reuse, recipe.precision)
        assert crops == tuple(getattr(peers.BASE, k) for k in ("crop", "batch", "bank", "reuse", "precision"))
        assert recipe.warm_start == ("l1" if method.family == "loss" else None)
        assert recipe.generator == {"redcnn": "redcnn", "esau": "esau"}.get(name, "unet")


def test_who_starts_from_the_blend_is_said() -> None:
    trained = {name for name, method in METHODS.items() if method.training}
    assert {name for name in trained if starts_from_blend(name)} == {"gan", "alden"}
    assert starts_from_blend("dugan", {"dual_weight": 0.1, "keep": BLEND, "warm_keep": BLEND})
    assert peers._configured("alden", {}, 0)[0].warm_keep == BLEND
    with pytest.raises(ValueError, match="nlm is not trained"):
        starts_from_blend("nlm")


def test_a_step_is_timed_in_the_middle_of_a_run(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "BASE", replace(TINY, steps=300))
    seen: list[int] = []
    step = Training.step

    def noted(self: Training, batch: Any = None) -> dict[str, float]:
        seen.append(self.done)
        return step(self, batch)

    monkeypatch.setattr(Training, "step", noted)
    train_for("unet", pairs, seconds=0.01)
    assert seen[:4] == [150, 151, 152, 153], "a bank is drawn at a multiple of 2 steps"
    assert seen[4] == 0


def test_only_alden_and_the_plain_gan_have_losses_of_alden() -> None:
    recipes = {name: peers._configured(name, {}, 0)[0] for name, m in METHODS.items() if m.training}
    assert {name for name, recipe in recipes.items() if recipe.adversarial} == {"gan", "alden"}
    assert {name for name, recipe in recipes.items() if recipe.contrastive} == {"alden"}
    assert not recipes["gan"].anatomy and recipes["alden"].anatomy


def test_a_setting_goes_to_the_recipe_or_to_the_training() -> None:
    recipe, arguments, training = peers._configured(
        "wgan_dino", {"perceptual_weight": 3.0, "learning_rate": 7e-5}, 0
    )
    assert (recipe.learning_rate, arguments) == (7e-5, {"perceptual_weight": 3.0})
    assert training is WassersteinTraining


@pytest.mark.parametrize(
    ("seconds", "steps"),
    [(1, 1), (11, 1), (15, 5), (30, 20), (39, 20), (41, 21), (60, 40)],
)
def test_as_many_steps_as_fit_with_their_banks(seconds: float, steps: int) -> None:
    assert affordable_steps(seconds, step=1.0, bank=10.0, period=20) == steps


def test_training_takes_the_seconds_it_has(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "BASE", replace(TINY, warmup=20, steps=300))
    time = [0.0]

    def clock() -> float:
        return time[0]

    step = Training.step

    def timed(self: Training, batch: Any = None) -> dict[str, float]:
        time[0] += 10.0 if self.done % 2 == 0 else 2.0  # a bank of 2 crops lasts 2 steps
        return step(self, batch)

    monkeypatch.setattr(Training, "step", timed)
    trained = train_for("unet", pairs, seconds=60, seed=5, clock=clock)
    recipe = trained.training.recipe
    assert trained.training.done == recipe.steps > 5 and recipe.seed == 5
    assert recipe.warmup == recipe.steps // 5
    assert trained.seconds == pytest.approx(60, rel=0.35)


def test_what_cannot_be_trained_is_said(pairs: Pairs) -> None:
    with pytest.raises(ValueError, match="nlm is not trained"):
        train_for("nlm", pairs, seconds=1)
    with pytest.raises(ValueError, match="seconds must be above 0"):
        train_for("l1", pairs, seconds=0)
    with pytest.raises(ValueError, match="ldct is no generator"):
        untrained_generator("ldct")


def test_the_blend_is_15_percent_input_and_the_rest_l1() -> None:
    low = torch.from_numpy(np.random.default_rng(0).normal(50, 20, (48, 48))).float()
    blend = denoise(low, untrained_generator("blend"), progress=False)
    expected = 0.15 * low + 0.85 * denoise(low, "l1", progress=False)
    torch.testing.assert_close(blend, expected, atol=1e-2, rtol=0)
    shipped = denoise(low, untrained_generator("l1_shipped"), progress=False)
    torch.testing.assert_close(shipped, denoise(low, "l1", progress=False))


def test_the_search_takes_pixels_for_some_and_looks_for_others() -> None:
    near = {"psnr_db": 33.0, "judge": 0.2, "l1_psnr_db": 33.0}
    nice = {"psnr_db": 32.2, "judge": 0.1, "l1_psnr_db": 33.0}
    wild = {"psnr_db": 30.0, "judge": 0.05, "l1_psnr_db": 33.0}
    for name in ("nlm", "unet", "redcnn", "l1"):
        assert search_score(name, **near) > search_score(name, **nice)
    for name in ("wgan_dino", "dugan", "gan", "alden"):
        assert search_score(name, **nice) > search_score(name, **near) > search_score(name, **wild)
    assert search_score("gan", psnr_db=33.0, judge=math.nan, l1_psnr_db=33.0) == -math.inf


# The benchmark


@pytest.fixture
def benchmark(
    monkeypatch: pytest.MonkeyPatch, pairs: Pairs, benchmark_script: Callable[[str], ModuleType]
) -> ModuleType:
    """benchmarks/peers.py on slices of 128 pixels, without a judge or an organ network."""
    module = benchmark_script("peers")
    groups = np.full(pairs.low.shape, 4, np.uint8)
    count = len(pairs)
    test = Cohort("sample-test", ["anna"] * count, pairs, [0.7] * count, groups=groups)
    drawn = Cohort(
        "phantoms",
        [f"phantom {n}" for n in range(count)],
        pairs,
        [0.7] * count,
        again=pairs.normal + 3,
        clean=np.full(pairs.low.shape, 50, np.float32),
        groups=groups,
    )
    monkeypatch.setattr(module, "sample_test", lambda dose, every: test)
    monkeypatch.setattr(module, "phantoms", lambda count, dose: first_patients(drawn, count))
    monkeypatch.setattr(module, "training_pairs", lambda *_: pairs)
    # The judge takes a second a slice; this one compares brightness and slopes.
    monkeypatch.setattr(module, "load_pvm", lambda _: lambda hu: [torch.cat([hu, hu.roll(1, -1)], 1)])
    monkeypatch.setattr(module, "validation", lambda *_, **__: iter([test]))
    monkeypatch.setattr(module, "segment", lambda hu, _: np.full(hu.shape, 4, np.uint8))
    monkeypatch.setattr(module, "_segmenter", lambda: object())
    return module


def run(module: ModuleType, folder: Path, *options: str) -> None:
    argv = ["peers.py", "--work", str(folder / "work"), "--out", str(folder), "--phantoms", "3"]
    argv += ["--page-file", str(folder / "results.md"), "--seeds", "0", *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        module.main()


def test_the_benchmark_stores_each_run_goes_on_and_writes_its_page(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(benchmark, tmp_path, "--only", "ldct", "nlm", "blend")
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["n_methods"] == 2 and figures["n_patients"] == 4
    assert figures["nlm.psnr"] > figures["ldct.psnr"] and figures["ldct.dice_high"] == 1
    parts = sorted(path.name for path in (tmp_path / "work").iterdir())
    assert parts == ["blend-0.json", "ldct-0.json", "ndct-0.json", "nlm-0.json"]
    page = (tmp_path / "results.md").read_text()
    assert "`nlm`" in page and "PSNR to truth" in page and "nan" not in page.lower()
    stamp = (tmp_path / "work" / "nlm-0.json").stat().st_mtime_ns
    run(benchmark, tmp_path, "--only", "ldct", "nlm")
    assert (tmp_path / "work" / "nlm-0.json").stat().st_mtime_ns == stamp, "finished: not run again"
    stored = json.loads((tmp_path / "peers.json").read_text())
    assert [one["method"] for one in stored["runs"]] == ["ndct", "ldct", "nlm", "blend"]
    assert not list(tmp_path.rglob("*.part"))
    with pytest.raises(SystemExit, match="add --fresh"):
        run(benchmark, tmp_path, "--only", "ldct", "--minutes", "1")


def test_a_trained_run_says_how_long_it_had_and_how_many_steps_that_were(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    run(benchmark, tmp_path, "--only", "l1", "--minutes", "0.01")
    stored = json.loads((tmp_path / "work" / "l1-0.json").read_text())["run"]
    assert stored["steps"] > 0 and 0 < stored["seconds"] < 10
    assert stored["parameters"] == sum(p.numel() for p in untrained_generator("l1_shipped").parameters())
    assert set(stored["sets"]) == {"sample-test", "phantoms"} and set(stored["dice"]) == {"0.25", "0.1"}
    truth = stored["sets"]["phantoms"]["rows"]["truth_rmse_hu"]
    assert len(truth) == 3 and all(0 < value < 20 for value in truth)


@pytest.mark.parametrize("name", ["ge.nii.gz", "abdomen_CRLM-CT-1006_ge.nii.gz"])
def test_a_patient_who_trained_a_method_is_not_unseen(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(SystemExit):
        run(benchmark, tmp_path, "--volumes", "a/ge.nii.gz", "--unseen", f"b/{name}")
    assert f"--unseen: {name} trained these methods" in capsys.readouterr().err


def test_phantoms_are_compared_with_the_independent_scan(benchmark: ModuleType, tmp_path: Path) -> None:
    run(benchmark, tmp_path, "--only", "ldct")
    runs = {one["method"]: one for one in json.loads((tmp_path / "peers.json").read_text())["runs"]}
    floor = runs["ndct"]["sets"]["phantoms"]["rows"]
    assert floor["rmse_hu"] == pytest.approx([3, 3, 3]), "the fixture's second scan is 3 HU brighter"
    assert floor["truth_rmse_hu"] != floor["rmse_hu"]
    assert "sample-test" not in runs["ndct"]["sets"], "a real patient was scanned once"
    assert set(runs["ndct"]["dice"]["0.1"]) == {"anna", "phantom 0", "phantom 1", "phantom 2"}


def test_the_search_tries_what_is_missing_and_stores_all_of_it(benchmark: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "peers_search.json"
    before = {"method": "nlm", "settings": {"strength": 0.75}, "psnr_db": 1.0, "judge": 1.0, "score": 1.0}
    file.write_text(json.dumps({"made": {}, "tried": [before]}))
    run(benchmark, tmp_path, "--search", "--only", "nlm")
    tried = json.loads(file.read_text())["tried"]
    assert tried[0] == before, "not tried again"
    assert sorted(one["settings"]["strength"] for one in tried) == [0.5, 0.75, 1.0, 1.25, 1.5]
    assert all(one["score"] == one["psnr_db"] for one in tried), "a filter is chosen by PSNR"


def test_the_settings_that_the_search_found_are_used(benchmark: ModuleType, tmp_path: Path) -> None:
    run(benchmark, tmp_path, "--only", "nlm", "ldct")
    tried = [
        {"method": "nlm", "settings": {"strength": s}, "score": -abs(s - 0.75)} for s in (0.5, 0.75, 1.0)
    ]
    (tmp_path / "peers_search.json").write_text(json.dumps({"made": {}, "tried": tried}))
    run(benchmark, tmp_path, "--only", "nlm", "ldct")
    stored = json.loads((tmp_path / "peers.json").read_text())
    (nlm,) = (one for one in stored["runs"] if one["method"] == "nlm")
    assert nlm["settings"] == {"strength": 0.75}, "run again, since its settings are others now"
    assert stored["search"] == tried


def test_the_dose_sweep_has_a_row_for_every_dose_kernel_and_model(
    monkeypatch: pytest.MonkeyPatch,
    pairs: Pairs,
    capsys: pytest.CaptureFixture[str],
    benchmark_script: Callable[[str], ModuleType],
    tmp_path: Path,
) -> None:
    module = benchmark_script("doses")
    one = Cohort("sample-test", ["anna"] * 3, pairs, [0.7, 0.8, 0.7])
    twice = replace(one, again=pairs.normal + 3)  # as phantoms are: compared with the other scan
    monkeypatch.setattr(module, "sample_test", lambda dose, every: twice)
    monkeypatch.setattr(module, "real_patients", lambda name, *_, **__: replace(one, name=name))
    monkeypatch.setattr(module, "load_nifti", lambda _: SimpleNamespace(hu=range(3)))
    monkeypatch.setattr(module, "make_pairs", lambda *_, **__: pairs)
    monkeypatch.setattr(module, "load_pvm", lambda _: lambda hu: [torch.cat([hu, hu.roll(1, -1)], 1)])
    page = tmp_path / "doses.md"
    argv = ["doses.py", "--doses", "0.1", "0.5", "--per-dose", "0.5", "--minutes", "0.005"]
    argv += ["--unseen", f"{tmp_path}/chest.nii.gz", "--page", str(page)]
    monkeypatch.setattr(sys, "argv", argv)
    module.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    for value in ("0.1", "0.5", "soft", "as it came", "sharp"):
        for method in ("ldct", "l1", "blend", "alden", "l1 for 0.5"):
            assert math.isfinite(figures[f"sample-test.{value}.{method}.grain"])
    assert figures["sample-test.0.1.ldct.grain"] > figures["sample-test.0.1.l1.grain"]
    assert figures["sample-test.0.1.ldct.bias_hu"] == pytest.approx(-3, abs=1)
    assert figures["sample-test.sharp.ldct.bias_hu"] == pytest.approx(0, abs=1)
    text = page.read_text()
    assert text.count("| l1 for 0.5 |") == 2 * 2 + 3, "two sets at two doses, three kernels"
    assert "--unseen chest.nii.gz" in text and "grain is the noise left" in text
    shown = f"{figures['sample-test.sharp.alden.grain']:.2f}"
    assert f"| sample-test | sharp | alden | {shown} |" in text
