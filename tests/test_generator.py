"""Generators: shapes, starts, sizes, gradients."""

import pytest
import torch

from alden_lite.generator import GENERATORS, REDCNN, ESAUNet, UNet, build_generator, keep_input


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
