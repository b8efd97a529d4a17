"""What checks, hints and solutions do with whatever a learner hands over."""

import importlib
import linecache
import math
import textwrap

import numpy as np
import pytest
import torch

from alden_lite import lessons
from alden_lite.lessons import exercises

IDS = exercises.known()


@pytest.mark.parametrize("exercise_id", IDS)
def test_the_reference_answer_is_right(exercise_id):
    verdict = exercises.judge(exercise_id, exercises.find(exercise_id).answer)
    assert verdict.status == "right", verdict.message


@pytest.mark.parametrize("exercise_id", IDS)
def test_every_exercise_has_three_planted_mistakes_and_a_hint(exercise_id):
    tests = importlib.import_module(f"test_chapter_{exercise_id[:2]}")
    assert len(tests.MISTAKES[exercise_id]) >= 3
    assert exercises.find(exercise_id).hints


# Stubs as notebooks bring them, and as text: a formatter would tidy code without effect away.


def defined(body):
    """The function `answer(old, new, decay)` with this body, its source readable as in a notebook."""
    source = "def answer(old, new, decay):\n" + textwrap.indent(body, "    ") + "\n"
    file = f"<cell {len(linecache.cache)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    names = {}
    exec(compile(source, file, "exec"), names)
    return names["answer"]


STUBS = [
    "...",
    "pass",
    "return None",
    "return",
    "raise NotImplementedError",
    "raise NotImplementedError('your turn')",
    '"""Your turn."""',
    '"""Your turn."""\n# decay * old + ...\n...',
    "share = ...\nreturn share",
    "return ...",
    "assert old.shape == new.shape\n...",
    "if decay > 1:\n    raise NotImplementedError('no')\nraise NotImplementedError",
]


@pytest.mark.parametrize("stub", STUBS)
def test_a_function_as_it_came_is_not_attempted_yet(stub, capsys):
    assert lessons.check("08.1", defined(stub)) is None
    assert capsys.readouterr().out == "08.1 not attempted yet\n"


@pytest.mark.parametrize("exercise_id", IDS)
def test_every_exercise_knows_its_stub(exercise_id):
    assert exercises.judge(exercise_id, defined("...")).status == "not attempted yet"


def test_an_answer_above_the_dots_counts():
    answer = defined("return decay * old + (1 - decay) * new\n...")
    assert exercises.judge("08.1", answer).status == "right"


def test_an_answer_without_source_is_tried():
    names = {}
    exec("def answer(old, new, decay): return decay * old + (1 - decay) * new", names)
    assert exercises.judge("08.1", names["answer"]).status == "right"


# Whatever a learner hands over


def forgets_to_return(old, new, decay):
    decay * old + (1 - decay) * new


def fails(old, new, decay):
    return old.shap


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (forgets_to_return, "does it end with `return ...`?"),
        (fails, "your function raised AttributeError"),
        (lambda old: old, "your function raised TypeError"),
        (lambda old, new, decay: "seven", "should return numbers, it returned str"),
        (lambda old, new, decay: torch.full_like(old, math.nan), "yours gives nan"),
        (torch.tensor(3.0), "hand over the function itself"),
        (None, "hand over the function itself"),
    ],
)
def test_a_wrong_answer_never_raises(answer, text, capsys):
    lessons.check("08.1", answer)
    out = capsys.readouterr().out
    assert out.startswith("08.1 ✗") and text in out


def test_an_answer_that_returns_something_odd_is_wrong():
    class Odd:
        def __array__(self, *_, **__):
            raise RuntimeError("not today")

    verdict = exercises.judge("08.1", lambda old, new, decay: Odd())
    assert verdict.status == "wrong"
    assert "cannot be used: RuntimeError: not today" in verdict.message


def test_a_check_leaves_the_random_numbers_alone():
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for exercise_id in IDS:
        exercises.judge(exercise_id, exercises.find(exercise_id).answer)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize("name", ["08.9", "99.1", "8", "", None])
@pytest.mark.parametrize("call", [lessons.hint, lessons.solution, lambda name: lessons.check(name, 1)])
def test_an_unknown_exercise_is_an_error_that_lists_the_known(call, name):
    with pytest.raises(ValueError, match=r"there are 00\.1, .*08\.1, 08\.2, 08\.3"):
        call(name)


def test_hints_come_one_after_the_other_and_end_with_the_solution(capsys, monkeypatch):
    monkeypatch.setattr(exercises, "_hints_given", {})
    for _ in range(4):
        lessons.hint("00.1")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:16] for line in lines[:3]] == [f"00.1 hint {n} of 3"[:16] for n in (1, 2, 3)]
    assert 'lessons.solution("00.1")' in lines[3]
    assert lines[4] == lines[2]


def test_the_solution_is_the_source_of_the_answer(capsys):
    lessons.solution("08.1")
    out = capsys.readouterr().out
    assert out.startswith("def exponential_moving_average(")
    assert "return decay * old + (1 - decay) * new" in out
