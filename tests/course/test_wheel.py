"""What people install: the sdist, the wheel built from it, and an environment without the checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(file.name for file in (ROOT / "notebooks").glob("*.ipynb"))


def run(*command: str | Path, cwd: Path, status: int = 0) -> str:
    """What a command prints, after checking its exit status; it knows nothing of this run of pytest."""
    outer = ("PYTHONPATH", "PYTEST_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def build(project: Path, kind: str, out: Path) -> Path:
    """The one file that is built from a folder: its `sdist` or its `wheel`."""
    run(sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", out, cwd=project)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(ROOT, "sdist", folder / "dist")) as packed:
        packed.extractall(folder, filter="data")
    (unpacked,) = folder.glob("alden_lite-*")
    return unpacked


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(sdist, "wheel", tmp_path_factory.mktemp("wheel") / "dist")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of programs of an environment with the wheel, and with the libraries that are at hand."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    (packages,) = {path.resolve() for path in folder.rglob("site-packages")}
    # The path files within these folders are not read: an editable install there stays unknown.
    libraries = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (packages / "libraries.pth").write_text("\n".join(libraries), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", programs / "python"]
    run(*pip, "install", "--no-index", "--no-deps", wheel, cwd=folder)
    where = run(programs / "python", "-c", "import alden_lite; print(alden_lite.__file__)", cwd=folder)
    assert Path(where.strip()) == packages / "alden_lite" / "__init__.py"
    yield programs
    shutil.rmtree(folder)


# What is in


def names(sdist: Path) -> set[str]:
    """The files of the unpacked sdist, but for what running its tests makes."""
    files = {file.relative_to(sdist) for file in sdist.rglob("*") if file.is_file()}
    return {file.as_posix() for file in files if "__pycache__" not in file.parts}


def test_the_sdist_is_what_git_has(sdist: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    listing = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    tracked = {name for name in listing.split("\0") if (ROOT / name).is_file()}
    assert names(sdist) - {"PKG-INFO"} == tracked


def test_the_wheel_is_the_package_and_the_notebooks(sdist: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        found = {name for name in packed.namelist() if ".dist-info/" not in name}
    package = {name for name in names(sdist) if name.startswith("alden_lite/")}
    assert found == package | {f"alden_lite/_notebooks/{name}" for name in NOTEBOOKS}
    # Data files that are read at run time, and what tells type checkers to look at all.
    assert {PurePosixPath(name).suffix for name in found} >= {".safetensors", ".json", ".js", ".pyi"}
    assert "alden_lite/py.typed" in found


# What it does without the checkout


def test_the_command_has_a_name_of_its_own(installed: Path, tmp_path: Path) -> None:
    text = run(installed / "alden-lite", "--help", cwd=tmp_path)
    assert text.startswith("usage: alden-lite ")
    assert text == run(installed / "python", "-m", "alden_lite", "--help", cwd=tmp_path)


def test_the_doctor_misses_nothing(installed: Path, tmp_path: Path) -> None:
    text = run(installed / "alden-lite", "doctor", cwd=tmp_path)
    assert f"notebooks          {len(NOTEBOOKS)}\n" in text
    assert text.endswith("nothing is missing\n")


def test_the_notebooks_are_copied_once_and_never_overwritten(installed: Path, tmp_path: Path) -> None:
    run(installed / "alden-lite", "notebooks", "mine", cwd=tmp_path)
    copies = sorted((tmp_path / "mine").iterdir())
    assert [file.name for file in copies] == NOTEBOOKS
    assert all(file.read_bytes() == (ROOT / "notebooks" / file.name).read_bytes() for file in copies)
    copies[1].write_text("my work", encoding="utf-8")
    text = run(installed / "alden-lite", "notebooks", "mine", cwd=tmp_path, status=2)
    assert text.startswith(f"error: nothing was copied: mine already has {NOTEBOOKS[0]}")
    assert copies[1].read_text(encoding="utf-8") == "my work"


def test_the_course_runs_the_notebooks_that_came_with_it(installed: Path, tmp_path: Path) -> None:
    cell = "import alden_lite\nfrom alden_lite import lessons\nlessons.record('from', alden_lite.__file__)"
    (package,) = {path.resolve() for path in installed.parent.rglob("site-packages/alden_lite")}
    added = package / "_notebooks" / "99_tiny.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]), added)
    try:
        run(installed / "alden-lite", "course", "--only", "99", "--out", "out", cwd=tmp_path)
    finally:
        added.unlink()
    table = json.loads((tmp_path / "out" / "records.json").read_text(encoding="utf-8"))
    assert table["99_tiny"]["records"] == {"from": str(package / "__init__.py")}
    text = run(installed / "alden-lite", "course", "--only", "77", "--out", "out", cwd=tmp_path, status=2)
    assert "no notebook begins with '77'; there are: " + ", ".join(name[:-6] for name in NOTEBOOKS) in text


def test_type_checkers_see_types(installed: Path, tmp_path: Path) -> None:
    lines = (
        *("import numpy as np", "import alden_lite", "from alden_lite.physics import Scanner"),
        "reveal_type(alden_lite.denoise(np.zeros((64, 64))))",
        "reveal_type(Scanner())",
        "alden_lite.denoise(np.zeros((64, 64)), precision=16)",
    )
    (tmp_path / "user.py").write_text("\n".join(lines), encoding="utf-8")
    command = (sys.executable, "-m", "mypy", "--python-executable", installed / "python", "user.py")
    denoised, scanner, refused, _ = run(*command, cwd=tmp_path, status=1).splitlines()
    assert 'Revealed type is "numpy.ndarray[' in denoised
    assert 'Revealed type is "alden_lite.physics.scanner.Scanner"' in scanner
    assert 'Argument "precision" to "denoise" has incompatible type "int"; expected "str"' in refused


def test_the_tests_of_the_sdist_are_found_and_run(sdist: Path) -> None:
    # A test file that cannot be imported is an error, though only these few run.
    pytest_ = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    text = run(*pytest_, "-k", "test_project.py or test_notebooks_command.py", cwd=sdist)
    assert " passed" in text and " deselected" in text
