"""The course's figures: CT beside CT in one window, differences in HU, curves, spectra, sliders.

Plots take data and return a matplotlib figure; `alt` shows one in a notebook, with a text for those who
cannot see it. All CT panels of a figure share one window, which the figure names. Used in every chapter.
"""

from __future__ import annotations

import base64
import html
import io
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from alden_lite.hounsfield import WINDOWS, Window, denormalise, grey_levels
from alden_lite.hounsfield import window as cut_window

if TYPE_CHECKING:
    from ipywidgets import VBox

    from alden_lite.metrics import NoisePower

__all__ = [
    "Live",
    "alt",
    "before_after",
    "ct_panels",
    "curves",
    "dose_slider",
    "feature_colours",
    "hu_histogram",
    "losses",
    "noise_power",
    "sinograms",
    "split_bar",
    "window_strip",
]

Slice = np.ndarray | torch.Tensor  # (Y, X) in HU
Line = tuple[Sequence[float] | np.ndarray | torch.Tensor, Sequence[float] | np.ndarray | torch.Tensor]
Zoom = tuple[int, int, int, int]  # y0, y1, x0, x1 in pixels: the part of a slice to show

# Okabe and Ito's colours and orange-violet stay apart in every common colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
TISSUE_COLOURS = (*COLOURS, "#E69F00", "#56B4E9")
DIVERGING = "PuOr"
WIDTH_IN, DPI = 9.5, 150  # of every figure: shown about 900 pixels wide, its text can be read
STYLE = {"font.size": 10, "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False}


@contextmanager
def _styled() -> Iterator[None]:
    """The one style sheet, as a decorator; the learner's own matplotlib settings come back afterwards."""
    with style.context(["default", STYLE]):
        yield


@_styled()
def ct_panels(
    panels: Mapping[str, Slice],
    *,
    window: str | Window = "abdomen",
    zoom: Zoom | None = None,
    captions: Mapping[str, str] | None = None,
    spacing_mm: float | None = None,
) -> Figure:
    """One to four slices in a row, in one window.

    Args:
        panels: title to slice (Y, X) in HU, all of one shape.
        window: a name in `hounsfield.WINDOWS`, or a Window.
        zoom: the part to show; its pixels are enlarged, not smoothed.
        captions: title to a line below that panel, such as "RMSE 12.3 HU".
        spacing_mm: side of a pixel; with it, the first panel gets a scale bar.

    Raises:
        ValueError: on 0 or more than 4 panels, different shapes, NaN, an unknown window, a zoom outside the
            slice, a caption without a panel.
    """
    captions = captions or {}
    if unknown := set(captions) - set(panels):
        raise ValueError(f"captions for panels that are not there: {sorted(unknown)}")
    figure, axes = _ct_row(_zoomed(_checked(panels, most=4), zoom), len(panels), _window(window))
    for axis, title in zip(axes, panels, strict=True):
        axis.set_xlabel(captions.get(title, ""))
    if spacing_mm is not None:
        _draw_scale_bar(axes[0], spacing_mm)
    return figure


@_styled()
def before_after(
    low: Slice,
    denoised: Slice,
    normal: Slice,
    *,
    name: str = "denoised",
    window: str | Window = "abdomen",
    zoom: Zoom | None = None,
    difference_hu: float = 60.0,
) -> Figure:
    """Low dose, denoised and normal dose in one window, and denoised minus normal dose in HU.

    Args:
        low, denoised, normal: slices (Y, X) in HU, of one shape.
        name: title of the denoised slice, such as the network's name.
        window, zoom: as for `ct_panels`.
        difference_hu: the colours of the difference reach from minus to plus this; 0 is white.

    Raises:
        ValueError: as for `ct_panels`, if `difference_hu` is not above 0, or if the name is taken.
    """
    if not difference_hu > 0:
        raise ValueError(f"difference_hu must be above 0, got {difference_hu}")
    if name in ("low dose", "normal dose"):
        raise ValueError(f"{name!r} is another panel's title: give the denoised slice a name of its own")
    slices = _zoomed(_checked({"low dose": low, name: denoised, "normal dose": normal}, most=3), zoom)
    figure, axes = _ct_row(slices, 4, _window(window))
    limits = {"vmin": -difference_hu, "vmax": difference_hu}
    difference = slices[name] - slices["normal dose"]
    _show(axes[3], difference, f"{name} − normal dose", cmap=DIVERGING, **limits)
    below = axes[3].inset_axes((0, -0.09, 1, 0.05))
    bar = figure.colorbar(axes[3].images[0], cax=below, orientation="horizontal")
    bar.set_ticks(
        [-difference_hu, 0, difference_hu], labels=[f"−{difference_hu:g}", "0", f"{difference_hu:g} HU"]
    )
    return figure


@_styled()
def window_strip(hu: Slice, windows: Sequence[str] = ("abdomen", "lung", "bone")) -> Figure:
    """One slice in up to four windows, side by side: what one shows, another hides.

    Args:
        hu: (Y, X) in HU.
        windows: names in `hounsfield.WINDOWS`.

    Raises:
        ValueError: on 0 or more than 4 windows, an unknown one, another shape, or NaN.
    """
    chosen = {name: _window(name) for name in windows}
    slices = _checked(dict.fromkeys(chosen, hu), most=4)
    figure, axes = _row(slices, len(slices))
    for axis, (name, shown) in zip(axes, chosen.items(), strict=True):
        _show_ct(axis, slices[name], f"{name} window", shown)
        axis.set_xlabel(str(shown))
    return figure


@_styled()
def split_bar(split: Mapping[str, Sequence[tuple[int, int]]], n_slices: int) -> Figure:
    """Which slices of a volume train, choose and test: a bar along z, white where slices are left out.

    Args:
        split: part to its blocks [first, last), as `data.SPLIT`.
        n_slices: of the volume.

    Raises:
        ValueError: if a block lies outside the volume.
    """
    outside = [
        block for blocks in split.values() for block in blocks if not 0 <= block[0] < block[1] <= n_slices
    ]
    if outside:
        raise ValueError(f"blocks {outside} are outside a volume of {n_slices} slices")
    figure, axes = _grid(1, 1, height_in=1.5)
    axis = axes[0, 0]
    for (part, blocks), colour in zip(split.items(), COLOURS, strict=False):
        spans = [(first, last - first) for first, last in blocks]
        axis.broken_barh(spans, (0, 1), color=colour, label=part)
    axis.set(xlim=(0, n_slices), yticks=[], xlabel="slice, from the feet to the head")
    axis.legend(ncols=len(split), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return figure


@_styled()
def losses(log: Sequence[Mapping[str, float]]) -> Figure:
    """A small picture for each loss of a run, over its steps.

    Args:
        log: lines of `log.jsonl`: `step`, `seconds` and the losses. Pixel losses are drawn in HU.

    Raises:
        ValueError: on a log without losses, or a line that lacks what the first one has.
    """
    names = [name for name in (log[0] if log else ()) if name not in ("step", "seconds")]
    if not names:
        raise ValueError("the log holds no losses: give the lines of a run's log.jsonl")
    if any(set(line) != set(log[0]) for line in log):
        raise ValueError(f"not every line of the log has {', '.join(log[0])}")
    figure, axes = _grid(1, len(names), height_in=2.4)
    for number, name in enumerate(names):
        in_hu = name == "pixel"
        values = [denormalise(line[name]) if in_hu else line[name] for line in log]
        colour, axis = COLOURS[number % len(COLOURS)], axes[0, number]
        axis.plot([line["step"] for line in log], values, color=colour, marker="o", markersize=3)
        axis.set(title=f"{name} (HU)" if in_hu else name, xlabel="step")
        axis.grid(alpha=0.3)
    return figure


@_styled()
def curves(
    panels: Mapping[str, Mapping[str, Line]],
    *,
    x: str,
    y: str,
    log: str = "",
    dots: Collection[str] = (),
) -> Figure:
    """Lines over a common axis, in one panel or a few side by side.

    Args:
        panels: title to the panel's lines, each a name with `(x, y)` of one length. A name keeps its colour
            and its dashes in all panels.
        x, y: labels of the axes, with units.
        log: axes with a logarithmic scale: "", "x", "y" or "xy".
        dots: names drawn as dots instead of a line: what was measured.

    Raises:
        ValueError: on no panels, more than 4 names, an empty line, lengths that differ, NaN, values at or
            below 0 on a logarithmic axis, or a name in `dots` that is not there.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    if not 1 <= len(names) <= len(COLOURS):
        raise ValueError(f"panels hold 1 to {len(COLOURS)} names of lines, got {names}")
    if unknown := set(dots) - set(names):
        raise ValueError(f"dots for lines that are not there: {sorted(unknown)}")
    if log not in ("", "x", "y", "xy"):
        raise ValueError(f"log is '', 'x', 'y' or 'xy', got {log!r}")
    drawn = [name for name in names if name not in dots]
    looks: dict[str, dict[str, Any]] = {
        name: {"color": colour, "linestyle": "", "marker": "o", "markersize": 4}
        if name in dots
        else {"color": colour, "linestyle": ("-", "--", "-.", ":")[drawn.index(name)]}
        for name, colour in zip(names, COLOURS, strict=False)
    }
    figure, axes = _grid(1, len(panels), height_in=3.4)
    for axis, (title, lines) in zip(axes[0], panels.items(), strict=True):
        for name, points in lines.items():
            axis.plot(*_line(name, points, log), label=name, **looks[name])
        axis.set(title=title, xlabel=x, ylabel=y if axis is axes[0, 0] else "")
        for letter in log:
            axis.set(**{f"{letter}scale": "log"})
            _plain_numbers(getattr(axis, f"{letter}axis"))
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    return figure


@_styled()
def hu_histogram(
    tissues: Mapping[str, np.ndarray],
    *,
    windows: Sequence[str] = (),
    limits: tuple[float, float] = (-1024, 800),
    step_hu: float = 8,
) -> Figure:
    """How often each HU occurs in a few tissues; below it, which grey windows give to that HU.

    Args:
        tissues: name to its pixels in HU, any shape; one to six.
        windows: names in `hounsfield.WINDOWS`, each a strip from black to white below the histogram.
        limits: HU from left to right; pixels beyond count in a share, but are not drawn.
        step_hu: width of a bin.

    Raises:
        ValueError: on 0 or more than 6 tissues, one without pixels or with NaN, an unknown window, limits in
            the wrong order, or a bin not above 0 HU.
    """
    if not 1 <= len(tissues) <= len(TISSUE_COLOURS):
        raise ValueError(f"a histogram takes 1 to {len(TISSUE_COLOURS)} tissues, got {len(tissues)}")
    if not (limits[0] < limits[1] and step_hu > 0):
        raise ValueError(f"limits {limits} must ascend, and step_hu {step_hu} be above 0 HU")
    pixels = {name: np.asarray(hu, dtype=np.float64).ravel() for name, hu in tissues.items()}
    if bad := [name for name, hu in pixels.items() if hu.size == 0 or not np.isfinite(hu).all()]:
        raise ValueError(f"tissues without pixels, or with NaN or infinite HU: {', '.join(bad)}")
    shown = {f"{name} window": _window(name) for name in windows}
    figure = Figure(figsize=(WIDTH_IN, 3.4 + 0.35 * len(shown)), layout="constrained")
    heights = [3.4, *[0.25] * len(shown)]
    axis, *strips = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    edges = np.arange(limits[0], limits[1] + step_hu, step_hu)
    dashes = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))
    for (name, hu), colour, dash in zip(pixels.items(), TISSUE_COLOURS, dashes, strict=False):
        share = np.histogram(hu, edges)[0] / hu.size
        axis.stairs(share, edges, label=name, color=colour, linestyle=dash, linewidth=1.6)
        axis.stairs(share, edges, fill=True, color=colour, alpha=0.15)
    axis.set(ylabel=f"share of pixels in {step_hu:g} HU", xlim=limits, ylim=(0, None))
    axis.legend(frameon=False, ncols=2)
    ramp = np.linspace(*limits, 1024)
    for strip, (name, one) in zip(strips, shown.items(), strict=True):
        greys = cut_window(ramp, one.level, one.width)[None]
        strip.imshow(greys, cmap="gray", vmin=0, vmax=1, extent=(*limits, 0, 1), aspect="auto")
        strip.set(yticks=[])
        strip.set_ylabel(name, rotation=0, ha="right", va="center")
    (strips or [axis])[-1].set_xlabel("HU")
    return figure


@_styled()
def sinograms(panels: Mapping[str, Slice]) -> Figure:
    """One to four sinograms in one scale of greys: a row is a view, a column a channel of the detector.

    Args:
        panels: title to line integrals (views, channels), no unit; shapes may differ.

    Raises:
        ValueError: on 0 or more than 4 panels, another number of dimensions, or NaN.
    """
    arrays = {title: np.asarray(lines, dtype=np.float32) for title, lines in panels.items()}
    shapes = {title: lines.shape for title, lines in arrays.items()}
    if not 1 <= len(arrays) <= 4 or any(len(shape) != 2 for shape in shapes.values()):
        raise ValueError(f"a row takes 1 to 4 sinograms (views, channels), got {shapes}")
    if broken := [title for title, lines in arrays.items() if not np.isfinite(lines).all()]:
        raise ValueError(f"sinograms with NaN or infinite values: {', '.join(broken)}")
    figure, axes = _grid(1, len(arrays), height_in=3.6)
    limits = {"vmin": 0.0, "vmax": max(float(lines.max()) for lines in arrays.values())}
    for axis, (title, lines) in zip(axes[0], arrays.items(), strict=True):
        picture = axis.imshow(lines, aspect="auto", cmap="gray", interpolation="antialiased", **limits)
        axis.set(title=title, xlabel="channel", ylabel="view" if axis is axes[0, 0] else "")
    figure.colorbar(picture, ax=list(axes[0]), label="line integral (no unit)")
    return figure


@_styled()
def noise_power(panels: Mapping[str, NoisePower]) -> Figure:
    """Noise power over both frequencies, each as a share of its largest value: brightness tells direction.

    Args:
        panels: title to a spectrum of `metrics.noise_power_spectrum`, one to three.

    Raises:
        ValueError: on 0 or more than 3 panels.
    """
    if not 1 <= len(panels) <= 3:
        raise ValueError(f"a row takes 1 to 3 spectra, got {len(panels)}")
    figure, axes = _grid(1, len(panels), height_in=min(WIDTH_IN / len(panels), 3.6) + 0.5)
    for axis, (title, spectrum) in zip(axes[0], panels.items(), strict=True):
        step = spectrum.frequency_per_mm[1] - spectrum.frequency_per_mm[0]
        first, last = spectrum.frequency_per_mm[[0, -1]] + np.array([-step, step]) / 2
        share = spectrum.power / spectrum.power.max()
        extent = (first, last, last, first)  # rows run downwards, as in a slice
        picture = axis.imshow(share, cmap="viridis", vmin=0, vmax=1, extent=extent)
        axis.set(title=title, xlabel="frequency along x (1/mm)")
    axes[0, 0].set_ylabel("frequency along y (1/mm)")
    figure.colorbar(picture, ax=list(axes[0]), label="share of the largest power")
    return figure


@_styled()
def feature_colours(maps: Sequence[torch.Tensor], titles: Sequence[str]) -> Figure:
    """Feature maps as pictures: a tap's first three principal components are red, green and blue.

    Places of one colour have similar features. Each tap has its own components, which the images of its batch
    share: colours compare within a column, not between columns.

    Args:
        maps: for each tap (B, C, h, w), C at least 3; B rows are drawn.
        titles: what each tap is.

    Raises:
        ValueError: on no maps, maps of another shape or with NaN, or a title too few or too many.
    """
    if not maps or len(maps) != len(titles) or len({len(tap) for tap in maps}) != 1:
        shapes = [tuple(tap.shape) for tap in maps]
        raise ValueError(f"every tap needs a title and the same batch: got {shapes} and {list(titles)}")
    pictures = [_principal_colours(tap) for tap in maps]
    rows, columns = len(pictures[0]), len(maps)
    figure, axes = _grid(rows, columns, height_in=rows * min(WIDTH_IN / columns, 3.2) + 0.5)
    for (row, column), axis in np.ndenumerate(axes):
        _show(axis, pictures[column][row], titles[column] if row == 0 else "")
    figure.supxlabel("one colour in one column: similar features", fontsize="medium")
    return figure


def dose_slider(scans: Mapping[float, Slice], *, window: str | Window = "abdomen") -> VBox:
    """A slider over scans at several doses. All pictures are made first, so that a move only swaps them.

    Args:
        scans: dose, as a fraction, to slice (Y, X) in HU.
        window: a name in `hounsfield.WINDOWS`, or a Window; the same for all.

    Returns:
        The slider, dose and window in words, and a picture, of `hounsfield.grey_levels`.

    Raises:
        ValueError: on fewer than 2 or more than 12 scans, different shapes, NaN or an unknown window.
    """
    import ipywidgets as widgets

    shown = _window(window)
    if len(scans) < 2:
        raise ValueError(f"a slider needs two doses or more, got {list(scans)}")
    slices = _checked({f"{dose:g}": hu for dose, hu in scans.items()}, most=12)
    pictures = {dose: _windowed_png(hu, shown) for dose, hu in slices.items()}
    wide = widgets.Layout(width="100%", max_width="560px")
    slider = widgets.SelectionSlider(options=list(pictures), description="dose", layout=wide)
    picture = widgets.Image(format="png", layout=wide)  # no tooltip: ipywidgets 8.1 draws an error then
    words = widgets.Label()

    def redraw(_: object = None) -> None:
        words.value = f"dose {slider.value} of the scan's own, window {shown}"
        picture.value = pictures[slider.value]

    redraw()
    slider.observe(redraw, "value")
    return widgets.VBox([slider, words, picture])


def alt(figure: Figure, text: str) -> None:
    """Show a figure in a notebook with alt text, and close it; outside a notebook, print the text.

    The output is an `<img alt="...">` in HTML, which Jupyter, nbconvert and the book keep.

    Args:
        figure: any matplotlib figure.
        text: what you would say of it on the telephone: what is compared, and what is to be seen.

    Raises:
        ValueError: if the text is empty.
    """
    _display(figure, text)


class Live:
    """A picture that is replaced while a run goes on: `live = Live()`, then `live.show(figure, text)`."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, figure: Figure, text: str) -> None:
        """Show a figure with alt text in place of the one before; arguments and errors as for `alt`."""
        self._handle = _display(figure, text, handle=self._handle)


def _display(figure: Figure, text: str, *, handle: Any = None) -> Any:
    """Show or replace a figure; returns the handle of its place in the notebook, None outside one."""
    from IPython import get_ipython
    from IPython.display import display

    if not text.strip():
        raise ValueError("the alt text is empty: say what the picture shows")
    source = f"data:image/png;base64,{base64.b64encode(_png(figure)).decode()}"
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(figure)
    image = f'<img src="{source}" alt="{html.escape(text)}" style="max-width: 100%; height: auto">'
    data = {"text/html": image, "text/plain": text}
    if get_ipython() is None:
        print(text)
        return None
    if handle is None:
        return display(data, raw=True, display_id=True)
    handle.update(data, raw=True)
    return handle


# Parts of a figure ----------------------------------------------------------------------------------------


def _checked(panels: Mapping[str, Slice], *, most: int) -> dict[str, np.ndarray]:
    if not 1 <= len(panels) <= most:
        raise ValueError(f"a row takes 1 to {most} panels, got {len(panels)}")
    slices = {title: np.asarray(hu, dtype=np.float32) for title, hu in panels.items()}
    shapes = {title: hu.shape for title, hu in slices.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 2 for shape in shapes.values()):
        raise ValueError(f"panels are slices (Y, X) of one shape, got {shapes}")
    if broken := [title for title, hu in slices.items() if not np.isfinite(hu).all()]:
        raise ValueError(f"panels with NaN or infinite HU: {', '.join(broken)}")
    return slices


def _plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis 1, 2, 5, 10, ... instead of with powers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _line(name: str, points: Line, log: str) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(values, dtype=np.float64) for values in points)
    if x.ndim != 1 or x.shape != y.shape or len(x) == 0:
        raise ValueError(f"line {name!r} needs x and y of one length, got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"line {name!r} holds NaN or infinite values")
    if ("x" in log and x.min() <= 0) or ("y" in log and y.min() <= 0):
        raise ValueError(f"line {name!r} has values at or below 0, which a logarithmic axis cannot show")
    return x, y


def _zoomed(slices: dict[str, np.ndarray], zoom: Zoom | None) -> dict[str, np.ndarray]:
    height, width = next(iter(slices.values())).shape
    y0, y1, x0, x1 = zoom or (0, height, 0, width)
    if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
        raise ValueError(f"zoom (y0, y1, x0, x1) = {zoom} is not inside a slice of {height} x {width}")
    return {title: hu[y0:y1, x0:x1] for title, hu in slices.items()}


def _window(window: str | Window) -> Window:
    if isinstance(window, str) and window not in WINDOWS:
        raise ValueError(f"no window named {window!r}; there are {', '.join(WINDOWS)}")
    return WINDOWS[window] if isinstance(window, str) else window


def _grid(rows: int, columns: int, *, height_in: float) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _row(slices: dict[str, np.ndarray], columns: int) -> tuple[Figure, list[Axes]]:
    """A row of axes as high as the slices need."""
    height, width = next(iter(slices.values())).shape
    figure, axes = _grid(1, columns, height_in=min(WIDTH_IN / columns, 5.0) * height / width + 0.9)
    return figure, list(axes[0])


def _ct_row(slices: dict[str, np.ndarray], columns: int, window: Window) -> tuple[Figure, list[Axes]]:
    """The slices in one window, with room for more columns than there are slices."""
    figure, axes = _row(slices, columns)
    for axis, (title, hu) in zip(axes, slices.items(), strict=False):
        _show_ct(axis, hu, title, window)
    words = f"window {window}: black from {window.low:g} HU down, white from {window.high:g} HU up"
    figure.supxlabel(words, fontsize="medium")
    return figure, axes


def _show_ct(axis: Axes, hu: np.ndarray, title: str, window: Window) -> None:
    _show(axis, hu, title, vmin=window.low, vmax=window.high, cmap="gray")


def _show(axis: Axes, picture: np.ndarray, title: str, **how: Any) -> None:
    enlarged = max(picture.shape[:2]) <= 256  # then show the pixels as they are
    axis.imshow(picture, interpolation="nearest" if enlarged else "antialiased", **how)
    axis.set(title=title, xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _draw_scale_bar(axis: Axes, spacing_mm: float) -> None:
    height, width = axis.images[0].get_size()
    length = next((mm for mm in (100, 50, 20, 10, 5) if mm / spacing_mm < width / 3), 1)
    x, y = width * 0.05, height * 0.95
    axis.plot([x, x + length / spacing_mm], [y, y], color="white", linewidth=3, solid_capstyle="butt")
    axis.text(x, y - height * 0.02, f"{length} mm", color="white", va="bottom")


def _principal_colours(maps: torch.Tensor) -> np.ndarray:
    """(B, C, h, w) to (B, h, w, 3) in [0, 1]."""
    if maps.ndim != 4 or maps.shape[1] < 3 or not torch.isfinite(maps).all():
        raise ValueError(f"feature maps are finite (B, C, h, w) with C of 3 or more: {tuple(maps.shape)}")
    tokens = maps.detach().cpu().double().permute(0, 2, 3, 1)  # (B, h, w, C)
    tokens = tokens - tokens.mean((0, 1, 2))
    flat = tokens.flatten(0, 2)
    axes = torch.linalg.eigh(flat.T @ flat).eigenvectors[:, -3:].flip(1)  # (C, 3), largest variance first
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    scores = flat @ (axes * largest.sign())  # an axis has no sign of its own: the same on every machine
    low, high = scores.quantile(torch.tensor([0.01, 0.99], dtype=torch.double), dim=0)
    grey = ((scores - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return grey.reshape(*tokens.shape[:3], 3).numpy()


def _png(figure: Figure) -> bytes:
    """The figure as PNG; without colours if it has none, which halves what noise takes up."""
    from PIL import Image, ImageChops

    drawn, png = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, facecolor="white")
    picture = Image.open(drawn).convert("RGB")
    grey = picture.convert("L")
    coloured = ImageChops.difference(picture, grey.convert("RGB")).getbbox() is not None
    (picture if coloured else grey).save(png, format="png", optimize=True)
    return png.getvalue()


def _windowed_png(hu: np.ndarray, window: Window) -> bytes:
    from PIL import Image

    png = io.BytesIO()
    Image.fromarray(grey_levels(hu, window.level, window.width)).save(png, format="png", compress_level=1)
    return png.getvalue()
