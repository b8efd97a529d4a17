"""A forest plot: differences with their intervals, a row each, the same rows in every panel. Chapter 10."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from alden_lite.show.plots.frame import COLOURS, axes_grid, styled

__all__ = ["forest"]

Estimate = tuple[float, tuple[float, float]]  # a difference, and the ends of its interval


@styled()
def forest(
    panels: Mapping[str, Mapping[str, Estimate]],
    *,
    x: str,
    runs: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    goals: Mapping[str, float] | None = None,
    same_scale: bool = False,
) -> Figure:
    """Differences as discs with their intervals as bars: full where the interval leaves out 0, else hollow.

    Args:
        panels: title, with its unit, to the panel's rows, each a name with `(mean, (low, high))`. A row
            stands at the same height in all panels, the first on top, and may be missing in some.
        x: label below the figure.
        runs: for a panel and a row, values of single runs, drawn as small ticks below the disc.
        goals: for a panel, where its differences would best lie; a dotted line.
        same_scale: all panels show one quantity: give them one x axis.

    Raises:
        ValueError: on 0 or more than 4 panels, no rows, NaN, an interval whose ends are swapped, or runs and
            goals of panels or rows that are not there.
    """
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    if not (1 <= len(panels) <= 4 and names):
        raise ValueError(f"1 to 4 panels with rows, got {len(panels)} with {len(names)}")
    runs, goals = runs or {}, goals or {}
    for title in (*runs, *goals):
        if title not in panels:
            raise ValueError(f"runs or goals of a panel that is not there: {title!r}")
    figure, axes = axes_grid(1, len(panels), height_in=1.4 + 0.27 * len(names))
    for axis, (title, rows) in zip(axes[0], panels.items(), strict=True):
        axis.axvline(0, color="0.4", linewidth=0.8)
        if title in goals:
            axis.axvline(goals[title], color=COLOURS[2], linestyle=":", linewidth=1.6, label="normal dose")
        for name, estimate in rows.items():
            mean, low, high = _checked(name, estimate)
            clear = low > 0 or high < 0
            height, colour = names.index(name), COLOURS[0] if clear else "0.45"
            axis.plot([low, high], [height, height], color=colour, linewidth=2)
            axis.plot(mean, height, "o", color=colour, markerfacecolor=colour if clear else "white")
        for name, values in runs.get(title, {}).items():
            if name not in rows:
                raise ValueError(f"runs of a row that is not there: {name!r}")
            heights = [names.index(name) + 0.3] * len(values)
            axis.plot(list(values), heights, "|", color=COLOURS[1], markersize=5, label="single runs")
        first = axis is axes[0, 0]
        axis.set(title=title, ylim=(len(names) - 0.4, -0.6), yticks=range(len(names)))
        axis.set_yticklabels(names if first else [])
        axis.locator_params(axis="x", nbins=3)
        axis.grid(alpha=0.3)
    if same_scale:
        lows, highs = zip(*(axis.get_xlim() for axis in axes[0]), strict=True)
        for axis in axes[0]:
            axis.set_xlim(min(lows), max(highs))
    figure.supxlabel(x, fontsize="medium")
    _legend(figure)
    return figure


def _checked(name: str, estimate: Estimate) -> tuple[float, float, float]:
    mean, (low, high) = estimate
    if not all(math.isfinite(value) for value in (mean, low, high)):
        raise ValueError(f"row {name!r} holds NaN or infinite values")
    if low > high:
        raise ValueError(f"row {name!r}: the interval begins at {low:g} and ends at {high:g}")
    return mean, low, high


def _legend(figure: Figure) -> None:
    shown = {
        text: line
        for axis in figure.axes
        for line, text in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    if shown:
        figure.legend(shown.values(), shown.keys(), loc="outside upper right", ncols=2, frameon=False)
