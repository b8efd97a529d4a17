"""The course's numbers: how much a chapter computes in each mode.

`fast` is for tests and a first look (a minute or two on two CPU cores), `laptop` made the figures
that the book shows, `full` wants a GPU. To change a number, change it in `MODES` of the chapter's file;
no notebook repeats it.
"""

from __future__ import annotations

from typing import Any

from alden_lite.lessons import chapters

__all__ = ["parameters"]


def parameters(chapter: str, mode: str) -> Any:
    """The `Settings` of a chapter in a mode.

    `chapter` is its two digits, `mode` is `fast`, `laptop` or `full`. Raises `ValueError` for
    a chapter or a mode that does not exist, and names those that do.

    >>> parameters("08", "fast").warm_start
    'l1'
    """
    if chapter not in chapters.known():
        raise ValueError(f"no settings for chapter {chapter!r}; there are {', '.join(chapters.known())}")
    modes = chapters.load(chapter).MODES
    if mode not in modes:
        raise ValueError(f"no mode {mode!r} in chapter {chapter}; choose one of {', '.join(modes)}")
    return modes[mode]
