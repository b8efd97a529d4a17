"""Rivals on the same pairs with the same seconds of training: who is near, who looks right, at what price?

    python benchmarks/neighbours.py --volumes GE.nii.gz TOSHIBA.nii.gz --unseen CHEST.nii.gz
    python benchmarks/neighbours.py --search --volumes GE.nii.gz TOSHIBA.nii.gz  # the small search before it
    python benchmarks/neighbours.py --page  # book/results.md of what is stored

Methods: `alden_lite.evaluation.METHODS`. Time is processor time of this process, so that a busy machine is
fair. What is finished is stored at once in --work, one file a method and seed; a second call goes on, and a
call with other methods (`--only`) may run beside it. All of it becomes
alden_lite/evaluation/studies/neighbours.json, and book/results.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import alden_lite
from alden_lite.alden.denoising import denoise
from alden_lite.alden.pvm import load_pvm
from alden_lite.data.pairs import Pairs, training_pairs
from alden_lite.data.sample import development_slices
from alden_lite.data.volume import load_nifti
from alden_lite.engine.checkpoint import CheckpointError, file_sha256, provenance, read_card, weights_path
from alden_lite.evaluation.cohorts import (
    PHANTOMS,
    TEST,
    Cohort,
    appraise_cohort,
    first_patients,
    phantoms,
    real_patients,
    sample_test,
    validation,
)
from alden_lite.evaluation.metrics import psnr_db, rmse_hu
from alden_lite.evaluation.organs import dice
from alden_lite.evaluation.segmenter import Segmenter, load_segmenter, segment
from alden_lite.evaluation.studies.ablations import BASE
from alden_lite.evaluation.studies.methods import BLEND, METHODS, untrained_generator
from alden_lite.evaluation.studies.outcome import FLOOR, HIGH_NOISE, LOW_DOSE, headline, read_outcome
from alden_lite.neighbours.filters import FILTERS, measure_noise
from results_page import results_page
from stopwatch import train_for

STUDIES = Path(alden_lite.__file__).parent / "evaluation" / "studies"
PAGE = Path("book/results.md")
ORGAN_PATIENTS = 10  # phantom patients whose organs are looked for; one of the real ones has labels
PRECISION = {"redcnn": "bfloat16"}
"""In which networks denoise, where not in float32: RED-CNN takes 7 s a slice otherwise."""


STRENGTHS = tuple({"strength": s} for s in (0.5, 0.75, 1.0, 1.25, 1.5))
RATES = tuple({"learning_rate": rate} for rate in (2.5e-4, 5e-4, 1e-3, 2e-3))
BLENDED = {"keep": BLEND, "warm_keep": BLEND}
SEARCH: dict[str, tuple[Mapping[str, Any], ...]] = {
    "nlm": STRENGTHS,
    "bm3d": STRENGTHS[1:4],
    "tv": STRENGTHS,
    "unet": RATES,
    "redcnn": RATES[:3],
    "esau": (*RATES[:3], {"anatomical_weight": 0.1}),
    "l1": tuple({"learning_rate": rate} for rate in (1e-4, 2e-4, 4e-4)),
    "wgan_dino": (
        {"perceptual_weight": 100.0},
        {"perceptual_weight": 1000.0},
        {"perceptual_weight": 10000.0},
        {"perceptual_weight": 1000.0, "learning_rate": 5e-5},
        {"perceptual_weight": 1000.0, "warm_keep": BLEND},
    ),
    "dugan": (
        {"dual_weight": 0.1},
        {"dual_weight": 0.01},
        {"dual_weight": 0.1, "learning_rate": 5e-5},
        {"dual_weight": 0.1, **BLENDED},
        {"dual_weight": 0.01, **BLENDED},
    ),
    "gan": tuple({"adversarial_weight": weight} for weight in (0.005, 0.01, 0.02)),
    "alden": tuple({"adversarial_weight": weight} for weight in (0.005, 0.01, 0.02)),
}
"""What the small search tries for each method: fields of its plan, or a filter's strength."""


def main() -> None:
    """Run what is missing, write the page, print a table and, as the last line, its figures as JSON."""
    options = _options()
    stored = options.out / "neighbours.json"
    if options.page:
        _write_page(stored, options.page_file)
        return
    if options.search:
        _search(options)
        return
    search = _read(options.search_file, {"tried": []})["tried"]
    judge = load_pvm("efficientnet_lite0")
    sets = list(_cohorts(options))
    organs = _organ_cohorts(options, sets)
    segmenter = _segmenter()
    pairs = training_pairs("wide", options.volumes)
    made = _made(options)
    for name in [FLOOR, *options.only]:
        for seed in options.seeds if name != FLOOR and METHODS[name].training else [0]:
            part = options.work / f"{name}-{seed}.json"
            if not options.fresh and _finished(part, made, search, name):
                continue
            started = time.perf_counter()
            run = _run(name, seed, pairs, sets, organs, judge, segmenter, search, options)
            _write(part, {"made": made, "run": run})
            print(f"{name}, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
    order = [FLOOR, *METHODS]
    parts = sorted(
        options.work.glob("*-*.json"), key=lambda p: (order.index(p.stem.rsplit("-", 1)[0]), p.stem)
    )
    same = json.loads(json.dumps(made))
    together = [one["run"] for one in map(_read, parts) if one["made"] == same]
    _write(stored, {"made": made, "search": search, "runs": together})
    _write_page(stored, options.page_file)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="of training, for every method and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--volumes", type=Path, nargs="*", default=[], help="development patients: train, and look at others"
    )
    parser.add_argument("--unseen", type=Path, nargs="*", default=[], help="patients never trained on")
    parser.add_argument("--phantoms", type=int, default=30, help="phantom patients, seeds from 0 on")
    parser.add_argument("--every", type=int, default=4, help="look at every n-th slice of real patients")
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--search", action="store_true", help="choose settings on validation slices instead")
    parser.add_argument("--page", action="store_true", help="write the page from what is stored, no more")
    parser.add_argument("--fresh", action="store_true", help="forget what is in --work")
    parser.add_argument("--work", type=Path, default=Path("runs/neighbours"))
    parser.add_argument("--out", type=Path, default=STUDIES, help="folder of the stored results")
    parser.add_argument(
        "--search-file", type=Path, default=Path(__file__).with_name("neighbours_search.json")
    )
    parser.add_argument("--page-file", type=Path, default=PAGE)
    options = parser.parse_args()
    if options.minutes <= 0 or options.every < 1 or options.phantoms < 0:
        parser.error("--minutes and --every must be positive, --phantoms not negative")
    seen = {path.name for path in options.volumes}.union(
        *(read_card(weights_path(name)).get("data", {}).get("volumes", []) for name in ("l1", "alden"))
    )
    if known := [path.name for path in options.unseen if path.name in seen]:
        parser.error(f"--unseen: {', '.join(known)} trained these methods or the shipped generators")
    return options


# One method -----------------------------------------------------------------------------------------------


def _run(
    name: str,
    seed: int,
    pairs: Pairs,
    sets: Sequence[Cohort],
    organs: Mapping[str, Sequence[Cohort]],
    judge: nn.Module,
    segmenter: Segmenter | None,
    search: Sequence[Mapping[str, Any]],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Train it if it is trained, and look at everything."""
    settings, steps, seconds = _chosen(name, search), 0, 0.0
    network: nn.Module | None = None
    if name in METHODS and METHODS[name].training:
        trained = train_for(name, pairs, seconds=60 * options.minutes, settings=settings, seed=seed)
        network, steps, seconds = trained.training.averaged.eval(), trained.training.done, trained.seconds
    elif name in METHODS and METHODS[name].family in ("untrained", "shipped"):
        network = untrained_generator(name)
    looks, images, ms = {}, {}, None
    for scans in sets:
        if name == FLOOR and scans.again is None:
            continue
        start = time.process_time()
        images[scans.name] = _images(name, network, scans, settings)
        if scans.name == TEST and name not in (FLOOR, "ldct"):
            ms = round(1000 * (time.process_time() - start) / len(scans.pairs), 1)
        looks[scans.name] = {
            "patients": list(scans.patients),
            "rows": _rows(images[scans.name], scans, judge),
        }
    return {
        "method": name,
        "seed": seed,
        "steps": steps,
        "seconds": round(seconds, 1),
        "parameters": 0 if network is None else sum(p.numel() for p in network.parameters()),
        "ms": ms,
        "settings": dict(settings),
        "sets": looks,
        "dice": {
            dose: _dice(name, network, scans, images if dose == LOW_DOSE else {}, settings, segmenter)
            for dose, scans in (organs.items() if segmenter else [])
        },
    }


def _images(name: str, network: nn.Module | None, scans: Cohort, settings: Mapping[str, Any]) -> torch.Tensor:
    """What a method makes of the low-dose slices, (N, Y, X) in HU; of `FLOOR`, the normal-dose ones."""
    low = torch.from_numpy(scans.pairs.low.astype(np.float32))
    if name == FLOOR:
        return torch.from_numpy(scans.pairs.normal.astype(np.float32))
    if network is not None:
        return denoise(low, network, precision=PRECISION.get(name, "float32"), progress=False)
    if name not in FILTERS:
        return low
    filtered = []
    for one, normal, pixel_mm in zip(scans.pairs.low, scans.pairs.normal, scans.pixel_mm, strict=True):
        noise = measure_noise(one, normal, pixel_mm=pixel_mm)
        filtered.append(FILTERS[name](one, noise, pixel_mm=pixel_mm, strength=settings["strength"]))
    return torch.from_numpy(np.stack(filtered))


def _rows(images: torch.Tensor, scans: Cohort, judge: nn.Module) -> dict[str, list[float | None]]:
    """Figures of every slice, column by column."""
    rows = appraise_cohort(scans, images, judge=judge, more=True)
    for number, (image, row) in enumerate(zip(images, rows, strict=True)):
        row["texture_error"] = abs(row["texture"] - 1)
        if scans.clean is not None:
            truth = torch.from_numpy(scans.clean[number])
            row |= {"truth_rmse_hu": rmse_hu(image, truth), "truth_psnr_db": psnr_db(image, truth)}
    return {
        figure: [round(row[figure], 5) if math.isfinite(row[figure]) else None for row in rows]
        for figure in rows[0]
    }


def _dice(
    name: str,
    network: nn.Module | None,
    all_scans: Sequence[Cohort],
    images: Mapping[str, torch.Tensor],
    settings: Mapping[str, Any],
    segmenter: Segmenter | None,
) -> dict[str, float | None]:
    """Mean Dice over the groups that a patient has, by patient. `images`: those denoised already, by set."""
    found: dict[str, float | None] = {}
    for scans in all_scans:
        assert scans.groups is not None
        ready = images.get(scans.name)
        shown = _images(name, network, scans, settings) if ready is None else ready[: len(scans.pairs)]
        groups = segment(shown, segmenter)
        for patient in dict.fromkeys(scans.patients):
            own = [number for number, whose in enumerate(scans.patients) if whose == patient]
            by_group = [v for v in dice(groups[own], scans.groups[own]).values() if math.isfinite(v)]
            found[patient] = round(float(np.mean(by_group)), 5)
    return found


def _segmenter() -> Segmenter | None:
    try:
        return load_segmenter()
    except CheckpointError as error:
        print(f"goes on without organs: {error}")
        return None


# Slices ---------------------------------------------------------------------------------------------------


def _cohorts(options: argparse.Namespace) -> Iterator[Cohort]:
    """All that quality is measured on, at a quarter of the dose."""
    dose = float(LOW_DOSE)
    yield sample_test(dose, every=options.every)
    step = max(options.every // 2, 1)
    if volumes := [load_nifti(path) for path in options.volumes]:
        chosen = [(one, development_slices(one, "validation")[::step]) for one in volumes]
        yield real_patients("development", chosen, dose)
    if volumes := [load_nifti(path) for path in options.unseen]:
        yield real_patients(
            "unseen", [(one, range(len(one.hu))[:: 3 * options.every]) for one in volumes], dose
        )
    if options.phantoms:
        yield phantoms(options.phantoms, dose)


def _organ_cohorts(options: argparse.Namespace, cohorts: Sequence[Cohort]) -> dict[str, list[Cohort]]:
    """Slices with known organs, at two doses. At the first, images are there already: keep the order."""
    count = min(options.phantoms, ORGAN_PATIENTS)
    quarter = [first_patients(one, count or 1) for one in cohorts if one.name in (TEST, PHANTOMS)]
    tenth = [sample_test(float(HIGH_NOISE), every=options.every)]
    if count:
        tenth.append(phantoms(count, float(HIGH_NOISE)))
    return {LOW_DOSE: quarter, HIGH_NOISE: tenth}


# The small search -----------------------------------------------------------------------------------------


def _search(options: argparse.Namespace) -> None:
    """Try each method's few settings for a sixth of the minutes, on validation slices, and store all of it.

    Settings are tried with seed 100, which no run has.
    """
    file = options.search_file
    made = {**_made(options), "command": "python benchmarks/neighbours.py --search ..."}
    if options.fresh:
        file.unlink(missing_ok=True)
    tried: list[dict[str, Any]] = _read(file, {"tried": []})["tried"]
    judge = load_pvm("efficientnet_lite0")
    chosen = list(validation(options.volumes, float(LOW_DOSE), every=3))
    pairs = training_pairs("wide", options.volumes)
    limit = _searched("l1_shipped", {}, pairs, chosen, judge, 0)["psnr_db"]
    for name in options.only:
        for settings in SEARCH.get(name, ()):
            if any(one["method"] == name and one["settings"] == dict(settings) for one in tried):
                continue
            found = _searched(name, settings, pairs, chosen, judge, 10 * options.minutes)
            score = search_score(name, psnr_db=found["psnr_db"], judge=found["judge"], l1_psnr_db=limit)
            one = {"method": name, "settings": dict(settings), **found, "score": round(score, 4)}
            print(one, flush=True)
            tried = [*_read(file, {"tried": []})["tried"], one]  # another call may have stored some meanwhile
            _write(file, {"made": made, "tried": tried})


def search_score(name: str, *, psnr_db: float, judge: float, l1_psnr_db: float) -> float:
    """What the small search makes as large as it can, for a method, on validation slices.

    Methods that aim at the pixels (filters, `architecture`, `l1`) are chosen by PSNR. The others aim at the
    look: by the judge's distance, as long as PSNR is not more than 1 dB below that of the shipped `l1`.
    """
    method = METHODS[name]
    if method.family != "loss" or name == "l1":
        return psnr_db
    too_low = max(l1_psnr_db - 1 - psnr_db, 0.0)
    return -judge - too_low if math.isfinite(judge) else -math.inf


def _searched(
    name: str,
    settings: Mapping[str, Any],
    pairs: Pairs,
    cohorts: Sequence[Cohort],
    judge: nn.Module,
    seconds: float,
) -> dict[str, Any]:
    """Mean PSNR and judge's distance over validation slices after so many seconds."""
    network, steps = None, 0
    if METHODS[name].training:
        trained = train_for(name, pairs, seconds=seconds, settings=settings, seed=100)
        network, steps = trained.training.averaged.eval(), trained.training.done
    elif METHODS[name].family == "shipped":
        network = untrained_generator(name)
    rows = [
        row
        for scans in cohorts
        for row in appraise_cohort(scans, _images(name, network, scans, settings), judge=judge)
    ]
    means = {
        figure: float(np.mean([row[figure] for row in rows])) for figure in ("psnr_db", "judge", "grain")
    }
    return {"steps": steps, **{figure: round(value, 4) for figure, value in means.items()}}


def _chosen(name: str, search: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The best of what was tried, or the method's own settings."""
    if name == FLOOR:
        return {}
    tried = [one for one in search if one["method"] == name]
    best = max(tried, key=lambda one: one["score"])["settings"] if tried else {}
    own = {"strength": 1.0} if METHODS[name].family == "filter" else {}
    return {**own, **{k: tuple(v) if isinstance(v, list) else v for k, v in best.items()}}


# What is stored -------------------------------------------------------------------------------------------


def _made(options: argparse.Namespace) -> dict[str, Any]:
    about = provenance()
    return {
        "command": f"python benchmarks/neighbours.py --minutes {options.minutes:g} --every {options.every} "
        f"--phantoms {options.phantoms}",
        "minutes": options.minutes,
        "every": options.every,
        "phantoms": options.phantoms,
        "dose": float(LOW_DOSE),
        "recipe": asdict(BASE),
        "weights_sha256": {name: file_sha256(weights_path(name)) for name in ("l1", "alden")},
        "trained_on": ["LIDC-IDRI-0001 training slabs", *(path.name for path in options.volumes)],
        "unseen": [path.name for path in options.unseen],
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": about["versions"],
    }


def _finished(part: Path, made: Mapping[str, Any], search: Sequence[Mapping[str, Any]], name: str) -> bool:
    if not part.exists():
        return False
    stored = _read(part)
    if stored["made"] != json.loads(json.dumps(made)):
        raise SystemExit(f"{part} was made otherwise (options, weights or versions): add --fresh, or --work")
    return stored["run"]["settings"] == json.loads(json.dumps(_chosen(name, search)))


def _read(file: Path, default: Any = None) -> Any:
    if default is not None and not file.exists():
        return default
    return json.loads(file.read_text(encoding="utf-8"))


def _write(file: Path, content: Mapping[str, Any]) -> None:
    """Whole, or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    os.replace(part, file)


def _write_page(stored: Path, page: Path) -> None:
    outcome = read_outcome(stored)
    text = results_page(outcome)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")
    print(text)
    figures = {key: value if math.isfinite(value) else None for key, value in headline(outcome).items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
