"""The house itself: which room may use which, what loads when, and whether its papers agree."""

import ast
import itertools
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import alden_lite

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

FLOORS = {
    "hounsfield": 0,
    "_convert": 0,
    "assets": 0,
    "npz": 0,
    "checkpoint": 1,
    "comparison": 1,
    "contrastive": 1,
    "dicom": 1,
    "dicom_writer": 1,
    "discriminator": 1,
    "fan_beam": 1,
    "generator": 1,
    "metrics": 1,
    "phantom": 1,
    "pvm": 1,
    "scanner": 1,
    "slice_theorem": 1,
    "spectrum": 1,
    "bank": 2,
    "data": 2,
    "explain": 2,
    "feature_cache": 2,
    "filters": 2,
    "organs": 2,
    "overlap": 2,
    "ablations": 3,
    "ascon": 3,
    "cohorts": 3,
    "denoising": 3,
    "detectability": 3,
    "dugan": 3,
    "peers": 3,
    "plots": 3,
    "quality": 3,
    "results_page": 3,
    "segmenter": 3,
    "standings": 3,
    "training": 3,
    "viewer": 3,
    "wgan": 3,
    "__init__": 4,
    "__main__": 4,
    "course": 4,
    "lessons": 4,
}
"""Rooms of the core: a room may use its own floor and those below, never one above."""

SELF_CONTAINED = {"contrastive", "discriminator", "generator"}
"""Rooms that take tensors and give tensors: they import torch and the standard library, nothing else."""

NOT_THE_CORE = {"benchmarks", "data_scripts", "notebooks", "tests"}


# The rooms


def room(file: Path) -> str:
    """Name of the room that a file of the package belongs to; all of a subpackage is one room."""
    return file.relative_to(ROOT / "alden_lite").parts[0].removesuffix(".py")


def imported(file: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} imports relatively: write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


FILES = sorted((ROOT / "alden_lite").rglob("*.py"))
ROOMS = {room(file) for file in FILES}
USES: dict[str, set[str]] = {name: set() for name in ROOMS}
LIBRARIES: dict[str, set[str]] = {name: set() for name in ROOMS}
for _file, _name in ((file, name) for file in FILES for name in imported(file)):
    _top, *_rest = _name.split(".")
    if _top != "alden_lite":
        LIBRARIES[room(_file)].add(_top)
    elif (_used := _rest[0] if _rest and _rest[0] in ROOMS else "__init__") != room(_file):
        USES[room(_file)].add(_used)


def test_every_room_has_a_floor() -> None:
    assert sorted(ROOMS) == sorted(FLOORS), "give a new room its floor here, and in the list of rooms"


def test_no_room_uses_a_higher_floor() -> None:
    upward = [
        f"{name} (floor {FLOORS[name]}) imports {used} (floor {FLOORS[used]})"
        for name, used_rooms in USES.items()
        for used in used_rooms
        if FLOORS[used] > FLOORS[name]
    ]
    assert not upward


def test_rooms_that_take_tensors_import_torch_only() -> None:
    for name in SELF_CONTAINED:
        assert not USES[name], f"{name} imports another room"
        assert LIBRARIES[name] - sys.stdlib_module_names == {"torch"}


def test_only_the_commands_and_the_lessons_use_the_lessons() -> None:
    users = {name for name, used in USES.items() if "lessons" in used}
    assert users <= {"__main__", "course"}


def test_the_core_uses_nothing_that_is_around_it() -> None:
    for name, libraries in LIBRARIES.items():
        assert not libraries & NOT_THE_CORE, f"{name} imports {libraries & NOT_THE_CORE}"


def test_no_room_uses_itself_by_way_of_others() -> None:
    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = set(USES[start])
        while ahead:
            seen |= ahead
            ahead = set().union(*(USES[name] for name in ahead)) - seen
        return seen

    # The package's own __init__ gives names of other rooms, when they are asked for.
    assert not [name for name in ROOMS - {"__init__"} if name in reach(name)]


def test_third_party_libraries_are_declared() -> None:
    called = {
        "fabric": "lightning-fabric",
        "PIL": "pillow",
        "skimage": "scikit-image",
        "sklearn": "scikit-learn",
    }
    declared = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    # Parts of the foundation of ipykernel and of scikit-learn.
    declared |= {"ipython", "jupyter-client", "traitlets", "threadpoolctl"}
    for name, libraries in LIBRARIES.items():
        needed = {canonicalize_name(called.get(top, top)) for top in libraries - sys.stdlib_module_names}
        assert needed <= declared, f"{name} imports {needed - declared}, which pyproject.toml does not list"


# The package


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """This interpreter, anew, in the project's folder."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ["torch", "torchvision", "timm", "captum", "pydicom", "matplotlib", "numpy", "scipy", "papermill"]
    code = f"import sys, alden_lite; print([name for name in {heavy} if name in sys.modules])"
    assert run_python("-c", code).stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert alden_lite.__all__ == dir(alden_lite)
    for name in alden_lite.__all__:
        assert getattr(alden_lite, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = alden_lite.nothing


def test_the_command_line_explains_itself() -> None:
    result = run_python("-m", "alden_lite", "--help")
    assert result.returncode == 0, result.stderr
    assert "course" in result.stdout


@pytest.mark.parametrize("file", ["README.md", "alden_lite/__init__.py", "alden_lite/denoising.py"])
def test_it_says_that_it_is_not_for_clinical_use(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    said = ast.get_docstring(ast.parse(text)) if file.endswith(".py") else text
    assert "not for clinical use" in (said or "").lower()


# Versions and dependencies


def requirements(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for, with extras."""
    lines = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return [Requirement(line) for line in itertools.chain(*lines)]


def constraints() -> dict[str, str]:
    """Versions by package, after checking that every line is NAME==VERSION and no name comes twice."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line), f"{line!r} is not NAME==VERSION"
    pairs = [line.split("==") for line in lines]
    pinned = {canonicalize_name(name): version for name, version in pairs}
    assert len(pinned) == len(pairs)
    return pinned


def test_there_is_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert alden_lite.__version__ == PROJECT["version"] == citation["version"]


@pytest.mark.parametrize("requirement", requirements("dev"), ids=str)
def test_every_dependency_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    pinned = constraints()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pinned, prereleases=True)


def test_the_pins_hold_for_every_platform() -> None:
    cuda = [name for name in constraints() if name.startswith(("nvidia", "cuda", "triton"))]
    assert not cuda
    assert "alden-lite" not in constraints()


def test_conda_installs_the_project_and_no_list_of_its_own() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, through_pip = environment["dependencies"]
    name, version = python.split("=")
    assert (name, pip) == ("python", "pip")
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{version}.0")
    *options, project = through_pip["pip"]
    assert options == ["-c constraints.txt"]
    editable, extras = re.fullmatch(r"(-e) \.\[([a-z,]+)\]", project).groups()  # type: ignore[union-attr]
    assert editable
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


# Papers


def project_files() -> list[Path]:
    """The files of the project, as git has or would have them; without git, all but hidden and made ones."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if result.returncode == 0:
        files = [ROOT / name.decode() for name in result.stdout.split(b"\0") if name]
    else:
        made = re.compile(r"\.|__pycache__$|runs$|build$|dist$|.*\.egg-info$")
        files = [file for file in ROOT.rglob("*") if not any(map(made.match, file.relative_to(ROOT).parts))]
    return [file for file in files if file.is_file()]


def test_no_file_names_a_folder_of_someones_machine() -> None:
    # Taken apart, so that this file does not name one.
    folders = [
        *(rf"/{name}/" for name in ("work", "root", "tmp")),
        *(rf"/{name}/\w+/" for name in ("home", "Users")),
    ]
    pattern = re.compile(rb"(?<![\w.>)}*-])(" + "|".join(folders).encode() + rb")|[A-Z]:\\Users\\")
    own = (str(ROOT).encode(), str(Path.home()).encode() + b"/")
    named = []
    for file in project_files():
        content = file.read_bytes()
        if pattern.search(content) or any(folder in content for folder in own):
            named.append(str(file.relative_to(ROOT)))
    assert not named


def test_notebooks_are_kept_without_outputs() -> None:
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs"), f"run nbstripout {notebook.name}"
            assert cell.get("execution_count") is None, f"run nbstripout {notebook.name}"


def test_the_citation_names_this_software_and_the_paper() -> None:
    citation: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert citation["title"] == "ALDEN-lite"
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"]
    (paper,) = citation["references"]
    assert paper["title"].startswith("Anatomy-Aware Low-Dose CT Denoising via Pretrained Vision Models")
    assert paper["authors"][0] == {"family-names": "Wang", "given-names": "Runze"}
    assert paper["conference"]["name"] == "MICCAI 2025"
    assert (paper["volume"], paper["start"], paper["end"], paper["year"]) == (15961, 13, 23, 2025)
    assert [identifier["value"] for identifier in paper["identifiers"]] == ["arXiv:2508.07788"]
    assert paper["url"] in PROJECT["urls"].values()


def test_the_licence_is_apache_2() -> None:
    lines = [line.strip() for line in (ROOT / "LICENSE").read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if line][:2] == ["Apache License", "Version 2.0, January 2004"]
    assert "END OF TERMS AND CONDITIONS" in lines
    assert PROJECT["license"] == "Apache-2.0"


def make_targets() -> set[str]:
    """What `make` can be asked for."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z]+):(?!=)", text, re.MULTILINE))


def test_the_readme_names_targets_that_there_are() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"`[^`\n]+`", text) + re.findall(r"```.*?```", text, re.DOTALL)
    named = set(re.findall(r"\bmake ([a-z]+)", "\n".join(code)))
    assert named <= make_targets(), f"the Makefile has no {named - make_targets()}"


def test_every_target_is_explained_and_none_is_taken_for_a_file() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    explained = set(re.findall(r"^([a-z]+):.*## ", text, re.MULTILINE))
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert explained == make_targets() == set(phony.split())


def test_ci_runs_what_the_readme_tells_people_to_run() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, "git update-index --chmod=+x .ci/run"
    commands = [line for line in script.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    assert commands[0] == "set -euo pipefail"
    assert commands[-1] == "exec make test"
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_paths_in_the_configuration_exist() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    paths = [
        *tools["pytest"]["ini_options"]["testpaths"],
        *tools["mypy"]["packages"],
        *(Path(glob).parts[0] for glob in tools["ruff"]["lint"]["per-file-ignores"]),
    ]
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing
