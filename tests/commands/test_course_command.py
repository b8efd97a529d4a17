"""`alden-lite course`: notebooks chosen, run in parallel, reported and interrupted."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from alden_lite.commands import course as course_command
from alden_lite.lessons.runner import course
from made_notebooks import RECORDS, notebook


def command(*arguments: object) -> int:
    return course_command.main([str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("stepps", "20", r"no chosen notebook has a parameter 'stepps'; there are: mode, steps"),
        ("steps", "many", "'steps' is of kind int, 'many' does not fit"),
        ("steps", "2.5", "'steps' is of kind int, '2.5' does not fit"),
    ],
)
def test_a_parameter_that_does_not_fit_stops_everything(tmp_path, capsys, name, value, text):
    notebook(tmp_path / "notebooks", "01_one", "x = 1")
    out = tmp_path / "out"
    status = command("--notebooks", tmp_path / "notebooks", "--out", out, "-p", name, value)
    assert status == 2
    assert text in capsys.readouterr().err
    assert not out.exists()


def test_notebooks_run_in_parallel_and_are_reported(tmp_path, capsys):
    # Each waits until the other has begun, so one after the other would fail.
    folder = tmp_path / "notebooks"
    meet = (
        "import pathlib, time\npathlib.Path('../{mine}').touch()\nend = time.time() + 60\n"
        "while not pathlib.Path('../{other}').exists():\n"
        "    assert time.time() < end, 'alone'\n    time.sleep(0.05)"
    )
    notebook(folder, "01_one", meet.format(mine="a", other="b"), RECORDS.format(name="x", value=1))
    notebook(folder, "02_two", meet.format(mine="b", other="a"), "raise ValueError('<no>')")
    notebook(folder, "03_three", "raise SystemExit('never chosen')")
    out = tmp_path / "out"
    status = command("--notebooks", folder, "--out", out, "--only", "01", "02", "--jobs", 2)
    printed = capsys.readouterr()
    assert status == 1
    assert "02_two: cell In [3] failed with ValueError: <no>" in printed.err
    assert "1 of 2 notebooks passed" in printed.out
    names = ["01_one.ipynb", "02_two.failed.ipynb", "index.html", "records.json"]
    assert sorted(file.name for file in out.iterdir()) == names
    table = json.loads((out / "records.json").read_text())
    assert table["01_one"].pop("seconds") > 0
    assert table["01_one"] == {"status": "passed", "records": {"x": 1}, "exercises": {}}
    assert table["02_two"]["status"] == "failed"
    page = (out / "index.html").read_text()
    assert '<a href="02_two.failed.ipynb">02_two</a>' in page
    assert "&lt;no&gt;" in page and "<no>" not in page and '<html lang="en">' in page


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--only", "77"], "no notebook begins with '77'; there are: 01_one"),
        ([], "no notebooks in"),
    ],
)
def test_choosing_nothing_is_an_error(tmp_path, capsys, arguments, text):
    notebook(tmp_path / "notebooks", "01_one")
    folder = tmp_path / ("notebooks" if arguments else "elsewhere")
    assert command("--notebooks", folder, "--out", tmp_path / "out", *arguments) == 2
    assert text in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way there")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_kernel_and_no_half_written_file(tmp_path, sent):
    source = "import os, pathlib, time\npathlib.Path('../{}').write_text(str(os.getpid()))\ntime.sleep(99)"
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    for name in ("01_a", "02_b", "03_c"):
        notebook(folder, name, source.format(name))
    started = subprocess.Popen(
        [sys.executable, "-m", "alden_lite", "course", "--notebooks", folder, "--out", out],
        stderr=subprocess.PIPE,
        text=True,
        # Tests in a shell's background ignore Ctrl-C, and what they start would, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    at_once = min(2, course.cores())
    wait_for(lambda: sum(bool(file.read_text()) for file in tmp_path.glob("0*")) == at_once)
    started.send_signal(sent)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "interrupted: all kernels are stopped" in errors
    kernels = [int(file.read_text()) for file in tmp_path.glob("0*")]
    assert not [pid for pid in kernels if is_alive(pid)]
    assert len(kernels) == at_once
    assert list(out.iterdir()) == []


def wait_for(condition, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
