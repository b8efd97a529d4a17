"""What a notebook of the course uses besides the core: exercises, records and its settings.

A notebook calls five functions: `parameters` for the numbers of its mode, `record` for every
result that the tests hold against a known value, and `check`, `hint`, `solution` for its exercises.
Nothing below an exercise depends on the learner's answer, so the file that students open is the
file that is tested. Chapter 08's exercises and settings are in `chapters/chapter_08.py`, and so on.
"""

from alden_lite.lessons.exercises import check, hint, solution
from alden_lite.lessons.records import record
from alden_lite.lessons.settings import parameters

__all__ = ["check", "hint", "parameters", "record", "solution"]
