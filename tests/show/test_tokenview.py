"""TokenView from Python's side: whole-numbered features, their cosines, and the page without kernel.

What the browser makes of it is in test_browser.py.
"""

import base64
import gzip
import html.parser
import io
import json
import re

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from alden_lite.alden.pvm import load_pvm
from alden_lite.data.sample import load_sample
from alden_lite.physics.hounsfield import grey_levels
from alden_lite.show.viewer import CTView, TokenView, TooLargeError, similarity_colours
from alden_lite.show.viewer.ctview import STATIC_VARIABLE
from alden_lite.show.viewer.tokenview import SCRIPT, cosines, quantised

GRID, PATCH = (3, 4), 5  # not square: rows are not columns
VIRIDIS = matplotlib.colormaps["viridis"](np.arange(256), bytes=True)


def ct(seed=0, depth=2):
    hu = np.random.default_rng(seed).integers(-1024, 3072, (depth, GRID[0] * PATCH, GRID[1] * PATCH))
    return hu.astype(np.int16)


def features(seed=0, channels=6, depth=2):
    """(Z, C, h, w)."""
    return np.random.default_rng(seed).normal(size=(depth, channels, *GRID)).astype(np.float32)


def two_panels(**options):
    """Two stacks of two slices, two layers with different numbers of channels."""
    layers = {
        "block 4": {"low dose": features(0), "normal dose": features(1)},
        "block 9": {"low dose": features(2, 9), "normal dose": features(3, 9)},
    }
    return TokenView({"low dose": ct(0), "normal dose": ct(1)}, features=layers, **options)


# The specification


def test_the_largest_channel_of_a_token_becomes_127_and_channels_come_last():
    maps = np.array([[[3.0, 0.0, 2e-30]], [[-4.0, 0.0, 3e-30]]])  # 2 channels, 1 row of 3 tokens
    assert quantised(maps).tolist() == [[[95, -127], [0, 0], [85, 127]]]  # 95.25 and 84.67
    assert quantised(maps).dtype == np.int8
    assert np.array_equal(quantised(torch.from_numpy(maps).float().requires_grad_()), quantised(maps))


def test_cosines_of_whole_numbers_by_hand():
    tokens = np.array([[[127, 0], [0, 127], [-5, 0]], [[3, 4], [127, 127], [0, 0]]], dtype=np.int8)
    root = np.sqrt(0.5)
    by_hand = [[1, 0, -1], [0.6, root, 0]]
    assert cosines(tokens, np.array([127, 0], dtype=np.int8)) == pytest.approx(np.array(by_hand), abs=1e-15)
    assert not cosines(tokens, np.zeros(2, dtype=np.int8)).any()


def test_a_token_resembles_itself_by_exactly_one():
    tokens = quantised(features(channels=384)).reshape(-1, 384)
    assert all(cosines(token, token) == 1.0 for token in tokens)


def test_eight_bits_cost_less_than_a_hundredth_of_a_cosine():
    """On the sample patient, in three blocks of the shipped PVM."""
    hu = torch.from_numpy(load_sample().hu[40, 130:382, 60:312]).float()
    with torch.inference_mode():
        maps = load_pvm(taps=(4, 9, 12))(hu[None, None])
    for one in maps:
        vectors = torch.nn.functional.normalize(one[0].flatten(1).T.double())
        tokens = quantised(one[0]).reshape(len(vectors), -1)
        for place, exact in enumerate(vectors @ vectors.T):
            assert np.abs(cosines(tokens, tokens[place]) - exact.numpy()).max() < 0.01


def test_colours_reach_from_the_threshold_to_one_and_less_is_not_covered():
    shown = similarity_colours(np.array([[-1, 0.2499, 0.25], [0.625, 1.0, 0.90625]]), 0.25)
    assert shown[0].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], VIRIDIS[0].tolist()]
    assert shown[1].tolist() == VIRIDIS[[128, 255, 223]].tolist()  # 127.5 and 223.125
    assert np.array_equal(similarity_colours(np.array(-1.0), -1), VIRIDIS[0])


@pytest.mark.parametrize("threshold", [1, 2, np.nan])
def test_a_threshold_without_colours_above_it_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold must be below 1"):
        similarity_colours(np.zeros(3), threshold)


# What comes in


def test_features_go_to_the_browser_by_layer_panel_slice_and_token():
    view = two_panels()
    sent = np.frombuffer(view._features, np.int8)
    first = np.stack([quantised(features(0)), quantised(features(1))])
    second = np.stack([quantised(features(2, 9)), quantised(features(3, 9))])
    assert np.array_equal(sent, np.concatenate([first.ravel(), second.ravel()]))
    facts = view._tokens
    assert (facts["layers"], facts["grid"], facts["side"]) == ([["block 4", 6], ["block 9", 9]], [3, 4], 5)
    assert facts["colours"] == VIRIDIS[:, :3].tolist()
    assert view.layer == "block 4"


@pytest.mark.parametrize(
    "given",
    [
        features(depth=1)[0],
        features(depth=1),
        torch.from_numpy(features(depth=1)),
        {"CT": features(depth=1)},
        {"features": {"CT": features(depth=1)}},
        {"features": features(depth=1)},
    ],
)
def test_features_of_one_slice_may_be_given_bare_by_panel_or_by_layer(given):
    view = TokenView(ct(depth=1)[0], features=given)
    assert np.array_equal(np.frombuffer(view._features, np.int8), quantised(features(depth=1)).ravel())
    assert view.layer == "features"


def test_features_of_panels_without_a_layers_name_are_one_layer():
    view = TokenView({"a": ct(0), 2: ct(1)}, features={2: features(1), "a": features(0)})
    assert np.array_equal(view._maps["features"], [quantised(features(0)), quantised(features(1))])


def test_layers_of_one_panel_keep_their_names():
    layers = {"block 9": features(0), 12: features(1, 4)}
    view = TokenView(ct(), features=layers, layer="12")
    assert list(view._maps) == ["block 9", "12"] and view.layer == "12"


one, both = features(depth=1), {"a": features(), "b": features()}
broken = np.where(np.arange(6)[:, None, None] == 3, np.nan, one)


@pytest.mark.parametrize(
    ("hu", "given", "options", "text"),
    [
        (ct(depth=1), broken, {}, "'features' holds NaN or infinite features"),
        (
            ct(depth=1),
            one[0, 0],
            {},
            r"'features' holds float32 \(3, 4\): a map is real numbers, \(C, h, w\)",
        ),
        (ct(depth=1), one.astype(complex), {}, "holds complex128"),
        (ct(depth=1), one[:, :0], {}, r"holds float32 \(1, 0, 3, 4\)"),
        (ct(depth=1), {}, {}, "features hold no layer"),
        (ct(), one, {}, "'features' has maps of 1 slices, the CT has 2"),
        ({"a": ct(), "b": ct()}, features(), {}, "'features' is one map for 2 panels: give a dict by a, b"),
        ({"a": ct(), "b": ct()}, {"a": features()}, {}, "'features' has maps for a, the panels are a, b"),
        ({"a": ct(), "b": ct()}, {"x": both, "y": features()}, {}, "'y' is one map for 2 panels"),
        ({"a": ct(), "b": ct()}, both | {"b": features(channels=5)}, {}, "'features' needs maps of one size"),
        (ct(), {"x": features(), "y": features()[..., :2, :]}, {}, r"one grid .*'y': \(2, 4\)"),
        (ct()[:, :14], features(), {}, "3 x 4 square tokens do not cover a slice of 14 x 20 .*crop_to_grid"),
        (ct()[:, :, :19], features(), {}, "3 x 4 square tokens do not cover a slice of 15 x 19"),
        (ct(), features(), {"patch_size": 4}, "square tokens of 4 x 4 pixels do not cover"),
        (ct(), features(), {"layer": "block 9"}, "no layer is called 'block 9'; there are features"),
        (ct(), features(), {"threshold": 1}, r"threshold must lie in \[-1, 0.99\], got 1"),
        (ct(), features(), {"threshold": np.nan}, "threshold must lie in"),
        (ct(), features(), {"overlay_opacity": -0.1}, r"overlay_opacity must lie in \[0, 1\], got -0.1"),
        (np.zeros((0, 4)), features(), {}, "has shape"),
    ],
)
def test_features_that_cannot_be_shown_are_refused(hu, given, options, text):
    with pytest.raises(ValueError, match=text):
        TokenView(hu, features=given, **options)


def test_a_patch_size_that_fits_changes_nothing():
    assert TokenView(ct(), features=features(), patch_size=PATCH)._tokens["side"] == PATCH


def test_an_option_that_there_is_not_is_refused():
    with pytest.raises(TypeError, match="TokenView has no option treshold"):
        TokenView(ct(), features=features(), treshold=0.5)


# Tokens and their similarities


def test_a_panel_may_be_named_by_its_number_and_a_slice_is_added_in_a_stack():
    view = two_panels(slice=1, token={"panel": 1, "row": np.int64(2), "column": 3})
    assert view.token == {"panel": "normal dose", "slice": 1, "row": 2, "column": 3}
    view.token = {"panel": "low dose", "slice": 0, "row": 0, "column": 0}
    assert view.token["slice"] == 0
    single = TokenView(ct(depth=1), features=one, token={"panel": "CT", "row": 1, "column": 2})
    assert single.token == {"panel": "CT", "row": 1, "column": 2}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"row": 3}, "row of a token must be a whole number from 0 to 2, got 3"),
        ({"column": -1}, "column of a token must be a whole number from 0 to 3, got -1"),
        ({"column": 1.5}, "column of a token must be a whole number from 0 to 3, got 1.5"),
        ({"slice": 2}, "slice of a token must be a whole number from 0 to 1, got 2"),
        ({"panel": 2}, "panel of a token must be a whole number from 0 to 1, got 2"),
        ({"panel": "denoised"}, "no panel is called 'denoised'; there are low dose, normal dose"),
        ({"z": 1}, "a token is None or has a panel, row and column"),
    ],
)
def test_a_token_that_there_is_not_is_refused_and_the_old_one_stays(change, text):
    view = two_panels(token={"panel": 0, "row": 1, "column": 1})
    before = view.token
    with pytest.raises(ValueError, match=text):
        view.token = before | change
    assert view.token == before
    with pytest.raises(ValueError, match="a token is None or has"):
        view.token = {"panel": 0, "row": 1}


def test_similarities_are_those_of_the_slice_shown_to_the_token_of_its_own_slice():
    view = two_panels(slice=1)
    assert view.similarities() == {}
    view.token = {"panel": "normal dose", "slice": 0, "row": 2, "column": 1}
    view.layer = "block 9"
    similar = view.similarities()
    assert list(similar) == ["low dose", "normal dose"]
    query = torch.from_numpy(quantised(features(3, 9))[0, 2, 1]).double()
    for title, seed in (("low dose", 2), ("normal dose", 3)):
        tokens = torch.from_numpy(quantised(features(seed, 9))[1]).double()
        expected = torch.nn.functional.cosine_similarity(tokens, query, dim=-1)
        assert similar[title] == pytest.approx(expected.numpy(), abs=1e-12)
    view.slice = 0
    assert view.similarities()["normal dose"][2, 1] == 1


def test_features_are_sent_once_and_never_again():
    view, messages = two_panels(), []
    view._send = lambda message, buffers=None: messages.append((message, buffers))
    for name, value in (("layer", "block 9"), ("threshold", 0.3), ("overlay_opacity", 1), ("slice", 0)):
        view.set_trait(name, value)
    view.token = {"panel": 0, "row": 0, "column": 0}
    assert len(messages) == 5
    assert all(not buffers and len(json.dumps(message)) < 200 for message, buffers in messages)


# The page without kernel


class Tags(html.parser.HTMLParser):
    """Attributes by tag, and the text of scripts."""

    def __init__(self, page):
        super().__init__()
        self.found, self.scripts = {}, []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.setdefault(tag, []).append(dict(attributes))

    def handle_data(self, data):
        if self.lasttag == "script" and data.strip():
            self.scripts.append(data)


def scripts_of(fragment):
    """State, packed contents and module of a page."""
    (frame,) = Tags(fragment).found["iframe"]
    state, module = Tags(frame["srcdoc"]).scripts
    return *json.loads(state), module


def features_of(fragment):
    return np.frombuffer(gzip.decompress(base64.b64decode(scripts_of(fragment)[1]["_features"])), np.int8)


def strip_of(fragment):
    (image,) = Tags(fragment).found["img"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))), image["alt"]


def test_a_page_holds_features_and_state():
    view = two_panels(
        token={"panel": 1, "row": 2, "column": 0}, layer="block 9", threshold=0.25, overlay_opacity=0.5
    )
    state, packed, _ = scripts_of(view.to_html())
    assert features_of(view.to_html()).tobytes() == view._features
    names = ("token", "layer", "threshold", "overlay_opacity", "_tokens", "level", "slice")
    assert {name: state[name] for name in names} == {name: getattr(view, name) for name in names}
    assert set(packed) == {"_hu", "_labels", "_features"} and packed["_hu"]


def test_a_page_may_hold_some_slices_and_layers():
    view = two_panels(slice=1, token={"panel": 0, "row": 1, "column": 1})
    page = view.to_html(slices=(1, 2), layers=["block 9"])
    state, *_ = scripts_of(page)
    expected = np.stack([quantised(features(2, 9))[1], quantised(features(3, 9))[1]])
    assert np.array_equal(features_of(page), expected.ravel())
    assert (state["layer"], state["_tokens"]["layers"]) == ("block 9", [["block 9", 9]])
    assert state["token"] == {"panel": "low dose", "slice": 0, "row": 1, "column": 1}
    assert state["_facts"]["note"] == "On this page: slices 1 to 1 of 0 to 1, block 9 of 2 layers"
    both_slices, *_ = scripts_of(view.to_html(layers=["block 4"]))
    assert both_slices["_facts"]["note"] == "On this page: block 4 of 2 layers"
    assert both_slices["token"]["slice"] == 1


def test_a_token_of_a_slice_left_out_is_not_chosen_on_the_page():
    view = two_panels(token={"panel": 0, "slice": 0, "row": 1, "column": 1})
    assert scripts_of(view.to_html(slices=(1, 2)))[0]["token"] is None
    assert scripts_of(view.to_html(slices=(0, 1)))[0]["token"]["slice"] == 0
    view.token = view.token | {"slice": 1}
    assert scripts_of(view.to_html(slices=(0, 1)))[0]["token"] is None


def test_tokens_of_a_down_sampled_page_have_fewer_pixels():
    state, *_ = scripts_of(two_panels().to_html(downsample=2))
    assert state["_facts"]["shape"] == [2, 7, 10]
    assert state["_tokens"]["side"] == 2.5


def test_a_page_of_no_layer_or_an_unknown_one_is_refused():
    with pytest.raises(ValueError, match="no layer is called 'block 5'; there are block 4, block 9"):
        two_panels().to_html(layers=["block 9", "block 5"])
    with pytest.raises(ValueError, match="at least one layer of block 4, block 9"):
        two_panels().to_html(layers=[])


def large(channels=384):
    hu, rng = np.zeros((40, 40), np.int16), np.random.default_rng(0)
    return TokenView(
        hu, features={f"block {n}": rng.normal(size=(channels, 20, 20)) for n in (4, 9)}, layer="block 9"
    )


def test_a_page_above_its_budget_names_layers_and_channels():
    whole = len(large().to_html())
    assert 250_000 < whole - len(large(channels=96).to_html()) < 350_000  # 2 x 400 x 288 bytes, 4/3 as base64
    with pytest.raises(
        TooLargeError,
        match=r"about 0\.\d MB.*fewer layers by .*explain\.compact\(maps, channels=96\), fewer slices",
    ):
        large().to_html(max_bytes=whole - 1)
    assert len(large().to_html(max_bytes=whole)) == whole


def test_of_layers_too_large_for_a_page_the_current_one_is_shown(monkeypatch):
    monkeypatch.setenv(STATIC_VARIABLE, "1")
    options = TokenView.to_html.__kwdefaults__
    monkeypatch.setattr(TokenView.to_html, "__kwdefaults__", options | {"max_bytes": 350_000})
    state, *_ = scripts_of(large()._repr_mimebundle_()[0]["text/html"])
    assert state["_tokens"]["layers"] == [["block 9", 384]]
    monkeypatch.setattr(TokenView.to_html, "__kwdefaults__", options)
    state, *_ = scripts_of(large()._repr_mimebundle_()[0]["text/html"])
    assert len(state["_tokens"]["layers"]) == 2


def test_where_no_script_runs_a_further_column_shows_the_similarity():
    view = two_panels(slice=1, token={"panel": 1, "row": 2, "column": 0}, threshold=0.1, overlay_opacity=0.25)
    picture, alt = strip_of(view.to_html())
    assert picture.shape == (2 * 15, 5 * 20, 3)
    grey, _ = strip_of(two_panels(slice=1).to_html())
    assert np.array_equal(picture[:, :80], np.repeat(grey[..., None], 3, -1))
    for number, (title, similarity) in enumerate(view.similarities().items()):
        part = picture[15 * number : 15 * (number + 1), 80:]
        for y, x in np.ndindex(part.shape[:2]):
            value = grey_levels(ct(number)[1, y, x], 40, 400)
            colour = similarity_colours(similarity[y // 5, x // 5], 0.1)
            expected = np.rint(0.75 * value + 0.25 * colour[:3]) if colour[3] else np.repeat(value, 3)
            if (title, y // 5, x // 5) == ("normal dose", 2, 0):
                expected = [255, 255, 255]
            assert part[y, x].tolist() == list(expected)
    assert alt.endswith(
        "slice 1. Rows: low dose, normal dose. Last column (L 40 W 400 HU): cosine similarity in block 4 to "
        "the token at slice 1, row 2, column 0 of normal dose, which is white; from 0.10, dark violet, to 1, "
        "yellow."
    )


def test_the_column_of_a_down_sampled_page_keeps_tokens_in_their_places():
    rng = np.random.default_rng(0)
    hu, maps = np.full((600, 400), -3000), rng.normal(size=(8, 30, 20))  # black, a strip of every third pixel
    view = TokenView(
        hu, features=maps, token={"panel": 0, "row": 7, "column": 11}, threshold=-1, overlay_opacity=1
    )
    expected = similarity_colours(view.similarities()["CT"], -1)[..., :3]
    expected[7, 11] = 255
    column = strip_of(view.to_html())[0][:, 4 * 133 :]
    assert column.shape == (200, 133, 3)
    y, x = (np.arange(n) * 3 + 1 for n in (200, 133))  # the middle pixel of each square
    assert np.array_equal(column, expected[np.ix_(y // 20, x // 20)])
    halved = strip_of(view.to_html(downsample=2))[0][:, 4 * 100 :]
    y, x = (np.arange(n) * 4 + 2 for n in (150, 100))
    assert np.array_equal(halved, expected[np.ix_(y // 20, x // 20)])


def test_the_strip_of_another_slice_has_no_white_token():
    view = two_panels(
        slice=1, token={"panel": 1, "slice": 0, "row": 2, "column": 0}, overlay_opacity=1, threshold=-1
    )
    column = strip_of(view.to_html())[0][:, 80:]
    assert not (column == 255).all(-1).any()


def test_without_a_token_the_strip_is_that_of_ctview():
    view, plain = two_panels(), CTView({"low dose": ct(0), "normal dose": ct(1)})
    (mine, words), (theirs, same) = strip_of(view.to_html()), strip_of(plain.to_html())
    assert np.array_equal(mine, theirs) and words == same


# The module


def test_only_pages_with_tokens_hold_the_script_of_tokens():
    mine, plain = scripts_of(two_panels().to_html())[2], scripts_of(CTView(ct()).to_html())[2]
    script = SCRIPT.read_text(encoding="utf-8")
    assert script in mine and "TokenViewer" not in plain
    assert mine.index("class Viewer") < mine.index("class TokenViewer") < mine.index("\nshowStatic(")


def test_the_script_depends_on_nothing_and_makes_no_html_of_text():
    source = SCRIPT.read_text(encoding="utf-8")
    forbidden = r"^\s*import\b|\bimport\(|\bfetch\(|innerHTML|insertAdjacentHTML|\beval\("
    assert not re.search(forbidden, source, re.M)
    assert "</script" not in source
