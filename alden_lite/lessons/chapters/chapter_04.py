"""Exercises of chapter 04: which token covers a pixel, principal components, a map of cosines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alden_lite.lessons.exercises import Attempt, Exercise, Mistake, same
from alden_lite.lessons.tensors import returned_tensor

__all__ = ["EXERCISES", "MODES", "Settings", "cosine_map", "principal_scores", "token_of_pixel"]


def token_of_pixel(y: int, x: int, height: int, width: int, patch: int) -> tuple[int, int, int, int]:
    """Row and column of the token that covers pixel (y, x), and that token's first pixel (top, left).

    The slice of `height` x `width` pixels is cropped, in the middle, to whole patches (an odd rest costs one
    pixel more below and right). (y, x) and (top, left) count in the slice as it was before.
    """
    above = height % patch // 2
    before = width % patch // 2
    row, column = (y - above) // patch, (x - before) // patch
    return row, column, above + row * patch, before + column * patch


def principal_scores(tokens: Tensor, k: int) -> Tensor:
    """Coordinates (N, k) of `tokens` (N, C) along the k principal components of the largest variance."""
    centred = tokens - tokens.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)  # rows are directions, (min(N, C), C)
    return centred @ directions[:k].T


def cosine_map(query: Tensor, features: Tensor) -> Tensor:
    """Cosine (h, w) of the angle between `query` (C,) and the token at each place of `features` (C, h, w)."""
    products = torch.einsum("c,chw->hw", query, features)
    return products / (query.norm() * features.norm(dim=0))


# 04.1


def _the_crops_first_pixel_is_token_0_0(attempt: Attempt) -> None:
    situation = "for pixel (4, 4) of a 512 x 512 slice, where the crop to 504 x 504 begins,"
    _token(attempt, (4, 4, 512, 512, 14), (0, 0, 4, 4), situation)


def _a_patch_is_14_pixels_wide(attempt: Attempt) -> None:
    _token(attempt, (17, 18, 512, 512, 14), (0, 1, 4, 18), "for pixel (17, 18), the last of row 0,")
    _token(attempt, (18, 17, 512, 512, 14), (1, 0, 18, 4), "for pixel (18, 17), the first of row 1,")


def _the_crops_last_pixel_is_token_35_35(attempt: Attempt) -> None:
    situation = "for pixel (507, 507) of a 512 x 512 slice, where the crop ends,"
    _token(attempt, (507, 507, 512, 512, 14), (35, 35, 494, 494), situation)


def _another_patch_has_another_crop(attempt: Attempt) -> None:
    situation = "for pixel (100, 40) of a 512 x 512 slice and patches of 16, which need no crop,"
    _token(attempt, (100, 40, 512, 512, 16), (6, 2, 96, 32), situation)


def _height_and_width_have_crops_of_their_own(attempt: Attempt) -> None:
    situation = "for pixel (20, 60) of a slice of 100 rows and 145 columns (crop: 1 above, 2 before)"
    _token(attempt, (20, 60, 100, 145, 14), (1, 4, 15, 58), situation)


def _the_token_covers_its_pixel(attempt: Attempt) -> None:
    y, x, patch = 211, 333, 14
    _, _, top, left = _four(attempt(y, x, 512, 512, patch), "for pixel (211, 333)")
    if not (top <= y < top + patch and left <= x < left + patch):
        raise Mistake(f"pixel (211, 333) does not lie in the {patch} pixels from ({top:g}, {left:g}) on")


def _equals_the_reference_token(attempt: Attempt) -> None:
    for case in ((300, 41, 512, 512, 14), (250, 130, 333, 271, 14), (77, 140, 224, 240, 16)):
        y, x, height, width, patch = case
        situation = f"for pixel ({y}, {x}) of a {height} x {width} slice and patches of {patch}"
        _token(attempt, case, token_of_pixel(*case), situation)


def _token(attempt: Attempt, case: tuple[int, ...], expected: tuple[int, ...], situation: str) -> None:
    got = _four(attempt(*case), situation)
    for name, ours, theirs in zip(("row", "column", "top", "left"), expected, got, strict=True):
        if theirs != ours:
            raise Mistake(f"{situation} the {name} should be {ours}, yours is {theirs:g}")


def _four(got: Any, situation: str) -> list[float]:
    try:
        numbers = [float(number) for number in got]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4:
        raise Mistake(f"{situation} four numbers were asked for: `return row, column, top, left`")
    return numbers


# 04.2


def _the_shape_is_tokens_by_components(attempt: Attempt) -> None:
    got = _tensor(attempt(_tokens(), 2))
    if got.shape != (40, 2):
        raise Mistake(f"for 40 tokens of 6 numbers and k = 2 the shape should be (40, 2): {tuple(got.shape)}")


def _the_scores_have_mean_0(attempt: Attempt) -> None:
    same(_tensor(attempt(_tokens() + 5, 3)).mean(0), torch.zeros(3), "for 40 tokens, the mean scores:")


def _the_largest_variance_comes_first(attempt: Attempt) -> None:
    # Tokens on three axes of their own: variances 9, 4 and 1 (divided by 6 tokens: 3, 4/3, 1/3).
    first = torch.tensor([[0, 3, 0], [0, -3, 0], [2, 0, 0], [-2, 0, 0], [0, 0, 1], [0, 0, -1]]).double()
    got = _tensor(attempt(first, 3)).square().sum(0)
    same(got, torch.tensor([18.0, 8.0, 2.0]), "for tokens at ±3, ±2, ±1 on three axes, the sums of squares:")


def _tokens_on_a_line_need_one_component(attempt: Attempt) -> None:
    direction = torch.tensor([2.0, 3.0, 6.0], dtype=torch.float64)  # of length 7
    got = _tensor(attempt(torch.tensor([[-1.0], [0.0], [1.0]]).double() * direction, 1))
    situation = "for -1, 0 and 1 times [2, 3, 6], whose length is 7,"
    _up_to_signs(got, torch.tensor([[-7.0], [0.0], [7.0]]).double(), situation)


def _a_common_offset_changes_nothing(attempt: Attempt) -> None:
    tokens = _tokens()
    plain, moved = (_tensor(attempt(values, 3)) for values in (tokens, tokens + torch.arange(6.0).double()))
    _up_to_signs(moved, plain, "after adding [0, 1, 2, 3, 4, 5] to every token")


def _distances_within_all_components_are_kept(attempt: Attempt) -> None:
    tokens = _tokens()
    got = _tensor(attempt(tokens, 6))
    same(_distances(got), _distances(tokens), "with k = C, the distances between tokens:")


def _fewer_tokens_than_channels_are_fine(attempt: Attempt) -> None:
    tokens = _tokens().T.contiguous()  # (6, 40)
    _up_to_signs(_tensor(attempt(tokens, 3)), principal_scores(tokens, 3), "for 6 tokens of 40 numbers")


def _equals_the_reference_scores(attempt: Attempt) -> None:
    _up_to_signs(_tensor(attempt(_tokens(), 3)), principal_scores(_tokens(), 3), "for 40 tokens of 6 numbers")


def _tokens() -> Tensor:
    """Forty tokens `(40, 6)` whose channels are correlated and differ in spread and mean."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([3.0, 0.5, 2.0, 1.0, 0.2, 4.0], dtype=torch.float64)
    mixed = spread * torch.randn(40, 6, generator=generator, dtype=torch.float64)
    return mixed @ _turn() + torch.arange(6.0).double()


def _turn() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    orthogonal: Tensor = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    return orthogonal


def _distances(tokens: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tokens[:, None] - tokens, dim=-1)


def _up_to_signs(got: Tensor, expected: Tensor, situation: str) -> None:
    """Like `same`, but each column may have the opposite sign: components have no sign of their own."""
    if got.shape == expected.shape:
        got = got * (got * expected).sum(0).sign()
    same(got, expected, f"{situation} (signs of components aside)")


def _tensor(got: Any) -> Tensor:
    return returned_tensor(got).double()


# 04.3


def _a_token_is_1_with_itself(attempt: Attempt) -> None:
    features = _features()
    got = _map(attempt(features[:, 1, 2], features))
    same(got[1, 2], 1.0, "at the query's own place")


def _known_angles(attempt: Attempt) -> None:
    query = torch.tensor([1.0, 0.0]).double()
    features = torch.tensor([[2.0, 0.0, -3.0], [0.0, 0.5, 0.0]]).double()[:, None]  # (2, 1, 3)
    expected = torch.tensor([[1.0, 0.0, -1.0]])
    same(_map(attempt(query, features)), expected, "for [1, 0] and [2, 0], [0, 0.5], [-3, 0]")


def _the_map_has_the_grids_shape(attempt: Attempt) -> None:
    got = _map(attempt(_features()[:, 0, 0], _features()))
    if got.shape != (3, 4):
        raise Mistake(f"for features (5, 3, 4) the map should be (3, 4), yours is {tuple(got.shape)}")


def _length_does_not_matter(attempt: Attempt) -> None:
    features = _features()
    plain = _map(attempt(features[:, 2, 1], features))
    longer = features * torch.linspace(0.5, 20, 12).reshape(3, 4).double()
    same(_map(attempt(7 * features[:, 2, 1], longer)), plain, "with longer and shorter tokens")


def _the_mean_is_not_taken_away(attempt: Attempt) -> None:
    query = torch.tensor([1.0, 1.0]).double()
    features = torch.tensor([[[1.0]], [[3.0]]]).double()
    same(_map(attempt(query, features)), 4 / 20**0.5, "for [1, 1] and [1, 3]")


def _equals_the_reference_map(attempt: Attempt) -> None:
    query, features = _features()[:, 0, 3] + 1, _features()
    same(_map(attempt(query, features)), cosine_map(query, features), "for random features (5, 3, 4)")


def _features() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(5, 3, 4, generator=generator, dtype=torch.float64)


def _map(got: Any) -> Tensor:
    found = _tensor(got)
    return found[0, 0] if found.shape == (1, 1) else found


EXERCISES = {
    "04.1": Exercise(
        answer=token_of_pixel,
        properties={
            "the crop's first pixel is token (0, 0)": _the_crops_first_pixel_is_token_0_0,
            "a patch is 14 pixels wide": _a_patch_is_14_pixels_wide,
            "the crop's last pixel is token (35, 35)": _the_crops_last_pixel_is_token_35_35,
            "another patch has another crop": _another_patch_has_another_crop,
            "height and width have crops of their own": _height_and_width_have_crops_of_their_own,
            "a token covers its pixel": _the_token_covers_its_pixel,
            "equals the reference answer": _equals_the_reference_token,
        },
        hints=(
            "How many pixels are left over when whole patches are taken off? Half of them lie above.",
            "height % patch are left over, height % patch // 2 of them above; y counts from there.",
            "Whole patches before a pixel: (y - above) // patch. The way back: above + row * patch.",
        ),
    ),
    "04.2": Exercise(
        answer=principal_scores,
        properties={
            "the result is (tokens, components)": _the_shape_is_tokens_by_components,
            "the scores have mean 0": _the_scores_have_mean_0,
            "the largest variance comes first": _the_largest_variance_comes_first,
            "tokens on a line need one component": _tokens_on_a_line_need_one_component,
            "a common offset changes nothing": _a_common_offset_changes_nothing,
            "all components together keep distances": _distances_within_all_components_are_kept,
            "fewer tokens than channels are fine": _fewer_tokens_than_channels_are_fine,
            "equals the reference answer": _equals_the_reference_scores,
        },
        hints=(
            "Components are directions in which the tokens spread. From which point do they spread?",
            "Take the mean token away, tokens - tokens.mean(0); then torch.linalg.svd, full_matrices=False.",
            "The third thing that svd returns has the directions as rows, the largest spread first.",
            "centred @ directions[:k].T",
        ),
    ),
    "04.3": Exercise(
        answer=cosine_map,
        properties={
            "known angles": _known_angles,
            "a token has 1 with itself": _a_token_is_1_with_itself,
            "the map has the grid's shape": _the_map_has_the_grids_shape,
            "the length of a token does not matter": _length_does_not_matter,
            "the mean is not taken away": _the_mean_is_not_taken_away,
            "equals the reference answer": _equals_the_reference_map,
        },
        hints=(
            "A cosine is a dot product of two arrows of length 1.",
            "The dot product with all places at once: torch.einsum('c,chw->hw', query, features).",
            "Divide by both lengths: query.norm() is one number, features.norm(dim=0) one for each place.",
        ),
    ),
}


# How much each mode computes


@dataclass(frozen=True)
class Settings:
    """How many slices and phantoms give tokens, and which inputs are compared."""

    every: int  # use every n-th slice of the sample
    patients: int  # phantom patients
    heights_mm: tuple[float, ...]  # where each phantom's abdomen is scanned
    inputs: tuple[str, ...]  # names in `alden.INPUTS`


MODES = {
    "fast": Settings(every=9, patients=4, heights_mm=(20,), inputs=("soft",)),
    "laptop": Settings(every=2, patients=12, heights_mm=(-50, 20, 60), inputs=("soft", "three", "full")),
    "full": Settings(every=1, patients=24, heights_mm=(-50, -15, 20, 60), inputs=("soft", "three", "full")),
}
