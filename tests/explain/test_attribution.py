"""Scores and their maps: gradients, occlusion, Grad-CAM and receptive fields by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from made_networks import GRID, by_hand, patch_score, probe, seeded, soft_tissue, state
from torch import Tensor, nn

from alden_lite import explain
from alden_lite.alden.pvm import PVM, load_pvm

# Scores


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
