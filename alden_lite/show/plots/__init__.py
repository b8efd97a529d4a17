"""The course's figures: CT beside CT in one window, differences in HU, curves, spectra, sliders.

Plots take data and return a matplotlib figure; `alt` shows one in a notebook, with a text for those who
cannot see it. All CT panels of a figure share one window, which the figure names. Used in every chapter.
"""

from alden_lite.show.plots.ct import before_after, ct_panels, dose_slider, hu_histogram, window_strip
from alden_lite.show.plots.features import accuracy, confusion, feature_colours, organ_maps, overlays
from alden_lite.show.plots.forest import forest
from alden_lite.show.plots.lines import curves, losses, noise_power, sinograms, split_bar, tradeoff
from alden_lite.show.plots.points import token_plane
from alden_lite.show.plots.ranks import ranks
from alden_lite.show.plots.show import Live, alt
from alden_lite.show.plots.violins import violins

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
    "forest",
    "hu_histogram",
    "losses",
    "noise_power",
    "organ_maps",
    "overlays",
    "ranks",
    "sinograms",
    "split_bar",
    "tradeoff",
    "token_plane",
    "violins",
    "window_strip",
]
