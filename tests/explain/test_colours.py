"""Colours of features, the body, similarity and fewer channels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from made_networks import seeded
from sklearn.decomposition import PCA
from torch import Tensor

from alden_lite import explain
from alden_lite.explain.colours import ForegroundColours

# Colours of features


def tokens_of(maps: Tensor) -> np.ndarray:
    return maps.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()


def test_colours_are_scikit_learns_principal_components() -> None:
    maps = 3 + seeded(2, 8, 5, 6) * torch.arange(1.0, 9).view(1, 8, 1, 1)
    colours = ForegroundColours.fit(maps)
    reference = PCA(3).fit(tokens_of(maps))
    np.testing.assert_allclose(colours.explained, reference.explained_variance_ratio_)
    np.testing.assert_allclose(colours.mean, reference.mean_)
    scores = reference.transform(tokens_of(maps))  # (60, 3)
    for number in range(3):
        axis, theirs = colours.axes[:, number].numpy(), reference.components_[number]
        sign = np.sign(axis @ theirs)
        np.testing.assert_allclose(axis, sign * theirs, atol=1e-9)
        assert axis[np.abs(axis).argmax()] > 0
        score = sign * scores[:, number]
        low, high = np.quantile(score, [0.01, 0.99])
        expected = np.clip((score - low) / (high - low), 0, 1)
        np.testing.assert_allclose(colours(maps)[..., number].flatten(), expected, atol=1e-9)


def test_every_slice_of_a_fit_has_the_same_colours() -> None:
    maps, other = seeded(2, 6, 4, 4), seeded(1, 6, 4, 4, seed=1)
    colours = ForegroundColours.fit(maps)
    together = colours(torch.cat([maps, other]))
    torch.testing.assert_close(together[2:], colours(other))
    torch.testing.assert_close(together[:2], colours(maps))
    assert together.shape == (3, 4, 4, 3) and together.min() == 0 and together.max() == 1


def test_the_background_is_neither_fitted_nor_coloured() -> None:
    maps = seeded(1, 5, 4, 6)
    body = torch.zeros(1, 4, 6, dtype=torch.bool)
    body[:, 1:, 2:5] = True
    elsewhere = torch.where(body[:, None], maps, torch.tensor(1000.0))
    colours = ForegroundColours.fit(maps, body)
    for name in ("mean", "axes", "low", "high", "explained"):
        expected = getattr(ForegroundColours.fit(elsewhere, body), name)
        torch.testing.assert_close(getattr(colours, name), expected)
    picture = colours(maps, body)
    assert picture[~body].max() == 0
    assert torch.equal(picture[body], colours(maps)[body])


def test_maps_that_have_no_colours_are_refused() -> None:
    maps = seeded(1, 5, 4, 6)
    with pytest.raises(ValueError, match="feature maps are finite .* C of 3 or more"):
        ForegroundColours.fit(maps[:, :2])
    with pytest.raises(ValueError, match="feature maps are finite"):
        ForegroundColours.fit(torch.full((1, 5, 2, 2), torch.nan))
    with pytest.raises(ValueError, match="two tokens in the foreground or more, got 0"):
        ForegroundColours.fit(maps, torch.zeros(1, 4, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"is bool \(1, 4, 6\), got \(1, 6, 4\) torch.bool"):
        ForegroundColours.fit(maps, torch.ones(1, 6, 4, dtype=torch.bool))
    colours = ForegroundColours.fit(maps)
    with pytest.raises(ValueError, match="colours of 5 channels do not fit maps"):
        colours(seeded(1, 6, 4, 6))
    with pytest.raises(ValueError, match="the foreground of these maps is bool"):
        colours(maps, torch.ones(1, 4, 6))


# The body


def patient(height: int = 140, width: int = 140) -> Tensor:
    """A disc of tissue with a lung in it, above a hollow table with thin walls, in air: (1, 1, H, W) HU."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    hu = torch.full((height, width), -1000.0)
    hu[(y - 60) ** 2 + (x - 70) ** 2 < 48**2] = 40.0
    hu[(y - 60) ** 2 + (x - 60) ** 2 < 20**2] = -850.0
    hu[114:, 10:130] = -100.0
    hu[118:135, 14:126] = -1000.0
    return hu[None, None]


def test_foreground_is_the_body_with_its_lungs_but_no_table_and_no_air() -> None:
    body = explain.foreground(patient())[0]
    assert body.shape == (10, 10)
    assert body[1:8, 4:6].all()  # with the lung
    assert not body[8:].any() and not body[:, 0].any() and not body[0, 0].any()
    share = np.pi * 48**2 / 140**2
    assert body.float().mean().item() == pytest.approx(share, abs=0.04)


def test_an_arm_beside_the_body_counts_and_a_coin_does_not() -> None:
    hu = torch.full((1, 1, 140, 140), -1000.0)
    hu[..., 28:112, 14:98] = 40
    hu[..., 56:98, 112:126] = 40
    hu[..., 126:140, 14:28] = 3000
    body = explain.foreground(hu)[0]
    assert body[2:8, 1:7].all() and body[4:7, 8].all()
    assert body.sum() == 36 + 3


@pytest.mark.parametrize(("hu", "body"), [(-501, False), (-499, True), (-1000, False), (40, True)])
def test_the_body_begins_above_500_hu_below_water(hu: float, body: bool) -> None:
    assert explain.foreground(torch.full((1, 1, 28, 28), float(hu))).all() == body


def test_what_is_thinner_than_seven_pixels_is_no_body() -> None:
    hu = torch.full((1, 1, 140, 140), -1000.0)
    hu[..., 10:80, 20:120] = 40
    hu[..., 90:97, 20:120], hu[..., 110:116, 20:120] = 40, 40  # 7 and 6 high
    body = explain.foreground(hu, patch_size=1)[0]
    assert body[90:97, 30:110].all() and not body[100:].any()


def test_a_body_that_the_border_cuts_stays_whole() -> None:
    hu = torch.full((2, 1, 28, 28), 40.0)
    hu[1] = -1000
    assert explain.foreground(hu).tolist() == [[[True] * 2] * 2, [[False] * 2] * 2]
    assert explain.foreground(hu[:1], patch_size=1).all()  # up to the corners


def test_a_patch_belongs_to_the_body_from_half_of_it_on() -> None:
    hu = torch.full((1, 1, 28, 56), -1000.0)
    hu[..., :36] = 40  # two patches and 8 of the third one's 14 columns
    assert explain.foreground(hu)[0, 0].tolist() == [True, True, True, False]
    hu[..., 35:] = -1000  # just half
    assert explain.foreground(hu)[0, 0].tolist() == [True, True, True, False]
    hu[..., 34:] = -1000  # 6 of 14
    assert explain.foreground(hu)[0, 0].tolist() == [True, True, False, False]
    assert explain.foreground(hu, patch_size=28).shape == (1, 1, 2)


@pytest.mark.parametrize("shape", [(1, 1, 28, 30), (1, 2, 28, 28), (28, 28)])
def test_a_foreground_of_other_slices_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\) with H, W multiples of 14, got"):
        explain.foreground(torch.zeros(shape))


def test_a_slice_with_nan_is_no_air() -> None:
    hu = patient()
    hu[..., 60, 70] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite values"):
        explain.foreground(hu)


# Similarity


def test_similarity_is_the_cosine_at_every_place() -> None:
    maps, query = seeded(2, 5, 3, 4), seeded(5, seed=1)
    found = explain.similarity(query, maps)
    for b, i, j in itertools.product(range(2), range(3), range(4)):
        token = maps[b, :, i, j].double().numpy()
        one = query.double().numpy()
        expected = token @ one / np.sqrt(token @ token) / np.sqrt(one @ one)
        assert found[b, i, j].item() == pytest.approx(expected, abs=1e-6)


def test_a_token_is_like_itself_at_any_length_and_unlike_its_opposite() -> None:
    maps = seeded(1, 5, 3, 4)
    found = explain.similarity(maps[0, :, 1, 2], torch.cat([7 * maps, -maps]))
    assert found[:, 1, 2].tolist() == pytest.approx([1, -1], abs=1e-6)


def test_a_query_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"query \(C,\) and maps .*got \(4,\), \(1, 5, 3, 4\)"):
        explain.similarity(seeded(4), seeded(1, 5, 3, 4))
    with pytest.raises(ValueError, match="query"):
        explain.similarity(seeded(5), seeded(5, 3, 4))


# Fewer channels


def gram(maps: Tensor) -> np.ndarray:
    unit = tokens_of(maps)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit @ unit.T


def test_all_channels_keep_all_inner_products() -> None:
    maps = 2 + seeded(2, 6, 3, 4)
    small = explain.compact(maps, channels=6)
    ours, theirs = tokens_of(small), tokens_of(maps)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, rtol=1e-5, atol=1e-5)


def test_features_of_low_rank_are_kept_in_as_many_channels() -> None:
    maps = torch.einsum("bkhw,kc->bchw", 1 + seeded(2, 3, 4, 4), seeded(3, 10, seed=1))
    small = explain.compact(maps, channels=3)
    assert small.shape == (2, 3, 4, 4) and small.dtype == torch.float32
    np.testing.assert_allclose(gram(small), gram(maps), atol=1e-6)


def test_fewer_channels_are_the_best_ones_of_numpys_svd() -> None:
    maps = 1 + seeded(1, 8, 4, 5) * torch.arange(1.0, 9).view(1, 8, 1, 1)
    tokens = tokens_of(maps)
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    axes = np.linalg.svd(unit)[2][:3]  # not centred
    projected = tokens @ axes.T
    np.testing.assert_allclose(np.abs(tokens_of(explain.compact(maps, 3))), np.abs(projected), atol=1e-5)


def test_numbers_of_channels_that_there_are_not_are_refused() -> None:
    maps = seeded(1, 6, 2, 2)
    for channels in (0, 7):
        with pytest.raises(ValueError, match=f"channels is a number from 1 to 6, got {channels}"):
            explain.compact(maps, channels)
    with pytest.raises(ValueError, match="feature maps are finite"):
        explain.compact(maps[0], 2)
