"""How much anatomy does a linear probe read from a network? Blocks, controls, other patients, windows.

    python benchmarks/probes.py [--every 3] [--quick] [--noise-free]

The probe's form was fixed before (see `alden_lite.explain.probes`), and nothing is tuned on what is printed
here; only EfficientNet-Lite0's row is its best stage of five, chosen on the same tokens: its best case. The
sample volume is cut into slabs of 30 mm, dealt to five folds: a token is predicted by a probe that saw no
token of its slab. The column "gap" leaves out slices near the slabs' borders, so that no tested slice has a
training slice closer than 12.5 mm. That is not the price of nearness alone: a quarter of the tokens is gone
too, and with every third slice the same gap of 15 mm made by leaving out each slab's first slice instead of
its last gives block 9 0.90 instead of 0.87. Slabs of one patient are not patients: the third table has those,
drawn ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from itertools import count, islice

import numpy as np
import torch
from sklearn.model_selection import GroupKFold

from alden_lite.alden.pvm import INPUTS, crop_to_grid, load_pvm, random_pvm
from alden_lite.data.organs import GROUPS, phantom_groups, sample_groups
from alden_lite.data.sample import load_sample
from alden_lite.explain.probes import (
    ProbeResult,
    Tokens,
    collect_tokens,
    cross_validated,
    fit_probe,
    pixel_tokens,
    position_tokens,
    slabs,
    tested_on,
)
from alden_lite.phantom import Patient, render
from alden_lite.physics.dose import simulate_pair
from alden_lite.physics.scanner import Scanner

BLOCKS = tuple(range(1, 13))
SOME = (1, 4, 6, 9, 12)
HEIGHTS_MM = {"abdomen": (-60.0, -20.0, 20.0, 60.0), "chest": (-30.0, 30.0)}
FADING = ("kidney", "spleen", "vessel")
"""Groups that contrast medium makes bright."""

Slices = tuple[np.ndarray, np.ndarray, np.ndarray]
"""HU and groups (B, H, W), and the slab or patient (B,) of each slice."""


def main() -> None:
    """Print four tables and, as the last line, their figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=3, help="use every n-th slice of the sample volume")
    parser.add_argument("--quick", action="store_true", help="every 6th slice, few blocks, few phantoms")
    parser.add_argument("--noise-free", action="store_true", help="phantoms without scanner noise")
    options = parser.parse_args()
    slices, z = _sample(6 if options.quick else options.every)
    blocks = SOME if options.quick else BLOCKS
    dinov2 = collect_tokens(load_pvm(taps=blocks), *slices[:2], units=slices[2])
    figures = _blocks_and_controls(slices, z, dinov2)
    figures |= _mirrored(slices, dinov2)
    figures |= _other_patients(dinov2, patients=3 if options.quick else 6, noise=not options.noise_free)
    figures |= _windows(slices, dinov2)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def _sample(every: int) -> tuple[Slices, np.ndarray]:
    """The sample volume's slices in slabs, and their indices in z; they begin where a slab's margin ends."""
    volume = load_sample()
    assert volume.labels is not None
    z = np.arange(2 % every, len(volume.hu), every)
    groups = crop_to_grid(sample_groups(volume.labels[z]))
    return (crop_to_grid(volume.hu[z]), groups, slabs(z, margin=0)), z


def _blocks_and_controls(slices: Slices, z: np.ndarray, dinov2: Tokens) -> dict[str, float]:
    """The first table: every block, and what tells how much of it is due to learned features."""
    hu, groups, units = slices
    inner = slabs(z)[dinov2.place[:, 0]] >= 0
    print(
        f"Sample volume: {len(hu)} slices, {len(dinov2)} tokens of {len(GROUPS)} groups, {units.max() + 1} "
        "slabs of 30 mm.\nLinear probe, 5 folds. Interval: bootstrap over slabs.\n"
    )
    print("| features | balanced accuracy | 95 % interval | worst group | gap of 12.5 mm |")
    print("|---|---|---|---|---|")

    def row(name: str, key: str, features: np.ndarray) -> dict[str, float]:
        result = _on(dinov2, features)
        gap = _on(dinov2.where(inner), features[inner])
        low, high = result.interval()
        print(
            f"| {name} | {result.balanced_accuracy:.3f} | {low:.3f} to {high:.3f} | {_worst(result)} "
            f"| {gap.balanced_accuracy:.3f} |",
            flush=True,
        )
        return {key: result.balanced_accuracy, f"{key}_low": low, f"{key}_high": high} | {
            f"{key}_gap": gap.balanced_accuracy
        }

    figures: dict[str, float] = {}
    for block, features in dinov2.features.items():
        figures |= row(f"DINOv2 ViT-S/14, block {block}", f"dinov2_block{block}", features)
    for name, key, scale, tap in (
        ("random ViT, as before training (all blocks alike)", "random_vit", 1e-5, 1),
        ("random ViT, LayerScale 1, block 9", "random_vit_mixing", 1.0, 9),
    ):
        tokens = collect_tokens(random_pvm(layer_scale=scale, taps=(tap,)), hu, groups, units=units)
        figures |= row(name, key, tokens.features[tap])
    lite = collect_tokens(load_pvm("efficientnet_lite0"), hu, groups, units=units).features
    best = max(lite, key=lambda stage: _on(dinov2, lite[stage]).balanced_accuracy)
    figures |= row(f"EfficientNet-Lite0, stage {best} (its best)", "efficientnet_lite0", lite[best])
    figures |= row("HU of the 196 pixels", "pixels", pixel_tokens(dinov2, hu))
    grid = (hu.shape[1] // 14, hu.shape[2] // 14)
    return figures | row("place alone (row, column)", "position", position_tokens(dinov2, grid))


def _mirrored(slices: Slices, dinov2: Tokens) -> dict[str, float]:
    """Tested on other slabs with left and right exchanged (every other slice): do probes go by the place?"""
    hu, groups = (part[::2, :, ::-1].copy() for part in slices[:2])
    taps = tuple(block for block in SOME if block in dinov2.features)
    mirrored = collect_tokens(load_pvm(taps=taps), hu, groups, units=slices[2][::2])
    print("\nThe same slabs, mirrored left to right; the probe saw the others as they are.\n")
    print("| block | balanced accuracy | 95 % interval | worst group |")
    print("|---|---|---|---|")
    figures = {}
    for block in taps:
        predicted = np.zeros_like(mirrored.group)
        for train, test in GroupKFold(5).split(dinov2.group, groups=dinov2.unit):
            asked = np.isin(mirrored.unit, dinov2.unit[test])
            probe = fit_probe(dinov2.features[block][train], dinov2.group[train])
            predicted[asked] = probe.predict(mirrored.features[block][asked])
        result = ProbeResult(mirrored.group, predicted, mirrored.unit)
        print(f"| {block} | {_cells(result)} | {_worst(result)} |", flush=True)
        figures[f"mirrored_block{block}"] = result.balanced_accuracy
    return figures


def _other_patients(sample: Tokens, *, patients: int, noise: bool) -> dict[str, float]:
    """The third table: `patients` phantoms with contrast medium, as many without, and the sample patient."""
    hu, groups, seeds = _phantoms(patients, noise=noise)
    taps = tuple(block for block in SOME if block in sample.features)
    drawn = collect_tokens(load_pvm(taps=taps), hu, groups, units=seeds, most=30)
    bright = np.array([Patient.draw(int(seed)).contrast for seed in drawn.unit])
    known = sample.where(np.isin(sample.group, drawn.group))
    asked = drawn.where(np.isin(drawn.group, sample.group))
    said = "with scanner noise" if noise else "without noise"
    print(
        f"\n{2 * patients} phantom patients {said}, {len(hu)} slices, {len(drawn)} tokens; half have contrast"
    )
    print("medium. Interval: bootstrap over patients (slabs where the sample is tested).\n")
    print(
        "| trained on | tested on | block | balanced accuracy | 95 % interval | worst group | bright groups |"
    )
    print("|---|---|---|---|---|---|---|")
    figures: dict[str, float] = {}

    def row(trained: str, tested: str, key: str, test: Callable[[int], ProbeResult]) -> None:
        for block in taps:
            result = test(block)
            recall = result.recall()
            fading = ", ".join(f"{name} {recall[name]:.2f}" for name in FADING if name in recall)
            print(
                f"| {trained} | {tested} | {block} | {_cells(result)} | {_worst(result)} | {fading} |",
                flush=True,
            )
            figures[f"{key}_block{block}"] = result.balanced_accuracy

    def across(train: Tokens, test: Tokens) -> Callable[[int], ProbeResult]:
        return lambda block: tested_on(
            fit_probe(train.features[block], train.group), test.features[block], test.group, test.unit
        )

    with_medium, without = drawn.where(bright), drawn.where(~bright)
    row("phantoms", "other phantoms", "phantoms", lambda b: _on(drawn, drawn.features[b]))
    row("phantoms", "sample patient", "phantoms_to_sample", across(drawn, known))
    row("sample patient", "phantoms", "sample_to_phantoms", across(sample, asked))
    row(
        "with contrast",
        "others with",
        "contrast",
        lambda b: _on(with_medium, with_medium.features[b], folds=3),
    )
    row("with contrast", "without contrast", "contrast_to_native", across(with_medium, without))
    row("without contrast", "others without", "native", lambda b: _on(without, without.features[b], folds=3))
    return figures


def _phantoms(patients: int, *, noise: bool) -> Slices:
    """Slices of the first patients with contrast medium, and of as many without."""
    seeds = [
        seed
        for contrast in (True, False)
        for seed in islice((s for s in count() if Patient.draw(s).contrast == contrast), patients)
    ]
    hu, groups, units = [], [], []
    for seed in seeds:
        for region, heights in HEIGHTS_MM.items():
            for number, height in enumerate(heights):
                phantom = render(Patient.draw(seed), region, z_mm=height, matrix=504)
                image = phantom.hu
                if noise:
                    scanner = Scanner.covering(504, phantom.pixel_mm)
                    image = simulate_pair(image, scanner=scanner, dose=1.0, seed=10 * seed + number).normal
                hu.append(image.clamp(min=-1024))
                groups.append(phantom_groups(phantom.labels))
                units.append(seed)
    return torch.stack(hu).numpy(), np.stack(groups), np.array(units)


def _windows(slices: Slices, dinov2: Tokens) -> dict[str, float]:
    """The last table: which HU the network sees, at block 9."""
    hu, groups, units = slices
    print("\nBlock 9, by what the three colour channels show.\n")
    print("| input | balanced accuracy | 95 % interval | worst group |")
    print("|---|---|---|---|")
    figures = {}
    for name, windows in INPUTS.items():
        features = dinov2.features[9]
        if name != "soft":
            features = collect_tokens(load_pvm(taps=(9,), windows=windows), hu, groups, units=units).features[
                9
            ]
        result = _on(dinov2, features)
        print(f"| {name}: {_said(windows)} | {_cells(result)} | {_worst(result)} |", flush=True)
        figures[f"windows_{name}"] = result.balanced_accuracy
    return figures


def _on(tokens: Tokens, features: np.ndarray, *, folds: int = 5) -> ProbeResult:
    return cross_validated(features, tokens.group, tokens.unit, folds=folds)


def _cells(result: ProbeResult) -> str:
    low, high = result.interval()
    return f"{result.balanced_accuracy:.3f} | {low:.3f} to {high:.3f}"


def _worst(result: ProbeResult) -> str:
    name, share = min(result.recall().items(), key=lambda item: item[1])
    return f"{name} {share:.2f}"


def _said(windows: Sequence[str]) -> str:
    return windows[0] if len(windows) == 1 else ", ".join(windows)


if __name__ == "__main__":
    main()
