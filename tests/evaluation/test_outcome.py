"""Who came where: seeds averaged, then slices, then patients; what holds is said from the numbers."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from alden_lite.evaluation.studies.outcome import (
    Outcome,
    claims,
    headline,
    patients_interval,
    read_outcome,
)
from results_page import results_page

MADE = {
    "command": "python benchmarks/neighbours.py",
    "machine": "x86_64, 2 cores",
    "threads": 1,
    "minutes": 3.0,
    "dose": 0.25,
    "versions": {"torch": "2.5"},
    "trained_on": ["LIDC-IDRI-0001 training slabs", "ge.nii.gz"],
    "unseen": ["chest.nii.gz"],
}
FIGURES = ("psnr_db", "ssim", "rmse_hu", "judge", "texture", "texture_error")
PHANTOMS = [f"phantom {n}" for n in range(12)]


def rows(**values: list[float | None]) -> dict[str, list[float | None]]:
    """A row of numbers for every figure; those not given are 1."""
    length = len(next(iter(values.values())))
    return {figure: values.get(figure, [1.0] * length) for figure in (*FIGURES, *values)}


def run(method: str, seed: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "method": method,
        "seed": seed,
        "steps": 0,
        "seconds": 0.0,
        "parameters": 0,
        "ms": None,
        "settings": {},
        "sets": {},
        "dice": {},
    } | more


def stored(tmp_path: Path, *runs: dict[str, Any]) -> Outcome:
    file = tmp_path / "neighbours.json"
    file.write_text(json.dumps({"made": MADE, "search": [], "runs": list(runs)}))
    return read_outcome(file)


def field(shift: float) -> list[float]:
    """Twelve patients, better by `shift`, but not all by the same."""
    return [0.3 + 0.01 * n - shift * (1 + 0.1 * n) for n in range(12)]


def tournament(tmp_path: Path, *, alden: float = 0.1, floor: float = 0.25) -> Outcome:
    """ALDEN's judge's distance is smaller than L1's by about `alden` on phantoms; test slabs as below."""
    test = {"l1": (33.0, 0.20, 0.6), "alden": (32.6, 0.15, 0.9), "ldct": (27.0, 0.30, 1.6)}
    runs = [run("ndct", sets={"phantoms": {"patients": PHANTOMS, "rows": rows(judge=[floor - 0.2] * 12)}})]
    for method, (psnr, judge, texture) in test.items():
        look = rows(psnr_db=[psnr] * 2, judge=[judge] * 2, texture=[texture] * 2)
        distances = field({"l1": 0.0, "alden": alden, "ldct": -0.2}[method])
        truth = [2.0 + 0.1 * n for n in range(12)]  # the same for all: no difference
        sets = {
            "sample-test": {"patients": ["anna"] * 2, "rows": look},
            "phantoms": {"patients": PHANTOMS, "rows": rows(judge=distances, truth_rmse_hu=truth)},
        }
        runs.append(run(method, sets=sets, dice={"0.1": {"anna": 0.8, "bo": None}}))
    return stored(tmp_path, *runs)


def test_seeds_are_averaged_then_slices_of_a_patient(tmp_path: Path) -> None:
    patients = ["anna", "anna", "bo"]
    outcome = stored(
        tmp_path,
        *(
            run("gan", seed, sets={"unseen": {"patients": patients, "rows": rows(psnr_db=values)}})
            for seed, values in enumerate([[30.0, 34.0, 40.0], [32.0, 36.0, 42.0]])
        ),
    )
    assert outcome.by_patient("gan", "unseen", "psnr_db") == {"anna": 33.0, "bo": 41.0}
    assert outcome.mean("gan", "unseen", "psnr_db") == 37.0, "patients count alike"
    assert len(outcome.of("gan")) == 2


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    look = {"patients": ["anna", "anna", "bo"], "rows": rows(texture=[0.5, None, None])}
    outcome = stored(tmp_path, run("gan", sets={"unseen": look}, dice={"0.1": {"anna": 0.75, "bo": None}}))
    assert outcome.by_patient("gan", "unseen", "texture") == {"anna": 0.5}
    assert outcome.dice("gan", "0.1") == {"anna": 0.75}
    assert outcome.dice("gan", "0.25") == {}
    with pytest.raises(ValueError, match="gan was not looked at on 'phantoms'"):
        outcome.by_patient("gan", "phantoms", "texture")
    with pytest.raises(ValueError, match="'alden' was not run"):
        outcome.of("alden")


def test_methods_come_in_the_order_of_the_table(tmp_path: Path) -> None:
    outcome = stored(tmp_path, *(run(name) for name in ("alden", "ndct", "ldct", "redcnn")))
    assert outcome.methods == ["ldct", "redcnn", "alden", "ndct"]


def test_too_few_patients_prove_nothing(tmp_path: Path) -> None:
    outcome = tournament(tmp_path)
    with pytest.raises(ValueError, match="patients cannot show anything"):
        outcome.against("alden", "l1", "sample-test", "judge")
    assert outcome.against("alden", "l1", "phantoms", "judge").n == 12
    assert patients_interval({"anna": 1.0, "bo": 2.0}) is None


def test_the_headline_is_computed_from_test_slabs_and_phantoms(tmp_path: Path) -> None:
    found = headline(tournament(tmp_path))
    assert found["judge_drop_vs_l1"] == pytest.approx(0.25)
    assert found["psnr_minus_l1"] == pytest.approx(-0.4)
    assert found["texture_ratio_to_ndct"] == pytest.approx(0.9)
    # Means over phantoms: 0.355 for L1, 0.355 - 0.1 * 1.55 for ALDEN, 0.05 for the floor.
    assert found["excess_share_vs_l1"] == pytest.approx((0.2 - 0.05) / (0.355 - 0.05), abs=1e-4)
    assert (found["n_methods"], found["n_patients"]) == (2, 13), "low dose and floor are no methods"
    assert (found["l1.psnr"], found["l1.judge"], found["l1.dice_high"]) == (33.0, 0.2, 0.8)
    assert "ndct.psnr" not in found


def test_the_start_of_alden_is_a_rival_too(tmp_path: Path) -> None:
    looks = [{"sample-test": {"patients": ["anna"], "rows": rows(judge=[judge])}} for judge in (0.2, 0.15)]
    outcome = stored(tmp_path, *(run(n, sets=s) for n, s in zip(("blend", "alden"), looks, strict=True)))
    assert headline(outcome)["judge_drop_vs_blend"] == pytest.approx(0.25)
    assert "Against `blend`, its own start" in results_page(outcome)
    assert "25% smaller there" in results_page(outcome)


def test_the_page_says_by_how_much_seeds_differ(tmp_path: Path) -> None:
    def look(judge: float) -> dict[str, Any]:
        values = [judge + 0.01 * n for n in range(12)]
        return {"phantoms": {"patients": PHANTOMS, "rows": rows(judge=values, truth_rmse_hu=values)}}

    seeds = [run("alden", seed, sets=look(0.1 + 0.02 * seed)) for seed in (0, 1)]
    page = results_page(stored(tmp_path, *seeds, run("l1", sets=look(0.2))))
    assert "ALDEN's 2 seeds differ by 0.00 dB, by 0.0200 at the judge's and by 0.000 in texture" in page
    assert "seeds differ" not in results_page(stored(tmp_path, seeds[0], run("l1", sets=look(0.2))))


def test_there_is_no_share_of_an_excess_that_l1_does_not_have(tmp_path: Path) -> None:
    assert "excess_share_vs_l1" not in headline(tournament(tmp_path, floor=0.6))
    assert "excess_share_vs_l1" in headline(tournament(tmp_path, floor=0.5))


def test_of_a_rival_with_few_common_patients_nothing_is_claimed(tmp_path: Path) -> None:
    def look(name: str, count: int, judge: float) -> dict[str, Any]:
        values = [judge + 0.01 * n for n in range(count)]
        look = rows(judge=values, truth_rmse_hu=values)
        return run(name, sets={"phantoms": {"patients": PHANTOMS[:count], "rows": look}})

    outcome = stored(tmp_path, look("alden", 12, 0.1), look("l1", 6, 0.2), look("gan", 5, 0.2), run("tv"))
    with_truth = {one.text.rsplit(" ", 1)[1] for one in claims(outcome)}
    assert with_truth == {"l1"}, "gan has five patients in common, tv was not looked at"


def test_the_page_marks_who_starts_from_the_blend_and_what_was_searched(tmp_path: Path) -> None:
    file = tmp_path / "neighbours.json"
    search = [{"method": "dugan", "settings": {"warm_keep": 0.15}, "score": 1.0}]
    runs = [
        run("l1"),
        run("alden"),
        run("dugan", settings={"warm_keep": 0.15}),
        run("bm3d", settings={"strength": 1}),
    ]
    file.write_text(json.dumps({"made": MADE, "search": search, "runs": runs}))
    lines = results_page(read_outcome(file)).splitlines()
    cells = {
        name: next(line for line in lines if line.startswith(f"| `{name}`")).split(" | ")[-2:]
        for name in ("l1", "alden", "dugan", "bm3d")
    }
    assert cells == {
        "l1": ["-", "not searched |"],
        "alden": ["0.15", "not searched |"],
        "dugan": ["0.15", "warm_keep 0.15 |"],
        "bm3d": ["-", "not searched |"],
    }


def test_a_claim_holds_with_the_right_sign_and_enough_patients(tmp_path: Path) -> None:
    found = {one.text: one for one in claims(tournament(tmp_path))}
    judge = found["ALDEN looks more like normal dose (judge's distance) than l1"]
    assert (
        judge.verdict == "holds" and "over 12 patients" in judge.evidence and "effect +1.00" in judge.evidence
    )
    truth = found["ALDEN is nearer to the noise-free truth (RMSE) than l1"]
    assert truth.verdict == "cannot be told" and "p = 1" in truth.evidence
    worse = {one.text: one for one in claims(tournament(tmp_path, alden=-0.1))}
    judge = worse["ALDEN looks more like normal dose (judge's distance) than l1"]
    assert judge.verdict == "the opposite holds" and "effect -1.00" in judge.evidence


def test_p_is_adjusted_for_all_claims_together(tmp_path: Path) -> None:
    outcome = tournament(tmp_path)
    (judge,) = (one for one in claims(outcome) if "judge" in one.text and one.text.endswith("l1"))
    alone = outcome.against("alden", "l1", "phantoms", "judge").p
    assert alone == pytest.approx(2 / 2**12)
    assert f"p = {8 * alone:.2g}" in judge.evidence, "two rivals and four figures"


def test_without_phantoms_nothing_is_claimed(tmp_path: Path) -> None:
    look = {"patients": ["anna"], "rows": rows(psnr_db=[30.0])}
    outcome = stored(tmp_path, *(run(name, sets={"sample-test": look}) for name in ("ldct", "l1", "alden")))
    assert claims(outcome) == []
    assert "excess_share_vs_l1" not in headline(outcome)
    assert "Too few phantom patients" in results_page(outcome)


def test_the_page_says_what_holds_and_what_does_not(tmp_path: Path) -> None:
    page = results_page(tournament(tmp_path))
    holds, rest = page.split("### Holds")[1].split("### The opposite holds")
    opposite, rest = rest.split("### Cannot be told")
    assert "ALDEN looks more like normal dose (judge's distance) than l1" in holds
    assert "ALDEN is nearer to the noise-free truth (RMSE) than l1" in rest
    assert opposite.strip() == "None."
    assert "25% below that of L1" in page and "0.40 dB below" in page
    assert "leaves 49% of L1's excess" in page
    assert "| `l1` | 33.00 |" in page, "one patient: no interval"
    assert "has seen LIDC-IDRI-0001 training slabs, ge.nii.gz; nothing has seen chest.nii.gz." in page
    assert "nan" not in page.lower()
    worse = results_page(tournament(tmp_path, alden=-0.1)).split("### The opposite holds")[1]
    assert "(judge's distance) than l1" in worse.split("### Cannot be told")[0]
    better = results_page(tournament(tmp_path, floor=0.5))
    assert "not above the floor" in better


def test_an_interval_over_patients_is_in_brackets(tmp_path: Path) -> None:
    page = results_page(tournament(tmp_path))
    cell = next(line for line in page.split("## Quality: phantoms")[1].splitlines() if "`l1`" in line)
    assert "0.355 [0.3" in cell


def test_prices_stand_beside_what_they_buy(tmp_path: Path) -> None:
    look = {"sample-test": {"patients": ["anna"], "rows": rows(psnr_db=[31.5])}}
    runs = [
        run("redcnn", seed, steps=90 + seed, seconds=179.6, parameters=1_850_000, ms=1312.4, sets=look)
        for seed in (0, 1)
    ]
    page = results_page(stored(tmp_path, *runs))
    assert "| `redcnn` | 1312 | 1.85 M | 90, 91 | 180, 180 | 31.50 |" in page


def test_a_benchmark_that_was_never_run_says_how_to_run_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"run `python benchmarks/neighbours.py`"):
        read_outcome(tmp_path / "neighbours.json")


def test_numbers_in_the_headline_are_finite_or_nothing(tmp_path: Path) -> None:
    found = headline(tournament(tmp_path))
    unknown = {key for key, value in found.items() if not math.isfinite(value)}
    assert unknown == set(), "every method of the tournament was looked at everywhere"
    look = {"sample-test": {"patients": ["anna"], "rows": rows(psnr_db=[30.0])}}
    no_organs = headline(stored(tmp_path, run("l1", sets=look)))
    assert math.isnan(no_organs["l1.dice_high"]) and no_organs["l1.psnr"] == 30
