"""Line integrals by the Fourier slice theorem: what is said where their library is missing."""

import sys

import pytest
import torch

from alden_lite.physics.scanner import Scanner
from alden_lite.physics.slice_theorem import slice_theorem


def test_without_finufft_the_scanner_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "finufft", None)  # as on Linux on ARM, where it has no wheel
    slice_theorem.cache_clear()  # plans that were made before would do without it
    scanner = Scanner.preset("head", matrix=32)
    with pytest.raises(ImportError, match="pip install finufft.*cmake and a C\\+\\+ compiler"):
        scanner.line_integrals(torch.zeros(32, 32))
    slice_theorem.cache_clear()
