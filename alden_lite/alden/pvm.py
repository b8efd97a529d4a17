"""A frozen pretrained vision model (PVM) that looks at CT: where ALDEN gets its anatomy (ch. 04).

The paper uses DINOv2 and MedSAM, both ViT-Base, at the outputs of blocks 4, 8 and 12. The
weights at hand without internet are DINOv2's ViT-S/14, in a version whose last block or blocks were
very likely adapted to saliency, so the taps are there to be compared, not believed.

Source: Wang et al., ALDEN, MICCAI 2025, arXiv:2508.07788; Oquab et al., DINOv2, arXiv:2304.07193.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from alden_lite.data import assets
from alden_lite.engine.speed import bfloat16_gain
from alden_lite.physics.hounsfield import WINDOWS, Window, window

__all__ = ["INPUTS", "PVM", "crop_to_grid", "load_pvm", "random_pvm"]

Windows = str | Sequence[str | Window | tuple[float, float]]
Image = TypeVar("Image", np.ndarray, Tensor)

INPUTS: dict[str, tuple[str, ...]] = {
    "soft": ("abdomen",),
    "three": ("lung", "abdomen", "bone"),
    "full": ("full",),
}
"""Choices for the `windows` of a PVM: soft tissue in all three colours, a window a colour, all HU."""

PRECISIONS = ("float32", "bfloat16", "auto")


class PVM(nn.Module):
    """A frozen backbone with CT in front of it and taps inside it.

    Its parameters take no gradient and it stays in evaluation mode, also after `.train()`; the
    gradient does flow through it to the CT. Made by `load_pvm`.

    Args:
        backbone: a timm model with `forward_intermediates`.
        name: what the features are called in tables and checkpoints.
        taps: block (or stage) numbers, rising, the first block being 1.
        windows: one HU window for all three colour channels, or three, one for each.
        mean, std: of the images the backbone was trained on, per channel, grey values in [0, 1].
        patch_size: H and W must be multiples of it; 1 if any size will do.
        weights_sha256: which weights these are.
        precision: float32; bfloat16, whose maps differ by about 1 % (they come out as float32); or auto:
            bfloat16 on devices where it is faster (see `bfloat16_gain`).

    Raises:
        ValueError: for taps, windows or a precision that there are not.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        name: str,
        taps: Sequence[int],
        windows: Windows,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        patch_size: int,
        weights_sha256: str,
        precision: str = "float32",
    ) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"no precision {precision!r}; there are {', '.join(PRECISIONS)}")
        features: Any = backbone.feature_info
        widths = [features[index]["num_chs"] for index in range(len(features))]
        self.backbone = backbone.requires_grad_(False).eval()
        self.name = name
        self.taps = _checked_taps(taps, last=len(widths), name=name)
        self.channels: tuple[int, ...] = tuple(widths[tap - 1] for tap in self.taps)
        self.windows = _checked_windows(windows)
        self.patch_size = patch_size
        self.weights_sha256 = weights_sha256
        self.precision = precision
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, hu: Tensor, *, taps: Sequence[int] | None = None) -> list[Tensor]:
        """The feature map of every tap, the shallowest first.

        A map is the block's raw output (the residual stream), without a final LayerNorm, which was
        trained for the last block alone: its gains put a third of block 4's energy into one
        channel, and a linear organ probe reads both forms equally well (balanced accuracy within
        0.005).

        Args:
            hu: (B, 1, H, W), HU, floating point.
            taps: only some of the PVM's; blocks after the last of them are not computed.

        Returns:
            For each tap (B, C, h, w), C from `channels`. For a ViT, h = H / patch_size, class token
            left out; a convolutional stage s has h = ceil(H / stride of s).

        Raises:
            ValueError: for another shape, H, W that are not multiples of `patch_size`, or foreign taps.
        """
        backbone: Any = self.backbone
        wanted = self.taps if taps is None else tuple(taps)
        if not wanted or not set(wanted) <= set(self.taps) or wanted != tuple(sorted(set(wanted))):
            raise ValueError(f"this PVM has taps {self.taps}; ask for some of them, rising: got {wanted}")
        rough = self.rounds_to_bfloat16(hu.device)
        with torch.autocast(hu.device.type, torch.bfloat16) if rough else nullcontext():
            maps: list[Tensor] = backbone.forward_intermediates(
                self.image(hu),
                indices=[tap - 1 for tap in wanted],
                norm=False,
                stop_early=True,
                output_fmt="NCHW",
                intermediates_only=True,
            )
        return [tap.float() for tap in maps] if rough else maps

    def rounds_to_bfloat16(self, device: torch.device) -> bool:
        """Whether `forward` computes in bfloat16 on a device."""
        if self.precision == "auto":
            return bfloat16_gain(device.type) > 1.2
        return self.precision == "bfloat16"

    def image(self, hu: Tensor) -> Tensor:
        """What the backbone sees: windows as colour channels, normalised like its training images.

        A pixel outside a window is clamped, and passes no gradient through that window.

        Args:
            hu: (B, 1, H, W), HU, floating point.

        Returns:
            (B, 3, H, W), about -2 to 3.

        Raises:
            ValueError: as for `forward`.
        """
        self._check(hu)
        grey = [window(hu, level=shown.level, width=shown.width) for shown in self.windows]
        return (torch.cat(grey, dim=1).expand(-1, 3, -1, -1) - self.mean) / self.std

    def train(self, mode: bool = True) -> PVM:
        """Stays in evaluation mode: dropout or batch statistics would make its features move."""
        return super().train(False)

    def _check(self, hu: Tensor) -> None:
        if hu.ndim != 4 or hu.shape[1] != 1 or not hu.is_floating_point():
            shape = f"{tuple(hu.shape)} {hu.dtype}"
            raise ValueError(f"a PVM takes HU as floating point (B, 1, H, W), got {shape}")
        patch, (height, width) = self.patch_size, hu.shape[2:]
        if height % patch or width % patch or not height * width:
            near = sorted({max(n // patch + up, 1) * patch for n in hu.shape[2:] for up in (0, 1)})
            raise ValueError(
                f"{self.name} takes H and W in multiples of {patch}, got {height} x {width}: "
                f"the nearest are {', '.join(map(str, near))}"
            )


def crop_to_grid(image: Image, patch_size: int = 14) -> Image:
    """The middle of an image, as large as whole patches fill: 512 x 512 becomes 504 x 504 with patches of 14.

    Args:
        image: (..., H, W), an array or a tensor.
        patch_size: side of a patch in pixels.

    Returns:
        (..., h * patch_size, w * patch_size), a view; an odd rest costs one pixel more below and right.

    Raises:
        ValueError: if not even one patch fits.

    >>> crop_to_grid(np.zeros((512, 40)), 14).shape
    (504, 28)
    """
    height, width = image.shape[-2:]
    if patch_size < 1 or min(height, width) < patch_size:
        raise ValueError(f"no patch of {patch_size} x {patch_size} fits into an image of {height} x {width}")
    top, left = height % patch_size // 2, width % patch_size // 2
    rows, columns = height - height % patch_size, width - width % patch_size
    return image[..., top : top + rows, left : left + columns]


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class _Model:
    """How timm builds a backbone and what it expects; without an asset or a file, its weights are online."""

    timm_name: str
    patch_size: int
    taps: tuple[int, ...] = (4, 8, 12)
    asset: str | None = None
    file: str | None = None  # what the file is that a person brings
    mean: tuple[float, float, float] = _IMAGENET_MEAN
    std: tuple[float, float, float] = _IMAGENET_STD
    options: dict[str, Any] = field(default_factory=dict)


_ANY_SIZE = {"dynamic_img_size": True}
_HALF = (0.5, 0.5, 0.5)
_MODELS = {
    "dinov2_vits14": _Model("vit_small_patch14_dinov2", 14, asset="dinov2_vits14", options=_ANY_SIZE),
    "efficientnet_lite0": _Model(
        "tf_efficientnet_lite0", 1, (1, 2, 3, 4, 5), "efficientnet_lite0", mean=_HALF, std=_HALF
    ),
    "dinov2_vitb14": _Model("vit_base_patch14_dinov2.lvd142m", 14, options=_ANY_SIZE),
    "sam_vitb": _Model("samvit_base_patch16.sa1b", 16),
    # Trained on images scaled to [0, 1] and no further: Ma et al., Nature Communications 15:654 (2024).
    "medsam_vitb": _Model(
        "samvit_base_patch16", 16, file="medsam_vit_b.pth", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    ),
}


def load_pvm(
    name: str = "dinov2_vits14",
    *,
    taps: Sequence[int] | None = None,
    windows: Windows = "abdomen",
    precision: str = "float32",
    weights: str | Path | None = None,
) -> PVM:
    """Load a frozen vision model with its published weights, never with random ones.

    `dinov2_vits14` and `efficientnet_lite0` (convolutional: taps are its stages 1 to 5, of strides
    2, 4, 8, 16 and 32) come from the assets. `dinov2_vitb14`, the paper's, and `sam_vitb` are fetched by
    timm on first use. `medsam_vitb`, the paper's other one, is SAM's architecture with the weights of a
    file that you bring. Position embeddings are resampled to the
    input by timm, antialiased, where DINOv2's own code is not: the tokens are those of the
    published model at 518 x 518 and differ by about 2 % at 224 x 224 and 6 % at 56 x 56. SAM and MedSAM were
    trained at 1024 x 1024 only.

    Args:
        name: one of those five.
        taps: block numbers, rising, the first block being 1; (4, 8, 12) for a ViT as in the paper.
        windows: a name in `physics.WINDOWS`, or a list of one or three names, `Window`s
            or (level, width) pairs in HU; `INPUTS` has three choices.
        precision: float32, bfloat16 or auto; see `PVM`.
        weights: file of MedSAM's weights (`medsam_vit_b.pth` as published, or safetensors with the same
            names); for `medsam_vitb` alone.

    Raises:
        ValueError: for an unknown name, tap, window or precision, and for weights given or missing
            against the above.
        FileNotFoundError: no such file of weights.
        AssetError: if the weights are not there, or are not this model's.

    >>> load_pvm(taps=(4, 9)).channels
    (384, 384)
    """
    if name not in _MODELS:
        raise ValueError(f"no PVM named {name!r}; there are {', '.join(_MODELS)}")
    model = _MODELS[name]
    if model.file is not None and weights is None:
        raise ValueError(f"{name} needs its file: load_pvm({name!r}, weights='path/to/{model.file}')")
    if model.file is None and weights is not None:
        raise ValueError(f"{name} has weights of its own: weights= is for medsam_vitb alone")
    if weights is not None:
        backbone, sha256 = _from_file(model, Path(weights))
    else:
        backbone, sha256 = _offline(model, model.asset) if model.asset else _online(name, model)
    return _frozen(name, model, backbone, sha256, taps=taps, windows=windows, precision=precision)


def random_pvm(
    seed: int = 0,
    *,
    layer_scale: float = 1e-5,
    taps: Sequence[int] | None = None,
    windows: Windows = "abdomen",
    precision: str = "float32",
) -> PVM:
    """DINOv2's ViT-S/14 that has learned nothing: a control, never a substitute. Its name is `random_vit`.

    Weights are drawn as timm draws them before training. There LayerScale, the factor of what a block adds to
    its tokens, is 1e-5: the network is a random projection of each patch plus its random position embedding,
    and all blocks give the same map. With 1 the blocks mix tokens, at random.

    Args:
        seed: same seed, same weights.
        layer_scale: 1e-5 as before DINOv2's training, or 1 for blocks at work; above 0.
        taps, windows, precision: as for `load_pvm`.

    Raises:
        ValueError: for a layer_scale not above 0, and as `load_pvm` for taps, windows and precision.
    """
    if not layer_scale > 0:  # at 0, timm would leave LayerScale out, which is as if it were 1
        raise ValueError(f"layer_scale must be above 0, got {layer_scale}")
    model = _MODELS["dinov2_vits14"]
    backbone = _build(model, pretrained=False, seed=seed, init_values=layer_scale)
    return _frozen(
        "random_vit", model, backbone, _digest(backbone), taps=taps, windows=windows, precision=precision
    )


def _frozen(
    name: str, model: _Model, backbone: nn.Module, sha256: str, *, taps: Sequence[int] | None, **how: Any
) -> PVM:
    return PVM(
        backbone,
        name=name,
        taps=model.taps if taps is None else taps,
        mean=model.mean,
        std=model.std,
        patch_size=model.patch_size,
        weights_sha256=sha256,
        **how,
    )


def _offline(model: _Model, asset: str) -> tuple[nn.Module, str]:
    """The backbone with the weights of an asset, and the SHA-256 of their file."""
    from safetensors.torch import load_file

    file = assets.path(asset)
    return _filled(model, load_file(file), file), assets.ASSETS[asset].sha256


def _from_file(model: _Model, file: Path) -> tuple[nn.Module, str]:
    """The backbone with the weights of a person's file in the names of SAM's own code, and its SHA-256."""
    with file.open("rb") as handle:
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
    prefix = "image_encoder."
    found = _read_weights(file)
    renamed = {
        key.removeprefix(prefix).replace("mlp.lin", "mlp.fc"): value
        for key, value in found.items()
        if key.startswith(prefix)  # the rest is SAM's prompt encoder and mask decoder
    }
    return _filled(model, renamed, file), sha256


def _read_weights(file: Path) -> Mapping[str, Tensor]:
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        raise assets.AssetError(f"{file} cannot be read as weights alone: {error}") from error
    weights: Any = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise assets.AssetError(f"{file} holds {type(content).__name__}, not tensors by name")
    return weights


def _filled(model: _Model, weights: Mapping[str, Tensor], file: Path) -> nn.Module:
    backbone = _build(model, pretrained=False)
    try:
        backbone.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise assets.AssetError(f"{file} does not hold {model.timm_name}: {error}") from error
    return backbone


def _online(name: str, model: _Model) -> tuple[nn.Module, str]:
    """The backbone with timm's published weights, and the SHA-256 of its tensors."""
    try:
        backbone = _build(model, pretrained=True)
    except Exception as error:  # every HTTP library and version has its own
        raise assets.AssetError(
            f"the weights of {name} ({model.timm_name}) are not on this machine and could not be "
            f"fetched from huggingface.co/timm: {type(error).__name__}: {error}\nRun "
            f"load_pvm({name!r}) once with internet, or use load_pvm('dinov2_vits14'), whose "
            "weights are an asset."
        ) from error
    return backbone, _digest(backbone)


def _digest(backbone: nn.Module) -> str:
    """SHA-256 of all tensors and their names."""
    digest = hashlib.sha256()
    for key, tensor in sorted(backbone.state_dict().items()):
        digest.update(key.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _build(model: _Model, *, pretrained: bool, seed: int = 0, **options: Any) -> nn.Module:
    import timm

    # timm fills a new model with random numbers: they must not come out of the run's own sequence.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone: nn.Module = timm.create_model(
            model.timm_name, pretrained=pretrained, **model.options, **options
        )
    return backbone


def _checked_taps(taps: Sequence[int], *, last: int, name: str) -> tuple[int, ...]:
    chosen = tuple(taps)
    rising = chosen == tuple(sorted(set(chosen)))
    if not chosen or not rising or chosen[0] < 1 or chosen[-1] > last:
        raise ValueError(f"taps of {name} are rising numbers from 1 to {last}, got {chosen}")
    return chosen


def _checked_windows(windows: Windows) -> tuple[Window, ...]:
    chosen = [windows] if isinstance(windows, str) else list(windows)
    if len(chosen) not in (1, 3):
        raise ValueError(f"a PVM takes one window or three, got {len(chosen)}: {chosen}")
    return tuple(_window(shown) for shown in chosen)


def _window(shown: str | Window | tuple[float, float]) -> Window:
    if isinstance(shown, Window):
        return shown
    if not isinstance(shown, str):
        return Window(*shown)
    if shown not in WINDOWS:
        raise ValueError(f"no window named {shown!r}; there are {', '.join(WINDOWS)}")
    return WINDOWS[shown]
