"""How fast do the generators denoise a 512 x 512 slice, and how well after equally long training?

    python benchmarks/speed.py [--minutes 3] [--rounds 5] [--every 4] [--clock wall|cpu]

Each generator is trained from scratch with L1 for the same time, on the same crops of the sample patient's
training slabs at a quarter dose, each at its own learning rate: as many steps as fit, the rate falling to
zero at the last one. PSNR is that of every n-th test slice in [-160, 240] HU. RED-CNN: 96 filters of 5 x 5
(Chen et al., IEEE TMI 2017), with the same precision and memory layout as the others. Minutes on a CPU are
far from what it was made for: the figures say what a generator gives for this time, not what it could become.
`--clock cpu` counts processor time: for one thread on a machine that is busy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from alden_lite.alden.denoising import denoise
from alden_lite.alden.training import Recipe, Training
from alden_lite.data.pairs import Pairs, make_pairs, training_pairs
from alden_lite.data.sample import load_sample, split_slices
from alden_lite.engine.speed import bfloat16_gain
from alden_lite.evaluation.quality import image_metrics

RATES = {"unet": 1e-3, "esau": 5e-4, "redcnn": 5e-4}
"""Generators and their learning rates."""

PRECISION = "bfloat16" if bfloat16_gain() > 1.2 else "float32"


def main() -> None:
    """Print one table and, as the last line, its figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--generators", nargs="+", choices=sorted(RATES), default=list(RATES))
    parser.add_argument("--minutes", type=float, default=3.0, help="of training, for each generator")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--every", type=int, default=4, help="use every n-th test slice")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    options = parser.parse_args()
    if options.rounds < 1 or options.every < 1 or options.minutes <= 0:
        parser.error("--rounds, --every and --minutes must be positive")
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    test = make_pairs(load_sample(), split_slices("test")[:: options.every], seed=1)
    runs = {name: _trained(name, 60 * options.minutes, clock) for name in options.generators}
    networks = {name: run.averaged.eval() for name, run in runs.items()}
    psnr = {name: _psnr_db(network, test) for name, network in networks.items()}
    slice_hu = torch.from_numpy(test.low[0].astype(np.float32))
    ms = {p: _slice_ms(networks, slice_hu, p, options.rounds, clock) for p in ("float32", PRECISION)}
    exact, fast = ms["float32"], ms[PRECISION]
    threads, noisy = torch.get_num_threads(), _psnr_db(None, test)
    print(f"{threads} threads, clock: {options.clock}. The low-dose slices have {noisy:.2f} dB.\n")
    print(f"| generator | parameters | ms a slice | ms, {PRECISION} | steps trained | PSNR dB |")
    print("|---|---|---|---|---|---|")
    for name, run in runs.items():
        size = sum(p.numel() for p in networks[name].parameters())
        print(
            f"| {name} | {size / 1e6:.2f} M | {exact[name]:.0f} | {fast[name]:.0f} | {run.done} "
            f"| {psnr[name]:.2f} |"
        )
    if {"unet", "redcnn"} <= set(runs):
        figures = {
            "speedup_vs_redcnn": exact["redcnn"] / exact["unet"],
            f"speedup_vs_redcnn_{PRECISION}": fast["redcnn"] / fast["unet"],
            "psnr_minus_redcnn": psnr["unet"] - psnr["redcnn"],
        }
        print(json.dumps({key: round(value, 3) for key, value in figures.items()}))


def _trained(name: str, seconds: float, clock: Callable[[], float]) -> Training:
    """A generator trained for so long; how long a step takes is measured first, on a run thrown away."""
    settings: dict[str, Any] = {
        "generator": name,
        "adversarial_weight": 0.0,
        "contrastive_weight": 0.0,
        "learning_rate": RATES[name],
        "betas": (0.9, 0.999),
        "average": 0.9,
        "reuse": 1,
        "precision": "bf16-mixed" if PRECISION == "bfloat16" else "32-true",
        "accelerator": "cpu",
    }
    pairs = training_pairs("course")
    trial = Training(Recipe(**settings, warmup=0), pairs)
    trial.step()  # draws the bank
    start = clock()
    for _ in range(3):
        trial.step()
    steps = max(int(seconds / ((clock() - start) / 3)), 1)
    training = Training(Recipe(**settings, steps=steps, warmup=min(20, steps // 5)), pairs)
    for _ in training.run(report_every=steps):
        pass
    return training


def _psnr_db(network: nn.Module | None, test: Pairs) -> float:
    """Mean over test slices; of the low-dose slices themselves without a network."""
    low, normal = (torch.from_numpy(hu.astype(np.float32)) for hu in (test.low, test.normal))
    images = low if network is None else denoise(low, network, progress=False)
    return statistics.mean(
        image_metrics(image, reference)["psnr_db"] for image, reference in zip(images, normal, strict=True)
    )


def _slice_ms(
    networks: dict[str, nn.Module],
    hu: torch.Tensor,
    precision: str,
    rounds: int,
    clock: Callable[[], float],
) -> dict[str, float]:
    """Median milliseconds of `denoise` on one slice, all networks taking turns; the first turn warms up."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(rounds + 1):
        for name, network in networks.items():
            start = clock()
            denoise(hu, network, precision=precision, progress=False)
            if turn:
                times[name].append(1000 * (clock() - start))
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
