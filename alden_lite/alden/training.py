"""ALDEN's training: a recipe, one step, the loop, checkpoints. Taught in chapter 08.

    L_D = BCE(D(y, A(y)), 1) + BCE(D(sg yhat, A(y)), 0)
    L_G = w_pix |yhat - z|_1 + w_adv BCE(D(yhat, A(y)), 1) + w_scl SCL(Phi(yhat), Phi(y), Phi(x))
    z = (1 - k) y + k x

x is the low-dose slice, y the normal-dose one, yhat = G(x), Phi the frozen pretrained vision model (PVM),
A(y) its features, D the anatomy-aware discriminator. That these three losses train G is the paper's (Wang et
al., MICCAI 2025); weights, schedule and sizes are OURS. So is k, a small share of x in the pixel loss's
target: a generator that aims at y ends at the mean of all likely y, which has too little grain.

Phi(y) and Phi(x) never change, so they are computed once for a bank of crops and reused; a step then costs
one pass of the PVM with gradient, not three.

The same loop runs on a CPU, a GPU or several of either: Lightning Fabric moves things and adds up gradients.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from alden_lite.alden.contrastive import semantic_contrastive_loss
from alden_lite.alden.discriminator import AnatomyAwareDiscriminator, discriminator_loss, generator_loss
from alden_lite.alden.generator import GENERATORS, build_generator, keep_input
from alden_lite.alden.pvm import PVM, load_pvm
from alden_lite.data.pairs import Pairs
from alden_lite.engine.checkpoint import (
    CheckpointError,
    file_sha256,
    flat_state,
    has_checkpoints,
    load_weights,
    provenance,
    read_card,
    read_newest,
    restore_state,
    weights_path,
    write_checkpoint,
    write_weights,
)
from alden_lite.engine.crops import Batch, CropBank, purpose_seed
from alden_lite.engine.speed import for_crops
from alden_lite.physics.hounsfield import denormalise, normalise

__all__ = ["Recipe", "Report", "Training", "learning_rate"]


_CHOICES = {
    "generator": tuple(GENERATORS),
    "query": ("image", "semantic"),
    "adversarial_loss": ("bce", "lsgan"),
    "contrastive_form": ("joint", "sum"),
}
R1_EVERY = 16
"""Steps between two gradient penalties, each with as many times its weight (Karras et al., CVPR 2020)."""

MACHINE = ("accelerator", "devices", "nodes", "precision")
"""Fields of a recipe that say where it runs, not what it learns: a resumed run may change them."""


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on besides its pairs. Printed at the start, stored in every checkpoint.

    A loss weight of 0 leaves that part out: with both at 0 this is plain L1 training, without a PVM.
    """

    # networks
    generator: str = "unet"
    warm_start: str | None = None  # a shipped generator's name, or a .safetensors file
    warm_keep: float = 0.0  # share of the low-dose slice that the warm start leaves in; U-Net only
    pvm: str = "dinov2_vits14"
    discriminator_taps: tuple[int, int, int] = (4, 8, 12)  # FACT
    contrastive_taps: tuple[int, ...] = (12,)
    query: str = "image"
    positions: bool = True  # D knows where in the crop a token is, or an image query could not
    anatomy: bool = True  # False: a plain patch discriminator without the PVM's features
    # losses (OURS: the paper's numbers are not public)
    pixel_weight: float = 1.0
    keep: float = 0.15  # share of the low-dose slice in the pixel loss's target: see `keep_input`
    adversarial_weight: float = 0.01
    contrastive_weight: float = 0.004
    adversarial_loss: str = "bce"
    temperature: float = 0.07
    places: int = 256
    negatives: int = 64
    min_distance: int = 2
    contrastive_form: str = "joint"
    noise_term: bool = True
    contrastive_crops: int = 0  # of a batch, evenly spaced, that the contrastive loss looks at; 0: all
    r1_weight: float = 0.0  # of D's gradient penalty on normal-dose crops
    # optimisation
    steps: int = 300
    batch: int = 8  # crops a step, over all processes
    crop: int = 112  # pixels: 8 x 8 tokens of 14 pixels
    bank: int = 128  # crops whose PVM features are kept; a multiple of the batch
    reuse: int = 8  # passes over a bank before new crops are drawn
    learning_rate: float = 1e-4
    discriminator_learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    warmup: int = 20  # steps
    clip: float = 0.05  # largest norm of a gradient
    average: float = 0.99  # decay of the moving average of the generator's weights, which is the result
    seed: int = 0
    # machine
    accelerator: str = "auto"
    devices: int = 1  # in each node
    nodes: int = 1
    precision: str = "32-true"  # "bf16-mixed" is several times faster where the processor has it

    def __post_init__(self) -> None:
        counts = ("steps", "batch", "crop", "bank", "reuse", "devices", "nodes")
        rates = ("learning_rate", "discriminator_learning_rate")
        for name in (*counts, *rates, "clip", "temperature", "places", "negatives"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.bank % self.batch or self.batch % (self.devices * self.nodes):
            raise ValueError(
                f"bank={self.bank} must be a multiple of batch={self.batch}, that of all devices"
            )
        processes = self.devices * self.nodes
        if (few := self.contrastive_crops) and (few < 0 or self.batch % few or few % processes):
            raise ValueError(
                f"contrastive_crops={few} must divide batch={self.batch}, and be a multiple of all devices"
            )
        weights = ("pixel_weight", "adversarial_weight", "contrastive_weight", "r1_weight")
        for name in (*weights, "warmup", "min_distance"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if not 0 <= self.warm_keep < 1 or (self.warm_keep and self.warm_start is None):
            raise ValueError(f"warm_keep is a share in [0, 1) of a warm start, got {self.warm_keep}")
        if not 0 <= self.keep < 1:
            raise ValueError(f"keep is a share in [0, 1), got {self.keep}")
        if not 0 <= self.average < 1:
            raise ValueError(f"average is a decay in [0, 1), got {self.average}")

    @property
    def adversarial(self) -> bool:
        """Is there a discriminator?"""
        return self.adversarial_weight > 0

    @property
    def contrastive(self) -> bool:
        """Is there a contrastive loss?"""
        return self.contrastive_weight > 0

    @property
    def taps(self) -> tuple[int, ...]:
        """Every block of the PVM that this recipe reads, in order; empty if it needs none."""
        semantic = self.discriminator_taps if self.adversarial and self.anatomy else ()
        return tuple(sorted({*semantic, *(self.contrastive_taps if self.contrastive else ())}))


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


class Training:
    """One run of a recipe on pairs of slices.

    Args:
        recipe: what to do.
        pairs: low- and normal-dose slices in HU.
        folder: where checkpoints, log and pictures go; nothing is written when None.
        pvm: a PVM that is loaded already; must be the recipe's.

    Raises:
        ValueError: if a crop does not fit into the slices or is not a multiple of the PVM's patch.
        CheckpointError: if the warm start is not a generator of this recipe, or the folder holds a run.
    """

    def __init__(
        self, recipe: Recipe, pairs: Pairs, folder: str | Path | None = None, *, pvm: PVM | None = None
    ) -> None:
        from lightning_fabric import Fabric

        if recipe.crop > min(pairs.low.shape[1:]):
            raise ValueError(f"a crop of {recipe.crop} does not fit into slices of {pairs.low.shape[1:]}")
        self.recipe, self.pairs = recipe, pairs
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None and has_checkpoints(self.folder):
            raise CheckpointError(
                f"there is a run in {folder} already: go on with Training.resume, or choose another folder"
            )
        self.done = 0  # steps
        self.stopping = False
        self.pairs_sha256 = pairs.sha256()
        self.fabric = Fabric(
            accelerator=recipe.accelerator,
            devices=recipe.devices,
            num_nodes=recipe.nodes,
            precision=recipe.precision,  # type: ignore[arg-type]
        )
        self.fabric.launch()
        self._forget_log_after(0)  # of a run that was cut off before its first checkpoint
        torch.manual_seed(recipe.seed)
        generator = build_generator(recipe.generator)
        self.warm_start: dict[str, Any] | None = None  # where the first weights came from
        if recipe.warm_start is not None:
            start = weights_path(recipe.warm_start)
            load_weights(generator, start)
            keep_input(generator, recipe.warm_keep)
            self.warm_start = {"sha256": file_sha256(start), "card": read_card(start)}
        self.averaged = copy.deepcopy(generator).requires_grad_(False).to(self.fabric.device)
        self.pvm = _recipe_pvm(recipe, pvm)
        if self.pvm is not None:
            rounded = recipe.precision == "bf16-mixed" or self.pvm.rounds_to_bfloat16(self.fabric.device)
            self.pvm.to(self.fabric.device)
            self._looks = for_crops(self.pvm, rounded=rounded, fused=self.fabric.device.type != "cpu")
        self._peaks: list[tuple[Any, float]] = []  # every optimiser and its highest rate
        self.generator, self.generator_optimiser = self._optimised(generator, recipe.learning_rate)
        if recipe.adversarial:
            discriminator = AnatomyAwareDiscriminator(
                semantic_channels=self._semantic_channels(),
                query=recipe.query,  # type: ignore[arg-type]
                positions=recipe.positions,
            )
            self.discriminator, self.discriminator_optimiser = self._optimised(
                discriminator, recipe.discriminator_learning_rate
            )
        self.bank = CropBank(
            pairs,
            crop=recipe.crop,
            size=recipe.bank,
            batch=recipe.batch,
            reuse=recipe.reuse,
            seed=recipe.seed,
            normal_features=partial(self._maps, taps=recipe.taps) if recipe.taps else None,
            low_features=partial(self._maps, taps=recipe.contrastive_taps) if recipe.contrastive else None,
            rank=self.fabric.global_rank,
            processes=self.fabric.world_size,
            device=self.fabric.device,
        )

    def _optimised(self, network: nn.Module, rate: float) -> tuple[Any, Any]:
        network.to(memory_format=torch.channels_last)
        optimiser = torch.optim.Adam(network.parameters(), lr=rate, betas=self.recipe.betas, foreach=True)
        network, optimiser = self.fabric.setup(network, optimiser)
        self._peaks.append((optimiser, rate))
        return network, optimiser

    def _semantic_channels(self) -> list[int] | None:
        if self.pvm is None or not self.recipe.anatomy:
            return None
        channels = dict(zip(self.pvm.taps, self.pvm.channels, strict=True))
        return [channels[tap] for tap in self.recipe.discriminator_taps]

    # One step ---------------------------------------------------------------------------------------------

    def step(self, batch: Batch | None = None) -> dict[str, float]:
        """Update D, then G, on one batch (the next of the recipe's when None); returns the losses.

        Raises:
            FloatingPointError: if a loss is not finite. Weights on disk stay as they are; those in memory
                may be spoilt: resume from the last checkpoint.
        """
        self._set_rates()
        batch = batch or self.bank.at(self.done)
        denoised = self.generator(batch.low).float()
        losses: dict[str, torch.Tensor] = {}
        if self.recipe.adversarial:
            losses["discriminator"] = self.discriminator_step(denoised.detach(), batch)
        losses |= self.generator_step(denoised, batch)
        values = {name: float(loss) for name, loss in losses.items()}
        if not all(map(math.isfinite, values.values())):
            raise FloatingPointError(
                f"step {self.done}: {values}. Lower the learning rate, and look for NaN in the data"
            )
        self._update_average()
        self.done += 1
        return values

    def discriminator_step(self, denoised: torch.Tensor, batch: Batch) -> torch.Tensor:
        """D learns to tell y from yhat, both beside the anatomy of y. `denoised` comes without a graph."""
        images = denormalise(torch.cat([batch.normal, denoised]))  # one pass: real, then fake
        logits = self.discriminator(images, self._semantics(batch, copies=2)).float()
        real, fake = logits.chunk(2)
        loss = discriminator_loss(real, fake, kind=self.recipe.adversarial_loss)  # type: ignore[arg-type]
        self.discriminator_optimiser.zero_grad()
        self.fabric.backward(loss)
        if self.recipe.r1_weight and self.done % R1_EVERY == 0:
            self._add_gradient_penalty(batch)
        self._clip(self.discriminator, self.discriminator_optimiser)
        self.discriminator_optimiser.step()
        return loss.detach()

    def _add_gradient_penalty(self, batch: Batch) -> None:
        """R1: `weight / 2 |grad_y D(y)|^2` a patch keeps D from becoming steep (Mescheder et al., ICML 2018).

        D(y) is the sum of the logits, and y on the scale that D sees (OURS, for a patch discriminator).
        """
        discriminator = self.discriminator.module
        images = denormalise(batch.normal).requires_grad_()
        logits = discriminator(images, self._semantics(batch, copies=1))
        (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        penalty = (discriminator.scale * slope).square().sum() / logits.numel()
        weights = list(discriminator.parameters())
        scaled = 0.5 * R1_EVERY * self.recipe.r1_weight * penalty
        gradients = torch.autograd.grad(scaled, weights, allow_unused=True)  # biases may have none
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is not None and weight.grad is not None:
                weight.grad += torch.as_tensor(self.fabric.all_reduce(gradient, reduce_op="mean"))

    def generator_step(self, denoised: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        """G learns from pixels, D and PVM. Gradients pass through D and PVM, and change neither."""
        recipe = self.recipe
        target = torch.lerp(batch.normal, batch.low, recipe.keep)
        losses = {"pixel": (denoised - target).abs().mean()}
        total = recipe.pixel_weight * losses["pixel"]
        if recipe.adversarial:
            # The bare module: under several processes its wrapper would wait for gradients that never come.
            discriminator = self.discriminator.module
            with _frozen(discriminator), self.fabric.autocast():
                logits = discriminator(denormalise(denoised), self._semantics(batch, copies=1))
            losses["adversarial"] = generator_loss(logits.float(), kind=recipe.adversarial_loss)  # type: ignore[arg-type]
            total = total + recipe.adversarial_weight * losses["adversarial"]
        if recipe.contrastive:
            losses["contrastive"] = self._contrastive(denoised, batch)
            total = total + recipe.contrastive_weight * losses["contrastive"]
        self.generator_optimiser.zero_grad()
        self.fabric.backward(total)
        self._clip(self.generator, self.generator_optimiser)
        self.generator_optimiser.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def _contrastive(self, denoised: torch.Tensor, batch: Batch) -> torch.Tensor:
        recipe, taps = self.recipe, self.recipe.contrastive_taps
        every = recipe.batch // recipe.contrastive_crops if recipe.contrastive_crops else 1
        maps = self._maps(denormalise(denoised[::every]), taps=taps)
        return semantic_contrastive_loss(
            [maps[tap] for tap in taps],
            [batch.normal_maps[tap][::every] for tap in taps],
            [batch.low_maps[tap][::every] for tap in taps],
            temperature=recipe.temperature,
            places=recipe.places,
            negatives=recipe.negatives,
            min_distance=recipe.min_distance,
            form=recipe.contrastive_form,  # type: ignore[arg-type]
            noise_term=recipe.noise_term,
            generator=torch.Generator().manual_seed(purpose_seed(recipe.seed, "places", self.done)),
        )

    def _maps(self, hu: torch.Tensor, *, taps: tuple[int, ...]) -> dict[int, torch.Tensor]:
        """The PVM's maps (B, C, h, w) by tap, for HU (B, 1, S, S); it stops at the last tap."""
        if self.pvm is None:
            raise ValueError("this recipe has no PVM")
        with self.fabric.autocast():
            return {tap: maps.float() for tap, maps in zip(taps, self._looks(hu, taps=taps), strict=True)}

    def _semantics(self, batch: Batch, *, copies: int) -> list[torch.Tensor] | None:
        if not self.recipe.anatomy:
            return None
        return [batch.normal_maps[t].repeat(copies, 1, 1, 1) for t in self.recipe.discriminator_taps]

    def _clip(self, network: Any, optimiser: Any) -> None:
        norm = self.fabric.clip_gradients(
            network, optimiser, max_norm=self.recipe.clip, error_if_nonfinite=False
        )
        if not torch.isfinite(torch.as_tensor(norm)):
            raise FloatingPointError(f"step {self.done}: a gradient is not finite. Lower the learning rate")

    def _set_rates(self) -> None:
        for optimiser, peak in self._peaks:
            rate = learning_rate(self.done, steps=self.recipe.steps, warmup=self.recipe.warmup, peak=peak)
            optimiser.param_groups[0]["lr"] = rate

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on the average would still be the start: let it follow faster at first.
        decay = min(self.recipe.average, (1 + self.done) / (10 + self.done))
        for mean, now in zip(self.averaged.parameters(), self.generator.module.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)

    # The loop ---------------------------------------------------------------------------------------------

    def run(
        self, until: int | None = None, *, report_every: int = 50, progress: bool = True
    ) -> Iterator[Report]:
        """Train up to a step (the recipe's last when None), giving a report now and then.

        Write `for report in training.run(): ...`. Each report is also a line of `log.jsonl`, and comes with
        a checkpoint if the run has a folder. After `stop` there is a last report, and no further step.
        """
        if report_every < 1:
            raise ValueError(f"report_every must be at least 1, got {report_every}")
        until = self.recipe.steps if until is None else min(until, self.recipe.steps)
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

    @torch.no_grad()
    def denoise(self, hu: torch.Tensor) -> torch.Tensor:
        """Denoise slices (B, 1, H, W) in HU with the averaged generator, as it stands now."""
        return denormalise(self.averaged(normalise(hu.to(self.fabric.device)))).cpu()

    # Checkpoints ------------------------------------------------------------------------------------------

    def save(self) -> Path:
        """Write `folder/step_000300/` (state.safetensors and recipe.json) whole, or not at all.

        Raises:
            ValueError: if the run has no folder.
        """
        if self.folder is None:
            raise ValueError("this run has no folder to save in: give Training(recipe, pairs, folder)")
        state = flat_state(self._networks(), self._optimisers())
        about = self._about() | {"pairs_sha256": self.pairs_sha256}
        return write_checkpoint(self.folder, self.done, state, about)

    @classmethod
    def resume(cls, folder: str | Path, pairs: Pairs, *, pvm: PVM | None = None, **machine: Any) -> Training:
        """Go on from the newest checkpoint in a folder. On one CPU the result is equal bit for bit.

        Args:
            folder: of an earlier run.
            pairs: the same pairs.
            pvm: a PVM that is loaded already.
            machine: `accelerator`, `devices` or `precision`, where this machine is another.

        Raises:
            CheckpointError: if there is no checkpoint, it is damaged, or it was made from other pairs.
        """
        if unknown := set(machine) - set(MACHINE):
            raise ValueError(f"a resumed run keeps its recipe but for {', '.join(MACHINE)}; got {unknown}")
        state, about = read_newest(Path(folder))
        if missing := {"pairs_sha256", "recipe", "pvm", "warm_start", "steps"} - set(about):
            raise CheckpointError(f"the checkpoint in {folder} is damaged: it lacks {sorted(missing)}")
        if about["pairs_sha256"] != pairs.sha256():
            raise CheckpointError(f"the run in {folder} saw other pairs: give it the same data and protocol")
        recipe = replace(_recipe_from(about["recipe"]), **machine)
        training = cls(replace(recipe, warm_start=None, warm_keep=0.0), pairs, pvm=pvm)
        training.recipe, training.warm_start = recipe, about["warm_start"]  # for the next checkpoint
        training.folder = Path(folder)
        if json.loads(json.dumps(training._about()["pvm"])) != about["pvm"]:
            raise CheckpointError(f"the run in {folder} had another PVM: {about['pvm']}")
        restore_state(state, training._networks(), training._optimisers())
        training.done = int(about["steps"])
        training._forget_log_after(training.done)
        return training

    def export(self, path: str | Path, *, half: bool = False, **card: Any) -> Path:
        """Write the averaged generator alone, for `load_generator`; `card` is what else to know."""
        return write_weights(path, self.averaged, {"steps": self.done, **self._about(), **card}, half=half)

    def _about(self) -> dict[str, Any]:
        """Where these weights come from."""
        pvm = self.pvm and {
            "name": self.pvm.name,
            "sha256": self.pvm.weights_sha256,
            "taps": self.pvm.taps,
            "windows": [str(window) for window in self.pvm.windows],
        }
        return {"recipe": asdict(self.recipe), "pvm": pvm, "warm_start": self.warm_start, **provenance()}

    def _networks(self) -> dict[str, nn.Module]:
        networks = {"generator": self.generator.module, "averaged": self.averaged}
        return networks | ({"discriminator": self.discriminator.module} if self.recipe.adversarial else {})

    def _optimisers(self) -> dict[str, Any]:
        chosen = {"generator_optimiser": self.generator_optimiser}
        if self.recipe.adversarial:
            chosen["discriminator_optimiser"] = self.discriminator_optimiser
        return chosen

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


def _recipe_from(stored: Mapping[str, Any]) -> Recipe:
    """A recipe from JSON, where tuples are lists."""
    known = {field.name for field in fields(Recipe)}
    if unknown := set(stored) - known:
        raise CheckpointError(f"the recipe has fields that this version does not know: {sorted(unknown)}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    return Recipe(**values)


def _recipe_pvm(recipe: Recipe, pvm: PVM | None) -> PVM | None:
    """The recipe's PVM, loaded unless given; None if no loss needs one."""
    if not recipe.taps:
        return None
    if pvm is None:
        pvm = load_pvm(recipe.pvm, taps=recipe.taps)
    if (pvm.name, tuple(pvm.taps)) != (recipe.pvm, recipe.taps):
        raise ValueError(
            f"the recipe needs {recipe.pvm} at {recipe.taps}, got {pvm.name} at {tuple(pvm.taps)}"
        )
    if recipe.crop % pvm.patch_size:
        raise ValueError(
            f"crop={recipe.crop} is not a multiple of the PVM's patch of {pvm.patch_size} pixels"
        )
    return pvm


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass through, but none is kept for the network's own weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
