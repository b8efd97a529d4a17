"""Is a lesion still there? An observer against closed forms, and lesions put where they are wanted."""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from alden_lite.alden.denoising import denoise, load_generator
from alden_lite.evaluation.lesions import (
    LesionScans,
    contrast_recovered,
    lesion_pairs,
    npw,
    place_lesion,
    scan_pairs,
)
from alden_lite.evaluation.sharpness import insert_rod, rod_mtf
from alden_lite.phantom import LABEL_ID, Patient, render
from alden_lite.physics.dose import simulate_pair
from alden_lite.physics.scanner import Scanner

PATIENT = Patient.draw(3)


@pytest.fixture(scope="module")
def scanner() -> Scanner:
    return Scanner.covering(96, 4.2, n_views=120, photons=2e5)


def blob(side: int = 32, *, peak: float = 4.0, width: float = 3.0) -> np.ndarray:
    y, x = np.indices((side, side)) - (side - 1) / 2
    return peak * np.exp(-(x**2 + y**2) / (2 * width**2))


def white(count: int, side: int = 32, *, sigma: float = 20.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sigma, (count, side, side))


# The observer


def test_in_white_noise_d_prime_is_the_signals_length_over_sigma() -> None:
    signal = blob()
    found = npw(white(1000) + signal, white(1000, seed=1), signal)
    analytic = math.sqrt((signal**2).sum()) / 20
    assert found.d_prime == pytest.approx(analytic, rel=0.08)
    assert found.low < analytic < found.high
    assert found.auc == pytest.approx(stats.norm.cdf(analytic / math.sqrt(2)), abs=0.02)


def test_in_coloured_noise_d_prime_is_what_its_power_spectrum_says() -> None:
    n, signal = 32, blob(peak=12)
    f = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.fftfreq(n))
    for power in (f * np.exp(-((f / 0.2) ** 2)), 1 / (0.05 + f) ** 2):  # a CT's ramp; blotches
        power = 400 * power / power.mean()  # variance 400 HU^2: of each frequency, n^2 times its share
        noise = np.fft.ifft2(np.fft.fft2(white(1200, sigma=1.0)) * np.sqrt(power)).real
        assert noise.var() == pytest.approx(400, rel=0.03)
        energy = np.abs(np.fft.fft2(signal)) ** 2
        # Burgess, JOSA A 16:633 (1999): d'^2 = (integral S^2)^2 / integral S^2 NPS
        analytic = energy.sum() / math.sqrt((energy * power).sum()) / n
        found = npw(noise[:600] + signal, noise[600:], signal)
        assert found.d_prime == pytest.approx(analytic, rel=0.06)
        assert found.low < analytic < found.high


def test_coarse_noise_hides_a_lesion_better_than_fine_noise_of_the_same_variance() -> None:
    noise = white(400)
    coarse = ndimage.gaussian_filter(noise, (0, 2, 2), mode="wrap")
    coarse *= noise.std() / coarse.std()
    fine, blotchy = (npw(n[:200] + blob(), n[200:], blob()).d_prime for n in (noise, coarse))
    assert blotchy < 0.5 * fine


def test_anatomy_and_the_templates_scale_make_no_difference() -> None:
    present, absent, anatomy = white(20) + blob(), white(20, seed=1), 1000 * white(1, seed=2)[0]
    plain = npw(present, absent, blob())
    moved = npw(torch.from_numpy(present + anatomy), absent + anatomy, 7 * blob())
    assert [moved.d_prime, moved.low, moved.high] == pytest.approx([plain.d_prime, plain.low, plain.high])
    assert moved.auc == plain.auc
    assert npw(present, absent, -blob()).d_prime == pytest.approx(-plain.d_prime)
    dark = npw(white(20) - blob(), absent, -blob())  # a dark lesion, looked for as such
    assert dark.d_prime > 0


def test_an_observer_of_hand_made_looks() -> None:
    one = np.ones((1, 1))
    present = np.array([1.0, 3.0, 5.0, 7.0, 9.0])[:, None, None]
    absent = np.array([0.0, 2.0, 4.0, 6.0, -2.0])[:, None, None]
    found = npw(present, absent, one)
    assert found.d_prime == pytest.approx((5 - 2) / math.sqrt(10))  # each has variance 10, of four degrees
    assert found.auc == 19 / 25  # pairs in which the one with the lesion is larger
    uneven = npw(present, 2 * absent, one)
    assert uneven.d_prime == pytest.approx((5 - 4) / math.sqrt((10 + 40) / 2))


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    truth, hits = math.sqrt((blob(8, peak=15) ** 2).sum()) / 20, 0
    for seed in range(100):
        noise = white(40, 8, seed=seed)
        found = npw(noise[:20] + blob(8, peak=15), noise[20:], blob(8), seed=seed)
        hits += found.low < truth < found.high
    assert 85 <= hits <= 99
    assert truth == pytest.approx(3.8, abs=0.3)


def looks(*values: float) -> np.ndarray:
    """Scans of one pixel, so that an observer's responses are these."""
    return np.array(values)[:, None, None]


def test_auc_is_1_for_certain_0_for_the_contrary_and_one_half_for_chance() -> None:
    one, low, high = np.ones((1, 1)), looks(0, 1, 2, 3, 4), looks(5, 6, 7, 8, 9)
    assert npw(high, low, one).auc == 1 and npw(low, high, one).auc == 0
    assert npw(high, low, -one).auc == 0, "looked for as its negative"
    assert npw(low, low, one).auc == 0.5 and npw(low, low, one).d_prime == 0, "ties count half"
    assert npw(low, looks(0, 0, 1, 3, 4), one).auc == (1 + 2.5 + 3 + 3.5 + 4.5) / 25


def test_auc_grows_with_the_lesion_as_for_gaussian_responses() -> None:
    absent, noise = white(600, 8, seed=1), white(600, 8)
    for d_prime in (-1.5, 0.0, 0.5, 1.5):
        signal = np.full((8, 8), 20 / 8)  # in noise of 20 HU and 64 pixels: d' = 1
        found = npw(noise + d_prime * signal, absent, signal)
        assert found.auc == pytest.approx(stats.norm.cdf(d_prime / math.sqrt(2)), abs=0.04)


def test_what_an_observer_cannot_look_at_is_refused() -> None:
    scans, signal = white(6), blob()
    with pytest.raises(ValueError, match="5 or more scans"):
        npw(scans[:4], scans, signal)
    with pytest.raises(ValueError, match="5 or more scans"):
        npw(scans, scans[:4], signal)
    with pytest.raises(ValueError, match=r"template \(Y, X\), got \(6, 32, 32\) and \(31, 32\)"):
        npw(scans, scans, signal[1:])
    with pytest.raises(ValueError, match="NaN"):
        npw(scans, np.full_like(scans, np.nan), signal)
    with pytest.raises(ValueError, match="no noise"):
        npw(np.zeros((6, 32, 32)) + signal, np.zeros((6, 32, 32)), signal)
    with pytest.raises(ValueError, match="template of zeros"):
        npw(scans, scans, 0 * signal)


# Contrast and edges


def test_the_share_of_contrast_that_is_left() -> None:
    signal = blob()
    share, (low, high) = contrast_recovered(white(40) + 0.6 * signal, white(40, seed=1), signal)
    assert low < 0.6 < high and low < share < high
    exact = contrast_recovered(np.stack([2 + 0.6 * signal] * 3), np.full((3, 32, 32), 2.0), -signal)
    assert exact == (pytest.approx(-0.6), (pytest.approx(-0.6), pytest.approx(-0.6)))
    # Only where the lesion is at least half its peak: what a blur spills around it does not count.
    spilled = np.where(signal >= signal.max() / 2, signal / 2, 100.0)
    assert contrast_recovered(np.stack([spilled] * 3), np.zeros((3, 32, 32)), signal)[0] == pytest.approx(0.5)
    assert contrast_recovered(-np.stack([spilled] * 3), np.zeros((3, 32, 32)), -signal)[0] == pytest.approx(
        0.5
    )


def test_a_contrast_that_cannot_be_measured_is_refused() -> None:
    scans = white(4)
    with pytest.raises(ValueError, match="shapes differ"):
        contrast_recovered(scans, scans[:3], blob())
    with pytest.raises(ValueError, match="zero everywhere"):
        contrast_recovered(scans, scans, 0 * blob())
    with pytest.raises(ValueError, match="3 values"):
        contrast_recovered(scans[:2], scans[:2], blob())
    with pytest.raises(ValueError, match="shapes differ"):
        rod_mtf(scans, scans, blob(31), pixel_mm=1.0, diameter_mm=24)


# Lesions in phantoms


def test_a_lesion_lands_in_the_middle_of_the_widest_part_of_its_organ(scanner: Scanner) -> None:
    lesion = place_lesion(PATIENT, scanner=scanner, diameter_mm=16, contrast_hu=-20, z_mm=5.0)
    field_mm = scanner.matrix * scanner.pixel_mm
    empty, found = (
        render(PATIENT, "abdomen", z_mm=5.0, matrix=96, field_mm=field_mm, lesions=those)
        for those in ((), [lesion])
    )
    depth = ndimage.distance_transform_edt(empty.labels.numpy() == LABEL_ID["liver"])
    landed = ndimage.center_of_mass((found.labels == LABEL_ID["liver_lesion"]).numpy())
    assert landed == pytest.approx(np.unravel_index(depth.argmax(), depth.shape), abs=0.5)
    inside = (found.labels == LABEL_ID["liver_lesion"]).numpy()
    contrast = found.hu.numpy()[inside].mean() - empty.hu.numpy()[inside].mean()
    assert contrast == pytest.approx(-20, abs=4)
    assert lesion.centre_mm[2] == 5.0 and lesion.diameter_mm == 16


def test_a_lesion_without_room_is_refused(scanner: Scanner) -> None:
    with pytest.raises(ValueError, match="no room for 300 mm in the liver at z = 0 mm"):
        place_lesion(PATIENT, scanner=scanner, diameter_mm=300, contrast_hu=-20)
    with pytest.raises(ValueError, match="no room"):
        place_lesion(PATIENT, scanner=scanner, diameter_mm=5, contrast_hu=-20, organ="brain_white")
    with pytest.raises(ValueError, match="contrast other than 0"):
        place_lesion(PATIENT, scanner=scanner, diameter_mm=5, contrast_hu=0)
    with pytest.raises(ValueError, match="'heart'"):
        place_lesion(PATIENT, scanner=scanner, diameter_mm=5, contrast_hu=1, organ="heart")


@pytest.fixture(scope="module")
def scans(scanner: Scanner) -> LesionScans:
    lesion = place_lesion(PATIENT, scanner=scanner, diameter_mm=40, contrast_hu=-60)
    return lesion_pairs(PATIENT, lesion, scanner=scanner, dose=0.25, repeats=6, seed=1, side=48)


def test_scans_with_and_without_differ_by_the_lesion_and_by_noise(scans: LesionScans) -> None:
    assert scans.low_present.shape == scans.normal_absent.shape == (6, 48, 48)
    assert scans.pixel_mm == 4.2
    assert scans.signal[24 - 4 : 24 + 4, 24 - 4 : 24 + 4].min() == pytest.approx(-60, abs=12)
    assert scans.signal[0].abs().max() < 3
    for present, absent in (
        (scans.low_present, scans.low_absent),
        (scans.normal_present, scans.normal_absent),
    ):
        share, (low, high) = contrast_recovered(present, absent, scans.signal)
        assert low < 1 < high or share == pytest.approx(1, abs=0.1)
        assert len({float(hu.sum()) for hu in (*present, *absent)}) == 12  # noise is never the same
    noise = [(hu - hu.mean(0)).std() for hu in (scans.low_present, scans.normal_present, scans.normal_absent)]
    assert float(noise[0] / noise[1]) == pytest.approx(2, rel=0.15)  # a quarter of the dose
    assert float(noise[1] / noise[2]) == pytest.approx(1, rel=0.15)


def test_noise_with_the_lesion_tells_nothing_of_noise_without(scans: LesionScans) -> None:
    present, absent = ((hu - hu.mean(0)).ravel() for hu in (scans.low_present, scans.low_absent))
    assert float(torch.corrcoef(torch.stack([present, absent]))[0, 1]) == pytest.approx(0, abs=0.05)
    low, normal = ((hu - hu.mean(0)).ravel() for hu in (scans.low_absent, scans.normal_absent))
    assert float(torch.corrcoef(torch.stack([low, normal]))[0, 1]) == pytest.approx(0.5, abs=0.08)  # nested


def test_the_same_seed_is_the_same_noise(scanner: Scanner) -> None:
    hu = render(PATIENT, "abdomen", matrix=96, field_mm=96 * 4.2).hu
    rod = insert_rod(hu, pixel_mm=4.2, centre_mm=(-20, 60), diameter_mm=50, contrast_hu=100)
    first, again, other = (
        scan_pairs(rod, hu, scanner=scanner, dose=0.5, repeats=2, seed=seed, side=32) for seed in (4, 4, 5)
    )
    assert torch.equal(first.low_present, again.low_present)
    assert not torch.equal(first.low_present, other.low_present)
    assert torch.equal(first.signal, other.signal)
    # The square is cut around the rod, from a multiple of 8 pixels on.
    y, x = ndimage.center_of_mass((first.signal > 50).numpy())
    at = [round((47.5 + mm / 4.2 - 16) / 8) * 8 for mm in (-20, 60)]
    assert (y, x) == pytest.approx((47.5 - 20 / 4.2 - at[0], 47.5 + 60 / 4.2 - at[1]), abs=0.3)
    clean = [simulate_pair(one, scanner=scanner, dose=1.0, seed=0).clean for one in (rod, hu)]
    expected = (clean[0] - clean[1])[at[0] : at[0] + 32, at[1] : at[1] + 32]  # type: ignore[operator]
    assert torch.equal(first.signal, expected)


@pytest.mark.parametrize("corner", [-190.0, 190.0])
def test_a_square_at_the_corner_stays_in_the_slice(scanner: Scanner, corner: float) -> None:
    air = torch.full((96, 96), -1000.0)
    rod = insert_rod(air, pixel_mm=4.2, centre_mm=(corner, corner), diameter_mm=12, contrast_hu=500)
    found = scan_pairs(rod, air, scanner=scanner, dose=0.5, repeats=1, seed=0, side=32)
    at = 47.5 + corner / 4.2 - (0 if corner < 0 else 64)
    assert ndimage.center_of_mass((found.signal > 100).numpy()) == pytest.approx((at, at), abs=0.6)


def test_a_network_sees_in_the_cut_out_square_what_it_sees_in_the_slice() -> None:
    hu = torch.from_numpy(white(1, 256)[0]).float()
    network = load_generator("l1")
    whole, part = denoise(hu, network), denoise(hu[64:192, 56:184], network)
    off = (part[40:88, 40:88] - whole[104:152, 96:144]).std()
    shifted = denoise(hu[65:193, 56:184], network)  # not at a multiple of 8
    off_shifted = (shifted[40:88, 40:88] - whole[105:153, 96:144]).std()
    assert off < 0.2 and 3 * off < off_shifted


def test_scans_that_cannot_be_made_are_refused(scanner: Scanner) -> None:
    hu = torch.full((96, 96), -1000.0)
    with pytest.raises(ValueError, match="two different slices"):
        scan_pairs(hu, hu, scanner=scanner, dose=0.5, repeats=1, seed=0, side=32)
    with pytest.raises(ValueError, match="two different slices"):
        scan_pairs(hu, hu[1:], scanner=scanner, dose=0.5, repeats=1, seed=0, side=32)
    for repeats, side in ((0, 32), (1, 4), (1, 128)):
        with pytest.raises(ValueError, match="side 8 to 96"):
            scan_pairs(hu, hu + 1, scanner=scanner, dose=0.5, repeats=repeats, seed=0, side=side)
    with pytest.raises(ValueError, match="dose"):
        scan_pairs(hu, hu + 1, scanner=scanner, dose=0, repeats=1, seed=0, side=32)


# The stored study: benchmarks/detectability.py


@pytest.fixture(scope="module")
def study(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("detectability")


def test_doses_of_one_scan_are_nested_and_as_noisy_as_the_scanners_own(
    study: ModuleType, scanner: Scanner
) -> None:
    hu = render(PATIENT, "abdomen", matrix=96, field_mm=96 * 4.2).hu
    scanner = replace(scanner, photons=2e7, electronic_noise=0.0)  # which no two doses share
    box = (slice(24, 72), slice(16, 64))
    clean, scans = study._scan(hu, box, scanner, [0.1, 0.25], 12, [3, 0])
    pairs = [simulate_pair(hu, scanner=scanner, dose=0.25, seed=seed) for seed in range(12)]
    assert pairs[0].clean is not None and torch.equal(clean, pairs[0].clean[box])
    noise = {dose: (of_dose - of_dose.mean(0)).double() for dose, of_dose in scans.items()}
    for dose, theirs in ((0.25, [p.low[box] for p in pairs]), (1.0, [p.normal[box] for p in pairs])):
        assert float(noise[dose].std()) == pytest.approx(
            float(torch.stack(theirs).sub(torch.stack(theirs).mean(0)).std()), rel=0.05
        )
    for low, high in ((0.1, 0.25), (0.1, 1.0), (0.25, 1.0)):
        together = torch.corrcoef(torch.stack([noise[low].ravel(), noise[high].ravel()]))[0, 1]
        assert float(together) == pytest.approx(math.sqrt(low / high), abs=0.06)
    assert float(scans[0.1].mean() - clean.mean()) == pytest.approx(0, abs=3)
    again, other = (study._scan(hu, box, scanner, [0.25], 1, seed)[1][1.0] for seed in ([3, 0], [3, 1]))
    assert torch.equal(again, study._scan(hu, box, scanner, [0.25], 1, [3, 0])[1][1.0])
    assert not torch.equal(again, other)


def test_the_study_cuts_out_the_square_that_scan_pairs_does(study: ModuleType, scanner: Scanner) -> None:
    rows, columns = study._box((-20.0, 60.0), scanner, 32)
    at = [round((47.5 + mm / 4.2 - 16) / 8) * 8 for mm in (-20, 60)]
    assert [(rows.start, rows.stop), (columns.start, columns.stop)] == [(one, one + 32) for one in at]
    assert study._box((500.0, -500.0), scanner, 32) == (slice(64, 96), slice(0, 32))


def test_figures_of_a_lesion_are_those_of_this_room(study: ModuleType) -> None:
    noise, signal = torch.from_numpy(white(12, 128, sigma=7.0)).float(), torch.from_numpy(blob(128, peak=20))
    noise[:, :30] *= 50  # far from the lesion: not in its noise
    noise += 30 * torch.from_numpy(white(1, 128, seed=1, sigma=1.0))  # anatomy, which is no noise
    found = study._lesion_figures(noise[:6] + 0.5 * signal, noise[6:], signal)
    own = npw(noise[:6] + 0.5 * signal, noise[6:], signal)
    assert (found["d_prime"], found["auc"]) == (own.d_prime, own.auc)
    assert found["noise_hu"] == pytest.approx(7, rel=0.03)
    assert found["contrast"] == contrast_recovered(noise[:6] + 0.5 * signal, noise[6:], signal)[0]
    assert math.isnan(study._mtf50(noise[:6], noise[6:], blob(128, width=30.0), 4.0))  # no edge there


def figures(patient: int, method: str, d_prime: float, contrast: float = 1.0) -> dict[str, Any]:
    what = {"patient": patient, "object": "lesion", "diameter_mm": 8.0, "dose": 0.1, "method": method}
    return what | {"d_prime": d_prime, "auc": 0.9, "contrast": contrast, "noise_hu": 3.0}


def test_stored_rows_come_back_with_nan_as_null(study: ModuleType, tmp_path: Path) -> None:
    file, made = tmp_path / "new" / "study.json", {"repeats": 5}
    assert study._stored(file, made) == []
    study._store(file, made, [figures(0, "NaN", 1.234567891), figures(1, "l1", math.nan, -math.inf)])
    stored = json.loads(file.read_text())
    assert [row["d_prime"] for row in stored["rows"]] == [1.23457, None]
    assert stored["rows"][0]["method"] == "NaN" and stored["made"] == made
    first, second = study._stored(file, made)
    assert first == figures(0, "NaN", 1.23457)
    assert math.isnan(second["d_prime"]) and math.isnan(second["contrast"]) and second["patient"] == 1
    assert [path.name for path in file.parent.iterdir()] == ["study.json"]
    with pytest.raises(SystemExit, match="made otherwise"):
        study._stored(file, {"repeats": 6})


def test_tables_count_patients(study: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [figures(n, "LDCT", 2.0) for n in range(7)]
    rows += [figures(n, "l1", 2.0 + n, 0.5) for n in range(7)]
    rows += [figures(n, "alden", math.nan if n == 6 else 3.0, 0.6) for n in range(7)]
    rod = {"patient": 0, "object": "rod", "contrast_hu": 40, "dose": 1.0, "method": "scanner"}
    rows.append(rod | {"mtf50_per_mm": 0.3})
    means = study._means(rows)
    assert means["lesion 8 mm.0.1.l1.d_prime"] == 5.0 and means["lesion 8 mm.0.1.alden.d_prime"] == 3.0
    assert means["rod 40 HU.1.scanner.mtf50_per_mm"] == 0.3
    compared = {title: (ours, theirs) for title, ours, theirs in study._differences(rows)}
    assert list(compared) == [
        "lesion 8 mm | 0.1 | d_prime | l1 - LDCT",
        "lesion 8 mm | 0.1 | d_prime | alden - LDCT",
        "lesion 8 mm | 0.1 | contrast | alden - l1",
    ]
    assert compared["lesion 8 mm | 0.1 | d_prime | alden - LDCT"] == (
        {str(n): 3.0 for n in range(6)},
        {str(n): 2.0 for n in range(6)},
    )
    study._print_means(rows)
    study._print_differences(rows)
    lines = capsys.readouterr().out.splitlines()
    assert "| lesion 8 mm | 0.1 | LDCT | 2.00 [2.00, 2.00] | 0.900 [0.900, 0.900] |" in "\n".join(lines)
    assert "| rod 40 HU | 1 | scanner | - | - | - | - | 0.300 |" in lines
    # d': six differences of one sign, p = 2 / 2^6; contrast: seven. Holm: the smallest times 3, the next 2.
    assert "| d_prime | alden - LDCT | +1.000 [+1.000, +1.000] | +1.00 | 0.0625 |" in "\n".join(lines)
    assert "| contrast | alden - l1 | +0.100 [+0.100, +0.100] | +1.00 | 0.0469 |" in "\n".join(lines)


def test_a_study_goes_on_where_it_was_broken_off(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = Scanner.preset("abdomen", matrix=256, pixel_mm=1.5)
    monkeypatch.setattr(study, "Scanner", argparse.Namespace(preset=lambda *_, **__: small))
    done, one_patient = [], study._patient

    def counted(seed: int, *rest: Any) -> list[dict[str, Any]]:
        done.append(seed)
        return one_patient(seed, *rest)  # type: ignore[no-any-return]

    monkeypatch.setattr(study, "_patient", counted)
    settings = ["--repeats", "5", "--diameters", "20", "--doses", "0.25", "--generators", "l1", "blend"]
    for patients in ("1", "2"):
        monkeypatch.setattr("sys.argv", ["", "--patients", patients, "--out", str(tmp_path), *settings])
        study.main()
    assert done == [0, 1]
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    stored = json.loads((tmp_path / "detectability.json").read_text())
    rows = {(r["object"], r["dose"], r["method"]): r for r in stored["rows"] if r["patient"] == 1}
    lesions = {name: rows["lesion", 0.25, name] for name in ("LDCT", "l1", "blend")}
    assert lesions["l1"]["noise_hu"] < lesions["blend"]["noise_hu"] < lesions["LDCT"]["noise_hu"]
    assert rows["lesion", 1.0, "normal dose"]["d_prime"] > lesions["LDCT"]["d_prime"] > 0
    assert rows["lesion", 1.0, "normal dose"]["contrast"] == pytest.approx(1, abs=0.2)
    assert rows["rod", 1.0, "scanner"]["mtf50_per_mm"] is None  # of 13 pixels: too small to measure
    both = [
        r["d_prime"] for r in stored["rows"] if (r["dose"], r["method"]) == (0.25, "l1") and "d_prime" in r
    ]
    assert last["lesion 20 mm.0.25.l1.d_prime"] == pytest.approx(sum(both) / 2, abs=1e-4)
    assert list(stored["made"]["generators_sha256"]) == ["l1"]
    monkeypatch.setattr("sys.argv", ["", "--out", str(tmp_path), *settings, "--repeats", "6"])
    with pytest.raises(SystemExit, match="--fresh"):
        study.main()
