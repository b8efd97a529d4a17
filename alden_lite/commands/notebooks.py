"""`alden-lite notebooks`: copies of the course's notebooks, yours to change; nothing is ever overwritten."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["NotebooksError", "copy_notebooks", "course_notebooks", "main"]


class NotebooksError(RuntimeError):
    """The notebooks are missing, or are not to be copied there; the text says what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Copy the course's notebooks into a folder, where they are yours to run and change."""
    parser = argparse.ArgumentParser(
        prog="alden-lite notebooks",
        description=main.__doc__,
        epilog="Nothing is overwritten: without --missing, one file of the same name stops it all.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="made if it is missing")
    parser.add_argument(
        "--missing", action="store_true", help="copy only the notebooks that are not there yet"
    )
    options = parser.parse_args(argv)
    copied, kept = copy_notebooks(options.folder, missing=options.missing)
    print(f"notebooks in {options.folder}: {len(copied)} copied, {len(kept)} kept as they were")
    if kept:
        print("The course's may be newer than one you kept: move yours away, and the next call copies it.")
    return 0


def course_notebooks() -> list[Path]:
    """The course's own notebooks, in order: those within an installed package, or those of the checkout.

    Raises:
        NotebooksError: if there are none, because the package was not installed whole.
    """
    package = Path(__file__).parents[1]
    folders = [package / "_notebooks"]
    if (package.parent / "pyproject.toml").is_file():  # else a `notebooks` there is somebody else's
        folders.append(package.parent / "notebooks")
    for folder in folders:
        if found := sorted(folder.glob("*.ipynb")):
            return found
    raise NotebooksError(
        f"alden_lite came without its notebooks: there are none in {' or in '.join(map(str, folders))}. "
        "Install it again: pip install --force-reinstall --no-deps alden-lite"
    )


def copy_notebooks(folder: Path, *, missing: bool = False) -> tuple[list[Path], list[Path]]:
    """Copy the course's notebooks into `folder`, all or none; returns what was copied and what was there.

    Raises:
        NotebooksError: if `folder` is no folder, or, unless only `missing` ones are wanted, if one of the
            names is taken in it.
    """
    targets = {folder / notebook.name: notebook for notebook in course_notebooks()}
    if folder.exists() and not folder.is_dir():
        raise NotebooksError(f"{folder} is a file: name a folder to copy the notebooks to")
    taken = [target for target in targets if os.path.lexists(target)]
    if taken and not missing:
        others = f" and {len(taken) - 1} more" if taken[1:] else ""
        raise NotebooksError(
            f"nothing was copied: {folder} already has {taken[0].name}{others}. Name another folder, or copy "
            "only what is not there: --missing"
        )
    wanted = [target for target in targets if target not in taken]
    folder.mkdir(parents=True, exist_ok=True)
    # Beside their places first: a full disk leaves none of them, and a stopped copy is never taken for yours.
    with tempfile.TemporaryDirectory(prefix=".copying-", dir=folder) as private:
        for target in wanted:
            shutil.copyfile(targets[target], Path(private) / target.name)
        for target in wanted:
            (Path(private) / target.name).rename(target)
    return wanted, taken
