"""ALDEN's training: a recipe, and one step in which D learns, then G. Taught in chapter 08.

    L_D = BCE(D(y, A(y)), 1) + BCE(D(sg yhat, A(y)), 0)
    L_G = w_pix |yhat - z|_1 + w_adv BCE(D(yhat, A(y)), 1) + w_scl SCL(Phi(yhat), Phi(y), Phi(x))
    z = (1 - k) y + k x

x is the low-dose slice, y the normal-dose one, yhat = G(x), Phi the frozen pretrained vision model (PVM),
A(y) its features, D the anatomy-aware discriminator. That these three losses train G is the paper's (Wang et
al., MICCAI 2025); weights, schedule and sizes are OURS. So is k, a small share of x in the pixel loss's
target: a generator that aims at y ends at the mean of all likely y, which has too little grain.

Phi(y) and Phi(x) never change, so they are computed once for a bank of crops and reused; a step then costs
one pass of the PVM with gradient, not three.

The loop, checkpoints and several processes are the engine's (`engine.loop`), generator and crops every paired
run's (`paired`): here stands what ALDEN adds, the recipe and one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from alden_lite.alden.contrastive import semantic_contrastive_loss
from alden_lite.alden.discriminator import AnatomyAwareDiscriminator, discriminator_loss, generator_loss
from alden_lite.alden.paired import PairedPlan, PairedRun
from alden_lite.alden.pvm import PVM, load_pvm
from alden_lite.data.pairs import Pairs
from alden_lite.engine.crops import Batch, purpose_seed
from alden_lite.engine.loop import frozen
from alden_lite.physics.hounsfield import denormalise

__all__ = ["Recipe", "Training"]


@dataclass(frozen=True, kw_only=True)
class Recipe(PairedPlan):
    """Everything a run depends on besides its pairs. Printed at the start, stored in every checkpoint.

    A loss weight of 0 leaves that part out: with both at 0 this is plain L1 training, without a PVM.
    """

    # networks
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
    # optimisation
    discriminator_learning_rate: float = 2e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_above_zero("discriminator_learning_rate", "temperature", "places", "negatives")
        self.check_not_negative("pixel_weight", "adversarial_weight", "contrastive_weight", "min_distance")
        self.check_one_of("query", "image", "semantic")
        self.check_one_of("adversarial_loss", "bce", "lsgan")
        self.check_one_of("contrastive_form", "joint", "sum")
        processes = self.devices * self.nodes
        if (few := self.contrastive_crops) and (few < 0 or self.batch % few or few % processes):
            raise ValueError(
                f"contrastive_crops={few} must divide batch={self.batch}, and be a multiple of all devices"
            )
        if not 0 <= self.keep < 1:
            raise ValueError(f"keep is a share in [0, 1), got {self.keep}")

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


class Training(PairedRun):
    """One run of ALDEN: D learns to tell y from yhat, and G from pixels, D and the PVM.

    Args:
        recipe: what to do.
        pairs: low- and normal-dose slices in HU.
        folder: where checkpoints and log go; nothing is written when None.
        pvm: a PVM that is loaded already; must be the recipe's.

    Raises:
        ValueError: if a crop does not fit into the slices or is not a multiple of the PVM's patch.
        CheckpointError: if the warm start is not a generator of this recipe, or the folder holds a run.
    """

    plan: Recipe
    plan_class = Recipe

    def __init__(
        self, recipe: Recipe, pairs: Pairs, folder: str | Path | None = None, *, pvm: PVM | None = None
    ) -> None:
        super().__init__(recipe, pairs, folder)
        if recipe.taps:
            self.look_with(_recipe_pvm(recipe, pvm))
        if recipe.adversarial:
            discriminator = AnatomyAwareDiscriminator(
                semantic_channels=self._semantic_channels(),
                query=recipe.query,  # type: ignore[arg-type]
                positions=recipe.positions,
            )
            self.discriminator = self.player(
                "discriminator", discriminator, recipe.discriminator_learning_rate
            )
        self.bank = self.crop_bank(
            normal_features=partial(self.maps, taps=recipe.taps) if recipe.taps else None,
            low_features=partial(self.maps, taps=recipe.contrastive_taps) if recipe.contrastive else None,
        )

    @property
    def recipe(self) -> Recipe:
        """The plan by its name in this course."""
        return self.plan

    def _semantic_channels(self) -> list[int] | None:
        if self.pvm is None or not self.recipe.anatomy:
            return None
        channels = dict(zip(self.pvm.taps, self.pvm.channels, strict=True))
        return [channels[tap] for tap in self.recipe.discriminator_taps]

    # One step ---------------------------------------------------------------------------------------------

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Update D, then G, on one batch."""
        denoised = self.generate(batch)
        losses = {}
        if self.recipe.adversarial:
            losses["discriminator"] = self.discriminator_step(denoised.detach(), batch)
        return losses | self.generator_step(denoised, batch)

    def discriminator_step(self, denoised: torch.Tensor, batch: Batch) -> torch.Tensor:
        """D learns to tell y from yhat, both beside the anatomy of y. `denoised` comes without a graph."""
        images = denormalise(torch.cat([batch.normal, denoised]))  # one pass: real, then fake
        logits = self.discriminator(images, self._semantics(batch, copies=2)).float()
        real, fake = logits.chunk(2)
        loss = discriminator_loss(real, fake, kind=self.recipe.adversarial_loss)  # type: ignore[arg-type]
        return self.minimise("discriminator", loss)

    def generator_step(self, denoised: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        """G learns from pixels, D and PVM. Gradients pass through D and PVM, and change neither."""
        recipe = self.recipe
        target = torch.lerp(batch.normal, batch.low, recipe.keep)
        losses = {"pixel": (denoised - target).abs().mean()}
        total = recipe.pixel_weight * losses["pixel"]
        if recipe.adversarial:
            # The bare module: under several processes its wrapper would wait for gradients that never come.
            discriminator = self.discriminator.module
            with frozen(discriminator), self.fabric.autocast():
                logits = discriminator(denormalise(denoised), self._semantics(batch, copies=1))
            losses["adversarial"] = generator_loss(logits.float(), kind=recipe.adversarial_loss)  # type: ignore[arg-type]
            total = total + recipe.adversarial_weight * losses["adversarial"]
        if recipe.contrastive:
            losses["contrastive"] = self._contrastive(denoised, batch)
            total = total + recipe.contrastive_weight * losses["contrastive"]
        self.minimise("generator", total)
        return {name: loss.detach() for name, loss in losses.items()}

    def _contrastive(self, denoised: torch.Tensor, batch: Batch) -> torch.Tensor:
        recipe, taps = self.recipe, self.recipe.contrastive_taps
        every = recipe.batch // recipe.contrastive_crops if recipe.contrastive_crops else 1
        maps = self.maps(denormalise(denoised[::every]), taps=taps)
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

    def _semantics(self, batch: Batch, *, copies: int) -> list[torch.Tensor] | None:
        if not self.recipe.anatomy:
            return None
        return [batch.normal_maps[t].repeat(copies, 1, 1, 1) for t in self.recipe.discriminator_taps]


def _recipe_pvm(recipe: Recipe, pvm: PVM | None) -> PVM:
    """The recipe's PVM, loaded unless given."""
    if pvm is None:
        pvm = load_pvm(recipe.pvm, taps=recipe.taps)
    if (pvm.name, tuple(pvm.taps)) != (recipe.pvm, recipe.taps):
        raise ValueError(
            f"the recipe needs {recipe.pvm} at {recipe.taps}, got {pvm.name} at {tuple(pvm.taps)}"
        )
    return pvm
