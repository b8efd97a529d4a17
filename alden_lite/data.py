"""From a CT volume to training pairs: the sample patient, its split, low-dose pairs, crops.

One patient is one patient. The sample volume is therefore split by slabs along z, with gaps, so that no
test slice has a training slice for a neighbour. Pairs are made by inserting noise (`scanner.insert_noise`)
and kept on disk; crops are drawn from them by seed. Taught in chapter 08.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from tqdm.auto import tqdm

from alden_lite import assets
from alden_lite.dicom import read_series
from alden_lite.hounsfield import AIR_HU
from alden_lite.npz import read_npz, write_npz
from alden_lite.scanner import Scanner, insert_noise

__all__ = [
    "GAP",
    "GAP_MM",
    "PROTOCOLS",
    "SPLIT",
    "DoseProtocol",
    "Pairs",
    "Volume",
    "as_stored",
    "change_kernel",
    "development_slices",
    "draw_crops",
    "load_nifti",
    "load_sample",
    "make_pairs",
    "own_noise_hu",
    "photons_matching",
    "read_image",
    "smooth_tissue",
    "split_slices",
    "training_pairs",
]

GAP = 5
"""Slices left out between two blocks of the split of the sample volume."""

GAP_MM = 12.5
"""The same in mm, for volumes of other spacing."""

SPLIT: dict[str, tuple[tuple[int, int], ...]] = {
    "train": ((0, 15), (35, 60), (77, 82), (102, 133)),
    "validation": ((65, 72),),
    "test": ((20, 30), (87, 97)),
}
"""Blocks of slices [first, last) of the sample volume, caudal to cranial. Fixed: numbers depend on it."""


@dataclass(frozen=True)
class Volume:
    """A CT volume: `hu` (Z, Y, X) int16 in HU, never below -1024; z runs caudal to cranial, y front to back,
    x from the patient's right to left (what a reading station shows). `labels` (Z, Y, X) uint8 or None."""

    name: str
    hu: np.ndarray
    spacing_mm: tuple[float, float, float]  # z, y, x
    labels: np.ndarray | None = None


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


def split_slices(part: str) -> list[int]:
    """Slice numbers of the sample volume in one part of the split.

    Raises:
        ValueError: on a part other than train, validation, test.

    >>> len(split_slices("test"))
    20
    """
    if part not in SPLIT:
        raise ValueError(f"unknown part {part!r}: choose from {sorted(SPLIT)}")
    return [z for first, last in SPLIT[part] for z in range(first, last)]


def development_slices(volume: Volume, part: str) -> list[int]:
    """Slice numbers of a development patient in one part of its split, "train" or "validation".

    The middle tenth is for validation; what is nearer to it than `GAP_MM` belongs to neither.

    Raises:
        ValueError: on another part.

    >>> volume = Volume("patient", np.zeros((50, 2, 2), dtype=np.int16), (5.0, 0.7, 0.7))
    >>> development_slices(volume, "validation"), len(development_slices(volume, "train"))
    ([22, 23, 24, 25, 26], 39)
    """
    depth = len(volume.hu)
    count = max(depth // 10, 1)
    first = (depth - count) // 2
    validation = range(first, first + count)
    if part == "validation":
        return list(validation)
    if part != "train":
        raise ValueError(f"unknown part {part!r} of a development patient: choose train or validation")
    gap = math.ceil(GAP_MM / volume.spacing_mm[0])
    near = range(first - gap, first + count + gap)
    return [z for z in range(depth) if z not in near]


def load_sample() -> Volume:
    """The sample patient, LIDC-IDRI-0001: 133 slices of 512 x 512 with TotalSegmentator's organ labels.

    Raises:
        assets.AssetError: if the files are not in the cache (see `python -m alden_lite assets`).
    """
    volume = load_nifti(assets.path("ct"), labels=assets.path("ct_labels"))
    return Volume("LIDC-IDRI-0001", volume.hu, volume.spacing_mm, volume.labels)


def load_nifti(path: str | Path, *, labels: str | Path | None = None) -> Volume:
    """Read a NIfTI file of HU, turned to the orientation that a reading station shows.

    Args:
        path: .nii or .nii.gz, 3-D, HU. A DICOM file or folder will do too (see `dicom.read_series`).
        labels: a NIfTI file of label ids on the same grid.

    Returns:
        Volume; padding below -1024 HU is clipped to -1024.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated or not 3-D, NaN, or labels on another grid.
    """
    hu, spacing = _read_nifti(Path(path))
    if not np.isfinite(hu).all():
        raise ValueError(f"{path} holds NaN or infinite values: a CT volume must be HU everywhere")
    label_map = None
    if labels is not None:
        values, _ = _read_nifti(Path(labels))
        if values.shape != hu.shape:
            raise ValueError(f"{labels} has shape {values.shape}, the CT {hu.shape}: not the same grid")
        label_map = values.astype(np.uint8)
    clipped = np.clip(np.round(hu), AIR_HU, np.iinfo(np.int16).max).astype(np.int16)
    return Volume(Path(path).name.split(".")[0], clipped, spacing, label_map)


def read_image(path: Path) -> Any:
    """A CT as a NIfTI image, wholly read: gzip's checksum is compared, which nibabel does not.

    Args:
        path: a .nii or .nii.gz file; a folder, or a file of another name, is read as DICOM.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged, or no NIfTI; `dicom.DicomError` if it is no DICOM either.
    """
    import nibabel

    if path.is_dir() or not path.name.lower().endswith((".nii", ".nii.gz")):
        return _from_dicom(path)
    if not path.exists():
        raise FileNotFoundError(f"no NIfTI file at {path}")
    broken = (
        *(EOFError, OSError, ValueError, zlib.error),
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
        nibabel.wrapstruct.WrapStructError,
    )
    try:
        raw = path.read_bytes()
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(raw) if path.suffix == ".gz" else raw)
        image.get_fdata(dtype=np.float32, caching="unchanged")  # are all voxels there?
    except broken as error:
        raise ValueError(f"{path} is not a complete NIfTI file ({error}): fetch or copy it again") from error
    return image


def _from_dicom(path: Path) -> Any:
    """A DICOM series as a NIfTI image of int16 HU, in its place in the patient."""
    import nibabel

    series = read_series(path)
    image: Any = nibabel.Nifti1Image(series.hu.T, series.affine)
    image.header.set_xyzt_units("mm")
    return image


def _read_nifti(path: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Voxels as (Z, Y, X), feet first, and spacing in mm."""
    import nibabel

    image: Any = nibabel.as_closest_canonical(read_image(path))  # x to the right, y to the front, z up
    voxels = np.asanyarray(image.dataobj)
    if voxels.ndim != 3:
        raise ValueError(f"{path} has {voxels.ndim} dimensions, a CT volume has 3")
    dx, dy, dz = (float(size) for size in image.header.get_zooms()[:3])
    return np.ascontiguousarray(voxels.T[:, ::-1, ::-1]), (dz, dy, dx)


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


def own_noise_hu(hu: torch.Tensor, *, tissue: torch.Tensor | None = None) -> float:
    """Noise of a slice in HU: spread of what a 5 x 5 mean leaves over in soft tissue, away from edges.

    Args:
        hu: (Y, X) in HU.
        tissue: (Y, X) bool, where to look; `smooth_tissue` of the slice itself when None.

    Returns:
        Robust standard deviation (1.4826 x median absolute deviation) in HU.

    Raises:
        ValueError: if there is next to no tissue to look at.
    """
    where = smooth_tissue(hu) if tissue is None else tissue
    if where.sum() < 500:
        raise ValueError("the slice has too little soft tissue (-50 to 150 HU) to read its noise from")
    values = hu.numpy().astype(np.float32)
    rest = values - ndimage.uniform_filter(values, 5)
    return float(1.4826 * np.median(np.abs(rest[where.numpy()])))


def photons_matching(hu: torch.Tensor, *, scanner: Scanner) -> float:
    """Photons a ray at which this scanner's full-dose noise equals the noise the slice already has.

    Noise inserted for half the dose has the variance of a full-dose scan but for the electronics' part (about
    2 % on the sample), and falls as 1/sqrt(photons).

    Args:
        hu: (N, N) in HU, a real slice.
        scanner: geometry and kernel; its `photons` is the starting point.
    """
    half = insert_noise(hu, scanner=scanner, dose=0.5, seed=0)
    tissue = smooth_tissue(hu)
    own = own_noise_hu(hu, tissue=tissue)
    if own == 0:
        raise ValueError("the slice has no noise of its own: scan it with `scanner.simulate_pair`")
    return float(scanner.photons * (own_noise_hu(half.low - half.normal, tissue=tissue) / own) ** 2)


def smooth_tissue(hu: torch.Tensor) -> torch.Tensor:
    """Pixels whose 9 x 9 surroundings average to soft tissue (-50 to 150 HU) and hold no edge.

    Args:
        hu: (Y, X) in HU.

    Returns:
        (Y, X) bool.
    """
    values = hu.numpy().astype(np.float32)
    mean = ndimage.uniform_filter(values, 9)
    steep = ndimage.gaussian_gradient_magnitude(values, 3) > 8  # HU a pixel
    return torch.from_numpy((mean > -50) & (mean < 150) & ~steep)


def draw_crops(
    pairs: Pairs,
    *,
    count: int,
    size: int,
    seed: int | Sequence[int],
    augment: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops of the same places in low- and normal-dose slices, turned and mirrored alike.

    Crops are drawn uniformly, but one that is mostly air is drawn again (up to ten times).

    Args:
        pairs: paired slices.
        count: number of crops B.
        size: side S in pixels.
        seed: same seed, same crops.
        augment: quarter turns and mirror images.

    Returns:
        `(low, normal)`, each (B, 1, S, S) float32 in HU.

    Raises:
        ValueError: if a crop does not fit into a slice, or there are no slices.
    """
    if len(pairs) == 0:
        raise ValueError("no slices to draw crops from")
    height, width = pairs.low.shape[1:]
    if not 0 < size <= min(height, width):
        raise ValueError(f"a crop of {size} x {size} does not fit into a slice of {height} x {width}")
    rng = np.random.default_rng(seed)
    crops = np.stack([_one_crop(pairs, size, rng, augment) for _ in range(count)])  # (B, 2, S, S)
    low, normal = torch.from_numpy(crops.astype(np.float32)).unsqueeze(2).unbind(1)
    return low, normal


def _one_crop(pairs: Pairs, size: int, rng: np.random.Generator, augment: bool) -> np.ndarray:
    height, width = pairs.low.shape[1:]
    for _ in range(10):
        n, y, x = (int(rng.integers(end)) for end in (len(pairs), height - size + 1, width - size + 1))
        place = (n, slice(y, y + size), slice(x, x + size))
        if (pairs.normal[place][::4, ::4] > -500).mean() > 0.25:
            break
    both = np.stack([pairs.low[place], pairs.normal[place]])
    if augment:
        both = np.rot90(both, int(rng.integers(4)), axes=(1, 2))
        both = both[:, :, ::-1] if rng.integers(2) else both
    return both


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
    return hu.round().clamp(AIR_HU, np.iinfo(np.int16).max).numpy().astype(np.int16)


def _pairs_key(volume: Volume, slices: Sequence[int], protocol: DoseProtocol, seed: int) -> str:
    """Name of a cache file: everything the pairs depend on, the pixels and this recipe's version included."""
    thickest = max(protocol.average)  # neighbours count too
    read = volume.hu[max(min(slices) - thickest, 0) : max(slices) + thickest]
    content = hashlib.sha256(np.ascontiguousarray(read).data)
    scanner = asdict(Scanner.covering(volume.hu.shape[1], volume.spacing_mm[1]))
    recipe = {"version": 3, "slices": list(slices), "seed": seed, "scanner": scanner, **asdict(protocol)}
    content.update(json.dumps(recipe, sort_keys=True).encode())
    return content.hexdigest()[:24]
