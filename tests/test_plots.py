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

from alden_lite import hounsfield, metrics, plots
from alden_lite.hounsfield import Window


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
    low, high = (mpl.colormaps[plots.DIVERGING](end)[:3] for end in (0.15, 0.85))
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
    spectrum = metrics.noise_power_spectrum(np.tile(waves, (1, 8, 1)), pixel_mm=2.0)
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
        assert Image.open(io.BytesIO(plots._png(figure))).mode == mode


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
