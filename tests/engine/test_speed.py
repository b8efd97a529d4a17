"""What the machine gains from bfloat16."""

from __future__ import annotations

from alden_lite.engine.speed import bfloat16_gain


def test_the_gain_is_a_ratio_measured_once() -> None:
    assert 0.001 < bfloat16_gain("cpu") < 1000
    assert bfloat16_gain("cpu") == bfloat16_gain("cpu")
