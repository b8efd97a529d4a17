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
from matplotlib import colormaps, patheffects, style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy import ndimage

from alden_lite.explain import ForegroundColours
from alden_lite.hounsfield import WINDOWS, Window, denormalise, grey_levels
from alden_lite.hounsfield import window as cut_window

if TYPE_CHECKING:
    from ipywidgets import VBox

    from alden_lite.metrics import NoisePower
    from alden_lite.organs import ProbeResult

__all__ = [
    "Live",
    "accuracy",
    "alt",
    "before_after",
    "confusion",
    "ct_panels",
    "curves",
    "dose_slider",
    "feature_colours",
    "hu_histogram",
    "losses",
    "noise_power",
    "organ_maps",
    "overlays",
    "sinograms",
    "split_bar",
    "window_strip",
]

Slice = np.ndarray | torch.Tensor  # (Y, X) in HU
Map = np.ndarray | torch.Tensor  # (h, w), over the whole of a slice
Line = tuple[Sequence[float] | np.ndarray | torch.Tensor, Sequence[float] | np.ndarray | torch.Tensor]
Zoom = tuple[int, int, int, int]  # y0, y1, x0, x1 in pixels: the part of a slice to show

# Okabe and Ito's colours and orange-violet stay apart in every common colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
TISSUE_COLOURS = (*COLOURS, "#E69F00", "#56B4E9")
# One for each of organs.GROUPS. Ten colours are too many to go by alone: names stand on the pictures too.
ORGAN_COLOURS = (
    *("#56B4E9", "#CC79A7", "#D55E00", "#E69F00", "#5B2A86"),  # lung, heart, vessel, liver, spleen
    *("#F0E442", "#009E73", "#0072B2", "#FFFFFF", "#999933"),  # kidney, stomach, bowel, bone, muscle
)
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
def feature_colours(
    maps: Sequence[torch.Tensor],
    titles: Sequence[str],
    *,
    foreground: torch.Tensor | None = None,
    slices: Mapping[str, Slice] | None = None,
    window: str | Window = "abdomen",
) -> Figure:
    """Feature maps as pictures: a tap's first three principal components are red, green and blue.

    Places of one colour have similar features. Each tap has its own components, which the images of its batch
    share: colours compare within a column, not between columns.

    Args:
        maps: for each tap (B, C, h, w), C at least 3; B rows are drawn.
        titles: what each tap is.
        foreground: (B, h, w) bool; the rest is black and has no say in the components. None takes all places.
        slices: name to the slice (Y, X) in HU of each row, drawn before it; none when None.
        window: of those slices, a name in `hounsfield.WINDOWS`, or a Window.

    Raises:
        ValueError: on no maps, maps of another shape or with NaN, a title too few or too many, another number
            of slices, a foreground of another shape, or an unknown window.
    """
    if not maps or len(maps) != len(titles) or len({len(tap) for tap in maps}) != 1:
        shapes = [tuple(tap.shape) for tap in maps]
        raise ValueError(f"every tap needs a title and the same batch: got {shapes} and {list(titles)}")
    pictures = [ForegroundColours.fit(tap, foreground)(tap, foreground).numpy() for tap in maps]
    shown, rows = _window(window), len(pictures[0])
    beside = _checked(slices, most=rows) if slices else {}
    if beside and len(beside) != rows:
        raise ValueError(f"{rows} rows of feature maps need as many slices, got {list(beside)}")
    first = 1 if beside else 0
    columns = first + len(maps)
    figure, axes = _grid(rows, columns, height_in=rows * min(WIDTH_IN / columns, 3.2) + 0.5)
    for axis, (name, hu) in zip(axes[:, 0], beside.items(), strict=False):
        _show_ct(axis, hu, "", shown)
        axis.set_ylabel(name)
    for (row, column), axis in np.ndenumerate(axes[:, first:]):
        _show(axis, pictures[column][row], titles[column] if row == 0 else "")
    words = "one colour in one column: similar features"
    figure.supxlabel(f"{words}; CT in the window {shown}" if beside else words, fontsize="medium")
    return figure


@_styled()
def organ_maps(
    panels: Mapping[str, tuple[Slice, np.ndarray]],
    *,
    window: str | Window = "abdomen",
    opacity: float = 0.55,
) -> Figure:
    """Slices with an organ group on each token, in colours and by name: labels, or what a probe says.

    Args:
        panels: title to (slice (Y, X) in HU, groups (h, w) over the whole slice, 0 to 10 as in
            `organs.GROUPS`, 0 left without a colour, names from three tokens on), one to four, slices of one
            shape.
        window: a name in `hounsfield.WINDOWS`, or a Window.
        opacity: of the colours, 0 to 1.

    Raises:
        ValueError: as for `ct_panels`, and for groups that are not (h, w) whole numbers from 0 to 10.
    """
    from alden_lite.organs import GROUPS

    maps = {title: np.asarray(groups) for title, (_, groups) in panels.items()}
    for title, groups in maps.items():
        if groups.ndim != 2 or not np.isin(groups, range(len(GROUPS) + 1)).all():
            raise ValueError(f"groups of {title!r} are whole numbers from 0 to {len(GROUPS)}, (h, w)")
    slices = _checked({title: hu for title, (hu, _) in panels.items()}, most=4)
    figure, axes = _ct_row(slices, len(slices), _window(window))
    colours = ListedColormap(list(ORGAN_COLOURS))
    for axis, (title, groups) in zip(axes, maps.items(), strict=True):
        height, width = slices[title].shape
        there = np.ma.masked_equal(groups, 0)
        _lay_over(axis, there, (height, width), smooth=False, cmap=colours, vmin=1, vmax=10, alpha=opacity)
        side = np.array([height, width]) / groups.shape
        for group in (g for g in range(1, len(GROUPS) + 1) if (groups == g).sum() >= 3):
            y, x = (_middle(groups == group) + 0.5) * side - 0.5
            _write(axis, x, y, GROUPS[group - 1])
    return figure


@_styled()
def accuracy(
    lines: Mapping[str, Mapping[int, ProbeResult]],
    controls: Mapping[str, ProbeResult] | None = None,
    *,
    x: str = "block",
) -> Figure:
    """What probes read from each block: balanced accuracy with its 95 % interval over units.

    Args:
        lines: name to block number to result, one to three; the interval is a band.
        controls: name to result of what has no blocks: dots with intervals beside the curve, and horizontal
            lines through it. Lines and controls together are up to six.
        x: label of the axis.

    Raises:
        ValueError: on 0 or more than 3 lines, a line without blocks, or more names than colours.
    """
    controls = controls or {}
    if not 1 <= len(lines) <= 3 or not all(lines.values()):
        raise ValueError(f"1 to 3 lines with one block or more are needed, got {list(lines)}")
    if len(lines) + len(controls) > len(TISSUE_COLOURS):
        raise ValueError(f"at most {len(TISSUE_COLOURS)} names can be told apart, got {[*lines, *controls]}")
    figure = Figure(figsize=(WIDTH_IN, 4.2), layout="constrained")
    beside = [5 - 0.35 * len(controls), 0.35 * len(controls)] if controls else [1]
    axis, *others = figure.subplots(1, len(beside), sharey=True, squeeze=False, width_ratios=beside)[0]
    for (name, results), colour, dash in zip(lines.items(), COLOURS, ("-", "--", "-."), strict=False):
        blocks = sorted(results)
        low, high = zip(*(results[block].interval() for block in blocks), strict=True)
        values = [results[block].balanced_accuracy for block in blocks]
        axis.fill_between(blocks, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.plot(blocks, values, dash, color=colour, marker="o", markersize=4, label=name)
    axis.set(xlabel=x, ylabel="balanced accuracy, 95 % interval", ylim=(0, 1))
    axis.set_xticks(sorted({block for results in lines.values() for block in results}))
    axis.grid(alpha=0.3, axis="y")
    axis.legend(frameon=False, loc="lower left")
    for other in others:
        _draw_controls(axis, other, controls)
    return figure


@_styled()
def confusion(panels: Mapping[str, ProbeResult]) -> Figure:
    """Which organ a probe takes for which: of each true group's tokens, the share predicted as each group.

    Args:
        panels: title to result, one or two. Groups that no panel holds are left out.

    Raises:
        ValueError: on 0 or more than 2 panels.
    """
    from alden_lite.organs import GROUPS

    if not 1 <= len(panels) <= 2:
        raise ValueError(f"a row takes 1 or 2 confusion tables, got {len(panels)}")
    tables = {title: result.confusion() for title, result in panels.items()}
    there = np.flatnonzero(sum(table.sum(0) + table.sum(1) for table in tables.values()))
    names = [GROUPS[number] for number in there]
    figure, axes = _grid(1, len(tables), height_in=5.6 if len(tables) == 1 else 4.6)
    for axis, (title, table) in zip(axes[0], tables.items(), strict=True):
        counts = table[np.ix_(there, there)]
        share = counts / np.where(counts.sum(1) == 0, np.nan, counts.sum(1))[:, None]  # (true, predicted)
        picture = axis.imshow(share, cmap="viridis", vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(share):
            if value >= 0.005:
                grey = "black" if value > 0.6 else "white"
                axis.text(column, row, f"{100 * value:.0f}", color=grey, ha="center", va="center", fontsize=8)
        rows = [f"{name} ({count})" for name, count in zip(names, counts.sum(1), strict=True)]
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axis.set_yticks(range(len(names)), rows)
        axis.set(title=title, xlabel="predicted", ylabel="true (tokens)" if axis is axes[0, 0] else "")
    figure.colorbar(picture, ax=list(axes[0]), label="share of the true group's tokens", shrink=0.8)
    return figure


@_styled()
def overlays(
    panels: Mapping[str, tuple[Slice, Map | None]],
    *,
    label: str,
    window: str | Window = "abdomen",
    limits: tuple[float, float] | None = None,
    cmap: str | None = None,
    opacity: float = 0.6,
    fade: bool = False,
    smooth: bool = False,
    ring: tuple[int, int] | Mapping[str, tuple[int, int]] | None = None,
    zoom: Zoom | None = None,
    columns: int = 3,
) -> Figure:
    """Slices in grey with a map over each in colour: one window, one scale of colours, rows of panels.

    Args:
        panels: title to (slice (Y, X) in HU, map (h, w) that covers the whole slice, or None for the slice
            alone), 1 to 12, slices of one shape, at least one map.
        label: what the colours mean, with the unit, beside their bar.
        window: a name in `hounsfield.WINDOWS`, or a Window.
        limits: values of the first and the last colour; beyond them colours stay. When None, the smallest and
            the largest value of all maps, or symmetric about 0 if a value is negative.
        cmap: viridis when None, or orange to violet (its middle is 0) if the first limit is negative.
        opacity: of the colours, above 0, to 1.
        fade: colours of values near 0 let the slice through; the bar shows how much.
        smooth: blend a map's values into one another instead of showing its squares.
        ring: (row, column) of the maps, circled on every panel, or by title on some.
        zoom: the part of the slice to show, in its pixels.
        columns: panels in a row, 1 to 4.

    Raises:
        ValueError: as for `ct_panels`; on no map, a map of other dimensions or with NaN, an empty label,
            limits that do not ascend, or are not symmetric about 0 for orange to violet, an opacity outside
            (0, 1], a number of columns that does not fit, or a ring outside its map or on a panel that is not
            there.
    """
    shown = _window(window)
    slices = _checked({title: hu for title, (hu, _) in panels.items()}, most=12)
    maps = {title: _checked_map(title, values) for title, (_, values) in panels.items() if values is not None}
    if not maps or not label.strip() or not 1 <= columns <= 4 or not 0 < opacity <= 1:
        raise ValueError(
            "overlays take a map at least, a label for the colours, 1 to 4 columns and an opacity above 0 to "
            f"1: got {len(maps)} maps, {label!r}, {columns}, {opacity}"
        )
    rings = _rings(ring, slices, maps)
    low, high = _map_limits(maps, limits)
    if cmap is None and low < 0 and high != -low:
        raise ValueError(f"limits of orange to violet are symmetric about 0, or choose a cmap: got {limits}")
    colours = _see_through(cmap or (DIVERGING if low < 0 else "viridis"), low, high, opacity, fade=fade)
    part = next(iter(_zoomed(slices, zoom).values())).shape
    columns = min(columns, len(slices))
    rows = -(-len(slices) // columns)
    wide = min((WIDTH_IN - 1.6) / columns, 5.0)  # the bar takes the rest
    figure, axes = _grid(rows, columns, height_in=rows * (wide * part[0] / part[1] + 0.3) + 0.5)
    for axis in axes.flat[len(slices) :]:
        axis.set_axis_off()
    for axis, (title, hu) in zip(axes.flat, slices.items(), strict=False):
        _show_ct(axis, hu, title, shown)
        if title in maps:
            _lay_over(axis, maps[title], hu.shape, smooth=smooth, cmap=colours, vmin=low, vmax=high)
            picture = axis.images[1]
        if title in rings:
            _draw_ring(axis, *rings[title])
        if zoom:
            axis.set(xlim=(zoom[2] - 0.5, zoom[3] - 0.5), ylim=(zoom[1] - 0.5, zoom[0] - 0.5))
    bar = figure.colorbar(picture, ax=list(axes.flat), label=label, shrink=0.9, aspect=30)
    bar.ax.set_facecolor("0.4")  # a grey of the slice, where colours let it through
    _name_window(figure, shown)
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


def _draw_controls(axis: Axes, beside: Axes, controls: Mapping[str, ProbeResult]) -> None:
    """Dots with intervals on the axes beside, and a dotted line at the height of each through the curve."""
    for place, (name, result) in enumerate(controls.items()):
        colour = TISSUE_COLOURS[-1 - place]  # lines begin at the other end
        value, (low, high) = result.balanced_accuracy, result.interval()
        axis.axhline(value, color=colour, linestyle=":", linewidth=1.2)
        beside.plot([place, place], [low, high], color=colour)
        beside.plot([place], [value], color=colour, marker="s", markersize=5, label=name)
    beside.set_xticks(range(len(controls)), list(controls), rotation=45, ha="right")
    beside.set_xlim(-0.6, len(controls) - 0.4)
    beside.grid(alpha=0.3, axis="y")


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
    _name_window(figure, window)
    return figure, axes


def _name_window(figure: Figure, window: Window) -> None:
    words = f"window {window}: black from {window.low:g} HU down, white from {window.high:g} HU up"
    figure.supxlabel(words, fontsize="medium")


def _show_ct(axis: Axes, hu: np.ndarray, title: str, window: Window) -> None:
    _show(axis, hu, title, vmin=window.low, vmax=window.high, cmap="gray")


def _show(axis: Axes, picture: np.ndarray, title: str, **how: Any) -> None:
    enlarged = max(picture.shape[:2]) <= 256  # then show the pixels as they are
    axis.imshow(picture, interpolation="nearest" if enlarged else "antialiased", **how)
    axis.set(title=title, xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _checked_map(title: str, values: Map) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"the map of {title!r} is not (h, w) of finite values: got {array.shape}")
    return array


def _map_limits(maps: Mapping[str, np.ndarray], limits: tuple[float, float] | None) -> tuple[float, float]:
    if limits is None:
        low = min(float(values.min()) for values in maps.values())
        high = max(float(values.max()) for values in maps.values())
        if low < 0:
            low, high = -max(-low, high), max(-low, high)
        return low, (high if high > low else low + 1)
    if not limits[0] < limits[1]:
        raise ValueError(f"the limits of the colours must ascend, got {limits}")
    return limits


def _see_through(cmap: str, low: float, high: float, opacity: float, *, fade: bool) -> Colormap:
    """A colour map whose colours let the slice through, fading towards 0, so that its bar shows it too."""
    colours = colormaps[cmap](np.linspace(0, 1, 256))
    strength = np.sqrt(np.abs(np.linspace(low, high, 256)))  # the root lets weak ones be seen, too
    colours[:, 3] = opacity * (strength / strength.max() if fade else 1)
    return ListedColormap(colours)


def _lay_over(axis: Axes, values: np.ndarray, shape: tuple[int, ...], *, smooth: bool, **how: Any) -> None:
    squares = "nearest" if max(values.shape) <= 256 else "antialiased"
    extent = (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5)
    axis.imshow(values, extent=extent, interpolation="bilinear" if smooth else squares, **how)


def _rings(
    ring: tuple[int, int] | Mapping[str, tuple[int, int]] | None,
    slices: Mapping[str, np.ndarray],
    maps: Mapping[str, np.ndarray],
) -> dict[str, tuple[float, float]]:
    """Title to the middle of its ring, (x, y) in pixels of the slice."""
    places = ring if isinstance(ring, Mapping) else {title: ring for title in slices if ring is not None}
    if unknown := set(places) - set(slices):
        raise ValueError(f"rings for panels that are not there: {sorted(unknown)}")
    middles = {}
    for title, (row, column) in places.items():
        height, width = slices[title].shape
        rows, columns = maps.get(title, next(iter(maps.values()))).shape
        if not (0 <= row < rows and 0 <= column < columns):
            raise ValueError(f"ring (row, column) = ({row}, {column}) is outside a map of {rows} x {columns}")
        middles[title] = ((column + 0.5) * width / columns - 0.5, (row + 0.5) * height / rows - 0.5)
    return middles


def _middle(mask: np.ndarray) -> np.ndarray:
    """(row, column) of the place deepest inside the mask's largest part."""
    parts, _ = ndimage.label(mask)
    largest = parts == np.bincount(parts[mask]).argmax()
    depth = ndimage.distance_transform_edt(np.pad(largest, 1))[1:-1, 1:-1]
    return np.array(np.unravel_index(depth.argmax(), depth.shape))


def _write(axis: Axes, x: float, y: float, name: str) -> None:
    edge = [patheffects.withStroke(linewidth=2.0, foreground="black")]  # read on every background
    axis.text(x, y, name, color="white", fontsize=8, ha="center", va="center", path_effects=edge)


def _draw_ring(axis: Axes, x: float, y: float) -> None:
    for colour, line in (("black", 4.0), ("white", 2.0)):  # seen on every background
        axis.plot(
            x, y, "o", markersize=13, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=line
        )


def _draw_scale_bar(axis: Axes, spacing_mm: float) -> None:
    height, width = axis.images[0].get_size()
    length = next((mm for mm in (100, 50, 20, 10, 5) if mm / spacing_mm < width / 3), 1)
    x, y = width * 0.05, height * 0.95
    axis.plot([x, x + length / spacing_mm], [y, y], color="white", linewidth=3, solid_capstyle="butt")
    axis.text(x, y - height * 0.02, f"{length} mm", color="white", va="bottom")


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
