"""Attention by hand, as pictures, and rolled out through the blocks."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from made_networks import by_hand, patch_score, probe, seeded, soft_tissue, state, tiny_backbone, wrapped
from timm.layers import use_fused_attn
from timm.utils import AttentionExtract
from torch import Tensor, nn
from torch.nn import functional

from alden_lite import explain
from alden_lite.alden.pvm import PVM, load_pvm
from alden_lite.explain import attention_maps

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
    shallow = attention_maps.tapped(tiny, 2)
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
