"""A chapter's plausible mistakes as parameters of a test."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest


def planted(mistakes: Mapping[str, Mapping[Callable[..., Any], str]]) -> list[Any]:
    """For each mistake: the exercise, the wrong answer, and words that the learner must be told."""
    return [
        pytest.param(exercise_id, answer, text, id=f"{exercise_id}-{answer.__name__}")
        for exercise_id, told in mistakes.items()
        for answer, text in told.items()
    ]
