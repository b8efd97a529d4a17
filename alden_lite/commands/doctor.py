"""`alden-lite doctor`: what is installed and what is missing, in a block to paste into an issue."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from collections.abc import Sequence

__all__ = ["main"]

NEEDED = ("numpy", "torch", "torchvision", "timm", "finufft", "papermill")


def main(argv: Sequence[str]) -> int:
    """Print versions, cores, device and assets; returns 1 if something needed is missing."""
    parser = argparse.ArgumentParser(prog="alden-lite doctor", description=main.__doc__)
    parser.parse_args(argv)
    found = {name: _version(name) for name in NEEDED} | {"notebooks": _notebooks()}
    lines = {"alden_lite": _own_version(), "python": f"{platform.python_version()}, {sys.platform}"}
    assets = _assets()
    missing = [name for name, version in found.items() if version.startswith("missing")]
    missing += [name for name, state in assets.items() if state != "ready"]
    lines |= {**found, "cores": _cores(), "device": _device(), **assets}
    for name, value in lines.items():
        print(f"{name:<18} {value}")
    print(f"missing: {', '.join(missing)}" if missing else "nothing is missing")
    if "finufft" in missing:
        print("pip install finufft; without a wheel, as on Linux on ARM, it takes cmake and a C++ compiler")
    if any(name in assets for name in missing):
        print("python -m alden_lite assets fetches the missing assets")
    return 1 if missing else 0


def _version(package: str) -> str:
    # Imported, not looked up: a torchvision that does not fit its torch is installed but unusable.
    try:
        module = importlib.import_module(package)
    except Exception as error:
        return f"missing: {type(error).__name__}: {error}"
    return str(getattr(module, "__version__", "unknown"))


def _own_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("alden-lite")
    except PackageNotFoundError:
        return "not installed, run from its folder"


def _notebooks() -> str:
    from alden_lite.commands.notebooks import NotebooksError, course_notebooks

    try:
        return str(len(course_notebooks()))
    except NotebooksError as error:
        return f"missing: {error}"


def _cores() -> str:
    from alden_lite.lessons.runner.course import cores

    return f"{cores()} of {os.cpu_count()}"


def _device() -> str:
    try:
        import torch
    except Exception:  # reported with the versions
        return "unknown"
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _assets() -> dict[str, str]:
    """For each asset "ready" or the first line of what is wrong with it."""
    from alden_lite.data.assets import ASSETS, AssetError, path

    states = {}
    for name in ASSETS:
        try:
            path(name)
            states[name] = "ready"
        except AssetError as error:
            states[name] = str(error).splitlines()[0]
    return states
