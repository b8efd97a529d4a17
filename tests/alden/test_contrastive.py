"""Semantic-guided contrastive learning, checked with numbers worked out by hand and by loops."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alden_lite.alden.contrastive import discordant_places, semantic_contrastive_loss


def made_up_maps(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Three maps ŷ, y, x stacked: (3, *shape)."""
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def row_of_tokens(*tokens: tuple[float, ...]) -> Tensor:
    """Tokens as a map (1, C, 1, n) in float64."""
    return torch.tensor(tokens, dtype=torch.float64).T[None, :, None]


# Three tokens of length 1 in a row. Their products, by hand:
#   f0.y = 1.0 0.0 0.8    f0.x0 = 0.6
#   f1.y = 0.6 0.8 0.96   f1.x1 = 0.6
#   f2.y = 0.0 1.0 0.6    f2.x2 = 1.0
DENOISED = row_of_tokens((1.0, 0.0), (0.6, 0.8), (0.0, 1.0))
NORMAL = row_of_tokens((1.0, 0.0), (0.0, 1.0), (0.8, 0.6))
LOW = row_of_tokens((0.6, 0.8), (1.0, 0.0), (0.0, 1.0))


def test_joint_form_of_three_tokens_is_what_a_pocket_calculator_says() -> None:
    e = math.exp  # temperature 0.5 doubles every product
    expected = -(
        math.log(e(2.0) / (e(2.0) + e(0.0) + e(1.6) + e(1.2)))
        + math.log(e(1.6) / (e(1.6) + e(1.2) + e(1.92) + e(1.2)))
        + math.log(e(1.2) / (e(1.2) + e(0.0) + e(2.0) + e(2.0)))
    )
    loss = semantic_contrastive_loss(DENOISED, NORMAL, LOW, temperature=0.5, min_distance=1)
    assert loss.item() == pytest.approx(expected / 3, abs=1e-6)


def test_sum_form_of_three_tokens_is_what_a_pocket_calculator_says() -> None:
    e = math.exp
    location = -(
        math.log(e(2.0) / (e(2.0) + e(0.0) + e(1.6)))
        + math.log(e(1.6) / (e(1.6) + e(1.2) + e(1.92)))
        + math.log(e(1.2) / (e(1.2) + e(0.0) + e(2.0)))
    )
    noise = -(
        math.log(e(2.0) / (e(2.0) + e(1.2)))
        + math.log(e(1.6) / (e(1.6) + e(1.2)))
        + math.log(e(1.2) / (e(1.2) + e(2.0)))
    )
    maps = DENOISED, NORMAL, LOW
    both = semantic_contrastive_loss(*maps, temperature=0.5, min_distance=1, form="sum")
    assert both.item() == pytest.approx((location + noise) / 3, abs=1e-6)
    for form in ("joint", "sum"):
        alone = semantic_contrastive_loss(*maps, temperature=0.5, min_distance=1, form=form, noise_term=False)
        assert alone.item() == pytest.approx(location / 3, abs=1e-6)


@pytest.mark.parametrize("form", ["joint", "sum"])
@pytest.mark.parametrize("noise_term", [True, False])
def test_loss_equals_a_loop_over_places(form: str, noise_term: bool) -> None:
    batch, h, w, temperature = 2, 4, 5, 0.2
    maps = made_up_maps(batch, 6, h, w, dtype=torch.float64)
    f, y, x = maps / maps.norm(dim=2, keepdim=True)
    grid = list(product(range(h), range(w)))
    losses = []
    for b, (i, j) in product(range(batch), grid):
        p = math.exp(f[b, :, i, j] @ y[b, :, i, j] / temperature)
        q = math.exp(f[b, :, i, j] @ x[b, :, i, j] / temperature)
        n = sum(
            math.exp(f[b, :, i, j] @ y[b, :, k, m] / temperature)
            for k, m in grid
            if max(abs(k - i), abs(m - j)) >= 2
        )
        if form == "joint":
            losses.append(-math.log(p / (p + n + q * noise_term)))
        else:
            losses.append(-math.log(p / (p + n)) - noise_term * math.log(p / (p + q)))
    loss = semantic_contrastive_loss(*maps, temperature=temperature, form=form, noise_term=noise_term)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), abs=1e-12)


@pytest.mark.parametrize("form", ["joint", "sum"])
def test_gradients_reach_the_denoised_features_alone(form: str) -> None:
    f, y, x = (m.requires_grad_() for m in made_up_maps(2, 6, 4, 4).unbind())
    semantic_contrastive_loss(f, y, x, form=form).backward()
    assert f.grad is not None
    assert f.grad.abs().sum() > 0
    assert y.grad is None
    assert x.grad is None


def test_gradient_is_right_by_finite_differences() -> None:
    f, y, x = made_up_maps(1, 3, 4, 4, dtype=torch.float64)

    def loss(features: Tensor) -> Tensor:
        return semantic_contrastive_loss(features, y, x, temperature=0.5)

    assert torch.autograd.gradcheck(loss, f.requires_grad_())


@pytest.mark.parametrize("form", ["joint", "sum"])
@pytest.mark.parametrize("seed", range(5))
def test_a_perfect_image_costs_less_than_an_untouched_one(form: str, seed: int) -> None:
    _, y, x = made_up_maps(2, 6, 4, 4, seed=seed)
    perfect = semantic_contrastive_loss(y, y, x, form=form)
    untouched = semantic_contrastive_loss(x, y, x, form=form)
    assert perfect < untouched


def test_descending_the_loss_moves_features_from_low_towards_normal_dose() -> None:
    _, y, x = made_up_maps(1, 6, 4, 4)
    f = x.clone().requires_grad_()
    optimiser = torch.optim.Adam([f], lr=0.1)
    for _ in range(50):
        optimiser.zero_grad()
        semantic_contrastive_loss(f, y, x).backward()
        optimiser.step()
    cosine = torch.cosine_similarity
    assert (cosine(f, y) > cosine(x, y) + 0.2).all()
    assert (cosine(f, y) > cosine(f, x)).all()


def test_without_noise_to_tell_the_noise_term_costs_log_two() -> None:
    _, y, _ = made_up_maps(1, 64, 4, 4)
    no_noise = semantic_contrastive_loss(y, y, y, temperature=0.02)
    assert no_noise.item() == pytest.approx(math.log(2), abs=1e-4)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    scales=st.tuples(*[st.floats(1e-2, 1e3)] * 3),
    temperature=st.floats(0.03, 2.0),
    form=st.sampled_from(["joint", "sum"]),
    noise_term=st.booleans(),
)
def test_loss_is_never_negative_and_blind_to_the_scale_of_features(
    seed: int,
    scales: tuple[float, float, float],
    temperature: float,
    form: str,
    noise_term: bool,
) -> None:
    f, y, x = made_up_maps(2, 5, 4, 4, seed=seed)
    a, b, c = scales
    options = {"temperature": temperature, "form": form, "noise_term": noise_term}
    loss = semantic_contrastive_loss(f, y, x, **options)
    assert loss >= 0
    scaled = semantic_contrastive_loss(a * f, b * y, c * x, **options)
    torch.testing.assert_close(scaled, loss, rtol=1e-4, atol=1e-5)


def test_taps_are_averaged_whatever_their_channels_and_grids() -> None:
    fine, coarse = made_up_maps(2, 5, 6, 6, seed=1), made_up_maps(2, 9, 4, 5, seed=2)
    both = semantic_contrastive_loss(*([a, b] for a, b in zip(fine, coarse, strict=True)))
    each = semantic_contrastive_loss(*fine), semantic_contrastive_loss(*coarse)
    torch.testing.assert_close(both, sum(each) / 2)


def test_same_seed_same_loss_and_the_global_seed_is_left_alone() -> None:
    maps = made_up_maps(2, 5, 8, 8)
    before = torch.get_rng_state()
    losses = [
        semantic_contrastive_loss(
            *maps, places=10, negatives=4, generator=torch.Generator().manual_seed(seed)
        )
        for seed in (7, 7, 8)
    ]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(before, torch.get_rng_state())


def test_sampling_estimates_the_loss_over_all_places() -> None:
    maps = made_up_maps(2, 16, 6, 6)
    generator = torch.Generator().manual_seed(0)
    everywhere = semantic_contrastive_loss(*maps)
    samples = [semantic_contrastive_loss(*maps, places=9, generator=generator) for _ in range(60)]
    torch.testing.assert_close(torch.stack(samples).mean(), everywhere, rtol=0.05, atol=0)


def test_autocast_and_half_precision_features_still_give_a_float32_loss() -> None:
    maps = made_up_maps(2, 32, 4, 4)
    plain = semantic_contrastive_loss(*maps)
    torch.testing.assert_close(plain, semantic_contrastive_loss(*maps.double()).float())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(semantic_contrastive_loss(*maps), plain)
    half = semantic_contrastive_loss(*maps.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, plain, rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normal": torch.zeros(2, 5, 4, 3)}, "one shape"),
        ({"low": torch.zeros(1, 5, 4, 4)}, "one shape"),
        ({"low": torch.zeros(2, 6, 4, 4)}, "one shape"),
        ({"normal": [torch.zeros(2, 5, 4, 4)] * 2}, "as many taps"),
        ({"denoised": [], "normal": [], "low": []}, "as many taps"),
        ({"temperature": 0.0}, "temperature"),
        ({"form": "both"}, "joint, sum"),
        ({"places": 0}, "at least 1"),
        ({"min_distance": 3}, "too small"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(change: dict[str, object], message: str) -> None:
    maps = {name: torch.zeros(2, 5, 4, 4) for name in ("denoised", "normal", "low")}
    with pytest.raises(ValueError, match=message):
        semantic_contrastive_loss(**(maps | change))


def test_a_single_row_must_be_three_dimensional_with_its_batch() -> None:
    with pytest.raises(ValueError, match=r"\(B, C, h, w\)"):
        semantic_contrastive_loss(*torch.zeros(3, 5, 4, 4))


@settings(deadline=None, max_examples=50)
@given(
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    places=st.integers(1, 40),
    count=st.integers(1, 40),
    min_distance=st.integers(1, 4),
    seed=st.integers(0, 100),
)
def test_discordant_places_keep_their_distance_and_number(
    h: int, w: int, places: int, count: int, min_distance: int, seed: int
) -> None:
    def sample() -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return discordant_places(
            h, w, places=places, count=count, min_distance=min_distance, generator=generator
        )

    if max(h, w) // 2 < min_distance:
        with pytest.raises(ValueError, match="too small"):
            sample()
        return
    anchors, discordant = sample()
    assert len(set(anchors.tolist())) == len(anchors) == min(places, h * w)
    assert discordant.shape == (len(anchors), h * w)
    for k, chosen in zip(anchors.tolist(), discordant, strict=True):
        far = {m for m in range(h * w) if max(abs(k // w - m // w), abs(k % w - m % w)) >= min_distance}
        assert set(chosen.nonzero().flatten().tolist()) <= far
        assert chosen.sum() == min(count, len(far)) > 0
    again = sample()
    assert torch.equal(anchors, again[0])
    assert torch.equal(discordant, again[1])


def test_every_discordant_place_is_as_likely_as_any_other() -> None:
    generator, times = torch.Generator().manual_seed(0), 600
    asked, chosen = torch.zeros(25), torch.zeros(25, 25)
    for _ in range(times):
        anchors, discordant = discordant_places(5, 5, places=10, count=3, generator=generator)
        asked[anchors] += 1
        chosen[anchors] += discordant
    far = torch.tensor(
        [[max(abs(k // 5 - m // 5), abs(k % 5 - m % 5)) >= 2 for m in range(25)] for k in range(25)]
    )
    assert not chosen[~far].any()
    # Binomial counts: all of them within 5 standard deviations.
    assert ((asked - times * 0.4).abs() < 5 * math.sqrt(times * 0.4 * 0.6)).all()
    p = (3 / far.sum(1, keepdim=True)).expand_as(far)[far]
    n = asked[:, None].expand_as(far)[far]
    assert ((chosen[far] - n * p).abs() < 5 * (n * p * (1 - p)).sqrt()).all()
