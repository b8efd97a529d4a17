"""The anatomy-aware discriminator: its zero start, what it sees, its losses."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from alden_lite.alden.discriminator import AnatomyAwareDiscriminator, discriminator_loss, generator_loss

QUERIES = ["image", "semantic"]
SMALL = {"semantic_channels": (6, 6, 6), "width": 8, "fusion_width": 16}


def small_aad(seed: int = 0, **options: object) -> AnatomyAwareDiscriminator:
    torch.manual_seed(seed)
    return AnatomyAwareDiscriminator(**(SMALL | options))


def crops(batch: int = 2, size: int = 32, seed: int = 0) -> Tensor:
    """Images in HU, (batch, 1, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    return 50 + 100 * torch.randn(batch, 1, size, size, generator=generator)


def anatomy(batch: int = 2, channels: int = 6, grid: int = 4, seed: int = 0) -> list[Tensor]:
    """Three semantic maps (batch, channels, grid, grid)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, channels, grid, grid, generator=generator) for _ in range(3)]


def wake(fusion: nn.Module) -> None:
    """Give zero weights values, as if the fusion had been trained."""
    for parameter in fusion.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)


# The zero start


@pytest.mark.parametrize("query", QUERIES)
def test_at_the_first_step_the_aad_is_the_plain_discriminator(query: str) -> None:
    plain, aad = small_aad(semantic_channels=None), small_aad(query=query)
    assert torch.equal(plain(crops()), aad(crops(), anatomy()))
    assert torch.equal(plain(crops()), aad(crops()))


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("residual", [True, False])
def test_zero_learns_at_once_and_all_of_the_fusion_one_step_later(query: str, residual: bool) -> None:
    aad = small_aad(query=query, residual=residual)
    optimiser = torch.optim.SGD(aad.parameters(), lr=1.0)

    def gradients() -> dict[str, bool]:
        optimiser.zero_grad()
        generator_loss(aad(crops(), anatomy())).backward()
        return {n: bool(p.grad.abs().max() > 0) for n, p in aad.fusions.named_parameters()}

    first = gradients()
    assert all(learns == ("zero" in name) for name, learns in first.items())
    optimiser.step()
    # A constant added to all keys changes no softmax: a key's bias never learns.
    assert all(learns for name, learns in gradients().items() if "to_key.bias" not in name)


# What the fusion can and cannot know


@torch.no_grad()
@pytest.mark.parametrize(
    ("query", "options", "notices"),
    [
        ("image", {}, False),
        ("image", {"positions": True}, True),
        ("image", {"locality": True}, True),
        ("semantic", {}, True),
    ],
)
def test_only_the_image_query_without_positions_is_blind_to_shuffled_tokens(
    query: str, options: dict[str, bool], notices: bool
) -> None:
    aad = small_aad(query=query, **({"locality": False} | options)).eval()
    wake(aad.fusions)
    shuffle = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    shuffled = [a.flatten(2)[..., shuffle].unflatten(2, (4, 4)) for a in anatomy()]
    change = (aad(crops(), shuffled) - aad(crops(), anatomy())).abs().max()
    assert (change > 1e-4) == notices


def organ(textured: Tensor, seed: int) -> tuple[Tensor, list[Tensor]]:
    """Images with or without texture (HU) and the anatomy that normally goes with them."""
    generator = torch.Generator().manual_seed(seed)
    image = 50 + torch.randn(len(textured), 1, 32, 32, generator=generator) * (
        10 + 90 * textured[:, None, None, None]
    )
    sign = 2 * textured[:, None, None, None] - 1
    return image, [
        a * 0.3 + sign * a.new_tensor([1, -1] * 3)[:, None, None] for a in anatomy(len(sign), seed=seed)
    ]


@pytest.mark.parametrize("query", QUERIES)
def test_after_training_logits_follow_the_anatomy(query: str) -> None:
    """Texture is real in one organ and false in the other: only the semantics can tell."""
    aad = small_aad(query=query, grain=50.0)  # coarse as this texture is
    optimiser = torch.optim.Adam(aad.parameters(), lr=5e-3)
    textured = torch.tensor([0.0, 1.0] * 4)
    for step in range(40):
        image, own = organ(textured, seed=step)
        other = [a.roll(1, 0) for a in own]
        optimiser.zero_grad()
        discriminator_loss(aad(image, own), aad(image, other)).backward()
        optimiser.step()
    aad.eval()
    image, own = organ(textured, seed=1000)
    with torch.no_grad():
        gap = aad(image, own) - aad(image, [a.roll(1, 0) for a in own])
    assert (gap.mean(dim=(1, 2, 3)) > 0.5).all()


@pytest.mark.parametrize(("query", "asking", "asked"), [("image", 64, 9), ("semantic", 9, 64)])
def test_attention_is_a_distribution_for_every_asking_token(query: str, asking: int, asked: int) -> None:
    maps = small_aad(query=query).attention(crops(), anatomy(grid=3))
    assert maps[0].shape == (2, 4, asking, asked)  # the shallow site: 8 x 8 places
    for weights in maps:
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


# The skeleton


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize(("size", "grid"), [(16, 1), (32, 16), (50, 4), (112, 8), (256, 16)])
def test_any_crop_and_any_token_grid_give_one_logit_for_eight_pixels(
    query: str, size: int, grid: int
) -> None:
    aad = small_aad(query=query)
    with torch.no_grad():
        logits = aad(crops(1, size), anatomy(1, grid=grid))
    assert logits.shape == (1, 1, size // 8, size // 8)
    assert logits.isfinite().all()


@pytest.mark.parametrize(("grain", "pixels"), [(None, 78), (10.0, 92)])
def test_one_logit_sees_78_pixels_and_with_grain_the_surroundings_of_the_last(
    grain: float | None, pixels: int
) -> None:
    image = crops(1, 160).requires_grad_()
    small_aad(semantic_channels=None, grain=grain)(image)[0, 0, 10, 10].backward()
    seen = image.grad[0, 0].abs().sum(0).nonzero().flatten()
    assert seen.max() - seen.min() + 1 == pixels


def test_grain_is_what_a_mean_of_15_by_15_leaves_over_at_gain_and_clamped() -> None:
    aad = small_aad(grain=10.0, limit=3.0)
    image = torch.full((1, 1, 48, 48), 50.0)
    image[0, 0, 20, 20] += 22.5  # the mean of 225 pixels rises by 0.1 HU
    window, grain = aad._see(image)[0]
    assert window[20, 20].item() == pytest.approx(0.1125)
    assert grain[20, 20].item() == pytest.approx(2.24)
    assert grain[27, 13].item() == pytest.approx(-0.01, rel=1e-3)
    assert grain[28, 20].item() == pytest.approx(0.0, abs=1e-5)
    image[0, 0, 0, 0] += 6.4  # in the corner the mean is of 8 x 8
    assert aad._see(image)[0, 1, 0, 0].item() == pytest.approx(0.63, rel=1e-4)
    image[0, 0, 40, 40] += 500.0
    assert aad._see(image)[0, 1, 40, 40].item() == 3.0
    assert small_aad(grain=None)._see(image).shape == (1, 1, 48, 48)


def test_grain_alone_tells_real_from_smooth_within_few_steps() -> None:
    """Equal organs, 400 HU apart; 16 against 8 HU of grain. Without the channel nothing moves yet."""
    losses = {}
    for grain in (None, 10.0):
        aad = small_aad(semantic_channels=None, grain=grain)
        optimiser = torch.optim.Adam(aad.parameters(), lr=4e-3)
        for step in range(40):
            noise = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(step))
            organ = torch.linspace(-150, 250, 4)[:, None, None, None]
            loss = discriminator_loss(aad(organ + 16 * noise), aad(organ + 8 * noise))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        losses[grain] = loss.item()
    assert losses[10.0] < 0.8 * losses[None]


def test_beyond_its_window_the_discriminator_sees_nothing_and_sends_no_gradient() -> None:
    aad = small_aad(level=50.0, scale=200.0, limit=3.0).eval()
    air, lung = torch.full((1, 1, 32, 32), -1000.0), torch.full((1, 1, 32, 32), -551.0)
    fat = torch.full((1, 1, 32, 32), -549.0)
    assert torch.equal(aad(air), aad(lung))
    assert not torch.equal(aad(air), aad(fat))
    image = torch.cat([air, fat], 3).requires_grad_()
    aad(image).sum().backward()
    assert not image.grad[..., :32].any()
    assert image.grad[..., 32:].abs().min() > 0


def test_spectral_norm_bounds_every_weight_but_the_last_and_the_zero_ones() -> None:
    aad = small_aad()
    for module in aad.modules():
        if isinstance(module, nn.Conv2d):
            with torch.no_grad():
                module.weight.mul_(7.0)
    for _ in range(30):  # one power iteration each
        aad(crops(), anatomy())
    aad.eval()
    bounded = [m for m in aad.modules() if hasattr(m, "parametrizations")]
    assert len(bounded) == 3 + 3 + 3  # halvings, mixes, the fusions' halves of the mixes
    for module in bounded:
        largest = torch.linalg.matrix_norm(module.weight.flatten(1), ord=2)
        assert largest.item() == pytest.approx(1.0, rel=0.02)
    assert not hasattr(aad.judge, "parametrizations")
    free = small_aad(spectral_norm=False)
    assert not any(hasattr(m, "parametrizations") for m in free.modules())


def test_default_size_is_small_and_without_batch_norm() -> None:
    aad = AnatomyAwareDiscriminator()
    assert 300_000 < sum(p.numel() for p in aad.parameters()) < 700_000
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in aad.modules())


def test_an_image_is_judged_alike_alone_and_in_a_batch() -> None:
    aad = small_aad().eval()
    wake(aad.fusions)
    together = aad(crops(), anatomy())
    alone = aad(crops()[:1], [a[:1] for a in anatomy()])
    torch.testing.assert_close(together[:1], alone)


@torch.no_grad()
def test_three_sites_mix_what_they_see_with_the_anatomy_of_their_depth() -> None:
    aad = small_aad(spectral_norm=False, grain=None)
    wake(aad.fusions)
    image, semantics = crops(), anatomy()
    maps = aad.attention(image, semantics)

    def leaky(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.2 * x)

    def conv(layer: nn.Module, x: Tensor, stride: int = 1) -> Tensor:
        return F.conv2d(x, layer.weight, layer.bias, stride, padding=1)

    x = leaky(conv(aad.stem[0], ((image - 50) / 200).clamp(-3, 3), 2))
    for site, halves in enumerate((True, True, False)):
        if halves:
            x = leaky(conv(aad.approach[site][0], x, 2))
        fusion = aad.fusions[site]
        torch.testing.assert_close(maps[site], fusion.attention(x, semantics[site]))
        x = leaky(conv(aad.mix[site], x) + fusion(x, semantics[site]))
    torch.testing.assert_close(aad(image, semantics), conv(aad.judge, x))


@torch.no_grad()
def test_by_default_it_sees_soft_tissue_at_gain_through_64_96_and_96_channels() -> None:
    aad = AnatomyAwareDiscriminator()
    hu = torch.tensor([-1000.0, -550.0, -150.0, 50.0, 650.0, 3000.0]).repeat(24, 4)[None, None]
    torch.testing.assert_close(
        aad._see(hu)[0, 0, 0, :6], torch.tensor([-3.0, -3.0, -1.0, 0.0, 3.0, 3.0]), atol=1e-6, rtol=0
    )
    assert [mix.weight.shape[0] for mix in aad.mix] == [64, 96, 96]
    assert [fusion.semantic_in[0].num_groups for fusion in aad.fusions] == [32, 32, 32]


# Losses


def test_bce_is_what_a_pocket_calculator_says() -> None:
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0])
    log, e = math.log, math.exp
    to_real = (log(1 + e(-2.0)) + log(1 + e(1.0))) / 2
    to_fake = (log(1 + e(0.5)) + log(1 + e(3.0))) / 2
    passes = (log(1 + e(-0.5)) + log(1 + e(-3.0))) / 2
    assert discriminator_loss(real, fake).item() == pytest.approx(to_real + to_fake, abs=1e-6)
    assert generator_loss(fake).item() == pytest.approx(passes, abs=1e-6)


def test_lsgan_is_what_a_pocket_calculator_says() -> None:
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0])
    to_real, to_fake = (1.0 + 4.0) / 4, (0.25 + 9.0) / 4
    loss = discriminator_loss(real, fake, kind="lsgan")
    assert loss.item() == pytest.approx(to_real + to_fake, abs=1e-6)
    passes = generator_loss(fake, kind="lsgan")
    assert passes.item() == pytest.approx((0.25 + 4.0) / 4, abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(
    real=st.lists(st.floats(-50, 50), min_size=1, max_size=5),
    fake=st.lists(st.floats(-50, 50), min_size=1, max_size=5),
    kind=st.sampled_from(["bce", "lsgan"]),
)
def test_losses_are_finite_and_never_negative(real: list[float], fake: list[float], kind: str) -> None:
    for loss in (
        discriminator_loss(torch.tensor(real), torch.tensor(fake), kind=kind),
        generator_loss(torch.tensor(fake), kind=kind),
    ):
        assert loss.isfinite()
        assert loss >= 0


@pytest.mark.parametrize("kind", ["bce", "lsgan"])
def test_the_two_players_pull_fake_logits_in_opposite_directions(kind: str) -> None:
    fake = torch.zeros(3).requires_grad_() if kind == "bce" else torch.full((3,), 0.5).requires_grad_()
    (critic,) = torch.autograd.grad(discriminator_loss(torch.zeros(3), fake, kind=kind), fake)
    (player,) = torch.autograd.grad(generator_loss(fake, kind=kind), fake)
    assert (critic > 0).all()
    assert (player < 0).all()


@pytest.mark.parametrize("kind", ["bce", "lsgan"])
def test_losses_of_half_precision_logits_are_float32(kind: str) -> None:
    real, fake = torch.randn(2, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    for rounded, exact in (
        (
            discriminator_loss(real, fake, kind=kind),
            discriminator_loss(real.float(), fake.float(), kind=kind),
        ),
        (generator_loss(fake, kind=kind), generator_loss(fake.float(), kind=kind)),
    ):
        assert rounded.dtype == torch.float32
        assert torch.equal(rounded, exact)


# Errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small_aad(semantic_channels=(6, 6)), "3 entries"),
        (lambda: small_aad(scale=0.0), "positive"),
        (lambda: small_aad(grain=0.0), "positive"),
        (lambda: small_aad(limit=-1.0), "positive"),
        (lambda: small_aad(query="both"), "image, semantic"),
        (lambda: small_aad(heads=3), "divisible by 3 heads"),
        (lambda: small_aad(fusion_width=10, heads=2, positions=True), "divisible by 4"),
        (lambda: small_aad()(crops()[:, 0]), r"\(B, 1, H, W\)"),
        (lambda: small_aad()(crops().expand(-1, 3, -1, -1)), r"\(B, 1, H, W\)"),
        (lambda: small_aad()(crops(size=15)), ">= 16"),
        (lambda: small_aad()(crops(), anatomy()[:2]), "got 2"),
        (lambda: small_aad()(crops(), anatomy(channels=5)), r"\(B, 6, h, w\)"),
        (lambda: small_aad()(crops(), [a[0] for a in anatomy()]), r"\(B, 6, h, w\)"),
        (lambda: small_aad()(crops(), anatomy(batch=1)), "batches must match"),
        (lambda: small_aad().attention(crops(), anatomy(batch=3)), "batches must match"),
        (lambda: small_aad(semantic_channels=None)(crops(), anatomy()), "plain"),
        (lambda: generator_loss(torch.zeros(1), kind="hinge"), "bce, lsgan"),
        (lambda: discriminator_loss(torch.zeros(1), torch.zeros(1), kind="w"), "bce, lsgan"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
