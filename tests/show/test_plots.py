"""Figures: what they promise about windows, units and limits, and that everybody can read them."""

import html.parser
import io
from types import SimpleNamespace

import matplotlib as mpl
import nbconvert
import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from alden_lite.explain.probes import ProbeResult
from alden_lite.physics import hounsfield, noise
from alden_lite.physics.hounsfield import Window
from alden_lite.show import plots


def ct(seed=0, shape=(24, 32)):
    """Whole HU from air to bone."""
    return torch.randint(-1024, 1500, shape, generator=torch.Generator().manual_seed(seed)).float()


def three():
    return {"low dose": ct(0), "denoised": ct(1), "normal dose": ct(2)}


def texts(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text)]


# CT panels


def test_panels_share_one_window_and_the_figure_names_it():
    figure = plots.ct_panels(three(), window=Window(40, 400))
    limits = [axis.images[0].get_clim() for axis in figure.axes]
    assert limits == [(-160, 240)] * 3
    assert [axis.get_title() for axis in figure.axes] == ["low dose", "denoised", "normal dose"]
    assert figure.get_supxlabel().startswith("window L 40 W 400 HU: black from -160 HU")


def test_a_panel_holds_the_hu_it_was_given():
    figure = plots.ct_panels({"slice": ct()}, window="lung")
    assert np.array_equal(figure.axes[0].images[0].get_array(), ct())
    assert figure.axes[0].images[0].get_clim() == (-1350, 150)


def test_a_zoom_shows_that_part_with_its_pixels_as_they_are():
    figure = plots.ct_panels({"slice": ct()}, zoom=(2, 12, 5, 25))
    picture = figure.axes[0].images[0]
    assert np.array_equal(picture.get_array(), ct()[2:12, 5:25])
    assert picture.get_interpolation() == "nearest"


def test_a_caption_stands_below_its_own_panel():
    figure = plots.ct_panels(three(), captions={"denoised": "RMSE 9.5 HU"})
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "RMSE 9.5 HU", ""]


@pytest.mark.parametrize(("spacing_mm", "length_mm"), [(2.0, 20), (0.7, 5), (0.1, 1)])
def test_the_scale_bar_is_as_long_as_it_says(spacing_mm, length_mm):
    figure = plots.ct_panels(three(), spacing_mm=spacing_mm)
    (bar,) = figure.axes[0].lines
    start, end = bar.get_xdata()
    assert (end - start) * spacing_mm == pytest.approx(length_mm)
    assert f"{length_mm} mm" in texts(figure)


def test_the_strip_shows_one_slice_in_every_window_and_names_each():
    figure = plots.window_strip(ct(), ("abdomen", "bone"))
    assert [axis.images[0].get_clim() for axis in figure.axes] == [(-150, 250), (-500, 1300)]
    assert [axis.get_xlabel() for axis in figure.axes] == ["L 50 W 400 HU", "L 400 W 1800 HU"]


# Histogram of tissues


def tissues():
    return {"water": np.zeros((4, 5)), "air": np.full(10, -1000), "half bone": np.array([0, 2000])}


def test_a_histogram_shows_shares_of_each_tissues_own_pixels():
    figure = plots.hu_histogram(tissues(), limits=(-1100, 1000), step_hu=100)
    outlines = [patch for patch in figure.axes[0].patches if not patch.get_fill()]
    sums = {patch.get_label(): patch.get_data().values.sum() for patch in outlines}
    assert sums == {"water": 1, "air": 1, "half bone": 0.5}  # 2000 HU is beyond the limits
    water = outlines[0].get_data()
    assert water.edges[np.argmax(water.values)] == 0
    assert "share of pixels in 100 HU" in texts(figure)


def test_below_the_histogram_stands_the_grey_that_a_window_gives_to_each_hu():
    figure = plots.hu_histogram(tissues(), windows=("abdomen", "lung"), limits=(-1000, 1000))
    greys = [axis.images[0].get_array()[0] for axis in figure.axes[1:]]
    hu = np.linspace(-1000, 1000, 1024)
    for shown, name in zip(greys, ("abdomen", "lung"), strict=True):
        chosen = hounsfield.WINDOWS[name]
        np.testing.assert_allclose(shown, hounsfield.window(hu, chosen.level, chosen.width))
    assert {"abdomen window", "lung window", "HU"} <= set(texts(figure))
    assert figure.axes[1].images[0].get_extent()[:2] == [-1000, 1000]


@pytest.mark.parametrize(
    ("given", "how", "text"),
    [
        ({}, {}, "1 to 6 tissues, got 0"),
        ({str(n): np.zeros(2) for n in range(7)}, {}, "1 to 6 tissues, got 7"),
        ({"fat": np.zeros(0)}, {}, "without pixels, or with NaN or infinite HU: fat"),
        ({"fat": np.array([np.nan])}, {}, "with NaN"),
        ({"fat": np.zeros(2)}, {"windows": ["fat"]}, "no window named 'fat'"),
        ({"fat": np.zeros(2)}, {"limits": (100, -100)}, "must ascend"),
        ({"fat": np.zeros(2)}, {"step_hu": 0}, "above 0 HU"),
    ],
)
def test_a_histogram_refuses_what_it_cannot_show(given, how, text):
    with pytest.raises(ValueError, match=text):
        plots.hu_histogram(given, **how)


# Before and after


def test_the_difference_is_denoised_minus_normal_within_symmetric_limits():
    figure = plots.before_after(*three().values(), difference_hu=40)
    low, denoised, normal, difference = figure.axes[:4]
    assert {axis.images[0].get_clim() for axis in (low, denoised, normal)} == {(-150, 250)}
    assert np.array_equal(difference.images[0].get_array(), ct(1) - ct(2))
    assert difference.images[0].get_clim() == (-40, 40)
    assert difference.get_title() == "denoised − normal dose"
    assert {"−40", "0", "40 HU", "window L 50 W 400 HU: black from -150 HU down, white from 250 HU up"} <= {
        *texts(figure)
    }


def test_the_denoised_panels_can_carry_the_networks_name():
    figure = plots.before_after(*three().values(), name="L1")
    assert [axis.get_title() for axis in figure.axes[:4]] == [
        "low dose",
        "L1",
        "normal dose",
        "L1 − normal dose",
    ]
    with pytest.raises(ValueError, match="'low dose' is another panel's title"):
        plots.before_after(*three().values(), name="low dose")


def test_below_and_above_zero_differ_in_blue_against_red_not_only_in_green():
    low, high = (mpl.colormaps[plots.frame.DIVERGING](end)[:3] for end in (0.15, 0.85))
    assert low[0] > low[2] + 0.3 and high[2] > high[0] + 0.1  # orange and violet


# Losses and features


def log():
    return [
        {"step": 50, "seconds": 1.5, "pixel": 0.02, "adversarial": 0.7},
        {"step": 100, "seconds": 3.0, "pixel": 0.01, "adversarial": 0.9},
    ]


def test_every_loss_has_its_own_picture_over_steps_and_pixels_are_in_hu():
    figure = plots.losses(log())
    assert [axis.get_title() for axis in figure.axes] == ["pixel (HU)", "adversarial"]
    steps, values = figure.axes[0].lines[0].get_data()
    assert [*steps] == [50, 100]
    assert [*values] == pytest.approx([20.48, 10.24])  # 1024 HU a unit
    assert len({axis.lines[0].get_color() for axis in figure.axes}) == 2


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([], "no losses"),
        ([{"step": 1, "seconds": 2.0}], "no losses"),
        ([log()[0], {"step": 2, "seconds": 1.0, "pixel": 0.1}], "not every line of the log has step"),
    ],
)
def test_a_log_that_cannot_be_drawn_is_refused(lines, text):
    with pytest.raises(ValueError, match=text):
        plots.losses(lines)


def test_three_kinds_of_places_get_three_colours():
    kinds = torch.eye(3)[torch.tensor([[0, 0, 1], [1, 2, 2]])].permute(2, 0, 1)  # (3, 2, 3)
    figure = plots.feature_colours([10 * kinds[None]], ["block 4"])
    colours = np.asarray(figure.axes[0].images[0].get_array()).round(6)  # (2, 3, 3)
    assert colours[0, 0].tolist() == colours[0, 1].tolist()
    assert colours[1, 1].tolist() == colours[1, 2].tolist()
    assert len({tuple(colour) for colour in colours.reshape(-1, 3)}) == 3
    assert figure.axes[0].get_title() == "block 4"


def test_the_images_of_a_batch_share_their_colours():
    one = torch.randn(1, 8, 5, 6, generator=torch.Generator().manual_seed(0))
    figure = plots.feature_colours([torch.cat([one, one])], ["block 8"])
    first, second = (np.asarray(axis.images[0].get_array()) for axis in figure.axes)
    assert np.array_equal(first, second)
    assert first.shape == (5, 6, 3) and first.min() == 0 and first.max() == 1


@pytest.mark.parametrize(
    ("maps", "titles"),
    [
        ([], []),
        ([torch.zeros(1, 4, 2, 2)], ["a", "b"]),
        ([torch.zeros(1, 4, 2, 2), torch.zeros(2, 4, 2, 2)], ["a", "b"]),
        ([torch.zeros(4, 2, 2)], ["a"]),
        ([torch.zeros(1, 2, 2, 2)], ["a"]),
        ([torch.full((1, 4, 2, 2), torch.nan)], ["a"]),
    ],
)
def test_maps_that_have_no_colours_are_refused(maps, titles):
    with pytest.raises(ValueError, match=r"every tap needs a title|feature maps are finite"):
        plots.feature_colours(maps, titles)


def test_what_is_not_body_is_black_and_has_no_say_in_the_colours():
    maps = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    body = torch.ones(1, 4, 4, dtype=torch.bool)
    body[0, 0] = False
    table = maps.clone()
    table[:, :, 0] *= 50  # something loud outside the body
    pictures = [
        np.asarray(plots.feature_colours([one], ["block 4"], foreground=body).axes[0].images[0].get_array())
        for one in (maps, table)
    ]
    assert np.array_equal(*pictures)
    assert not pictures[0][0].any() and pictures[0][1:].any(-1).all()


def test_slices_stand_before_their_rows_in_their_window():
    maps = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    slices = {"slice 1": np.full((8, 8), 10.0), "slice 2": np.full((8, 8), 20.0)}
    figure = plots.feature_colours([maps, maps], ["a", "b"], slices=slices, window="lung")
    assert [axis.get_ylabel() for axis in figure.axes] == ["slice 1", "", "", "slice 2", "", ""]
    assert [axis.get_title() for axis in figure.axes] == ["", "a", "b", "", "", ""]
    shown = [figure.axes[n].images[0] for n in (0, 3)]
    assert [picture.get_array()[0, 0] for picture in shown] == [10, 20]
    assert shown[0].get_clim() == (-1350, 150)
    assert "L -600 W 1500 HU" in figure.get_supxlabel()


@pytest.mark.parametrize("count", [1, 3])
def test_a_slice_for_every_row_of_feature_maps_is_needed(count):
    slices = {f"slice {n}": np.zeros((8, 8)) for n in range(count)}
    with pytest.raises(ValueError, match="need as many slices|1 to 2 panels"):
        plots.feature_colours([torch.zeros(2, 4, 2, 2)], ["a"], slices=slices)


def organ_groups():
    groups = np.zeros((6, 6), np.uint8)
    groups[0, :2] = 1  # two tokens of lung: too few for a name
    groups[3:, :3] = 4  # liver, its middle at row 4, column 1
    groups[3, 5] = groups[5, 4:] = 4  # and smaller parts of it
    return groups


def test_organs_are_coloured_by_group_and_named_in_their_largest_part():
    figure = plots.organ_maps({"labels": (np.zeros((12, 12)), organ_groups())})
    (axis,) = figure.axes
    (name,) = axis.texts
    assert name.get_text() == "liver"
    assert name.get_position() == (2.5, 8.5)  # of 12 x 12 pixels: token (4, 1) covers rows 8-9, columns 2-3
    ct, layer = axis.images
    assert ct.get_clim() == (-150, 250)
    assert (layer.get_array().mask == (organ_groups() == 0)).all()
    colours = layer.cmap(layer.norm(np.array([1, 4, 10])))
    expected = [plots.frame.ORGAN_COLOURS[n] for n in (0, 3, 9)]
    assert [mpl.colors.to_hex(colour).upper() for colour in colours] == expected
    assert layer.get_alpha() == 0.55
    assert layer.get_extent() == [-0.5, 11.5, 11.5, -0.5]


def test_there_is_a_colour_for_every_organ_group():
    from alden_lite.data.organs import GROUPS

    assert len(plots.frame.ORGAN_COLOURS) == len(set(plots.frame.ORGAN_COLOURS)) == len(GROUPS)


@pytest.mark.parametrize("groups", [np.full((2, 2), 11), np.full((2, 2), 0.5), np.zeros(4), -np.eye(2)])
def test_groups_that_are_none_are_refused(groups):
    with pytest.raises(ValueError, match="groups of 'labels' are whole numbers from 0 to 10"):
        plots.organ_maps({"labels": (np.zeros((4, 4)), groups)})


def test_organ_maps_take_one_to_four_panels():
    panel = (np.zeros((4, 4)), np.zeros((2, 2), int))
    for count in (0, 5):
        with pytest.raises(ValueError, match="1 to 4 panels"):
            plots.organ_maps({str(n): panel for n in range(count)})


# Curves, sinograms, spectra


def two_panels():
    law = ([1, 10], [1, 0.1])
    return {"left": {"measured": ([1, 10], [1.1, 0.2]), "law": law}, "right": {"law": law}}


def test_a_line_keeps_its_colour_in_all_panels_and_dots_are_dots():
    figure = plots.curves(two_panels(), x="dose", y="noise (HU)", log="xy", dots=["measured"])
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["measured", "law"]
    measured, law = left.lines
    assert (measured.get_linestyle(), measured.get_marker()) == ("None", "o")
    assert (law.get_color(), law.get_linestyle()) == (
        right.lines[0].get_color(),
        right.lines[0].get_linestyle(),
    )
    assert (law.get_linestyle(), law.get_marker()) == ("-", "None")  # told apart without colour
    assert [*measured.get_data()[1]] == [1.1, 0.2]
    assert (left.get_xlabel(), left.get_ylabel(), right.get_title()) == ("dose", "noise (HU)", "right")
    assert (left.get_xscale(), right.get_yscale()) == ("log", "log")


def test_lines_differ_in_their_dashes_and_logarithmic_axes_have_plain_numbers():
    lines = {name: ([1, 100], [2, 20]) for name in ("a", "b", "c")}
    figure = plots.curves({"": lines}, x="x", y="y", log="x")
    (axis,) = figure.axes
    assert len({line.get_linestyle() for line in axis.lines}) == 3
    figure.canvas.draw()
    assert {"1", "2", "5", "10", "100"} <= {label.get_text() for label in axis.get_xticklabels()}
    assert axis.get_yscale() == "linear"


@pytest.mark.parametrize(
    ("panels", "options", "text"),
    [
        ({}, {}, "1 to 4 names"),
        ({"": {str(n): ([1], [1]) for n in range(5)}}, {}, "1 to 4 names"),
        ({"": {"a": ([1, 2], [1])}}, {}, r"'a' needs x and y of one length, got \(2,\) and \(1,\)"),
        ({"": {"a": ([], [])}}, {}, "needs x and y"),
        ({"": {"a": ([1], [np.nan])}}, {}, "'a' holds NaN"),
        ({"": {"a": ([0], [1])}}, {"log": "x"}, "'a' has values at or below 0"),
        ({"": {"a": ([1], [1])}}, {"log": "z"}, "log is"),
        ({"": {"a": ([1], [1])}}, {"dots": ["b"]}, "dots for lines that are not there: .'b'"),
    ],
)
def test_lines_that_cannot_be_drawn_are_refused(panels, options, text):
    with pytest.raises(ValueError, match=text):
        plots.curves(panels, x="x", y="y", **options)


def two_prices():
    return {"distance": {"x": (30, 0.6), "L1": (10, 0.5)}, "texture": {"L1": (10, 0.3), "GAN": (12, 0.1)}}


def test_a_method_keeps_its_sign_in_both_planes_and_stands_once_in_the_legend():
    figure = plots.tradeoff(two_prices(), x="RMSE (HU)")
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["x", "L1"]
    assert [line.get_xydata().tolist() for line in left.lines] == [[[30, 0.6]], [[10, 0.5]]]
    assert (left.get_xlabel(), left.get_ylabel(), right.get_ylabel()) == ("RMSE (HU)", "distance", "texture")
    l1, gan = right.lines
    assert (l1.get_marker(), l1.get_color()) == (left.lines[1].get_marker(), left.lines[1].get_color())
    markers = {line.get_marker() for line in (*left.lines, gan)}
    assert len(markers) == 3  # told apart without colour
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["x", "L1", "GAN"]


def test_the_path_between_methods_is_dashed_and_named_and_may_be_in_one_plane_only():
    path = ("blends", {"texture": ([10, 20, 30], [0.3, 0.0, 0.7])})
    left, right = plots.tradeoff(two_prices(), x="RMSE (HU)", path=path).axes
    assert len(left.lines) == 2
    dashed = right.lines[0]
    assert (dashed.get_label(), dashed.get_linestyle()) == ("blends", "--")
    assert dashed.get_xydata().tolist() == [[10, 0.3], [20, 0.0], [30, 0.7]]


@pytest.mark.parametrize(
    ("panels", "path", "text"),
    [
        ({}, None, "1 or 2 panels"),
        ({str(n): {"a": (1, 1)} for n in range(3)}, None, "1 or 2 panels"),
        ({"": {}}, None, "with 1 to 10 names"),
        ({"": {str(n): (1, 1) for n in range(11)}}, None, "with 1 to 10 names"),
        ({"": {"a": (1, np.nan)}}, None, "'a' holds NaN"),
        ({"": {"a": (1, 1)}}, ("blends", {"b": ([1], [1])}), "paths for panels that are not there: .'b'"),
        ({"": {"a": (1, 1)}}, ("blends", {"": ([1, 2], [1])}), "'blends' needs x and y of one length"),
    ],
)
def test_prices_that_cannot_be_drawn_are_refused(panels, path, text):
    with pytest.raises(ValueError, match=text):
        plots.tradeoff(panels, x="RMSE (HU)", path=path)


def test_sinograms_share_one_scale_and_say_what_rows_and_columns_are():
    small, large = torch.full((4, 6), 2.0), np.full((5, 7), 3.0)
    figure = plots.sinograms({"parallel": small, "fan": large})
    assert [axis.images[0].get_clim() for axis in figure.axes[:2]] == [(0, 3)] * 2
    assert np.array_equal(figure.axes[1].images[0].get_array(), large)
    assert figure.axes[0].get_ylabel() == "view" and figure.axes[1].get_xlabel() == "channel"
    assert "line integral (no unit)" in texts(figure)


@pytest.mark.parametrize(
    ("panels", "text"),
    [
        ({}, "1 to 4 sinograms"),
        ({"a": torch.zeros(3)}, r"1 to 4 sinograms \(views, channels\), got .'a': \(3,\)"),
        ({"a": torch.full((3, 3), torch.nan)}, "NaN or infinite values: a"),
    ],
)
def test_broken_sinograms_are_refused(panels, text):
    with pytest.raises(ValueError, match=text):
        plots.sinograms(panels)


def test_noise_power_is_shown_as_a_share_over_frequencies():
    waves = np.cos(2 * np.pi * np.arange(8) / 4)  # a quarter of a cycle a pixel, along x
    spectrum = noise.noise_power_spectrum(np.tile(waves, (1, 8, 1)), pixel_mm=2.0)
    picture = plots.noise_power({"waves": spectrum}).axes[0].images[0]
    shown = np.asarray(picture.get_array())
    assert shown.max() == 1 and np.count_nonzero(shown > 0.5) == 2
    rows, columns = np.nonzero(shown > 0.5)
    left, right, bottom, top = picture.get_extent()
    at = left + (columns + 0.5) * (right - left) / 8
    assert [*at] == pytest.approx([-0.125, 0.125])  # 0.25 cycles a pixel of 2 mm
    assert [*rows] == [4, 4] and bottom > top
    with pytest.raises(ValueError, match="1 to 3 spectra, got 0"):
        plots.noise_power({})


# Maps over slices


def laid_over():
    """Two panels with maps of 3 x 4 squares over slices of 24 x 32, and the slice alone."""
    small = torch.arange(12.0).view(3, 4)
    return {"CT": (ct(0), None), "one": (ct(0), small), "two": (ct(1), small / 2 + 1)}


def test_maps_share_one_scale_and_the_bar_names_it():
    figure = plots.overlays(laid_over(), label="attention (share)", window="lung")
    alone, one, two, bar = figure.axes
    assert [axis.get_title() for axis in (alone, one, two)] == ["CT", "one", "two"]
    assert (len(alone.images), len(one.images), len(two.images)) == (1, 2, 2)
    assert [axis.images[0].get_clim() for axis in (alone, one, two)] == [(-1350, 150)] * 3
    assert [axis.images[1].get_clim() for axis in (one, two)] == [(0, 11)] * 2
    assert np.array_equal(two.images[1].get_array(), np.arange(12.0).reshape(3, 4) / 2 + 1)
    assert np.array_equal(two.images[0].get_array(), ct(1))
    assert bar.get_ylabel() == "attention (share)"
    assert figure.get_supxlabel().startswith("window L -600 W 1500 HU: black from -1350 HU")


def test_a_map_covers_its_slice_and_shows_its_squares_unless_blended():
    for smooth, how in ((False, "nearest"), (True, "bilinear")):
        axis = plots.overlays(laid_over(), label="x", smooth=smooth).axes[1]
        grey, colour = axis.images
        assert colour.get_extent() == grey.get_extent()
        assert colour.get_interpolation() == how
        assert axis.get_xlim() == (-0.5, 31.5) and axis.get_ylim() == (23.5, -0.5)


def test_signed_maps_are_symmetric_about_a_middle_and_limits_can_be_given():
    signed = {"a": (ct(), np.array([[-2.0, 1.0]])), "b": (ct(), np.array([[0.5, 1.0]]))}
    picture = plots.overlays(signed, label="x").axes[0].images[1]
    assert picture.get_clim() == (-2, 2)
    expected = mpl.colormaps[plots.frame.DIVERGING](np.linspace(0, 1, 256))[:, :3]
    assert np.allclose(picture.get_cmap()(np.arange(256))[:, :3], expected)
    limited = plots.overlays(signed, label="x", limits=(0, 0.5), cmap="magma").axes[1].images[1]
    assert limited.get_clim() == (0, 0.5)
    assert np.allclose(limited.get_cmap()(255)[:3], mpl.colormaps["magma"](255)[:3])


def test_colours_let_the_slice_through_and_fade_towards_zero():
    def alpha(**how):
        return (
            plots.overlays(laid_over(), label="x", **how).axes[1].images[1].get_cmap()(np.arange(256))[:, 3]
        )

    assert np.allclose(alpha(opacity=0.4), 0.4)
    assert np.allclose(alpha(opacity=0.8, fade=True), 0.8 * np.linspace(0, 1, 256) ** 0.5)
    signed = {"a": (ct(), np.array([[-1.0, 1.0]]))}
    faded = plots.overlays(signed, label="x", fade=True).axes[0].images[1].get_cmap()(np.arange(256))[:, 3]
    assert np.allclose(faded, faded[::-1]) and faded.argmin() in (127, 128) and faded[0] == faded.max() == 0.6


def test_a_map_of_one_value_has_a_scale():
    assert plots.overlays({"a": (ct(), np.ones((2, 2)))}, label="x").axes[0].images[1].get_clim() == (1, 2)


def test_a_ring_is_drawn_at_the_middle_of_its_square():
    figure = plots.overlays(laid_over(), label="x", ring=(1, 3))
    for axis in figure.axes[:3]:
        rings = [line.get_xydata().tolist() for line in axis.lines]
        assert rings == [[[27.5, 11.5]]] * 2  # squares of 8 x 8: columns 24 to 31, rows 8 to 15
        assert {line.get_markeredgecolor() for line in axis.lines} == {"black", "white"}
    some = plots.overlays(laid_over(), label="x", ring={"two": (0, 0)})
    assert [len(axis.lines) for axis in some.axes[:3]] == [0, 0, 2]
    assert some.axes[2].lines[0].get_xydata().tolist() == [[3.5, 3.5]]


def test_panels_fill_rows_and_the_rest_stays_empty():
    five = {str(number): (ct(), np.ones((3, 4))) for number in range(5)}
    figure = plots.overlays(five, label="x", columns=3)
    grid = figure.axes[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (2, 3)
    assert [axis.get_title() for axis in figure.axes[:6]] == ["0", "1", "2", "3", "4", ""]
    assert not figure.axes[5].axison
    for count, rows, columns in ((1, 1, 1), (4, 2, 2)):  # no more columns than panels, no empty row
        some = plots.overlays(dict([*five.items()][:count]), label="x", columns=2)
        grid = some.axes[0].get_subplotspec().get_gridspec()
        assert (grid.nrows, grid.ncols) == (rows, columns)


def test_a_zoom_cuts_slice_and_map_alike():
    axis = plots.overlays(laid_over(), label="x", zoom=(8, 16, 4, 20)).axes[1]
    assert axis.get_xlim() == (3.5, 19.5) and axis.get_ylim() == (15.5, 7.5)
    assert axis.images[1].get_extent() == axis.images[0].get_extent()


@pytest.mark.parametrize(
    ("panels", "options", "text"),
    [
        ({"a": (ct(), None)}, {}, "overlays take a map at least"),
        (laid_over(), {"label": " "}, "a label for the colours"),
        (laid_over(), {"columns": 5}, "1 to 4 columns"),
        (laid_over(), {"opacity": 0.0}, "opacity above 0"),
        (laid_over(), {"limits": (1, 1)}, r"limits of the colours must ascend, got \(1, 1\)"),
        (laid_over(), {"limits": (-1, 3)}, r"symmetric about 0, or choose a cmap: got \(-1, 3\)"),
        (laid_over(), {"ring": (3, 0)}, r"ring .* \(3, 0\) is outside a map of 3 x 4"),
        (laid_over(), {"ring": {"three": (0, 0)}}, "rings for panels that are not there: .'three'"),
        (laid_over(), {"zoom": (0, 30, 0, 10)}, "not inside a slice of 24 x 32"),
        (laid_over(), {"window": "stomach"}, "no window named 'stomach'"),
        ({"a": (ct(), torch.zeros(1, 3, 4))}, {}, "the map of 'a' is not .h, w. of finite values"),
        ({"a": (ct(), torch.full((3, 4), torch.nan))}, {}, "the map of 'a'"),
        ({"a": (ct(), torch.ones(3, 4)), "b": (ct(shape=(24, 31)), None)}, {}, "of one shape"),
        ({str(number): (ct(), torch.ones(3, 4)) for number in range(13)}, {}, "1 to 12 panels, got 13"),
    ],
)
def test_overlays_that_cannot_be_drawn_are_refused(panels, options, text):
    with pytest.raises(ValueError, match=text):
        plots.overlays(panels, **{"label": "x", **options})


# Probes


def probed(wrong=0):
    """Lung, liver and bone in four units, `wrong` of ten livers in each taken for spleen."""
    truth = np.tile(np.repeat([1, 4, 9], 10), 4)
    predicted = truth.copy()
    unit = np.repeat(np.arange(4), 30)
    for number in range(4):
        predicted[np.flatnonzero((unit == number) & (truth == 4))[: wrong + number]] = 5
    return ProbeResult(truth, predicted, unit)


def test_accuracy_is_drawn_over_blocks_with_its_interval_and_controls_lie_beside():
    blocks = {12: probed(4), 1: probed(6), 9: probed(0)}
    figure = plots.accuracy({"DINOv2": blocks}, {"pixels": probed(2), "place": probed(5)})
    curve, beside = figure.axes
    (line,) = [line for line in curve.lines if line.get_label() == "DINOv2"]
    assert [*line.get_xdata()] == [1, 9, 12]
    assert [*line.get_ydata()] == [blocks[block].balanced_accuracy for block in (1, 9, 12)]
    (band,) = curve.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
    for block, result in blocks.items():
        assert {(block, result.interval()[0]), (block, result.interval()[1])} <= corners
    levels = [line.get_ydata()[0] for line in curve.lines if line.get_linestyle() == ":"]
    assert levels == [probed(2).balanced_accuracy, probed(5).balanced_accuracy]
    assert [label.get_text() for label in beside.get_xticklabels()] == ["pixels", "place"]
    drawn = [tuple(line.get_ydata()) for line in beside.lines]
    assert drawn[0] == probed(2).interval() and drawn[1] == (probed(2).balanced_accuracy,)
    assert drawn[2] == probed(5).interval() and drawn[3] == (probed(5).balanced_accuracy,)
    assert (curve.get_xlabel(), curve.get_ylabel()) == ("block", "balanced accuracy, 95 % interval")
    assert curve.get_ylim() == (0, 1)
    assert len({line.get_color() for line in (line, *beside.lines)}) == 3


def test_lines_of_accuracy_need_no_controls_and_share_an_axis():
    figure = plots.accuracy({"sample": {1: probed(), 2: probed()}, "phantoms": {2: probed(3)}}, x="stage")
    (axis,) = figure.axes
    assert list(axis.get_xticks()) == [1, 2]
    assert axis.get_xlabel() == "stage"
    assert len({line.get_linestyle() for line in axis.lines}) == 2


@pytest.mark.parametrize(
    ("lines", "controls", "text"),
    [
        ({}, {}, "1 to 3 lines"),
        ({"a": {}}, {}, "1 to 3 lines with one block or more"),
        ({str(n): {1: probed()} for n in range(4)}, {}, "1 to 3 lines"),
        ({"a": {1: probed()}}, {str(n): probed() for n in range(6)}, "at most 6 names"),
    ],
)
def test_accuracy_that_cannot_be_drawn_is_refused(lines, controls, text):
    with pytest.raises(ValueError, match=text):
        plots.accuracy(lines, controls)


def test_confusion_shows_shares_of_each_true_group():
    figure = plots.confusion({"sample": probed(2)})
    axis = figure.axes[0]
    share = axis.images[0].get_array()
    right = 1 - (2 + 3 + 4 + 5) / 40
    expected = [[1, 0, 0, 0], [0, right, 1 - right, 0], [np.nan] * 4, [0, 0, 0, 1]]
    np.testing.assert_allclose(np.ma.filled(share, np.nan), expected)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["lung", "liver", "spleen", "bone"]
    rows = [label.get_text() for label in axis.get_yticklabels()]
    assert rows == ["lung (40)", "liver (40)", "spleen (0)", "bone (40)"]
    numbers = {text.get_position(): text.get_text() for text in axis.texts}
    assert numbers == {(0, 0): "100", (1, 1): "65", (2, 1): "35", (3, 3): "100"}
    assert axis.images[0].get_clim() == (0, 1)


def test_two_confusions_have_the_same_groups_and_a_third_is_refused():
    liver = ProbeResult(np.array([4]), np.array([4]), np.array([0]))
    figure = plots.confusion({"sample": probed(), "phantoms": liver})
    assert [axis.get_title() for axis in figure.axes[:2]] == ["sample", "phantoms"]
    assert figure.axes[1].images[0].get_array().shape == figure.axes[0].images[0].get_array().shape
    for panels in ({}, dict.fromkeys("abc", liver)):
        with pytest.raises(ValueError, match="1 or 2 confusion tables"):
            plots.confusion(panels)


# The sliders


def test_the_dose_slider_shows_the_chosen_scan_in_one_window():
    box = plots.dose_slider({1.0: ct(0), 0.25: ct(1)}, window=Window(40, 400))
    slider, words, picture = box.children
    assert slider.options == ("1", "0.25") and slider.description == "dose"
    for dose, seed in (("1", 0), ("0.25", 1)):
        slider.value = dose
        assert np.array_equal(pixels(picture), hounsfield.grey_levels(ct(seed).numpy(), 40, 400))
        assert words.value == f"dose {dose} of the scan's own, window L 40 W 400 HU"
    assert picture.tooltip is None  # ipywidgets 8.1 draws an error in place of an Image that has one


def test_a_dose_slider_without_a_choice_is_refused():
    with pytest.raises(ValueError, match=r"two doses or more, got \[1.0\]"):
        plots.dose_slider({1.0: ct()})
    with pytest.raises(ValueError, match="NaN or infinite HU: 0.5"):
        plots.dose_slider({1.0: ct(), 0.5: torch.full((24, 32), torch.nan)})


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture.value)))


# What is refused, by all of them


BROKEN = {
    "takes 1 to": {},
    "slices .Y, X. of one shape": {"a": ct(), "b": ct(shape=(24, 31))},
    r"got .'a': .1, 24, 32": {"a": ct()[None]},
    "NaN or infinite HU: b": {"a": ct(), "b": torch.full((24, 32), torch.nan)},
}


@pytest.mark.parametrize("text", BROKEN)
def test_broken_panels_are_refused(text):
    with pytest.raises(ValueError, match=text):
        plots.ct_panels(BROKEN[text])


def test_too_many_panels_are_refused():
    five = {str(number): ct() for number in range(5)}
    with pytest.raises(ValueError, match="1 to 4 panels, got 5"):
        plots.ct_panels(five)
    with pytest.raises(ValueError, match="1 to 4 panels, got 5"):
        plots.window_strip(ct(), ("abdomen", "lung", "bone", "liver", "brain"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"window": "stomach"}, "no window named 'stomach'; there are evaluation"),
        ({"zoom": (0, 30, 0, 10)}, "not inside a slice of 24 x 32"),
        ({"zoom": (5, 5, 0, 10)}, "not inside"),
        ({"captions": {"c": "?"}}, "captions for panels that are not there: .'c'"),
    ],
)
def test_an_option_that_fits_no_panel_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        plots.ct_panels(three(), **options)


def test_a_difference_without_limits_is_refused():
    with pytest.raises(ValueError, match="difference_hu must be above 0, got 0"):
        plots.before_after(*three().values(), difference_hu=0)


# Alt text


class Images(html.parser.HTMLParser):
    """Collects the attributes of every image in a page."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.found.append(dict(attrs))


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, as in a notebook."""
    bundles = []
    monkeypatch.setattr("IPython.get_ipython", SimpleNamespace)
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw, display_id: bundles.append(bundle))
    return bundles


TEXT = 'Noise at a "quarter": 30 HU <b>& more</b>'


def test_a_shown_figure_carries_its_alt_text_into_an_exported_page(shown):
    plots.alt(plots.ct_panels({"slice": ct()}), TEXT)
    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("plots.alt(figure, text)", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("display_data", data=shown[0])]
    notebook.cells = [cell]
    page, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    (image,) = Images(page).found
    assert image["alt"] == TEXT
    assert image["src"].startswith("data:image/png;base64,iVBOR")
    assert shown[0]["text/plain"] == TEXT


def test_only_figures_with_colours_take_up_colours():
    for figure, mode in [
        (plots.ct_panels({"slice": ct()}), "L"),
        (plots.before_after(*three().values()), "RGB"),
    ]:
        assert Image.open(io.BytesIO(plots.show._png(figure))).mode == mode


def test_a_shown_figure_is_closed():
    import matplotlib.pyplot as plt

    figure, _ = plt.subplots()
    plots.alt(figure, "an empty picture")
    assert not plt.fignum_exists(figure.number)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_figure_without_alt_text_is_refused(text):
    with pytest.raises(ValueError, match="alt text is empty"):
        plots.alt(plots.ct_panels({"slice": ct()}), text)


def test_outside_a_notebook_the_alt_text_is_printed(monkeypatch, capsys):
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    plots.alt(plots.ct_panels({"slice": ct()}), "one slice")
    assert capsys.readouterr().out == "one slice\n"


def test_the_learners_own_plot_settings_stay():
    with mpl.rc_context({"font.size": 7, "image.cmap": "hot"}):
        plots.losses(log())
        assert (mpl.rcParams["font.size"], mpl.rcParams["image.cmap"]) == (7, "hot")


def test_the_split_is_drawn_where_its_slices_are():
    figure = plots.split_bar({"train": [(0, 10), (20, 30)], "test": [(14, 16)]}, 30)
    bars = figure.axes[0].collections
    assert [len(bar.get_paths()) for bar in bars] == [2, 1]
    assert bars[1].get_paths()[0].get_extents().intervalx.tolist() == [14, 16]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["train", "test"]
    with pytest.raises(ValueError, match="outside a volume"):
        plots.split_bar({"train": [(0, 31)]}, 30)


def test_a_live_picture_is_shown_once_and_then_replaced(monkeypatch):
    calls = []

    class Handle:
        def update(self, data, raw):
            calls.append(("replaced", data["text/plain"], raw))

    def display(data, raw, display_id):
        calls.append(("shown", data["text/plain"], display_id))
        return Handle()

    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", display)
    live = plots.Live()
    for step in (1, 2):
        live.show(plots.losses([{"step": 1, "pixel": 0.1}]), f"step {step}")
    assert calls == [("shown", "step 1", True), ("replaced", "step 2", True)]


# Tokens as points


def cloud(n=5, seed=0):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


def test_points_lie_where_they_are_and_arrows_go_from_start_to_end():
    y, x = cloud(), cloud(seed=1)
    figure = plots.token_plane({"block 4": {"y": y, "to x": (y, x)}}, x="first", y="second", faint=["y"])
    (axis,) = figure.axes
    np.testing.assert_allclose(axis.lines[0].get_xydata(), y, rtol=1e-6)
    (arrows,) = axis.collections
    np.testing.assert_allclose(arrows.get_offsets(), y, rtol=1e-6)
    np.testing.assert_allclose(np.stack([arrows.U, arrows.V], 1), x - y, rtol=1e-5, atol=1e-6)
    assert (arrows.angles, arrows.scale_units, arrows.scale) == ("xy", "xy", 1)
    assert (axis.get_title(), axis.get_xlabel(), axis.get_ylabel()) == ("block 4", "first", "second")
    assert axis.get_aspect() == 1


def test_the_axes_reach_to_the_ends_of_arrows():
    figure = plots.token_plane({"": {"far": (torch.zeros(1, 2), torch.tensor([[7.0, -9.0]]))}}, x="", y="")
    left, right = figure.axes[0].get_xlim()
    bottom, top = figure.axes[0].get_ylim()
    assert left <= 0 <= 7 <= right and bottom <= -9 <= 0 <= top


def test_a_name_keeps_its_colour_in_all_panels_and_faint_ones_lie_behind_in_grey():
    panels = {"a": {"x": cloud(), "y": cloud(seed=1)}, "b": {"y": cloud(seed=2), "all": cloud(9)}}
    figure = plots.token_plane(panels, x="", y="", faint=["all"])
    looks = [{line.get_label(): line.get_color() for line in axis.lines} for axis in figure.axes]
    assert looks[0]["y"] == looks[1]["y"] != looks[0]["x"]
    assert looks[1]["all"] == "0.7"
    assert [line.get_label() for line in figure.axes[1].lines] == ["all", "y"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["x", "y", "all"]


@pytest.mark.parametrize(
    ("panels", "faint", "message"),
    [
        ({}, [], "1 to 4 panels"),
        ({str(n): {"y": cloud()} for n in range(5)}, [], "1 to 4 panels"),
        ({"a": {}}, [], "points or arrows each"),
        ({"a": {str(n): cloud() for n in range(7)}}, [], "at most 6 names"),
        ({"a": {"y": cloud()}}, ["x"], "faint names that are not there"),
        ({"a": {"y": (cloud(), cloud())}}, ["y"], "only points can be faint"),
        ({"a": {"y": cloud()[0]}}, [], "finite"),
        ({"a": {"y": torch.full((3, 2), torch.nan)}}, [], "finite"),
        ({"a": {"y": cloud(0)}}, [], "N of 1 or more"),
        ({"a": {"y": torch.zeros(3, 3)}}, [], r"\(3, 3\)"),
        ({"a": {"y": (cloud(3), cloud(4))}}, [], "got 3 and 4"),
    ],
)
def test_points_that_cannot_be_drawn_are_refused(panels, faint, message):
    with pytest.raises(ValueError, match=message):
        plots.token_plane(panels, x="", y="", faint=faint)


# Differences with intervals


def two_rivals():
    return {
        "PSNR": {"gan": (-0.3, (-0.5, -0.1)), "alden": (0.1, (-0.2, 0.4))},
        "judge": {"alden": (-2.0, (-3.0, -1.0)), "late": (1.0, (0.0, 2.0))},
    }


def discs(axis):
    return {line.get_ydata()[0]: line for line in axis.lines if line.get_marker() == "o"}


def test_panels_of_one_quantity_can_share_their_scale():
    own = [axis.get_xlim() for axis in plots.forest(two_rivals(), x="").axes]
    shared = [axis.get_xlim() for axis in plots.forest(two_rivals(), x="", same_scale=True).axes]
    assert own[0] != own[1]
    assert shared == [(min(low for low, _ in own), max(high for _, high in own))] * 2


def test_a_row_stands_at_its_height_in_all_panels_the_first_on_top():
    left, right = plots.forest(two_rivals(), x="difference to l1").axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["gan", "alden", "late"]
    assert {height: disc.get_xdata()[0] for height, disc in discs(left).items()} == {0: -0.3, 1: 0.1}
    assert {height: disc.get_xdata()[0] for height, disc in discs(right).items()} == {1: -2.0, 2: 1.0}
    assert not any(text.get_text() for text in right.get_yticklabels())  # they stand once
    assert left.get_ylim() == right.get_ylim() and left.get_ylim()[0] > 2 > 0 > left.get_ylim()[1]
    assert (left.get_title(), right.get_title()) == ("PSNR", "judge")
    assert left.figure.get_supxlabel() == "difference to l1"


def test_a_bar_is_the_interval_and_a_disc_is_full_where_0_is_left_out():
    left, right = plots.forest(two_rivals(), x="").axes
    bars = [line.get_xydata().tolist() for line in left.lines if line.get_linewidth() == 2]
    assert bars == [[[-0.5, 0], [-0.1, 0]], [[-0.2, 1], [0.4, 1]]]
    full = {height: disc.get_markerfacecolor() != "white" for height, disc in discs(left).items()}
    assert full == {0: True, 1: False}
    assert {height: disc.get_markerfacecolor() != "white" for height, disc in discs(right).items()} == {
        1: True,
        2: False,  # it touches 0
    }
    zero = left.lines[0]
    assert list(zero.get_xdata()) == [0, 0]


def test_single_runs_are_ticks_below_their_row_and_the_goal_a_dotted_line():
    figure = plots.forest(two_rivals(), x="", runs={"PSNR": {"alden": [0.0, 0.2]}}, goals={"judge": -1.5})
    left, right = figure.axes
    (ticks,) = [line for line in left.lines if line.get_marker() == "|"]
    assert list(ticks.get_xdata()) == [0.0, 0.2] and all(1 < y < 1.5 for y in ticks.get_ydata())
    (goal,) = [line for line in right.lines if line.get_linestyle() == ":"]
    assert list(goal.get_xdata()) == [-1.5, -1.5]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["single runs", "normal dose"]


@pytest.mark.parametrize(
    ("panels", "options", "text"),
    [
        ({}, {}, "1 to 4 panels"),
        ({"": {}}, {}, "1 to 4 panels with rows"),
        ({str(n): {"a": (0, (-1, 1))} for n in range(5)}, {}, "1 to 4 panels"),
        ({"": {"a": (np.nan, (-1, 1))}}, {}, "'a' holds NaN"),
        ({"": {"a": (0, (-np.inf, 1))}}, {}, "'a' holds NaN"),
        ({"": {"a": (0, (1, -1))}}, {}, "begins at 1 and ends at -1"),
        ({"": {"a": (0, (-1, 1))}}, {"runs": {"b": {}}}, "a panel that is not there: 'b'"),
        ({"": {"a": (0, (-1, 1))}}, {"goals": {"b": 1}}, "a panel that is not there: 'b'"),
        ({"": {"a": (0, (-1, 1))}}, {"runs": {"": {"b": [1]}}}, "a row that is not there: 'b'"),
    ],
)
def test_differences_that_cannot_be_drawn_are_refused(panels, options, text):
    with pytest.raises(ValueError, match=text):
        plots.forest(panels, x="", **options)


# Ranks


def three_methods():
    return {
        "low dose": {"PSNR": 26.0, "judge": 0.3, "texture": 1.4},
        "l1": {"PSNR": 32.0, "judge": 0.2, "texture": 0.6},
        "alden": {"PSNR": 31.0, "judge": 0.1, "texture": 0.9},
    }


BEST = {"PSNR": np.inf, "judge": -np.inf, "texture": 1.0}


def test_colours_are_ranks_by_more_less_or_nearness_and_ties_share_one():
    axis, bar = plots.ranks(three_methods(), best=BEST).axes
    (picture,) = axis.images
    assert picture.get_array().tolist() == [[3, 3, 2], [1, 2, 2], [2, 1, 1]]  # 1.4 and 0.6 are both 0.4 off
    assert (picture.norm.vmin, picture.norm.vmax) == (1, 3)
    assert [text.get_text() for text in axis.get_xticklabels()] == list(BEST)
    assert [text.get_text() for text in axis.get_yticklabels()] == list(three_methods())
    assert bar.yaxis_inverted()  # the first rank is on top


def test_values_stand_in_their_cells_dark_on_bright_and_bright_on_dark():
    axis, _ = plots.ranks(three_methods(), best=BEST).axes
    texts = {tuple(map(int, text.get_position())): text for text in axis.texts}
    assert len(texts) == 9
    assert (texts[0, 1].get_text(), texts[1, 0].get_text(), texts[2, 2].get_text()) == ("32", "0.3", "0.9")
    assert (texts[0, 1].get_color(), texts[0, 0].get_color()) == ("black", "white")
    colours = axis.images[0].get_cmap()(axis.images[0].norm([1, 3]))[:, :3].mean(1)
    assert colours[0] > 0.5 > colours[1]


@pytest.mark.parametrize(
    ("table", "best", "text"),
    [
        ({"a": {"x": 1}}, {"x": np.inf}, "2 to 12 rows and 1 to 12 columns, got 1 and 1"),
        ({"a": {}, "b": {}}, {}, "got 2 and 0"),
        ({str(n): {"x": n} for n in range(13)}, {"x": 0}, "got 13 and 1"),
        ({n: {str(c): 1 for c in range(13)} for n in "ab"}, {str(c): 1 for c in range(13)}, "got 2 and 13"),
        ({"a": {"x": 1}, "b": {"y": 1}}, {"x": 0}, "not so b"),
        ({"a": {"x": 1}, "b": {"x": np.nan}}, {"x": 0}, "holds NaN or infinity"),
    ],
)
def test_ranks_that_cannot_be_told_are_refused(table, best, text):
    with pytest.raises(ValueError, match=text):
        plots.ranks(table, best=best)


# Violins


def two_organs():
    rng = np.random.default_rng(0)
    return {
        "liver": {"real": rng.normal(1, 1, 200), "fake": rng.normal(-2, 1, 200)},
        "lung": {"real": torch.zeros(30, 2), "fake": np.linspace(-1, 3, 61)},
    }


def test_violins_stand_left_and_right_of_their_group_with_bars_at_the_medians():
    figure = plots.violins(two_organs(), y="logit")
    axis = figure.axes[0]
    bodies = [b for b in axis.collections if isinstance(b, mpl.collections.PolyCollection)]
    spans = [b.get_paths()[0].vertices[:, 0] for b in bodies]
    assert [x.max() <= centre + 1e-9 for x, centre in zip(spans[:2], (1, 2), strict=True)] == [True, True]
    assert [x.min() >= centre - 1e-9 for x, centre in zip(spans[2:], (1, 2), strict=True)] == [True, True]
    bars = [b for b in axis.collections if isinstance(b, mpl.collections.LineCollection)]
    heights = [segment[0, 1] for bar in bars for segment in bar.get_segments()]
    organs = two_organs()
    medians = [float(np.median(organs[name][kind])) for kind in ("real", "fake") for name in organs]
    np.testing.assert_allclose(heights, medians)
    assert axis.get_ylabel() == "logit"


def test_violins_name_groups_counts_and_kinds():
    figure = plots.violins(two_organs(), y="logit")
    assert {"liver\n(200)", "lung\n(60)", "real", "fake"} <= set(texts(figure))
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["real", "fake"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({}, "same one or two kinds"),
        ({"a": {}}, "same one or two kinds"),
        ({"a": {"x": [1, 2]}, "b": {"y": [1, 2]}}, "same one or two kinds"),
        ({"a": {"x": [1, 2], "y": [1, 2], "z": [1, 2]}}, "same one or two kinds"),
        ({"a": {"x": [1]}}, "two finite values"),
        ({"a": {"x": [1, float("nan")]}}, "two finite values"),
    ],
)
def test_violins_of_what_cannot_be_spread_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        plots.violins(groups, y="logit")
