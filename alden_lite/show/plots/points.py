"""Tokens as points of a plane, and arrows between them. Chapter 07."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alden_lite.show.plots.frame import TISSUE_COLOURS, WIDTH_IN, axes_grid, styled

__all__ = ["token_plane"]

Points = np.ndarray | torch.Tensor  # (N, 2)
_MARKERS = ("o", "s", "^", "D", "v", "P")


@styled()
def token_plane(
    panels: Mapping[str, Mapping[str, Points | tuple[Points, Points]]],
    *,
    x: str,
    y: str,
    faint: Collection[str] = (),
) -> Figure:
    """Points of a plane by name, and arrows from points to points, in panels side by side.

    Args:
        panels: title to the panel's content, one to four panels: name to points (N, 2), or to arrows, a pair
            of starts (N, 2) and ends (N, 2). A name keeps its colour and its marker in all panels.
        x, y: labels of the axes; one unit is as long across as it is up.
        faint: names drawn as small grey dots, behind: what the others are to be seen against.

    Raises:
        ValueError: on 0 or more than 4 panels, an empty one, more than six names that are not faint, a name
            in `faint` that is not there or has arrows, points that are not finite (N, 2) with N of 1 or more,
            or another number of starts than of ends.
    """
    names = list(dict.fromkeys(name for content in panels.values() for name in content))
    coloured = [name for name in names if name not in faint]
    if not 1 <= len(panels) <= 4 or not all(panels.values()):
        raise ValueError(f"a row takes 1 to 4 panels with points or arrows each, got {list(panels)}")
    if len(coloured) > len(TISSUE_COLOURS):
        raise ValueError(f"at most {len(TISSUE_COLOURS)} names can be told apart, got {coloured}")
    if unknown := set(faint) - set(names):
        raise ValueError(f"faint names that are not there: {sorted(unknown)}")
    looks = dict(zip(coloured, zip(TISSUE_COLOURS, _MARKERS, strict=True), strict=False))
    figure, axes = axes_grid(1, len(panels), height_in=min(WIDTH_IN / len(panels), 4.6) + 0.6)
    for axis, (title, content) in zip(axes[0], panels.items(), strict=True):
        for name in sorted(content, key=lambda name: name not in faint):  # the faint ones first: behind
            colour, marker = looks.get(name, ("0.7", "."))
            _draw(axis, name, content[name], colour, marker)
        axis.set(title=title, xlabel=x, ylabel=y if axis is axes[0, 0] else "")
        axis.set_aspect("equal", adjustable="datalim")
        axis.grid(alpha=0.3)
    handles = {
        label: handle
        for axis in axes[0]
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _draw(axis: Axes, name: str, content: Points | tuple[Points, Points], colour: str, marker: str) -> None:
    if not isinstance(content, tuple):
        points = _checked(name, content)
        axis.plot(*points.T, marker, color=colour, markersize=5, label=name, linestyle="")
        return
    if marker == ".":
        raise ValueError(f"{name!r} has arrows: only points can be faint")
    starts, ends = (_checked(name, points) for points in content)
    if len(starts) != len(ends):
        raise ValueError(f"arrows of {name!r} need as many starts as ends, got {len(starts)} and {len(ends)}")
    way = (ends - starts).T
    axis.quiver(*starts.T, *way, color=colour, angles="xy", scale_units="xy", scale=1, width=0.006)
    axis.plot(*ends.T, linestyle="")  # a quiver alone does not widen the axes to where its arrows end
    axis.plot([], [], color=colour, linewidth=2, label=name)


def _checked(name: str, points: Points) -> np.ndarray:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 2 or len(array) == 0 or not np.isfinite(array).all():
        raise ValueError(f"points of {name!r} are finite (N, 2), N of 1 or more: got {array.shape}")
    return array
