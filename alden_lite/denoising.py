"""Denoise a slice or a volume with a trained generator. Nothing but the generator is needed.

Not for clinical use: a denoiser can erase what matters and draw what is not there.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from alden_lite.checkpoint import CheckpointError, load_weights, read_card, weights_path
from alden_lite.generator import build_generator
from alden_lite.hounsfield import AIR_HU, denormalise, normalise

__all__ = ["denoise", "load_generator"]

PADDING_HU = -1500.0
"""Below this is padding outside the field of view (-2000, -2048, -3024); noisy air stays well above."""

Hu = TypeVar("Hu", np.ndarray, torch.Tensor)


def load_generator(name: str = "alden") -> nn.Module:
    """A trained generator, frozen and in eval mode.

    Args:
        name: `alden` or `l1` (shipped, see MODEL_CARD.md beside the weights), or a .safetensors file that
            `Training.export` wrote.

    Returns:
        Network from and to `(B, 1, H, W)` on the networks' scale (`hounsfield.normalise`).

    Raises:
        checkpoint.CheckpointError: if there is no such file, it is damaged, or has no card.
    """
    path = weights_path(name)
    recipe = read_card(path).get("recipe")
    if recipe is None:
        raise CheckpointError(f"{path} has no card that names its generator: write it with Training.export")
    generator = build_generator(recipe["generator"])
    load_weights(generator, path)
    return generator.eval().requires_grad_(False)


@torch.inference_mode()
def denoise(hu: Hu, generator: str | nn.Module = "alden", *, progress: bool = True) -> Hu:
    """Denoise CT in HU.

    Args:
        hu: a slice (Y, X) or a volume (Z, Y, X) in HU, numpy or torch, any number type.
        generator: a name for `load_generator`, or a generator.
        progress: show a progress bar for volumes.

    Returns:
        Same shape and kind, float32, in HU. Padding (below -1500 HU) stays as it came; the rest is
        read as -1024 HU at least, as a scanner stores it.

    Raises:
        ValueError: if the array is not 2-D or 3-D, is empty, or holds NaN or infinity.

    Not for clinical use.
    """
    values = torch.as_tensor(np.ascontiguousarray(hu) if isinstance(hu, np.ndarray) else hu).float()
    if values.ndim not in (2, 3) or values.numel() == 0:
        raise ValueError(f"expected a slice (Y, X) or a volume (Z, Y, X), got shape {tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise ValueError("the CT holds NaN or infinite HU: replace them (air is -1000) first")
    network = load_generator(generator) if isinstance(generator, str) else generator
    device = next(network.parameters()).device
    volume = values if values.ndim == 3 else values[None]
    slices = tqdm(volume, desc="denoising", unit="slice", disable=not progress or len(volume) < 2)
    done = torch.stack([_one(one.to(device), network).cpu() for one in slices])
    result = done if values.ndim == 3 else done[0]
    return result.numpy() if isinstance(hu, np.ndarray) else result.to(hu.device)


def _one(hu: torch.Tensor, network: nn.Module) -> torch.Tensor:
    u = normalise(hu.clamp(min=AIR_HU))[None, None]  # (1, 1, Y, X)
    answer = denormalise(network(u.contiguous(memory_format=torch.channels_last)))[0, 0]
    return torch.where(hu < PADDING_HU, hu, answer)


def main(argv: list[str] | None = None) -> int:
    """`python -m alden_lite denoise`: denoise a NIfTI file of HU. Not for clinical use."""
    parser = argparse.ArgumentParser(prog="python -m alden_lite denoise", description=main.__doc__)
    parser.add_argument("input", type=Path, help="CT in HU, .nii or .nii.gz")
    parser.add_argument("output", type=Path, help="where to write, .nii or .nii.gz; must not exist yet")
    parser.add_argument("--generator", default="alden", help="alden, l1 or a .safetensors file")
    options = parser.parse_args(argv)
    if options.output.exists():
        raise SystemExit(f"{options.output} exists already: choose another name")
    import nibabel

    image: Any = nibabel.load(options.input)
    voxels = np.asanyarray(image.dataobj)  # (X, Y, Z)
    quiet = denoise(voxels.T, options.generator).T  # the generator has seen quarter turns and mirror images
    part = options.output.with_name(f".part-{options.output.name}")
    result = nibabel.Nifti1Image(np.round(quiet).astype(np.int16), image.affine)
    result.header["descrip"] = b"alden_lite denoised; not for clinical use"
    nibabel.save(result, part)
    os.replace(part, options.output)
    return 0
