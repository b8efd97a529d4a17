"""Distances that networks see: LPIPS by hand, and a judge that trained nobody it judges."""

from pathlib import Path

import numpy as np
import piq
import pytest
import torch
from torch import nn
from torchvision.models import vgg

from alden_lite.alden.pvm import load_pvm
from alden_lite.evaluation.perception import LPIPS_WEIGHTS, load_lpips, lpips_distance, perceptual_distance
from alden_lite.evaluation.quality import image_metrics


@pytest.fixture
def slices() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    normal = rng.normal(20, 60, (64, 64)).astype(np.float32)
    return torch.from_numpy(normal + rng.normal(0, 30, normal.shape).astype(np.float32)), torch.from_numpy(
        normal
    )


def test_lpips_without_its_weights_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"not in {tmp_path}") as raised:
        load_lpips(tmp_path)
    assert all(address in str(raised.value) for address in LPIPS_WEIGHTS.values())
    (tmp_path / "lpips_weights.pt").touch()
    with pytest.raises(FileNotFoundError, match="vgg16-397923af.pth") as raised:
        load_lpips(tmp_path)
    assert LPIPS_WEIGHTS["lpips_weights.pt"] not in str(raised.value)


def test_lpips_is_the_weighted_distance_of_normalised_features(
    slices: tuple[torch.Tensor, torch.Tensor],
) -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 6, 3, stride=2), nn.Sigmoid())
    weights = [torch.rand(1, 4, 1, 1), torch.rand(1, 6, 1, 1)]
    network = piq.ContentLoss(backbone, layers=("1", "3"), weights=weights, normalize_features=True)

    expected = 0.0
    low, normal = ((t.clamp(-160, 240) + 160) / 400 for t in slices)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    a, b = ((grey[..., None] - mean).div(deviation).permute(2, 0, 1)[None] for grey in (low, normal))
    for layers, weight in ((backbone[:2], weights[0]), (backbone[2:], weights[1])):
        a, b = layers(a), layers(b)
        distance = (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).square()
        expected += float((weight * distance).sum(1).mean())
    assert lpips_distance(*slices, network=network) == pytest.approx(expected, rel=1e-3)
    assert lpips_distance(slices[0], slices[0], network=network) == 0
    with pytest.raises(ValueError, match="32 x 32"):
        lpips_distance(low[:31], normal[:31], network=network)


def test_lpips_takes_its_weights_from_files_and_its_features_from_vgg16(
    tmp_path: Path, slices: tuple[torch.Tensor, torch.Tensor]
) -> None:
    torch.manual_seed(0)
    features = vgg.make_layers(vgg.cfgs["D"])
    stored = {f"features.{key}": value for key, value in features.state_dict().items()}
    torch.save(stored | {"classifier.0.weight": torch.zeros(1)}, tmp_path / "vgg16-397923af.pth")
    taps = [features[: last + 1] for last in (3, 8, 15, 22, 29)]  # relu1_2, 2_2, 3_3, 4_3, 5_3
    assert all(isinstance(tap[-1], nn.ReLU) for tap in taps)
    mean, deviation = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    linear, expected = [], 0.0
    with torch.no_grad():
        for tap in taps:
            a, b = (
                tap((((t.clamp(-160, 240) + 160) / 400).expand(1, 3, 64, 64) - mean) / deviation)
                for t in slices
            )
            distance = (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).square()
            linear.append(torch.rand(1, a.shape[1], 1, 1) / distance.sum(1).mean())  # all taps count
            expected += float((linear[-1] * distance).sum(1).mean())
    torch.save(linear, tmp_path / "lpips_weights.pt")
    network = load_lpips(tmp_path)
    assert lpips_distance(*slices, network=network) == pytest.approx(expected, rel=1e-3)
    assert not any(parameter.requires_grad for parameter in network.parameters())  # type: ignore[attr-defined]


def test_the_judge_sees_blur_that_rmse_forgives(slices: tuple[torch.Tensor, torch.Tensor]) -> None:
    judge = load_pvm("efficientnet_lite0")
    low, normal = slices
    assert perceptual_distance(normal, normal, judge=judge) == 0.0
    assert (
        0
        < perceptual_distance(normal + 1, normal, judge=judge)
        < perceptual_distance(low, normal, judge=judge)
    )


def test_the_network_that_trained_a_generator_may_not_judge_it(
    slices: tuple[torch.Tensor, torch.Tensor],
) -> None:
    judge = load_pvm("efficientnet_lite0")
    with pytest.raises(ValueError, match="judge with another network"):
        perceptual_distance(*slices, judge=judge, training_pvm="efficientnet_lite0")
    assert image_metrics(*slices, judge=judge, training_pvm="dinov2_vits14")["judge"] > 0
