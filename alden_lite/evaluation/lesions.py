"""Does a denoiser erase lesions? Put one into a phantom, scan, denoise, look for it. Taught in chapter 09.

A picture without noise is worth nothing if the lesion went with it, and no figure of a whole slice would
tell: a lesion is a hundred pixels of a quarter million. So the same anatomy is scanned many times with a
known lesion and without, and an observer that knows what to look for must say which is which:

    scans = lesion_pairs(patient, lesion, scanner=scanner, dose=0.25, repeats=40, seed=0)
    quiet_present, quiet_absent = (denoise(hu, "l1") for hu in (scans.low_present, scans.low_absent))
    npw(quiet_present, quiet_absent, scans.signal).d_prime

The observer is a model: it sees one known place in one known anatomy, and has no search, memory or fatigue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage, stats

from alden_lite.evaluation.statistics import interval
from alden_lite.phantom import LABEL_ID, Lesion, Patient, Phantom, render
from alden_lite.physics.dose import simulate_pair
from alden_lite.physics.scanner import Scanner

__all__ = [
    "Detectability",
    "LesionScans",
    "contrast_recovered",
    "lesion_pairs",
    "npw",
    "place_lesion",
    "scan_pairs",
]

Pixels = np.ndarray | torch.Tensor


def place_lesion(
    patient: Patient,
    *,
    scanner: Scanner,
    diameter_mm: float,
    contrast_hu: float,
    region: str = "abdomen",
    organ: str = "liver",
    z_mm: float = 0.0,
) -> Lesion:
    """A lesion in the middle of the widest part of an organ, so much brighter or darker than the organ there.

    Args:
        scanner: its field of view is the slice's.
        diameter_mm: of the ball, above 0.
        contrast_hu: HU of the lesion less the organ's mean there; not 0.
        region, z_mm: the slice, as for `phantom.render`.
        organ: name of a phantom's label.

    Raises:
        ValueError: if the organ is not in the slice, or too narrow for the lesion, or the contrast is 0.
    """
    if contrast_hu == 0 or organ not in LABEL_ID:
        raise ValueError(f"needs a contrast other than 0, got {contrast_hu}, and a label, got {organ!r}")
    empty = _slice(patient, region, z_mm, scanner)
    depth = ndimage.distance_transform_edt(empty.labels.numpy() == LABEL_ID[organ]) * scanner.pixel_mm
    if depth.max() < diameter_mm / 2:
        raise ValueError(
            f"no room for {diameter_mm:g} mm in the {organ} at z = {z_mm:g} mm: its widest part holds "
            f"{2 * depth.max():.0f} mm"
        )
    aim = np.array(np.unravel_index(depth.argmax(), depth.shape), dtype=float)
    rows, columns = np.indices(depth.shape)
    around = np.hypot(rows - aim[0], columns - aim[1]) * scanner.pixel_mm < diameter_mm / 2
    hu = float(empty.hu.numpy()[around].mean()) + contrast_hu
    middle = (scanner.matrix - 1) / 2
    y, x = (aim - middle) * scanner.pixel_mm
    # The patient's warp moves a lesion with the organs by some mm: see where it lands, and aim off.
    trial = _slice(patient, region, z_mm, scanner, Lesion((x, y, z_mm), diameter_mm, hu + 1000))
    landed = np.array(ndimage.center_of_mass((trial.hu - empty.hu).numpy()))
    y, x = (2 * aim - landed - middle) * scanner.pixel_mm
    return Lesion((float(x), float(y), z_mm), diameter_mm, hu)


def _slice(patient: Patient, region: str, z_mm: float, scanner: Scanner, *lesions: Lesion) -> Phantom:
    """The slice that fills the scanner's field of view."""
    field_mm = scanner.matrix * scanner.pixel_mm
    return render(patient, region, z_mm=z_mm, matrix=scanner.matrix, field_mm=field_mm, lesions=lesions)


@dataclass(frozen=True)
class LesionScans:
    """Scans with a lesion and without: `low_*` and `normal_*` are (K, n, n) in HU, cut out around it.

    Noise differs in each of the 2K scans; low and normal dose of one scan are nested. `signal` (n, n) is the
    lesion as the scanner shows it: the noise-free reconstruction with it less that without.
    """

    low_present: torch.Tensor
    low_absent: torch.Tensor
    normal_present: torch.Tensor
    normal_absent: torch.Tensor
    signal: torch.Tensor
    pixel_mm: float


def lesion_pairs(
    patient: Patient,
    lesion: Lesion,
    *,
    scanner: Scanner,
    dose: float,
    repeats: int,
    seed: int,
    region: str = "abdomen",
    side: int = 128,
) -> LesionScans:
    """Scan a patient's slice through a lesion's centre, with the lesion and without.

    Arguments and errors as for `scan_pairs`, `phantom.render` and `place_lesion`.
    """
    z_mm = lesion.centre_mm[2]
    present, absent = (_slice(patient, region, z_mm, scanner, *those).hu for those in ([lesion], []))
    return scan_pairs(present, absent, scanner=scanner, dose=dose, repeats=repeats, seed=seed, side=side)


def scan_pairs(
    present: torch.Tensor,
    absent: torch.Tensor,
    *,
    scanner: Scanner,
    dose: float,
    repeats: int,
    seed: int,
    side: int = 128,
) -> LesionScans:
    """Scan two noise-free slices that differ by a lesion or a rod, each `repeats` times.

    Args:
        present, absent: (N, N) in HU, without noise.
        scanner, dose: as for `physics.simulate_pair`.
        repeats: scans of each, K.
        seed: same seed, same noise.
        side: pixels of the square that is cut out around the difference, at most N. It begins at a multiple
            of 8, so that a network with strides up to 8 sees in it what it sees in the slice; near its edge,
            about 40 pixels for the shipped networks, denoising differs a little.

    Raises:
        ValueError: if the slices are equal or of different shapes, no repeats, or a side that does not fit.
    """
    if present.shape != absent.shape or torch.equal(present, absent):
        raise ValueError(
            f"needs two different slices of one shape, got {tuple(present.shape)} and {tuple(absent.shape)}: "
            "is the lesion inside the slice?"
        )
    if repeats < 1 or not 8 <= side <= scanner.matrix:
        raise ValueError(f"repeats is 1 or more, side 8 to {scanner.matrix}, got {repeats} and {side}")
    centre = ndimage.center_of_mass((present - absent).abs().numpy())
    first = [int(np.clip(round((at - side / 2) / 8) * 8, 0, scanner.matrix - side)) for at in centre]
    box = tuple(slice(at, at + side) for at in first)
    seeds = np.random.SeedSequence(seed).generate_state(2 * repeats, np.uint64).reshape(2, repeats)
    pairs = [
        [simulate_pair(hu, scanner=scanner, dose=dose, seed=int(one)) for one in own]
        for hu, own in zip((present, absent), seeds, strict=True)
    ]
    (low_present, low_absent), (normal_present, normal_absent) = (
        [torch.stack([getattr(pair, name)[box] for pair in side_]) for side_ in pairs]
        for name in ("low", "normal")
    )
    with_it, without = (scanner.reconstruct(scanner.project(hu))[box] for hu in (present, absent))
    return LesionScans(
        low_present, low_absent, normal_present, normal_absent, with_it - without, scanner.pixel_mm
    )


@dataclass(frozen=True)
class Detectability:
    """How well an observer tells lesion from none: `d_prime` with its 95 % interval from `low` to `high`, and
    `auc`, the share of pairs of scans in which the one with the lesion looks more like it."""

    d_prime: float
    low: float
    high: float
    auc: float


def npw(present: Pixels, absent: Pixels, template: Pixels, *, seed: int = 0) -> Detectability:
    """The non-prewhitening observer: it lays the template over each scan, multiplies, and adds up.

    d' is the distance of its mean responses, in standard deviations. For white noise it is |signal| / sigma,
    the best that is possible; for noise of another spectrum less, as the observer does not know about the
    correlation. Give all methods the same template, the lesion before denoising: an observer that learned
    each method's picture of it would forgive blur.

    Args:
        present, absent: (K, Y, X) and (M, Y, X) in HU, of scans with independent noise.
        template: (Y, X), what to look for, such as `LesionScans.signal`; its scale does not matter.
        seed: of the bootstrap over scans, which gives the interval (BCa).

    Returns:
        Detectability. With K = M = 20 the estimate of d' is some 2 % too large on average.

    Raises:
        ValueError: on other shapes, fewer than 5 scans of either kind, NaN, or scans without noise.

    Source: Wagner & Brown, PMB 30:489 (1985); ICRU Report 54 (1996).
    """
    pattern = _finite(template)
    looks = []
    for scans in (present, absent):
        hu = _finite(scans)
        if pattern.ndim != 2 or hu.shape[1:] != pattern.shape or len(hu) < 5:
            raise ValueError(
                f"needs 5 or more scans (K, Y, X) and a template (Y, X), got {hu.shape} and {pattern.shape}"
            )
        looks.append(hu.reshape(len(hu), -1) @ pattern.ravel())
    seen, unseen = (look / np.abs(looks[1]).max() if np.abs(looks[1]).max() else look for look in looks)
    if _spread(seen, unseen) <= 1e-9:
        raise ValueError("all scans look the same: no noise, or a template of zeros; d' would be infinite")
    found = stats.bootstrap((seen, unseen), _d_prime, n_resamples=2000, rng=np.random.default_rng(seed))
    auc = stats.mannwhitneyu(seen, unseen).statistic / (len(seen) * len(unseen))
    low, high = found.confidence_interval
    return Detectability(float(_d_prime(seen, unseen)), float(low), float(high), float(auc))


def _spread(seen: np.ndarray, unseen: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.sqrt((seen.var(axis, ddof=1) + unseen.var(axis, ddof=1)) / 2)


def _d_prime(seen: np.ndarray, unseen: np.ndarray, axis: int = -1) -> np.ndarray:
    return (seen.mean(axis) - unseen.mean(axis)) / _spread(seen, unseen, axis)


def contrast_recovered(
    present: Pixels, absent: Pixels, signal: Pixels, *, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Share of a lesion's contrast that is left: mean of present less absent inside it, over the signal's.

    1 keeps it, 0 erases it. The lesion is where the signal is at least half its largest. A denoiser may keep
    the contrast and still hide the lesion under blotches: see `npw`.

    Args:
        present, absent: (K, Y, X) in HU, after denoising.
        signal: (Y, X) in HU, as `LesionScans.signal`.
        seed: of the bootstrap over the K pairs.

    Returns:
        The share, and its 95 % interval.

    Raises:
        ValueError: on different shapes, fewer than 3 scans, NaN, or a signal of zeros.
    """
    there, gone, lesion = _finite(present), _finite(absent), _finite(signal)
    if there.shape != gone.shape or there.shape[1:] != lesion.shape or lesion.ndim != 2:
        raise ValueError(f"shapes differ: {there.shape}, {gone.shape} and a signal {lesion.shape}")
    if not lesion.any():
        raise ValueError("the signal is zero everywhere: there is no lesion")
    inside = np.abs(lesion) >= np.abs(lesion).max() / 2
    shares = (there - gone)[:, inside].mean(1) / lesion[inside].mean()
    return float(shares.mean()), interval(shares.tolist(), seed=seed)


def _finite(values: Pixels) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("NaN or infinite HU: an observer sees nothing then")
    return array
