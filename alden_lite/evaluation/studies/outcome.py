"""What came out of the comparison: figures of `benchmarks/neighbours.py` by patient. Taught in chapter 09.

A run is one method trained with one seed. Its figures were measured on sets of slices, and every slice
belongs to a patient. Seeds are averaged first, then the slices of a patient: patients are the units
(`statistics`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from alden_lite.evaluation.cohorts import PHANTOMS, TEST
from alden_lite.evaluation.statistics import FEWEST, Comparison, by_patient, compare, holm, interval
from alden_lite.evaluation.studies.methods import METHODS

__all__ = ["Claim", "Look", "Run", "Outcome", "claims", "headline", "patients_interval", "read_outcome"]

FLOOR = "ndct"
"""The row of the normal-dose scan. On phantoms it is compared with a second normal-dose scan of other noise.

Lower bound of the judge's distance: two normal-dose scans of one patient differ by this much. RMSE and PSNR
have no such bound, because a smooth image is closer to both scans."""

LOW_DOSE, HIGH_NOISE = "0.25", "0.1"
"""Doses at which organs are looked for."""


@dataclass(frozen=True)
class Look:
    """One run on one set: the patient of each slice, and a value for each slice by figure."""

    patients: Sequence[str]
    rows: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Run:
    """One method and seed. `dice`: mean over organ groups by dose, then patient. `ms`: processor time of a
    slice, None if not measured. `steps` and `seconds` of training are 0 if there was none."""

    method: str
    seed: int
    steps: int
    seconds: float
    parameters: int
    ms: float | None
    settings: Mapping[str, Any]
    sets: Mapping[str, Look]
    dice: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class Outcome:
    """All runs, how they were made, and the search for settings before them."""

    made: Mapping[str, Any]
    search: Sequence[Mapping[str, Any]]
    runs: Sequence[Run]

    @property
    def methods(self) -> list[str]:
        """Names of the methods that were run, in the order of `evaluation.METHODS`."""
        there = {run.method for run in self.runs}
        return [name for name in (*METHODS, FLOOR) if name in there]

    def of(self, method: str) -> list[Run]:
        """The runs of a method, one a seed.

        Raises:
            ValueError: if the method was not run.
        """
        found = [run for run in self.runs if run.method == method]
        if not found:
            raise ValueError(f"{method!r} was not run: there are {self.methods}")
        return found

    def by_patient(self, method: str, data: str, figure: str) -> dict[str, float]:
        """A figure by patient: seeds are averaged, then slices; patients without the figure are left out.

        Raises:
            ValueError: if the method was not run, or not looked at on this set, or has no such figure there.
        """
        looks = [run.sets[data] for run in self.of(method) if data in run.sets]
        if not looks:
            raise ValueError(f"{method} was not looked at on {data!r}")
        if any(figure not in look.rows for look in looks):
            raise ValueError(f"{method} on {data!r} has no figure {figure!r}")
        values = np.mean([[_number(v) for v in look.rows[figure]] for look in looks], axis=0)
        found = by_patient(values.tolist(), looks[0].patients)
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def dice(self, method: str, dose: str) -> dict[str, float]:
        """Mean Dice over organ groups by patient at a dose, seeds averaged; empty where no segmenter ran."""
        runs = [run.dice[dose] for run in self.of(method) if dose in run.dice]
        patients = runs[0] if runs else {}
        means = {name: float(np.mean([_number(run[name]) for run in runs])) for name in patients}
        return {name: value for name, value in means.items() if math.isfinite(value)}

    def mean(self, method: str, data: str, figure: str) -> float:
        """Mean over patients; NaN if none has the figure."""
        return _mean(self.by_patient(method, data, figure))

    def between_seeds(self, method: str, data: str, figure: str) -> float:
        """How far seeds lie apart: their largest mean over patients less the smallest; 0 for one seed.

        Raises:
            ValueError: as `by_patient`.
        """
        alone = [replace(self, runs=[run]) for run in self.of(method)]
        return float(np.ptp([one.mean(method, data, figure) for one in alone]))

    def against(self, method: str, other: str, data: str, figure: str) -> Comparison:
        """A method's figure less another method's, patient by patient; only patients that both have.

        Raises:
            ValueError: as `evaluation.compare`: with fewer than 6 patients above all.
        """
        return compare(*self._of_both(method, other, data, figure))

    def _of_both(self, method: str, other: str, data: str, figure: str) -> list[dict[str, float]]:
        """The figure of both methods, of the patients that both have."""
        ours, theirs = (self.by_patient(name, data, figure) for name in (method, other))
        return [{name: one[name] for name in ours if name in theirs} for one in (ours, theirs)]

    def looked_at(self, data: str, *methods: str) -> bool:
        """Whether all of these methods were run, and have figures on a set."""
        return all(any(run.method == name and data in run.sets for run in self.runs) for name in methods)


def read_outcome(path: str | Path | None = None) -> Outcome:
    """What `benchmarks/neighbours.py` stored, in the package when no path is given.

    Raises:
        FileNotFoundError: if it was never run.
    """
    file = files("alden_lite") / "evaluation" / "studies" / "neighbours.json" if path is None else Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"no results of the neighbours at {file}: run `python benchmarks/neighbours.py`"
        )
    stored = json.loads(file.read_text(encoding="utf-8"))
    runs = [
        Run(**{**run, "sets": {name: Look(**look) for name, look in run["sets"].items()}})
        for run in stored["runs"]
    ]
    return Outcome(stored["made"], stored["search"], runs)


def headline(outcome: Outcome) -> dict[str, float]:
    """The most important figures, on the sample's test slabs unless said otherwise.

    `judge_drop_vs_l1`: how much smaller the judge's distance is for ALDEN than for L1, as a share of L1's;
    both had the same first weights and the same time. `psnr_minus_l1`: the difference of their PSNR in dB.
    `judge_drop_vs_blend`: the same against the blend, ALDEN's first weights: what training added.
    `excess_share_vs_l1`: on phantoms, ALDEN's distance above `FLOOR` as a share of L1's; left out where L1's
    is not above `FLOOR`. `<method>.dice_high`: Dice at a tenth of the dose, mean over patients.
    """
    found: dict[str, float] = {
        "n_methods": sum(METHODS[name].family not in ("input", "shipped") for name in _compared(outcome)),
        "n_patients": len(_patients(outcome)),
    }
    if outcome.looked_at(TEST, "alden", "l1"):
        judge, l1_judge = (outcome.mean(name, TEST, "judge") for name in ("alden", "l1"))
        psnr, l1_psnr = (outcome.mean(name, TEST, "psnr_db") for name in ("alden", "l1"))
        found |= {"judge_drop_vs_l1": 1 - judge / l1_judge, "psnr_minus_l1": psnr - l1_psnr}
        found["texture_ratio_to_ndct"] = outcome.mean("alden", TEST, "texture")
    if outcome.looked_at(TEST, "alden", "blend"):
        judge, of_blend = (outcome.mean(name, TEST, "judge") for name in ("alden", "blend"))
        found["judge_drop_vs_blend"] = 1 - judge / of_blend
    if outcome.looked_at(PHANTOMS, "alden", "l1", FLOOR):
        ours, l1, floor = (outcome.mean(name, PHANTOMS, "judge") for name in ("alden", "l1", FLOOR))
        if l1 > floor:
            found["excess_share_vs_l1"] = (ours - floor) / (l1 - floor)
    for name in _compared(outcome):
        for key, figure in {"psnr": "psnr_db", "ssim": "ssim", "rmse": "rmse_hu", "judge": "judge"}.items():
            if outcome.looked_at(TEST, name):
                found[f"{name}.{key}"] = outcome.mean(name, TEST, figure)
        found[f"{name}.dice_high"] = _mean(outcome.dice(name, HIGH_NOISE))
    return {key: value if isinstance(value, int) else round(value, 4) for key, value in found.items()}


VERDICTS = ("holds", "the opposite holds", "cannot be told")


@dataclass(frozen=True)
class Claim:
    """A sentence that one would like to say of ALDEN, the phantom patients' verdict (one of `VERDICTS`), and
    the numbers behind it."""

    text: str
    verdict: str
    evidence: str


_WANTED = {
    "judge": ("looks more like normal dose (judge's distance)", -1, "{:+.4f}"),
    "psnr_db": ("is nearer to normal dose in PSNR", 1, "{:+.2f} dB"),
    "truth_rmse_hu": ("is nearer to the noise-free truth (RMSE)", -1, "{:+.2f} HU"),
    "texture_error": ("has texture nearer to the normal dose's", -1, "{:+.3f}"),
}
"""Figures on phantoms: what is claimed, the sign that is better, how a difference is written."""


def claims(outcome: Outcome) -> list[Claim]:
    """ALDEN against every other method in four figures, on phantom patients; p adjusted for all (Holm).

    If the adjusted p is below 0.05, a claim holds or its opposite does, by the sign of the mean difference.
    Nothing is claimed against a method that has fewer than 6 phantom patients in common with ALDEN.
    """
    there = [name for name in _compared(outcome) if outcome.looked_at(PHANTOMS, name)]
    if "alden" not in there:
        return []
    found: dict[str, Comparison] = {}
    for name in there:
        if name in ("alden", "alden_shipped"):
            continue
        for figure in _WANTED:
            both = outcome._of_both("alden", name, PHANTOMS, figure)
            if len(both[0]) >= FEWEST:
                found[f"{name} {figure}"] = compare(*both)
    adjusted = holm({key: one.p for key, one in found.items()})
    return [_claim(key, one, adjusted[key]) for key, one in found.items()]


def _claim(key: str, one: Comparison, p: float) -> Claim:
    other, figure = key.split(" ")
    text, sign, form = _WANTED[figure]
    low, mean, high = (form.format(value) for value in (one.low, one.mean, one.high))
    return Claim(
        f"ALDEN {text} than {other}",
        VERDICTS[2] if p >= 0.05 else VERDICTS[0] if sign * one.mean > 0 else VERDICTS[1],
        f"{mean} [{low}, {high}] over {one.n} patients, p = {p:.2g}, effect {sign * one.effect:+.2f}",
    )


def patients_interval(values: Mapping[str, float]) -> tuple[float, float] | None:
    """95 % interval of the mean over patients; None with fewer than 3: too few to speak of others."""
    known = [value for value in values.values() if math.isfinite(value)]
    found = interval(known) if len(known) >= 3 else (math.nan, math.nan)
    return found if math.isfinite(sum(found)) else None


def _compared(outcome: Outcome) -> list[str]:
    return [name for name in outcome.methods if name != FLOOR]


def _patients(outcome: Outcome) -> set[str]:
    return {name for run in outcome.runs for look in run.sets.values() for name in look.patients}


def _mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values()))) if values else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
