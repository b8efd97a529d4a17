"""Which part of ALDEN earns its keep? Train every variation of a study with every seed, and look.

    python benchmarks/ablations.py [--study NAME] [--seeds 0 1 2] [--volumes DIR/*.nii.gz] [--only NAME ...]

What is finished is stored at once, `ablations` in alden_lite/evaluation/studies/ for chapter 10, `search`
beside this file; a second call goes on where the first was broken off. `--fresh` begins again. Variations:
`alden_lite.evaluation.VARIATIONS`, and `SEARCH` below.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import alden_lite
from alden_lite.alden.pvm import load_pvm
from alden_lite.alden.training import Recipe
from alden_lite.data.pairs import PROTOCOLS, Pairs, make_pairs, training_pairs
from alden_lite.data.sample import development_slices, load_sample, split_slices
from alden_lite.data.volume import Volume, load_nifti
from alden_lite.engine.checkpoint import file_sha256, provenance, weights_path
from alden_lite.evaluation.quality import mean_of
from alden_lite.evaluation.studies.ablations import (
    BASE,
    VARIATIONS,
    Result,
    Variation,
    against,
    look,
    train_variation,
)

COLUMNS = {
    "psnr_db": "{:+.2f}",
    "ssim": "{:+.4f}",
    "judge": "{:+.4f}",
    "texture": "{:+.3f}",
    "grain": "{:+.3f}",
}


_PIXEL = {"adversarial_weight": 0.0, "contrastive_weight": 0.0}
_NO_KEEP = {"warm_keep": 0.0, "keep": 0.0}

SEARCH = {
    "l1": Variation("pixel loss alone, from l1", {**_PIXEL, **_NO_KEEP}),
    "blend 0.1": Variation(
        "untrained: l1 with a tenth of the input left in", {**_PIXEL, "warm_keep": 0.1}, False
    ),
    "blend 0.2": Variation("untrained: a fifth left in", {**_PIXEL, "warm_keep": 0.2}, False),
    "blend 0.25": Variation("untrained: a quarter left in", {**_PIXEL, "warm_keep": 0.25}, False),
    "no keep": Variation("from l1, all of the target is normal dose", _NO_KEEP),
    "now": Variation("from a blend of 0.15, which the pixel loss's target keeps", {}),
    "keep 0.2": Variation("more of the input kept", {"warm_keep": 0.2, "keep": 0.2}),
    "contrastive at 9": Variation("at block 9", {"contrastive_taps": (9,)}),
    "contrastive at 4 8 12": Variation("at all three", {"contrastive_taps": (4, 8, 12)}),
    "temperature 0.2": Variation("a softer softmax", {"temperature": 0.2}),
    "taps 4 8 9": Variation("no saliency-adapted block for D", {"discriminator_taps": (4, 8, 9)}),
    "faster D": Variation("five times D's rate", {"discriminator_learning_rate": 1e-3}),
    "least squares": Variation("LSGAN", {"adversarial_loss": "lsgan"}),
    "half the crops": Variation("contrastive loss on every second crop", {"contrastive_crops": 4}),
    "crop 168": Variation("larger crops, fewer", {"crop": 168, "batch": 4, "bank": 64}),
    "longer": Variation("twice the steps", {"steps": 400}),
}
"""What was tried when the shipped recipe was chosen: a diary. Its results are in search.json, beside this."""

STUDIES = {"ablations": VARIATIONS, "search": SEARCH}


@dataclass(frozen=True)
class Validation:
    """Slices to look at, never trained on."""

    name: str
    pairs: Pairs
    pixel_mm: float


def main() -> None:
    """Print the table and, as the last line, its figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", choices=sorted(STUDIES), default="ablations")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--volumes", type=Path, nargs="*", default=[], help="development patients (NIfTI)")
    parser.add_argument("--only", nargs="+", help="these variations alone")
    parser.add_argument("--steps", type=int, default=BASE.steps)
    parser.add_argument("--fresh", action="store_true", help="forget what is stored")
    parser.add_argument("--out", type=Path, help="folder of the stored results")
    options = parser.parse_args()
    base = replace(BASE, steps=options.steps)
    package = Path(alden_lite.__file__).parent / "evaluation" / "studies"
    folder = options.out or (package if options.study == "ablations" else Path(__file__).parent)
    made = _made(base, options.volumes)
    results = [] if options.fresh else _stored(folder, options.study, made)
    pairs = training_pairs("wide", options.volumes)
    validation = list(_validation(options.volumes))
    judge = load_pvm("efficientnet_lite0")
    finished = {(one.variation, one.seed) for one in results}
    for seed in options.seeds:
        for name, variation in STUDIES[options.study].items():
            if (name, seed) in finished or (options.only and name not in options.only):
                continue
            started = time.perf_counter()
            training = train_variation(replace(base, seed=seed), variation, pairs, progress=False)
            results += [
                look(training, v.pairs, variation=name, data=v.name, pixel_mm=v.pixel_mm, judge=judge)
                for v in validation
            ]
            _store(folder, options.study, made, results)
            print(f"{name}, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
    print(json.dumps(_table(results, list(STUDIES[options.study]))))


def _validation(volumes: Sequence[Path]) -> Iterator[Validation]:
    yield _looked_at(load_sample(), split_slices("validation"))
    for path in volumes:
        volume = load_nifti(path)
        yield _looked_at(volume, development_slices(volume, "validation"))


def _looked_at(volume: Volume, slices: Sequence[int]) -> Validation:
    pairs = make_pairs(volume, slices, protocol=PROTOCOLS["course"], seed=1)
    return Validation(volume.name, pairs, volume.spacing_mm[1])


def _made(base: Recipe, volumes: Sequence[Path]) -> dict[str, Any]:
    """How the results came about: all that must agree for results to stand in one table."""
    assert base.warm_start is not None
    return {
        "command": "python benchmarks/ablations.py",
        "recipe": json.loads(json.dumps(asdict(base))),
        "warm_start_sha256": file_sha256(weights_path(base.warm_start)),
        "trained_on": ["LIDC-IDRI-0001 training slabs", *(path.name for path in volumes)],
        "protocols": {"training": "wide", "validation": "course"},
        "versions": provenance()["versions"],
    }


def _stored(folder: Path, study: str, made: dict[str, Any]) -> list[Result]:
    file = folder / f"{study}.json"
    if not file.exists():
        return []
    stored = json.loads(file.read_text())
    if stored["made"] != made:
        raise SystemExit(
            f"{file} was made otherwise (recipe, weights, data or versions): add --fresh, or --out"
        )
    return [Result(**one) for one in stored["results"]]


def _store(folder: Path, study: str, made: dict[str, Any], results: Sequence[Result]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{study}.part"
    lines = ",\n".join(json.dumps(asdict(one)) for one in results)
    part.write_text(f'{{"made": {json.dumps(made)},\n"results": [\n{lines}\n]}}\n'.replace("NaN", "null"))
    os.replace(part, folder / f"{study}.json")


def _table(results: Sequence[Result], names: Sequence[str]) -> dict[str, float]:
    there = [name for name in names if any(one.variation == name for one in results)]
    print("\nDifferences to the first row, with 95 % intervals over slices (seeds averaged). dose 0.25.\n")
    print("| variation | seeds | " + " | ".join(COLUMNS) + " |")
    print("|---|---|" + "---|" * len(COLUMNS))
    figures: dict[str, float] = {}
    for name in there:
        cells = []
        for figure, form in COLUMNS.items():
            rows = [{figure: v} for one in results if one.variation == name for v in one.values(figure)]
            figures[f"{name}.{figure}"] = round(mean_of(rows, figure), 4)
            cells.append(_cell(results, name, there[0], figure, form))
        seeds = len({one.seed for one in results if one.variation == name})
        print(f"| {name} | {seeds} | " + " | ".join(cells) + " |")
    return figures


def _cell(results: Sequence[Result], name: str, baseline: str, figure: str, form: str) -> str:
    if name == baseline:
        rows = [{figure: v} for one in results if one.variation == name for v in one.values(figure)]
        return form.replace("+", "").format(mean_of(rows, figure))
    try:
        mean, (low, high) = against(results, name, baseline, figure)
    except ValueError:  # the judge trained this one
        return "-"
    return f"{form.format(mean)} [{form.format(low)}, {form.format(high)}]"


if __name__ == "__main__":
    main()
