"""Chapter 04's exercises: mistakes that their checks must find, and right answers they must not refuse."""

import numpy as np
import pytest
import torch
from planted import planted
from torch.nn import functional as F

from alden_lite import explain
from alden_lite.alden import pvm
from alden_lite.lessons import exercises
from alden_lite.lessons.chapters import chapter_04

# 04.1


def forgets_the_crop(y, x, height, width, patch):
    row, column = y // patch, x // patch
    return row, column, row * patch, column * patch


def crops_at_the_end_only(y, x, height, width, patch):
    row, column = y // patch, x // patch
    return row, column, height % patch // 2 + row * patch, width % patch // 2 + column * patch


def cuts_the_whole_rest_off_above(y, x, height, width, patch):
    above, before = height % patch, width % patch
    row, column = (y - above) // patch, (x - before) // patch
    return row, column, above + row * patch, before + column * patch


def rounds_to_the_next_token(y, x, height, width, patch):
    above, before = height % patch // 2, width % patch // 2
    row, column = round((y - above) / patch), round((x - before) / patch)
    return row, column, above + row * patch, before + column * patch


def returns_fractions_of_tokens(y, x, height, width, patch):
    above, before = height % patch // 2, width % patch // 2
    return (y - above) / patch, (x - before) / patch, y, x


def takes_x_for_the_row(y, x, height, width, patch):
    above, before = height % patch // 2, width % patch // 2
    row, column = (x - before) // patch, (y - above) // patch
    return row, column, above + row * patch, before + column * patch


def stays_in_the_cropped_picture(y, x, height, width, patch):
    row, column = (y - height % patch // 2) // patch, (x - width % patch // 2) // patch
    return row, column, row * patch, column * patch


def takes_the_heights_crop_for_both(y, x, height, width, patch):
    above = height % patch // 2
    row, column = (y - above) // patch, (x - above) // patch
    return row, column, above + row * patch, above + column * patch


def takes_14_for_every_patch(y, x, height, width, patch):
    above, before = height % 14 // 2, width % 14 // 2
    row, column = (y - above) // 14, (x - before) // 14
    return row, column, above + row * 14, before + column * 14


def returns_the_token_alone(y, x, height, width, patch):
    return (y - height % patch // 2) // patch, (x - width % patch // 2) // patch


# 04.2


def forgets_to_centre(tokens, k):
    return tokens @ torch.linalg.svd(tokens, full_matrices=False)[2][:k].T


def centres_each_token(tokens, k):
    centred = tokens - tokens.mean(1, keepdim=True)
    return centred @ torch.linalg.svd(centred, full_matrices=False)[2][:k].T


def centres_for_the_directions_only(tokens, k):
    return tokens @ torch.linalg.svd(tokens - tokens.mean(0), full_matrices=False)[2][:k].T


def leaves_the_spreads_out(tokens, k):
    return torch.linalg.svd(tokens - tokens.mean(0), full_matrices=False)[0][:, :k]


def returns_the_directions(tokens, k):
    return torch.linalg.svd(tokens - tokens.mean(0), full_matrices=False)[2][:k]


def takes_columns_for_directions(tokens, k):
    centred = tokens - tokens.mean(0)
    return centred @ torch.linalg.svd(centred, full_matrices=False)[2][:, :k]


def takes_the_smallest_components(tokens, k):
    centred = tokens - tokens.mean(0)
    return centred @ torch.linalg.eigh(centred.T @ centred).eigenvectors[:, :k]


def gives_each_channel_the_spread_1(tokens, k):
    centred = (tokens - tokens.mean(0)) / tokens.std(0)
    return centred @ torch.linalg.svd(centred, full_matrices=False)[2][:k].T


def squares_the_spreads(tokens, k):
    u, s, _ = torch.linalg.svd(tokens - tokens.mean(0), full_matrices=False)
    return u[:, :k] * s[:k] ** 2


# 04.3


def forgets_both_lengths(query, features):
    return torch.einsum("c,chw->hw", query, features)


def forgets_the_tokens_lengths(query, features):
    return torch.einsum("c,chw->hw", query / query.norm(), features)


def forgets_the_querys_length(query, features):
    return torch.einsum("c,chw->hw", query, F.normalize(features, dim=0))


def divides_by_the_length_of_all(query, features):
    return torch.einsum("c,chw->hw", query, features) / (query.norm() * features.norm())


def normalises_along_a_row(query, features):
    return torch.einsum("c,chw->hw", F.normalize(query, dim=0), F.normalize(features, dim=-1))


def takes_a_correlation(query, features):
    return torch.einsum(
        "c,chw->hw",
        F.normalize(query - query.mean(), dim=0),
        F.normalize(features - features.mean(0), dim=0),
    )


def takes_the_distance(query, features):
    return (features - query[:, None, None]).norm(dim=0)


def forgets_the_sign(query, features):
    return F.cosine_similarity(query[:, None, None], features, dim=0).abs()


def returns_a_row_of_tokens(query, features):
    return F.cosine_similarity(query[:, None], features.flatten(1), dim=0)


def turns_the_map(query, features):
    return F.cosine_similarity(query[:, None, None], features, dim=0).T


MISTAKES = {
    "04.1": {
        forgets_the_crop: "the top should be 4, yours is 0",
        crops_at_the_end_only: "a patch is 14 pixels wide: for pixel (17, 18), the last of row 0,",
        cuts_the_whole_rest_off_above: "where the crop to 504 x 504 begins",
        rounds_to_the_next_token: "the last of row 0, the row should be 0, yours is 1",
        returns_fractions_of_tokens: "the row should be 0, yours is 0.928571",
        takes_x_for_the_row: "the last of row 0, the row should be 0, yours is 1",
        stays_in_the_cropped_picture: "the top should be 4, yours is 0",
        takes_the_heights_crop_for_both: "height and width have crops of their own",
        takes_14_for_every_patch: "patches of 16, which need no crop",
        returns_the_token_alone: "`return row, column, top, left`",
    },
    "04.2": {
        forgets_to_centre: "the scores have mean 0",
        centres_each_token: "the scores have mean 0",
        centres_for_the_directions_only: "the scores have mean 0",
        leaves_the_spreads_out: "expected 18 at [0], yours gives 1",
        returns_the_directions: "the shape should be (40, 2): (2, 6)",
        takes_columns_for_directions: "tokens on a line need one component",
        takes_the_smallest_components: "the largest variance comes first",
        gives_each_channel_the_spread_1: "the largest variance comes first",
        squares_the_spreads: "expected 18 at [0]",
    },
    "04.3": {
        forgets_both_lengths: "expected -1 at [0, 2], yours gives -3",
        forgets_the_tokens_lengths: "expected -1 at [0, 2], yours gives -3",
        forgets_the_querys_length: "a token has 1 with itself",
        divides_by_the_length_of_all: "known angles",
        normalises_along_a_row: "known angles",
        takes_a_correlation: "known angles",
        takes_the_distance: "known angles",
        forgets_the_sign: "expected -1 at [0, 2], yours gives 1",
        returns_a_row_of_tokens: "the shape should be (1, 3), yours is (3,)",
        turns_the_map: "the shape should be (1, 3), yours is (3, 1)",
    },
}


@pytest.mark.parametrize(("exercise_id", "mistake", "text"), planted(MISTAKES))
def test_a_planted_mistake_is_found_and_named(exercise_id, mistake, text):
    verdict = exercises.judge(exercise_id, mistake)
    assert verdict.status == "wrong"
    assert text in verdict.message


def test_tokens_components_and_cosines_may_be_found_in_other_ways():
    def counts_patches(y, x, height, width, patch):
        tops = range(height % patch // 2, height - patch + 1, patch)
        lefts = range(width % patch // 2, width - patch + 1, patch)
        row = max(number for number, top in enumerate(tops) if top <= y)
        column = max(number for number, left in enumerate(lefts) if left <= x)
        return np.array([row, column, tops[row], lefts[column]])

    def by_eigenvectors_the_other_way_up(tokens, k):
        centred = (tokens - tokens.mean(0)).numpy()
        return -centred @ np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :k]

    def place_by_place(query, features):
        places = [F.cosine_similarity(query, token, dim=0) for token in features.flatten(1).T]
        return torch.stack(places).reshape(features.shape[1:])

    assert exercises.judge("04.1", counts_patches).status == "right"
    assert exercises.judge("04.2", by_eigenvectors_the_other_way_up).status == "right"
    assert exercises.judge("04.3", place_by_place).status == "right"


def test_the_answers_of_chapter_04_are_what_the_package_computes():
    slice_ = np.arange(333 * 271).reshape(333, 271)
    row, column, top, left = chapter_04.token_of_pixel(250, 130, 333, 271, 14)
    token = pvm.crop_to_grid(slice_, 14)[14 * row : 14 * row + 14, 14 * column : 14 * column + 14]
    assert token[0, 0] == slice_[top, left]
    assert slice_[250, 130] in token
    maps = torch.randn(1, 8, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cosines = chapter_04.cosine_map(maps[0, :, 2, 3], maps[0])
    torch.testing.assert_close(cosines, explain.similarity(maps[0, :, 2, 3], maps)[0])
    scores = chapter_04.principal_scores(maps[0].flatten(1).T, 3)
    grey = explain.ForegroundColours.fit(maps)(maps).flatten(0, 2)
    correlations = [np.corrcoef(scores[:, n], grey[:, n])[0, 1] for n in range(3)]
    assert np.abs(correlations).min() > 0.99  # grey is cut off at percentiles 1 and 99
