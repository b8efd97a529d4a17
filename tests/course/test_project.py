"""The house itself: which wing may use which, what loads when, and whether its papers agree."""

import ast
import importlib
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

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

WINGS = (
    *("physics", "phantom", "data", "engine", "alden", "neighbours"),
    *("explain", "evaluation", "show", "lessons", "commands"),
)
"""The wings of the package, lowest first: a wing may use those before it, never one after it."""

NEVER = {
    # who: what it must not use, though the order would let it
    "lessons": ("commands",),
    "alden.fusion": ("alden.pvm",),
    "alden.discriminator": ("alden.pvm",),
    "alden.contrastive": ("alden.pvm",),
}
"""The engine knows no method; a method neither judges itself nor draws: the order says so. D and the
contrastive loss take feature maps, so that three hand-made tokens can test them."""

AROUND = {"benchmarks", "data_scripts", "notebooks", "tests"}


# The wings


def module(file: Path) -> str:
    """Dotted name within the package: `physics.scanner`, `data.dicom` for the `__init__` of a folder."""
    return ".".join(file.relative_to(ROOT / "alden_lite").with_suffix("").parts).removesuffix(".__init__")


def imported(file: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} imports relatively: write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


IMPORTS = {module(file): set(imported(file)) for file in sorted((ROOT / "alden_lite").rglob("*.py"))}
MODULES = sorted(IMPORTS)
LIBRARIES = {
    name: {one.partition(".")[0] for one in found} - {"alden_lite"} for name, found in IMPORTS.items()
}


def used(name: str) -> set[str]:
    """The modules of the package that one of them imports."""
    within = {one.removeprefix("alden_lite.") for one in IMPORTS[name] if one.startswith("alden_lite.")}
    return {one if one in IMPORTS else one.rpartition(".")[0] for one in within} - {""}


def wing(name: str) -> str:
    return name.partition(".")[0]


def test_the_package_has_these_wings_and_no_module_beside_them() -> None:
    assert {wing(name) for name in MODULES} == {*WINGS, "__init__", "__main__"}
    assert all("." in name or name in WINGS for name in MODULES if not name.startswith("__"))


@pytest.mark.parametrize("name", [name for name in MODULES if wing(name) in WINGS])
def test_imports_go_down_never_up(name: str) -> None:
    upward = {one for one in used(name) if WINGS.index(wing(one)) > WINGS.index(wing(name))}
    assert not upward, f"{name} imports {upward}: {' < '.join(WINGS)}"
    if wing(name) != "commands":
        assert (
            not {one for one in used(name) if wing(one) in ("lessons", "commands")} or wing(name) == "lessons"
        )


@pytest.mark.parametrize("name", NEVER)
def test_some_never_use_others(name: str) -> None:
    users = [one for one in MODULES if one == name or one.startswith(f"{name}.")]
    assert users
    assert not {one for user in users for one in used(user) if one.startswith(NEVER[name])}


def test_no_module_uses_itself_by_way_of_others() -> None:
    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = used(start)
        while ahead:
            seen |= ahead
            ahead = set().union(*(used(name) for name in ahead)) - seen
        return seen

    assert not [name for name in MODULES if name in reach(name)]


def test_the_core_uses_nothing_that_is_around_it() -> None:
    for name, libraries in LIBRARIES.items():
        assert not libraries & AROUND, f"{name} imports {libraries & AROUND}"


def test_files_that_take_tensors_import_torch_only() -> None:
    for name in ("alden.contrastive", "alden.fusion", "alden.generator"):
        assert not used(name), f"{name} imports {used(name)}"
        assert LIBRARIES[name] - sys.stdlib_module_names == {"torch"}


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


SURFACES = sorted((ROOT / "alden_lite").rglob("__init__.pyi"))
"""The public names of the package and of its wings."""


def public_names(stub: Path) -> set[str]:
    """What a stub gives out: `from .file import name as name`."""
    imports = [n for n in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(n, ast.ImportFrom)]
    assert all(alias.asname == alias.name for node in imports for alias in node.names), stub
    return {alias.name for node in imports for alias in node.names}


@pytest.mark.parametrize("stub", SURFACES, ids=lambda stub: stub.parent.name)
def test_every_public_name_is_there(stub: Path) -> None:
    package = importlib.import_module(".".join(stub.parent.relative_to(ROOT).parts))
    assert set(dir(package)) == set(package.__all__) == public_names(stub)
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing


def test_notebooks_know_wings_and_no_files_inside_them() -> None:
    wings = {"alden_lite", *(f"alden_lite.{name}" for name in WINGS)}
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        used = {node.module for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)}
        inside = {name for name in used if name and name.startswith("alden_lite")} - wings
        assert {name for name in inside if not name.startswith("alden_lite.lessons.chapters.")} == set()


OLD_HOMES = [
    "_convert",
    "ablations",
    "ascon",
    "assets",
    "bank",
    "checkpoint",
    "cohorts",
    "comparison",
    "contrastive",
    "course",
    "denoising",
    "detectability",
    "dicom",
    "dicom_writer",
    "discriminator",
    "dugan",
    "fan_beam",
    "feature_cache",
    "filters",
    "generator",
    "hounsfield",
    "metrics",
    "npz",
    "organs",
    "overlap",
    "peers",
    "plots",
    "pvm",
    "quality",
    "results_page",
    "scanner",
    "segmenter",
    "slice_theorem",
    "spectrum",
    "standings",
    "studies",
    "training",
    "viewer",
    "wgan",
]
"""What lay at the package's root until it had wings."""


def test_no_text_names_a_place_from_before_the_wings() -> None:
    old = re.compile(rf"alden_lite[./]({'|'.join(OLD_HOMES)})(?![\w-])")
    texts = {".py", ".pyi", ".md", ".ipynb", ".toml", ".yml", ".yaml", ".cff", ".json", ".js", ""}
    named = {
        f"{file.relative_to(ROOT)}: {found[0]}"
        for file in project_files()
        if file.suffix in texts and file != Path(__file__)
        for found in old.finditer(file.read_text(encoding="utf-8"))
    }
    assert not named


def test_the_command_line_explains_itself() -> None:
    result = run_python("-m", "alden_lite", "--help")
    assert result.returncode == 0, result.stderr
    assert "course" in result.stdout


@pytest.mark.parametrize("file", ["README.md", "alden_lite/__init__.py", "alden_lite/alden/denoising.py"])
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
    executable = script.stat().st_mode & 0o111 or sys.platform == "win32"  # which has no such bit
    assert executable, "git update-index --chmod=+x .ci/run"
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
