"""A frozen pretrained vision model (PVM) that looks at CT: where ALDEN gets its anatomy (ch. 03).

The paper uses DINOv2 and MedSAM, both ViT-Base, at the outputs of blocks 4, 8 and 12. The
weights at hand without internet are DINOv2's ViT-S/14, in a version whose last block or blocks were
very likely adapted to saliency, so the taps are there to be compared, not believed.

Source: Wang et al., ALDEN, MICCAI 2025, arXiv:2508.07788; Oquab et al., DINOv2, arXiv:2304.07193.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from alden_lite import assets
from alden_lite.hounsfield import WINDOWS, Window, window

__all__ = ["PVM", "load_pvm"]

Windows = str | Sequence[str | Window | tuple[float, float]]


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

    Raises:
        ValueError: for taps or windows that there are not.
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
    ) -> None:
        super().__init__()
        features: Any = backbone.feature_info
        widths = [features[index]["num_chs"] for index in range(len(features))]
        self.backbone = backbone.requires_grad_(False).eval()
        self.name = name
        self.taps = _checked_taps(taps, last=len(widths), name=name)
        self.channels: tuple[int, ...] = tuple(widths[tap - 1] for tap in self.taps)
        self.windows = _checked_windows(windows)
        self.patch_size = patch_size
        self.weights_sha256 = weights_sha256
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, hu: Tensor) -> list[Tensor]:
        """The feature map of every tap, the shallowest first.

        A map is the block's raw output (the residual stream), without a final LayerNorm, which was
        trained for the last block alone: its gains put a third of block 4's energy into one
        channel, and a linear organ probe reads both forms equally well (balanced accuracy within
        0.005).

        Args:
            hu: (B, 1, H, W), HU, floating point.

        Returns:
            For each tap (B, C, h, w), C from `channels`. For a ViT, h = H / patch_size, class token
            left out; a convolutional stage s has h = ceil(H / stride of s).

        Raises:
            ValueError: for another shape, or H, W that are not multiples of `patch_size`.
        """
        backbone: Any = self.backbone
        maps: list[Tensor] = backbone.forward_intermediates(
            self.image(hu),
            indices=[tap - 1 for tap in self.taps],
            norm=False,
            stop_early=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        return maps

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


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class _Model:
    """How timm builds a backbone and what it expects; without an asset, its weights are online."""

    timm_name: str
    patch_size: int
    taps: tuple[int, ...] = (4, 8, 12)
    asset: str | None = None
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
}


def load_pvm(
    name: str = "dinov2_vits14",
    *,
    taps: Sequence[int] | None = None,
    windows: Windows = "abdomen",
) -> PVM:
    """Load a frozen vision model with its published weights, never with random ones.

    `dinov2_vits14` and `efficientnet_lite0` (convolutional: taps are its stages 1 to 5, of strides
    2, 4, 8, 16 and 32) come from the assets. `dinov2_vitb14`, the paper's, and `sam_vitb`, the
    stand-in for MedSAM, are fetched by timm on first use. Position embeddings are resampled to the
    input by timm, antialiased, where DINOv2's own code is not: the tokens are those of the
    published model at 518 x 518 and differ by about 2 % at 224 x 224 and 6 % at 56 x 56. SAM was
    trained at 1024 x 1024 only.

    Args:
        name: one of those four.
        taps: block numbers, rising, the first block being 1; (4, 8, 12) for a ViT as in the paper.
        windows: a name in `hounsfield.WINDOWS`, or a list of one or three names, `Window`s
            or (level, width) pairs in HU.

    Raises:
        ValueError: for an unknown name, tap or window.
        AssetError: if the weights are not there, or are not this model's.

    >>> load_pvm(taps=(4, 9)).channels
    (384, 384)
    """
    if name not in _MODELS:
        raise ValueError(f"no PVM named {name!r}; there are {', '.join(_MODELS)}")
    model = _MODELS[name]
    backbone, sha256 = _offline(model, model.asset) if model.asset else _online(name, model)
    return PVM(
        backbone,
        name=name,
        taps=model.taps if taps is None else taps,
        windows=windows,
        mean=model.mean,
        std=model.std,
        patch_size=model.patch_size,
        weights_sha256=sha256,
    )


def _offline(model: _Model, asset: str) -> tuple[nn.Module, str]:
    """The backbone with the weights of an asset, and the SHA-256 of their file."""
    from safetensors.torch import load_file

    file = assets.path(asset)
    backbone = _build(model, pretrained=False)
    try:
        backbone.load_state_dict(load_file(file), strict=True)
    except RuntimeError as error:
        raise assets.AssetError(f"{file} does not hold {model.timm_name}: {error}") from error
    return backbone, assets.ASSETS[asset].sha256


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
    digest = hashlib.sha256()
    for key, tensor in sorted(backbone.state_dict().items()):
        digest.update(key.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return backbone, digest.hexdigest()


def _build(model: _Model, *, pretrained: bool) -> nn.Module:
    import timm

    # timm fills a new model with random numbers: they must not come out of the run's own sequence.
    with torch.random.fork_rng(devices=[]):
        backbone: nn.Module = timm.create_model(model.timm_name, pretrained=pretrained, **model.options)
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
