"""Exercises that check themselves and never stop the notebook.

An exercise is a reference answer, hints, and *properties*: short functions, each with a name that a
learner understands, which try the learner's function on small inputs and raise `Mistake` with a
counter-example if the property does not hold. The notebook goes on whatever comes out.
"""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from alden_lite.lessons import chapters
from alden_lite.lessons.records import CHECK_MIME, show

__all__ = [
    "Attempt",
    "Exercise",
    "Mistake",
    "Verdict",
    "check",
    "find",
    "hint",
    "judge",
    "known",
    "same",
    "solution",
]

Answer = Callable[..., Any]
Status = Literal["right", "wrong", "not attempted yet"]


class Mistake(Exception):
    """A property does not hold; the text is the counter-example that the learner reads."""


class _NotAttempted(Exception):
    """The learner's function, or a part of it, is still the stub of the notebook."""


class Attempt:
    """The learner's function as a property calls it, on copies of the arguments.

    On copies, because a property compares with the same tensors afterwards; `received` holds the
    copies of the latest call, as the function left them. Networks, functions and tensors that need
    a gradient are handed over as they are: the gradient must find its way back. An exception inside
    the function becomes a `Mistake`.
    """

    def __init__(self, function: Answer) -> None:
        """Wrap the learner's `function`."""
        self.received: list[Any] = []
        self._function = function
        self._unfinished = _has_ellipsis(function)

    def __call__(self, *arguments: object, **options: object) -> Any:
        """What the function returns; raises `Mistake` if it returns nothing or fails."""
        self.received = [_copy(argument) for argument in arguments]
        try:
            result = self._function(*self.received, **options)
        except NotImplementedError as error:
            raise _NotAttempted from error
        except Exception as error:
            raise Mistake(f"your function raised {_one_line(error)}") from error
        if result is Ellipsis or (result is None and self._unfinished):
            raise _NotAttempted
        if result is None:
            raise Mistake("your function returned None: does it end with `return ...`?")
        return result


Property = Callable[[Attempt], None]


@dataclass(frozen=True)
class Exercise:
    """A reference answer, what must hold for any answer, and hints from vague to plain.

    `properties` maps the name of a property to the function that tries it; they are tried in this
    order, so the most instructive comes first. There is at least one hint.
    """

    answer: Answer
    properties: Mapping[str, Property]
    hints: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What a check found: the status and, for a wrong answer, which property fails and where."""

    status: Status
    message: str


def check(exercise_id: str, function: object) -> None:
    """Try `function` as the answer to an exercise and print one line: ✓, ✗ or not attempted yet.

    A wrong answer, even one that raises, is never an error here. Raises `ValueError` for an
    exercise that does not exist. The notebook's random numbers are left as they are.
    """
    verdict = judge(exercise_id, function)
    payload = {"exercise": exercise_id, "status": verdict.status}
    show(f"{exercise_id} {verdict.message}", CHECK_MIME, payload)


def hint(exercise_id: str) -> None:
    """Print a hint; each call for the same exercise gives the next one, a little plainer."""
    hints = find(exercise_id).hints
    given = _hints_given.get(exercise_id, 0)
    _hints_given[exercise_id] = given + 1
    number = min(given, len(hints) - 1)
    print(f"{exercise_id} hint {number + 1} of {len(hints)}: {hints[number]}")
    if given >= len(hints) - 1:
        print(f'That was the last one; lessons.solution("{exercise_id}") shows an answer.')


def solution(exercise_id: str) -> None:
    """Print the source of the reference answer."""
    print(inspect.getsource(find(exercise_id).answer).rstrip())


def judge(exercise_id: str, function: object) -> Verdict:
    """The verdict that `check` prints. Raises `ValueError` for an unknown exercise."""
    exercise = find(exercise_id)
    if not callable(function):
        return Verdict("wrong", "✗ hand over the function itself, by its name, not what it returns")
    if _is_stub(function):
        return Verdict("not attempted yet", "not attempted yet")
    attempt = Attempt(function)
    for name, holds in exercise.properties.items():
        try:
            holds(attempt)
        except _NotAttempted:
            return Verdict("not attempted yet", "not attempted yet")
        except Mistake as mistake:
            return Verdict("wrong", f"✗ {name}: {mistake}")
        except Exception as error:  # the returned value broke the comparison: still no reason to stop
            text = f"what your function returned cannot be used: {_one_line(error)}"
            return Verdict("wrong", f"✗ {name}: {text}")
    return Verdict("right", f"✓ right, in all {len(exercise.properties)} properties")


def find(exercise_id: str) -> Exercise:
    """The exercise with this id, such as "08.1"; for an unknown id, `ValueError` lists all exercises."""
    chapter = str(exercise_id).partition(".")[0]
    if chapter in chapters.known():
        exercises: dict[str, Exercise] = chapters.load(chapter).EXERCISES
        if exercise_id in exercises:
            return exercises[exercise_id]
    raise ValueError(f"there is no exercise {exercise_id!r}; there are {', '.join(known())}")


def known() -> list[str]:
    """The ids of all exercises, in order."""
    return sorted(name for chapter in chapters.known() for name in chapters.load(chapter).EXERCISES)


def same(got: object, expected: object, situation: str) -> None:
    """Hold an answer against the expected value, in float64 and to one part in a million.

    `got` and `expected` are numbers, arrays or tensors; `situation` begins the sentence that the
    learner reads, such as "at step 0". Raises `Mistake` if they differ.
    """
    ours, theirs = _as_array(expected), _as_array(got)
    if ours.shape == () != theirs.shape:
        raise Mistake(f"{situation} expected one number, yours has the shape {theirs.shape}")
    if ours.shape != theirs.shape:
        raise Mistake(f"{situation} the shape should be {ours.shape}, yours is {theirs.shape}")
    if np.allclose(theirs, ours, rtol=1e-6, atol=1e-8):
        return
    worst = np.unravel_index(np.argmax(np.nan_to_num(np.abs(theirs - ours), nan=np.inf)), ours.shape)
    where = f" at {[int(i) for i in worst]}" if ours.ndim else ""
    raise Mistake(f"{situation} expected {ours[worst]:.6g}{where}, yours gives {theirs[worst]:.6g}")


_hints_given: dict[str, int] = {}


def _copy(argument: object) -> object:
    requires_grad = getattr(argument, "requires_grad", False)
    if callable(argument) or requires_grad:
        return argument
    return copy.deepcopy(argument)


def _is_stub(function: Answer) -> bool:
    """Whether the body is a stub: only a docstring, `...`, `pass`, `return` or NotImplementedError."""
    definition = _definition(function)
    return definition is not None and all(map(_does_nothing, definition.body))


def _has_ellipsis(function: Answer) -> bool:
    definition = _definition(function)
    if definition is None:
        return False
    return any(isinstance(node, ast.Constant) and node.value is ... for node in ast.walk(definition))


def _definition(function: Answer) -> ast.FunctionDef | None:
    """The function's syntax tree; None where there is no `def` to read, as for a lambda."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    first = tree.body[0]
    return first if isinstance(first, ast.FunctionDef) else None


def _does_nothing(statement: ast.stmt) -> bool:
    match statement:
        case ast.Pass() | ast.Return(value=None) | ast.Return(value=ast.Constant(value=None)):
            return True
        case ast.Expr(value=ast.Constant()):  # a docstring, or `...`
            return True
        case ast.Raise(exc=raised) if raised is not None:
            return "NotImplementedError" in ast.unparse(raised)
    return False


def _as_array(value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise Mistake(f"your function should return numbers, it returned {kind}") from None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {textwrap.shorten(text, 200)}" if text else type(error).__name__
