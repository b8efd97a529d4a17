"""No test reaches the network, every executed notebook's time is shown at the end; what tests share."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest

from alden_lite.lessons.runner.offline import refuse_network

if TYPE_CHECKING:
    from alden_lite.data.pairs import Pairs


def pytest_configure() -> None:
    refuse_network("tests")  # loopback stays open: Jupyter kernels need it


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    times = {
        name.removeprefix("seconds of "): value
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name.startswith("seconds of ")
    }
    if times:
        terminalreporter.section("seconds of notebooks (90 each in fast mode)")
        for name, seconds in sorted(times.items()):
            terminalreporter.write_line(f"{seconds:6.1f}  {name}")


@pytest.fixture(scope="session")
def benchmark_script() -> Callable[[str], ModuleType]:
    """Loads a script of benchmarks/ by its name, without running it."""

    def load(name: str) -> ModuleType:
        file = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"{name}_benchmark", file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="module")
def pairs() -> "Pairs":
    """Three flat slices of soft tissue with noise: sigma 8 HU at normal dose, 16 HU more at low dose."""
    from alden_lite.data.pairs import Pairs

    rng = np.random.default_rng(0)
    normal = 50 + rng.normal(0, 8, (3, 128, 128))
    low = normal + rng.normal(0, 16, normal.shape)
    return Pairs(low.astype(np.int16), normal.astype(np.int16), np.full(3, 0.25), np.arange(3))
