"""Files in, pairs out: volumes in HU, DICOM, the sample patient, organ groups, low-dose pairs, assets."""

import lazy_loader

# The public names, loaded at first use: __init__.pyi lists them in the order in which the course meets them.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
