"""A figure in a notebook, with a text for those who cannot see it."""

from __future__ import annotations

import base64
import html
import io
import sys
from typing import Any

from matplotlib.figure import Figure

from alden_lite.show.plots.frame import DPI

__all__ = ["Live", "alt"]


def alt(figure: Figure, text: str) -> None:
    """Show a figure in a notebook with alt text, and close it; outside a notebook, print the text.

    The output is an `<img alt="...">` in HTML, which Jupyter, nbconvert and the book keep.

    Args:
        figure: any matplotlib figure.
        text: what you would say of it on the telephone: what is compared, and what is to be seen.

    Raises:
        ValueError: if the text is empty.
    """
    _display(figure, text)


class Live:
    """A picture that is replaced while a run goes on: `live = Live()`, then `live.show(figure, text)`."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, figure: Figure, text: str) -> None:
        """Show a figure with alt text in place of the one before; arguments and errors as for `alt`."""
        self._handle = _display(figure, text, handle=self._handle)


def _display(figure: Figure, text: str, *, handle: Any = None) -> Any:
    """Show or replace a figure; returns the handle of its place in the notebook, None outside one."""
    from IPython import get_ipython
    from IPython.display import display

    if not text.strip():
        raise ValueError("the alt text is empty: say what the picture shows")
    source = f"data:image/png;base64,{base64.b64encode(_png(figure)).decode()}"
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(figure)
    image = f'<img src="{source}" alt="{html.escape(text)}" style="max-width: 100%; height: auto">'
    data = {"text/html": image, "text/plain": text}
    if get_ipython() is None:
        print(text)
        return None
    if handle is None:
        return display(data, raw=True, display_id=True)
    handle.update(data, raw=True)
    return handle


def _png(figure: Figure) -> bytes:
    """The figure as PNG; without colours if it has none, which halves what noise takes up."""
    from PIL import Image, ImageChops

    drawn, png = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, facecolor="white")
    picture = Image.open(drawn).convert("RGB")
    grey = picture.convert("L")
    coloured = ImageChops.difference(picture, grey.convert("RGB")).getbbox() is not None
    (picture if coloured else grey).save(png, format="png", optimize=True)
    return png.getvalue()
