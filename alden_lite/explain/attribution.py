"""Which pixels does a score rest on? Integrated Gradients, occlusion, Grad-CAM. Taught in chapter 05.

Attributions share out a score over the pixels. None of them is an explanation by itself: see `controls`. A
*score* is always a function from HU (B, 1, H, W) to (B,): `organ_score` asks a probe, `output_at` a
generator, and any function of yours will do. Maps are (B, C, h, w).

Sources stand at the functions. captum: Kokhlikyan et al., arXiv:2009.07896.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alden_lite.alden.pvm import PVM
from alden_lite.explain.attention_maps import ASKED_TWICE, Place, Score, image_mask, scores_of, tapped
from alden_lite.physics.hounsfield import WINDOWS, denormalise, normalise

__all__ = [
    "BLACK_HU",
    "Attribution",
    "grad_cam",
    "integrated_gradients",
    "occlusion",
    "organ_score",
    "output_at",
    "radius_of",
    "receptive_field",
]

BLACK_HU = WINDOWS["abdomen"].low
"""-150 HU, black in the abdominal window: what counts as "nothing there" where an attribution needs it."""


# Scores ---------------------------------------------------------------------------------------------------


def organ_score(
    pvm: PVM, linear: nn.Linear, group: int | str, *, place: Place | None = None, tap: int | None = None
) -> Score:
    """How much a linear probe takes places for an organ: its logit, averaged over the places.

    Args:
        pvm: the probe's PVM.
        linear: the probe, (C) to (groups), as `explain.as_linear` gives it.
        group: name or number of the organ group, for a probe with `.groups`; of another layer, the number of
            the output.
        place: a token (row, column), or a mask (h, w) of tokens; all when None.
        tap: the probe's block; the last tap when None.

    Returns:
        A function from HU (B, 1, H, W) to the score (B,), through which the gradient reaches the HU.

    Raises:
        ValueError: for a group, tap or place that there is not, or a probe of another width.
    """
    output = _output_of(linear, group)
    tap = pvm.taps[-1] if tap is None else tap
    if tap not in pvm.taps:
        raise ValueError(f"{pvm.name} is tapped at {pvm.taps}, not at {tap}")
    channels = pvm.channels[pvm.taps.index(tap)]
    if linear.in_features != channels:
        raise ValueError(
            f"the probe takes {linear.in_features} channels, tap {tap} of {pvm.name} has {channels}"
        )
    weight = linear.weight[output].detach()
    bias = torch.zeros(()) if linear.bias is None else linear.bias[output].detach()
    single = tapped(pvm, tap)

    def score(hu: Tensor) -> Tensor:
        (features,) = single(hu)
        grid = (features.shape[2], features.shape[3])
        logits = torch.einsum("bchw,c->bhw", features, weight.to(features)) + bias.to(features)
        if place is None:
            return logits.mean((1, 2))
        return logits[:, image_mask(place, grid).to(logits.device)].mean(1)

    return score


def _output_of(linear: nn.Linear, group: int | str) -> int:
    """Which output of a probe is the group's."""
    probe: Any = linear  # `probes.LinearProbe` has more than a layer
    groups = [int(one) for one in getattr(probe, "groups", range(probe.out_features))]
    if isinstance(group, str) and hasattr(probe, "index"):
        return probe.index(group)
    if group not in groups:
        raise ValueError(f"the probe knows groups {groups}, not {group!r}")
    return groups.index(int(group))


def output_at(generator: nn.Module, place: tuple[int, int], *, side: int = 1) -> Score:
    """What a generator makes of one place: the denoised HU of a pixel, or the mean of a small square.

    Args:
        generator: from and to (B, 1, H, W) on the networks' scale, as `load_generator` gives it.
        place: (row, column) of the pixel, or of the square's middle.
        side: of the square, odd.

    Returns:
        A function from HU (B, 1, H, W) to HU (B,), through which the gradient reaches the input.

    Raises:
        ValueError: if the side is even or below 1; when called, if the square is not inside the slice.
    """
    if side < 1 or side % 2 == 0:
        raise ValueError(f"side is an odd number of pixels, got {side}")
    (row, column), half = place, side // 2

    def score(hu: Tensor) -> Tensor:
        height, width = hu.shape[-2:]
        if not (half <= row < height - half and half <= column < width - half):
            raise ValueError(
                f"a square of {side} x {side} at (row, column) = ({row}, {column}) is not inside a slice of "
                f"{height} x {width}"
            )
        quiet = denormalise(generator(normalise(hu)))
        square = quiet[:, 0, row - half : row + half + 1, column - half : column + half + 1]
        return square.mean((1, 2))

    return score


# Attributions ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attribution:
    """A score shared out over the pixels.

    Attributes:
        map: (B, 1, H, W), in the score's unit: what each pixel adds to the score against the baseline.
        delta: (B,), sum of the map minus the difference; 0 if the integral were exact.
        difference: (B,), score of the slice minus score of the baseline.
    """

    map: Tensor
    delta: Tensor
    difference: Tensor

    @property
    def incompleteness(self) -> Tensor:
        """(B,), |delta| as a share of |difference|: what is lost or made up."""
        return self.delta.abs() / self.difference.abs()


def integrated_gradients(
    score: Score, hu: Tensor, *, baseline_hu: float | Tensor = BLACK_HU, steps: int = 64, batch: int = 8
) -> Attribution:
    """Share out the difference of a score between a baseline and a slice: a path of mixtures, summed.

    map = (x - x0) * integral over a from 0 to 1 of the gradient at x0 + a (x - x0); its sum is
    score(x) - score(x0), whatever the score (completeness). The baseline is part of the question: black
    asks "why this and not a black picture?", a blurred slice asks what its detail adds. A pixel that equals
    the baseline gets 0 by definition, and so does one that a PVM's window shows black in both.

    How many steps are enough depends on the place. From black, for an organ score of block 9 on crops of
    126 x 126 of the sample, the incompleteness at 64 steps was 0.1 to 1.4 % at six places and 11 % in the
    lung; at 128 steps it was below 1 % at five of six (3.3 % at the worst). Paths from air (-1000 HU) spend
    most steps on pictures that are all black and need far more than 256.

    Args:
        score: HU (B, 1, H, W) to (B,).
        hu: (B, 1, H, W), HU.
        baseline_hu: a number for all pixels, or a slice that broadcasts to `hu`.
        steps: nodes of the Gauss-Legendre rule; look at `incompleteness`.
        batch: mixtures computed at a time, for memory; at least one of each slice.

    Raises:
        ValueError: for HU of another shape, a baseline that does not fit, fewer than 1 step, or a score that
            is not (B,) or has no gradient.

    Source: Sundararajan, Taly and Yan, ICML 2017, arXiv:1703.01365, equation 1; captum's rule.
    """
    from captum.attr import IntegratedGradients

    _check_slices(hu)
    if steps < 1 or batch < 1:
        raise ValueError(f"steps and batch are 1 or more, got {steps} and {batch}")
    baseline = _baseline(baseline_hu, hu)
    with torch.no_grad():
        difference = scores_of(score, hu) - scores_of(score, baseline)
    shared: Tensor = IntegratedGradients(_differentiable(score)).attribute(
        hu.detach(), baseline, n_steps=steps, internal_batch_size=max(batch, len(hu))
    )
    shared = shared.detach()
    return Attribution(shared.to(hu), shared.sum((1, 2, 3)).to(difference) - difference, difference)


def occlusion(
    score: Score,
    hu: Tensor,
    *,
    size: int = 28,
    stride: int = 14,
    baseline_hu: float | Tensor = BLACK_HU,
    batch: int = 8,
) -> Tensor:
    """How much a score falls when a square is covered; a pixel gets the mean over the squares that cover it.

    One forward pass a square: 252 x 252 with the defaults takes 289, 504 x 504 takes 1225.

    Args:
        score: HU (B, 1, H, W) to (B,).
        hu: (B, 1, H, W), HU.
        size: side of the square in pixels.
        stride: pixels from one square to the next.
        baseline_hu: what the square is covered with, as for `integrated_gradients`.
        batch: squares computed at a time.

    Returns:
        (B, 1, H, W), in the score's unit; positive where covering lowers the score.

    Raises:
        ValueError: for HU of another shape, a baseline that does not fit, a square larger than the slice, a
            stride above its side (which would leave pixels out), or a score that is not (B,).

    Source: Zeiler and Fergus, ECCV 2014, arXiv:1311.2901, section 4.2, with a score for the class's
    probability and overlapping squares averaged, as in captum.
    """
    from captum.attr import Occlusion

    _check_slices(hu)
    if not 1 <= stride <= size <= min(hu.shape[2:]) or batch < 1:
        raise ValueError(
            f"a square of {size} that moves by {stride} does not cover {hu.shape[2]} x {hu.shape[3]} pixels: "
            "1 <= stride <= size <= side of the slice"
        )
    with torch.no_grad():
        return (
            Occlusion(lambda covered: scores_of(score, covered))
            .attribute(
                hu.detach(),
                sliding_window_shapes=(1, size, size),
                strides=(1, stride, stride),
                baselines=_baseline(baseline_hu, hu),
                perturbations_per_eval=batch,
            )
            .to(hu)
        )


def grad_cam(score: Score, hu: Tensor, *, pvm: PVM, block: int, relu: bool = True) -> Tensor:
    """Grad-CAM: a block's map, its channels weighed by how much each raises the score on average.

    For a transformer the tokens of the block, without the class token, are laid out as a map first: captum,
    given the tokens, would take tokens for channels without a word.

    Args:
        score: HU (B, 1, H, W) to (B,), by way of this PVM, once, such as `organ_score(pvm, ...)`.
        hu: (B, 1, H, W), HU.
        pvm: the score's PVM.
        block: whose map, the first being 1; not behind the score's tap.
        relu: keep only what raises the score, as in the paper.

    Returns:
        (B, 1, h, w): for a ViT the grid of patches.

    Raises:
        ValueError: for HU of another shape, a block that there is not or that the score does not use or uses
            more than once, or a score that is not (B,).

    Source: Selvaraju et al., ICCV 2017, arXiv:1610.02391, equations 1 and 2.
    """
    from captum.attr import LayerGradCam

    _check_slices(hu)
    with _map_of(pvm, block, hu) as layer:
        try:  # captum calls the score once
            coarse: Tensor = LayerGradCam(_differentiable(score), layer).attribute(
                hu.detach().clone().requires_grad_(), relu_attributions=relu
            )
        except (AssertionError, IndexError, KeyError, RuntimeError) as error:
            if layer.used and "not have been used" not in str(error):  # torch's words for: not in the graph
                raise
            raise ValueError(f"the score does not use block {block} of {pvm.name}") from error
    return coarse.detach()


class _Map(nn.Module):
    """Gives back the map it is given, once: a layer for captum to look at."""

    used = False

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, features: Tensor) -> Tensor:
        if self.used:  # captum would keep the last map alone
            raise ValueError(ASKED_TWICE.format(name=self.name))
        self.used = True
        return features.clone()


@contextmanager
def _map_of(pvm: PVM, block: int, hu: Tensor) -> Iterator[_Map]:
    """A layer through which the map of a block goes while the PVM runs inside."""
    backbone: Any = pvm.backbone
    names = [backbone.feature_info[index] for index in range(len(backbone.feature_info))]
    if not 1 <= block <= len(names):
        raise ValueError(f"blocks of {pvm.name} are numbers from 1 to {len(names)}, got {block}")
    layer, grid = _Map(pvm.name), [side // pvm.patch_size for side in hu.shape[2:]]

    def lay_out(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        if output.ndim == 4:  # already a map; SAM's has its channels last
            last = output.shape[1] != names[block - 1]["num_chs"]
            return layer(output.movedim(-1, 1)).movedim(1, -1) if last else layer(output)
        extra = output.shape[1] - grid[0] * grid[1]  # (B, N, C)
        features = output[:, extra:].transpose(1, 2).unflatten(2, grid)  # (B, C, h, w)
        return torch.cat([output[:, :extra], layer(features).flatten(2).transpose(1, 2)], dim=1)

    hook = backbone.get_submodule(names[block - 1]["module"]).register_forward_hook(lay_out)
    try:
        yield layer
    finally:
        hook.remove()


def _differentiable(score: Score) -> Score:
    def checked(hu: Tensor) -> Tensor:
        values = scores_of(score, hu)
        if not values.requires_grad:
            raise ValueError("the score has no gradient by the HU: compute it without no_grad or .item()")
        return values

    return checked


def _check_slices(hu: Tensor) -> None:
    if hu.ndim != 4 or hu.shape[1] != 1 or not hu.is_floating_point():
        raise ValueError(f"slices are HU as floating point (B, 1, H, W), got {tuple(hu.shape)} {hu.dtype}")


def _baseline(baseline_hu: float | Tensor, hu: Tensor) -> Tensor:
    baseline = torch.as_tensor(baseline_hu, dtype=hu.dtype, device=hu.device)
    try:
        return baseline.expand_as(hu).clone()
    except RuntimeError as error:
        shapes = f"{tuple(baseline.shape)} to {tuple(hu.shape)}"
        raise ValueError(f"the baseline does not broadcast to the slices: {shapes}") from error


# A generator's view ---------------------------------------------------------------------------------------


def receptive_field(generator: nn.Module, hu: Tensor, place: tuple[int, int], *, side: int = 1) -> Tensor:
    """How the denoised HU of a place changes with the HU of every input pixel: the gradient, in HU per HU.

    For a linear filter this would be its kernel. A network is another filter at every place of every slice;
    this is the one at work here, for small changes.

    Args:
        generator, place, side: as for `output_at`.
        hu: (Y, X), HU: the input of the generator.

    Returns:
        (Y, X).

    Raises:
        ValueError: for another shape, or a place outside.
    """
    if hu.ndim != 2 or not hu.is_floating_point():
        raise ValueError(f"a slice is HU as floating point (Y, X), got {tuple(hu.shape)} {hu.dtype}")
    score = output_at(generator, place, side=side)
    with torch.enable_grad():
        slices = hu.detach().clone()[None, None].requires_grad_()
        (gradient,) = torch.autograd.grad(score(slices).sum(), slices)
    return gradient[0, 0]


def radius_of(field: Tensor, place: tuple[int, int], share: float = 0.5) -> float:
    """Radius in pixels within which a share of all |weights| of a field lies.

    Args:
        field: (Y, X), of `receptive_field`.
        place: (row, column), the middle.
        share: above 0, to 1.

    Returns:
        The smallest distance from the middle of a pixel to that of the place at which the sum over all pixels
        no further away reaches the share.

    Raises:
        ValueError: for another shape, a share outside (0, 1], a place outside or a field of zeros.
    """
    if field.ndim != 2 or not 0 < share <= 1:
        raise ValueError(f"a field (Y, X) and a share above 0 to 1, got {tuple(field.shape)} and {share}")
    (row, column), (height, width) = place, field.shape
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(f"({row}, {column}) is not inside a field of {height} x {width}")
    weights = field.detach().cpu().double().abs()
    if not weights.sum() > 0:
        raise ValueError("a field of zeros (or with NaN) has no radius")
    y, x = torch.meshgrid(torch.arange(height) - row, torch.arange(width) - column, indexing="ij")
    squared, order = (y.square() + x.square()).flatten().sort()
    sums = weights.flatten()[order].cumsum(0)
    reached = int((sums < share * sums[-1] * (1 - 1e-12)).sum())  # the first that is not below
    return float(squared[reached].double().sqrt())
