"""`alden-lite train`: train ALDEN, or one of its ablations, and export the generator."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from alden_lite.alden.training import Recipe, Training
from alden_lite.data.pairs import PROTOCOLS, training_pairs
from alden_lite.engine.checkpoint import CheckpointError, has_checkpoints
from alden_lite.engine.loop import MACHINE


def main(argv: list[str] | None = None) -> int:
    """`alden-lite train`: train on the sample volume (and others) and export the generator.

    SIGTERM (what a cluster sends first) ends the run after the step under way, with a checkpoint and exit
    status 143. After anything harsher, the newest checkpoint is whole. Either way `--resume` goes on.
    """
    parser = argparse.ArgumentParser(prog="alden-lite train", description=main.__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for checkpoints and log; for weights that denoise takes: --export",
    )
    parser.add_argument(
        "--protocol", choices=sorted(PROTOCOLS), default="course", help="how low doses are drawn"
    )
    parser.add_argument(
        "--volumes", type=Path, nargs="*", default=[], help="further NIfTI volumes to train on"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="fields of the recipe")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    parser.add_argument("--export", type=Path, help="write the generator here (.safetensors)")
    parser.add_argument("--half", action="store_true", help="export float16: half the size, 0.04 HU rms off")
    parser.add_argument("--report-every", type=int, default=200, help="steps between checkpoints")
    options = parser.parse_args(argv)
    recipe = _recipe_with(options.set)
    changed = [setting.partition("=")[0] for setting in options.set]
    if options.resume and (fixed := set(changed) - set(MACHINE)):
        raise ValueError(f"a resumed run keeps its recipe: leave out --set {', '.join(sorted(fixed))}")
    if not options.resume and has_checkpoints(options.out):
        raise CheckpointError(
            f"there is a run in {options.out} already: add --resume, or choose another --out"
        )
    if options.export and options.export.suffix != ".safetensors":
        raise ValueError(f"--export {options.export} must end in .safetensors")
    pairs = training_pairs(options.protocol, options.volumes)
    if options.resume:
        machine = {name: getattr(recipe, name) for name in changed}
        training = Training.resume(options.out, pairs, machine=machine)
    else:
        training = Training(recipe, pairs, options.out)
    training.fabric.print(json.dumps(asdict(training.recipe), indent=2))
    with _stopped_by_sigterm(training):
        for report in training.run(report_every=options.report_every):
            means = ", ".join(f"{name} {value:.4f}" for name, value in report.losses.items())
            training.fabric.print(f"step {report.step}: {means}", flush=True)
            if training.fabric.is_global_zero:
                _save_picture(training, options.out / f"step_{report.step:06d}.png")
    if training.done < training.recipe.steps:
        training.fabric.print(f"stopped after step {training.done}: go on with --resume", flush=True)
        # The others end well, or their launcher would take the whole group for crashed.
        return 128 + signal.SIGTERM if training.fabric.is_global_zero else 0
    if options.export and training.fabric.is_global_zero:
        data = {
            "protocol": options.protocol,
            "volumes": ["LIDC-IDRI-0001 training slabs", *(p.name for p in options.volumes)],
        }
        print(f"wrote {training.export(options.export, half=options.half, data=data)}")
    return 0


@contextmanager
def _stopped_by_sigterm(training: Training) -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, lambda *_: training.stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _save_picture(training: Training, path: Path, *, side: int = 256) -> None:
    """The middle of the first pair, as the generator denoises it now."""
    from alden_lite.show import plots

    height, width = training.pairs.low.shape[1:]
    y, x = max(height - side, 0) // 2, max(width - side, 0) // 2
    low, normal = (
        torch.from_numpy(hu[0, y : y + side, x : x + side].astype("float32"))
        for hu in (training.pairs.low, training.pairs.normal)
    )
    figure = plots.before_after(low, training.denoise(low[None, None])[0, 0], normal)
    figure.savefig(path, dpi=100)


def _recipe_with(settings: list[str]) -> Recipe:
    """The default recipe with `name=value` changes; values are read as JSON of the default's type."""
    defaults = asdict(Recipe())
    changes: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in defaults:
            raise ValueError(f"unknown field {name!r}: choose from {', '.join(defaults)}")
        changes[name] = _read_value(name, value, defaults[name])
    return Recipe.stored(changes)


def _read_value(name: str, value: str, default: object) -> object:
    if default is None or isinstance(default, str):
        return value
    kind = list if isinstance(default, tuple) else type(default)
    try:
        read = json.loads(value)
    except json.JSONDecodeError:
        read = None
    if type(read) is kind or (kind is float and type(read) is int):  # true is an int to isinstance
        return read
    example = json.dumps(default)
    raise ValueError(f"{name}={value} cannot be read: {name} looks like {name}={example}")
