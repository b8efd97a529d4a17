"""Low-dose pairs from a CT volume, made once and kept on disk. Taught in chapter 08.

Low doses are simulated by inserting noise (`dose.insert_noise`). A `DoseProtocol` says how doses, photons and
kernels are drawn; the same seed gives the same pairs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from alden_lite.data import assets
from alden_lite.data.npz import read_npz, write_npz
from alden_lite.data.sample import development_slices, load_sample, split_slices
from alden_lite.data.volume import Volume, load_nifti
from alden_lite.physics.dose import insert_noise, photons_matching
from alden_lite.physics.hounsfield import LOWEST_HU
from alden_lite.physics.scanner import Scanner

__all__ = ["PROTOCOLS", "DoseProtocol", "Pairs", "as_stored", "change_kernel", "make_pairs", "training_pairs"]


@dataclass(frozen=True)
class DoseProtocol:
    """How low-dose scans are drawn: every range is (low, high), drawn log-uniformly by seed.

    Photons are matched to the slice: as many as give the scanner, at full dose, the noise that the slice
    already has, times `photon_factor`. So a quarter dose means a quarter of what *this* slice was taken with.
    """

    dose: tuple[float, float] = (0.25, 0.25)
    photon_factor: tuple[float, float] = (1.0, 1.0)
    cutoff_per_mm: tuple[float, float] = (0.70, 0.70)  # capped at what the slice's pixels carry
    kernels: tuple[str, ...] = ("hann",)
    sharpness: tuple[float, float] = (1.0, 1.0)  # see `change_kernel`; applied to the finished pair
    average: tuple[int, ...] = (1,)  # neighbouring slices averaged first: thicker slices
    repeats: int = 1  # scans of every slice


PROTOCOLS = {
    "course": DoseProtocol(),
    # Real scans come with many doses, kernels and thicknesses; the shipped generators have seen such.
    "wide": DoseProtocol(
        dose=(0.06, 0.5),
        photon_factor=(0.7, 1.4),
        cutoff_per_mm=(0.45, 0.71),
        kernels=("hann", "hann", "cosine", "ram-lak"),
        sharpness=(0.6, 4.0),
        average=(1, 1, 2),
        repeats=5,
    ),
}
"""How pairs are drawn, by name: `course` is a quarter of each slice's own dose, with the abdomen kernel."""


@dataclass(frozen=True)
class Pairs:
    """N paired slices: `low` and `normal` (N, Y, X) int16 in HU, `dose` (N,), `slices` (N,) indices in z."""

    low: np.ndarray
    normal: np.ndarray
    dose: np.ndarray
    slices: np.ndarray

    def __len__(self) -> int:
        return len(self.low)

    def sha256(self) -> str:
        """Fingerprint of all pixels, in hex."""
        content = hashlib.sha256(np.ascontiguousarray(self.low).data)
        content.update(np.ascontiguousarray(self.normal).data)
        return content.hexdigest()

    @classmethod
    def joined(cls, parts: Sequence[Pairs]) -> Pairs:
        """Several sets of pairs as one; slices must be of one size."""
        if len(sizes := {part.low.shape[1:] for part in parts}) != 1:
            raise ValueError(f"pairs of different sizes cannot be joined: {sorted(sizes)}")
        names = ("low", "normal", "dose", "slices")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def make_pairs(
    volume: Volume,
    slices: Sequence[int],
    *,
    protocol: DoseProtocol | None = None,
    seed: int = 0,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Pairs:
    """Low-dose scans of chosen slices, made once and then read from disk.

    Args:
        volume: the full-dose CT.
        slices: indices in z.
        protocol: doses, photons, kernels; a quarter dose with the abdomen kernel when None.
        seed: same seed, same noise.
        cache: folder for finished pairs; `pairs/` in the assets' cache when None.
        progress: show a progress bar.

    Returns:
        Pairs, `repeats` times the chosen slices, in whole HU from -1024 on, as scanners store them: noise in
        air is cut off there, so it brightens air.

    Raises:
        ValueError: on slices outside the volume, not square, or without soft tissue to read their noise from.
    """
    protocol = protocol or DoseProtocol()
    depth, height, width = volume.hu.shape
    if height != width:
        raise ValueError(f"slices are {height} x {width}: the scanner takes square ones, crop or pad first")
    if len(slices) == 0:
        raise ValueError("no slices chosen")
    outside = [z for z in slices if not 0 <= z < depth]
    if outside:
        raise ValueError(f"slices {outside} are outside the volume's {depth}")
    folder = Path(cache) if cache is not None else assets.cache_folder() / "pairs"
    file = folder / f"{_pairs_key(volume, slices, protocol, seed)}.npz"
    stored = read_npz(file, ("low", "normal", "dose", "slices"))
    if stored is None:
        jobs = [(z, repeat) for repeat in range(protocol.repeats) for z in slices]
        bar = tqdm(jobs, desc="low-dose scans", unit="slice", disable=not progress, leave=False)
        made = [_scan(volume, z, protocol, np.random.default_rng([seed, z, repeat])) for z, repeat in bar]
        low, normal, dose = (np.stack(column) for column in zip(*made, strict=True))
        stored = {"low": low, "normal": normal, "dose": dose, "slices": np.array([z for z, _ in jobs])}
        write_npz(file, **stored)
    return Pairs(**stored)


def _scan(
    volume: Volume, z: int, protocol: DoseProtocol, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    thick = int(rng.choice(protocol.average))
    first = min(max(z - thick // 2, 0), volume.hu.shape[0] - thick)
    hu = torch.from_numpy(volume.hu[first : first + thick].astype(np.float32).mean(0))
    size, pixel_mm = hu.shape[0], volume.spacing_mm[1]
    limit = Scanner.covering(size, pixel_mm).cutoff_per_mm
    cutoff = min(_log_uniform(rng, protocol.cutoff_per_mm), limit)
    kernel = str(rng.choice(protocol.kernels))
    scanner = Scanner.covering(size, pixel_mm, kernel=kernel, cutoff_per_mm=cutoff)
    try:
        matching = photons_matching(hu, scanner=scanner)
    except ValueError as error:
        raise ValueError(
            f"slice {z} of {volume.name} cannot be given a dose: {error}. Leave it out"
        ) from error
    photons = matching * _log_uniform(rng, protocol.photon_factor)
    dose = _log_uniform(rng, protocol.dose)
    seed = int(rng.integers(2**63))
    pair = insert_noise(hu, scanner=scanner, dose=dose, photons=photons, seed=seed)
    sharpness = _log_uniform(rng, protocol.sharpness)
    low, normal = (as_stored(change_kernel(scan, sharpness=sharpness)) for scan in (pair.low, pair.normal))
    return low, normal, dose


def change_kernel(hu: torch.Tensor, *, sharpness: float) -> torch.Tensor:
    """The slice as a sharper or softer reconstruction kernel would have shown it.

    FBP is linear, so another kernel is a filter of the slice: gain 1 at frequency 0, rising (or falling)
    with the square of the frequency to `sharpness` at the pixels' Nyquist frequency.

    Args:
        hu: (N, N) in HU.
        sharpness: gain at the Nyquist frequency, above 0; 1 changes nothing.
    """
    if sharpness == 1:
        return hu
    fy, fx = torch.fft.fftfreq(hu.shape[0])[:, None], torch.fft.rfftfreq(hu.shape[1])
    squared = ((fy**2 + fx**2) / 0.25).clamp(max=1)
    gain = 1 + (sharpness - 1) * squared
    return torch.fft.irfft2(torch.fft.rfft2(hu) * gain, s=hu.shape)


def training_pairs(protocol: str, volumes: Sequence[str | Path] = (), *, seed: int = 0) -> Pairs:
    """Pairs of the training slices of the sample volume and of further NIfTI volumes.

    Raises:
        ValueError: on an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}: choose from {sorted(PROTOCOLS)}")
    chosen = PROTOCOLS[protocol]
    parts = [make_pairs(load_sample(), split_slices("train"), protocol=chosen, seed=seed)]
    for path in volumes:
        volume = load_nifti(path)
        parts.append(make_pairs(volume, development_slices(volume, "train"), protocol=chosen, seed=seed))
    return Pairs.joined(parts)


def _log_uniform(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    low, high = ends
    if not 0 < low <= high:
        raise ValueError(f"a range needs 0 < low <= high, got {ends}")
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def as_stored(hu: torch.Tensor) -> np.ndarray:
    """Whole HU in int16, from -1024 on, as a scanner stores them."""
    return hu.round().clamp(LOWEST_HU, np.iinfo(np.int16).max).numpy().astype(np.int16)


def _pairs_key(volume: Volume, slices: Sequence[int], protocol: DoseProtocol, seed: int) -> str:
    """Name of a cache file: everything the pairs depend on, the pixels and this recipe's version included."""
    thickest = max(protocol.average)  # neighbours count too
    read = volume.hu[max(min(slices) - thickest, 0) : max(slices) + thickest]
    content = hashlib.sha256(np.ascontiguousarray(read).data)
    scanner = asdict(Scanner.covering(volume.hu.shape[1], volume.spacing_mm[1]))
    recipe = {"version": 3, "slices": list(slices), "seed": seed, "scanner": scanner, **asdict(protocol)}
    content.update(json.dumps(recipe, sort_keys=True).encode())
    return content.hexdigest()[:24]
