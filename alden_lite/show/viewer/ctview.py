"""CTView: one to four CT volumes side by side, with level and width on sliders. Used from chapter 01 on.

Pixels go to the browser once, as int16 HU; from then on ctview.js draws by itself. Level, width, slice and
region are traits: they can be read, set and linked to other widgets, and Python never draws a picture.
Without a kernel the same module runs in a page of its own (`CTView.to_html`). Not for clinical use.

`physics.grey_levels` and `difference_colours` are the specification: the browser shows exactly these.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anywidget
import numpy as np
import traitlets

from alden_lite.physics.hounsfield import WINDOWS, grey_levels

if TYPE_CHECKING:
    import torch

__all__ = ["STATIC_VARIABLE", "CTView", "TooLargeError", "difference_colours"]

STATIC_VARIABLE = "ALDEN_LITE_STATIC"
"""Environment variable: set to 1, notebooks show the form that needs no kernel, for published pages."""

MODULE = Path(__file__).with_name("ctview.js")
STRIP = ("abdomen", "lung", "bone", "full")
"""Windows of the picture that stands where no script runs."""

REMEDIES = {
    "_hu": "downsample={factor}",
    "_labels": "downsample={factor}",
    "_features": "fewer layers by layers=[...], fewer channels by explain.compact(maps, channels=96)",
}
"""What makes a static page smaller, by what it has no room for; `TokenView` adds features."""

PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'"><style>body {{ margin: 0 }}</style></head><body><main></main>
<script type="application/json">{state}</script><script type="module">{module}
showStatic(document.querySelector("main"), ...JSON.parse(document.querySelector("script").textContent));
</script></body></html>"""

# Both lie in one cell of a grid: the viewer covers the strip once it runs, and is transparent if it cannot.
FRAGMENT = """<div style="display: grid; min-height: {height}px">
<div style="grid-area: 1 / 1; font-size: small"><img src="data:image/png;base64,{strip}" alt="{alt}" \
width="{wide}" style="max-width: 100%; height: auto"><p>{caption}</p></div>
<iframe style="grid-area: 1 / 1; width: 100%; height: {height}px; border: 0" sandbox="allow-scripts" \
title="{title}" srcdoc="{page}"></iframe>
</div>
"""


class Part(NamedTuple):
    """What of a volume a static page holds: slices [first, last), the one shown, and the down-sampling."""

    first: int
    last: int
    shown: int
    downsample: int


class TooLargeError(ValueError):
    """A static page would exceed its budget; `share` of its pixels fitted."""

    def __init__(self, message: str, share: float) -> None:
        super().__init__(message)
        self.share = share


# What the browser shows -----------------------------------------------------------------------------------


def difference_colours(hu: np.ndarray, limit_hu: float) -> np.ndarray:
    """Colours of a difference: orange below 0, white at 0, violet above, full at `limit_hu` either way.

    Args:
        hu: any shape, a difference in HU.
        limit_hu: above 0; values beyond it have the last colour.

    Returns:
        Same shape + (3,), uint8: the nearest of 255 colours of matplotlib's PuOr, halves away from 0.

    Raises:
        ValueError: if the limit is not above 0.
    """
    if not limit_hu > 0:
        raise ValueError(f"a range of differences must be above 0 HU, got {limit_hu}")
    table = np.array(_diverging(), dtype=np.uint8)
    values = np.asarray(hu, dtype=np.float64)
    step = np.floor(127 * np.minimum(np.abs(values) / limit_hu, 1) + 0.5)
    return table[(127 + np.where(values < 0, -step, step)).astype(np.intp)]


def _diverging() -> list[list[int]]:
    """255 colours, an odd number: the middle one is that of 0."""
    import matplotlib

    return matplotlib.colormaps["PuOr"].resampled(255)(np.arange(255), bytes=True)[:, :3].tolist()


# The widget -----------------------------------------------------------------------------------------------


# The kernel does not echo what the browser tells it: an echo could undo what the hand has done since.
HEARD = {"sync": True, "echo_update": False}


class CTView(anywidget.AnyWidget):
    """One to four CT volumes or slices in lock-step, with level and width on sliders.

    In a notebook, show it by making it a cell's last line. Its traits follow what is done in the browser:

    - `level`, `width` (HU) and `slice` (index in z);
    - `roi`: None, `{"kind": "box", "x0", "y0", "x1", "y1"}` (pixels from x0 up to but not including x1), or
      `{"kind": "circle", "x", "y", "r"}`; pixel i reaches from i to i + 1. See `roi_statistics`;
    - `line`: None or `{"x0", "y0", "x1", "y1"}`, of the profile; `probe`: None or `{"x", "y"}`, a kept pixel;
    - `difference_hu`: the colours of a difference reach from minus to plus this;
    - `opacity` of the labels, 0 to 1, and `hidden_labels`, their ids.
    """

    _esm: Path | str = MODULE
    _hu = traitlets.Bytes().tag(sync=True)
    _labels = traitlets.Bytes().tag(sync=True)
    _facts = traitlets.Dict().tag(sync=True)
    level = traitlets.CFloat(40.0).tag(**HEARD)
    width = traitlets.CFloat(400.0).tag(**HEARD)
    slice = traitlets.CInt(0).tag(**HEARD)
    roi = traitlets.Dict(allow_none=True, default_value=None).tag(**HEARD)
    line = traitlets.Dict(allow_none=True, default_value=None).tag(**HEARD)
    probe = traitlets.Dict(allow_none=True, default_value=None).tag(**HEARD)
    difference_hu = traitlets.CFloat(100.0).tag(**HEARD)
    opacity = traitlets.CFloat(0.4).tag(**HEARD)
    hidden_labels = traitlets.List(traitlets.Int()).tag(**HEARD)

    def __init__(
        self,
        hu: Any,
        *,
        spacing_mm: float | Sequence[float] | None = None,
        labels: np.ndarray | torch.Tensor | None = None,
        label_names: Mapping[int, str] | Sequence[str] | None = None,
        difference: bool | tuple[str, str] = False,
        slice: int | None = None,
        **traits: Any,
    ) -> None:
        """Show `hu`, or several of them by title.

        Args:
            hu: (Y, X) or (Z, Y, X) in HU, numpy or torch; or an object with `hu` and `spacing_mm`, such as
                `data.Volume` or a DICOM series; or the path of a NIfTI file, a DICOM file or a folder of
                them; or a dict from titles to one to four of these, of one size. Rounded to whole HU.
            spacing_mm: side of a pixel, or (y, x), or (z, y, x); gives the scale bar and lengths. What comes
                with a volume is used when None.
            labels: (Y, X) or (Z, Y, X), ids 0 to 255 to lay over the picture in colours, 0 for nothing.
            label_names: names by id.
            difference: a further panel, one volume minus another: two titles, or True for the last two.
            slice: index in z of the first picture; the middle when None.
            traits: `level`, `width` (40 and 400 HU), `difference_hu` (100 HU), `opacity`, ...

        Raises:
            ValueError: on NaN or infinite values, HU that int16 cannot hold, other shapes, different sizes,
                0 or more than 4 panels, an unknown title, labels of another size, or a trait out of range.
            TypeError: on an option that there is not.
        """
        if unknown := set(traits) - set(self.class_traits()):
            raise TypeError(f"{type(self).__name__} has no option {', '.join(sorted(unknown))}")
        given = hu if isinstance(hu, Mapping) else {_title(hu): hu}
        sources = {str(title): _read(value) for title, value in given.items()}
        panels = {title: _whole_hu(title, pixels_of(source)) for title, source in sources.items()}
        self._check_panels(panels, difference)
        self._volumes = np.stack(list(panels.values()))  # (P, Z, Y, X)
        self._titles = list(panels)
        self._ids = None if labels is None else _label_ids(labels, self._volumes.shape[1:])
        depth = self._volumes.shape[1]
        pair = self._pair(difference)
        facts = {
            "name": f"CT: {', '.join(self._titles)}",
            "shape": list(self._volumes.shape[1:]),
            "titles": self._titles,
            "spacing_mm": _spacing(spacing_mm, sources),
            "presets": {name: [shown.level, shown.width] for name, shown in WINDOWS.items()},
            "difference": {"of": pair, "title": " − ".join(self._titles[n] for n in pair)} if pair else None,
            "colours": _diverging() if pair else [],
            "label_names": _names(label_names),
            "first_slice": 0,
            "fill": False,
            "note": "",
        }
        super().__init__(
            _hu=self._volumes.astype("<i2").tobytes(),
            _labels=b"" if self._ids is None else self._ids.tobytes(),
            _facts=facts,
            slice=depth // 2 if slice is None else slice,
            **self._more_traits(),
            **traits,
        )

    def _more_traits(self) -> dict[str, Any]:
        """Traits of a viewer built on this one that follow from its panels, which are known by now."""
        return {}

    def open(self) -> None:
        """Open the channel to the browser, except where no kernel will be there to use it."""
        if not _is_static():
            super().open()

    def roi_statistics(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation in HU of the region, by panel; empty without a region.

        A pixel counts if its centre lies inside. The deviation is that of these pixels, not an estimate.
        """
        if self.roi is None:
            return {}
        inside = _inside(self.roi, self._volumes.shape[2:])
        values = {title: hu[inside] for title, hu in self._slices(self.slice).items()}
        if not inside.any():
            return dict.fromkeys(values, (math.nan, math.nan))
        return {title: (float(hu.mean()), float(hu.std())) for title, hu in values.items()}

    def to_html(
        self,
        *,
        max_bytes: int = 4_000_000,
        downsample: int = 1,
        slices: tuple[int, int] | None = None,
        height_px: int = 720,
    ) -> str:
        """The viewer for a page without kernel and network: put it into any HTML page, or save it as one.

        An `<iframe>` that may run its own script and nothing else, over a picture of four windows, which is
        seen where scripts or frames are not allowed.

        Args:
            max_bytes: budget of the result.
            downsample: side of the squares of pixels averaged into one; labels take the first pixel.
            slices: [first, last) in z; all when None.
            height_px: of the frame.

        Raises:
            TooLargeError: if the budget does not suffice; it says what would.
            ValueError: on slices outside the volume, or a down-sampling that leaves nothing.
        """
        part = self._part(slices, downsample)
        state, contents = self._static_state(part)
        return self._page(state, contents, self._strip(part), part.shown, max_bytes, height_px)

    def _part(self, slices: tuple[int, int] | None, downsample: int) -> Part:
        _, depth, rows, columns = self._volumes.shape
        first, last = slices or (0, depth)
        if not 0 <= first < last <= depth:
            raise ValueError(f"slices ({first}, {last}) are not inside a volume of {depth}")
        if not 1 <= downsample <= min(rows, columns):
            raise ValueError(f"downsample must be 1 to {min(rows, columns)}, got {downsample}")
        return Part(first, last, min(max(self.slice, first), last - 1), downsample)

    def _page(
        self,
        state: dict[str, object],
        contents: Mapping[str, np.ndarray | None],
        strip: bytes,
        shown: int,
        max_bytes: int,
        height_px: int,
    ) -> str:
        """The fragment with `contents` packed into what the budget leaves for them."""
        empty = self._fragment(state, dict.fromkeys(contents, ""), strip, shown, height_px)
        room, used = max_bytes - len(empty), 0
        packed = dict.fromkeys(contents, "")
        for name, values in contents.items():
            if values is not None:
                packed[name] = _packed(values, room, max_bytes, used=used, remedy=REMEDIES[name])
                used += len(packed[name])
        return self._fragment(state, packed, strip, shown, height_px)

    def _strip(self, part: Part) -> bytes:
        """PNG of the current slice, a row for each panel."""
        return png_of(window_strip_of(downsampled(self._volumes[:, part.shown], part.downsample)))

    def _fragment(
        self, state: dict[str, object], packed: dict[str, str], strip: bytes, shown: int, height_px: int
    ) -> str:
        """HTML in ASCII, so that a host's encoding does not matter."""
        title, words = self._facts["name"], self._alt(shown)
        script = json.dumps([state, packed], allow_nan=False).replace("<", "\\u003c")
        page = PAGE.format(title=html.escape(title), state=script, module=self._esm)
        fragment = FRAGMENT.format(
            height=height_px,
            strip=base64.b64encode(strip).decode(),
            wide=int.from_bytes(strip[16:20]),  # of the PNG's header
            alt=html.escape(words),
            caption=html.escape(f"{words} Not for clinical use."),
            title=html.escape(title),
            page=html.escape(page),
        )
        return fragment.encode("ascii", "xmlcharrefreplace").decode()

    def _static_state(self, part: Part) -> tuple[dict[str, Any], dict[str, np.ndarray | None]]:
        """Traits, as the page without kernel begins with them, and what it holds packed."""
        volumes = downsampled(self._volumes[:, part.first : part.last], part.downsample)
        depth, step = self._volumes.shape[1], part.downsample
        ids = self._ids
        if ids is not None:  # the first pixel of each square
            rows, columns = (size * step for size in volumes.shape[2:])
            ids = np.ascontiguousarray(ids[part.first : part.last, :rows:step, :columns:step])
        facts = self._facts | {"shape": list(volumes.shape[1:]), "first_slice": part.first, "fill": True}
        if facts["spacing_mm"]:
            facts["spacing_mm"] = [side * step for side in facts["spacing_mm"]]
        notes = [f"{step} x {step} pixels averaged"] if step > 1 else []
        notes += [f"slices {part.first} to {part.last - 1} of 0 to {depth - 1}"] * (volumes.shape[1] < depth)
        facts["note"] = f"On this page: {', '.join(notes)}" if notes else ""
        values = ("level", "width", "difference_hu", "opacity", "hidden_labels")
        marks = {name: getattr(self, name) if step == 1 else None for name in ("roi", "line", "probe")}
        state = {name: getattr(self, name) for name in values}
        state |= marks | {"slice": part.shown - part.first, "_facts": facts}
        return state, {"_hu": volumes.astype("<i2"), "_labels": ids}

    def _repr_mimebundle_(self, **options: Any) -> Any:
        words = self._alt(self.slice)
        if _is_static():  # without the widget's own form, which nbconvert would prefer and cannot show
            return {"text/html": self._static_form(), "text/plain": words}, {}
        bundle: Any = super()._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return data | {"text/plain": words}, metadata

    def _static_form(self, **options: Any) -> str:
        """All slices if they fit, else as many around the current one as do; the page says which."""
        try:
            return self.to_html(**options)
        except TooLargeError as error:
            depth = self._volumes.shape[1]
            count = max(int(0.9 * error.share * depth), 1)
            first = min(max(self.slice - count // 2, 0), depth - count)
            return self.to_html(slices=(first, first + count), **options)

    def _alt(self, shown: int) -> str:
        place = f", slice {shown}" if self._volumes.shape[1] > 1 else ""
        windows = ", ".join(f"{name} ({WINDOWS[name]})" for name in STRIP)
        return f"CT in four windows, {windows}{place}. Rows: {', '.join(self._titles)}."

    def _slices(self, z: int) -> dict[str, np.ndarray]:
        """One slice (Y, X) of all panels by title, the difference included."""
        shown = {title: scan[z] for title, scan in zip(self._titles, self._volumes, strict=True)}
        if difference := self._facts["difference"]:
            a, b = (self._volumes[number, z].astype(np.int32) for number in difference["of"])
            shown[difference["title"]] = a - b
        return shown

    @staticmethod
    def _check_panels(panels: Mapping[str, np.ndarray], difference: bool | tuple[str, str]) -> None:
        count = len(panels) + bool(difference)
        if not 1 <= count <= 4 or not panels:
            extra = ", the difference included" if difference else ""
            raise ValueError(f"a viewer takes 1 to 4 panels, got {count}{extra}")
        shapes = {title: scan.shape for title, scan in panels.items()}
        if len(set(shapes.values())) != 1:
            raise ValueError(f"all panels need the same size (Z, Y, X), got {shapes}: crop or resample first")

    def _pair(self, difference: bool | tuple[str, str]) -> list[int]:
        """Numbers of the two panels whose difference is shown; empty without."""
        if difference is False:
            return []
        pair = tuple(self._titles[-2:]) if difference is True else tuple(difference)
        if len(pair) != 2:
            raise ValueError(f"a difference takes two panels, got {pair}")
        if unknown := [title for title in pair if title not in self._titles]:
            raise ValueError(f"no panel is called {unknown[0]!r}; there are {', '.join(self._titles)}")
        return [self._titles.index(title) for title in pair]

    @traitlets.validate("level", "width", "difference_hu", "opacity")
    def _finite(self, proposal: Any) -> float:
        name, value = proposal["trait"].name, proposal["value"]
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value}")
        if name in ("width", "difference_hu") and not value > 0:
            raise ValueError(f"{name} must be above 0 HU, got {value:g}")
        if name == "opacity" and not 0 <= value <= 1:
            raise ValueError(f"opacity must lie in [0, 1], got {value:g}")
        return value

    @traitlets.validate("slice")
    def _inside_the_volume(self, proposal: Any) -> int:
        depth = self._volumes.shape[1]
        if not 0 <= proposal["value"] < depth:
            raise ValueError(f"slice {proposal['value']} is outside a volume of {depth} (0 to {depth - 1})")
        return proposal["value"]

    @traitlets.validate("roi", "line", "probe")
    def _known_mark(self, proposal: Any) -> dict[str, Any] | None:
        name, value = proposal["trait"].name, proposal["value"]
        if value is None:
            return None
        forms = {
            "line": [{"x0", "y0", "x1", "y1"}],
            "probe": [{"x", "y"}],
            "roi": [{"kind", "x0", "y0", "x1", "y1"}]
            if value.get("kind") == "box"
            else [{"kind", "x", "y", "r"}],
        }
        if set(value) not in forms[name] or (name == "roi" and value["kind"] not in ("box", "circle")):
            raise ValueError(f"{name} is None or has the form given in CTView's documentation, got {value}")
        numbers = [part for key, part in value.items() if key != "kind"]
        if not all(isinstance(part, int | float) and math.isfinite(part) for part in numbers):
            raise ValueError(f"{name} must hold finite numbers, got {value}")
        return value


def _is_static() -> bool:
    return os.environ.get(STATIC_VARIABLE, "") not in ("", "0")


# What comes in --------------------------------------------------------------------------------------------


def _title(value: Any) -> str:
    if isinstance(value, str | Path):
        return Path(value).name
    return str(getattr(value, "name", None) or "CT")


def _read(value: Any) -> Any:
    """Files by their path; everything else as it is."""
    if not isinstance(value, str | Path):
        return value
    path = Path(value)
    if path.name.endswith((".nii", ".nii.gz")):
        from alden_lite.data.volume import load_nifti

        return load_nifti(path)
    from alden_lite.data.dicom.series import read_series

    return read_series(path)


def pixels_of(value: Any) -> np.ndarray:
    hu = getattr(value, "hu", value)
    if hasattr(hu, "detach"):  # a tensor; numpy does not know its short floats
        hu = hu.detach().cpu().float() if hu.is_floating_point() else hu.detach().cpu()
    return np.asarray(hu)


def _whole_hu(title: str, hu: np.ndarray) -> np.ndarray:
    """(Z, Y, X) int16."""
    if hu.ndim not in (2, 3) or 0 in hu.shape:
        raise ValueError(f"{title!r} has shape {hu.shape}: a viewer takes (Y, X) or (Z, Y, X)")
    if hu.dtype.kind not in "iuf":
        raise ValueError(f"{title!r} holds {hu.dtype}: HU are whole or real numbers")
    if hu.dtype.kind == "f" and not np.isfinite(hu).all():
        raise ValueError(f"{title!r} holds NaN or infinite values: HU must be finite everywhere")
    whole, limits = np.rint(hu), np.iinfo(np.int16)
    if whole.min() < limits.min or whole.max() > limits.max:
        raise ValueError(f"{title!r} reaches from {whole.min():g} to {whole.max():g}: HU fit into int16")
    return np.ascontiguousarray(whole.astype(np.int16).reshape((-1, *hu.shape[-2:])))


def _label_ids(labels: Any, shape: tuple[int, ...]) -> np.ndarray:
    """(Z, Y, X) uint8."""
    ids = pixels_of(labels)
    if ids.dtype.kind not in "iub" or ids.ndim not in (2, 3) or ids.min() < 0 or ids.max() > 255:
        raise ValueError(
            f"labels are whole numbers 0 to 255, (Y, X) or (Z, Y, X), got {ids.dtype} {ids.shape}"
        )
    ids = np.ascontiguousarray(ids.reshape((-1, *ids.shape[-2:])).astype(np.uint8))
    if ids.shape != shape:
        raise ValueError(f"labels have shape {ids.shape}, the CT {shape}: not the same grid")
    return ids


def _names(names: Mapping[int, str] | Sequence[str] | None) -> dict[str, str]:
    pairs = names.items() if isinstance(names, Mapping) else enumerate(names or ())
    return {str(number): str(name) for number, name in pairs}


def _spacing(spacing_mm: float | Sequence[float] | None, sources: Mapping[str, Any]) -> list[float] | None:
    """(y, x) in mm, given or of the volumes."""
    found: Iterable[Any] = (getattr(source, "spacing_mm", None) for source in sources.values())
    chosen = [spacing_mm] if spacing_mm is not None else [own for own in found if own is not None]
    pairs = [[float(side) for side in np.broadcast_to(np.atleast_1d(one)[-2:], 2)] for one in chosen]
    if any(not (math.isfinite(side) and side > 0) for pair in pairs for side in pair):
        raise ValueError(f"spacing_mm must be above 0 mm, got {chosen}")
    if any(not np.allclose(a, b, rtol=1e-3) for a, b in pairwise(pairs)):
        raise ValueError(f"the panels have pixels of different sizes, {chosen} mm: resample first")
    return pairs[0] if pairs else None


# What goes out --------------------------------------------------------------------------------------------


def _inside(roi: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """(Y, X) bool: pixels whose centres lie in the region."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    if roi["kind"] == "box":
        return (x >= roi["x0"]) & (x < roi["x1"]) & (y >= roi["y0"]) & (y < roi["y1"])
    return (x + 0.5 - roi["x"]) ** 2 + (y + 0.5 - roi["y"]) ** 2 <= roi["r"] ** 2


def downsampled(volumes: np.ndarray, factor: int) -> np.ndarray:
    """(..., Y, X) int16 to the rounded means of squares; a rest at the right and lower edge is left out."""
    if factor == 1:
        return volumes
    *outer, rows, columns = volumes.shape
    cut = volumes[..., : rows // factor * factor, : columns // factor * factor]
    squares = cut.reshape(*outer, rows // factor, factor, columns // factor, factor)
    return np.rint(squares.mean((-3, -1))).astype(np.int16)


def _packed(pixels: np.ndarray, room: int, max_bytes: int, *, used: int, remedy: str) -> str:
    """Base64 of gzip; stops as soon as it and the letters `used` before need more than `room`."""
    gzip, parts, size = zlib.compressobj(9, wbits=31), [], 0
    content, piece = np.ascontiguousarray(pixels).tobytes(), 1 << 18
    for start in range(0, len(content), piece):
        parts.append(gzip.compress(content[start : start + piece]))
        size += len(parts[-1])
        if used + 4 * size / 3 > room:
            done = min((start + piece) / len(content), 1)
            raise _too_large(used + 4 * size / 3 / done, room, max_bytes, remedy)
    text = base64.b64encode(b"".join([*parts, gzip.flush()])).decode()
    if used + len(text) > room:
        raise _too_large(used + len(text), room, max_bytes, remedy)
    return text


def _too_large(needed: float, room: int, max_bytes: int, remedy: str) -> TooLargeError:
    if room <= 0:
        text = f"max_bytes={max_bytes:,} does not suffice for the viewer itself: give a larger one"
        return TooLargeError(text, 0.0)
    text = (
        f"the static page would take about {(max_bytes - room + needed) / 1e6:.1f} MB, its budget is "
        f"max_bytes={max_bytes:,}: give {remedy.format(factor=math.ceil(math.sqrt(needed / room)))}, "
        "fewer slices by slices=(first, last), or a larger max_bytes"
    )
    return TooLargeError(text, room / needed)


def window_strip_of(slices: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """(Y, X) uint8: the slices, one a row, in the windows of `STRIP`."""
    factor = strip_factor(slices)
    small = [downsampled(hu, factor) for hu in slices]
    shown = [WINDOWS[name] for name in STRIP]
    return np.vstack([np.hstack([grey_levels(hu, one.level, one.width) for one in shown]) for hu in small])


def strip_factor(slices: Sequence[np.ndarray] | np.ndarray) -> int:
    """Side of the squares of pixels that are one pixel of a strip."""
    return max(1, math.ceil(max(slices[0].shape) / (256 if len(slices) == 1 else 160)))


def png_of(picture: np.ndarray) -> bytes:
    from PIL import Image

    png = io.BytesIO()
    Image.fromarray(picture).save(png, format="png", optimize=True)
    return png.getvalue()
