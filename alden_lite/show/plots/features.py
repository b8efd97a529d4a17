"""What a vision model's features know: colours, organs, accuracies, maps over the CT. Chapters 04, 05."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from scipy import ndimage

from alden_lite.explain.colours import ForegroundColours
from alden_lite.physics.hounsfield import Window
from alden_lite.show.plots.frame import (
    COLOURS,
    DIVERGING,
    ORGAN_COLOURS,
    TISSUE_COLOURS,
    WIDTH_IN,
    Map,
    Slice,
    Zoom,
    axes_grid,
    checked,
    ct_row,
    name_window,
    show_ct,
    show_picture,
    styled,
    window_of,
    zoomed,
)

if TYPE_CHECKING:
    from alden_lite.explain.probes import ProbeResult

__all__ = ["accuracy", "confusion", "feature_colours", "organ_maps", "overlays"]


@styled()
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
        window: of those slices, a name in `physics.WINDOWS`, or a Window.

    Raises:
        ValueError: on no maps, maps of another shape or with NaN, a title too few or too many, another number
            of slices, a foreground of another shape, or an unknown window.
    """
    if not maps or len(maps) != len(titles) or len({len(tap) for tap in maps}) != 1:
        shapes = [tuple(tap.shape) for tap in maps]
        raise ValueError(f"every tap needs a title and the same batch: got {shapes} and {list(titles)}")
    pictures = [ForegroundColours.fit(tap, foreground)(tap, foreground).numpy() for tap in maps]
    shown, rows = window_of(window), len(pictures[0])
    beside = checked(slices, most=rows) if slices else {}
    if beside and len(beside) != rows:
        raise ValueError(f"{rows} rows of feature maps need as many slices, got {list(beside)}")
    first = 1 if beside else 0
    columns = first + len(maps)
    figure, axes = axes_grid(rows, columns, height_in=rows * min(WIDTH_IN / columns, 3.2) + 0.5)
    for axis, (name, hu) in zip(axes[:, 0], beside.items(), strict=False):
        show_ct(axis, hu, "", shown)
        axis.set_ylabel(name)
    for (row, column), axis in np.ndenumerate(axes[:, first:]):
        show_picture(axis, pictures[column][row], titles[column] if row == 0 else "")
    words = "one colour in one column: similar features"
    figure.supxlabel(f"{words}; CT in the window {shown}" if beside else words, fontsize="medium")
    return figure


@styled()
def organ_maps(
    panels: Mapping[str, tuple[Slice, np.ndarray]],
    *,
    window: str | Window = "abdomen",
    opacity: float = 0.55,
) -> Figure:
    """Slices with an organ group on each token, in colours and by name: labels, or what a probe says.

    Args:
        panels: title to (slice (Y, X) in HU, groups (h, w) over the whole slice, 0 to 10 as in
            `data.GROUPS`, 0 left without a colour, names from three tokens on), one to four, slices of one
            shape.
        window: a name in `physics.WINDOWS`, or a Window.
        opacity: of the colours, 0 to 1.

    Raises:
        ValueError: as for `ct_panels`, and for groups that are not (h, w) whole numbers from 0 to 10.
    """
    from alden_lite.data.organs import GROUPS

    maps = {title: np.asarray(groups) for title, (_, groups) in panels.items()}
    for title, groups in maps.items():
        if groups.ndim != 2 or not np.isin(groups, range(len(GROUPS) + 1)).all():
            raise ValueError(f"groups of {title!r} are whole numbers from 0 to {len(GROUPS)}, (h, w)")
    slices = checked({title: hu for title, (hu, _) in panels.items()}, most=4)
    figure, axes = ct_row(slices, len(slices), window_of(window))
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


@styled()
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


@styled()
def confusion(panels: Mapping[str, ProbeResult]) -> Figure:
    """Which organ a probe takes for which: of each true group's tokens, the share predicted as each group.

    Args:
        panels: title to result, one or two. Groups that no panel holds are left out.

    Raises:
        ValueError: on 0 or more than 2 panels.
    """
    from alden_lite.data.organs import GROUPS

    if not 1 <= len(panels) <= 2:
        raise ValueError(f"a row takes 1 or 2 confusion tables, got {len(panels)}")
    tables = {title: result.confusion() for title, result in panels.items()}
    there = np.flatnonzero(sum(table.sum(0) + table.sum(1) for table in tables.values()))
    names = [GROUPS[number] for number in there]
    figure, axes = axes_grid(1, len(tables), height_in=5.6 if len(tables) == 1 else 4.6)
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


@styled()
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
        window: a name in `physics.WINDOWS`, or a Window.
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
    shown = window_of(window)
    slices = checked({title: hu for title, (hu, _) in panels.items()}, most=12)
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
    part = next(iter(zoomed(slices, zoom).values())).shape
    columns = min(columns, len(slices))
    rows = -(-len(slices) // columns)
    wide = min((WIDTH_IN - 1.6) / columns, 5.0)  # the bar takes the rest
    figure, axes = axes_grid(rows, columns, height_in=rows * (wide * part[0] / part[1] + 0.3) + 0.5)
    for axis in axes.flat[len(slices) :]:
        axis.set_axis_off()
    for axis, (title, hu) in zip(axes.flat, slices.items(), strict=False):
        show_ct(axis, hu, title, shown)
        if title in maps:
            _lay_over(axis, maps[title], hu.shape, smooth=smooth, cmap=colours, vmin=low, vmax=high)
            picture = axis.images[1]
        if title in rings:
            _draw_ring(axis, *rings[title])
        if zoom:
            axis.set(xlim=(zoom[2] - 0.5, zoom[3] - 0.5), ylim=(zoom[1] - 0.5, zoom[0] - 0.5))
    bar = figure.colorbar(picture, ax=list(axes.flat), label=label, shrink=0.9, aspect=30)
    bar.ax.set_facecolor("0.4")  # a grey of the slice, where colours let it through
    name_window(figure, shown)
    return figure


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
