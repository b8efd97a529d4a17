"""ALDEN-lite: anatomy-aware low-dose CT denoising, taught by running it. Not for clinical use.

    import alden_lite
    quiet = alden_lite.denoise(hu)                  # (Y, X) or (Z, Y, X) in HU, in and out
    generator = alden_lite.load_generator("alden")  # the network itself

Everything else is in a wing: `alden_lite.physics`, `alden_lite.data`, ... README.md here is the map.
Importing the package is quick: torch and what builds on it are loaded at first use.
"""

import lazy_loader

__version__ = "0.1.0"

# The public names, loaded at first use: __init__.pyi lists them. Each wing has such a list of its own.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
