"""The cell tagged `parameters` of a notebook, read strictly.

papermill only warns of a parameter that a notebook does not have, and it reads the cell with a
regular expression that skips some lines in silence (`Literal[...]` annotations, strings with an
equals sign). Here a notebook that papermill would misread is refused, and so is an unknown
parameter or a value of the wrong kind, before anything runs. Taught in chapter 10.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alden_lite.lessons.records import Value

__all__ = ["CourseError", "assign", "fit", "read_parameters"]

KINDS: dict[str, type[int] | type[float] | type[str] | type[bool]] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
}


class CourseError(Exception):
    """The course cannot run as asked; the text says what to change."""


def read_parameters(notebook: Path) -> dict[str, Value]:
    """The parameters of a notebook with their defaults; empty if it has no cell for them.

    Raises `CourseError` if the file is no notebook, if two cells are tagged, if the cell holds more
    than plain literals (int, float, str, bool), or if papermill would misread it.
    """
    source = _tagged_source(notebook)
    try:
        statements = ast.parse(source).body
        defaults = dict(_name_and_default(statement) for statement in statements)
    except (SyntaxError, ValueError) as error:
        raise CourseError(f"{notebook.name}: cell `parameters`: {error}") from None
    misread = set(defaults).symmetric_difference(_names_papermill_sees(source))
    if misread:
        names = ", ".join(sorted(misread))
        raise CourseError(
            f"{notebook.name}: papermill misreads {names} in the cell `parameters`; "
            "write one `name: kind = literal  # comment` a line, without a second `=`"
        )
    return defaults


def assign(notebooks: Iterable[Path], parameters: Mapping[str, object]) -> dict[Path, dict[str, Value]]:
    """For each notebook, those of the `parameters` that it has, as values of the right kind.

    Raises `CourseError` for a parameter that no notebook has and for a value of the wrong kind.
    """
    defaults = {notebook: read_parameters(notebook) for notebook in notebooks}
    there = sorted({name for of_one in defaults.values() for name in of_one})
    for name in parameters:
        if name not in there:
            listed = ", ".join(there) or "none"
            raise CourseError(f"no chosen notebook has a parameter {name!r}; there are: {listed}")
    return {
        notebook: {name: fit(name, parameters[name], of_one[name]) for name in parameters if name in of_one}
        for notebook, of_one in defaults.items()
    }


def fit(name: str, value: object, default: Value) -> Value:
    """`value` as the kind of `default`; text is read, so that "20" fits 10 and "true" fits False.

    Raises `CourseError` if it does not fit.

    >>> fit("steps", "20", 10)
    20
    """
    kind = type(default)
    if isinstance(value, str) and kind is not str:
        value = _from_text(value, kind)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise CourseError(f"parameter {name!r} is of kind {kind.__name__}, {value!r} does not fit")
    return value


def _from_text(text: str, kind: type[Value]) -> object:
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return kind(text)
    except ValueError:
        return text


def _tagged_source(notebook: Path) -> str:
    import nbformat

    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except Exception as error:  # nbformat raises half a dozen kinds
        raise CourseError(f"{notebook} cannot be read as a notebook: {error}") from error
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) > 1:
        raise CourseError(f"{notebook.name}: {len(tagged)} cells are tagged `parameters`, want one")
    return str(tagged[0].source) if tagged else ""


def _name_and_default(statement: ast.stmt) -> tuple[str, Value]:
    """Name and value of one `name = literal` or `name: kind = literal`; `ValueError` for others."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name, _literal(name, value)
        case ast.AnnAssign(
            target=ast.Name(id=name), annotation=ast.Name(id=kind), value=ast.expr() as value
        ) if kind in KINDS:
            default = _literal(name, value)
            if kind == "float" and type(default) is int:
                return name, float(default)
            if type(default) is KINDS[kind]:
                return name, default
    text = ast.unparse(statement)
    raise ValueError(f"`{text}` is not `name: kind = literal` with kind {', '.join(KINDS)}")


def _literal(name: str, node: ast.expr) -> Value:
    try:
        value: Any = ast.literal_eval(node)
    except ValueError:
        value = None
    if type(value) not in KINDS.values():
        raise ValueError(f"`{name}` must be a plain {', '.join(KINDS)}, not `{ast.unparse(node)}`")
    return value


def _names_papermill_sees(source: str) -> set[str]:
    from papermill.translators import PythonTranslator

    logging.getLogger("papermill.translators").setLevel(logging.ERROR)  # our message says more
    return {parameter.name for parameter in PythonTranslator.inspect({"source": source})}
