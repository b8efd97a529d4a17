"""What a notebook reports: named results and the state of its exercises.

A line is printed for the person who reads. In a notebook the same line also carries its value as
data in the cell's output, where the course runner and the tests find it again.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["CHECK_MIME", "RECORD_MIME", "Value", "payloads", "record", "show"]

Value = int | float | str | bool
"""What a record may hold."""

RECORD_MIME = "application/vnd.alden-lite.record+json"
CHECK_MIME = "application/vnd.alden-lite.check+json"


def record(name: str, value: Value) -> None:
    """Print `name = value`; in a notebook, store it in the cell's output as well.

    `name` is an identifier, used once in a notebook; put the unit into it, as in `rmse_hu`.
    `value` is a finite float, an int, a str or a bool. Raises `ValueError` for a name that is no
    identifier and for nan or infinity, `TypeError` for any other kind of value.

    >>> record("psnr_gain_db", 4.1)
    psnr_gain_db = 4.1
    """
    if not (isinstance(name, str) and name.isidentifier()):
        raise ValueError(f"a record's name is an identifier such as 'rmse_hu', got {name!r}")
    plain = _plain(name, value)
    text = f"{plain:.6g}" if isinstance(plain, float) else str(plain)
    show(f"{name} = {text}", RECORD_MIME, {"name": name, "value": plain})


def show(line: str, mime: str, payload: Mapping[str, Value]) -> None:
    """Print `line`; in a notebook its output also carries `payload` under the type `mime`."""
    if _in_ipython():
        from IPython.display import display

        bundle = {"text/plain": line, mime: dict(payload)}
        display(bundle, raw=True)
    else:
        print(line)


def payloads(cells: Iterable[Mapping[str, Any]], mime: str) -> list[dict[str, Any]]:
    """All payloads of type `mime` in the outputs of executed notebook cells, in their order."""
    outputs = (output for cell in cells for output in cell.get("outputs", []))
    return [dict(output["data"][mime]) for output in outputs if mime in output.get("data", {})]


def _plain(name: str, value: object) -> Value:
    """`value` as a Python number, text or truth value; float64 scalars of numpy become floats."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if not isinstance(value, float):
        kind = type(value).__name__
        raise TypeError(
            f"record {name!r} needs an int, float, str or bool, got {kind}; "
            f"write float(...) or int(...) around a tensor or an array with one element"
        )
    if not math.isfinite(value):
        raise ValueError(f"record {name!r} is {value}: only finite numbers can be held to a value")
    return float(value)


def _in_ipython() -> bool:
    # Outside a notebook IPython is not loaded yet, and asking must not load it.
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None
