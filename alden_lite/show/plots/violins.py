"""How values are spread in groups, two kinds side by side. Chapter 06."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure

from alden_lite.show.plots.frame import COLOURS, axes_grid, styled

__all__ = ["violins"]

Values = np.ndarray | torch.Tensor


@styled()
def violins(groups: Mapping[str, Mapping[str, Values]], *, y: str) -> Figure:
    """Half violins by group: the first kind on the left, the second on the right, a bar at each median.

    Args:
        groups: group to its one or two kinds, each a name with values of any shape, two or more. All groups
            have the same kinds, in the same order.
        y: label of the upright axis, with its unit; it ends at the outermost percentiles 0.5 and 99.5.

    Raises:
        ValueError: on no groups, kinds that differ or are more than two, fewer than two values, or NaN.
    """
    kinds = list(next(iter(groups.values()), {}))
    if not 1 <= len(kinds) <= 2 or any(list(one) != kinds for one in groups.values()):
        raise ValueError(
            f"every group has the same one or two kinds, got {[list(g) for g in groups.values()]}"
        )
    values = {
        kind: [np.asarray(one[kind], dtype=np.float64).ravel() for one in groups.values()] for kind in kinds
    }
    every = [array for arrays in values.values() for array in arrays]
    if any(array.size < 2 or not np.isfinite(array).all() for array in every):
        raise ValueError("a violin takes two finite values or more")
    figure, axes = axes_grid(1, 1, height_in=4.0)
    axis = axes[0, 0]
    for (kind, arrays), side, colour in zip(values.items(), ("low", "high"), COLOURS, strict=False):
        drawn = axis.violinplot(arrays, widths=0.85, showextrema=False, showmedians=True, side=side)
        for body in drawn["bodies"]:
            body.set(facecolor=colour, edgecolor=colour, alpha=0.45, label=kind)
        drawn["cmedians"].set(color=colour, linewidth=2.5)
    ends = [np.percentile(array, [0.5, 99.5]) for array in every]
    axis.set(ylabel=y, ylim=(min(low for low, _ in ends), max(high for _, high in ends)))
    counts = [f"{name}\n({array.size})" for name, array in zip(groups, values[kinds[0]], strict=True)]
    axis.set_xticks(range(1, len(groups) + 1), counts)
    axis.axhline(0, color="0.4", linewidth=0.8)
    axis.grid(alpha=0.3, axis="y")
    handles, names = axis.get_legend_handles_labels()
    first = dict(zip(reversed(names), reversed(handles), strict=True))
    axis.legend([first[kind] for kind in kinds], kinds, frameon=False, ncols=2, loc="upper right")
    return figure
