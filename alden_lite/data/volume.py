"""A CT volume in HU, from NIfTI or DICOM, turned to the orientation that a reading station shows."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alden_lite.data.dicom.series import read_series
from alden_lite.physics.hounsfield import LOWEST_HU

__all__ = ["Volume", "load_nifti", "read_image"]


@dataclass(frozen=True)
class Volume:
    """A CT volume: `hu` (Z, Y, X) int16 in HU, never below -1024; z runs caudal to cranial, y front to back,
    x from the patient's right to left (what a reading station shows). `labels` (Z, Y, X) uint8 or None."""

    name: str
    hu: np.ndarray
    spacing_mm: tuple[float, float, float]  # z, y, x
    labels: np.ndarray | None = None


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
    clipped = np.clip(np.round(hu), LOWEST_HU, np.iinfo(np.int16).max).astype(np.int16)
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
