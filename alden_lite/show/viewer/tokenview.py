"""TokenView: click a place of a CT, and see what else looks like it to a vision model. Used in chapter 05.

A vision transformer has one vector of features for each patch of the picture, a token. The cosine between
the chosen token's vector and every other one is laid over the pictures in colour. As in `CTView`, the browser
gets everything once and computes by itself, with a kernel (Jupyter) or without (`to_html`).

Features travel as int8, so all sums are of whole numbers, and a cosine needs one root and one division: the
browser's numbers are Python's, to the last bit. `quantised`, `cosines` and `similarity_colours` specify them.
Not for clinical use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets

from alden_lite.physics.hounsfield import grey_levels
from alden_lite.show.viewer.ctview import (
    HEARD,
    MODULE,
    CTView,
    Part,
    TooLargeError,
    downsampled,
    pixels_of,
    png_of,
    strip_factor,
    window_strip_of,
)

if TYPE_CHECKING:
    import torch

__all__ = ["TokenView", "cosines", "quantised", "similarity_colours"]

SCRIPT = Path(__file__).with_name("tokenview.js")


# What the browser computes and shows ------------------------------------------------------------------------


def quantised(maps: np.ndarray | torch.Tensor) -> np.ndarray:
    """Features as whole numbers: in every token, the channel of largest size becomes 127 or -127.

    A cosine does not ask how long its vectors are, so each token may have a scale of its own. What rounding
    costs depends on how even the channels are: with DINOv2 ViT-S/14 (384 channels), on slices of the sample
    volume at full and a tenth of the dose, no cosine of blocks 4, 9 and 12 moves by more than 0.007. It is
    more if one channel outweighs all others.

    Args:
        maps: (..., C, h, w), finite.

    Returns:
        (..., h, w, C) int8: channels last, so that a token is one piece of memory.
    """
    tokens = np.moveaxis(pixels_of(maps), -3, -1).astype(np.float64)
    largest = np.abs(tokens).max(-1, keepdims=True)
    return np.rint(127 * (tokens / np.where(largest > 0, largest, 1))).astype(np.int8)


def cosines(tokens: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Cosine similarity of quantised tokens to one of them.

    Args:
        tokens: (..., C) int8.
        query: (C,) int8.

    Returns:
        (...) float64 in [-1, 1]; 0 where a token or the query is zero in all channels.
    """
    vectors, chosen = tokens.astype(np.float64), query.astype(np.float64)  # exact: sums stay below 2^53
    squares = (vectors * vectors).sum(-1) * (chosen @ chosen)
    return (vectors @ chosen) / np.sqrt(np.where(squares > 0, squares, 1))


def similarity_colours(similarity: np.ndarray, threshold: float) -> np.ndarray:
    """Colours of similarities: matplotlib's viridis from `threshold` (dark violet) to 1 (yellow).

    Args:
        similarity: any shape, cosines.
        threshold: below 1; what is less similar is left transparent.

    Returns:
        Same shape + (4,), uint8: red, green, blue and alpha, which is 255 or 0. The nearest of 256 colours,
        halves up.

    Raises:
        ValueError: if the threshold is not below 1.
    """
    if not threshold < 1:
        raise ValueError(f"threshold must be below 1, got {threshold}")
    values = np.asarray(similarity, dtype=np.float64)
    step = np.floor(255 * np.clip((values - threshold) / (1 - threshold), 0, 1) + 0.5).astype(np.intp)
    table = np.array([[*colour, 255] for colour in _viridis()], dtype=np.uint8)
    return np.where((values >= threshold)[..., None], table[step], np.uint8(0))


def _viridis() -> list[list[int]]:
    import matplotlib

    return matplotlib.colormaps["viridis"](np.arange(256), bytes=True)[:, :3].tolist()


# The widget -----------------------------------------------------------------------------------------------


class TokenView(CTView):
    """CTView with tokens: click one, and all tokens of all panels are coloured by their similarity to it.

    To the traits of `CTView`, it adds

    - `token`: None or `{"panel", "row", "column"}`, rows and columns counted from 0, and for stacks of slices
      also `"slice"`. In Python, a panel may be given by its number instead of its title;
    - `layer`: the name of the features that are compared;
    - `threshold`: similarity from which on a token is coloured, -1 to 0.99;
    - `overlay_opacity` of the colours, 0 to 1. (`opacity` is that of organ labels, if there are any.)

    `similarities` gives the numbers.

    >>> hu = np.random.default_rng(0).normal(40, 20, (28, 42))
    >>> features = np.random.default_rng(1).normal(size=(8, 2, 3))  # 8 channels, patches of 14 x 14 pixels
    >>> view = TokenView(hu, features=features, token={"panel": 0, "row": 1, "column": 2})
    >>> float(view.similarities()["CT"][1, 2])
    1.0
    """

    _esm = f"{MODULE.read_text(encoding='utf-8')}\n{SCRIPT.read_text(encoding='utf-8')}"
    _features = traitlets.Bytes().tag(sync=True)
    _tokens = traitlets.Dict().tag(sync=True)
    token = traitlets.Dict(allow_none=True, default_value=None).tag(**HEARD)
    layer = traitlets.Unicode().tag(**HEARD)
    threshold = traitlets.CFloat(0.5).tag(**HEARD)
    overlay_opacity = traitlets.CFloat(0.6).tag(**HEARD)

    def __init__(
        self,
        hu: Any,
        *,
        features: Any,
        patch_size: int | None = None,
        token: Mapping[str, Any] | None = None,
        layer: str | None = None,
        **options: Any,
    ) -> None:
        """Show `hu` and the features of its patches.

        Args:
            hu: one to four slices or stacks of slices, as for `CTView`. With a difference, its panel shows
                no similarity.
            features: (C, h, w) of a slice or (Z, C, h, w) of a stack, numpy or torch; a dict from the panels'
                titles to these; or, for several layers, a dict from their names to one of these forms.
                Every token is a square of pixels, and all together cover the picture.
            patch_size: side of a token in pixels; H / h when None.
            token: chosen at first; see above.
            layer: the name of the layer shown at first; the first one when None.
            options: of `CTView`, and `threshold` and `overlay_opacity`.

        Raises:
            ValueError: as `CTView`; on features that are not finite, are missing for a panel, differ in
                their grids (or, within a layer, channels), or do not cover the picture; on an unknown layer,
                or a token outside the grid.
            TypeError: on an option that there is not.
        """
        self._given = features, patch_size, token, layer  # for `_more_traits`, which CTView's __init__ asks
        super().__init__(hu, **options)
        del self._given

    def _more_traits(self) -> dict[str, Any]:
        features, patch_size, token, layer = self._given
        shape = self._volumes.shape[1:]
        by_layer = _by_layer(features, self._titles)
        self._maps = {name: _layer_maps(name, maps, shape[0]) for name, maps in by_layer.items()}
        grids = {name: maps.shape[2:4] for name, maps in self._maps.items()}
        if len(set(grids.values())) != 1:
            raise ValueError(f"all layers need one grid of tokens, got {grids}: resample first")
        self._grid = next(iter(grids.values()))
        self._patch = _side_of_tokens(shape[1:], self._grid, patch_size)
        names = list(self._maps)
        return {
            "_features": self._bytes(names).tobytes(),
            "_tokens": self._facts_of(names, 1),
            "token": None if token is None else dict(token),
            "layer": names[0] if layer is None else layer,
        }

    def similarities(self) -> dict[str, np.ndarray]:
        """Cosine similarity of all tokens of the slice shown to the chosen one: (h, w) float64, by panel.

        Empty without a token. These are the browser's numbers: of quantised features.
        """
        return self._similarities(self.slice)

    def _similarities(self, z: int) -> dict[str, np.ndarray]:
        if self.token is None:
            return {}
        maps = self._maps[self.layer]
        panel, home = self._titles.index(self.token["panel"]), self.token.get("slice", 0)
        query = maps[panel, home, self.token["row"], self.token["column"]]
        return {title: cosines(maps[number, z], query) for number, title in enumerate(self._titles)}

    def to_html(
        self,
        *,
        layers: Sequence[str] | None = None,
        max_bytes: int = 4_000_000,
        downsample: int = 1,
        slices: tuple[int, int] | None = None,
        height_px: int = 800,
    ) -> str:
        """The viewer for a page without kernel and network, as `CTView.to_html`.

        Features of 36 x 36 tokens with 384 channels take about 0.6 MB a panel and layer. Of all panels of a
        layer together, `explain.compact` makes 96 channels; this moves cosines of DINOv2's block 9 by 0.01
        (root mean square; at most 0.1), more in block 4 and less in block 12.

        If a token is chosen, the picture seen where no script runs has its similarities as a further column.
        A token of a slice that the page leaves out is not chosen there.

        Args:
            layers: names of those that the page holds; all when None.
            max_bytes, downsample, slices, height_px: as for `CTView`; tokens keep their size in mm.

        Raises:
            TooLargeError, ValueError: as `CTView.to_html`; ValueError also on an unknown layer.
        """
        names = list(self._maps) if layers is None else list(layers)
        if unknown := [name for name in names if name not in self._maps]:
            raise ValueError(f"no layer is called {unknown[0]!r}; there are {', '.join(self._maps)}")
        if not names:
            raise ValueError(f"a page needs at least one layer of {', '.join(self._maps)}")
        part = self._part(slices, downsample)
        state, contents = self._static_state(part)
        state |= self._static_tokens(part, names)
        if len(names) < len(self._maps):
            kept = f"{', '.join(names)} of {len(self._maps)} layers"
            note = state["_facts"]["note"]
            state["_facts"]["note"] = f"{note}, {kept}" if note else f"On this page: {kept}"
        contents["_features"] = self._bytes(names, part.first, part.last)
        return self._page(state, contents, self._strip(part), part.shown, max_bytes, height_px)

    def _static_tokens(self, part: Part, names: Sequence[str]) -> dict[str, Any]:
        token: dict[str, Any] | None = self.token
        if token is not None and "slice" in token:
            inside = part.first <= token["slice"] < part.last
            token = token | {"slice": token["slice"] - part.first} if inside else None
        return {
            "token": token,
            "layer": self.layer if self.layer in names else names[0],
            "threshold": self.threshold,
            "overlay_opacity": self.overlay_opacity,
            "_tokens": self._facts_of(names, part.downsample),
        }

    def _static_form(self, **options: Any) -> str:
        """All layers if they fit, else the current one."""
        try:
            return self.to_html(**options)
        except TooLargeError:
            return super()._static_form(**options | {"layers": [self.layer]})

    def _bytes(self, names: Sequence[str], first: int = 0, last: int | None = None) -> np.ndarray:
        """Layers one after the other, each (P, Z, h, w, C)."""
        return np.concatenate([self._maps[name][:, first:last].ravel() for name in names])

    def _facts_of(self, names: Sequence[str], downsample: int) -> dict[str, Any]:
        """What the browser has to know of the features, besides themselves."""
        return {
            "layers": [[name, self._maps[name].shape[-1]] for name in names],
            "grid": list(self._grid),
            "side": self._patch / downsample,
            "colours": _viridis(),
        }

    # Without a script: a further column of the strip, and words.

    def _strip(self, part: Part) -> bytes:
        if self.token is None:
            return super()._strip(part)
        slices = downsampled(self._volumes[:, part.shown], part.downsample)
        windows = np.repeat(window_strip_of(slices)[..., None], 3, -1)
        return png_of(np.hstack([windows, self._similarity_column(slices, part)]))

    def _similarity_column(self, slices: np.ndarray, part: Part) -> np.ndarray:
        """(P * y, x, 3) uint8: as the browser shows it, but small; the chosen token is white."""
        factor, rows = strip_factor(slices), []
        for title, similarity in self._similarities(part.shown).items():
            hu = downsampled(slices[self._titles.index(title)], factor)
            grey = np.repeat(grey_levels(hu, self.level, self.width)[..., None], 3, -1)
            # The token that the middle of each pixel lies in.
            y, x = ((np.arange(n) + 0.5) * factor * part.downsample // self._patch for n in hu.shape)
            where = np.ix_(y.astype(int), x.astype(int))
            colours = similarity_colours(similarity, self.threshold)[where]
            opacity = self.overlay_opacity * (colours[..., 3:] > 0)
            picture = np.rint(grey * (1 - opacity) + colours[..., :3] * opacity).astype(np.uint8)
            if (self.token["panel"], self.token.get("slice", part.shown)) == (title, part.shown):
                own = (y[:, None] == self.token["row"]) & (x[None] == self.token["column"])
                picture[own] = 255
            rows.append(picture)
        return np.vstack(rows)

    def _alt(self, shown: int) -> str:
        words = super()._alt(shown)
        if self.token is None:
            return words
        place = ", ".join(
            f"{name} {self.token[name]}" for name in ("slice", "row", "column") if name in self.token
        )
        return (
            f"{words} Last column (L {self.level:g} W {self.width:g} HU): cosine similarity in {self.layer} "
            f"to the token at {place} of {self.token['panel']}, which is white; from {self.threshold:.2f}, "
            "dark violet, to 1, yellow."
        )

    # Traits.

    @traitlets.validate("token")
    def _known_token(self, proposal: Any) -> dict[str, Any] | None:
        value = proposal["value"]
        if value is None:
            return None
        needed, allowed = {"panel", "row", "column"}, {"panel", "slice", "row", "column"}
        if not needed <= set(value) <= allowed:
            raise ValueError(f"a token is None or has a panel, row and column (and slice), got {value}")
        title = value["panel"]
        if not isinstance(title, str):
            title = self._titles[_place("panel", title, len(self._titles))]
        if title not in self._titles:
            raise ValueError(f"no panel is called {title!r}; there are {', '.join(self._titles)}")
        z = _place("slice", value.get("slice", self.slice), self._volumes.shape[1])
        row, column = (
            _place(name, value[name], n) for name, n in zip(("row", "column"), self._grid, strict=True)
        )
        stack = {"slice": z} if self._volumes.shape[1] > 1 else {}
        return {"panel": title, **stack, "row": row, "column": column}

    @traitlets.validate("layer")
    def _known_layer(self, proposal: Any) -> str:
        if proposal["value"] not in self._maps:
            raise ValueError(f"no layer is called {proposal['value']!r}; there are {', '.join(self._maps)}")
        return proposal["value"]

    @traitlets.validate("threshold", "overlay_opacity")
    def _in_range(self, proposal: Any) -> float:
        name, value = proposal["trait"].name, proposal["value"]
        low, high = (-1, 0.99) if name == "threshold" else (0, 1)
        if not low <= value <= high:
            raise ValueError(f"{name} must lie in [{low}, {high}], got {value:g}")
        return value


# What comes in --------------------------------------------------------------------------------------------


def _by_layer(features: Any, titles: Sequence[str]) -> dict[str, list[Any]]:
    """Maps by layer, in the order of the panels. Features without a name of their layer are called so."""
    if not isinstance(features, Mapping):
        return {"features": _by_panel("features", features, titles)}
    if not features:
        raise ValueError("features hold no layer")
    nested = any(isinstance(maps, Mapping) for maps in features.values())
    if nested or (len(titles) == 1 and set(map(str, features)) != set(titles)):
        return {str(name): _by_panel(str(name), maps, titles) for name, maps in features.items()}
    return {"features": _by_panel("features", features, titles)}


def _by_panel(name: str, maps: Any, titles: Sequence[str]) -> list[Any]:
    if not isinstance(maps, Mapping):
        if len(titles) > 1:
            raise ValueError(
                f"{name!r} is one map for {len(titles)} panels: give a dict by {', '.join(titles)}"
            )
        return [maps]
    given = {str(title): one for title, one in maps.items()}
    if set(given) != set(titles):
        raise ValueError(f"{name!r} has maps for {', '.join(given)}, the panels are {', '.join(titles)}")
    return [given[title] for title in titles]


def _layer_maps(name: str, maps: Sequence[Any], depth: int) -> np.ndarray:
    """(P, Z, h, w, C) int8."""
    arrays = [pixels_of(one) for one in maps]
    for array in arrays:
        if array.ndim not in (3, 4) or 0 in array.shape or array.dtype.kind not in "iuf":
            found = f"{array.dtype} {array.shape}"
            raise ValueError(f"{name!r} holds {found}: a map is real numbers, (C, h, w) or (Z, C, h, w)")
        if not np.isfinite(array).all():
            raise ValueError(f"{name!r} holds NaN or infinite features: they must be finite everywhere")
    stacks = [array.reshape(-1, *array.shape[-3:]) for array in arrays]
    if wrong := [len(stack) for stack in stacks if len(stack) != depth]:
        raise ValueError(f"{name!r} has maps of {wrong[0]} slices, the CT has {depth}")
    if len(shapes := {stack.shape for stack in stacks}) != 1:
        raise ValueError(f"{name!r} needs maps of one size (Z, C, h, w) for all panels, got {sorted(shapes)}")
    return np.stack([quantised(stack) for stack in stacks])


def _place(name: str, value: Any, count: int) -> int:
    if not isinstance(value, int | np.integer) or not 0 <= value < count:
        raise ValueError(f"{name} of a token must be a whole number from 0 to {count - 1}, got {value!r}")
    return int(value)


def _side_of_tokens(shape: Sequence[int], grid: Sequence[int], patch_size: int | None) -> int:
    """Pixels a side, if the tokens are squares that cover the picture exactly."""
    side = shape[0] // grid[0] if patch_size is None else patch_size
    if [side * count for count in grid] != list(shape):
        given = "" if patch_size is None else f" of {patch_size} x {patch_size} pixels"
        raise ValueError(
            f"{grid[0]} x {grid[1]} square tokens{given} do not cover a slice of {shape[0]} x {shape[1]} "
            "pixels: show the same crop that the features were made of (pvm.crop_to_grid)"
        )
    return side
