"""What a run of the course leaves for people and programs: `index.html` and `records.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import quote

from alden_lite.lessons.records import Value

__all__ = ["Run", "write_index", "write_records"]


@dataclass(frozen=True)
class Run:
    """One executed notebook.

    `path` is the executed file, complete or, with an `error`, up to the cell that failed. `records`
    are in the notebook's order; `exercises` maps their ids to "right", "wrong" or "not attempted
    yet". `seconds` is from the start of the kernel to its end.
    """

    notebook: str
    path: Path
    seconds: float
    records: dict[str, Value] = field(default_factory=dict)
    exercises: dict[str, str] = field(default_factory=dict)
    error: str = ""

    @property
    def status(self) -> str:
        """`passed` or `failed`."""
        return "failed" if self.error else "passed"


def write_records(runs: Iterable[Run], out: Path) -> Path:
    """Write `records.json`: for each notebook its status, seconds, records and exercises."""
    table = {
        run.notebook: {
            "status": run.status,
            "seconds": round(run.seconds, 1),
            "records": run.records,
            "exercises": run.exercises,
        }
        for run in runs
    }
    path = out / "records.json"
    path.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def write_index(runs: Iterable[Run], out: Path) -> Path:
    """Write `index.html`, one row a notebook; a plain page that needs no script and no network."""
    rows = "\n".join(_row(run) for run in runs)
    path = out / "index.html"
    path.write_text(_PAGE.format(rows=rows), encoding="utf-8")
    return path


def _row(run: Run) -> str:
    link = f'<a href="{quote(run.path.name)}">{escape(run.notebook)}</a>'
    error = f"<pre>{escape(run.error)}</pre>" if run.error else ""
    return (
        f'<tr class="{run.status}"><th scope="row">{link}</th><td>{run.status}{error}</td>'
        f"<td>{run.seconds:.1f}</td><td>{_list(run.records)}</td><td>{_list(run.exercises)}</td></tr>"
    )


def _list(values: dict[str, Value] | dict[str, str]) -> str:
    items = (f"<dt>{escape(name)}</dt><dd>{escape(_short(value))}</dd>" for name, value in values.items())
    return f"<dl>{''.join(items)}</dl>" if values else "none"


def _short(value: Value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>alden_lite: executed notebooks</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }}
table {{ border-collapse: collapse; width: 100%; }}
caption {{ text-align: left; padding: .5rem 0; }}
th, td {{ border: 1px solid #767676; padding: .4rem .6rem; text-align: left; vertical-align: top; }}
.failed td:nth-of-type(1) {{ font-weight: bold; }}
dl {{ margin: 0; display: grid; grid-template-columns: auto auto; gap: 0 1rem; }}
dd {{ margin: 0; }}
pre {{ white-space: pre-wrap; font-weight: normal; margin: .5rem 0 0; }}
</style>
</head>
<body>
<main>
<h1>Executed notebooks</h1>
<table>
<caption>Status, time and records of each notebook; the name links to the executed file.
Not for clinical use.</caption>
<thead><tr><th scope="col">Notebook</th><th scope="col">Status</th><th scope="col">Seconds</th>
<th scope="col">Records</th><th scope="col">Exercises</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</main>
</body>
</html>
"""
