"""The command line, `python -m alden_lite COMMAND`; a command is imported when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from collections.abc import Sequence

__all__ = ["doctor", "main"]

COMMANDS = {
    "doctor": "say what is installed and what is missing, in a block to paste into an issue",
    "assets": "fetch the sample CT and the weights once, or verify them",
    "course": "execute the notebooks offline and in parallel, and collect their records",
    "train": "train ALDEN, or one of its ablations",
    "denoise": "denoise a NIfTI file or a DICOM series with a trained generator",
}
MODULES = {"assets": "assets", "course": "course", "train": "training", "denoise": "denoising"}
"""The module of each command but `doctor`; its `main(argv)` returns the exit status."""

NEEDED = ("numpy", "torch", "torchvision", "timm", "finufft", "papermill")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command with the arguments after its name; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Everything after the command's name is the command's own, even --help.
    command = arguments[0] if arguments[:1] and arguments[0] in COMMANDS else ""
    if not command:
        _parser().parse_args(arguments)
    if command == "doctor":
        return doctor(arguments[1:])
    # Read when torch loads. Spinning threads are ten times slower once anything else runs on their cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    module = importlib.import_module(f"alden_lite.{MODULES[command]}")
    try:
        return int(module.main(arguments[1:]) or 0)
    except (RuntimeError, ValueError, OSError) as error:
        # Ours say what was wrong and what to do; those of libraries need their traceback.
        if not type(error).__module__.startswith("alden_lite") and not isinstance(
            error, ValueError | OSError
        ):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


def doctor(argv: Sequence[str]) -> int:
    """Print versions, cores, device and assets; returns 1 if something needed is missing."""
    parser = argparse.ArgumentParser(prog="python -m alden_lite doctor", description=doctor.__doc__)
    parser.parse_args(argv)
    found = {name: _version(name) for name in NEEDED}
    lines = {"alden_lite": _own_version(), "python": f"{platform.python_version()}, {sys.platform}"}
    assets = _assets()
    missing = [name for name, version in found.items() if version.startswith("missing")]
    missing += [name for name, state in assets.items() if state != "ready"]
    lines |= {**found, "cores": _cores(), "device": _device(), **assets}
    for name, value in lines.items():
        print(f"{name:<18} {value}")
    print(f"missing: {', '.join(missing)}" if missing else "nothing is missing")
    if any(name in assets for name in missing):
        print("python -m alden_lite assets fetches the missing assets")
    return 1 if missing else 0


def _parser() -> argparse.ArgumentParser:
    """The parser of the first word only: it prints help, or refuses an unknown command."""
    listed = "\n".join(f"  {name:<9} {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m alden_lite",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="A course in anatomy-aware low-dose CT denoising.\n\ncommands:\n" + listed,
        epilog="python -m alden_lite COMMAND --help explains one command. Not for clinical use.",
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the above")
    return parser


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


def _cores() -> str:
    from alden_lite.course import cores

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
    from alden_lite.assets import ASSETS, AssetError, path

    states = {}
    for name in ASSETS:
        try:
            path(name)
            states[name] = "ready"
        except AssetError as error:
            states[name] = str(error).splitlines()[0]
    return states


if __name__ == "__main__":
    sys.exit(main())
