"""What does a step of ALDEN cost? Beside plain L1 training, and beside ALDEN written down as it is drawn.

    python benchmarks/training.py [--generators unet esau] [--rounds 5] [--clock wall|cpu]

A step is one update with 8 crops of 112 x 112, the recipe's default. Naive: the vision model (PVM) looks at
the denoised, the normal-dose and the low-dose crops in every step, through all blocks; the discriminator
sees real and fake ones in two passes; float32, memory as torch lays it out. Ours: features of what never
changes are kept (what they cost is shared out over the steps that use them), the PVM stops at the last tap,
in bfloat16 where that helps.

Rows are medians over rounds in which all take turns. Memory is the highest of a process of its own, less what
it had after its imports. `--clock cpu` counts processor time: for one thread on a machine that is busy.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from alden_lite.alden.contrastive import semantic_contrastive_loss
from alden_lite.alden.discriminator import AnatomyAwareDiscriminator, discriminator_loss, generator_loss
from alden_lite.alden.generator import GENERATORS
from alden_lite.alden.pvm import load_pvm
from alden_lite.alden.training import Recipe, Training
from alden_lite.data.pairs import Pairs
from alden_lite.engine.crops import Batch, draw_crops
from alden_lite.engine.speed import bfloat16_gain
from alden_lite.physics.hounsfield import denormalise, normalise

Step = Callable[[], object]

FAST = "bf16-mixed" if bfloat16_gain() > 1.2 else "32-true"
ALDEN = Recipe(precision=FAST, accelerator="cpu", steps=10**6, bank=32)
L1 = replace(ALDEN, adversarial_weight=0.0, contrastive_weight=0.0)
RECIPES = {
    "L1": L1,
    "L1, float32": replace(L1, precision="32-true"),
    "ALDEN": ALDEN,
    "ALDEN, float32": replace(ALDEN, precision="32-true"),
    "ALDEN, contrastive_crops=2": replace(ALDEN, contrastive_crops=2),
}
"""Rows; the last changes what is learned, the others only how it is computed."""


def main() -> None:
    """Print three tables and, as the last line, their figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--generators", nargs="+", choices=sorted(GENERATORS), default=["unet", "esau"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--child", nargs=3, metavar=("TASK", "ROW", "GENERATOR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.child:
        task, row, generator = options.child
        print(
            json.dumps(_peak_gib(row, generator) if task == "memory" else _of_processes(int(task), generator))
        )
        return
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    print(f"{torch.get_num_threads()} threads, fast precision {FAST}, clock: {options.clock}\n")
    figures: dict[str, float] = {}
    for generator in options.generators:
        figures |= _table(generator, clock, options.rounds)
    first = options.generators[0]
    figures |= _parts(first, clock, options.rounds)
    figures |= _processes(first)
    short = {key: figures[f"{first}.{key}"] for key in ("step_vs_l1", "naive_vs_ours", "peak_gib")}
    print(json.dumps({name: round(value, 3) for name, value in (short | figures).items()}))


# Steps ----------------------------------------------------------------------------------------------------


def made_up_pairs() -> Pairs:
    """Noise, small: what a step costs does not depend on it, and reading a volume would hide its memory."""
    rng = np.random.default_rng(0)
    normal = rng.normal(40, 40, (4, 256, 256))
    low = normal + rng.normal(0, 30, normal.shape)
    return Pairs(low.astype(np.int16), normal.astype(np.int16), np.ones(4), np.arange(4))


def our_step(training: Training) -> Step:
    """A step whose bank is full already; what filling it costs is added by `bank_ms`."""
    rows = training.bank.rows
    return lambda: training.step(training.bank.at(training.done % rows))


def naive_step(generator: str, pairs: Pairs) -> Step:
    """ALDEN's step as its figure draws it."""
    recipe, pvm = Recipe(), load_pvm()
    g, d = GENERATORS[generator](), AnatomyAwareDiscriminator(positions=True)
    g_optimiser = torch.optim.Adam(g.parameters(), lr=1e-4, betas=recipe.betas)
    d_optimiser = torch.optim.Adam(d.parameters(), lr=4e-4, betas=recipe.betas)
    low, normal = map(normalise, draw_crops(pairs, count=8, size=recipe.crop, seed=0))

    def step() -> None:
        denoised = g(low)
        of_normal, of_low = pvm(denormalise(normal)), pvm(denormalise(low))
        real = d(denormalise(normal), of_normal)
        fake = d(denormalise(denoised.detach()), of_normal)
        d_optimiser.zero_grad()
        discriminator_loss(real, fake).backward()
        torch.nn.utils.clip_grad_norm_(d.parameters(), recipe.clip)
        d_optimiser.step()
        pixel = (denoised - normal).abs().mean()
        adversarial = generator_loss(d(denormalise(denoised), of_normal))
        contrastive = semantic_contrastive_loss(pvm(denormalise(denoised))[-1], of_normal[-1], of_low[-1])
        g_optimiser.zero_grad()
        (pixel + 0.01 * adversarial + 0.01 * contrastive).backward()
        torch.nn.utils.clip_grad_norm_(g.parameters(), recipe.clip)
        g_optimiser.step()

    return step


def bank_ms(training: Training, clock: Callable[[], float]) -> float:
    """What drawing a bank of crops and looking at it costs each step of its life."""
    bank = training.bank
    start = clock()
    bank.crops(1)
    return 1000 * (clock() - start) / (bank.rows * bank.reuse)


# Tables ---------------------------------------------------------------------------------------------------


def _table(generator: str, clock: Callable[[], float], rounds: int) -> dict[str, float]:
    pairs = made_up_pairs()
    runs = {name: Training(replace(recipe, generator=generator), pairs) for name, recipe in RECIPES.items()}
    steps = {"ALDEN, naive": naive_step(generator, pairs)}
    steps |= {name: our_step(training) for name, training in runs.items()}
    ms = _medians(steps, clock, rounds)
    for name, training in runs.items():
        ms[name] += bank_ms(training, clock)
    peak = {name: _child("memory", name, generator) for name in steps}
    print(f"| {generator}: step | ms | times L1 | naive's times it | peak GiB |")
    print("|---|---|---|---|---|")
    for name in steps:
        ratio, faster = ms[name] / ms["L1"], ms["ALDEN, naive"] / ms[name]
        print(f"| {name} | {ms[name]:.0f} | {ratio:.2f} | {faster:.2f} | {peak[name]:.2f} |")
    print(flush=True)
    few = "ALDEN, contrastive_crops=2"
    found = {
        "step_vs_l1": ms["ALDEN"] / ms["L1"],
        "naive_vs_ours": ms["ALDEN, naive"] / ms["ALDEN"],
        "peak_gib": peak["ALDEN"],
        "naive_peak_gib": peak["ALDEN, naive"],
        "float32_step_vs_l1": ms["ALDEN, float32"] / ms["L1, float32"],
        "naive_vs_ours_float32": ms["ALDEN, naive"] / ms["ALDEN, float32"],
        "few_crops_step_vs_l1": ms[few] / ms["L1"],
    }
    return {f"{generator}.{key}": value for key, value in found.items()}


def _parts(generator: str, clock: Callable[[], float], rounds: int) -> dict[str, float]:
    """Where the time of our step goes: each part alone, forward and backward."""
    recipe, pairs = replace(ALDEN, generator=generator), made_up_pairs()
    training = Training(recipe, pairs)
    training.step()
    ms = _medians(_parts_of(training, training.bank.at(0)), clock, rounds)
    ms["bank, a step's share"] = bank_ms(training, clock)
    print(f"| part of a step, {generator} | ms | share |")
    print("|---|---|---|")
    for name, value in ms.items():
        print(f"| {name} | {value:.1f} | {value / sum(ms.values()):.0%} |")
    print(flush=True)
    return {f"share.{name}": value / sum(ms.values()) for name, value in ms.items()}


def _parts_of(training: Training, batch: Batch) -> dict[str, Step]:
    fabric, taps = training.fabric, training.recipe.contrastive_taps
    fake = training.generator(batch.low).float().detach()
    maps = training.maps(denormalise(fake), taps=taps)
    normal, low = ([of[tap] for tap in taps] for of in (batch.normal_maps, batch.low_maps))
    discriminator = training.discriminator.module

    def pixels() -> None:
        fabric.backward((training.generator(batch.low).float() - batch.normal).abs().mean())

    def adversarial() -> None:
        image = fake.clone().requires_grad_()
        discriminator.requires_grad_(False)
        with fabric.autocast():
            logits = discriminator(denormalise(image), training._semantics(batch, copies=1))
        fabric.backward(generator_loss(logits.float()))
        discriminator.requires_grad_(True)

    def look() -> None:
        image = fake.clone().requires_grad_()
        seen = training.maps(denormalise(image), taps=taps)
        fabric.backward(torch.stack([seen[tap].square().mean() for tap in taps]).sum())

    def contrast() -> None:
        ours = [maps[tap].clone().requires_grad_() for tap in taps]
        fabric.backward(semantic_contrastive_loss(ours, normal, low))

    def update() -> None:
        player = training.players["generator"]
        fabric.clip_gradients(player.network, player.optimiser, max_norm=training.recipe.clip)
        player.optimiser.step()
        training._update_average()

    return {
        "generator": pixels,
        "discriminator's update": lambda: training.discriminator_step(fake, batch),
        "adversarial pass": adversarial,
        "PVM": look,
        "contrastive loss": contrast,
        "generator's update and average": update,
    }


def _processes(generator: str) -> dict[str, float]:
    """The same global batch in one process with two threads and in two processes with one each."""
    ms = {count: _child(str(count), "ALDEN", generator) for count in (1, 2)}
    print(f"{generator}: one process with two threads {ms[1]:.0f} ms a step, two (gloo) {ms[2]:.0f} ms\n")
    return {"two_processes_vs_one": ms[1] / ms[2]}


def _medians(steps: dict[str, Step], clock: Callable[[], float], rounds: int) -> dict[str, float]:
    """Milliseconds of each, all taking turns; the first turn warms up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            start = clock()
            step()
            if turn:
                times[name].append(1000 * (clock() - start))
    return {name: statistics.median(values) for name, values in times.items()}


# Processes of their own -----------------------------------------------------------------------------------


def _child(*task: str) -> float:
    command = [sys.executable, __file__, "--child", *task]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def _peak_gib(row: str, generator: str) -> float:
    pairs = made_up_pairs()
    importlib.import_module("timm")
    importlib.import_module("lightning_fabric")
    before = _highest_gib()
    if row == "ALDEN, naive":
        step = naive_step(generator, pairs)
    else:
        step = our_step(Training(replace(RECIPES[row], generator=generator, bank=128), pairs))
    for _ in range(3):
        step()
    return _highest_gib() - before


def _highest_gib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # Linux: getrusage would count what the parent had when it started this process
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _of_processes(count: int, generator: str) -> float:
    """Milliseconds a step; of two processes, the first one prints."""
    torch.set_num_threads(2 // count)
    training = Training(replace(ALDEN, generator=generator, devices=count), made_up_pairs())
    for _ in range(3):
        training.step()
    times = []
    for _ in range(10):
        start = time.perf_counter()
        training.step()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


if __name__ == "__main__":
    main()
