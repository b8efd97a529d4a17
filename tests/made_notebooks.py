"""Small notebooks, made up for tests."""

from pathlib import Path

import nbformat

PARAMETERS = 'mode: str = "fast"  # how much is computed\nsteps: int = 10  # updates\n'


def notebook(folder: Path, name: str, *cells: str, parameters: str | None = PARAMETERS) -> Path:
    """Write a notebook of code cells, with a tagged cell first unless `parameters` is None."""
    new = nbformat.v4.new_notebook()
    # Wrong on purpose: no machine has this kernel, and the runner must not care.
    new.metadata.kernelspec = {"name": "another", "language": "python", "display_name": "Another"}
    if parameters is not None:
        tags = {"tags": ["parameters"]}
        new.cells.append(nbformat.v4.new_code_cell(parameters, metadata=tags))
    new.cells += [nbformat.v4.new_code_cell(source) for source in cells]
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(new, path)
    return path


RECORDS = "from alden_lite import lessons\nlessons.record('{name}', {value})"
