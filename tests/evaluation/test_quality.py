"""Which figures are taken of a denoised slice: slices made by hand, where the answer is known."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from alden_lite.alden.denoising import denoise
from alden_lite.alden.generator import UNet
from alden_lite.alden.pvm import PVM, load_pvm
from alden_lite.data.pairs import Pairs
from alden_lite.evaluation import cohorts, metrics
from alden_lite.evaluation.cohorts import Cohort, first_patients
from alden_lite.evaluation.quality import FIGURES, MORE_FIGURES, appraise, mean_of, slice_quality
from alden_lite.physics.noise import texture_hu

PIXEL_MM = 0.7


def liver(noise_hu: float, *, seed: int = 0, blur: float = 0.0) -> torch.Tensor:
    """A flat slice of 60 HU with noise, (96, 96); blurred noise keeps its spread."""
    noise = np.random.default_rng(seed).normal(0, 1, (96, 96))
    if blur:
        noise = ndimage.gaussian_filter(noise, blur, mode="wrap")
    return torch.from_numpy(60 + noise_hu * noise / noise.std()).float()


@pytest.fixture(scope="module")
def judge() -> PVM:
    return load_pvm("efficientnet_lite0")


def test_a_slice_against_itself_is_perfect(judge: PVM) -> None:
    row = slice_quality(liver(10), liver(10), pixel_mm=PIXEL_MM, judge=judge)
    assert sorted(row) == sorted(FIGURES)
    assert row == {
        "psnr_db": math.inf,
        "ssim": pytest.approx(1),
        "rmse_hu": 0,
        "judge": 0,
        "texture": 1,
        "grain": 1,
        "noise_frequency": 1,
    }


def test_more_figures_come_when_asked_for() -> None:
    image, reference = liver(20, seed=1), liver(10)
    plain = slice_quality(image, reference, pixel_mm=PIXEL_MM)
    row = slice_quality(image, reference, pixel_mm=PIXEL_MM, more=True)
    assert row.keys() - plain.keys() == set(MORE_FIGURES) and not set(FIGURES) & set(MORE_FIGURES)
    assert {name: row[name] for name in MORE_FIGURES} == {
        "mae_hu": metrics.mae_hu(image, reference),
        "bias_hu": metrics.bias_hu(image, reference),
        "gmsd": metrics.gmsd(image, reference),
        "vif": metrics.vif(image, reference),
    }
    pair = Pairs(
        *(one.numpy()[None].astype(np.int16) for one in (image, reference)), np.ones(1), np.zeros(1, int)
    )
    (appraised,) = appraise(None, pair, pixel_mm=PIXEL_MM, more=True)
    assert appraised["mae_hu"] == pytest.approx(row["mae_hu"], rel=0.02)


def test_half_the_noise_is_half_the_texture_and_half_the_grain_at_the_same_frequency() -> None:
    row = slice_quality(liver(5), liver(10), pixel_mm=PIXEL_MM)
    assert row["texture"] == pytest.approx(0.5, rel=1e-4)
    assert row["grain"] == pytest.approx(0.5, rel=1e-4)
    assert row["noise_frequency"] == pytest.approx(1, rel=1e-4)
    assert row["rmse_hu"] == pytest.approx(5, rel=1e-3)


def test_blotchy_noise_has_a_lower_frequency_and_fine_noise_a_higher_one() -> None:
    fine, blotchy = liver(10), liver(10, blur=1)
    assert slice_quality(blotchy, fine, pixel_mm=PIXEL_MM)["noise_frequency"] < 0.75
    assert slice_quality(fine, blotchy, pixel_mm=PIXEL_MM)["noise_frequency"] > 1.35


def test_tissue_is_chosen_in_the_reference_not_in_the_image() -> None:
    # Air in the left half of the reference: what the image shows there is not soft tissue.
    reference, image = liver(10), liver(10)
    reference[:, :48] = -1000
    image[:, :48] = liver(80, seed=1)[:, :48]
    row = slice_quality(image, reference, pixel_mm=PIXEL_MM)
    assert row["grain"] == pytest.approx(1)


def test_a_slice_without_soft_tissue_has_no_say_in_noise() -> None:
    lung = liver(10) - 900
    row = slice_quality(lung, lung + 1, pixel_mm=PIXEL_MM)
    assert math.isnan(row["texture"]) and math.isnan(row["grain"]) and math.isnan(row["noise_frequency"])
    assert row["rmse_hu"] == 0  # all of it is below the window
    assert math.isnan(row["judge"])  # there was no judge


def test_tissue_in_pieces_too_small_for_a_region_has_grain_but_no_spectrum() -> None:
    reference = torch.full((96, 96), -1000.0)
    reference[::24] = -1000
    band = liver(10)
    reference[10:34], reference[50:74] = band[10:34], band[50:74]
    row = slice_quality(reference, reference, pixel_mm=PIXEL_MM)
    assert row["grain"] == 1 and math.isnan(row["noise_frequency"])


def test_the_network_that_trained_a_generator_must_not_judge_it(judge: PVM) -> None:
    with pytest.raises(ValueError, match="judge with another"):
        slice_quality(liver(1), liver(2), pixel_mm=PIXEL_MM, judge=judge, training_pvm="efficientnet_lite0")


def test_a_generator_is_appraised_slice_by_slice_against_normal_dose() -> None:
    low, normal = (np.stack([liver(noise, seed=s).numpy() for s in (0, 1, 2)]) for noise in (20, 10))
    pairs = Pairs(low.astype(np.int16), normal.astype(np.int16), np.full(3, 0.25), np.arange(3))
    as_they_are = appraise(None, pairs, pixel_mm=PIXEL_MM)
    assert len(as_they_are) == 3
    expected = slice_quality(
        torch.from_numpy(pairs.low[2]).float(), torch.from_numpy(pairs.normal[2]).float(), pixel_mm=PIXEL_MM
    )
    assert as_they_are[2] == pytest.approx(expected, nan_ok=True)
    untrained = appraise(UNet(), pairs, pixel_mm=PIXEL_MM)  # its last layer is zero: it returns its input
    assert mean_of(untrained, "rmse_hu") == pytest.approx(mean_of(as_they_are, "rmse_hu"), rel=1e-4)
    assert mean_of(as_they_are, "grain") == pytest.approx(2, rel=0.02)


def test_a_mean_leaves_out_slices_without_the_figure() -> None:
    assert mean_of([{"grain": 1.0}, {"grain": math.nan}, {"grain": 3.0}], "grain") == 2
    assert math.isnan(mean_of([{"grain": math.nan}], "grain"))


def test_texture_is_what_a_7_by_7_mean_leaves_over() -> None:
    hu = liver(12).numpy().astype(np.float64)
    everywhere = np.ones_like(hu, dtype=bool)
    padded = np.pad(hu, 3, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7))
    assert texture_hu(hu, tissue=everywhere) == pytest.approx((hu - windows.mean((2, 3))).std())
    assert texture_hu(hu + 100, tissue=everywhere) == pytest.approx(texture_hu(hu, tissue=everywhere))
    with pytest.raises(ValueError, match="tissue is empty"):
        texture_hu(hu, tissue=~everywhere)


# benchmarks/quality.py


def test_the_shipped_are_compared_with_the_independent_scan_where_there_is_one(
    benchmark_script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    pairs: Pairs,
) -> None:
    script = benchmark_script("quality")
    sizes = [0.7, 0.8, 0.9]
    again = (pairs.normal + np.random.default_rng(1).normal(0, 8, pairs.normal.shape)).astype(np.int16)
    drawn = Cohort("phantoms", ["phantom 0", "phantom 1", "phantom 2"], pairs, sizes, again=again)
    judged = []

    def by_hand(image: torch.Tensor, reference: torch.Tensor, **options: Any) -> dict[str, float]:
        """One figure that is worked out fast, in place of all."""
        judged.append((options["pixel_mm"], options["training_pvm"]))
        return dict.fromkeys(FIGURES, float(metrics.rmse_hu(image, reference)))

    monkeypatch.setattr(cohorts, "slice_quality", by_hand)
    monkeypatch.setattr(script, "load_pvm", lambda _: None)
    monkeypatch.setattr(script, "sample_test", lambda dose, every: replace(drawn, name="anna", again=None))
    monkeypatch.setattr(script, "phantoms", lambda count, dose: first_patients(drawn, count))
    monkeypatch.setattr("sys.argv", ["quality.py", "--doses", "0.25", "--phantoms", "2"])
    script.main()
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])

    def distance(images: np.ndarray, references: np.ndarray) -> float:
        both = zip(torch.from_numpy(images).float(), torch.from_numpy(references).float(), strict=True)
        return pytest.approx(np.mean([metrics.rmse_hu(a, b) for a, b in both]), abs=1e-4)

    quiet = denoise(pairs.low, "l1", progress=False)
    assert figures["anna.0.25.LDCT.judge"] == distance(pairs.low, pairs.normal)
    assert figures["anna.0.25.l1.rmse_hu"] == distance(quiet, pairs.normal)
    assert "anna.0.25.normal dose.judge" not in figures and "anna.0.25.alden.excess" not in figures
    assert figures["phantoms.0.25.LDCT.judge"] == distance(pairs.low[:2], again[:2])
    assert figures["phantoms.0.25.l1.judge"] == distance(quiet[:2], again[:2])
    assert figures["phantoms.0.25.normal dose.judge"] == distance(pairs.normal[:2], again[:2])
    l1, alden, floor = (figures[f"phantoms.0.25.{name}.judge"] for name in ("l1", "alden", "normal dose"))
    excess = figures["phantoms.0.25.alden.excess"]
    assert excess == pytest.approx((alden - floor) / (l1 - floor), rel=1e-2)
    assert judged[:9] == [(s, None) for _ in range(2) for s in sizes] + [(s, "dinov2_vits14") for s in sizes]
    anna, two = (
        line
        for line in lines
        if line.startswith(("| anna | 0.25 | alden | +", "| phantoms | 0.25 | alden | +"))
    )
    assert anna.endswith("| - |") and "[" in anna, "three slices have an interval"
    assert two.endswith(f"| {excess:.0%} of l1's |") and "[" not in two, "two patients have none"
