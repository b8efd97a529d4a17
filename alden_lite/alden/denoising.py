"""Denoise a slice or a volume with a trained generator. Nothing but the generator is needed.

Not for clinical use: a denoiser can erase what matters and draw what is not there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from alden_lite.alden.generator import build_generator
from alden_lite.engine.checkpoint import CheckpointError, load_weights, read_card, weights_path
from alden_lite.physics.hounsfield import LOWEST_HU, PADDING_BELOW_HU, denormalise, normalise

__all__ = ["denoise", "load_generator"]

Hu = TypeVar("Hu", np.ndarray, torch.Tensor)


def load_generator(name: str | Path = "alden") -> nn.Module:
    """A trained generator, frozen and in eval mode.

    Args:
        name: `alden` or `l1` (shipped, see MODEL_CARD.md beside the weights), or a .safetensors file that
            `Training.export` wrote.

    Returns:
        Network from and to `(B, 1, H, W)` on the networks' scale (`physics.normalise`).

    Raises:
        checkpoint.CheckpointError: if there is no such file, it is damaged, or has no card.
    """
    path = weights_path(name)
    try:
        generator = build_generator(read_card(path)["recipe"]["generator"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} has no card that names its generator ({error}): write it with "
            "`train --export` or Training.export"
        ) from error
    load_weights(generator, path)
    return generator.eval().requires_grad_(False)


@torch.no_grad()
def denoise(
    hu: Hu,
    generator: str | Path | nn.Module = "alden",
    *,
    precision: str = "float32",
    progress: bool = True,
) -> Hu:
    """Denoise CT in HU.

    Args:
        hu: a slice (Y, X) or a volume (Z, Y, X) in HU, numpy or torch, any number type.
        generator: a name for `load_generator`, or a generator.
        precision: float32, or bfloat16: about three times faster where the processor has units for it
            (`engine.bfloat16_gain`). A generator that adds to its input, like the shipped ones, then gives
            values 0.3 to 0.7 HU (root mean square) off; others several HU.
        progress: show a progress bar for volumes.

    Returns:
        Same shape and kind, float32, in HU. Padding (below -1500 HU) stays as it came; the network
        reads air there.

    Raises:
        ValueError: if the array is not 2-D or 3-D, is empty, or holds NaN or infinity; for another precision.

    Not for clinical use.
    """
    values = hu.float() if isinstance(hu, torch.Tensor) else torch.from_numpy(np.array(hu, dtype=np.float32))
    if values.ndim not in (2, 3) or values.numel() == 0:
        raise ValueError(f"expected a slice (Y, X) or a volume (Z, Y, X), got shape {tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise ValueError("the CT holds NaN or infinite HU: replace them (air is -1000) first")
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"no precision {precision!r}: choose float32 or bfloat16")
    network = load_generator(generator) if isinstance(generator, str | Path) else generator
    device = next(network.parameters()).device
    volume = values if values.ndim == 3 else values[None]
    slices = tqdm(volume, desc="denoising", unit="slice", disable=not progress or len(volume) < 2)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        done = torch.stack([_one(one.to(device), network).cpu() for one in slices])
    result = done if values.ndim == 3 else done[0]
    return result.to(hu.device) if isinstance(hu, torch.Tensor) else result.numpy()


def _one(hu: torch.Tensor, network: nn.Module) -> torch.Tensor:
    padding = hu < PADDING_BELOW_HU
    u = normalise(torch.where(padding, LOWEST_HU, hu))[None, None]  # (1, 1, Y, X)
    answer = denormalise(network(u.contiguous(memory_format=torch.channels_last)).float())[0, 0]
    return torch.where(padding, hu, answer)
