"""The PVM: the published weights, frozen, with the right blocks tapped and a gradient to the CT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from alden_lite import assets
from alden_lite.hounsfield import Window
from alden_lite.pvm import PVM, load_pvm

# Tokens of the ONNX graph that the weights came in, at (row 18, column 7) and (30, 33), channels 0
# to 3, and the mean magnitude of the map. Made once with onnxruntime 1.32 (largest difference from
# ours over all tokens of the three blocks: 3.2e-5):
#   graph = onnx.load("vit_s_focus.onnx")
#   for axis, size in zip(graph.graph.input[0].type.tensor_type.shape.dim[2:], "hw"):
#       axis.dim_param = size
#   names = [f"/backbone/encoder/layer.{tap - 1}/Add_1_output_0" for tap in (4, 8, 12)]
#   graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
#   session = onnxruntime.InferenceSession(graph.SerializeToString())
#   session.run(names, {"input_image": load_pvm().image(wave()).numpy()})  # tokens after the first
ONNX_TOKENS = {
    4: ([0.01419, 0.14714, -0.03114, 0.02484], [-0.01394, -0.00864, 0.02037, 0.03957], 0.031095),
    8: ([-0.02722, 0.2553, -0.02845, -0.06679], [-0.01419, 0.15633, -0.07872, 0.05062], 0.108727),
    12: ([0.68906, 0.67599, 2.19792, -4.29301], [0.63566, 0.41836, 1.77976, -4.29407], 1.72886),
}


def wave() -> Tensor:
    """A smooth made-up slice, (1, 1, 518, 518) HU, partly outside the abdominal window."""
    y, x = torch.meshgrid(torch.arange(518.0), torch.arange(518.0), indexing="ij")
    return (50 + 150 * torch.sin(x / 23) * torch.cos(y / 37) + 0.05 * x)[None, None]


def soft_tissue(batch: int = 1, height: int = 56, width: int = 56) -> Tensor:
    """Random soft tissue inside the abdominal window, (B, 1, H, W) HU."""
    generator = torch.Generator().manual_seed(0)
    return 50 + 40 * torch.randn(batch, 1, height, width, generator=generator).clamp(-3, 3)


@pytest.fixture(scope="module")
def pvm() -> PVM:
    return load_pvm()


@pytest.fixture(scope="module")
def lite0() -> PVM:
    return load_pvm("efficientnet_lite0")


# Which features


def test_tokens_are_those_of_the_graph_the_weights_came_in(pvm: PVM) -> None:
    for tap, features in zip(pvm.taps, pvm(wave()), strict=True):
        first, second, magnitude = ONNX_TOKENS[tap]
        assert features.shape == (1, 384, 37, 37)
        torch.testing.assert_close(features[0, :4, 18, 7], torch.tensor(first), atol=2e-4, rtol=0)
        torch.testing.assert_close(features[0, :4, 30, 33], torch.tensor(second), atol=2e-4, rtol=0)
        assert features.abs().mean().item() == pytest.approx(magnitude, abs=1e-4)


def test_tap_k_is_the_output_of_the_first_k_blocks() -> None:
    pvm = load_pvm(taps=(1, 4, 9))
    hu = soft_tissue(height=42, width=70)
    backbone = pvm.backbone
    tokens = backbone._pos_embed(backbone.patch_embed(pvm.image(hu)))
    by_hand = {}
    for number, block in enumerate(backbone.blocks, start=1):
        tokens = block(tokens)
        by_hand[number] = tokens[:, 1:].transpose(1, 2).reshape(1, 384, 3, 5)
    for tap, features in zip(pvm.taps, pvm(hu), strict=True):
        torch.testing.assert_close(features, by_hand[tap])


def test_tap_12_is_the_models_output_before_its_last_norm(pvm: PVM) -> None:
    hu = soft_tissue(batch=2)
    tokens = pvm(hu)[-1].flatten(2).transpose(1, 2)
    expected = pvm.backbone.forward_features(pvm.image(hu))[:, 1:]
    torch.testing.assert_close(pvm.backbone.norm(tokens), expected)


def test_taps_give_one_map_each_with_the_said_channels(pvm: PVM) -> None:
    maps = pvm(soft_tissue(batch=2, height=42, width=70))
    assert pvm.taps == (4, 8, 12)
    assert pvm.channels == (384, 384, 384)
    assert [tuple(features.shape) for features in maps] == [(2, 384, 3, 5)] * 3


def test_features_tell_two_images_apart(pvm: PVM) -> None:
    hu = soft_tissue(batch=2)
    deepest = pvm(hu)[-1]
    assert (deepest[0] - deepest[1]).abs().mean() > 0.1


# Frozen


def test_parameters_never_change_nor_take_a_gradient(pvm: PVM) -> None:
    before = {name: value.clone() for name, value in pvm.state_dict().items()}
    hu = soft_tissue().requires_grad_()
    pvm.train()
    sum(features.square().mean() for features in pvm(hu)).backward()
    assert not any(parameter.requires_grad for parameter in pvm.parameters())
    assert all(parameter.grad is None for parameter in pvm.parameters())
    assert all(torch.equal(value, before[name]) for name, value in pvm.state_dict().items())


def test_train_leaves_it_in_evaluation_mode(lite0: PVM) -> None:
    # Batch norm in training mode would move its statistics with every image.
    torch.nn.Sequential(lite0).train()
    assert not any(module.training for module in lite0.modules())


@pytest.mark.parametrize("tap", [0, 1, 2])
def test_the_gradient_of_every_tap_reaches_the_ct(pvm: PVM, tap: int) -> None:
    hu = soft_tissue().requires_grad_()
    pvm(hu)[tap].square().mean().backward()
    assert hu.grad is not None
    assert (hu.grad != 0).float().mean() > 0.99


def test_the_gradient_agrees_with_a_finite_difference(pvm: PVM) -> None:
    hu, direction = soft_tissue().requires_grad_(), torch.ones(1, 1, 56, 56)
    direction[..., ::2] = -1

    def energy(image: Tensor) -> Tensor:
        return pvm(image)[0].square().mean()

    (gradient,) = torch.autograd.grad(energy(hu), hu)
    with torch.no_grad():
        slope = (energy(hu + direction) - energy(hu - direction)) / 2
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=0.05)


# CT in


def test_one_window_is_shown_to_all_three_channels(pvm: PVM) -> None:
    image = pvm.image(torch.full((1, 1, 14, 14), 50.0))  # mid-grey of the abdominal window
    expected = [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    torch.testing.assert_close(image[0, :, 0, 0], torch.tensor(expected))


def test_three_windows_are_three_channels() -> None:
    pvm = load_pvm(windows=["lung", (50, 400), Window(400, 1800)])
    image = pvm.image(torch.full((1, 1, 14, 14), -50.0))
    grey = [550 / 1500 + 0.5, 0.25, 0.25]
    restored = image[0, :, 0, 0] * pvm.std.flatten() + pvm.mean.flatten()
    torch.testing.assert_close(restored, torch.tensor(grey))


def test_pixels_outside_the_window_are_clamped_and_pass_no_gradient(pvm: PVM) -> None:
    hu = torch.full((1, 1, 14, 14), 50.0)
    hu[..., 0, 0] = -1000.0
    hu.requires_grad_()
    image = pvm.image(hu)
    image.sum().backward()
    assert hu.grad is not None
    assert hu.grad[..., 0, 0] == 0 and hu.grad[..., 0, 1] > 0
    torch.testing.assert_close(image[0, :, 0, 0], -(pvm.mean / pvm.std).flatten())


def test_it_runs_under_bfloat16_autocast(pvm: PVM) -> None:
    hu = soft_tissue().requires_grad_()
    exact = pvm(hu)
    with torch.autocast("cpu", torch.bfloat16):
        rough = pvm(hu)
    rough[-1].float().square().mean().backward()
    assert hu.grad is not None and hu.grad.isfinite().all()
    for a, b in zip(rough, exact, strict=True):
        assert (a.float() - b).norm() / b.norm() < 0.05


# The convolutional one


def test_lite0_taps_are_its_stages(lite0: PVM) -> None:
    maps = lite0(soft_tissue(height=56, width=57))
    assert lite0.channels == (16, 24, 40, 112, 320)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (16, 28, 29),
        (24, 14, 15),
        (40, 7, 8),
        (112, 4, 4),
        (320, 2, 2),
    ]
    backbone = lite0.backbone
    stem = backbone.bn1(backbone.conv_stem(lite0.image(soft_tissue(height=56, width=57))))
    torch.testing.assert_close(maps[0], backbone.blocks[0](stem))


@pytest.mark.parametrize(("picture", "classes"), [("chelsea", {281, 282, 285}), ("coffee", {967})])
def test_lite0_knows_a_cat_from_a_coffee(lite0: PVM, picture: str, classes: set[int]) -> None:
    import skimage.data

    image = torch.tensor(getattr(skimage.data, picture)()).permute(2, 0, 1)[None] / 255
    image = torch.nn.functional.interpolate(image, (224, 224), mode="bilinear", antialias=True)
    logits = lite0.backbone((image - lite0.mean) / lite0.std)
    assert logits.argmax().item() in classes


def test_sam_takes_any_multiple_of_its_patch() -> None:
    import timm

    tiny = timm.create_model(
        "samvit_base_patch16", depth=2, embed_dim=48, num_heads=2, global_attn_indexes=(1,)
    )
    pvm = PVM(
        tiny,
        name="tiny_sam",
        taps=(1, 2),
        windows="abdomen",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        patch_size=16,
        weights_sha256="",
    )
    maps = pvm(soft_tissue(height=64, width=96))
    assert [tuple(m.shape) for m in maps] == [(1, 48, 4, 6)] * 2


# Loading


def test_which_weights_they_are_is_known(pvm: PVM, lite0: PVM) -> None:
    assert (pvm.name, pvm.patch_size) == ("dinov2_vits14", 14)
    assert pvm.weights_sha256 == assets.ASSETS["dinov2_vits14"].sha256
    assert lite0.weights_sha256 == assets.ASSETS["efficientnet_lite0"].sha256


def test_loading_draws_no_random_numbers() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    load_pvm("efficientnet_lite0")
    assert torch.rand(1) == expected


def test_weights_of_another_model_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = assets.path("efficientnet_lite0")
    monkeypatch.setattr(assets, "path", lambda name: other)
    with pytest.raises(assets.AssetError, match="does not hold vit_small_patch14_dinov2"):
        load_pvm("dinov2_vits14")


def test_without_assets_there_is_an_error_and_no_random_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALDEN_LITE_CACHE", str(tmp_path))
    with pytest.raises(assets.AssetError, match="python -m alden_lite assets"):
        load_pvm("dinov2_vits14")


def test_an_online_model_offline_is_an_error_and_no_random_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(assets.AssetError, match=r"could not be\s+fetched.*") as caught:
        load_pvm("dinov2_vitb14")
    assert "load_pvm('dinov2_vits14')" in str(caught.value)


# Errors


def test_an_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"no PVM named 'clip'; there are dinov2_vits14, eff"):
        load_pvm("clip")


@pytest.mark.parametrize("taps", [(0,), (13,), (8, 4), (4, 4), ()])
def test_taps_that_there_are_not_are_refused(taps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="taps of dinov2_vits14 are rising numbers from 1 to 12"):
        load_pvm(taps=taps)


def test_unknown_windows_and_wrong_numbers_of_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="no window named 'knee'; there are"):
        load_pvm("efficientnet_lite0", windows="knee")
    with pytest.raises(ValueError, match="one window or three, got 2"):
        load_pvm("efficientnet_lite0", windows=["lung", "bone"])
    with pytest.raises(ValueError, match="width above 0"):
        load_pvm("efficientnet_lite0", windows=[(40, 0)])


def test_a_size_off_the_patch_grid_names_the_nearest_multiples(pvm: PVM) -> None:
    with pytest.raises(ValueError, match=r"multiples of 14, got 512 x 64: .* 56, 70, 504, 518"):
        pvm(torch.zeros(1, 1, 512, 64))


@pytest.mark.parametrize(
    "hu",
    [torch.zeros(1, 14, 14), torch.zeros(1, 3, 14, 14), torch.zeros(1, 1, 14, 14).short()],
    ids=["no batch", "three channels", "integers"],
)
def test_anything_but_floating_point_hu_is_refused(pvm: PVM, hu: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        pvm(hu)
