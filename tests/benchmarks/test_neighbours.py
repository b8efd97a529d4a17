"""The benchmark of ALDEN among its neighbours: it stores each run, goes on, and writes its page."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from alden_lite.data.pairs import Pairs
from alden_lite.evaluation.cohorts import Cohort, first_patients
from alden_lite.evaluation.studies.methods import (
    METHODS,
    plan_of,
    untrained_generator,
)
from alden_lite.neighbours.filters import FILTERS


@pytest.fixture
def benchmark(
    monkeypatch: pytest.MonkeyPatch, pairs: Pairs, benchmark_script: Callable[[str], ModuleType]
) -> ModuleType:
    """benchmarks/neighbours.py on slices of 128 pixels, without a judge or an organ network."""
    module = benchmark_script("neighbours")
    groups = np.full(pairs.low.shape, 4, np.uint8)
    count = len(pairs)
    test = Cohort("sample-test", ["anna"] * count, pairs, [0.7] * count, groups=groups)
    drawn = Cohort(
        "phantoms",
        [f"phantom {n}" for n in range(count)],
        pairs,
        [0.7] * count,
        again=pairs.normal + 3,
        clean=np.full(pairs.low.shape, 50, np.float32),
        groups=groups,
    )
    monkeypatch.setattr(module, "sample_test", lambda dose, every: test)
    monkeypatch.setattr(module, "phantoms", lambda count, dose: first_patients(drawn, count))
    monkeypatch.setattr(module, "training_pairs", lambda *_: pairs)
    # The judge takes a second a slice; this one compares brightness and slopes.
    monkeypatch.setattr(module, "load_pvm", lambda _: lambda hu: [torch.cat([hu, hu.roll(1, -1)], 1)])
    monkeypatch.setattr(module, "validation", lambda *_, **__: iter([test]))
    monkeypatch.setattr(module, "segment", lambda hu, _: np.full(hu.shape, 4, np.uint8))
    monkeypatch.setattr(module, "_segmenter", lambda: object())
    return module


def run(module: ModuleType, folder: Path, *options: str) -> None:
    argv = ["neighbours.py", "--work", str(folder / "work"), "--out", str(folder), "--phantoms", "3"]
    argv += ["--page-file", str(folder / "results.md"), "--seeds", "0"]
    argv += ["--search-file", str(folder / "neighbours_search.json"), *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        module.main()


def test_the_benchmark_stores_each_run_goes_on_and_writes_its_page(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(benchmark, tmp_path, "--only", "ldct", "nlm", "blend")
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["n_methods"] == 2 and figures["n_patients"] == 4
    assert figures["nlm.psnr"] > figures["ldct.psnr"] and figures["ldct.dice_high"] == 1
    parts = sorted(path.name for path in (tmp_path / "work").iterdir())
    assert parts == ["blend-0.json", "ldct-0.json", "ndct-0.json", "nlm-0.json"]
    page = (tmp_path / "results.md").read_text()
    assert "`nlm`" in page and "PSNR to truth" in page and "nan" not in page.lower()
    stamp = (tmp_path / "work" / "nlm-0.json").stat().st_mtime_ns
    run(benchmark, tmp_path, "--only", "ldct", "nlm")
    assert (tmp_path / "work" / "nlm-0.json").stat().st_mtime_ns == stamp, "finished: not run again"
    stored = json.loads((tmp_path / "neighbours.json").read_text())
    assert [one["method"] for one in stored["runs"]] == ["ndct", "ldct", "nlm", "blend"]
    assert not list(tmp_path.rglob("*.part"))
    with pytest.raises(SystemExit, match="add --fresh"):
        run(benchmark, tmp_path, "--only", "ldct", "--minutes", "1")


def test_a_trained_run_says_how_long_it_had_and_how_many_steps_that_were(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    run(benchmark, tmp_path, "--only", "l1", "--minutes", "0.01")
    stored = json.loads((tmp_path / "work" / "l1-0.json").read_text())["run"]
    assert stored["steps"] > 0 and 0 < stored["seconds"] < 10
    assert stored["parameters"] == sum(p.numel() for p in untrained_generator("l1_shipped").parameters())
    assert set(stored["sets"]) == {"sample-test", "phantoms"} and set(stored["dice"]) == {"0.25", "0.1"}
    truth = stored["sets"]["phantoms"]["rows"]["truth_rmse_hu"]
    assert len(truth) == 3 and all(0 < value < 20 for value in truth)


@pytest.mark.parametrize("name", ["ge.nii.gz", "abdomen_CRLM-CT-1006_ge.nii.gz"])
def test_a_patient_who_trained_a_method_is_not_unseen(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(SystemExit):
        run(benchmark, tmp_path, "--volumes", "a/ge.nii.gz", "--unseen", f"b/{name}")
    assert f"--unseen: {name} trained these methods" in capsys.readouterr().err


def test_phantoms_are_compared_with_the_independent_scan(benchmark: ModuleType, tmp_path: Path) -> None:
    run(benchmark, tmp_path, "--only", "ldct")
    runs = {one["method"]: one for one in json.loads((tmp_path / "neighbours.json").read_text())["runs"]}
    floor = runs["ndct"]["sets"]["phantoms"]["rows"]
    assert floor["rmse_hu"] == pytest.approx([3, 3, 3]), "the fixture's second scan is 3 HU brighter"
    assert floor["truth_rmse_hu"] != floor["rmse_hu"]
    assert "sample-test" not in runs["ndct"]["sets"], "a real patient was scanned once"
    assert set(runs["ndct"]["dice"]["0.1"]) == {"anna", "phantom 0", "phantom 1", "phantom 2"}


def test_the_search_tries_what_is_missing_and_stores_all_of_it(benchmark: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "neighbours_search.json"
    before = {"method": "nlm", "settings": {"strength": 0.75}, "psnr_db": 1.0, "judge": 1.0, "score": 1.0}
    file.write_text(json.dumps({"made": {}, "tried": [before]}))
    run(benchmark, tmp_path, "--search", "--only", "nlm")
    tried = json.loads(file.read_text())["tried"]
    assert tried[0] == before, "not tried again"
    assert sorted(one["settings"]["strength"] for one in tried) == [0.5, 0.75, 1.0, 1.25, 1.5]
    assert all(one["score"] == one["psnr_db"] for one in tried), "a filter is chosen by PSNR"


def test_the_settings_that_the_search_found_are_used(benchmark: ModuleType, tmp_path: Path) -> None:
    run(benchmark, tmp_path, "--only", "nlm", "ldct")
    tried = [
        {"method": "nlm", "settings": {"strength": s}, "score": -abs(s - 0.75)} for s in (0.5, 0.75, 1.0)
    ]
    (tmp_path / "neighbours_search.json").write_text(json.dumps({"made": {}, "tried": tried}))
    run(benchmark, tmp_path, "--only", "nlm", "ldct")
    stored = json.loads((tmp_path / "neighbours.json").read_text())
    (nlm,) = (one for one in stored["runs"] if one["method"] == "nlm")
    assert nlm["settings"] == {"strength": 0.75}, "run again, since its settings are others now"
    assert stored["search"] == tried


def test_the_search_tries_fields_that_a_method_has(benchmark_script: Callable[[str], ModuleType]) -> None:
    tried = benchmark_script("neighbours").SEARCH
    for name, grid in tried.items():
        for settings in grid:
            if METHODS[name].training:
                plan = plan_of(name, settings)
                assert {key: getattr(plan, key) for key in settings} == dict(settings)
            else:
                assert set(settings) == {"strength"} and name in FILTERS


def test_the_search_takes_pixels_for_some_and_looks_for_others(
    benchmark_script: Callable[[str], ModuleType],
) -> None:
    search_score = benchmark_script("neighbours").search_score
    near = {"psnr_db": 33.0, "judge": 0.2, "l1_psnr_db": 33.0}
    nice = {"psnr_db": 32.2, "judge": 0.1, "l1_psnr_db": 33.0}
    wild = {"psnr_db": 30.0, "judge": 0.05, "l1_psnr_db": 33.0}
    for name in ("nlm", "unet", "redcnn", "l1"):
        assert search_score(name, **near) > search_score(name, **nice)
    for name in ("wgan_dino", "dugan", "gan", "alden"):
        assert search_score(name, **nice) > search_score(name, **near) > search_score(name, **wild)
    assert search_score("gan", psnr_db=33.0, judge=math.nan, l1_psnr_db=33.0) == -math.inf
