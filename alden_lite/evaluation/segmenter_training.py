"""Does a picture still show its organs? A small network that finds them, and then stays as it is (ch. 09).

Pixel errors do not say whether a reader, or the next program, can still work with a picture. So a segmenter
is trained once on normal-dose slices, frozen, and asked to find the organ groups of `data.GROUPS` in
low-dose and in denoised slices. What it finds is compared with the true groups (`overlap`).

It never sees low-dose noise in training, on purpose: noise must be able to hurt it, and that is the
measurement. It is no good segmenter: one real patient and drawn ones taught it. On the sample volume it is
tested on other slabs of the patient it learned from, so only differences between pictures of the same slices
mean something.

    python -m alden_lite.evaluation.segmenter_training --out segmenter.safetensors

Source: U-Net (Ronneberger et al., MICCAI 2015) with residual blocks (He et al., CVPR 2016) and cross-entropy
plus soft Dice (Milletari et al., 3DV 2016; nnU-Net). Deviation: half resolution, addition for concatenation.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from alden_lite.data.npz import read_npz, write_npz
from alden_lite.data.organs import GROUPS, phantom_groups, sample_groups
from alden_lite.data.pairs import as_stored
from alden_lite.data.sample import load_sample, split_slices
from alden_lite.engine.checkpoint import provenance, write_weights
from alden_lite.evaluation.segmenter import Segmenter, as_frozen
from alden_lite.phantom import EXTENT_MM, Patient, render
from alden_lite.physics.dose import simulate_pair
from alden_lite.physics.hounsfield import LOWEST_HU
from alden_lite.physics.scanner import Scanner

__all__ = [
    "FIRST_TRAINING_PATIENT",
    "SegmenterRecipe",
    "TrainingSlices",
    "train_segmenter",
    "training_slices",
]

FIRST_TRAINING_PATIENT = 1000
"""Seed of the first phantom patient that the segmenter learns from; seeds 0 to 99 are for tests."""

SCANS_VERSION = 1
"""Of the cached phantoms: to be raised when code (the phantom's, the scanner's, this) makes other slices."""

HEIGHTS = {"chest": 2, "abdomen": 2, "pelvis": 1}  # slices of a training patient


# What it learns from --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingSlices:
    """Normal-dose slices `hu` (N, Y, X) int16 in HU with their `groups` (N, Y, X) uint8; `real` (N,) bool
    says which are of a patient, the others of a phantom.

    Raises:
        ValueError: for shapes that differ, or a group that there is not.
    """

    hu: np.ndarray
    groups: np.ndarray
    real: np.ndarray

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or self.hu.shape != self.groups.shape or self.real.shape != self.hu.shape[:1]:
            shapes = f"{self.hu.shape}, {self.groups.shape} and {self.real.shape}"
            raise ValueError(f"slices (N, Y, X), groups of that shape and N flags are needed, got {shapes}")
        if self.groups.size and self.groups.max() > len(GROUPS):
            raise ValueError(f"groups are numbers from 0 to {len(GROUPS)}, got {int(self.groups.max())}")

    def __len__(self) -> int:
        return len(self.hu)


def training_slices(
    patients: int, *, cache: str | Path | None = None, progress: bool = True
) -> TrainingSlices:
    """The sample volume's training slices, and phantom patients scanned at normal dose: five slices each.

    The two label muscle differently: TotalSegmentator the back's, the iliopsoas and the gluteus, the phantom
    all of it. The segmenter learns either where it sees a patient or a drawing.

    Args:
        patients: phantom patients, with seeds from `FIRST_TRAINING_PATIENT` on.
        cache: folder for finished phantoms; none are kept when None.
        progress: show a progress bar over the phantom patients.

    Raises:
        assets.AssetError: if the sample volume is not in the cache.
    """
    volume, z = load_sample(), split_slices("train")
    assert volume.labels is not None
    parts = [(volume.hu[z], sample_groups(volume.labels[z]))]
    seeds = range(FIRST_TRAINING_PATIENT, FIRST_TRAINING_PATIENT + patients)
    for seed in tqdm(seeds, desc="phantom patients", disable=not progress):
        parts.append(_patient(seed, Path(cache) if cache is not None else None))
    real = np.arange(len(z) + patients * sum(HEIGHTS.values())) < len(z)
    hu, groups = (np.concatenate(column) for column in zip(*parts, strict=True))
    return TrainingSlices(hu, groups, real)


def _patient(seed: int, cache: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """HU and groups (5, 512, 512) of one phantom patient at random heights, with normal-dose noise."""
    file = cache / f"{_patient_key(seed)}.npz" if cache else None
    stored = read_npz(file, ("hu", "groups")) if file else None
    if stored is None:
        made = [_scan(seed, region, number) for region, count in HEIGHTS.items() for number in range(count)]
        stored = {"hu": np.stack([hu for hu, _ in made]), "groups": np.stack([groups for _, groups in made])}
        if file:
            write_npz(file, **stored)
    return stored["hu"], stored["groups"]


def _patient_key(seed: int) -> str:
    """Name of a cache file: the numbers that a patient's slices depend on, and `SCANS_VERSION`."""
    patient = Patient.draw(seed)
    recipe = {
        "version": SCANS_VERSION,
        "patient": asdict(patient),
        "tissues": dict(patient.hu),
        "slices": {region: [count, *EXTENT_MM[region]] for region, count in HEIGHTS.items()},
        "scanners": {region: asdict(Scanner.preset(region)) for region in HEIGHTS},
    }
    content = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    return f"patient_{seed}_{content.hexdigest()[:24]}"


def _scan(seed: int, region: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """One slice; number n of N lies at random in the n-th part of the region's height."""
    patient = Patient.draw(seed)
    low, high = EXTENT_MM[region]
    share = (number + patient.rng(f"segmenter {region} {number}").random()) / HEIGHTS[region]
    phantom = render(patient, region, z_mm=low + share * (high - low))
    scanner = Scanner.preset(region, pixel_mm=phantom.pixel_mm)
    scan = simulate_pair(phantom.hu, scanner=scanner, dose=1.0, seed=10 * seed + number)
    return as_stored(scan.normal), phantom_groups(phantom.labels)


# Training -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SegmenterRecipe:
    """How the segmenter is trained. `real_share` of a batch are patients' slices, the rest phantoms'."""

    patients: int = 40  # phantoms to learn from, five slices each
    steps: int = 2500
    batch: int = 4
    crop: int = 320  # pixels
    learning_rate: float = 3e-3  # at its highest: one cycle
    weight_decay: float = 1e-4
    real_share: float = 0.5
    scale: tuple[float, float] = (0.85, 1.18)
    offset_hu: float = 15.0  # of a whole slice, either way
    dice_weight: float = 1.0
    precision: str = "bfloat16"
    seed: int = 0


def train_segmenter(
    slices: TrainingSlices, recipe: SegmenterRecipe | None = None, *, progress: bool = True
) -> Segmenter:
    """A segmenter trained on normal-dose slices, frozen.

    Crops are shifted, scaled and offset in HU. No noise is added, no slice is smoothed (scaling takes the
    nearest pixel, interpolation would average noise away), and none is mirrored: the liver is on the right.

    Args:
        slices: from `training_slices`.
        recipe: steps, batch, rates; the shipped segmenter's when None.
        progress: show a progress bar with the loss.

    Raises:
        ValueError: if there are no slices, or a precision other than float32 and bfloat16 is asked for.
    """
    recipe = recipe or SegmenterRecipe()
    if len(slices) == 0:
        raise ValueError("no slices to learn from")
    if recipe.precision not in ("float32", "bfloat16"):
        raise ValueError(f"no precision {recipe.precision!r}: choose float32 or bfloat16")
    weights = group_weights(slices)
    rng = np.random.default_rng(recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        segmenter = Segmenter().to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(
        segmenter.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=max(recipe.steps, 2), pct_start=0.2
    )
    bar = tqdm(range(recipe.steps), desc="training", unit="step", disable=not progress, mininterval=5)
    for step in bar:
        hu, groups = draw_batch(slices, recipe, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            scores = segmenter(hu)
        loss = segmentation_loss(scores.float(), groups, weights=weights, dice_weight=recipe.dice_weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        cycle.step()
        if step % 10 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
    return as_frozen(segmenter)


def group_weights(slices: TrainingSlices) -> torch.Tensor:
    """A weight for none and every group: 1 / sqrt(share of the pixels), 1 on average over pixels.

    So that groups with less than a hundredth of the pixels, such as kidneys, are learned early.

    Returns:
        (11,) float32; 0 for a group that no slice shows.
    """
    share = np.bincount(slices.groups.ravel(), minlength=1 + len(GROUPS)) / slices.groups.size
    weight = np.where(share > 0, 1 / np.sqrt(np.maximum(share, 1e-12)), 0)
    return torch.from_numpy(weight / (weight * share).sum()).float()


def segmentation_loss(
    scores: torch.Tensor,
    groups: torch.Tensor,
    *,
    weights: torch.Tensor | None = None,
    dice_weight: float = 1.0,
) -> torch.Tensor:
    """Cross-entropy plus `dice_weight` times soft Dice loss (1 - Dice, mean over the groups in the batch).

    Args:
        scores: (B, 11, h, w) logits at half resolution.
        groups: (B, 2h, 2w) int64. A score is compared with the shares of its four pixels.
        weights: (11,) of the groups in the cross-entropy, 1 when None.
    """
    target = torch.zeros_like(scores)
    for corner in range(4):
        one = groups[:, None, corner // 2 :: 2, corner % 2 :: 2]
        target.scatter_add_(1, one, torch.full_like(one, 0.25, dtype=scores.dtype))
    surprise = -target * scores.log_softmax(1)
    if weights is not None:
        surprise = surprise * weights[:, None, None]
    entropy = surprise.sum(1).mean()
    probability = scores.softmax(1)
    both, either = (t.sum((0, 2, 3)) for t in (probability * target, probability + target))
    present = target.amax((0, 2, 3)) > 0
    present[0] = False  # Dice of "none of them" says little
    if not present.any():
        return entropy
    return entropy + dice_weight * (1 - 2 * both[present] / either[present]).mean()


def draw_batch(
    slices: TrainingSlices, recipe: SegmenterRecipe, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops `hu` (B, 1, S, S) float32 with their `groups` (B, S, S) int64, shifted, scaled, offset."""
    kinds = [np.flatnonzero(slices.real), np.flatnonzero(~slices.real)]
    hu, groups = [], []
    for _ in range(recipe.batch):
        kind = kinds[int(rng.random() >= recipe.real_share)]
        n = int(rng.choice(kind if len(kind) else np.arange(len(slices))))
        scale = float(np.exp(rng.uniform(*np.log(recipe.scale))))
        rows, columns = (_picked(size, recipe.crop, scale, rng) for size in slices.hu.shape[1:])
        outside = (rows < 0)[:, None] | (columns < 0)
        place = (n, rows[:, None], columns)
        offset = rng.uniform(-recipe.offset_hu, recipe.offset_hu)
        hu.append(np.where(outside, LOWEST_HU, slices.hu[place] + offset))
        groups.append(np.where(outside, 0, slices.groups[place]))
    return torch.from_numpy(np.stack(hu)).float()[:, None], torch.from_numpy(np.stack(groups)).long()


def _picked(size: int, crop: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Which of `size` pixels a crop shows along one axis; -1 where it reaches beyond the slice."""
    reach = max(size - crop, 0) / 2 + size / 16
    centre = (size - 1) / 2 + rng.uniform(-reach, reach)
    index = np.rint(centre + (np.arange(crop) - (crop - 1) / 2) * scale).astype(int)
    return np.where((index >= 0) & (index < size), index, -1)


def main(argv: Sequence[str] | None = None) -> int:
    """Train the segmenter and write its weights with a card that says how."""
    parser = argparse.ArgumentParser(
        prog="python -m alden_lite.evaluation.segmenter_training", description=main.__doc__
    )
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--patients", type=int, default=SegmenterRecipe.patients, help="training phantoms")
    parser.add_argument("--steps", type=int, default=SegmenterRecipe.steps)
    parser.add_argument("--seed", type=int, default=SegmenterRecipe.seed)
    parser.add_argument("--cache", type=Path, help="folder to keep the training phantoms' scans in")
    options = parser.parse_args(argv)
    if options.out.suffix != ".safetensors":
        parser.error(f"--out must end in .safetensors, got {options.out}")
    recipe = SegmenterRecipe(patients=options.patients, steps=options.steps, seed=options.seed)
    slices = training_slices(recipe.patients, cache=options.cache)
    segmenter = train_segmenter(slices, recipe)
    first, last = FIRST_TRAINING_PATIENT, FIRST_TRAINING_PATIENT + recipe.patients - 1
    data = {
        "sample": f"LIDC-IDRI-0001 training slabs, {int(slices.real.sum())} slices",
        "labels": "TotalSegmentator's on the sample volume, as drawn on phantoms",
        "phantoms": f"patients of seeds {first} to {last}, {int((~slices.real).sum())} slices",
        "dose": "normal dose only, no noise added",
    }
    write_weights(options.out, segmenter, {"recipe": asdict(recipe), "data": data, **provenance()})
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
