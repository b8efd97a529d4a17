"""Is a small faint lesion still there after denoising, and does an edge stay sharp? Phantom patients tell.

    python benchmarks/detectability.py [--patients 14] [--repeats 10] [--diameters 8 4] [--doses 0.1 0.25]

In every patient the same liver is scanned many times: without anything, with balls of -20 HU, with rods. The
scans without serve all; the doses of one scan are nested: fewer than half the scans of one
`alden_lite.evaluation.lesion_pairs` for each ball and dose. Figures, by patient:

- d_prime, auc: of an observer who knows lesion, place and anatomy (`npw`); estimates from 10 scans of each
  kind are some 4 % too large, for all methods alike. contrast: share of the lesion's that is left. noise_hu:
  standard deviation between scans, around the place.
- mtf50_per_mm at the edge of a rod of 40 and of 300 HU. "scanner" is the value without noise and denoiser. A
  scan is linear, so LDCT's true value is the scanner's: what it measures instead is the error that is due to
  noise. It is null where the noise leaves no edge to measure.

What is finished is stored at once in alden_lite/evaluation/studies/detectability.json, a row a patient,
object, dose and method; a second call goes on where the first was broken off. `--fresh` begins again. `blend`
is `l1` with 15 % of its input left in. Chapter 09 shows the stored results.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import nn

import alden_lite
from alden_lite.alden.denoising import denoise, load_generator
from alden_lite.alden.generator import keep_input
from alden_lite.engine.checkpoint import file_sha256, provenance, weights_path
from alden_lite.evaluation.lesions import contrast_recovered, npw, place_lesion
from alden_lite.evaluation.sharpness import insert_rod, mtf50_per_mm, rod_mtf
from alden_lite.evaluation.statistics import FEWEST, compare, holm, interval_by_patient
from alden_lite.phantom import Patient, render
from alden_lite.physics.dose import log_transform
from alden_lite.physics.scanner import Scanner

STUDIES = Path(alden_lite.__file__).parent / "evaluation" / "studies"
LESION_HU = -20.0
RODS_HU = (40, 300)
ROD_MM = 20.0
SIDE = 128  # pixels that are cut out and denoised: see `alden_lite.evaluation.lesions.scan_pairs`
AROUND = slice(40, 88)  # where noise is measured in them
LOW, NORMAL = "LDCT", "normal dose"
FIGURES = {
    "d_prime": "{:.2f}",
    "auc": "{:.3f}",
    "contrast": "{:.2f}",
    "noise_hu": "{:.1f}",
    "mtf50_per_mm": "{:.3f}",
}

Row = dict[str, Any]
Scans = dict[float, torch.Tensor]  # by dose: (K, SIDE, SIDE) in HU


def main() -> None:
    """Scan and look at the patients that are missing, print two tables and, last, their figures as JSON."""
    options = _options()
    scanner = Scanner.preset("abdomen", pixel_mm=0.75)
    file, made = options.out / "detectability.json", _made(options, scanner)
    rows = [] if options.fresh else _stored(file, made)
    generators = {name: _generator(name) for name in options.generators}
    for seed in range(options.patients):
        if any(row["patient"] == seed for row in rows):
            continue
        started = time.perf_counter()
        rows += _patient(seed, scanner, generators, options)
        _store(file, made, rows)
        print(f"patient {seed}: {time.perf_counter() - started:.0f} s", flush=True)
    _print_means(rows)
    _print_differences(rows)
    print(json.dumps(_means(rows)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patients", type=int, default=14, help="phantom patients, seeds from 0 on")
    parser.add_argument("--repeats", type=int, default=10, help="scans of each kind, 5 or more")
    parser.add_argument("--diameters", type=float, nargs="+", default=[8.0, 4.0], help="of lesions, in mm")
    parser.add_argument("--doses", type=float, nargs="+", default=[0.10, 0.25])
    parser.add_argument("--generators", nargs="+", default=["l1", "alden", "blend"])
    parser.add_argument("--fresh", action="store_true", help="forget what is stored")
    parser.add_argument("--out", type=Path, default=STUDIES, help="folder of the stored results")
    options = parser.parse_args()
    if options.repeats < 5 or options.patients < 1 or not all(0 < dose < 1 for dose in options.doses):
        parser.error("needs 5 or more --repeats, a patient or more, and --doses between 0 and 1")
    options.doses = sorted(set(options.doses))
    return options


def _generator(name: str) -> nn.Module:
    return keep_input(load_generator("l1"), 0.15) if name == "blend" else load_generator(name)


# One patient ----------------------------------------------------------------------------------------------


def _patient(
    seed: int, scanner: Scanner, generators: Mapping[str, nn.Module], options: argparse.Namespace
) -> list[Row]:
    """All rows of one patient."""
    empty, with_it, centre_mm = _slices(seed, scanner, options.diameters)
    box = _box(centre_mm, scanner)
    clean, absent = _scan(empty, box, scanner, options.doses, options.repeats, [seed, 0])
    absents = _denoised(absent, generators)
    rows: list[Row] = []
    for number, (what, hu) in enumerate(with_it.items(), start=1):
        clean_with, present = _scan(hu, box, scanner, options.doses, options.repeats, [seed, number])
        signal = clean_with - clean
        start: Row = {"patient": seed, "object": what[0], what[1]: what[2]}
        for (dose, method), scans in _denoised(present, generators).items():
            without = absents[dose, method]
            if what[0] == "lesion":
                figures = _lesion_figures(scans, without, signal)
            else:
                figures = {"mtf50_per_mm": _mtf50(scans, without, signal, scanner.pixel_mm)}
            rows.append(start | {"dose": dose, "method": method} | figures)
        if what[0] == "rod":
            own = _mtf50(signal[None], 0 * signal[None], signal, scanner.pixel_mm)
            rows.append(start | {"dose": 1.0, "method": "scanner", "mtf50_per_mm": own})
    return rows


def _slices(
    seed: int, scanner: Scanner, diameters: Sequence[float]
) -> tuple[torch.Tensor, dict[tuple[str, str, float], torch.Tensor], tuple[float, float]]:
    """Noise-free slices: the patient's, those with a lesion or a rod in it, and its place, (y, x) in mm."""
    patient, field_mm = Patient.draw(seed), scanner.matrix * scanner.pixel_mm
    empty = render(patient, "abdomen", matrix=scanner.matrix, field_mm=field_mm).hu
    slices: dict[tuple[str, str, float], torch.Tensor] = {}
    for mm in diameters:
        lesion = place_lesion(patient, scanner=scanner, diameter_mm=mm, contrast_hu=LESION_HU)
        found = render(patient, "abdomen", matrix=scanner.matrix, field_mm=field_mm, lesions=[lesion])
        slices["lesion", "diameter_mm", mm] = found.hu
    middle = ndimage.center_of_mass((slices["lesion", "diameter_mm", diameters[0]] - empty).abs().numpy())
    y, x = ((at - (scanner.matrix - 1) / 2) * scanner.pixel_mm for at in middle)
    for hu in RODS_HU:
        slices["rod", "contrast_hu", hu] = insert_rod(
            empty, pixel_mm=scanner.pixel_mm, centre_mm=(y, x), diameter_mm=ROD_MM, contrast_hu=hu
        )
    return empty, slices, (y, x)


def _box(centre_mm: tuple[float, float], scanner: Scanner, side: int = SIDE) -> tuple[slice, slice]:
    """The square around a place, from a multiple of 8 pixels on, inside the slice."""
    pixels = ((scanner.matrix - 1) / 2 + at / scanner.pixel_mm for at in centre_mm)
    first = (int(np.clip(round((at - side / 2) / 8) * 8, 0, scanner.matrix - side)) for at in pixels)
    rows, columns = (slice(at, at + side) for at in first)
    return rows, columns


def _scan(
    hu: torch.Tensor,
    box: tuple[slice, slice],
    scanner: Scanner,
    doses: Sequence[float],
    repeats: int,
    seed: Sequence[int],
) -> tuple[torch.Tensor, Scans]:
    """A slice without noise, and its scans at each dose (ascending) and at 1.

    As `physics.simulate_pair`, for several nested doses and one projection: what a higher dose counts beyond
    a lower one is a Poisson count of its own.
    """
    rng = np.random.default_rng(seed)
    lines = scanner.project(hu)
    incident, expected = scanner.incident_photons(lines).double(), scanner.expected_counts(lines).numpy()
    scans: dict[float, list[torch.Tensor]] = {dose: [] for dose in (*doses, 1.0)}
    for _ in range(repeats):
        counts, before = np.zeros(expected.shape), 0.0
        for dose, of_dose in scans.items():
            counts, before = counts + rng.poisson((dose - before) * expected), dose
            read = torch.from_numpy(counts + rng.normal(0, scanner.electronic_noise, counts.shape))
            of_dose.append(scanner.reconstruct(log_transform(read, dose * incident))[box].clone())
    stacked = {dose: torch.stack(of_dose) for dose, of_dose in scans.items()}
    return scanner.reconstruct(lines)[box].clone(), stacked


def _denoised(scans: Scans, generators: Mapping[str, nn.Module]) -> dict[tuple[float, str], torch.Tensor]:
    """By dose and method; the full dose stays as it is."""
    done: dict[tuple[float, str], torch.Tensor] = {}
    for dose, hu in scans.items():
        done[dose, LOW if dose < 1 else NORMAL] = hu
        if dose < 1:
            done |= {(dose, name): denoise(hu, one, progress=False) for name, one in generators.items()}
    return done


def _lesion_figures(present: torch.Tensor, absent: torch.Tensor, signal: torch.Tensor) -> dict[str, float]:
    seen = npw(present, absent, signal)
    return {
        "d_prime": seen.d_prime,
        "auc": seen.auc,
        "contrast": contrast_recovered(present, absent, signal)[0],
        "noise_hu": float(absent[:, AROUND, AROUND].var(0).mean().sqrt()),
    }


def _mtf50(present: torch.Tensor, absent: torch.Tensor, signal: torch.Tensor, pixel_mm: float) -> float:
    try:
        return mtf50_per_mm(*rod_mtf(present, absent, signal, pixel_mm=pixel_mm, diameter_mm=ROD_MM))
    except ValueError:  # noise without an edge
        return math.nan


# Stored results -------------------------------------------------------------------------------------------


def _made(options: argparse.Namespace, scanner: Scanner) -> dict[str, Any]:
    """How the results came about: all that must agree for patients to stand in one table."""
    files = {"l1" if name == "blend" else name for name in options.generators}
    return {
        "command": "python benchmarks/detectability.py",
        "repeats": options.repeats,
        "diameters_mm": options.diameters,
        "doses": options.doses,
        "methods": [LOW, *options.generators, NORMAL],
        "lesion_hu": LESION_HU,
        "rods_hu": list(RODS_HU),
        "rod_mm": ROD_MM,
        "scanner": f"abdomen, {scanner.matrix} x {scanner.matrix} pixels of {scanner.pixel_mm:g} mm",
        "generators_sha256": {name: file_sha256(weights_path(name)) for name in sorted(files)},
        "versions": provenance()["versions"],
    }


def _stored(file: Path, made: Mapping[str, Any]) -> list[Row]:
    if not file.exists():
        return []
    stored = json.loads(file.read_text())
    if stored["made"] != made:
        raise SystemExit(f"{file} was made otherwise (settings, weights or versions): add --fresh, or --out")
    return [
        {key: math.nan if value is None else value for key, value in row.items()} for row in stored["rows"]
    ]


def _store(file: Path, made: Mapping[str, Any], rows: Sequence[Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    plain = [{key: _number(value) for key, value in row.items()} for row in rows]
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in plain)
    part = file.with_suffix(".part")
    part.write_text(f'{{"made": {json.dumps(made)},\n"rows": [\n{lines}\n]}}\n')
    os.replace(part, file)


def _number(value: Any) -> Any:
    """Five digits are plenty; JSON has no NaN."""
    if not isinstance(value, float):
        return value
    return round(value, 5) if math.isfinite(value) else None


# Tables ---------------------------------------------------------------------------------------------------


def _name(row: Mapping[str, Any]) -> str:
    """What was looked for, as a heading: `lesion 8 mm`, `rod 40 HU`."""
    what = f"{row['diameter_mm']:g} mm" if row["object"] == "lesion" else f"{row['contrast_hu']:g} HU"
    return f"{row['object']} {what}"


def _by_patient(rows: Sequence[Row]) -> dict[tuple[str, float, str, str], dict[str, float]]:
    """Values by patient, for each object, dose, method and figure; patients without the figure left out."""
    values: dict[tuple[str, float, str, str], dict[str, float]] = {}
    for row in rows:
        for figure in FIGURES:
            if math.isfinite(row.get(figure, math.nan)):
                key = (_name(row), row["dose"], row["method"], figure)
                values.setdefault(key, {})[str(row["patient"])] = row[figure]
    return values


def _means(rows: Sequence[Row]) -> dict[str, float]:
    return {
        f"{name}.{dose:g}.{method}.{figure}": round(float(np.mean(list(values.values()))), 4)
        for (name, dose, method, figure), values in _by_patient(rows).items()
    }


def _print_means(rows: Sequence[Row]) -> None:
    count = len({row["patient"] for row in rows})
    print(f"\nMeans of {count} phantom patients, with 95 % intervals over patients.\n")
    print("| object | dose | method | " + " | ".join(FIGURES) + " |\n|---|---|---|" + "---|" * len(FIGURES))
    values = _by_patient(rows)
    for name, dose, method in dict.fromkeys((_name(row), row["dose"], row["method"]) for row in rows):
        cells = [
            _with_interval(values.get((name, dose, method, figure), {}), how)
            for figure, how in FIGURES.items()
        ]
        print(f"| {name} | {dose:g} | {method} | " + " | ".join(cells) + " |")


def _with_interval(values: Mapping[str, float], how: str) -> str:
    if not values:
        return "-"
    mean = how.format(float(np.mean(list(values.values()))))
    if len(values) < 3:
        return mean
    low, high = interval_by_patient(list(values.values()), list(values))
    return f"{mean} [{how.format(low)}, {how.format(high)}]"


def _differences(rows: Sequence[Row]) -> Iterator[tuple[str, dict[str, float], dict[str, float]]]:
    """What is compared: does a method see more than LDCT, and does it keep more contrast and edge than l1?

    Name and values by patient, ours and theirs, of patients who have both.
    """
    values = _by_patient(rows)
    rivals = {"d_prime": LOW, "contrast": "l1", "mtf50_per_mm": "l1"}
    for (name, dose, method, figure), ours in values.items():
        rival = rivals.get(figure)
        theirs = values.get((name, dose, rival, figure), {}) if rival else {}
        both = ours.keys() & theirs.keys()
        if method not in (rival, LOW) and len(both) >= FEWEST:
            title = f"{name} | {dose:g} | {figure} | {method} - {rival}"
            yield title, _only(ours, both), _only(theirs, both)


def _only(values: Mapping[str, float], patients: Set[str]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name in patients}


def _print_differences(rows: Sequence[Row]) -> None:
    found = {title: compare(ours, theirs) for title, ours, theirs in _differences(rows)}
    adjusted = holm({title: one.p for title, one in found.items()})
    print("\nDifferences by patient: mean [95 % interval], effect (rank-biserial), p (Holm, of all rows)\n")
    print("| object | dose | figure | compared | difference | effect | p |\n|---|---|---|---|---|---|---|")
    for title, one in found.items():
        difference = f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
        print(f"| {title} | {difference} | {one.effect:+.2f} | {adjusted[title]:.3g} |")
    print()


if __name__ == "__main__":
    main()
