"""The notebook runner on small made-up notebooks."""

import sys

import nbformat
import pytest

from alden_lite.lessons.runner import course, parameters_cell
from alden_lite.lessons.runner.parameters_cell import CourseError, fit, read_parameters
from made_notebooks import RECORDS, notebook

# One notebook


def test_a_run_collects_records_exercises_and_the_executed_file(tmp_path):
    stub = "def average(old, new, decay):\n    ...\nlessons.check('08.1', average)"
    path = notebook(
        tmp_path / "notebooks",
        "01_one",
        RECORDS.format(name="doubled", value="2 * steps"),
        "lessons.record('mode', mode)",
        "import sys; lessons.record('python', sys.executable)",
        "import os; lessons.record('folder', os.getcwd())",
        "lessons.record('threads', os.environ['OMP_NUM_THREADS'])",
        stub,
    )
    run = course.run(path, tmp_path / "out", {"steps": 21}, threads=1)
    assert run.records == {
        "doubled": 42,
        "mode": "fast",
        "python": sys.executable,
        "folder": str(path.parent),
        "threads": "1",
    }
    assert run.exercises == {"08.1": "not attempted yet"}
    assert run.path == tmp_path / "out" / "01_one.ipynb"
    assert run.seconds > 0 and run.status == "passed"
    executed = nbformat.read(run.path, as_version=4)
    assert executed.cells[2].outputs[0].data["text/plain"] == "doubled = 42"
    assert [file.name for file in run.path.parent.iterdir()] == ["01_one.ipynb"]
    assert [file.name for file in path.parent.iterdir()] == ["01_one.ipynb"]


OFFLINE = """
import socket, time, urllib.request, asyncio
start = time.perf_counter()

def refused(call):
    try:
        call()
    except OSError as error:
        return str(error) if "notebooks run offline" in str(error) else f"other: {error}"
    return "reached"

tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
answers = [
    refused(lambda: tcp.connect(("192.0.2.1", 80))),
    refused(lambda: tcp.connect_ex(("192.0.2.1", 80))),
    refused(lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80, 0, 0))),
    refused(lambda: udp.sendto(b"x", ("192.0.2.1", 53))),
    refused(lambda: socket.create_connection(("example.org", 443))),
    refused(lambda: socket.getaddrinfo("example.org", 443)),
    refused(lambda: socket.getaddrinfo(host="example.org", port=443)),
    refused(lambda: socket.gethostbyname("example.org")),
    refused(lambda: urllib.request.urlopen("http://example.org")),
]
"""
LOOPBACK = """
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(("localhost", server.getsockname()[1]), timeout=5)
server.accept()[0].sendall(b"here")
lessons.record("loopback", client.recv(4).decode())
left, right = socket.socketpair()
lessons.record("leaked", "refuse_network" in globals() or "_guarded" in globals())
lessons.record("environment", os.environ["HF_HUB_OFFLINE"] + os.environ["PIP_NO_INDEX"])
"""


def test_a_kernel_reaches_its_own_machine_and_nothing_else(tmp_path):
    path = notebook(
        tmp_path / "notebooks",
        "01_offline",
        "import os\nfrom alden_lite import lessons" + OFFLINE,
        "lessons.record('refused', all('run offline: refused' in answer for answer in answers))",
        "lessons.record('answers', '; '.join(answers))",
        "lessons.record('at_once', time.perf_counter() - start < 5)",
        LOOPBACK,
    )
    records = course.run(path, tmp_path / "out").records
    assert records.pop("answers").count("notebooks run offline") == 9
    assert records == {
        "refused": True,
        "at_once": True,
        "loopback": "here",
        "leaked": False,
        "environment": "11",
    }


def test_this_process_is_offline_too():
    import socket

    with pytest.raises(OSError, match="tests run offline"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_a_failing_cell_keeps_the_executed_part_and_names_it(tmp_path):
    path = notebook(tmp_path / "notebooks", "01_bad", "x = 1", "def f():\n    1 / 0\nf()", "x = 2")
    with pytest.raises(course.NotebookFailedError) as caught:
        course.run(path, tmp_path / "out")
    kept = tmp_path / "out" / "01_bad.failed.ipynb"
    message = str(caught.value)
    assert message.startswith("01_bad: cell In [3] failed with ZeroDivisionError: division by zero")
    assert "1 / 0" in message and str(kept) in message and "\x1b" not in message
    assert len(message.splitlines()) < 20
    assert caught.value.run.path == kept and kept.exists()
    assert [file.name for file in kept.parent.iterdir()] == [kept.name]


def test_a_cell_that_takes_too_long_fails(tmp_path):
    path = notebook(tmp_path / "notebooks", "01_slow", "import time\ntime.sleep(60)")
    with pytest.raises(course.NotebookFailedError, match="timed out"):
        course.run(path, tmp_path / "out", timeout=1)
    assert (tmp_path / "out" / "01_slow.failed.ipynb").exists()


def test_a_kernel_that_dies_is_a_failure(tmp_path):
    path = notebook(tmp_path / "notebooks", "01_dead", "import os\nos._exit(3)")
    with pytest.raises(course.NotebookFailedError, match="DeadKernelError"):
        course.run(path, tmp_path / "out")


def test_a_record_given_twice_is_a_failure(tmp_path):
    source = RECORDS.format(name="x", value=1)
    path = notebook(tmp_path / "notebooks", "01_twice", source, source)
    with pytest.raises(course.NotebookFailedError, match="two records are named 'x'"):
        course.run(path, tmp_path / "out")


def test_the_notebooks_own_folder_is_not_written_to(tmp_path):
    path = notebook(tmp_path, "01_one")
    before = path.read_bytes()
    with pytest.raises(CourseError, match="choose another folder"):
        course.run(path, tmp_path)
    assert path.read_bytes() == before


# What is refused before anything runs


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ('from typing import Literal\nmode: Literal["a"] = "a"', "from typing import Literal"),
        ('mode: Literal["fast", "laptop"] = "fast"', "is not `name: kind = literal`"),
        ('mode: str | None = "fast"', "is not `name: kind = literal`"),
        ('mode: int = "fast"', "is not `name: kind = literal`"),
        ('formula = "a = b"', "papermill misreads formula"),
        ("a = 1; b = 2", "papermill misreads a, b"),
        ('text = """\nx = 1\n"""', "papermill misreads x"),
        ("sizes = [1, 2]", "`sizes` must be a plain int, float, str, bool"),
        ("nothing = None", "`nothing` must be a plain"),
        ("steps = 2 * 10", "`steps` must be a plain"),
        ("a = b = 1", "is not `name: kind = literal`"),
        ("steps: int", "is not `name: kind = literal`"),
        ("steps = (", "was never closed"),
    ],
)
def test_a_parameters_cell_that_papermill_would_misread_is_refused(tmp_path, cell, text):
    path = notebook(tmp_path, "01_one", parameters=cell)
    with pytest.raises(CourseError) as caught:
        read_parameters(path)
    assert text in str(caught.value) and "01_one" in str(caught.value)


def test_two_tagged_cells_and_broken_files_are_refused(tmp_path):
    path = notebook(tmp_path, "01_two")
    two = nbformat.read(path, as_version=4)
    two.cells.append(nbformat.v4.new_code_cell("a = 1", metadata={"tags": ["parameters"]}))
    nbformat.write(two, path)
    with pytest.raises(CourseError, match="2 cells are tagged"):
        read_parameters(path)
    path.write_text("no notebook")
    with pytest.raises(CourseError, match="cannot be read as a notebook"):
        read_parameters(path)


def test_parameters_are_read_with_their_defaults(tmp_path):
    cell = (
        'mode: str = "fast"  # a comment\n# a whole line\ndose: float = 1  # of the dose\n\n'
        "shift = -3\nwarm_start: bool = True  # from\nname = 'a # b'"
    )
    values = read_parameters(notebook(tmp_path, "01_one", parameters=cell))
    assert values == {
        "mode": "fast",
        "dose": 1.0,
        "shift": -3,
        "warm_start": True,
        "name": "a # b",
    }
    assert type(values["dose"]) is float
    assert read_parameters(notebook(tmp_path, "02_none", parameters=None)) == {}


@pytest.mark.parametrize(
    ("value", "default", "expected"),
    [
        ("20", 10, 20),
        ("0.1", 1.0, 0.1),
        ("1", 0.5, 1.0),
        (1, 0.5, 1.0),
        ("true", False, True),
        ("False", True, False),
        ("20", "fast", "20"),
    ],
)
def test_a_value_takes_the_kind_of_the_default(value, default, expected):
    got = fit("x", value, default)
    assert got == expected and type(got) is type(expected)


@pytest.mark.parametrize(
    ("value", "default"),
    [("yes", True), (1, True), (True, 1), (1.0, 1), ("x", 1.0), (1, "fast"), (None, "fast")],
)
def test_a_value_of_another_kind_is_refused(value, default):
    with pytest.raises(CourseError, match="does not fit"):
        fit("x", value, default)


def test_a_parameter_goes_only_to_the_notebooks_that_have_it(tmp_path):
    one = notebook(tmp_path, "01_one", parameters='mode: str = "fast"')
    two = notebook(tmp_path, "02_two", parameters="dose: float = 0.25")
    given = parameters_cell.assign([one, two], {"dose": "0.1"})
    assert given == {one: {}, two: {"dose": 0.1}}
