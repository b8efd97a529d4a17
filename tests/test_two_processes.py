"""Two gloo processes train as one does with the same global batch."""

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

SCRIPT = """
import sys
from dataclasses import replace
import numpy as np
import torch
from alden_lite.data import Pairs
from alden_lite.training import Recipe, Training

torch.set_num_threads(1)
rng = np.random.default_rng(0)
normal = rng.normal(40, 40, (2, 96, 96)).astype(np.int16)
low = normal + rng.normal(0, 30, normal.shape).astype(np.int16)
pairs = Pairs(low, normal, np.ones(2), np.arange(2))
recipe = Recipe(steps=3, batch=4, crop=56, bank=8, warmup=0, learning_rate=1e-3)
recipe = replace(recipe, devices=int(sys.argv[2]), accelerator="cpu")
training = Training(recipe, pairs, sys.argv[1])
for report in training.run(report_every=3, progress=False):
    pass
print("processes", training.fabric.world_size)
"""


def train(script: Path, folder: Path, processes: int) -> dict[str, torch.Tensor]:
    """Run the script in one process or under torchrun; the tensors of its checkpoint."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *(torchrun if processes > 1 else []), str(script), str(folder), str(processes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"processes {processes}" in done.stdout
    return load_file(folder / "step_000003" / "state.safetensors")


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    one, two = (train(script, tmp_path / f"of_{n}", n) for n in (1, 2))
    assert one.keys() == two.keys()
    # Adam's first steps are the gradient's sign times the rate: sums in another order can flip a few signs
    # of gradients near zero, and then weights differ by steps x rate; nearly all agree far better.
    gaps = torch.cat([(one[k] - two[k]).abs().flatten() for k in one if k.startswith("generator.")])
    assert gaps.max() <= 2 * 3 * 1e-3
    assert (gaps < 1e-5).float().mean() > 0.99
