"""A generator that learns from pairs of crops: what ALDEN and its neighbours share. Taught in chapter 08.

The pairs are slices of one patient at low and at normal dose. Crops of them are drawn by seed and step
(`CropBank`), the generator starts from new weights or from a shipped generator's, and its moving average is
the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch

from alden_lite.alden.generator import GENERATORS, build_generator, keep_input
from alden_lite.alden.pvm import PVM
from alden_lite.data.pairs import Pairs
from alden_lite.engine.checkpoint import CheckpointError, file_sha256, load_weights, read_card, weights_path
from alden_lite.engine.crops import Batch, CropBank, Features
from alden_lite.engine.loop import Plan, Run
from alden_lite.engine.speed import for_crops
from alden_lite.physics.hounsfield import denormalise, normalise

__all__ = ["PairedPlan", "PairedRun"]


@dataclass(frozen=True, kw_only=True)
class PairedPlan(Plan):
    """A plan that names its generator, where its weights come from, and how crops are drawn."""

    generator: str = "unet"
    warm_start: str | None = None  # a shipped generator's name, or a .safetensors file
    warm_keep: float = 0.0  # share of the low-dose slice that the warm start leaves in; U-Net only
    crop: int = 112  # pixels: 8 x 8 tokens of 14 pixels
    bank: int = 128  # crops whose PVM features are kept; a multiple of the batch
    reuse: int = 8  # passes over a bank before new crops are drawn

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_above_zero("crop", "bank", "reuse")
        self.check_one_of("generator", *GENERATORS)
        if self.bank % self.batch:
            raise ValueError(f"bank={self.bank} must be a multiple of batch={self.batch}")
        if not 0 <= self.warm_keep < 1 or (self.warm_keep and self.warm_start is None):
            raise ValueError(f"warm_keep is a share in [0, 1) of a warm start, got {self.warm_keep}")

    def without_start(self) -> Self:
        return replace(self, warm_start=None, warm_keep=0.0)


class PairedRun(Run):
    """A run whose network is a generator, and whose batches are crops of pairs.

    Args:
        plan: what to do.
        pairs: low- and normal-dose slices in HU.
        folder: where checkpoints and log go; nothing is written when None.

    Raises:
        ValueError: if a crop does not fit into the slices.
        CheckpointError: if the warm start is not a generator of this plan, or the folder holds a run.
    """

    plan: PairedPlan
    plan_class = PairedPlan

    def __init__(self, plan: PairedPlan, pairs: Pairs, folder: str | Path | None = None) -> None:
        if plan.crop > min(pairs.low.shape[1:]):
            raise ValueError(f"a crop of {plan.crop} does not fit into slices of {pairs.low.shape[1:]}")
        self.pairs, self.pairs_sha256 = pairs, pairs.sha256()
        torch.manual_seed(plan.seed)
        generator = build_generator(plan.generator)
        self.warm_start: dict[str, Any] | None = None  # where the first weights came from
        if plan.warm_start is not None:
            start = weights_path(plan.warm_start)
            load_weights(generator, start)
            keep_input(generator, plan.warm_keep)
            self.warm_start = {"sha256": file_sha256(start), "card": read_card(start)}
        super().__init__(plan, generator, self._crops, folder, name="generator")
        self.generator = self.network
        self.pvm: PVM | None = None
        self.bank = self.crop_bank()

    def crop_bank(
        self, *, normal_features: Features | None = None, low_features: Features | None = None
    ) -> CropBank:
        """Crops of the pairs, with the maps to be kept beside them; set it as `bank` to learn from it."""
        return CropBank(
            self.pairs,
            crop=self.plan.crop,
            size=self.plan.bank,
            batch=self.plan.batch,
            reuse=self.plan.reuse,
            seed=self.plan.seed,
            normal_features=normal_features,
            low_features=low_features,
            rank=self.fabric.global_rank,
            processes=self.fabric.world_size,
            device=self.fabric.device,
        )

    def _crops(self, step: int) -> Batch:
        return self.bank.at(step)

    def look_with(self, pvm: PVM) -> None:
        """Take a frozen vision model for `maps`.

        Raises:
            ValueError: if a crop is not a multiple of its patch.
        """
        if self.plan.crop % pvm.patch_size:
            raise ValueError(
                f"crop={self.plan.crop} is not a multiple of the PVM's patch of {pvm.patch_size} pixels"
            )
        device = self.fabric.device
        self.pvm = pvm.to(device)
        rounded = self.plan.precision == "bf16-mixed" or pvm.rounds_to_bfloat16(device)
        self._looks = for_crops(pvm, rounded=rounded, fused=device.type != "cpu")

    def maps(self, hu: torch.Tensor, *, taps: tuple[int, ...]) -> dict[int, torch.Tensor]:
        """The PVM's maps (B, C, h, w) by tap, for HU (B, 1, S, S); it stops at the last tap."""
        if self.pvm is None:
            raise ValueError("this run has no PVM")
        with self.fabric.autocast():
            return {tap: maps.float() for tap, maps in zip(taps, self._looks(hu, taps=taps), strict=True)}

    def generate(self, batch: Batch) -> torch.Tensor:
        """G's answer to a batch, (B, 1, S, S) on the networks' scale in float32, with its graph."""
        answer: torch.Tensor = self.generator(batch.low).float()
        return answer

    @torch.no_grad()
    def denoise(self, hu: torch.Tensor) -> torch.Tensor:
        """Denoise slices (B, 1, H, W) in HU with the averaged generator, as it stands now."""
        return denormalise(self.averaged(normalise(hu.to(self.fabric.device)))).cpu()

    def about(self) -> dict[str, Any]:
        pvm = self.pvm and {
            "name": self.pvm.name,
            "sha256": self.pvm.weights_sha256,
            "taps": list(self.pvm.taps),
            "windows": [str(window) for window in self.pvm.windows],
        }
        own = {"pvm": pvm, "warm_start": self.warm_start, "pairs_sha256": self.pairs_sha256}
        return {**super().about(), **own}

    def go_on(self, about: Mapping[str, Any]) -> None:
        super().go_on(about)
        own = self.about()
        if missing := {"pairs_sha256", "pvm", "warm_start"} - set(about):
            raise CheckpointError(f"the checkpoint is damaged: it lacks {sorted(missing)}")
        if about["pairs_sha256"] != own["pairs_sha256"]:
            raise CheckpointError("the run saw other pairs: give it the same data and protocol")
        if about["pvm"] != own["pvm"]:
            raise CheckpointError(f"the run had another PVM: {about['pvm']}")
        self.warm_start = about["warm_start"]  # for the next checkpoint
