"""One file a chapter: its exercises, and how much it computes in each mode."""

import importlib
import pkgutil
from types import ModuleType


def known() -> list[str]:
    """The two digits of every chapter, in order."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.removeprefix("chapter_") for name in names if name.startswith("chapter_"))


def load(chapter: str) -> ModuleType:
    """A chapter's module, by its two digits. Loaded only when asked for: some import torch."""
    return importlib.import_module(f"{__name__}.chapter_{chapter}")
