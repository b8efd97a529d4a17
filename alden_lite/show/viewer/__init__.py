"""CT in a window of HU, in the browser: live in a notebook, and on a page without kernel. Chapters 01, 05."""

from alden_lite.show.viewer.ctview import CTView, TooLargeError, difference_colours
from alden_lite.show.viewer.tokenview import TokenView, similarity_colours

__all__ = ["CTView", "TokenView", "TooLargeError", "difference_colours", "similarity_colours"]
