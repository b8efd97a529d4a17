"""What all figures share: one style, panels checked, axes in a grid, CT in a named window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alden_lite.physics.hounsfield import WINDOWS, Window

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
def styled() -> Iterator[None]:
    """The one style sheet, as a decorator; the learner's own matplotlib settings come back afterwards."""
    with style.context(["default", STYLE]):
        yield


def checked(panels: Mapping[str, Slice], *, most: int) -> dict[str, np.ndarray]:
    """Panels as float32 arrays, or a ValueError: 1 to `most` finite slices (Y, X) of one shape."""
    if not 1 <= len(panels) <= most:
        raise ValueError(f"a row takes 1 to {most} panels, got {len(panels)}")
    slices = {title: np.asarray(hu, dtype=np.float32) for title, hu in panels.items()}
    shapes = {title: hu.shape for title, hu in slices.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 2 for shape in shapes.values()):
        raise ValueError(f"panels are slices (Y, X) of one shape, got {shapes}")
    if broken := [title for title, hu in slices.items() if not np.isfinite(hu).all()]:
        raise ValueError(f"panels with NaN or infinite HU: {', '.join(broken)}")
    return slices


def zoomed(slices: dict[str, np.ndarray], zoom: Zoom | None) -> dict[str, np.ndarray]:
    """The part of each slice that `zoom` names; ValueError if it is not inside."""
    height, width = next(iter(slices.values())).shape
    y0, y1, x0, x1 = zoom or (0, height, 0, width)
    if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
        raise ValueError(f"zoom (y0, y1, x0, x1) = {zoom} is not inside a slice of {height} x {width}")
    return {title: hu[y0:y1, x0:x1] for title, hu in slices.items()}


def window_of(window: str | Window) -> Window:
    """A window by its name in `physics.WINDOWS`, or as it is."""
    if isinstance(window, str) and window not in WINDOWS:
        raise ValueError(f"no window named {window!r}; there are {', '.join(WINDOWS)}")
    return WINDOWS[window] if isinstance(window, str) else window


def axes_grid(rows: int, columns: int, *, height_in: float) -> tuple[Figure, np.ndarray]:
    """A figure of the common width with (rows, columns) axes."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def axes_row(slices: dict[str, np.ndarray], columns: int) -> tuple[Figure, list[Axes]]:
    """A row of axes as high as the slices need."""
    height, width = next(iter(slices.values())).shape
    figure, axes = axes_grid(1, columns, height_in=min(WIDTH_IN / columns, 5.0) * height / width + 0.9)
    return figure, list(axes[0])


def ct_row(slices: dict[str, np.ndarray], columns: int, window: Window) -> tuple[Figure, list[Axes]]:
    """The slices in one window, with room for more columns than there are slices."""
    figure, axes = axes_row(slices, columns)
    for axis, (title, hu) in zip(axes, slices.items(), strict=False):
        show_ct(axis, hu, title, window)
    name_window(figure, window)
    return figure, axes


def name_window(figure: Figure, window: Window) -> None:
    """The window in words, below the figure."""
    words = f"window {window}: black from {window.low:g} HU down, white from {window.high:g} HU up"
    figure.supxlabel(words, fontsize="medium")


def show_ct(axis: Axes, hu: np.ndarray, title: str, window: Window) -> None:
    """A slice in grey, black and white where the window ends."""
    show_picture(axis, hu, title, vmin=window.low, vmax=window.high, cmap="gray")


def show_picture(axis: Axes, picture: np.ndarray, title: str, **how: Any) -> None:
    """A picture without axes; small ones keep their pixels."""
    enlarged = max(picture.shape[:2]) <= 256  # then show the pixels as they are
    axis.imshow(picture, interpolation="nearest" if enlarged else "antialiased", **how)
    axis.set(title=title, xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
