"""The page `book/results.md`, written from what was measured. Taught in chapter 09.

Every number and every verdict comes from `outcome`; nothing here knows how a method did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alden_lite.evaluation.cohorts import PHANTOMS, TEST
from alden_lite.evaluation.studies.methods import BLEND, FAMILIES, METHODS, starts_from_blend
from alden_lite.evaluation.studies.outcome import (
    FLOOR,
    HIGH_NOISE,
    LOW_DOSE,
    VERDICTS,
    Outcome,
    claims,
    headline,
    patients_interval,
)

__all__ = ["results_page"]

FIGURES = {
    "psnr_db": ("PSNR dB", "{:.2f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "rmse_hu": ("RMSE HU", "{:.1f}"),
    "mae_hu": ("MAE HU", "{:.1f}"),
    "bias_hu": ("bias HU", "{:+.1f}"),
    "gmsd": ("GMSD", "{:.3f}"),
    "vif": ("VIF", "{:.3f}"),
    "judge": ("judge", "{:.3f}"),
    "grain": ("grain", "{:.2f}"),
    "texture": ("texture", "{:.2f}"),
    "noise_frequency": ("noise frequency", "{:.2f}"),
    "truth_psnr_db": ("PSNR to truth", "{:.2f}"),
    "truth_rmse_hu": ("RMSE to truth", "{:.2f}"),
}
"""Columns of a table: heading, and how a number is written."""

SETS = {
    TEST: "The sample patient's test slabs: one patient, so no interval over patients.",
    "development": "Development patients (GE, Toshiba): slices between those that trained, on which settings "
    "were chosen too.",
    "unseen": "Patients never trained on, of another vendor.",
    PHANTOMS: "Phantom patients, scanned twice at normal dose. The reference is the second scan, whose noise "
    "is not the low dose's, so leaving noise in gains nothing. `ndct`, the first scan, is the floor of the "
    "judge's distance. PSNR and RMSE have no such floor: they count the noise of both scans, and a smooth "
    "slice has less. The truth is the scan without noise.",
}


def results_page(outcome: Outcome) -> str:
    """The whole page in Markdown: how it was made, tables, organs, price, what holds and what does not."""
    made = outcome.made
    parts = [
        "# Results: ALDEN among its neighbours",
        "Written by `benchmarks/neighbours.py --page` from `alden_lite/evaluation/studies/neighbours.json`; "
        "do not edit. `make neighbours` makes it anew. Made by "
        f"`{made['command']}` on {made['machine']}, threads a process: {made['threads']}, "
        f"torch {made['versions'].get('torch', '?')}. All that is trained has seen "
        f"{', '.join(made['trained_on'])}; nothing has seen {', '.join(made['unseen']) or 'others'}.",
        f"Every trained method had {made['minutes']:g} minutes of processor time for each seed, on the same "
        f"crops of the same pairs. The dose is {made['dose']:g} of each slice's own. PSNR, SSIM, RMSE, MAE, "
        "bias, GMSD and VIF are taken in [-160, 240] HU against the normal-dose slice, which has noise of "
        "its own; on real patients the low dose is simulated from that very slice, so that what a method "
        "leaves in of the noise brings it nearer.",
        "judge: distance of EfficientNet-Lite0's maps, a network used only for evaluation, never for "
        "training; smaller is better. "
        "grain, texture, noise frequency: of smooth soft tissue, as a share of the normal dose's; "
        "1 is best. Brackets: 95 % bootstrap interval of the mean over patients. Simulated dose; not for "
        "clinical use.",
        _methods(outcome),
        *(_quality(outcome, data, about) for data, about in SETS.items()),
        _organs(outcome),
        _price(outcome),
        _verdicts(outcome),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _methods(outcome: Outcome) -> str:
    lines = [
        "## Who takes part",
        "Only methods of one family began with the same weights. Of `loss`, those marked 0.15 moreover began "
        "with 15 % of the low-dose slice left in, as `blend` has, and kept it in the pixel loss's target: "
        "compare them with `blend`, too. Settings were chosen on validation slices: those of filters, of "
        "`architecture` and of `l1` by PSNR; of all other losses by the judge's distance, as long as PSNR "
        "was not more than 1 dB below the shipped `l1`'s. So a small distance is no surprise in the latter.",
        "",
    ]
    rows = []
    for name in outcome.methods:
        if name == FLOOR:
            continue
        run = outcome.of(name)[0]
        family = f"`{METHODS[name].family}`: {FAMILIES[METHODS[name].family]}"
        tried = [one for one in outcome.search if one["method"] == name]
        chosen = ", ".join(f"{k} {v}" for k, v in run.settings.items()) if tried else "not searched"
        blended = METHODS[name].training and starts_from_blend(name, run.settings)
        row = [f"`{name}`", METHODS[name].about, family, f"{BLEND:g}" if blended else "-", chosen]
        rows.append(row)
    headings = ["method", "what it is", "family", "starts from the blend", "chosen by the search"]
    return "\n\n".join(lines) + _table(headings, rows)


def _quality(outcome: Outcome, data: str, about: str) -> str:
    there = [name for name in outcome.methods if outcome.looked_at(data, name)]
    if not there:
        return ""
    patients = len({whose for run in outcome.of(there[0]) for whose in run.sets[data].patients})
    known = {f: of for f, of in FIGURES.items() if any(_values(outcome, name, data, f) for name in there)}
    rows = [
        [f"`{name}`", *(_cell(_values(outcome, name, data, f), form) for f, (_, form) in known.items())]
        for name in there
    ]
    table = _table(["method", *(heading for heading, _ in known.values())], rows)
    return f"## Quality: {data}, {patients} patient{'s' if patients > 1 else ''}\n\n{about}\n\n{table}"


def _organs(outcome: Outcome) -> str:
    there = [name for name in outcome.methods if outcome.dice(name, HIGH_NOISE)]
    if not there:
        return ""
    rows = [
        [f"`{name}`", *(_cell(outcome.dice(name, dose), "{:.3f}") for dose in (LOW_DOSE, HIGH_NOISE))]
        for name in there
    ]
    patients = len(outcome.dice(there[0], HIGH_NOISE))
    about = (
        "Mean Dice over the organ groups that a frozen segmenter finds, which learned from normal dose only. "
        f"{patients} patients: the sample's test slabs and phantoms. `ndct`: normal dose itself."
    )
    headings = ["method", *(f"Dice at dose {dose}" for dose in (LOW_DOSE, HIGH_NOISE))]
    return f"## Organs\n\n{about}\n\n{_table(headings, rows)}"


def _price(outcome: Outcome) -> str:
    rows = []
    for name in outcome.methods:
        runs = outcome.of(name)
        if runs[0].ms is None:
            continue
        steps = [str(run.steps) for run in runs if run.steps]
        seconds = [f"{run.seconds:.0f}" for run in runs if run.steps]
        size = f"{runs[0].parameters / 1e6:.2f} M" if runs[0].parameters else "-"
        row = [f"`{name}`", f"{runs[0].ms:.0f}", size, ", ".join(steps) or "-", ", ".join(seconds) or "-"]
        rows.append([*row, f"{outcome.mean(name, TEST, 'psnr_db'):.2f}"])
    about = (
        "Milliseconds of processor time for a slice of 512 x 512, by the side of what they buy. Steps and "
        "seconds of training, a number a seed. RED-CNN denoises in bfloat16, all others in float32."
    )
    headings = ["method", "ms a slice", "parameters", "steps", "seconds", "PSNR dB, test slabs"]
    return f"## Price\n\n{about}\n\n{_table(headings, rows)}"


def _verdicts(outcome: Outcome) -> str:
    found = claims(outcome)
    lines = ["## What holds, and what does not"]
    figures = headline(outcome)
    if {"judge_drop_vs_l1", "psnr_minus_l1", "texture_ratio_to_ndct"} <= set(figures):
        drop, psnr = figures["judge_drop_vs_l1"], figures["psnr_minus_l1"]
        lines.append(
            f"On the test slabs of the sample patient, ALDEN's judge's distance is {abs(drop):.0%} "
            f"{'below' if drop > 0 else 'above'} that of L1 with the same first weights and time, its PSNR "
            f"{abs(psnr):.2f} dB {'above' if psnr > 0 else 'below'}, its texture "
            f"{figures['texture_ratio_to_ndct']:.2f} of the normal dose's. One patient: no test."
        )
    if "judge_drop_vs_blend" in figures:
        drop = figures["judge_drop_vs_blend"]
        lines.append(
            f"Against `blend`, its own start, which needs no training, ALDEN's distance is {abs(drop):.0%} "
            f"{'smaller' if drop > 0 else 'larger'} there: by the judge, that is what its training added. "
            f"Its texture is {outcome.mean('alden', TEST, 'texture'):.2f} of the normal dose's, `blend`'s "
            f"{outcome.mean('blend', TEST, 'texture'):.2f}."
        )
    if "excess_share_vs_l1" in figures:
        lines.append(_excess(figures["excess_share_vs_l1"]))
    if not found:
        return "\n\n".join([*lines, "Too few phantom patients for a test: nothing more can be said."])
    lines.append(
        "On phantom patients, ALDEN against each other method in four figures. A claim, or its opposite, "
        f"holds if p of an exact paired Wilcoxon test, adjusted for all {len(found)} (Holm), is below 0.05. "
        "Effect: matched-pairs rank-biserial correlation, 1 if ALDEN is better in every patient. Methods of "
        "`architecture` began from nothing, ALDEN from `l1`: what holds against them says little of losses. "
        "p speaks of other patients, not of other trainings: seeds are averaged first."
        + _between_seeds(outcome)
    )
    for verdict in VERDICTS:
        those = [f"- {one.text}: {one.evidence}" for one in found if one.verdict == verdict]
        lines.append(f"### {verdict.capitalize()}\n\n" + ("\n".join(those) or "None."))
    return "\n\n".join(lines)


def _between_seeds(outcome: Outcome) -> str:
    """By how much ALDEN's own seeds differ on phantoms; empty with fewer than two."""
    seeds = len(outcome.of("alden"))
    if seeds < 2:
        return ""
    psnr, judge, texture = (
        outcome.between_seeds("alden", PHANTOMS, figure) for figure in ("psnr_db", "judge", "texture_error")
    )
    return (
        f" ALDEN's {seeds} seeds differ by {psnr:.2f} dB, by {judge:.4f} at the judge's and by "
        f"{texture:.3f} in texture: differences of that size may be luck."
    )


def _excess(share: float) -> str:
    if share <= 0:
        return (
            "On phantoms ALDEN's distance is not above the floor, that of two normal-dose scans: the judge "
            "has no more to say there. Below the floor is no merit: a slice with less noise than normal dose "
            "has less to differ by."
        )
    return f"On phantoms ALDEN leaves {share:.0%} of L1's excess over the floor, two normal-dose scans."


def _cell(values: Mapping[str, float], form: str) -> str:
    if not values:
        return "-"
    mean = form.format(sum(values.values()) / len(values))
    found = patients_interval(values)
    return mean if found is None else f"{mean} [{form.format(found[0])}, {form.format(found[1])}]"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _values(outcome: Outcome, name: str, data: str, figure: str) -> Mapping[str, float]:
    """By patient; empty if the method has no such figure."""
    try:
        return outcome.by_patient(name, data, figure)
    except ValueError:
        return {}
