"""The command line, `alden-lite COMMAND`; a command is imported when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

COMMANDS = {
    "doctor": "say what is installed and what is missing, in a block to paste into an issue",
    "assets": "fetch the sample CT and the weights once, or verify them",
    "notebooks": "copy the notebooks into a folder of yours; overwrites nothing",
    "course": "execute the notebooks offline and in parallel, and collect their records",
    "train": "train ALDEN, or one of its ablations",
    "denoise": "denoise a NIfTI file or a DICOM series with a trained generator",
}
"""Each is a file of `commands`, whose `main(argv)` returns the exit status."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command with the arguments after its name; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Everything after the command's name is the command's own, even --help.
    command = arguments[0] if arguments[:1] and arguments[0] in COMMANDS else ""
    if not command:
        _parser().parse_args(arguments)
    # Read when torch loads. Spinning threads are ten times slower once anything else runs on their cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    module = importlib.import_module(f"alden_lite.commands.{command}")
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


def _parser() -> argparse.ArgumentParser:
    """The parser of the first word only: it prints help, or refuses an unknown command."""
    listed = "\n".join(f"  {name:<9} {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="alden-lite",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="A course in anatomy-aware low-dose CT denoising.\n\ncommands:\n" + listed,
        epilog="alden-lite COMMAND --help explains one command; python -m alden_lite COMMAND is the same. "
        "Not for clinical use.",
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the above")
    return parser


if __name__ == "__main__":
    sys.exit(main())
