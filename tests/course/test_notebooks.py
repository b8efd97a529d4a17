"""Every notebook of the course: built as promised, executed in fast mode, held to known values.

There is no list of exceptions. `tests/expected/NAME.json` has, for each record of a notebook,
{"value": ..., "tolerance": ..., "why": "..."}; the tolerance is absolute, and text and truth values
have none. The second half of this file tests its own rules on a made-up notebook.
"""

import ast
import copy
import io
import json
import os
import re
import statistics
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest

from alden_lite.lessons import exercises
from alden_lite.lessons.runner import course
from alden_lite.lessons.runner.parameters_cell import CourseError, read_parameters

ROOT = Path(__file__).parents[2]
EXPECTED = ROOT / "tests" / "expected"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert NOTEBOOKS, "notebooks/ is empty: nothing below was tested"


def test_every_expectation_belongs_to_a_notebook():
    assert {path.stem for path in EXPECTED.glob("*.json")} <= {path.stem for path in NOTEBOOKS}


@each_notebook
def test_a_notebook_is_built_like_the_others(path):
    found = faults(path)
    assert not found, "\n".join([path.name, *found])


@each_notebook
def test_a_notebook_runs_and_records_what_is_expected(path, tmp_path, record_property):
    beside = set(path.parent.iterdir())
    threads = max(1, course.cores() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    failure = ""
    try:
        run = course.run(path, tmp_path, {"mode": "fast"}, timeout=600, threads=threads)
    except CourseError as error:
        failure = str(error)
    if failure:  # it has the cell, the traceback and the kept notebook: no need for ours
        pytest.fail(failure, pytrace=False)
    record_property(f"seconds of {path.stem}", run.seconds)
    found = [*differences(run.records, expectations(path.stem))]
    found += answered(run.exercises, exercise_ids(nbformat.read(path, as_version=4)))
    found += [f"it wrote {file} beside itself" for file in set(path.parent.iterdir()) - beside]
    assert not found, "\n".join([f"{path.name}, executed: {run.path}", *found])


# Records against expectations


def expectations(stem):
    path = EXPECTED / f"{stem}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def differences(records, expected) -> Iterator[str]:
    """Each way in which the records of a run are not what is expected."""
    for name in expected.keys() - records.keys():
        yield f"{name} is expected but not recorded"
    for name, value in records.items():
        if name not in expected:
            entry = json.dumps({name: {"value": value, "tolerance": "?", "why": "?"}})
            yield f"{name} is recorded but not expected; for tests/expected: {entry[1:-1]}"
        else:
            yield from difference(name, value, expected[name])


def difference(name, value, entry) -> Iterator[str]:
    if not str(entry.get("why", "")).strip():
        yield f"{name}: the expectation does not say why"
    wanted = entry["value"]
    if isinstance(value, bool | str) or isinstance(wanted, bool | str):
        if type(value) is not type(wanted) or value != wanted:
            yield f"{name} is {value!r}, expected {wanted!r}"
    elif "tolerance" not in entry:
        yield f"{name}: the expectation has no tolerance"
    elif not abs(value - wanted) <= entry["tolerance"]:
        yield f"{name} is {value:.6g}, expected {wanted:.6g} within {entry['tolerance']:.6g}"


def answered(states, ids) -> Iterator[str]:
    """Each exercise that did not run, or that says something else than "not attempted yet"."""
    for name in ids:
        state = states.get(name, "not run")
        if state != "not attempted yet":
            yield f"exercise {name} should say 'not attempted yet', it is {state!r}"


# The anatomy of a notebook. Each rule takes a notebook and yields what is wrong.


def faults(path) -> list[str]:
    raw = json.loads(path.read_text(encoding="utf-8"))
    found = list(form(raw))
    notebook = nbformat.from_dict(raw)
    for cell in notebook.cells:
        cell.source = "".join(cell.source)  # nbformat allows a list of lines
    for rule in RULES:
        found += rule(notebook)
    return found + list(parameters_are_literals(path)) + list(exercises_exist(notebook, path.stem))


def form(raw) -> Iterator[str]:
    """What Git and papermill need: ids, no outputs, and the kernel's name and language."""
    ids = [cell.get("id") for cell in raw["cells"]]
    if raw.get("nbformat") != 4 or raw.get("nbformat_minor", 0) < 5:
        yield "save it in notebook format 4.5 or later"
    if None in ids or len(set(ids)) < len(ids):
        yield "every cell needs an id of its own"
    kernel = raw["metadata"].get("kernelspec", {})
    if (kernel.get("name"), kernel.get("language")) != ("python3", "python"):
        yield "metadata.kernelspec needs name python3 and language python"
    for cell in raw["cells"]:
        if cell.get("outputs") or cell.get("execution_count") is not None:
            yield f"cell {begin(cell)} has outputs or an execution count: strip them"


def opening(notebook) -> Iterator[str]:
    """Title, promise in one sentence, minutes, prerequisites and three things one can then do."""
    head = text_before_parameters(notebook)
    title, _, rest = head.lstrip().partition("\n")
    if not re.match(r"# \S", title):
        yield "the first line should be the title, '# ...'"
    promise = " ".join(rest.strip().split("\n\n")[0].split())
    sentences = len(re.findall(r"[.!?][*_]*(?:\s|$)", promise))
    if sentences != 1 or len(promise.split()) > 40:
        yield "below the title comes the promise: one sentence, at most 40 words"
    for pattern, name in ((r"\d+ minutes", "N minutes"), (r"(?i)prerequisite", "Prerequisites")):
        if not re.search(pattern, head):
            yield f"before the parameters, say '{name}'"
    if bullets_after(head, r"You will be able to") != 3:
        yield "before the parameters, 'You will be able to' needs three bullets"


def closing(notebook) -> Iterator[str]:
    """Summary in three bullets, what is the paper's and what is ours, references, next chapter."""
    text = markdown(notebook)
    if bullets_after(text, r"^#+ Summary") != 3:
        yield "a heading 'Summary' with three bullets is missing"
    box = text.partition("In the paper / ours")[2]
    if not ("FACT" in box and "OURS" in box):
        yield "'In the paper / ours' is missing, with what is FACT and what is OURS"
    for word in ("References", "Next"):
        if not re.search(rf"(?m)^[#*>\s]*{word}\b", text):
            yield f"a line or heading that begins with '{word}' is missing"


def guidance(notebook) -> Iterator[str]:
    text = markdown(notebook)
    for phrase in ("Predict, then run", "What you should see"):
        if phrase.lower() not in text.lower():
            yield f"'{phrase}' is missing"


def size(notebook) -> Iterator[str]:
    """20 to 40 cells; code cells of at most 15 lines, half of them of at most 6, imports 10."""
    lengths = [lines(cell.source) for cell in code(notebook)]
    median = statistics.median(lengths or [0])
    if not 20 <= len(notebook.cells) <= 40:
        yield f"{len(notebook.cells)} cells, want 20 to 40"
    if median > 6:
        yield f"the median code cell has {median} lines, want at most 6"
    for cell, length in zip(code(notebook), lengths, strict=True):
        if length > 15:
            yield f"code cell {begin(cell)} has {length} lines, want at most 15"


def imports(notebook) -> Iterator[str]:
    after = code(notebook)[1:2] if parameters_cell(notebook) is not None else []
    if not after or "import " not in after[0].source:
        yield "the code cell after the parameters should hold the imports"
    elif lines(after[0].source) > 10:
        yield f"the cell of imports has {lines(after[0].source)} lines, want at most 10"


def parameters_are_literals(path) -> Iterator[str]:
    try:
        parameters = read_parameters(path)
    except CourseError as error:
        yield str(error)
        return
    if parameters.get("mode") != "fast":
        yield 'the cell tagged `parameters` needs mode: str = "fast"'


def parameters_have_comments(notebook) -> Iterator[str]:
    cell = parameters_cell(notebook)
    if cell is None:
        yield "the first code cell, and it alone, should be tagged `parameters`"
        return
    tokens = tokenize.generate_tokens(io.StringIO(cell.source).readline)
    commented = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    for statement in ast.parse(cell.source).body:
        if statement.end_lineno not in commented:
            yield f"parameter `{ast.unparse(statement)}` needs a comment on its line"


def exercises_exist(notebook, stem) -> Iterator[str]:
    ids = exercise_ids(notebook)
    if not 2 <= len(ids) <= 4 or len(set(ids)) < len(ids):
        yield f"want two to four different exercises, found {ids}"
    for name in ids:
        if name not in exercises.known() or not str(name).startswith(stem[:2] + "."):
            yield f"there is no exercise {name!r} of chapter {stem[:2]}"


def images_have_alt_text(notebook) -> Iterator[str]:
    text = markdown(notebook)
    for target in re.findall(r"!\[\s*\]\s*[(\[]([^)\]]*)", text):
        yield f"the image {target} has no alt text"
    for tag in re.findall(r"<img\b[^>]*>", text):
        if not re.search(r"""\balt\s*=\s*(["'])\s*[^"'\s]""", tag):
            yield f"{tag} has no alt text"


FETCHING = (
    r"^\s*[!%]\s*(pip|conda|mamba|uv|wget|curl|git|apt)\b",
    r"^\s*%%(bash|sh|script)\b",
    r"\burl(open|retrieve)\b",
    r"^\s*(import|from)\s+(requests|httpx|aiohttp|urllib|urllib3|ftplib|huggingface_hub)\b",
    r"\bpretrained\s*=\s*True\b",
    r"\b(from_pretrained|load_state_dict_from_url|hf_hub_download|snapshot_download)\b",
    r"\btorch\.hub\.",
)


def nothing_is_fetched(notebook) -> Iterator[str]:
    for cell in code(notebook):
        for pattern in FETCHING:
            for match in re.finditer(pattern, cell.source, re.MULTILINE):
                yield f"code cell {begin(cell)} fetches from the network: {match[0].strip()}"


RULES: tuple[Callable[[nbformat.NotebookNode], Iterator[str]], ...] = (
    opening,
    closing,
    guidance,
    size,
    imports,
    parameters_have_comments,
    images_have_alt_text,
    nothing_is_fetched,
)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def markdown(notebook) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def parameters_cell(notebook):
    """The cell tagged `parameters` if it is the first code cell and the only one, else None."""
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    return tagged[0] if tagged == code(notebook)[:1] else None


def text_before_parameters(notebook) -> str:
    first_code = next(i for i, c in enumerate([*notebook.cells, None]) if c is None or c.cell_type == "code")
    return "\n\n".join(cell.source for cell in notebook.cells[:first_code])


def bullets_after(text, pattern) -> int:
    """How many bullets there are after the line that matches, up to the next heading or text."""
    match = re.search(pattern, text, re.MULTILINE | re.IGNORECASE)
    if match is None:
        return 0
    count = 0
    for line in text[match.end() :].splitlines()[1:]:
        if re.match(r"([-*+]|\d+\.) ", line):
            count += 1
        elif line.strip() and not (count and line.startswith("  ")):  # not a bullet's second line
            break
    return count


def begin(cell) -> str:
    """The first line of a cell, to find it by."""
    return repr("".join(cell["source"]).strip().partition("\n")[0])


def lines(source) -> int:
    """Lines that are neither blank nor only a comment."""
    kept = (line.strip() for line in source.splitlines())
    return sum(bool(line) and not line.startswith("#") for line in kept)


def exercise_ids(notebook) -> list[str]:
    """The ids in calls of `lessons.check`, in the order of the notebook."""
    ids = []
    for cell in code(notebook):
        python = re.sub(r"(?m)^(\s*)[!%].*$", r"\1pass", cell.source)  # magics are no Python
        for node in ast.walk(ast.parse(python)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "lessons.check":
                ids.append(ast.literal_eval(node.args[0]))
    return ids


# The rules themselves, on a made-up notebook


def made_up() -> dict:
    """A small notebook without a fault, as the dictionary that its file holds."""
    opening_text = (
        "# Three small parts\n\n*You will write a loss by hand.*\n\n15 minutes. "
        "Prerequisites: 07.\n\n"
        "**You will be able to**\n\n- average\n- judge\n  and measure\n- plan\n"
    )
    closing_text = (
        "## Summary\n\n- one\n- two\n- three\n\n"
        "## In the paper / ours\n\nFACT: BCE. OURS: 20 steps.\n\n"
        "## References\n\nNone.\n\n**Next:** 09\n"
    )
    exercise = "def answer(*inputs):  # your turn\n    ...\n\nlessons.check('{}', answer)"
    cells = [
        ("markdown", opening_text),
        ("code", 'mode: str = "fast"  # how much is computed'),
        ("code", "from alden_lite import lessons\nsettings = lessons.parameters('08', mode)"),
        ("markdown", "Why. ![a line that falls](loss.png)\n\n**Predict, then run.** How low?"),
        ("code", "%matplotlib inline\nlessons.record('every', settings.every)"),
        ("markdown", "**What you should see:** a number."),
        ("code", exercise.format("08.1")),
        ("code", exercise.format("08.2")),
        *[("markdown", "More.")] * 12,
        ("markdown", closing_text),
    ]
    made = nbformat.v4.new_notebook()
    made.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python 3"}
    for kind, source in cells:
        new = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        made.cells.append(new(source))
    made.cells[1].metadata["tags"] = ["parameters"]
    return json.loads(nbformat.writes(made))


def written(raw, folder) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "08_made_up.ipynb"
    path.write_text(json.dumps(raw))
    return path


def replace(old, new):
    """A flaw: the first cell with the text `old` gets `new` in its place."""

    def flaw(raw):
        cell = next(cell for cell in raw["cells"] if old in "".join(cell["source"]))
        cell["source"] = "".join(cell["source"]).replace(old, new)

    return flaw


FLAWS = {
    "the first line should be the title": replace("# Three", "Three"),
    "one sentence, at most 40 words": replace("by hand.", "by hand. And more."),
    "say 'N minutes'": replace("15 minutes", "a while"),
    "say 'Prerequisites'": replace("Prerequisites", "Before"),
    "'You will be able to' needs three bullets": replace("- plan\n", ""),
    "'Summary' with three bullets": replace("- two\n", ""),
    "'In the paper / ours' is missing": replace("OURS", "ours"),
    "begins with 'References'": replace("## References", "## See"),
    "begins with 'Next'": replace("**Next:**", "**Then:**"),
    "'Predict, then run' is missing": replace("Predict, then run", "Run"),
    "'What you should see' is missing": replace("What you should see", "Look"),
    "19 cells, want 20 to 40": lambda raw: raw["cells"].__delitem__(slice(10, 12)),
    "41 cells, want 20 to 40": lambda raw: raw["cells"].extend(
        {**copy.deepcopy(raw["cells"][10]), "id": f"more{n}"} for n in range(20)
    ),
    "has 16 lines, want at most 15": replace("    ...\n", "    x = 1\n" * 14),
    "the median code cell has": lambda raw: [
        cell["source"].extend(["\nx = 1"] * 7) for cell in raw["cells"] if "outputs" in cell
    ],
    "the cell of imports has 11 lines": replace("import lessons", "import lessons" + "\nx = 1" * 9),
    "should hold the imports": replace("from alden_lite import lessons", "x = 1"),
    'needs mode: str = "fast"': replace('"fast"', '"laptop"'),
    "is not `name: kind = literal`": replace("str", "Literal['fast']"),
    "needs a comment on its line": replace("  # how", "\n# how"),
    "and it alone, should be tagged": lambda raw: raw["cells"][1].update(metadata={}),
    "found ['08.1']": lambda raw: raw["cells"].__delitem__(7),
    "found ['08.1', '08.1']": replace("'08.2'", "'08.1'"),
    "no exercise '08.9' of chapter 08": replace("'08.2'", "'08.9'"),
    "no exercise '00.1' of chapter 08": replace("'08.2'", "'00.1'"),
    "the image loss.png has no alt text": replace("a line that falls", " "),
    '<img src="a.png" alt=""> has no alt text': replace("More.", '<img src="a.png" alt="">'),
    "<img src='b.png'> has no alt text": replace("More.", "<img src='b.png'>"),
    "network: !pip": replace("%matplotlib inline", "!pip install x"),
    "network: %pip": replace("%matplotlib inline", "%pip install x"),
    "network: import requests": replace("%matplotlib inline", "import requests"),
    "network: urlopen": replace("%matplotlib inline", "urlopen(1)"),
    "network: pretrained=True": replace("%matplotlib inline", "f(pretrained=True)"),
    "has outputs or an execution count": lambda raw: raw["cells"][4].update(execution_count=1),
    "strip them": lambda raw: raw["cells"][4]["outputs"].append(
        {"output_type": "stream", "name": "stdout", "text": "1"}
    ),
    "needs name python3 and language python": lambda raw: raw["metadata"]["kernelspec"].pop("language"),
    "every cell needs an id": lambda raw: raw["cells"][4].pop("id"),
    "an id of its own": lambda raw: raw["cells"][4].update(id=raw["cells"][5]["id"]),
    "notebook format 4.5": lambda raw: raw.update(nbformat_minor=4),
}


def test_the_made_up_notebook_has_no_fault(tmp_path):
    assert faults(written(made_up(), tmp_path)) == []


@pytest.mark.filterwarnings("ignore::nbformat.warnings.MissingIDFieldWarning")
@pytest.mark.filterwarnings("ignore::nbformat.warnings.DuplicateCellId")
@pytest.mark.parametrize("fault", FLAWS)
def test_a_flaw_is_found(tmp_path, fault):
    raw = made_up()
    FLAWS[fault](raw)
    found = faults(written(raw, tmp_path))
    assert any(fault in text for text in found), found


def test_the_made_up_notebook_runs_and_says_that_nothing_was_attempted(tmp_path):
    path = written(made_up(), tmp_path / "notebooks")
    run = course.run(path, tmp_path / "out", {"mode": "fast"}, threads=1)
    ids = exercise_ids(nbformat.read(path, as_version=4))
    assert ids == ["08.1", "08.2"]
    assert list(answered(run.exercises, ids)) == []
    every = {"value": run.records["every"], "tolerance": 0, "why": "a setting"}
    assert list(differences(run.records, {"every": every})) == []


@pytest.mark.parametrize(
    ("records", "expected", "fault"),
    [
        ({"x": 1.0}, {}, "x is recorded but not expected"),
        ({}, {"x": {"value": 1.0, "tolerance": 0, "why": "y"}}, "x is expected but not recorded"),
        ({"x": 1.2}, {"x": {"value": 1.0, "tolerance": 0.1, "why": "y"}}, "within 0.1"),
        ({"x": 1.0}, {"x": {"value": 1.0, "why": "y"}}, "no tolerance"),
        ({"x": 1.0}, {"x": {"value": 1.0, "tolerance": 0.1}}, "does not say why"),
        ({"x": "a"}, {"x": {"value": "b", "why": "y"}}, "x is 'a', expected 'b'"),
        ({"x": True}, {"x": {"value": 1, "tolerance": 9, "why": "y"}}, "x is True, expected 1"),
        ({"x": 1}, {"x": {"value": True, "why": "y"}}, "x is 1, expected True"),
    ],
)
def test_a_record_that_differs_is_found(records, expected, fault):
    (found,) = differences(records, expected)
    assert fault in found


def test_records_within_their_tolerance_are_right():
    expected = {
        "gain_db": {"value": 4.1, "tolerance": 0.2, "why": "varies with the threads"},
        "name": {"value": "DINOv2", "why": "the weights in use"},
        "better": {"value": True, "why": "the promise of the chapter"},
    }
    assert not [*differences({"gain_db": 4.25, "name": "DINOv2", "better": True}, expected)]


@pytest.mark.parametrize("states", [{"08.1": "right"}, {"08.1": "wrong"}, {}])
def test_an_exercise_that_was_answered_or_skipped_is_found(states):
    assert len([*answered(states, ["08.1"])]) == 1
