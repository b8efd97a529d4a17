"""Curves, spectra, sinograms, and the split of a volume."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from alden_lite.physics.hounsfield import denormalise
from alden_lite.show.plots.frame import COLOURS, TISSUE_COLOURS, WIDTH_IN, Line, Slice, axes_grid, styled

if TYPE_CHECKING:
    from alden_lite.physics.noise import NoisePower

__all__ = ["curves", "losses", "noise_power", "sinograms", "split_bar", "tradeoff"]


SIGNS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")  # of points, told apart without colour


@styled()
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
    figure, axes = axes_grid(1, 1, height_in=1.5)
    axis = axes[0, 0]
    for (part, blocks), colour in zip(split.items(), COLOURS, strict=False):
        spans = [(first, last - first) for first, last in blocks]
        axis.broken_barh(spans, (0, 1), color=colour, label=part)
    axis.set(xlim=(0, n_slices), yticks=[], xlabel="slice, from the feet to the head")
    axis.legend(ncols=len(split), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return figure


@styled()
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
    figure, axes = axes_grid(1, len(names), height_in=2.4)
    for number, name in enumerate(names):
        in_hu = name == "pixel"
        values = [denormalise(line[name]) if in_hu else line[name] for line in log]
        colour, axis = COLOURS[number % len(COLOURS)], axes[0, number]
        axis.plot([line["step"] for line in log], values, color=colour, marker="o", markersize=3)
        axis.set(title=f"{name} (HU)" if in_hu else name, xlabel="step")
        axis.grid(alpha=0.3)
    return figure


@styled()
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
    figure, axes = axes_grid(1, len(panels), height_in=3.4)
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


@styled()
def tradeoff(
    panels: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    x: str,
    path: tuple[str, Mapping[str, Line]] | None = None,
) -> Figure:
    """Methods as points in a plane of two prices, in one panel or two: further left and down is better.

    Args:
        panels: label of the upright axis to the panel's points, each a method's name with `(x, y)`. A name
            keeps its sign and colour in both panels.
        x: label of the other axis, with its unit.
        path: a name, and for each panel a line `(x, y)` that leads from one method to another.

    Raises:
        ValueError: on 0 or more than 2 panels, 0 or more than 10 names, NaN, or a path without a panel.
    """
    names = list(dict.fromkeys(name for points in panels.values() for name in points))
    if not (1 <= len(panels) <= 2 and 1 <= len(names) <= len(SIGNS)):
        raise ValueError(f"1 or 2 panels with 1 to {len(SIGNS)} names, got {len(panels)} with {names}")
    path_name, lines = path or ("", {})
    if unknown := set(lines) - set(panels):
        raise ValueError(f"paths for panels that are not there: {sorted(unknown)}")
    figure, axes = axes_grid(1, len(panels), height_in=4.2)
    for axis, (label, points) in zip(axes[0], panels.items(), strict=True):
        if label in lines:
            axis.plot(*_line(path_name, lines[label], ""), "--", color="0.4", label=path_name)
        for name, point in points.items():
            at = _line(name, ([point[0]], [point[1]]), "")
            number = names.index(name)
            colour = TISSUE_COLOURS[number % len(TISSUE_COLOURS)]
            axis.plot(*at, SIGNS[number], color=colour, markersize=8, label=name)
        axis.set(xlabel=x, ylabel=label)
        axis.grid(alpha=0.3)
    shown = {
        text: line for axis in axes[0] for line, text in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4, frameon=False)
    return figure


@styled()
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
    figure, axes = axes_grid(1, len(arrays), height_in=3.6)
    limits = {"vmin": 0.0, "vmax": max(float(lines.max()) for lines in arrays.values())}
    for axis, (title, lines) in zip(axes[0], arrays.items(), strict=True):
        picture = axis.imshow(lines, aspect="auto", cmap="gray", interpolation="antialiased", **limits)
        axis.set(title=title, xlabel="channel", ylabel="view" if axis is axes[0, 0] else "")
    figure.colorbar(picture, ax=list(axes[0]), label="line integral (no unit)")
    return figure


@styled()
def noise_power(panels: Mapping[str, NoisePower]) -> Figure:
    """Noise power over both frequencies, each as a share of its largest value: brightness tells direction.

    Args:
        panels: title to a spectrum of `physics.noise_power_spectrum`, one to three.

    Raises:
        ValueError: on 0 or more than 3 panels.
    """
    if not 1 <= len(panels) <= 3:
        raise ValueError(f"a row takes 1 to 3 spectra, got {len(panels)}")
    figure, axes = axes_grid(1, len(panels), height_in=min(WIDTH_IN / len(panels), 3.6) + 0.5)
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
