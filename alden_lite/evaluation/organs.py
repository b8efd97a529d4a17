"""Organ by organ: noise, error, and how well two segmentations of it overlap. Taught in chapter 09."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage

from alden_lite.data.organs import GROUPS
from alden_lite.physics.pixels import Pixels, finite

__all__ = ["LabelError", "LabelNoise", "dice", "errors_by_label", "hd95_mm", "noise_by_label"]

Array = np.ndarray | torch.Tensor


def dice(found: Array, truth: Array) -> dict[str, float]:
    """Dice coefficient of every group: 2 |A and B| / (|A| + |B|), 1 for equal, 0 for apart.

    Give all slices of a patient at once: a mean over slices would count a sliver as much as a whole organ.

    Args:
        found, truth: group maps of one shape, whole numbers, 0 to 10.

    Returns:
        A number for every group, in the order of GROUPS; NaN where the truth lacks the group.

    Raises:
        ValueError: for shapes that differ, NaN, numbers that are no group, or a truth without any group.

    >>> truth, found = np.array([4, 4, 4, 0]), np.array([0, 4, 4, 4])
    >>> round(dice(found, truth)["liver"], 3), dice(found, truth)["spleen"]
    (0.667, nan)
    """
    maps = _maps(found, truth)
    return {
        name: float(2 * (a & b).sum() / (a.sum() + b.sum())) if b.any() else math.nan
        for name, a, b in _by_group(*maps)
    }


def hd95_mm(found: Array, truth: Array, *, spacing_mm: Sequence[float]) -> dict[str, float]:
    """95th percentile of the Hausdorff distance of every group's surfaces: the larger of two directions.

    A surface is made of those pixels of a group that have a neighbour (across an edge or a face) outside it.
    Where the array ends, the group is taken to go on: the cut through an organ at the end of a slab is no
    surface. (MONAI and surface-distance take it for one. It would fill the percentile with zeros.)

    Args:
        found, truth: group maps of one shape, whole numbers, 0 to 10: a slice (Y, X), or slices that lie
            beside each other (Z, Y, X).
        spacing_mm: of the pixels, one number an axis, in the order of the axes.

    Returns:
        mm for every group, in the order of GROUPS. NaN where the truth lacks the group (or shows nothing
        else, so that it has no surface); infinity where it was not found: leaving a lost organ out of
        a mean would reward losing it.

    Raises:
        ValueError: as `dice`, for arrays not 2-D or 3-D, and for spacings that do not fit or are not above 0.

    >>> truth = np.zeros((9, 9), int)
    >>> truth[2:5, 2:5] = 4
    >>> hd95_mm(np.roll(truth, 2, axis=1), truth, spacing_mm=(1.0, 0.5))["liver"]
    1.0
    """
    a, b = _maps(found, truth)
    if a.ndim not in (2, 3):
        raise ValueError(f"expected a slice (Y, X) or a volume (Z, Y, X), got shape {a.shape}")
    spacing = np.asarray(spacing_mm, float)
    if spacing.shape != (a.ndim,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"{a.ndim} spacings in mm, above 0, are needed, got {spacing_mm}")
    return {name: _hd95(one, two, spacing) for name, one, two in _by_group(a, b)}


def _hd95(found: np.ndarray, truth: np.ndarray, spacing: np.ndarray) -> float:
    ours, theirs = _surface(found), _surface(truth)
    if not theirs.any():
        return math.nan
    if not ours.any():
        return math.inf
    # All surface pixels of both lie in one box: looking there alone is faster, and exact.
    box = ndimage.find_objects((ours | theirs).astype(np.uint8))[0]
    ours, theirs = ours[box], theirs[box]
    there = ndimage.distance_transform_edt(~theirs, sampling=spacing)[ours]
    back = ndimage.distance_transform_edt(~ours, sampling=spacing)[theirs]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask, border_value=1)


def _by_group(found: np.ndarray, truth: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for number, name in enumerate(GROUPS, start=1):
        yield name, found == number, truth == number


def _maps(found: Array, truth: Array) -> tuple[np.ndarray, np.ndarray]:
    """Both maps as numpy arrays of whole numbers, checked."""
    a, b = _whole(found, "found"), _whole(truth, "truth")
    if a.shape != b.shape:
        raise ValueError(f"found has shape {a.shape}, truth {b.shape}: they must show the same slices")
    if not b.any():
        raise ValueError("the truth shows no organ group at all: there is nothing to compare with")
    return a, b


def _whole(groups: Array, name: str) -> np.ndarray:
    values = np.asarray(groups)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinity: a group map is of whole numbers")
    if values.dtype.kind not in "buif" or (values != np.floor(values)).any():
        raise ValueError(f"{name} must be whole numbers, 0 for none and 1 to {len(GROUPS)} for a group")
    if values.size and (values.min() < 0 or values.max() > len(GROUPS)):
        raise ValueError(
            f"{name} holds numbers that are no group (0 to {len(GROUPS)}): {values.min()} to {values.max()}; "
            "labels become groups with organs.sample_groups or organs.phantom_groups"
        )
    return values


class LabelNoise(NamedTuple):
    """Noise of one organ: standard deviation in HU and how many pixels it was taken from."""

    sigma_hu: float
    pixels: int


def noise_by_label(noise: Pixels, labels: Pixels, names: Mapping[int, str]) -> dict[str, LabelNoise]:
    """Noise of each organ, in HU: noise is not one number, it differs from lung to pelvis.

    Args:
        noise: any shape, in HU, without anatomy: the slice less its noise-free version, or the difference of
            two independent scans over sqrt(2). The difference of a nested pair is the *added* noise alone.
        labels: label ids of the same shape.
        names: name by id. Ids without a name are not reported, nor organs of fewer than two pixels.

    Returns:
        LabelNoise by name, in the order of `names`; the standard deviation is about the organ's own mean.

    Raises:
        ValueError: on different shapes, NaN, or when no named organ is there.

    >>> noise_by_label(np.array([3.0, -3.0, 9.0]), np.array([5, 5, 0]), {5: "liver"})
    {'liver': LabelNoise(sigma_hu=3.0, pixels=2)}
    """
    values, ids = finite(noise), np.asarray(labels)
    if ids.shape != values.shape:
        raise ValueError(f"shapes differ: noise {values.shape} and labels {ids.shape}")
    found = {name: values[ids == label] for label, name in names.items()}
    rows = {name: LabelNoise(float(v.std()), v.size) for name, v in found.items() if v.size >= 2}
    if not rows:
        raise ValueError(f"none of the {len(names)} named organs has two pixels or more here")
    return rows


class LabelError(NamedTuple):
    """Error of one organ in HU: root mean square, mean absolute, and mean (image less reference)."""

    rmse_hu: float
    mae_hu: float
    bias_hu: float


def errors_by_label(
    image: Pixels, reference: Pixels, labels: Pixels, names: Mapping[int, str]
) -> dict[str, LabelError]:
    """Error of each organ, in HU as they are: not clipped to a window, for lung and bone lie outside it.

    A slice's error is mostly that of its noisiest organ, and biases of two organs may cancel.

    Args:
        image, reference: any shape, in HU.
        labels: label ids of the same shape; 0 is no organ, and left out.
        names: name by id, such as `dict(enumerate(organs.GROUPS, start=1))`. Ids without a name are left out,
            organs without a pixel too.

    Returns:
        LabelError by name, in the order of `names`.

    Raises:
        ValueError: on different shapes, NaN, or when no named organ is there.

    >>> errors_by_label([3.0, -3.0, 9.0], [0.0, 0.0, 0.0], [5, 5, 0], {5: "liver"})
    {'liver': LabelError(rmse_hu=3.0, mae_hu=3.0, bias_hu=0.0)}
    """
    values, truth, ids = finite(image), finite(reference), np.asarray(labels)
    if not values.shape == truth.shape == ids.shape:
        raise ValueError(
            f"shapes differ: image {values.shape}, reference {truth.shape} and labels {ids.shape}"
        )
    error = values - truth
    found = {name: error[ids == label] for label, name in names.items() if label != 0}
    rows = {
        name: LabelError(math.sqrt((e**2).mean()), float(np.abs(e).mean()), float(e.mean()))
        for name, e in found.items()
        if e.size
    }
    if not rows:
        raise ValueError(f"none of the {len(found)} named organs is here")
    return rows
