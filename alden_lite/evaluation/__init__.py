"""Which method is better: figures of a slice, patients as the unit, organs, lesions, whole studies."""

import lazy_loader

# The public names, loaded at first use: __init__.pyi lists them in the order in which the course meets them.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
