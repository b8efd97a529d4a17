"""The judge: how different two slices look to a network that never trains a denoiser. Taught in chapter 03.

A frozen EfficientNet-Lite0 sees both slices, and the distance is between its features
(`perceptual_distance`). LPIPS is there for who has its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from alden_lite.evaluation.metrics import EVALUATION, as_pictures, checked_pair
from alden_lite.physics.hounsfield import Window

__all__ = ["Judge", "load_lpips", "lpips_distance", "perceptual_distance"]

Judge = Callable[[torch.Tensor], Sequence[torch.Tensor]]

"""HU (B, 1, H, W) to feature maps (B, C, h, w): frozen, such as `alden.load_pvm("efficientnet_lite0")`."""

PictureDistance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Two pictures (1, 3, Y, X) in [0, 1] to one number, such as `load_lpips()`."""


LPIPS_WEIGHTS = {
    "vgg16-397923af.pth": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "lpips_weights.pt": "https://github.com/photosynthesis-team/photosynthesis.metrics/releases/download/v0.4.0/"
    "lpips_weights.pt",
}
_RELU_OF_VGG16 = ("3", "8", "15", "22", "29")  # the last of each resolution, as LPIPS takes them


def load_lpips(folder: str | Path | None = None) -> PictureDistance:
    """LPIPS on VGG-16, for `lpips_distance`. Its weights (528 MB) do not come with this package.

    Args:
        folder: where the two files of `LPIPS_WEIGHTS` lie; torch's own cache of downloads when None.

    Raises:
        FileNotFoundError: if a file is missing, with what to fetch. Never random weights.

    Source: Zhang et al., CVPR 2018, with the linear weights that piq publishes.
    """
    import piq
    from torchvision.models import vgg

    home = Path(torch.hub.get_dir()) / "checkpoints" if folder is None else Path(folder)
    if missing := [name for name in LPIPS_WEIGHTS if not (home / name).is_file()]:
        wanted = "\n".join(f"  {LPIPS_WEIGHTS[name]}" for name in missing)
        raise FileNotFoundError(
            f"LPIPS needs weights that are not in {home}. Fetch, and put there:\n{wanted}\n"
            "Without them use perceptual_distance with a judge."
        )
    stored, linear = (
        torch.load(home / name, map_location="cpu", weights_only=True) for name in LPIPS_WEIGHTS
    )
    backbone = vgg.make_layers(vgg.cfgs["D"])
    backbone.load_state_dict(
        {key.removeprefix("features."): w for key, w in stored.items() if key.startswith("features.")}
    )
    return piq.ContentLoss(backbone.eval(), layers=_RELU_OF_VGG16, weights=linear, normalize_features=True)


@torch.no_grad()
def lpips_distance(
    image: torch.Tensor, reference: torch.Tensor, *, network: PictureDistance, window: Window = EVALUATION
) -> float:
    """Learned perceptual distance (LPIPS) of two slices (Y, X), at least 0; 0 for equal slices.

    Learned from what people say of photographs, not of CT; the paper's table has it. The same grey three
    times over stands for colour, and the window's ends for black and white.

    Args:
        image, reference: (Y, X) in HU, at least 32 x 32.
        network: from `load_lpips`, or anything that compares two pictures (1, 3, Y, X) in [0, 1].
        window: its ends become 0 and 1.

    Raises:
        ValueError: on different shapes, NaN, or anything but one slice of at least 32 x 32.
    """
    a, b = (picture.expand(-1, 3, -1, -1) for picture in as_pictures(image, reference, window, smallest=32))
    return float(network(a, b))


@torch.no_grad()
def perceptual_distance(
    image: torch.Tensor, reference: torch.Tensor, *, judge: Judge, training_pvm: str | None = None
) -> float:
    """How differently a network sees two slices: LPIPS without its learned weights (OURS).

    Args:
        image, reference: (Y, X) in HU.
        judge: frozen network with feature maps; its own window and statistics apply.
        training_pvm: name of the network the generator was trained with, which must not judge.

    Returns:
        Mean over taps and places of |a/|a| - b/|b||^2 over channels, in [0, 4]; 0 for equal slices.

    Raises:
        ValueError: on different shapes, NaN, or a judge that trained the generator.

    Source: Zhang et al., CVPR 2018, eq. 1 with unit weights.
    """
    a, b = checked_pair(image, reference)
    if training_pvm is not None and getattr(judge, "name", None) == training_pvm:
        raise ValueError(f"{training_pvm} trained this generator: judge with another network")
    maps_a, maps_b = judge(a[None, None]), judge(b[None, None])
    distances = [
        (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(1).mean()
        for x, y in zip(maps_a, maps_b, strict=True)
    ]
    return float(torch.stack(distances).mean())
