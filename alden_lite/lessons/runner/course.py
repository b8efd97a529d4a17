"""Run the notebooks of the course: strictly, in parallel, offline, and keep what they record.

`python -m alden_lite course --out runs/ -p mode laptop` executes every notebook with papermill and
leaves the executed files, `index.html` and `records.json`. Strict means that an unknown parameter
stops everything before it begins, that each notebook runs with the interpreter that runs this file,
without network and without the user's own IPython start-up files, and that no cell runs for ever.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alden_lite.lessons.records import CHECK_MIME, RECORD_MIME, Value, payloads
from alden_lite.lessons.runner.parameters_cell import CourseError, assign
from alden_lite.lessons.runner.report import Run

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager

__all__ = ["CourseError", "NotebookFailedError", "Run", "cores", "run", "run_all"]

TIMEOUTS_S = {"fast": 1800, "laptop": 7200, "full": 86_400}
"""Longest time for one cell, by mode; a training run is one cell. Always set: cells with widgets can hang."""

TRACEBACK_LINES = 12


class NotebookFailedError(CourseError):
    """A cell failed; `run` has the path of the partly executed notebook and the short traceback."""

    def __init__(self, run: Run) -> None:
        """Keep the failed `run`; its error becomes the message."""
        super().__init__(run.error)
        self.run = run


@dataclass(frozen=True)
class _Task:
    """One notebook to execute: picklable, so that it can travel to another process."""

    notebook: Path
    out: Path
    parameters: dict[str, Value]
    timeout: int
    threads: int


def run(
    notebook: Path,
    out: Path,
    parameters: Mapping[str, object] | None = None,
    *,
    timeout: int | None = None,
    threads: int | None = None,
) -> Run:
    """Execute one notebook into the folder `out`, which is made if it is missing.

    The notebook's own folder is its working directory, as in Jupyter. `timeout` is in seconds a cell
    (by mode if None), `threads` the CPU threads of its libraries (all cores by default). Raises `CourseError`
    if the notebook or a parameter is refused, and `NotebookFailedError` if a cell fails: the
    executed part is then kept as `NAME.failed.ipynb`.
    """
    notebook, out = Path(notebook), Path(out)
    given = assign([notebook], parameters or {})[notebook]
    _refuse_overwriting([notebook], out)
    timeout = timeout or _timeout(parameters)
    return _execute(_Task(notebook, out, given, timeout, threads or cores()))


def run_all(
    notebooks: Sequence[Path],
    out: Path,
    parameters: Mapping[str, object] | None = None,
    *,
    jobs: int | None = None,
    timeout: int | None = None,
) -> list[Run]:
    """Execute notebooks in parallel processes with a progress bar; runs come back in their order.

    A failed notebook does not stop the others: its run has an `error`. `jobs` is at most two by
    default (one in the modes `laptop` and `full`), and together they use no more threads than there
    are cores. A parameter goes to those notebooks that have it. Raises `CourseError`, before anything
    runs, if one is refused.
    """
    given = assign(notebooks, parameters or {})
    _refuse_overwriting(notebooks, out)
    # A long run gets all cores, one notebook after the other.
    jobs = jobs or (min(2, cores()) if _timeout(parameters) == TIMEOUTS_S["fast"] else 1)
    threads, timeout = max(1, cores() // jobs), timeout or _timeout(parameters)
    tasks = [_Task(notebook, out, given[notebook], timeout, threads) for notebook in notebooks]
    runs = dict(_in_parallel(tasks, jobs))
    return [runs[task.notebook] for task in tasks]


def _timeout(parameters: Mapping[str, object] | None) -> int:
    return TIMEOUTS_S.get(str((parameters or {}).get("mode")), TIMEOUTS_S["fast"])


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# One notebook


def _execute(task: _Task) -> Run:
    """Execute into a temporary name, which then becomes NAME.ipynb or NAME.failed.ipynb."""
    name = task.notebook.stem
    task.out.mkdir(parents=True, exist_ok=True)
    running, failed = (task.out / f"{name}.{state}.ipynb" for state in ("running", "failed"))
    failed.unlink(missing_ok=True)  # of an earlier run
    start = time.perf_counter()
    try:
        records, exercises = _collect(_papermill(task, running))
    except Exception as error:  # of the notebook, of its kernel, or of what it records
        if running.exists():
            running.replace(failed)
        text = f"{name}: {_explain(error)}\nkept as far as it came: {failed}"
        run = Run(name, failed, time.perf_counter() - start, error=text)
        raise NotebookFailedError(run) from error
    except BaseException:  # interrupted
        running.unlink(missing_ok=True)
        raise
    done = running.replace(task.out / task.notebook.name)
    return Run(name, done, time.perf_counter() - start, records, exercises)


def _papermill(task: _Task, output: Path) -> list[dict[str, Any]]:
    """The cells of the executed notebook, which is saved to `output` after every cell."""
    import papermill

    with tempfile.TemporaryDirectory(prefix="alden_lite-") as private:
        executed = papermill.execute_notebook(
            task.notebook,
            output,
            parameters=task.parameters,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            execution_timeout=task.timeout,
            kernel_manager_class=_kernel_manager(Path(private), task.threads),
            shutdown_kernel="immediate",  # with all the processes it has started
            resources={"metadata": {"path": str(task.notebook.resolve().parent)}},
        )
    cells: list[dict[str, Any]] = executed.cells
    return cells


def _kernel_manager(private: Path, threads: int) -> type[AsyncKernelManager]:
    """A manager whose only kernel is this interpreter, offline, with `private` as IPython's folder.

    Installed kernels are not looked at: "python3" may be missing or belong to another Python.
    """
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    environment = {
        "HF_HUB_OFFLINE": "1",
        "IPYTHONDIR": str(private),
        "PIP_NO_INDEX": "1",
        **{f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")},
        # Threads that spin while they wait are ten times slower once anything else runs on their cores.
        "OMP_WAIT_POLICY": "PASSIVE",
        # Executed notebooks are read without a kernel: their viewers must work without one.
        "ALDEN_LITE_STATIC": "1",
    }
    command = [sys.executable, "-m", "alden_lite.lessons.runner.offline", "-f", "{connection_file}"]
    command.append("--log-level=ERROR")  # not the warning that loopback is not encrypted

    class OnlyThisInterpreter(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return KernelSpec(argv=command, display_name="Python 3", language="python", env=environment)

    class Manager(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _only_this_interpreter(self) -> KernelSpecManager:
            return OnlyThisInterpreter()

    return Manager


def _collect(cells: list[dict[str, Any]]) -> tuple[dict[str, Value], dict[str, str]]:
    """The records and the exercises' states in executed cells; a record's name must be unique."""
    records: dict[str, Value] = {}
    for record in payloads(cells, RECORD_MIME):
        if record["name"] in records:
            raise CourseError(f"two records are named {record['name']!r}")
        records[record["name"]] = record["value"]
    exercises = {check["exercise"]: check["status"] for check in payloads(cells, CHECK_MIME)}
    return records, exercises


def _explain(error: Exception) -> str:
    """Which cell failed and how, with the last lines of its traceback, free of colours."""
    from papermill.exceptions import PapermillExecutionError

    if not isinstance(error, PapermillExecutionError):
        return f"{type(error).__name__}: {str(error).strip()}"
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    lines = [line.rstrip() for line in plain.splitlines() if line.strip()]
    head = f"cell In [{error.exec_count}] failed with {error.ename}: {error.evalue}"
    return "\n    ".join([head, *lines[-TRACEBACK_LINES:]])


# Many notebooks


def _in_parallel(tasks: Sequence[_Task], jobs: int) -> Iterator[tuple[Path, Run]]:
    from tqdm import tqdm

    # Spawned, not forked: a fork would copy whatever threads torch has in this process.
    context = multiprocessing.get_context("spawn")
    not_ours = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_leave_ctrl_c_to_the_parent)
    try:
        futures = {pool.submit(_run_or_failed, task): task for task in tasks}
        with tqdm(total=len(tasks), unit="notebook") as progress:
            for future in as_completed(futures):
                run = future.result()
                progress.set_postfix_str(f"{run.notebook} {run.status} in {run.seconds:.0f} s")
                progress.update()
                yield futures[future].notebook, run
    except BrokenProcessPool as error:
        message = "a worker process died, perhaps for want of memory; try --jobs 1"
        raise CourseError(message) from error
    except BaseException:
        for worker in set(multiprocessing.active_children()) - not_ours:
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_ctrl_c_to_the_parent() -> None:
    """In a new worker: the parent alone hears Ctrl-C, and then asks each worker once to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)


def _stop(*_: object) -> None:
    # Ignored from now on, lest a second signal interrupts the stopping of the kernel.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit


def _run_or_failed(task: _Task) -> Run:
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:  # asked to stop: don't take the next one
        raise SystemExit
    try:
        return _execute(task)
    except NotebookFailedError as error:
        return error.run


def _refuse_overwriting(notebooks: Sequence[Path], out: Path) -> None:
    for notebook in notebooks:
        if notebook.resolve().parent == out.resolve():
            raise CourseError(f"{out} holds {notebook.name} itself; choose another folder to write")
