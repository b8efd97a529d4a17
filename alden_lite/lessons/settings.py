"""The course's numbers: how much each chapter computes in each mode.

`fast` is for tests and a first look (a minute or two on two CPU cores), `laptop` made the figures
that the book shows, `full` wants a GPU. To change a number, change it here; no notebook repeats it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SETTINGS", "Settings", "parameters"]


@dataclass(frozen=True)
class Settings:
    """What one chapter does in one mode.

    `steps`: updates of the generator. `warm_start`: begin from the weights that come with the
    package instead of from random ones. `crops_per_step`: image crops in one update.
    """

    steps: int
    warm_start: bool
    crops_per_step: int


SETTINGS: dict[str, dict[str, Settings]] = {
    "00": {
        "fast": Settings(steps=0, warm_start=True, crops_per_step=1),
        "laptop": Settings(steps=0, warm_start=True, crops_per_step=1),
        "full": Settings(steps=0, warm_start=True, crops_per_step=1),
    },
    "08": {
        "fast": Settings(steps=20, warm_start=True, crops_per_step=2),
        "laptop": Settings(steps=400, warm_start=True, crops_per_step=4),
        "full": Settings(steps=20_000, warm_start=False, crops_per_step=16),
    },
}
"""Chapter, then mode, then the values."""


def parameters(chapter: str, mode: str) -> Settings:
    """The values of a chapter in a mode.

    `chapter` is its two digits, `mode` is `fast`, `laptop` or `full`. Raises `ValueError` for
    a chapter or a mode that does not exist, and names those that do.

    >>> parameters("08", "fast").steps < parameters("08", "laptop").steps
    True
    """
    if chapter not in SETTINGS:
        raise ValueError(f"no settings for chapter {chapter!r}; there are {', '.join(SETTINGS)}")
    modes = SETTINGS[chapter]
    if mode not in modes:
        raise ValueError(f"no mode {mode!r} in chapter {chapter}; choose one of {', '.join(modes)}")
    return modes[mode]
