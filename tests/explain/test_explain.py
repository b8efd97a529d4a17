"""Explanations against independent computations, and against the properties that they promise."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from timm.layers import use_fused_attn
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from timm.utils import AttentionExtract
from torch import Tensor, nn
from torch.nn import functional

from alden_lite import explain
from alden_lite.alden.pvm import PVM, load_pvm
from alden_lite.explain import attention_maps
from alden_lite.explain.colours import ForegroundColours
from alden_lite.explain.probes import LinearProbe


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def soft_tissue(batch: int = 1, height: int = 42, width: int = 56, seed: int = 0) -> Tensor:
    """Random soft tissue inside the abdominal window, (B, 1, H, W) HU: a grid of 3 x 4 patches."""
    return 50 + 50 * seeded(batch, 1, height, width, seed=seed).clamp(-3, 3)


GRID = (3, 4)


def wrapped(backbone: nn.Module, *, taps: Sequence[int] = (2, 3), patch_size: int = 14) -> PVM:
    return PVM(
        backbone,
        name="tiny",
        taps=taps,
        windows="abdomen",
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        patch_size=patch_size,
        weights_sha256="tiny",
    )


def tiny_backbone(**options: Any) -> nn.Module:
    """Three blocks of three heads and 24 channels, a class token; no tensor too small to matter."""
    backbone = VisionTransformer(
        img_size=28,
        patch_size=14,
        embed_dim=24,
        depth=3,
        num_heads=3,
        num_classes=0,
        init_values=1.0,
        dynamic_img_size=True,
        **options,
    )
    with torch.no_grad():
        for number, tensor in enumerate(backbone.parameters()):
            tensor += 0.2 * seeded(*tensor.shape, seed=number)
    return backbone


@pytest.fixture(scope="module")
def tiny() -> PVM:
    return wrapped(tiny_backbone())


@pytest.fixture(scope="module")
def lite0() -> PVM:
    return load_pvm("efficientnet_lite0")


@pytest.fixture(scope="module")
def windowed() -> PVM:
    """The architecture of SAM, small: two blocks that attend in windows."""
    backbone = VisionTransformerSAM(
        img_size=64, patch_size=16, embed_dim=12, depth=2, num_heads=2, window_size=2, neck_chans=0
    )
    return wrapped(backbone, taps=(2,), patch_size=16)


def by_hand(pvm: PVM, hu: Tensor) -> dict[int, dict[str, Tensor]]:
    """A plain ViT block by block, without timm's attention: tokens, queries, keys, values, weights."""
    backbone: Any = pvm.backbone
    tokens = backbone._pos_embed(backbone.patch_embed(pvm.image(hu)))
    seen: dict[int, dict[str, Tensor]] = {}
    for number, block in enumerate(backbone.blocks, start=1):
        b, n, c = tokens.shape
        heads = block.attn.num_heads
        parts = block.attn.qkv(block.norm1(tokens)).reshape(b, n, 3, heads, c // heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        q, k = block.attn.q_norm(q), block.attn.k_norm(k)
        likeness = torch.einsum("bhic,bhjc->bhij", q, k) / (c // heads) ** 0.5
        strength = (likeness - likeness.amax(-1, keepdim=True)).exp()
        weights = strength / strength.sum(-1, keepdim=True)
        taken = torch.einsum("bhij,bhjc->bihc", weights, v).reshape(b, n, c)
        tokens = tokens + block.ls1(block.attn.proj(taken))
        tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
        seen[number] = {"q": q, "k": k, "v": v, "weights": weights, "tokens": tokens}
    return seen


def state(pvm: PVM) -> list[Any]:
    """What a careless look inside would leave behind: fused or not, and the number of hooks."""
    layers = [block.attn for block in pvm.backbone.blocks]  # type: ignore[union-attr]
    hooks = [len(module._forward_hooks) for module in pvm.modules()]
    return [[layer.fused_attn for layer in layers], hooks, pvm.taps]


# Attention


def test_rows_of_attention_sum_to_one(tiny: PVM) -> None:
    weights = explain.attention(tiny, soft_tissue(2))
    assert [tuple(block.shape) for block in weights] == [(2, 3, 13, 13)] * 3
    for block in weights:
        torch.testing.assert_close(block.sum(-1), torch.ones(2, 3, 13))
        assert block.min() >= 0


def test_attention_is_softmax_of_queries_and_keys_by_hand(tiny: PVM) -> None:
    hu = soft_tissue(2)
    expected = by_hand(tiny, hu)
    for number, weights in enumerate(explain.attention(tiny, hu), start=1):
        torch.testing.assert_close(weights, expected[number]["weights"])
        assert weights.std() > 0.01  # not all the same


def test_normalised_queries_and_keys_are_followed() -> None:
    pvm = wrapped(tiny_backbone(qk_norm=True))
    hu = soft_tissue()
    expected = by_hand(pvm, hu)
    for number, weights in enumerate(explain.attention(pvm, hu), start=1):
        torch.testing.assert_close(weights, expected[number]["weights"])


def test_attention_is_what_timm_extracts(tiny: PVM) -> None:
    hu = soft_tissue()
    unfused = copy.deepcopy(tiny.backbone)
    for block in unfused.blocks:  # type: ignore[union-attr]
        block.attn.fused_attn = False
    extracted = AttentionExtract(unfused, method="hook")(tiny.image(hu))
    assert len(extracted) == 3
    for ours, theirs in zip(explain.attention(tiny, hu), extracted.values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_attention_mixes_values_as_torchs_fused_form_does() -> None:
    pvm, hu = load_pvm(), soft_tissue()
    parts = by_hand(pvm, hu)[5]
    (weights,) = explain.attention(pvm, hu, blocks=[5])
    fused = functional.scaled_dot_product_attention(parts["q"], parts["k"], parts["v"])
    torch.testing.assert_close(weights @ parts["v"], fused, atol=1e-4, rtol=1e-4)
    assert weights.shape == (1, 6, 13, 13)


def test_blocks_come_in_the_order_asked_for_also_behind_the_taps() -> None:
    shallow = wrapped(tiny_backbone(), taps=(1,))
    hu = soft_tissue()
    every = explain.attention(shallow, hu)
    third, first = explain.attention(shallow, hu, blocks=[3, 1])
    torch.testing.assert_close([third, first], [every[2], every[0]])
    assert shallow.taps == (1,) and len(shallow(hu)) == 1


@pytest.mark.parametrize("heads", ["mean", "max", "min"])
def test_heads_can_be_joined_on_the_way(tiny: PVM, heads: str) -> None:
    hu = soft_tissue()
    joined = explain.attention(tiny, hu, heads=heads)
    for one, weights in zip(joined, explain.attention(tiny, hu), strict=True):
        expected = getattr(np, heads)(weights.numpy(), axis=1, keepdims=True)
        np.testing.assert_allclose(one.numpy(), expected, rtol=1e-6)


def test_looking_at_attention_leaves_no_trace(tiny: PVM) -> None:
    hu = soft_tissue()
    before, features = state(tiny), tiny(hu)
    weights = explain.attention(tiny, hu, blocks=[2])
    assert state(tiny) == before
    assert before[0] == [bool(use_fused_attn())] * 3
    assert not weights[0].requires_grad
    for now, then in zip(tiny(hu), features, strict=True):
        assert torch.equal(now, then)


def test_an_exception_leaves_no_trace_either(tiny: PVM) -> None:
    before = state(tiny)
    with pytest.raises(ValueError, match="multiples of 14"):
        explain.attention(tiny, torch.zeros(1, 1, 30, 28))

    def broken(hu: Tensor) -> Tensor:
        tiny(hu)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        explain.gradient_rollout(tiny, soft_tissue(), broken)
    with pytest.raises(ZeroDivisionError):
        explain.grad_cam(broken, soft_tissue(), pvm=tiny, block=1)
    assert state(tiny) == before


def test_a_pvm_that_rounds_to_bfloat16_shows_nearly_the_same(tiny: PVM) -> None:
    rough, hu = copy.deepcopy(tiny), soft_tissue()
    rough.precision = "bfloat16"
    for ours, theirs in zip(explain.attention(rough, hu), explain.attention(tiny, hu), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.sum(-1), torch.ones(1, 3, 13), atol=0.01, rtol=0)
        torch.testing.assert_close(ours, theirs, atol=0.1, rtol=0)
    assert explain.gradient_rollout(rough, hu, patch_score(rough)).dtype == torch.float32


def test_a_cnn_has_no_attention(lite0: PVM) -> None:
    hu = soft_tissue()
    words = "efficientnet_lite0 is no vision transformer: a CNN has no attention to show"
    with pytest.raises(ValueError, match=words):
        explain.attention(lite0, hu)
    with pytest.raises(ValueError, match=words):
        explain.gradient_rollout(lite0, hu, lambda x: lite0(x)[0].mean((1, 2, 3)))
    with pytest.raises(ValueError, match=words):
        explain.randomised(lite0)


def test_windowed_attention_is_refused(windowed: PVM) -> None:
    with pytest.raises(ValueError, match="attends in windows with relative positions.*take a DINOv2"):
        explain.attention(windowed, torch.zeros(1, 1, 64, 64))


@pytest.mark.parametrize("blocks", [[0], [4], [1, -1], []])
def test_a_block_that_there_is_not_is_refused(tiny: PVM, blocks: list[int]) -> None:
    with pytest.raises(ValueError, match="blocks of tiny are numbers from 1 to 3, got"):
        explain.attention(tiny, soft_tissue(), blocks=blocks)


def test_an_unknown_reduction_and_two_channels_are_refused(tiny: PVM) -> None:
    with pytest.raises(ValueError, match="heads is all, mean, max, min, got 'sum'"):
        explain.attention(tiny, soft_tissue(), heads="sum")
    with pytest.raises(ValueError, match=r"floating point \(B, 1, H, W\), got \(1, 2, 28, 28\)"):
        explain.attention(tiny, torch.zeros(1, 2, 28, 28))


# Attention as a picture


def numbered() -> Tensor:
    """One head of 7 tokens, a class token and a grid of 2 x 3: the weight of row i, column j is 10 i + j."""
    i, j = torch.meshgrid(torch.arange(7.0), torch.arange(7.0), indexing="ij")
    return (10 * i + j)[None, None]


def test_the_class_tokens_row_without_its_own_column_is_a_picture() -> None:
    picture = explain.attention_map(numbered(), grid=(2, 3))
    assert picture.tolist() == [[[[1, 2, 3], [4, 5, 6]]]]


def test_a_patchs_row_is_found_by_row_and_column() -> None:
    picture = explain.attention_map(numbered(), grid=(2, 3), place=(1, 0))  # token 4
    assert picture.tolist() == [[[[41, 42, 43], [44, 45, 46]]]]


def test_a_mask_takes_the_mean_of_its_rows() -> None:
    mask = torch.tensor([[True, False, False], [False, False, True]])  # tokens 1 and 6
    picture = explain.attention_map(numbered(), grid=(2, 3), place=mask)
    assert picture.tolist() == [[[[36, 37, 38], [39, 40, 41]]]]


def test_a_rollout_and_tokens_without_class_token_are_pictures_too() -> None:
    assert explain.attention_map(numbered()[:, 0], grid=(2, 3)).shape == (1, 2, 3)
    bare = numbered()[..., 1:, 1:]
    picture = explain.attention_map(bare, grid=(2, 3), place=(0, 1))
    assert picture.tolist() == [[[[21, 22, 23], [24, 25, 26]]]]


def test_registers_behind_the_class_token_are_no_patches() -> None:
    picture = explain.attention_map(numbered(), grid=(2, 2), place=(1, 0))  # tokens 3 to 6 are patches
    assert picture.tolist() == [[[[53, 54], [55, 56]]]]
    assert explain.attention_map(numbered(), grid=(2, 2)).tolist() == [[[[3, 4], [5, 6]]]]


@pytest.mark.parametrize(
    ("grid", "place", "text"),
    [
        ((2, 4), None, "a grid of 2 x 4 does not fit attention"),
        ((7, 1), None, "no class token before them: choose a place"),
        ((2, 3), (2, 0), r"\(2, 0\) is not on the grid of 2 x 3"),
        ((2, 3), (0, -1), "is not on the grid"),
        ((2, 3), torch.ones(3, 2, dtype=torch.bool), "a mask of places is bool 2 x 3"),
        ((2, 3), torch.zeros(2, 3, dtype=torch.bool), "at least one True"),
        ((2, 3), torch.ones(2, 3), "a mask of places is bool"),
    ],
)
def test_a_place_or_grid_that_does_not_fit_is_refused(grid: Any, place: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        explain.attention_map(numbered(), grid=grid, place=place)


# Rollout


def rows(*shape: int, seed: int = 0) -> Tensor:
    return seeded(*shape, seed=seed).softmax(-1)


def test_rollout_of_identity_is_identity() -> None:
    identity = torch.eye(5).expand(2, 3, 5, 5)
    assert torch.equal(explain.rollout([identity] * 4), torch.eye(5).expand(2, 5, 5))


@pytest.mark.parametrize(("heads", "residual"), [("mean", 0.5), ("mean", 0.3), ("max", 0.5), ("min", 0.1)])
def test_rollout_is_the_papers_product_in_a_loop(heads: str, residual: float) -> None:
    attentions = [rows(2, 3, 5, 5, seed=seed) for seed in range(3)]
    rolled = explain.rollout(attentions, heads=heads, residual=residual)
    for sample in range(2):
        expected = np.eye(5)
        for weights in attentions:
            joined = getattr(weights[sample].double().numpy(), heads)(axis=0)
            mixed = residual * np.eye(5) + (1 - residual) * joined
            for row in range(5):
                mixed[row] /= mixed[row].sum()
            expected = np.array([[mixed[i] @ expected[:, j] for j in range(5)] for i in range(5)])
        np.testing.assert_allclose(rolled[sample].numpy(), expected, atol=1e-6)


def test_a_later_block_reads_what_an_earlier_one_has_mixed() -> None:
    # Block 1: token 1 takes from token 2. Block 2: token 0 takes from token 1. So 0 gets 2, by way of 1.
    first, second = torch.eye(3), torch.eye(3)
    first[1] = torch.tensor([0.0, 0, 1])
    second[0] = torch.tensor([0.0, 1, 0])
    rolled = explain.rollout([first[None, None], second[None, None]], residual=0.0)
    assert rolled[0].tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 1]]
    swapped = explain.rollout([second[None, None], first[None, None]], residual=0.0)
    assert swapped[0].tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 1]]


def test_rows_of_a_rollout_sum_to_one(tiny: PVM) -> None:
    rolled = explain.rollout(explain.attention(tiny, soft_tissue(2)), heads="max")
    torch.testing.assert_close(rolled.sum(-1), torch.ones(2, 13))


def test_a_residual_of_one_lets_everything_pass_by() -> None:
    rolled = explain.rollout([rows(1, 2, 4, 4)] * 3, residual=1.0)
    assert torch.equal(rolled, torch.eye(4)[None])


@pytest.mark.parametrize(
    ("attentions", "options", "text"),
    [
        ([], {}, "attentions .B, heads, N, N. of one shape, got"),
        ([rows(1, 2, 4, 4), rows(1, 2, 5, 5)], {}, "of one shape"),
        ([rows(2, 4, 4)], {}, "of one shape"),
        ([rows(1, 2, 4, 3)], {}, "of one shape"),
        ([rows(1, 2, 4, 4)], {"residual": 1.5}, "residual is a share from 0 to 1, got 1.5"),
        ([rows(1, 2, 4, 4)], {"heads": "all"}, "heads is mean, max, min, got 'all'"),
    ],
)
def test_attentions_that_cannot_be_rolled_out_are_refused(attentions: Any, options: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        explain.rollout(attentions, **options)


# Rollout weighed by gradients


def patch_score(pvm: PVM, tap: int = 0) -> attention_maps.Score:
    """A score with a gradient that changes sign over tokens and channels."""
    direction = seeded(24, 12, seed=5)

    def score(hu: Tensor) -> Tensor:
        return (pvm(hu)[tap].flatten(2) * direction).sum((1, 2))

    return score


def test_gradient_rollout_is_chefers_recursion_in_float64(tiny: PVM) -> None:
    hu = soft_tissue()
    rolled = explain.gradient_rollout(tiny, hu, patch_score(tiny, tap=1))
    exact = copy.deepcopy(tiny).double()
    with torch.enable_grad():
        seen = by_hand(exact, hu.double().requires_grad_())
        patches = seen[3]["tokens"][:, 1:].transpose(1, 2)  # (1, 24, 12)
        total = (patches * seeded(24, 12, seed=5).double()).sum()
        weights = [seen[number]["weights"] for number in (1, 2, 3)]
        gradients = torch.autograd.grad(total, weights)
    expected = np.eye(13)
    for one, gradient in zip(weights, gradients, strict=True):
        a, g = one[0].detach().numpy(), gradient[0].numpy()
        mean = sum(np.maximum(g[head] * a[head], 0) for head in range(3)) / 3
        expected = expected + mean @ expected
    np.testing.assert_allclose(rolled[0].numpy(), expected, rtol=1e-3, atol=1e-4)
    assert np.abs(expected - np.eye(13)).max() > 0.1


def test_each_slice_of_a_batch_has_its_own_gradient_rollout(tiny: PVM) -> None:
    hu = soft_tissue(2)
    together = explain.gradient_rollout(tiny, hu, patch_score(tiny))
    for number in range(2):
        alone = explain.gradient_rollout(tiny, hu[number : number + 1], patch_score(tiny))
        torch.testing.assert_close(together[number], alone[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_blocks_behind_the_score_do_not_count(tiny: PVM) -> None:
    hu = soft_tissue()
    shallow = attention_maps._tapped(tiny, 2)
    expected = explain.gradient_rollout(tiny, hu, patch_score(shallow))
    torch.testing.assert_close(explain.gradient_rollout(tiny, hu, patch_score(tiny, tap=0)), expected)


def test_gradient_rollout_works_under_no_grad_and_leaves_the_slice_alone(tiny: PVM) -> None:
    hu = soft_tissue()
    with torch.no_grad():
        rolled = explain.gradient_rollout(tiny, hu, patch_score(tiny))
    assert not rolled.requires_grad and not hu.requires_grad and hu.grad is None


def test_a_score_without_this_pvms_attention_is_refused(tiny: PVM) -> None:
    hu, other = soft_tissue(), wrapped(tiny_backbone())
    with pytest.raises(ValueError, match="does not use tiny: make it with this very PVM"):
        explain.gradient_rollout(tiny, hu, patch_score(other))
    with pytest.raises(ValueError, match="does not depend on any attention of tiny"):
        explain.gradient_rollout(tiny, hu, lambda x: tiny(x)[0].sum((1, 2, 3)).detach() + x.sum((1, 2, 3)))
    with pytest.raises(ValueError, match=r"one number a slice, \(1,\), got \(1, 24, 3, 4\)"):
        explain.gradient_rollout(tiny, hu, lambda x: tiny(x)[0])


def test_a_score_that_looks_twice_is_refused_for_its_first_half_would_be_lost(tiny: PVM) -> None:
    hu, before = soft_tissue(), state(tiny)
    bone, liver = (explain.organ_score(tiny, probe(), group) for group in ("bone", "liver"))

    def rather(x: Tensor) -> Tensor:
        return bone(x) - liver(x)

    with pytest.raises(ValueError, match="the score looks through tiny more than once: .* one linear layer"):
        explain.gradient_rollout(tiny, hu, rather)
    with pytest.raises(ValueError, match="the score looks through tiny more than once"):
        explain.grad_cam(rather, hu, pvm=tiny, block=2)
    assert state(tiny) == before
    once = nn.Linear(24, 1, bias=False)  # what the message advises
    once.weight.data = probe().weight[[2]] - probe().weight[[1]]
    score = explain.organ_score(tiny, once, 0)
    torch.testing.assert_close(score(hu) + 3, rather(hu), rtol=1e-4, atol=1e-4)  # biases 2 and -1
    assert explain.gradient_rollout(tiny, hu, score).shape == (1, 13, 13)


# Colours of features


def tokens_of(maps: Tensor) -> np.ndarray:
    return maps.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()


def test_colours_are_scikit_learns_principal_components() -> None:
    maps = 3 + seeded(2, 8, 5, 6) * torch.arange(1.0, 9).view(1, 8, 1, 1)
    colours = ForegroundColours.fit(maps)
    reference = PCA(3).fit(tokens_of(maps))
    np.testing.assert_allclose(colours.explained, reference.explained_variance_ratio_)
    np.testing.assert_allclose(colours.mean, reference.mean_)
    scores = reference.transform(tokens_of(maps))  # (60, 3)
    for number in range(3):
        axis, theirs = colours.axes[:, number].numpy(), reference.components_[number]
        sign = np.sign(axis @ theirs)
        np.testing.assert_allclose(axis, sign * theirs, atol=1e-9)
        assert axis[np.abs(axis).argmax()] > 0
        score = sign * scores[:, number]
        low, high = np.quantile(score, [0.01, 0.99])
        expected = np.clip((score - low) / (high - low), 0, 1)
        np.testing.assert_allclose(colours(maps)[..., number].flatten(), expected, atol=1e-9)


def test_every_slice_of_a_fit_has_the_same_colours() -> None:
    maps, other = seeded(2, 6, 4, 4), seeded(1, 6, 4, 4, seed=1)
    colours = ForegroundColours.fit(maps)
    together = colours(torch.cat([maps, other]))
    torch.testing.assert_close(together[2:], colours(other))
    torch.testing.assert_close(together[:2], colours(maps))
    assert together.shape == (3, 4, 4, 3) and together.min() == 0 and together.max() == 1


def test_the_background_is_neither_fitted_nor_coloured() -> None:
    maps = seeded(1, 5, 4, 6)
    body = torch.zeros(1, 4, 6, dtype=torch.bool)
    body[:, 1:, 2:5] = True
    elsewhere = torch.where(body[:, None], maps, torch.tensor(1000.0))
    colours = ForegroundColours.fit(maps, body)
    for name in ("mean", "axes", "low", "high", "explained"):
        expected = getattr(ForegroundColours.fit(elsewhere, body), name)
        torch.testing.assert_close(getattr(colours, name), expected)
    picture = colours(maps, body)
    assert picture[~body].max() == 0
    assert torch.equal(picture[body], colours(maps)[body])


def test_maps_that_have_no_colours_are_refused() -> None:
    maps = seeded(1, 5, 4, 6)
    with pytest.raises(ValueError, match="feature maps are finite .* C of 3 or more"):
        ForegroundColours.fit(maps[:, :2])
    with pytest.raises(ValueError, match="feature maps are finite"):
        ForegroundColours.fit(torch.full((1, 5, 2, 2), torch.nan))
    with pytest.raises(ValueError, match="two tokens in the foreground or more, got 0"):
        ForegroundColours.fit(maps, torch.zeros(1, 4, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"is bool \(1, 4, 6\), got \(1, 6, 4\) torch.bool"):
        ForegroundColours.fit(maps, torch.ones(1, 6, 4, dtype=torch.bool))
    colours = ForegroundColours.fit(maps)
    with pytest.raises(ValueError, match="colours of 5 channels do not fit maps"):
        colours(seeded(1, 6, 4, 6))
    with pytest.raises(ValueError, match="the foreground of these maps is bool"):
        colours(maps, torch.ones(1, 4, 6))


# The body


def patient(height: int = 140, width: int = 140) -> Tensor:
    """A disc of tissue with a lung in it, above a hollow table with thin walls, in air: (1, 1, H, W) HU."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    hu = torch.full((height, width), -1000.0)
    hu[(y - 60) ** 2 + (x - 70) ** 2 < 48**2] = 40.0
    hu[(y - 60) ** 2 + (x - 60) ** 2 < 20**2] = -850.0
    hu[114:, 10:130] = -100.0
    hu[118:135, 14:126] = -1000.0
    return hu[None, None]


def test_foreground_is_the_body_with_its_lungs_but_no_table_and_no_air() -> None:
    body = explain.foreground(patient())[0]
    assert body.shape == (10, 10)
    assert body[1:8, 4:6].all()  # with the lung
    assert not body[8:].any() and not body[:, 0].any() and not body[0, 0].any()
    share = np.pi * 48**2 / 140**2
    assert body.float().mean().item() == pytest.approx(share, abs=0.04)


def test_an_arm_beside_the_body_counts_and_a_coin_does_not() -> None:
    hu = torch.full((1, 1, 140, 140), -1000.0)
    hu[..., 28:112, 14:98] = 40
    hu[..., 56:98, 112:126] = 40
    hu[..., 126:140, 14:28] = 3000
    body = explain.foreground(hu)[0]
    assert body[2:8, 1:7].all() and body[4:7, 8].all()
    assert body.sum() == 36 + 3


@pytest.mark.parametrize(("hu", "body"), [(-501, False), (-499, True), (-1000, False), (40, True)])
def test_the_body_begins_above_500_hu_below_water(hu: float, body: bool) -> None:
    assert explain.foreground(torch.full((1, 1, 28, 28), float(hu))).all() == body


def test_what_is_thinner_than_seven_pixels_is_no_body() -> None:
    hu = torch.full((1, 1, 140, 140), -1000.0)
    hu[..., 10:80, 20:120] = 40
    hu[..., 90:97, 20:120], hu[..., 110:116, 20:120] = 40, 40  # 7 and 6 high
    body = explain.foreground(hu, patch_size=1)[0]
    assert body[90:97, 30:110].all() and not body[100:].any()


def test_a_body_that_the_border_cuts_stays_whole() -> None:
    hu = torch.full((2, 1, 28, 28), 40.0)
    hu[1] = -1000
    assert explain.foreground(hu).tolist() == [[[True] * 2] * 2, [[False] * 2] * 2]
    assert explain.foreground(hu[:1], patch_size=1).all()  # up to the corners


def test_a_patch_belongs_to_the_body_from_half_of_it_on() -> None:
    hu = torch.full((1, 1, 28, 56), -1000.0)
    hu[..., :36] = 40  # two patches and 8 of the third one's 14 columns
    assert explain.foreground(hu)[0, 0].tolist() == [True, True, True, False]
    hu[..., 35:] = -1000  # just half
    assert explain.foreground(hu)[0, 0].tolist() == [True, True, True, False]
    hu[..., 34:] = -1000  # 6 of 14
    assert explain.foreground(hu)[0, 0].tolist() == [True, True, False, False]
    assert explain.foreground(hu, patch_size=28).shape == (1, 1, 2)


@pytest.mark.parametrize("shape", [(1, 1, 28, 30), (1, 2, 28, 28), (28, 28)])
def test_a_foreground_of_other_slices_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\) with H, W multiples of 14, got"):
        explain.foreground(torch.zeros(shape))


def test_a_slice_with_nan_is_no_air() -> None:
    hu = patient()
    hu[..., 60, 70] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite values"):
        explain.foreground(hu)


# Similarity


def test_similarity_is_the_cosine_at_every_place() -> None:
    maps, query = seeded(2, 5, 3, 4), seeded(5, seed=1)
    found = explain.similarity(query, maps)
    for b, i, j in itertools.product(range(2), range(3), range(4)):
        token = maps[b, :, i, j].double().numpy()
        one = query.double().numpy()
        expected = token @ one / np.sqrt(token @ token) / np.sqrt(one @ one)
        assert found[b, i, j].item() == pytest.approx(expected, abs=1e-6)


def test_a_token_is_like_itself_at_any_length_and_unlike_its_opposite() -> None:
    maps = seeded(1, 5, 3, 4)
    found = explain.similarity(maps[0, :, 1, 2], torch.cat([7 * maps, -maps]))
    assert found[:, 1, 2].tolist() == pytest.approx([1, -1], abs=1e-6)


def test_a_query_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"query \(C,\) and maps .*got \(4,\), \(1, 5, 3, 4\)"):
        explain.similarity(seeded(4), seeded(1, 5, 3, 4))
    with pytest.raises(ValueError, match="query"):
        explain.similarity(seeded(5), seeded(5, 3, 4))


# Fewer channels


def gram(maps: Tensor) -> np.ndarray:
    unit = tokens_of(maps)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit @ unit.T


def test_all_channels_keep_all_inner_products() -> None:
    maps = 2 + seeded(2, 6, 3, 4)
    small = explain.compact(maps, channels=6)
    ours, theirs = tokens_of(small), tokens_of(maps)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, rtol=1e-5, atol=1e-5)


def test_features_of_low_rank_are_kept_in_as_many_channels() -> None:
    maps = torch.einsum("bkhw,kc->bchw", 1 + seeded(2, 3, 4, 4), seeded(3, 10, seed=1))
    small = explain.compact(maps, channels=3)
    assert small.shape == (2, 3, 4, 4) and small.dtype == torch.float32
    np.testing.assert_allclose(gram(small), gram(maps), atol=1e-6)


def test_fewer_channels_are_the_best_ones_of_numpys_svd() -> None:
    maps = 1 + seeded(1, 8, 4, 5) * torch.arange(1.0, 9).view(1, 8, 1, 1)
    tokens = tokens_of(maps)
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    axes = np.linalg.svd(unit)[2][:3]  # not centred
    projected = tokens @ axes.T
    np.testing.assert_allclose(np.abs(tokens_of(explain.compact(maps, 3))), np.abs(projected), atol=1e-5)


def test_numbers_of_channels_that_there_are_not_are_refused() -> None:
    maps = seeded(1, 6, 2, 2)
    for channels in (0, 7):
        with pytest.raises(ValueError, match=f"channels is a number from 1 to 6, got {channels}"):
            explain.compact(maps, channels)
    with pytest.raises(ValueError, match="feature maps are finite"):
        explain.compact(maps[0], 2)


# Scores


def probe(channels: int = 24) -> LinearProbe:
    weight, bias = seeded(3, channels).double().numpy(), np.array([0.5, -1.0, 2.0])
    return LinearProbe(weight, bias, (1, 4, 9))  # lung, liver, bone


def test_an_organs_score_is_the_probes_mean_logit_over_its_places(tiny: PVM) -> None:
    hu, linear = soft_tissue(2), probe()
    features = tiny(hu)[1].numpy()  # the last tap
    weight, bias = linear.weight[1].numpy(), -1.0
    logits = np.einsum("bchw,c->bhw", features, weight) + bias
    mask = torch.zeros(GRID, dtype=torch.bool)
    mask[0, 1] = mask[2, 3] = True
    for place, expected in [
        (None, logits.mean((1, 2))),
        ((1, 2), logits[:, 1, 2]),
        (mask, (logits[:, 0, 1] + logits[:, 2, 3]) / 2),
    ]:
        for group in (4, "liver"):
            score = explain.organ_score(tiny, linear, group, place=place)(hu)
            assert score.shape == (2,)
            np.testing.assert_allclose(score, expected, rtol=1e-4, atol=1e-4)


def test_another_tap_and_a_plain_layer_can_be_asked(tiny: PVM) -> None:
    hu = soft_tissue()
    layer = nn.Linear(24, 2)
    first = tiny(hu)[0]
    expected = layer(first.permute(0, 2, 3, 1))[..., 1].mean((1, 2))
    score = explain.organ_score(tiny, layer, 1, tap=2)
    torch.testing.assert_close(score(hu), expected)
    ct = soft_tissue().requires_grad_()
    score(ct).sum().backward()
    assert ct.grad is not None and ct.grad.abs().max() > 0
    assert layer.weight.grad is None and tiny.taps == (2, 3)


@pytest.mark.parametrize(
    ("linear", "group", "options", "text"),
    [
        (probe(), 2, {}, r"the probe knows groups \[1, 4, 9\], not 2"),
        (probe(), "heart", {}, "the probe knows no 'heart'; it knows lung, liver, bone"),
        (nn.Linear(24, 3), 3, {}, r"the probe knows groups \[0, 1, 2\], not 3"),
        (nn.Linear(24, 3), "liver", {}, "not 'liver'"),
        (probe(), 4, {"tap": 1}, r"tiny is tapped at \(2, 3\), not at 1"),
        (probe(16), 4, {}, "the probe takes 16 channels, tap 3 of tiny has 24"),
    ],
)
def test_a_question_that_fits_no_probe_is_refused(
    tiny: PVM, linear: Any, group: Any, options: Any, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        explain.organ_score(tiny, linear, group, **options)


def test_a_place_off_the_grid_is_refused_when_the_grid_is_known(tiny: PVM) -> None:
    with pytest.raises(ValueError, match=r"\(3, 0\) is not on the grid of 3 x 4"):
        explain.organ_score(tiny, probe(), 4, place=(3, 0))(soft_tissue())


def test_an_output_is_read_in_hu_at_its_pixel_or_square() -> None:
    hu = torch.arange(30.0).view(1, 1, 5, 6).repeat(2, 1, 1, 1) * torch.tensor([1.0, -1]).view(2, 1, 1, 1)
    assert explain.output_at(nn.Identity(), (2, 3))(hu).tolist() == [15, -15]
    assert explain.output_at(nn.Identity(), (1, 2), side=3)(hu).tolist() == [8, -8]

    class Brighter(nn.Module):
        def forward(self, u: Tensor) -> Tensor:
            return u + 1

    assert explain.output_at(Brighter(), (0, 0))(hu).tolist() == [1024, 1024]


@pytest.mark.parametrize(("place", "side"), [((5, 0), 1), ((0, -1), 1), ((0, 3), 3), ((3, 5), 3)])
def test_an_output_outside_the_slice_is_refused(place: tuple[int, int], side: int) -> None:
    score = explain.output_at(nn.Identity(), place, side=side)
    with pytest.raises(ValueError, match=f"square of {side} x {side} .* is not inside a slice of 5 x 6"):
        score(torch.zeros(1, 1, 5, 6))


def test_a_square_without_a_middle_is_refused() -> None:
    for side in (0, 2, -1):
        with pytest.raises(ValueError, match=f"side is an odd number of pixels, got {side}"):
            explain.output_at(nn.Identity(), (0, 0), side=side)


# Integrated gradients


def test_integrated_gradients_of_a_linear_score_are_weight_times_difference() -> None:
    weight, hu, baseline = seeded(1, 1, 4, 5), seeded(2, 1, 4, 5, seed=1), seeded(4, 5, seed=2)
    found = explain.integrated_gradients(
        lambda x: (x * weight).sum((1, 2, 3)), hu, baseline_hu=baseline, steps=3
    )
    torch.testing.assert_close(found.map, weight * (hu - baseline))
    torch.testing.assert_close(found.difference, (weight * (hu - baseline)).sum((1, 2, 3)))
    assert found.delta.abs().max() < 1e-5 and found.incompleteness.shape == (2,)


def test_integrated_gradients_share_out_a_square_exactly() -> None:
    hu = 50 + 10 * seeded(2, 1, 4, 5)
    found = explain.integrated_gradients(lambda x: x.square().sum((1, 2, 3)), hu, steps=8)
    torch.testing.assert_close(found.map, hu.square() - 150**2)  # from black, -150 HU
    assert found.incompleteness.max() < 1e-5
    assert explain.BLACK_HU == -150


def test_delta_is_the_maps_sum_minus_the_scores_difference() -> None:
    # One node of the rule is the middle: 3 ((x + x0) / 2)^2 (x - x0), where x^3 - x0^3 is due.
    hu = torch.tensor([2.0, -1.0]).view(2, 1, 1, 1)
    found = explain.integrated_gradients(
        lambda x: x.pow(3).sum((1, 2, 3)), hu, baseline_hu=0.0, steps=1, batch=1
    )
    assert found.map.flatten().tolist() == pytest.approx([6, -0.75])
    assert found.difference.tolist() == pytest.approx([8, -1])
    assert found.delta.tolist() == pytest.approx([-2, 0.25])
    assert found.incompleteness.tolist() == pytest.approx([0.25, 0.25])


def test_integrated_gradients_are_the_same_in_batches_of_any_size(
    tiny: PVM, recwarn: pytest.WarningsRecorder
) -> None:
    hu, score = soft_tissue(2), explain.organ_score(tiny, probe(), 4)
    whole = explain.integrated_gradients(score, hu, steps=6, batch=100)
    for batch in (1, 3):
        parts = explain.integrated_gradients(score, hu, steps=6, batch=batch)
        torch.testing.assert_close(parts.map, whole.map, rtol=1e-3, atol=1e-5)
    alone = explain.integrated_gradients(score, hu[1:], steps=6)
    torch.testing.assert_close(whole.map[1:], alone.map, rtol=1e-3, atol=1e-5)
    assert not [warning for warning in recwarn if "batch size" in str(warning.message)]  # captum's


def test_integrated_gradients_of_a_probe_are_a_sum_of_gradients(tiny: PVM) -> None:
    hu, score = soft_tissue(), explain.organ_score(tiny, probe(), 4)
    nodes, weights = np.polynomial.legendre.leggauss(5)
    total = torch.zeros_like(hu)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        mixture = (-150 + node * (hu + 150)).float().requires_grad_()
        total += weight * torch.autograd.grad(score(mixture).sum(), mixture)[0]
    found = explain.integrated_gradients(score, hu, steps=5)
    torch.testing.assert_close(found.map, total * (hu + 150), rtol=1e-3, atol=1e-5)


def test_a_real_organ_score_is_shared_out_to_within_one_percent() -> None:
    pvm = load_pvm(taps=(9,))
    score = explain.organ_score(pvm, probe(384), 4, place=(1, 2))
    found = explain.integrated_gradients(score, soft_tissue(), steps=64)
    assert found.incompleteness.item() < 0.01
    assert found.difference.abs().item() > 0.1


def test_a_pixel_that_equals_the_baseline_gets_nothing(tiny: PVM) -> None:
    hu = soft_tissue()
    hu[..., :10] = explain.BLACK_HU
    hu[..., 10:14] = -1000  # as black in the window
    found = explain.integrated_gradients(explain.organ_score(tiny, probe(), 4), hu, steps=4)
    assert found.map[..., :14].abs().max() == 0 and found.map[..., 14:].abs().min() > 0


def test_attributions_need_no_grad_mode_of_their_own(tiny: PVM) -> None:
    hu, score = soft_tissue(), explain.organ_score(tiny, probe(), 4)
    expected = explain.integrated_gradients(score, hu, steps=2)
    with torch.no_grad():
        torch.testing.assert_close(explain.integrated_gradients(score, hu, steps=2).map, expected.map)
        assert explain.grad_cam(score, hu, pvm=tiny, block=2, relu=False).abs().max() > 0
    assert not expected.map.requires_grad and not expected.difference.requires_grad


# Occlusion


def test_occlusion_is_the_loss_by_covering_in_a_loop() -> None:
    weight, hu = seeded(1, 1, 7, 9), 50 + 20 * seeded(2, 1, 7, 9, seed=1)

    def score(x: Tensor) -> Tensor:
        return (x * weight).sum((1, 2, 3)).square() / 1000

    size, stride, cover = 3, 2, seeded(2, 1, 7, 9, seed=2)
    total, count = torch.zeros_like(hu), torch.zeros_like(hu)
    for top, left in itertools.product(range(0, 7 - size + 1, stride), range(0, 9 - size + 1, stride)):
        covered = hu.clone()
        square = (..., slice(top, top + size), slice(left, left + size))
        covered[square] = cover[square]
        drop = score(hu) - score(covered)
        total[square] += drop.view(2, 1, 1, 1)
        count[square] += 1
    for batch in (1, 4):
        found = explain.occlusion(score, hu, size=size, stride=stride, baseline_hu=cover, batch=batch)
        torch.testing.assert_close(found, total / count, rtol=1e-4, atol=1e-3)


def test_covering_what_raises_the_score_is_positive_and_the_cover_can_be_chosen() -> None:
    hu = torch.zeros(1, 1, 4, 4)
    hu[..., 2:, 2:] = 100

    def score(x: Tensor) -> Tensor:
        return x[..., 2:, 2:].mean((1, 2, 3))

    found = explain.occlusion(score, hu, size=2, stride=2, baseline_hu=0.0)
    assert found[0, 0].tolist() == [[0, 0, 0, 0]] * 2 + [[0, 0, 100, 100]] * 2
    same = explain.occlusion(score, hu, size=2, stride=2, baseline_hu=hu)
    assert same.abs().max() == 0
    black = explain.occlusion(score, hu, size=2, stride=2)
    assert black.max() == 100 - explain.BLACK_HU


def test_squares_that_do_not_fit_the_side_still_reach_the_border() -> None:
    hu = torch.ones(1, 1, 5, 5)
    found = explain.occlusion(lambda x: x.sum((1, 2, 3)), hu, size=2, stride=2, baseline_hu=0.0)
    assert found.min() > 0  # every pixel was covered by some square


# Grad-CAM


@pytest.mark.parametrize("block", [1, 2, 3])
def test_grad_cam_weighs_the_map_of_a_block_by_hand(tiny: PVM, block: int) -> None:
    hu = soft_tissue()
    score = explain.organ_score(tiny, probe(), 4, place=(1, 2))
    backbone: Any = tiny.backbone
    tokens = by_hand(tiny, hu)[block]["tokens"].detach().requires_grad_()
    after = tokens
    for later in backbone.blocks[block:]:
        after = later(after)
    logit = after[0, 1 + 1 * 4 + 2] @ probe().weight[1]
    gradient = torch.autograd.grad(logit, tokens)[0][0, 1:]  # (12, 24), without the class token
    weights = gradient.mean(0)
    expected = (tokens[0, 1:].detach() @ weights).reshape(GRID)
    signed = explain.grad_cam(score, hu, pvm=tiny, block=block, relu=False)
    torch.testing.assert_close(signed[0, 0], expected, rtol=1e-3, atol=1e-5)
    assert expected.min() < 0 < expected.max()
    rectified = explain.grad_cam(score, hu, pvm=tiny, block=block)
    assert torch.equal(rectified, signed.clamp(min=0)) and rectified.shape == (1, 1, *GRID)


def test_grad_cam_of_a_cnn_reads_the_stage(lite0: PVM) -> None:
    hu = soft_tissue(2, 64, 64)
    direction = seeded(320)

    def score(x: Tensor) -> Tensor:
        return torch.einsum("bchw,c->b", lite0(x)[-1], direction)

    deepest = lite0(hu)[-1]  # the score's gradient by it is `direction` everywhere
    expected = torch.einsum("bchw,c->bhw", deepest, direction).clamp(min=0)
    torch.testing.assert_close(
        explain.grad_cam(score, hu, pvm=lite0, block=5)[:, 0], expected, rtol=1e-4, atol=1e-4
    )
    assert explain.grad_cam(score, hu, pvm=lite0, block=2).shape == (2, 1, 16, 16)


def test_grad_cam_of_windowed_attention_takes_the_channels_from_the_end(windowed: PVM) -> None:
    hu = soft_tissue(1, 64, 64)
    direction = seeded(12)

    def score(x: Tensor) -> Tensor:
        return torch.einsum("bchw,c->b", windowed(x)[0], direction)

    expected = torch.einsum("bchw,c->bhw", windowed(hu)[0], direction)
    found = explain.grad_cam(score, hu, pvm=windowed, block=2, relu=False)
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_grad_cam_leaves_no_trace_and_the_score_as_it_was(tiny: PVM) -> None:
    hu, score = soft_tissue(), explain.organ_score(tiny, probe(), 4)
    before, value = state(tiny), score(hu)
    explain.grad_cam(score, hu, pvm=tiny, block=2)
    assert state(tiny) == before and torch.equal(score(hu), value)
    assert not hu.requires_grad


def test_a_block_behind_the_score_is_refused(tiny: PVM) -> None:
    score = explain.organ_score(tiny, probe(), 4, tap=2)
    with pytest.raises(ValueError, match="the score does not use block 3 of tiny"):
        explain.grad_cam(score, soft_tissue(), pvm=tiny, block=3)
    with pytest.raises(ValueError, match="the score does not use block 3 of tiny"):
        explain.grad_cam(patch_score(tiny, tap=0), soft_tissue(), pvm=tiny, block=3)
    with pytest.raises(ValueError, match="blocks of tiny are numbers from 1 to 3, got 4"):
        explain.grad_cam(score, soft_tissue(), pvm=tiny, block=4)


# What all attributions refuse


def mean_score(hu: Tensor) -> Tensor:
    return hu.mean((1, 2, 3))


@pytest.mark.parametrize("method", [explain.integrated_gradients, explain.occlusion])
@pytest.mark.parametrize(
    ("score", "hu", "options", "text"),
    [
        (mean_score, torch.zeros(28, 28), {}, r"floating point \(B, 1, H, W\), got \(28, 28\)"),
        (mean_score, torch.zeros(1, 2, 28, 28), {}, r"got \(1, 2, 28, 28\)"),
        (mean_score, torch.zeros(1, 1, 28, 28, dtype=torch.int16), {}, "torch.int16"),
        (lambda x: x.mean(), torch.zeros(2, 1, 28, 28), {}, r"one number a slice, \(2,\), got \(\)"),
        (mean_score, torch.zeros(1, 1, 28, 28), {"baseline_hu": torch.zeros(3)}, "does not broadcast"),
        (mean_score, torch.zeros(1, 1, 28, 28), {"batch": 0}, "batch|does not cover"),
    ],
)
def test_bad_slices_scores_and_baselines_are_refused(
    method: Any, score: Any, hu: Tensor, options: Any, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        method(score, hu, **options)


def test_grad_cam_refuses_what_the_others_refuse(tiny: PVM) -> None:
    with pytest.raises(ValueError, match=r"floating point \(B, 1, H, W\)"):
        explain.grad_cam(mean_score, torch.zeros(28, 28), pvm=tiny, block=1)
    with pytest.raises(ValueError, match=r"one number a slice"):
        explain.grad_cam(lambda x: tiny(x)[0], soft_tissue(), pvm=tiny, block=1)


def test_a_score_without_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match="no gradient by the HU: compute it without no_grad"):
        explain.integrated_gradients(lambda x: mean_score(x).detach(), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="steps and batch are 1 or more, got 0 and 8"):
        explain.integrated_gradients(mean_score, torch.zeros(1, 1, 4, 4), steps=0)


@pytest.mark.parametrize(("size", "stride"), [(29, 1), (4, 5), (4, 0)])
def test_squares_that_leave_pixels_out_are_refused(size: int, stride: int) -> None:
    with pytest.raises(ValueError, match="1 <= stride <= size <= side of the slice"):
        explain.occlusion(mean_score, torch.zeros(1, 1, 28, 28), size=size, stride=stride)


# A generator's receptive field


def stack() -> nn.Sequential:
    """A 3 x 3 and a 5 x 5 convolution: together they see 7 x 7 pixels."""
    convolutions = [nn.Conv2d(1, 1, size, padding=size // 2, bias=False) for size in (3, 5)]
    with torch.no_grad():
        for number, convolution in enumerate(convolutions):
            convolution.weight.copy_(seeded(*convolution.weight.shape, seed=number))
    return nn.Sequential(*convolutions)


def test_the_receptive_field_of_convolutions_is_their_kernel() -> None:
    generator, hu = stack(), seeded(15, 17)
    field = explain.receptive_field(generator, hu, (6, 9))
    small, large = (layer.weight[0, 0].detach().double().numpy() for layer in generator)  # type: ignore[operator]
    kernel = np.zeros((7, 7))
    for i, j in itertools.product(
        range(5), range(5)
    ):  # a shift of the small one for each weight of the large
        kernel[i : i + 3, j : j + 3] += large[i, j] * small
    np.testing.assert_allclose(field[3:10, 6:13], kernel, rtol=1e-4, atol=1e-5)
    outside = field.clone()
    outside[3:10, 6:13] = 0
    assert field.shape == (15, 17) and outside.abs().max() == 0


def test_a_square_has_the_mean_of_its_pixels_fields() -> None:
    generator, hu = stack(), seeded(15, 17)
    fields = [explain.receptive_field(generator, hu, (y, x)) for y in (5, 6, 7) for x in (8, 9, 10)]
    expected = torch.stack(fields).mean(0)
    torch.testing.assert_close(explain.receptive_field(generator, hu, (6, 9), side=3), expected)


def test_a_field_is_in_hu_per_hu_and_belongs_to_its_slice() -> None:
    class Squared(nn.Module):
        def forward(self, u: Tensor) -> Tensor:
            return u * u

    with torch.no_grad():
        field = explain.receptive_field(Squared(), torch.tensor([[512.0, -1024.0]]), (0, 1))
    assert field.tolist() == [[0, -2]]  # 2 u, at u = -1


def test_the_radius_holds_the_share_of_all_weights() -> None:
    field = torch.zeros(9, 9)
    field[4, 4], field[4, 6], field[1, 4], field[8, 7] = 5, -3, 1, -1  # at distances 0, 2, 3 and 5
    for share, radius in [(0.1, 0), (0.5, 0), (0.51, 2), (0.8, 2), (0.9, 3), (0.91, 5), (1.0, 5)]:
        assert explain.radius_of(field, (4, 4), share) == radius
    assert explain.radius_of(field, (4, 4)) == 0
    assert explain.radius_of(field, (4, 6), 0.4) == 2


def test_even_weights_have_the_radius_of_a_disc() -> None:
    radius = explain.radius_of(torch.ones(201, 201), (100, 100), 0.5)
    assert radius == pytest.approx((201**2 / 2 / np.pi) ** 0.5, abs=0.5)


@pytest.mark.parametrize(
    ("field", "place", "share", "text"),
    [
        (torch.ones(3, 3), (1, 1), 0.0, "share above 0 to 1"),
        (torch.ones(3, 3), (1, 1), 1.1, "share above 0 to 1"),
        (torch.ones(1, 3, 3), (1, 1), 0.5, r"a field \(Y, X\)"),
        (torch.ones(3, 3), (3, 1), 0.5, "not inside a field of 3 x 3"),
        (torch.ones(3, 3), (1, -1), 0.5, "not inside a field"),
        (torch.zeros(3, 3), (1, 1), 0.5, "zeros .* has no radius"),
        (torch.full((3, 3), torch.nan), (1, 1), 0.5, "has no radius"),
    ],
)
def test_a_radius_that_there_is_not_is_refused(field: Tensor, place: Any, share: float, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        explain.radius_of(field, place, share)


def test_a_field_of_another_shape_is_refused() -> None:
    for hu in (torch.zeros(1, 1, 5, 5), torch.zeros(5, 5, dtype=torch.int16)):
        with pytest.raises(ValueError, match=r"a slice is HU as floating point \(Y, X\), got"):
            explain.receptive_field(nn.Identity(), hu, (2, 2))


# Random weights


def block_weights(pvm: PVM, number: int) -> list[Tensor]:
    return list(pvm.backbone.blocks[number - 1].parameters())  # type: ignore[index]


def test_randomising_goes_from_the_last_block_down(tiny: PVM) -> None:
    kept = copy.deepcopy(tiny.state_dict())
    other = explain.randomised(tiny, from_block=2)
    for number, same in [(1, True), (2, False), (3, False)]:
        for ours, theirs in zip(block_weights(other, number), block_weights(tiny, number), strict=True):
            assert torch.equal(ours, theirs) == same
    for name, tensor in other.state_dict().items():
        if ".blocks." not in name:
            assert torch.equal(tensor, kept[name]), name
    assert all(torch.equal(tensor, kept[name]) for name, tensor in tiny.state_dict().items())


def test_drawn_weights_have_the_spread_they_had(tiny: PVM) -> None:
    other = explain.randomised(tiny)
    theirs = tiny.backbone.blocks[1].mlp.fc1.weight  # type: ignore[index,union-attr]
    ours = other.backbone.blocks[1].mlp.fc1.weight  # type: ignore[index,union-attr]
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.05)
    assert ours.mean().item() == pytest.approx(theirs.mean().item(), abs=0.02)
    gains = other.backbone.blocks[1].norm1.weight  # type: ignore[index,union-attr]
    assert gains.mean().item() == pytest.approx(1, abs=0.3)  # not about 0
    assert abs(torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1]) < 0.1
    assert not any(tensor.requires_grad for tensor in other.parameters())


def test_a_randomised_network_says_so_and_never_passes_for_the_pretrained_one(tiny: PVM) -> None:
    names = {start: explain.randomised(tiny, from_block=start).name for start in (1, 2, 3)}
    assert names == {
        1: "tiny, blocks 1-3 random",
        2: "tiny, blocks 2-3 random",
        3: "tiny, block 3 random",
    }
    hashes = {
        explain.randomised(tiny, from_block=start, seed=seed).weights_sha256
        for start, seed in itertools.product((1, 2, 3), (0, 1))
    }
    assert len(hashes | {tiny.weights_sha256}) == 7
    assert tiny.name == "tiny"


def test_random_weights_depend_on_the_seed_and_the_block_alone(tiny: PVM) -> None:
    torch.manual_seed(1)
    some = explain.randomised(tiny, from_block=3, seed=4)
    torch.manual_seed(2)
    more = explain.randomised(tiny, from_block=1, seed=4)
    other = explain.randomised(tiny, from_block=3, seed=5)
    for a, b, c in zip(*(block_weights(pvm, 3) for pvm in (some, more, other)), strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)
    # Nor is a block of one seed another block of the next.
    third = max(block_weights(more, 3), key=Tensor.numel).flatten()
    second = max(block_weights(explain.randomised(tiny, seed=5), 2), key=Tensor.numel).flatten()
    assert abs(torch.corrcoef(torch.stack([second, third]))[0, 1]) < 0.1


def test_random_blocks_of_dinov2_do_something() -> None:
    # Drawn as before training, LayerScale is 1e-5: the blocks would hand on what they get, unchanged.
    pvm, hu = load_pvm(taps=(8, 12)), soft_tissue()
    other = explain.randomised(pvm, from_block=9)
    before, after = other(hu)
    torch.testing.assert_close(before, pvm(hu)[0])
    assert torch.cosine_similarity(after, before, dim=1).max() < 0.5
    assert torch.cosine_similarity(after, pvm(hu)[1], dim=1).abs().mean() < 0.2


def test_blocks_that_there_are_not_cannot_be_randomised(tiny: PVM) -> None:
    for block in (0, 4):
        with pytest.raises(ValueError, match=f"blocks of tiny are numbers from 1 to 3, got {block}"):
            explain.randomised(tiny, from_block=block)


# Are two maps alike?


def test_rank_correlation_by_hand() -> None:
    first = torch.tensor([[1.0, 2, 3, 4], [1.0, 2, 3, 4]])
    second = torch.tensor([[2.0, 1, 4, 3], [40.0, 30, 2, 1]])
    assert explain.rank_correlation(first, second).tolist() == pytest.approx([0.6, -1])  # 1 - 6 * 4 / 60
    tied = torch.tensor([[1.0, 1, 2, 3]])  # ranks 1.5, 1.5, 3, 4
    assert explain.rank_correlation(first[:1], tied).tolist() == pytest.approx([4.5 / (5 * 4.5) ** 0.5])


def test_only_the_order_of_magnitudes_counts() -> None:
    maps = seeded(2, 1, 5, 6)
    assert explain.rank_correlation(maps, -maps.pow(3)).tolist() == pytest.approx([1, 1])


def test_places_that_are_zero_in_both_can_be_left_out() -> None:
    first, second = seeded(1, 1, 8, 8), seeded(1, 1, 8, 8, seed=1)
    air = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    air[..., 2:] = True
    a, b = first.masked_fill(air, 0), second.masked_fill(air, 0)
    assert explain.rank_correlation(a, b).item() > 0.8  # alike in their air alone
    inside = explain.rank_correlation(a, b, where=~air)
    assert inside.item() == pytest.approx(explain.rank_correlation(a[..., :2], b[..., :2]).item())
    assert abs(inside.item()) < 0.6


def test_a_map_of_one_value_has_no_order() -> None:
    assert torch.isnan(explain.rank_correlation(torch.ones(1, 4), seeded(1, 4))).all()


@pytest.mark.parametrize(
    ("first", "second", "where", "text"),
    [
        (seeded(1, 4), seeded(1, 5), None, r"maps of one shape .* got \(1, 4\) and \(1, 5\)"),
        (seeded(4), seeded(4), None, "maps of one shape"),
        (seeded(1, 4), seeded(1, 4), torch.tensor([[True, True, False, False]]), "three places or more"),
        (seeded(1, 4), seeded(1, 4), torch.ones(1, 4), "where is bool"),
        (seeded(1, 2), seeded(1, 2), None, "three places or more"),
    ],
)
def test_maps_that_cannot_be_compared_are_refused(first: Any, second: Any, where: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        explain.rank_correlation(first, second, where=where)
