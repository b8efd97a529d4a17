"""Can the pinned versions be installed? Asked of a resolver for every Python and system that we promise.

Only names and versions are fetched, never a package, and what was fetched once is kept. Without the resolver
or without an index nothing is asked: such a test is skipped, and says so.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11.0", "3.12", "3.13", "3.14")
SYSTEMS = {
    "Linux": "x86_64-manylinux_2_28",
    "Linux on ARM": "aarch64-manylinux_2_28",
    "Windows": "x86_64-pc-windows-msvc",
    "macOS 14 on ARM": "aarch64-apple-darwin",
}
UNREACHABLE = ("Failed to fetch", "error sending request", "Network", "dns error", "timed out")


def resolve(python: str, system: str, constraints: Path) -> subprocess.CompletedProcess[str]:
    """Ask uv for wheels of everything that the project and its tests need; of its own memory first."""
    uv = pytest.importorskip("uv", reason="there is no uv: pip install -e '.[dev]'").find_uv_bin()
    command = [
        *(uv, "pip", "compile", "pyproject.toml", "--extra", "dev", "--constraint", str(constraints)),
        *("--only-binary", ":all:", "--python-version", python, "--python-platform", system),
        *("--quiet", "--output-file", os.devnull),
        # Else it would fetch a Python of that version, where there is none.
        *("--no-python-downloads", "--python", sys.executable),
    ]
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0", "UV_HTTP_TIMEOUT": "20"}
    for mode in (["--offline"], []):
        result = subprocess.run(
            [*command, *mode],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if result.returncode == 0:
            break
    if any(words in result.stderr for words in UNREACHABLE):
        pytest.skip(f"no package index can be reached: {result.stderr.strip().splitlines()[-1]}")
    return result


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_pinned_versions_can_be_installed(python: str, system: str) -> None:
    result = resolve(python, SYSTEMS[system], ROOT / "constraints.txt")
    assert result.returncode == 0, result.stderr


def test_a_pin_that_a_python_cannot_have_is_found(tmp_path: Path) -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "soupsieve==2.10\n" in pins, "later ones ask for Python 3.11.5"
    (tmp_path / "constraints.txt").write_text(pins.replace("soupsieve==2.10", "soupsieve==4.1.2"))
    result = resolve("3.11.0", SYSTEMS["Linux"], tmp_path / "constraints.txt")
    assert result.returncode != 0 and "soupsieve" in result.stderr
