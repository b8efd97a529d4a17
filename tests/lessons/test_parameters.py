"""How much each chapter computes in each mode."""

import pytest

from alden_lite import lessons
from alden_lite.lessons.settings import SETTINGS, Settings

# Settings


def test_every_chapter_has_the_three_modes():
    for chapter, modes in SETTINGS.items():
        assert list(modes) == ["fast", "laptop", "full"], chapter
        assert all(isinstance(lessons.parameters(chapter, mode), Settings) for mode in modes)


def test_unknown_modes_and_chapters_are_named():
    with pytest.raises(ValueError, match="choose one of fast, laptop, full"):
        lessons.parameters("08", "quick")
    with pytest.raises(ValueError, match="no settings for chapter .77.; there are 00, .*08"):
        lessons.parameters("77", "fast")
