"""Which method comes first depends on the figure: a table, coloured by rank in each column. Chapter 09."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from alden_lite.show.plots.frame import axes_grid, styled

__all__ = ["ranks"]


@styled()
def ranks(table: Mapping[str, Mapping[str, float]], *, best: Mapping[str, float]) -> Figure:
    """Values as text on a colour that is their rank in the column: bright is first, dark is last.

    Args:
        table: row to its values by column; every row has the same columns.
        best: for each column the value that would be best: `math.inf` if more is better, `-math.inf` if less
            is, or a number that should be met. Equal distances share a rank.

    Raises:
        ValueError: on fewer than 2 rows, more than 12 rows or columns, columns that differ or lack a best,
            or NaN.
    """
    rows, columns = list(table), list(best)
    if not (2 <= len(rows) <= 12 and 1 <= len(columns) <= 12):
        raise ValueError(f"2 to 12 rows and 1 to 12 columns, got {len(rows)} and {len(columns)}")
    if odd := [name for name, values in table.items() if set(values) != set(columns)]:
        raise ValueError(f"every row needs a value for each column of `best`, not so {', '.join(odd)}")
    values = np.array([[table[row][column] for column in columns] for row in rows], dtype=float)
    if not np.isfinite(values).all():
        raise ValueError("the table holds NaN or infinity: there is no rank for it")
    places = np.stack([_places(own, best[name]) for own, name in zip(values.T, columns, strict=True)], axis=1)
    figure, axes = axes_grid(1, 1, height_in=1.3 + 0.33 * len(rows))
    axis = axes[0, 0]
    picture = axis.imshow(places, cmap="cividis_r", vmin=1, vmax=len(rows), aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        dark = places[row, column] > (1 + len(rows)) / 2
        axis.text(
            column,
            row,
            f"{value:.3g}",
            ha="center",
            va="center",
            color="white" if dark else "black",
            fontsize=9,
        )
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), rows)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    bar = figure.colorbar(picture, ax=axis, label="rank in the column", ticks=[1, len(rows)])
    bar.ax.invert_yaxis()
    return figure


def _places(values: np.ndarray, best: float) -> np.ndarray:
    """Rank of each value, 1 for the one nearest to the best; equal distances share one."""
    off = np.sign(-best) * values if math.isinf(best) else np.abs(values - best)
    slack = 1e-9 * np.abs(off).max()  # 1.4 and 0.6 are equally far from 1, in floats almost
    return 1 + (off[None, :] < off[:, None] - slack).sum(1)
