"""Variations of the method, and how their results are compared."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ablations as script  # of benchmarks/
from alden_lite.alden.denoising import denoise
from alden_lite.alden.pvm import load_pvm
from alden_lite.alden.training import Recipe
from alden_lite.data.pairs import Pairs
from alden_lite.evaluation import studies
from alden_lite.evaluation.quality import FIGURES
from alden_lite.evaluation.studies.ablations import (
    BASE,
    VARIATIONS,
    Result,
    against,
    look,
    read_study,
    train_variation,
)

STUDIES = script.STUDIES
TINY = Recipe(steps=1, batch=2, crop=112, bank=2, reuse=1, warmup=0, accelerator="cpu")


@pytest.mark.parametrize(("study", "name"), [(study, name) for study, of in STUDIES.items() for name in of])
def test_a_variation_is_a_recipe_and_says_what_it_is(study: str, name: str) -> None:
    variation = STUDIES[study][name]
    recipe = replace(BASE, **variation.changes)
    different = {field for field, value in asdict(recipe).items() if value != asdict(BASE)[field]}
    assert different == set(variation.changes), "a change that changes nothing"
    assert variation.about


def test_no_two_variations_of_a_study_are_the_same_run() -> None:
    for study, variations in STUDIES.items():
        recipes = [
            json.dumps([asdict(replace(BASE, **one.changes)), one.trained]) for one in variations.values()
        ]
        assert len(set(recipes)) == len(recipes), study


@pytest.mark.parametrize("name", ["baseline", "cnn", "random weights"])
def test_variations_of_the_vision_model_train(name: str, pairs: Pairs) -> None:
    variation = VARIATIONS[name]
    recipe = replace(TINY, **variation.changes)
    training = train_variation(TINY, variation, pairs, progress=False)
    assert training.done == 1 and training.recipe == recipe
    assert (training.pvm.name if training.pvm else None) == (recipe.pvm if name != "baseline" else None)


def test_random_weights_come_from_the_runs_seed_and_their_blocks_differ(pairs: Pairs) -> None:
    control = VARIATIONS["random weights"]
    one, same, other = (
        train_variation(replace(TINY, seed=s), control, pairs, progress=False) for s in (1, 1, 2)
    )
    assert one.pvm and same.pvm and other.pvm
    assert one.pvm.weights_sha256 == same.pvm.weights_sha256 != other.pvm.weights_sha256
    maps = one.bank.at(0).normal_maps
    assert not np.allclose(maps[4], maps[8], atol=0.1)


def test_a_run_is_looked_at_figure_by_figure_and_the_judge_does_not_judge_itself(pairs: Pairs) -> None:
    judge = load_pvm("efficientnet_lite0")
    plain = train_variation(replace(TINY, seed=3), VARIATIONS["baseline"], pairs, progress=False)
    found = look(plain, pairs, variation="baseline", data="flat", pixel_mm=0.7, judge=judge)
    assert (found.variation, found.seed, found.data) == ("baseline", 3, "flat")
    assert set(found.rows) == set(FIGURES) and all(len(values) == 3 for values in found.rows.values())
    assert found.values("judge").min() > 0
    cnn = train_variation(TINY, VARIATIONS["cnn"], pairs, progress=False)
    silent = look(cnn, pairs, variation="cnn", data="flat", pixel_mm=0.7, judge=judge)
    assert np.isnan(silent.values("judge")).all() and np.isfinite(silent.values("psnr_db")).all()


def test_a_variation_without_training_is_a_blend_of_the_start_and_the_low_dose_slice(pairs: Pairs) -> None:
    base = replace(TINY, warm_start="l1", warm_keep=0.25)
    blend = train_variation(base, VARIATIONS["blend"], pairs, progress=False)
    assert blend.done == 0
    low = torch.from_numpy(pairs.low[:1, None].astype(np.float32))
    expected = 0.25 * low + 0.75 * denoise(low[:, 0], "l1", progress=False)[:, None]
    torch.testing.assert_close(blend.denoise(low), expected, atol=1e-2, rtol=0)


def results(differences: dict[int, list[float]]) -> list[Result]:
    """`alden` better than `baseline` by the given values, by seed; two sets of slices."""
    base = [30.0, 31.0, 32.0, 33.0]
    made = []
    for seed, by in differences.items():
        values = np.array(base) + 0.5 * seed
        for data, part in (("first", slice(0, 2)), ("second", slice(2, 4))):
            made.append(Result("baseline", seed, data, {"psnr_db": values[part].tolist()}))
            made.append(Result("alden", seed, data, {"psnr_db": (values + by)[part].tolist()}))
    return made


def test_the_same_slices_and_seeds_are_compared() -> None:
    mean, (low, high) = against(results({0: [1, 1, 1, 1], 1: [3, 3, 3, 3]}), "alden", "baseline", "psnr_db")
    assert (mean, low, high) == pytest.approx((2, 2, 2))
    mean, (low, high) = against(results({0: [0, 1, 2, 3]}), "alden", "baseline", "psnr_db")
    assert mean == pytest.approx(1.5) and 0 <= low < mean < high <= 3
    reverse, _ = against(results({0: [0, 1, 2, 3]}), "baseline", "alden", "psnr_db")
    assert reverse == pytest.approx(-1.5)


def test_results_that_are_not_there_are_named() -> None:
    with pytest.raises(ValueError, match=r"no results of 'gan': there are \['alden', 'baseline'\]"):
        against(results({0: [1, 1, 1, 1]}), "gan", "baseline", "psnr_db")
    blind = [replace(one, rows={"psnr_db": [None, None]}) for one in results({0: [1, 1, 1, 1]})]  # type: ignore[list-item]
    assert math.isnan(blind[0].values("psnr_db")[0])
    with pytest.raises(ValueError, match="3 values or more"):
        against(blind, "alden", "baseline", "psnr_db")


def test_a_study_that_was_never_run_says_how_to_run_it() -> None:
    with pytest.raises(FileNotFoundError, match=r"benchmarks/ablations.py --study nowhere"):
        read_study("nowhere")


@pytest.mark.parametrize(
    "file",
    [Path(studies.__file__).with_name("ablations.json"), Path(script.__file__).with_name("search.json")],
    ids=lambda f: f.stem,
)
def test_what_is_stored_belongs_to_the_study_and_is_complete(file: Path) -> None:
    study = json.loads(file.read_text(encoding="utf-8"))
    made, stored = study["made"], [Result(**one) for one in study["results"]]
    assert made["recipe"] == json.loads(json.dumps(asdict(BASE))), "or what is stored cannot be gone on with"
    assert {"command", "recipe", "warm_start_sha256", "trained_on", "versions"} <= set(made)
    assert {one.variation for one in stored} <= set(STUDIES[file.stem])
    sets = {one.data for one in stored}
    runs = [(one.variation, one.seed, one.data) for one in stored]
    assert len(set(runs)) == len(runs)
    assert {(v, s, d) for v, s, _ in runs for d in sets} == set(runs), "a run was not looked at everywhere"
