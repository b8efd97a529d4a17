"""How much each chapter computes in each mode."""

import dataclasses
import re
from pathlib import Path

import pytest

from alden_lite import lessons
from alden_lite.lessons import chapters

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
MODES = ("fast", "laptop", "full")


@pytest.mark.parametrize("chapter", chapters.known())
def test_every_chapter_has_the_three_modes_of_its_own_settings(chapter):
    module = chapters.load(chapter)
    assert tuple(module.MODES) == MODES
    assert all(type(lessons.parameters(chapter, mode)) is module.Settings for mode in MODES)


@pytest.mark.parametrize("chapter", chapters.known())
def test_a_chapter_has_no_setting_that_its_notebook_does_not_use(chapter):
    (notebook,) = NOTEBOOKS.glob(f"{chapter}_*.ipynb")
    used = set(re.findall(r"settings\.(\w+)", notebook.read_text(encoding="utf-8")))
    assert {field.name for field in dataclasses.fields(chapters.load(chapter).Settings)} <= used


def test_unknown_modes_and_chapters_are_named():
    with pytest.raises(ValueError, match="choose one of fast, laptop, full"):
        lessons.parameters("08", "quick")
    with pytest.raises(ValueError, match="no settings for chapter .77.; there are 00, .*08"):
        lessons.parameters("77", "fast")
