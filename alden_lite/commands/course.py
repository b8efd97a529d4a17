"""`alden-lite course`: execute the notebooks offline and in parallel, and collect their records."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from alden_lite.commands.notebooks import course_notebooks
from alden_lite.lessons.runner.course import TIMEOUTS_S, run_all
from alden_lite.lessons.runner.parameters_cell import CourseError
from alden_lite.lessons.runner.report import Run, write_index, write_records

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command `course`; returns 0, 1 if a notebook failed, 2 if nothing ran, 130 on Ctrl-C."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a killed run tidies up as well
    try:
        notebooks = _choose(arguments.notebooks, arguments.only)
        parameters = dict(arguments.parameters)
        options = {"jobs": arguments.jobs, "timeout": arguments.timeout}
        runs = run_all(notebooks, arguments.out, parameters, **options)
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: all kernels are stopped", file=sys.stderr)
        return 130
    write_records(runs, arguments.out)
    index = write_index(runs, arguments.out)
    return _summarise(runs, index)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alden-lite course",
        description="Execute the notebooks of the course, offline and in parallel; leave the "
        "executed files, index.html and records.json.",
        epilog="example: alden-lite course --out runs/ --only 08 -p mode laptop",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for everything written")
    parser.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter in every notebook that has it; may be repeated",
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="notebooks that begin so, such as 08"
    )
    parser.add_argument("--jobs", type=_positive, help="notebooks at a time (default: 2, if cores)")
    parser.add_argument(
        "--timeout",
        type=_positive,
        metavar="SECONDS",
        help=f"longest time for one cell (default, by mode: {TIMEOUTS_S})",
    )
    parser.add_argument(
        "--notebooks", type=Path, metavar="FOLDER", help="other notebooks than the course's own"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _choose(folder: Path | None, only: Sequence[str]) -> list[Path]:
    """Of the notebooks in `folder`, or the course's own, those that begin with one of `only`, in order."""
    notebooks = course_notebooks() if folder is None else sorted(folder.glob("*.ipynb"))
    if not notebooks:
        raise CourseError(f"there are no notebooks in {folder}; --notebooks names another folder")
    for start in only:
        if not any(notebook.name.startswith(start) for notebook in notebooks):
            names = ", ".join(notebook.stem for notebook in notebooks)
            raise CourseError(f"no notebook begins with {start!r}; there are: {names}")
    starts = tuple(only) or ("",)
    return [notebook for notebook in notebooks if notebook.name.startswith(starts)]


def _summarise(runs: Sequence[Run], index: Path) -> int:
    failed = [run for run in runs if run.error]
    for run in failed:
        print(f"\nFAILED {run.error}", file=sys.stderr)
    seconds = sum(run.seconds for run in runs)
    print(f"{len(runs) - len(failed)} of {len(runs)} notebooks passed, {seconds:.0f} s: {index}")
    return 1 if failed else 0
