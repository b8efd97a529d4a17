"""The PVM: the published weights, frozen, with the right blocks tapped and a gradient to the CT."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from alden_lite.alden.pvm import _MODELS, INPUTS, PVM, crop_to_grid, load_pvm, random_pvm
from alden_lite.data import assets
from alden_lite.physics.hounsfield import Window

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


@pytest.mark.parametrize(
    ("name", "tap", "channels", "stride"),
    [("resnet18", 3, 128, 8), ("convnext_atto", 2, 80, 8), ("deit_tiny_patch16_224", 7, 192, 16)],
)
def test_any_stage_or_block_of_a_timm_model_can_be_tapped(
    name: str, tap: int, channels: int, stride: int
) -> None:
    options = {"dynamic_img_size": True} if "patch" in name else {}
    backbone = timm.create_model(name, **options)
    pvm = wrapped(backbone, taps=(1, tap), patch_size=16)
    maps = pvm(soft_tissue(height=32, width=64))
    assert pvm.channels[1] == channels
    assert maps[1].shape == (1, channels, 32 // stride, 64 // stride)


def test_nothing_is_computed_beyond_the_last_tap(pvm: PVM) -> None:
    ran: list[int] = []
    shallow = load_pvm(taps=(2, 5))
    hooks = [
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, block in enumerate(shallow.backbone.blocks, start=1)
    ]
    shallow(soft_tissue())
    for hook in hooks:
        hook.remove()
    assert ran == [1, 2, 3, 4, 5]


def wrapped(backbone: Any, **options: Any) -> PVM:
    half: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return PVM(backbone, **({"name": "x", "windows": "abdomen", "weights_sha256": "", **half} | options))


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


def tiny_sam() -> Any:
    return timm.create_model(
        "samvit_base_patch16", depth=2, embed_dim=48, num_heads=2, global_attn_indexes=(1,)
    )


def test_sam_takes_any_multiple_of_its_patch() -> None:
    pvm = wrapped(tiny_sam(), taps=(1, 2), patch_size=16)
    maps = pvm(soft_tissue(height=64, width=96))
    assert [tuple(m.shape) for m in maps] == [(1, 48, 4, 6)] * 2


# Precision


def test_bfloat16_changes_the_maps_a_little_and_their_kind_not_at_all(pvm: PVM) -> None:
    rough = load_pvm(precision="bfloat16")
    hu = soft_tissue().requires_grad_()
    maps = rough(hu)
    maps[-1].square().mean().backward()
    assert hu.grad is not None and hu.grad.isfinite().all()
    for a, b in zip(maps, pvm(hu), strict=True):
        assert a.dtype == torch.float32
        assert 1e-4 < (a - b).norm() / b.norm() < 0.05


def test_float32_is_not_changed_by_what_the_machine_gains(pvm: PVM) -> None:
    assert not pvm.rounds_to_bfloat16(torch.device("cpu"))
    assert pvm(soft_tissue())[0].dtype == torch.float32


@pytest.mark.parametrize(("gain", "rounds"), [(5.0, True), (1.1, False), (0.4, False)])
def test_auto_is_bfloat16_where_it_is_faster(
    gain: float, rounds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains = {"cpu": gain, "cuda": 1.0}
    monkeypatch.setattr("alden_lite.alden.pvm.bfloat16_gain", lambda device_type: gains[device_type])
    pvm = load_pvm("efficientnet_lite0", precision="auto")
    assert pvm.rounds_to_bfloat16(torch.device("cpu")) is rounds
    assert not pvm.rounds_to_bfloat16(torch.device("cuda", 0))


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="no precision 'half'; there are float32, bfloat16, auto"):
        load_pvm("efficientnet_lite0", precision="half")


# The grid of patches


def test_the_middle_is_cropped_to_whole_patches() -> None:
    image = np.arange(31 * 17).reshape(31, 17)
    cropped = crop_to_grid(image, 14)
    assert np.array_equal(cropped, image[1:29, 1:15])  # 3 rows and 3 columns too many: 1 before, 2 after
    assert np.shares_memory(cropped, image)
    assert torch.equal(crop_to_grid(torch.from_numpy(image), 14), torch.from_numpy(cropped))


def test_what_fits_stays_whole() -> None:
    assert crop_to_grid(torch.zeros(2, 1, 28, 42)).shape == (2, 1, 28, 42)


@pytest.mark.parametrize(("shape", "patch"), [((13, 40), 14), ((40, 13), 14), ((40, 40), 0)])
def test_an_image_smaller_than_a_patch_is_refused(shape: tuple[int, int], patch: int) -> None:
    with pytest.raises(ValueError, match="no patch of .* fits into an image of"):
        crop_to_grid(np.zeros(shape), patch)


@pytest.mark.parametrize("name", INPUTS)
def test_every_choice_of_input_can_be_looked_through(name: str) -> None:
    pvm = load_pvm("efficientnet_lite0", windows=INPUTS[name])
    grey = pvm.image(torch.tensor([-600.0, 50.0, 300.0]).view(1, 1, 1, 3)) * pvm.std + pvm.mean
    same = torch.equal(grey[:, 0], grey[:, 1]) and torch.equal(grey[:, 0], grey[:, 2])
    assert same == (name != "three")
    inside = (grey > 0) & (grey < 1)
    assert bool(inside[0, 0, 0, 0]) == (name != "soft")  # lung is black in the window of soft tissue


# Loading


def test_random_weights_say_that_they_are_and_follow_the_seed(pvm: PVM) -> None:
    one, again, other = (random_pvm(seed, taps=(1, 9)) for seed in (3, 3, 4))
    assert one.name == "random_vit" and one.taps == (1, 9) and one.patch_size == 14
    assert one.weights_sha256 == again.weights_sha256
    assert len({one.weights_sha256, other.weights_sha256, pvm.weights_sha256}) == 3
    hu = soft_tissue()
    assert torch.equal(one(hu)[1], again(hu)[1]) and not torch.allclose(one(hu)[1], other(hu)[1])
    assert not any(parameter.requires_grad for parameter in one.parameters())


def test_the_random_networks_blocks_do_nothing_unless_their_layer_scale_is_raised() -> None:
    first, last = random_pvm(taps=(1, 12))(soft_tissue())
    assert (last - first).norm() / first.norm() < 1e-3
    first, last = random_pvm(layer_scale=1, taps=(1, 12))(soft_tissue())
    assert (last - first).norm() / first.norm() > 0.5


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_layer_scale_of_zero_which_timm_takes_for_one_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="layer_scale must be above 0"):
        random_pvm(layer_scale=scale)


def as_published(tmp_path: Path, name: str, wrap: Any = lambda weights: weights) -> Path:
    """A file of tiny SAM's weights in the names of SAM's own code, as MedSAM's is."""
    torch.manual_seed(0)
    weights = {
        f"image_encoder.{key.replace('mlp.fc', 'mlp.lin')}": value
        for key, value in tiny_sam().state_dict().items()
    }
    weights["mask_decoder.iou_token.weight"] = torch.zeros(1, 256)
    path = tmp_path / name
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(weights, path)
    else:
        torch.save(wrap(weights), path)
    return path


@pytest.fixture
def small_medsam(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"depth": 2, "embed_dim": 48, "num_heads": 2, "global_attn_indexes": (1,)}
    monkeypatch.setattr(
        "alden_lite.alden.pvm._MODELS", {"medsam_vitb": replace(_MODELS["medsam_vitb"], options=small)}
    )


@pytest.mark.usefixtures("small_medsam")
@pytest.mark.parametrize("name", ["medsam_vit_b.pth", "medsam.safetensors"])
def test_medsam_comes_from_a_file(tmp_path: Path, name: str) -> None:
    file = as_published(tmp_path, name)
    pvm = load_pvm("medsam_vitb", taps=(1, 2), weights=file)
    torch.manual_seed(0)
    expected = wrapped(tiny_sam(), taps=(1, 2), patch_size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    hu = soft_tissue(height=64, width=64)
    for a, b in zip(pvm(hu), expected(hu), strict=True):
        torch.testing.assert_close(a, b)
    assert pvm.image(torch.full((1, 1, 16, 16), 50.0)).unique().tolist() == [0.5]  # greys as they are
    assert pvm.weights_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.usefixtures("small_medsam")
def test_a_checkpoint_of_medsams_training_will_do(tmp_path: Path) -> None:
    file = as_published(tmp_path, "latest.pth", wrap=lambda weights: {"model": weights, "epoch": 3})
    assert load_pvm("medsam_vitb", taps=(2,), weights=file).channels == (48,)


@pytest.mark.usefixtures("small_medsam")
def test_a_file_that_is_not_medsam_is_refused(tmp_path: Path) -> None:
    torch.save({"image_encoder.pos_embed": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("not a file of weights")
    (tmp_path / "text.safetensors").write_text("not a file of weights")
    for name, words in {
        "other.pth": "does not hold samvit_base_patch16",
        "list.pth": "holds list, not tensors by name",
        "text.pth": "cannot be read as weights alone",
        "text.safetensors": "cannot be read as weights alone",
    }.items():
        with pytest.raises(assets.AssetError, match=words):
            load_pvm("medsam_vitb", taps=(2,), weights=tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_pvm("medsam_vitb", taps=(2,), weights=tmp_path / "missing.pth")


class Bomb:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.usefixtures("small_medsam")
def test_a_file_with_code_in_it_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps({"model": Bomb()}, protocol=2))
    torch.save({"model": Bomb()}, tmp_path / "zipped.pth")
    for name in ("bomb.pth", "zipped.pth"):
        with pytest.raises(assets.AssetError, match="cannot be read as weights alone"):
            load_pvm("medsam_vitb", taps=(2,), weights=tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_a_file_is_for_medsam_and_medsam_needs_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="medsam_vitb needs its file: .*medsam_vit_b.pth"):
        load_pvm("medsam_vitb")
    with pytest.raises(ValueError, match="weights= is for medsam_vitb alone"):
        load_pvm("dinov2_vits14", weights=tmp_path / "mine.pth")


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
