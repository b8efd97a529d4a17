"""Several processes learn what one learns, and a run that is cut off goes on as if it had not been."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

PAIRS = """
import sys
import numpy as np
import torch
from alden_lite.commands import train
from alden_lite.data.pairs import Pairs

torch.set_num_threads(1)
rng = np.random.default_rng(0)
normal = rng.normal(40, 40, (2, 96, 96)).astype(np.int16)
low = normal + rng.normal(0, 30, normal.shape).astype(np.int16)
pairs = Pairs(low, normal, np.ones(2), np.arange(2))
"""
COMMAND = (  # `python -m alden_lite train`, but on two small slices
    PAIRS
    + """
train.training_pairs = lambda protocol, volumes: pairs
train._save_picture = lambda *_: None
sys.exit(train.main(sys.argv[1:]))
"""
)
NOTEBOOK = (  # what a cell says
    PAIRS
    + """
from alden_lite.alden import Recipe, Training

recipe = Recipe(
    steps=3, batch=4, crop=56, bank=8, warmup=0, learning_rate=1e-3, contrastive_crops=2,
    devices=2, accelerator="cpu",
)
run = Training(recipe, pairs, sys.argv[1])
for report in run.run(report_every=3, progress=False):
    pass
if run.fabric.is_global_zero:  # one voice: two would write into each other's lines
    print("processes", run.fabric.world_size)
"""
)
ALDEN = [
    *("steps=3", "batch=4", "crop=56", "bank=8", "warmup=0", "learning_rate=1e-3", "accelerator=cpu"),
    "contrastive_crops=2",
]
PLAIN = [
    *("steps=24", "batch=2", "crop=32", "bank=4", "warmup=0", "learning_rate=1e-3", "accelerator=cpu"),
    *("adversarial_weight=0", "contrastive_weight=0"),
]
with_signals = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way there")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("processes")
    (made / "command.py").write_text(COMMAND)
    (made / "notebook.py").write_text(NOTEBOOK)
    return made


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Python with these arguments, one thread in each process, its output in a pipe."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def finished(process: subprocess.Popen[str], *, status: int = 0) -> str:
    """Its output, once it has ended with this status."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == status, errors[-3000:]
    return output


def state(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"step_{step:06d}" / "state.safetensors")


@pytest.fixture(scope="module")
def of_one(folder: Path) -> dict[str, torch.Tensor]:
    """What the command learns in one process."""
    finished(start(folder, "command.py", "--out", "of_one", "--set", *ALDEN))
    return state(folder / "of_one", 3)


@pytest.mark.parametrize("way", ["notebook under torchrun", "command under torchrun", "command under Fabric"])
def test_two_processes_learn_what_one_learns(way: str, folder: Path, of_one: dict[str, torch.Tensor]) -> None:
    out = way.replace(" ", "_")
    command = ["command.py", "--out", out, "--set", *ALDEN, "devices=2"]
    arguments = {
        "notebook under torchrun": [*TORCHRUN, "notebook.py", out],
        "command under torchrun": [*TORCHRUN, *command],
        "command under Fabric": command,
    }
    output = finished(start(folder, *arguments[way]))
    if "notebook" in way:
        assert "processes 2" in output
    else:
        assert '"devices": 2' in output
    of_two = state(folder / out, 3)
    assert of_two.keys() == of_one.keys()
    # Adam's first steps are the gradient's sign times the rate: sums in another order can flip a few signs
    # of gradients near zero, and then weights differ by steps x rate; nearly all agree far better.
    for network in ("generator.", "discriminator."):
        names = [name for name in of_one if name.startswith(network)]
        gaps = torch.cat([(of_one[name] - of_two[name]).abs().flatten() for name in names])
        assert (gaps < 1e-5).float().mean() > 0.99
        if network == "generator.":
            assert gaps.max() <= 2 * 3 * 1e-3


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> dict[str, torch.Tensor]:
    """What the plain recipe ends with when nobody disturbs it."""
    finished(start(folder, "command.py", "--out", "unbroken", "--set", *PLAIN))
    return state(folder / "unbroken", 24)


def reached(out: Path, process: subprocess.Popen[str]) -> Iterator[int]:
    """The newest checkpoint's step, again and again, while the process runs."""
    while process.poll() is None:
        yield max((int(path.name[5:]) for path in out.glob("step_*")), default=0)
        time.sleep(0.002)


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@with_signals
def test_sigterm_ends_a_run_with_a_checkpoint(folder: Path, unbroken: dict[str, torch.Tensor]) -> None:
    out = folder / "terminated"
    process = start(folder, "command.py", "--out", str(out), "--report-every", "5", "--set", *PLAIN)
    for step in reached(out, process):
        if step:
            process.send_signal(signal.SIGTERM)
            break
    output = finished(process, status=143)
    last = max(int(path.name[5:]) for path in out.glob("step_*"))
    assert f"stopped after step {last}" in output
    assert last < 24
    finished(start(folder, "command.py", "--out", str(out), "--resume"))
    assert_same(state(out, 24), unbroken)


@with_signals
def test_sigterm_to_one_of_two_processes_ends_both(folder: Path) -> None:
    out = folder / "terminated_two"
    settings = [*PLAIN, "steps=100000", "devices=2"]
    process = start(folder, "command.py", "--out", str(out), "--report-every", "1", "--set", *settings)
    for step in reached(out, process):
        if step >= 2:
            process.send_signal(signal.SIGTERM)
            break
    assert "stopped after step" in finished(process, status=143)


@with_signals
def test_a_run_killed_at_random_moments_ends_where_an_unbroken_one_does(
    folder: Path, unbroken: dict[str, torch.Tensor]
) -> None:
    out, chance = folder / "killed", random.Random(0)
    for _ in range(3):
        resume = ["--resume"] if any(out.glob("step_*")) else ["--set", *PLAIN]
        process = start(folder, "command.py", "--out", str(out), "--report-every", "1", *resume)
        start_from = None
        for step in reached(out, process):
            start_from = step if start_from is None else start_from
            if step >= start_from + chance.randint(1, 4):  # steps take as long as saves do
                time.sleep(chance.uniform(0, 0.1))
                process.kill()
                break
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    finished(start(folder, "command.py", "--out", str(out), "--resume"))
    assert_same(state(out, 24), unbroken)
