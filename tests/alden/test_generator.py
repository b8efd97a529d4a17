"""Generators: shapes, starts, sizes, gradients."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from alden_lite.alden.generator import (
    GENERATORS,
    REDCNN,
    ESAUNet,
    UNet,
    _ChannelAttentionBlock,
    _on_multiples_of,
    build_generator,
    keep_input,
)


@pytest.mark.parametrize("name", sorted(GENERATORS))
@pytest.mark.parametrize("size", [(64, 64), (37, 51)])
def test_a_generator_returns_what_it_was_given_in_shape(name: str, size: tuple[int, int]) -> None:
    u = torch.randn(2, 1, *size)
    assert build_generator(name)(u).shape == u.shape


def test_an_untrained_unet_returns_its_input() -> None:
    u = torch.randn(1, 1, 40, 40)
    assert torch.equal(UNet()(u), u)


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_every_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    generator = build_generator(name)
    optimiser = torch.optim.SGD(generator.parameters(), lr=0.1)
    u, target = torch.rand(2, 2, 1, 32, 32)
    for _ in range(2):  # the U-Net's last layer starts at zero: what is behind it wakes up a step later
        optimiser.zero_grad()
        (generator(u) - target).square().mean().backward()
        optimiser.step()
    silent = [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_padding_to_the_strides_changes_only_the_border() -> None:
    torch.manual_seed(0)
    generator = UNet()
    torch.nn.init.normal_(generator.leave[0].weight, std=0.1)  # type: ignore[arg-type]
    u = torch.rand(1, 1, 128, 128)
    whole, cut = generator(u), generator(u[..., :125, :])
    torch.testing.assert_close(whole[..., :40, :], cut[..., :40, :])


def test_known_sizes() -> None:
    count = {name: sum(p.numel() for p in build().parameters()) for name, build in GENERATORS.items()}
    # RED-CNN: five 5 x 5 convolutions of 96 and back, each with its bias.
    assert count["redcnn"] == 2 * (25 * 96 + 4 * 25 * 96 * 96) + 96 * 5 + (96 * 4 + 1)
    assert count["unet"] < 0.6e6


def test_an_unknown_generator_and_a_slice_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="choose from"):
        build_generator("vgg")
    with pytest.raises(ValueError, match="at least 21 x 21"):
        REDCNN()(torch.zeros(1, 1, 20, 64))


def test_a_unet_can_leave_a_share_of_its_input_in() -> None:
    torch.manual_seed(0)
    generator, u = UNet(), torch.rand(1, 1, 40, 40)
    for weight in generator.leave[0].parameters():
        torch.nn.init.normal_(weight, std=0.1)
    before = generator(u)
    assert keep_input(generator, 0.25) is generator
    torch.testing.assert_close(generator(u), 0.25 * u + 0.75 * before)
    torch.testing.assert_close(keep_input(generator, 0)(u), 0.25 * u + 0.75 * before)


def test_a_share_out_of_range_or_of_a_generator_that_adds_nothing_is_refused() -> None:
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"share must be in \[0, 1\)"):
            keep_input(UNet(), share)
    with pytest.raises(ValueError, match="only a UNet adds to its input; got ESAUNet"):
        keep_input(ESAUNet(), 0.2)


# The networks written out


@torch.no_grad()
def test_redcnn_is_its_figure_written_out() -> None:
    torch.manual_seed(0)
    network, u = REDCNN(width=4), torch.randn(1, 1, 24, 23)
    after = [u]  # what every convolution gives
    for layer in network.encode:
        after.append(F.conv2d(after[-1], layer.weight, layer.bias).relu())  # type: ignore[arg-type]
    up = [partial(F.conv_transpose2d, weight=layer.weight, bias=layer.bias) for layer in network.decode]
    x = (up[0](after[5]) + after[4]).relu()
    x = up[1](x).relu()
    x = (up[2](x) + after[2]).relu()
    x = up[3](x).relu()
    torch.testing.assert_close(network(u), up[4](x) + u)


@torch.no_grad()
def test_the_unet_adds_every_level_to_the_finer_one() -> None:
    torch.manual_seed(0)
    network, u = UNet(width=4), torch.rand(1, 1, 16, 24)
    torch.nn.init.normal_(network.leave[0].weight)  # type: ignore[arg-type]
    half = network.enter(u)
    quarter = network.down_quarter(half)
    twice = network.up_quarter(network.down_eighth(quarter)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    quarter = network.mix_quarter(quarter + twice)
    half = network.mix_half(half + network.up_half(quarter).repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(network(u), u + network.leave(half))
    assert half.shape[2:] == (8, 12)
    assert quarter.shape[2:] == (4, 6)


@torch.no_grad()
def test_channels_attend_to_the_channels_of_their_head() -> None:
    """Each channel's map is a token: cosines times a temperature for each head, by loops."""
    torch.manual_seed(0)
    block = _ChannelAttentionBlock(4, 6, heads=2)
    block.temperature.copy_(torch.tensor([0.5, 3.0])[:, None, None])
    x = torch.randn(1, 4, 3, 5)
    q, k, v = block.qkv(x)[0].flatten(1).split(4)  # each (4, 15)
    found = []
    for channel in range(4):
        head = channel // 2
        keys = range(2 * head, 2 * head + 2)
        likeness = [q[channel] @ k[other] / (q[channel].norm() * k[other].norm()) for other in keys]
        scores = [math.exp(block.temperature[head].item() * cosine.item()) for cosine in likeness]
        found.append(sum(s / sum(scores) * v[other] for s, other in zip(scores, keys, strict=True)))
    y = x + block.project(torch.stack(found).reshape(1, 4, 3, 5))  # type: ignore[arg-type]
    torch.testing.assert_close(block(x), block.convs(y) + block.shortcut(y))


@torch.no_grad()
def test_esau_net_is_its_layout_written_out() -> None:
    torch.manual_seed(0)
    network, u = ESAUNet(width=8), torch.rand(1, 1, 16, 16)
    levels = [network.down[0](network.enter(u))]
    for block in list(network.down)[1:]:
        levels.append(block(F.max_pool2d(levels[-1], 2)))
    x = levels[3]
    for block, finer in zip(network.up, (levels[2], levels[1], levels[0]), strict=True):
        x = block(doubled_to_the_corners(x) + finer)
    torch.testing.assert_close(network(u), network.leave(x), atol=1e-6, rtol=1e-4)


def doubled_to_the_corners(x: torch.Tensor) -> torch.Tensor:
    """Bilinear to twice the size, corner pixels on corner pixels: (B, C, h, w) to (B, C, 2 h, 2 w)."""
    for axis in (2, 3):
        size = x.shape[axis]
        at = torch.arange(2 * size) * ((size - 1) / (2 * size - 1))
        low = at.long().clamp(max=max(size - 2, 0))
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(4)])
        x = x.index_select(axis, low).lerp(x.index_select(axis, (low + 1).clamp(max=size - 1)), share)
    return x


def test_a_slice_is_continued_by_its_mirror_image_below_and_to_the_right() -> None:
    seen = []

    def network(u: torch.Tensor) -> torch.Tensor:
        seen.append(u)
        return u

    u = torch.arange(90.0).reshape(1, 1, 9, 10)
    assert torch.equal(_on_multiples_of(8, network, u), u)
    rows, columns = [*range(9), 7, 6, 5, 4, 3, 2, 1], [*range(10), 8, 7, 6, 5, 4, 3]
    assert torch.equal(seen[0], u[..., rows, :][..., columns])
