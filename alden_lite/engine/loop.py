"""Any training run: players that learn, the loop, a moving average, checkpoints. Taught in chapter 08.

A method is a `Run` with `losses`: what its players minimise on one batch. A *player* is a network that
learns, with its optimiser and its highest rate; a *follower* only follows, such as the moving average.
Checkpoints hold all of both, so that every method resumes, whichever players it has.

    class Halving(Run):
        def losses(self, batch):
            noisy, other = batch
            loss = (self.network(noisy) - other).square().mean()
            return {"squares": self.minimise("network", loss)}

    run = Halving(Plan(steps=100), network, batches)  # batches(step): what `losses` takes, any tensors
    for report in run.run():
        ...
    run.averaged  # the result

The same loop runs on a CPU, a GPU or several of either: Lightning Fabric moves things and adds up gradients.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn
from tqdm.auto import tqdm

from alden_lite.engine.checkpoint import (
    CheckpointError,
    flat_state,
    has_checkpoints,
    provenance,
    read_newest,
    restore_state,
    write_checkpoint,
    write_weights,
)

__all__ = ["MACHINE", "Plan", "Player", "Report", "Run", "frozen", "learning_rate"]

MACHINE = ("accelerator", "devices", "nodes", "precision")
"""Fields of a plan that say where it runs, not what it learns: a resumed run may change them."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long, how fast and where a run learns. Methods add fields; all of them go into every checkpoint.

    Raises:
        ValueError: if a number is out of its range.
    """

    steps: int = 300
    batch: int = 8  # examples a step, over all processes
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)
    warmup: int = 20  # steps
    clip: float = 0.05  # largest norm of a gradient
    average: float = 0.99  # decay of the moving average of the weights, which is the result
    seed: int = 0
    # machine
    accelerator: str = "auto"
    devices: int = 1  # in each node
    nodes: int = 1
    precision: str = "32-true"  # "bf16-mixed" is several times faster where the processor has it

    def __post_init__(self) -> None:
        self.check_above_zero("steps", "batch", "learning_rate", "clip", "devices", "nodes")
        self.check_not_negative("warmup")
        if self.batch % (self.devices * self.nodes):
            raise ValueError(
                f"batch={self.batch} must be a multiple of all devices, {self.devices * self.nodes}"
            )
        if not 0 <= self.average < 1:
            raise ValueError(f"average is a decay in [0, 1), got {self.average}")

    def check_above_zero(self, *names: str) -> None:
        """Raises ValueError if one of these fields is 0 or below."""
        for name in names:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    def check_not_negative(self, *names: str) -> None:
        """Raises ValueError if one of these fields is below 0."""
        for name in names:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def check_one_of(self, name: str, *choices: str) -> None:
        """Raises ValueError if a field is none of these."""
        if getattr(self, name) not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> Self:
        """A plan from JSON, where tuples are lists.

        Raises:
            CheckpointError: on a field that this plan does not have.
        """
        if unknown := set(values) - {field.name for field in fields(cls)}:
            raise CheckpointError(f"the recipe has fields that this version does not know: {sorted(unknown)}")
        read: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**read)

    def without_start(self) -> Self:
        """The plan of a run that goes on from a checkpoint: without what only a first step needs."""
        return self


@dataclass(frozen=True)
class Player:
    """A network that learns."""

    network: Any  # as Fabric wraps it; `network.module` is the bare one
    optimiser: Any
    rate: float  # the highest
    clipped: bool


@dataclass(frozen=True)
class Report:
    """Where a run stands: mean losses since the last report, and seconds since the start of this call."""

    step: int
    losses: Mapping[str, float]
    seconds: float


def learning_rate(step: int, *, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up to `peak`, then half a cosine to zero at `steps`.

    >>> learning_rate(0, steps=10, warmup=0, peak=1.0)
    1.0
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


class Run(ABC):
    """One run of a plan: a method says in `losses` what its players minimise.

    Args:
        plan: what to do.
        network: the player whose moving average is the result.
        batches: what `losses` takes, by number of the step. A function of that number alone (and of a seed),
            or a resumed run would see other batches.
        folder: where checkpoints and log go; nothing is written when None.
        name: of the network among the players.

    Raises:
        CheckpointError: if the folder holds a run.
    """

    plan_class: ClassVar[type[Plan]] = Plan

    def __init__(
        self,
        plan: Plan,
        network: nn.Module,
        batches: Callable[[int], Any],
        folder: str | Path | None = None,
        *,
        name: str = "network",
    ) -> None:
        from lightning_fabric import Fabric

        self.plan, self.batches = plan, batches
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None and has_checkpoints(self.folder):
            raise CheckpointError(
                f"there is a run in {folder} already: go on with {type(self).__name__}.resume, "
                "or choose another folder"
            )
        self.done = 0  # steps
        self.stopping = False
        self.fabric = Fabric(
            accelerator=plan.accelerator,
            devices=plan.devices,
            num_nodes=plan.nodes,
            precision=plan.precision,  # type: ignore[arg-type]
        )
        self.fabric.launch()
        self._forget_log_after(0)  # of a run that was cut off before its first checkpoint
        self.averaged = copy.deepcopy(network).requires_grad_(False).to(self.fabric.device)
        self.players: dict[str, Player] = {}
        self.followers: dict[str, nn.Module] = {"averaged": self.averaged}
        self.network = self.player(name, network, plan.learning_rate)

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        """Let every player learn from one batch, by `minimise`; gives the losses, without their graphs."""

    def player(self, name: str, network: nn.Module, rate: float, *, clipped: bool = True) -> Any:
        """Let a network learn; gives it back as Fabric wraps it. `clipped`: are its gradients?"""
        network.to(memory_format=torch.channels_last)
        optimiser = torch.optim.Adam(network.parameters(), lr=rate, betas=self.plan.betas, foreach=True)
        wrapped, optimiser = self.fabric.setup(network, optimiser)
        self.players[name] = Player(wrapped, optimiser, rate, clipped)
        return wrapped

    def minimise(self, name: str, loss: torch.Tensor) -> torch.Tensor:
        """One step of one player down its loss; gives the loss without its graph.

        Raises:
            FloatingPointError: if a clipped gradient is not finite.
        """
        player = self.players[name]
        player.optimiser.zero_grad()
        self.fabric.backward(loss)
        if player.clipped:
            norm = self.fabric.clip_gradients(
                player.network, player.optimiser, max_norm=self.plan.clip, error_if_nonfinite=False
            )
            if not torch.isfinite(torch.as_tensor(norm)):
                raise FloatingPointError(
                    f"step {self.done}: a gradient of {name} is not finite. Lower the learning rate"
                )
        player.optimiser.step()
        return loss.detach()

    # The loop ---------------------------------------------------------------------------------------------

    def step(self, batch: Any = None) -> dict[str, float]:
        """Every player learns from one batch (the next one when None); gives the losses.

        Raises:
            FloatingPointError: if a loss is not finite. Weights on disk stay as they are; those in memory
                may be spoilt: resume from the last checkpoint.
        """
        for player in self.players.values():
            rate = learning_rate(self.done, steps=self.plan.steps, warmup=self.plan.warmup, peak=player.rate)
            player.optimiser.param_groups[0]["lr"] = rate
        losses = self.losses(self.batches(self.done) if batch is None else batch)
        values = {name: float(loss) for name, loss in losses.items()}
        if not all(map(math.isfinite, values.values())):
            raise FloatingPointError(
                f"step {self.done}: {values}. Lower the learning rate, and look for NaN in the data"
            )
        self._update_average()
        self.done += 1
        return values

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on the average would still be the start: let it follow faster at first.
        decay = min(self.plan.average, (1 + self.done) / (10 + self.done))
        for mean, now in zip(self.averaged.parameters(), self.network.module.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)

    def run(
        self, until: int | None = None, *, report_every: int = 50, progress: bool = True
    ) -> Iterator[Report]:
        """Train up to a step (the plan's last when None), giving a report now and then.

        Write `for report in training.run(): ...`. Each report is also a line of `log.jsonl`, and comes with
        a checkpoint if the run has a folder. After `stop` there is a last report, and no further step.
        """
        if report_every < 1:
            raise ValueError(f"report_every must be at least 1, got {report_every}")
        until = self.plan.steps if until is None else min(until, self.plan.steps)
        started, counted = time.perf_counter(), 0
        sums: dict[str, float] = {}
        stopped = self._all_stopping()
        bar = tqdm(
            total=until,
            initial=self.done,
            desc="training",
            unit="step",
            disable=not (progress and self.fabric.is_global_zero),
        )
        with bar:
            while self.done < until and not stopped:
                for name, value in self.step().items():
                    sums[name] = sums.get(name, 0.0) + value
                counted += 1
                bar.update()
                stopped = self._all_stopping()
                if self.done % report_every == 0 or self.done == until or stopped:
                    means = self._mean_over_processes({name: s / counted for name, s in sums.items()})
                    report = Report(self.done, means, time.perf_counter() - started)
                    bar.set_postfix({name: f"{value:.4f}" for name, value in means.items()})
                    if self.folder is not None and self.fabric.is_global_zero:
                        self._log(report)
                        self.save()
                    yield report
                    sums, counted = {}, 0
                    stopped = self._all_stopping()  # or was asked to while the report was read
        self.stopping = False

    def stop(self) -> None:
        """Let `run` end after the step under way, in all processes, with a report and a checkpoint."""
        self.stopping = True

    def _all_stopping(self) -> bool:
        """Was any process asked to stop? They must agree, or one would wait for another forever."""
        if self.fabric.world_size == 1:
            return self.stopping
        asked = torch.tensor(float(self.stopping), device=self.fabric.device)
        return bool(torch.as_tensor(self.fabric.all_reduce(asked, reduce_op="sum")) > 0)

    def _mean_over_processes(self, values: dict[str, float]) -> dict[str, float]:
        if self.fabric.world_size == 1:
            return values
        stacked = torch.tensor(list(values.values()), device=self.fabric.device)
        together = self.fabric.all_reduce(stacked, reduce_op="mean")
        return dict(zip(values, torch.as_tensor(together).tolist(), strict=True))

    def _log(self, report: Report) -> None:
        assert self.folder is not None
        line = {"step": report.step, "seconds": round(report.seconds, 3), **report.losses}
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    # Checkpoints ------------------------------------------------------------------------------------------

    def save(self) -> Path:
        """Write `folder/step_000300/` (state.safetensors and recipe.json) whole, or not at all.

        Raises:
            ValueError: if the run has no folder.
        """
        if self.folder is None:
            raise ValueError(f"this run has no folder to save in: give one to {type(self).__name__}")
        state = flat_state(self._networks(), self._optimisers())
        return write_checkpoint(self.folder, self.done, state, self.about())

    @classmethod
    def resume(
        cls, folder: str | Path, *data: Any, machine: Mapping[str, Any] | None = None, **options: Any
    ) -> Self:
        """Go on from the newest checkpoint in a folder. On one CPU the result is equal bit for bit.

        Args:
            folder: of an earlier run.
            data: what the class takes after its plan: the same pairs, or network and batches.
            machine: fields of the plan for this machine: `accelerator`, `devices`, `nodes`, `precision`.
            options: other arguments of the class.

        Raises:
            CheckpointError: if there is no checkpoint, it is damaged, it lacks a player, or it was made from
                other data.
            ValueError: if `machine` has another field: a resumed run keeps its recipe.
        """
        machine = dict(machine or {})
        if unknown := set(machine) - set(MACHINE):
            raise ValueError(f"a resumed run keeps its recipe but for {', '.join(MACHINE)}; got {unknown}")
        state, about = read_newest(Path(folder))
        if missing := {"recipe", "steps"} - set(about):
            raise CheckpointError(f"the checkpoint in {folder} is damaged: it lacks {sorted(missing)}")
        plan = replace(cls.plan_class.stored(about["recipe"]), **machine)
        run = cls(plan.without_start(), *data, **options)
        run.plan, run.folder = plan, Path(folder)
        try:
            run.go_on(about)
            restore_state(state, run._networks(), run._optimisers())
        except CheckpointError as error:
            raise CheckpointError(f"the run in {folder} cannot go on: {error}") from error
        run._forget_log_after(run.done)
        return run

    def about(self) -> dict[str, Any]:
        """Where these weights come from, for checkpoints and cards; a method adds to it."""
        return {"recipe": asdict(self.plan), **provenance()}

    def go_on(self, about: Mapping[str, Any]) -> None:
        """Take over what a checkpoint says `about` its run; a method refuses one of other data here."""
        self.done = int(about["steps"])

    def export(self, path: str | Path, *, half: bool = False, **card: Any) -> Path:
        """Write the averaged network alone, for `load_generator`; `card` is what else to know."""
        return write_weights(path, self.averaged, {"steps": self.done, **self.about(), **card}, half=half)

    def _networks(self) -> dict[str, nn.Module]:
        return {name: player.network.module for name, player in self.players.items()} | self.followers

    def _optimisers(self) -> dict[str, Any]:
        return {f"{name}_optimiser": player.optimiser for name, player in self.players.items()}

    def _forget_log_after(self, step: int) -> None:
        log = None if self.folder is None else self.folder / "log.jsonl"
        if log is not None and log.exists() and self.fabric.is_global_zero:
            kept = [line for line in log.read_text().splitlines() if _step_of(line) <= step]
            part = log.with_suffix(".part")
            part.write_text("".join(line + "\n" for line in kept))
            os.replace(part, log)


def _step_of(line: str) -> float:
    """Step of a log's line; beyond every step if the line was cut off while it was written."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass through, but none is kept for the network's own weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
