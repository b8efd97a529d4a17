"""Named values that a notebook prints and the course compares."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alden_lite import lessons
from alden_lite.lessons import records


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (4.1, "x = 4.1"),
        (1 / 3, "x = 0.333333"),
        (20, "x = 20"),
        (True, "x = True"),
        ("DINOv2", "x = DINOv2"),
        (np.float64(0.5), "x = 0.5"),
    ],
)
def test_a_record_prints_its_name_and_value(value, line, capsys):
    assert lessons.record("x", value) is None
    assert capsys.readouterr().out == line + "\n"


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("psnr gain", 1.0, ValueError, "identifier"),
        ("", 1.0, ValueError, "identifier"),
        (3, 1.0, ValueError, "identifier"),
        ("x", math.nan, ValueError, "only finite"),
        ("x", -math.inf, ValueError, "only finite"),
        ("x", torch.tensor(1.0), TypeError, r"float\(\.\.\.\)"),
        ("x", np.float32(1.0), TypeError, "float32"),
        ("x", None, TypeError, "NoneType"),
        ("x", [1], TypeError, "list"),
    ],
)
def test_a_record_that_cannot_be_held_to_a_value_is_refused(name, value, error, text):
    with pytest.raises(error, match=text):
        lessons.record(name, value)


def test_in_ipython_a_record_carries_its_value_as_data(monkeypatch):
    shown = []
    monkeypatch.setattr(records, "_in_ipython", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    lessons.record("rmse_hu", np.float64(9.25))
    cell = {"outputs": [{"data": shown[0]}, {"text": "stream"}]}
    assert shown[0]["text/plain"] == "rmse_hu = 9.25"
    assert records.payloads([cell, {}], records.RECORD_MIME) == [{"name": "rmse_hu", "value": 9.25}]


def test_outside_ipython_nothing_is_displayed(monkeypatch):
    shell = SimpleNamespace(get_ipython=lambda: None)
    monkeypatch.setitem(__import__("sys").modules, "IPython", shell)
    assert not records._in_ipython()
