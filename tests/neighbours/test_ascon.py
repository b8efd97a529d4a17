"""ASCON's loss, reduced: structure, patches, pixels, and the target that follows."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from alden_lite.data.pairs import Pairs
from alden_lite.neighbours.ascon import (
    AnatomicalEncoder,
    AsconPlan,
    AsconTraining,
    patch_loss,
    pixel_loss,
    soft_ssim,
)

TINY = AsconPlan(steps=4, batch=2, crop=112, bank=2, reuse=2, warmup=0, accelerator="cpu")


def weights_of(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in network.parameters()])


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


def test_crops_that_cannot_be_cut_into_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        replace(TINY, crop=104)
