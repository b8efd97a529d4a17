"""CT beside CT in one window, differences in HU, how HU are spread, a slider over doses."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alden_lite.physics.hounsfield import Window, grey_levels
from alden_lite.physics.hounsfield import window as cut_window
from alden_lite.show.plots.frame import (
    DIVERGING,
    TISSUE_COLOURS,
    WIDTH_IN,
    Slice,
    Zoom,
    axes_row,
    checked,
    ct_row,
    show_ct,
    show_picture,
    styled,
    window_of,
    zoomed,
)

if TYPE_CHECKING:
    from ipywidgets import VBox

__all__ = ["before_after", "ct_panels", "dose_slider", "hu_histogram", "window_strip"]


@styled()
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
        window: a name in `physics.WINDOWS`, or a Window.
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
    figure, axes = ct_row(zoomed(checked(panels, most=4), zoom), len(panels), window_of(window))
    for axis, title in zip(axes, panels, strict=True):
        axis.set_xlabel(captions.get(title, ""))
    if spacing_mm is not None:
        _draw_scale_bar(axes[0], spacing_mm)
    return figure


@styled()
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
    slices = zoomed(checked({"low dose": low, name: denoised, "normal dose": normal}, most=3), zoom)
    figure, axes = ct_row(slices, 4, window_of(window))
    limits = {"vmin": -difference_hu, "vmax": difference_hu}
    difference = slices[name] - slices["normal dose"]
    show_picture(axes[3], difference, f"{name} − normal dose", cmap=DIVERGING, **limits)
    below = axes[3].inset_axes((0, -0.09, 1, 0.05))
    bar = figure.colorbar(axes[3].images[0], cax=below, orientation="horizontal")
    bar.set_ticks(
        [-difference_hu, 0, difference_hu], labels=[f"−{difference_hu:g}", "0", f"{difference_hu:g} HU"]
    )
    return figure


@styled()
def window_strip(hu: Slice, windows: Sequence[str] = ("abdomen", "lung", "bone")) -> Figure:
    """One slice in up to four windows, side by side: what one shows, another hides.

    Args:
        hu: (Y, X) in HU.
        windows: names in `physics.WINDOWS`.

    Raises:
        ValueError: on 0 or more than 4 windows, an unknown one, another shape, or NaN.
    """
    chosen = {name: window_of(name) for name in windows}
    slices = checked(dict.fromkeys(chosen, hu), most=4)
    figure, axes = axes_row(slices, len(slices))
    for axis, (name, shown) in zip(axes, chosen.items(), strict=True):
        show_ct(axis, slices[name], f"{name} window", shown)
        axis.set_xlabel(str(shown))
    return figure


@styled()
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
        windows: names in `physics.WINDOWS`, each a strip from black to white below the histogram.
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
    shown = {f"{name} window": window_of(name) for name in windows}
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


def dose_slider(scans: Mapping[float, Slice], *, window: str | Window = "abdomen") -> VBox:
    """A slider over scans at several doses. All pictures are made first, so that a move only swaps them.

    Args:
        scans: dose, as a fraction, to slice (Y, X) in HU.
        window: a name in `physics.WINDOWS`, or a Window; the same for all.

    Returns:
        The slider, dose and window in words, and a picture, of `physics.grey_levels`.

    Raises:
        ValueError: on fewer than 2 or more than 12 scans, different shapes, NaN or an unknown window.
    """
    import ipywidgets as widgets

    shown = window_of(window)
    if len(scans) < 2:
        raise ValueError(f"a slider needs two doses or more, got {list(scans)}")
    slices = checked({f"{dose:g}": hu for dose, hu in scans.items()}, most=12)
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


def _draw_scale_bar(axis: Axes, spacing_mm: float) -> None:
    height, width = axis.images[0].get_size()
    length = next((mm for mm in (100, 50, 20, 10, 5) if mm / spacing_mm < width / 3), 1)
    x, y = width * 0.05, height * 0.95
    axis.plot([x, x + length / spacing_mm], [y, y], color="white", linewidth=3, solid_capstyle="butt")
    axis.text(x, y - height * 0.02, f"{length} mm", color="white", va="bottom")


def _windowed_png(hu: np.ndarray, window: Window) -> bytes:
    from PIL import Image

    png = io.BytesIO()
    Image.fromarray(grey_levels(hu, window.level, window.width)).save(png, format="png", compress_level=1)
    return png.getvalue()
