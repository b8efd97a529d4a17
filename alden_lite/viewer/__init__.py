"""CT in a window of HU, in the browser: live in a notebook, and on a page without kernel. Chapter 01."""

from alden_lite.viewer.ctview import CTView, TooLargeError, difference_colours

__all__ = ["CTView", "TooLargeError", "difference_colours"]
