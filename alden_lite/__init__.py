"""ALDEN-lite: anatomy-aware low-dose CT denoising, taught by running it. Not for clinical use.

    import alden_lite
    quiet = alden_lite.denoise(hu)                  # (Y, X) or (Z, Y, X) in HU, in and out
    generator = alden_lite.load_generator("alden")  # the network itself

Everything else is in a wing: `alden_lite.physics`, `alden_lite.data`, ... README.md here is the map.
Importing the package is quick: torch and what builds on it are loaded at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AnatomyAwareDiscriminator": "alden.discriminator",
    "PVM": "alden.pvm",
    "Recipe": "alden.training",
    "Scanner": "physics.scanner",
    "Training": "alden.training",
    "UNet": "alden.generator",
    "denoise": "alden.denoising",
    "load_generator": "alden.denoising",
    "load_pvm": "alden.pvm",
    "semantic_contrastive_loss": "alden.contrastive",
}

__all__ = sorted([*_HOMES, "__version__"])

if TYPE_CHECKING:
    from alden_lite.alden.contrastive import semantic_contrastive_loss
    from alden_lite.alden.denoising import denoise, load_generator
    from alden_lite.alden.discriminator import AnatomyAwareDiscriminator
    from alden_lite.alden.generator import UNet
    from alden_lite.alden.pvm import PVM, load_pvm
    from alden_lite.alden.training import Recipe, Training
    from alden_lite.physics.scanner import Scanner


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"alden_lite.{_HOMES[name]}"), name)
    try:
        return import_module(f"alden_lite.{name}")  # a wing: alden_lite.physics
    except ModuleNotFoundError as error:
        if error.name != f"alden_lite.{name}":
            raise
        raise AttributeError(f"module 'alden_lite' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return __all__
