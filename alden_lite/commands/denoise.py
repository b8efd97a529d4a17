"""`alden-lite denoise`: a NIfTI file or a DICOM series through a trained generator. Not for clinical use."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from alden_lite.alden.denoising import denoise, load_generator
from alden_lite.data.dicom.series import read_series
from alden_lite.data.dicom.write import write_derived
from alden_lite.data.volume import read_image
from alden_lite.engine.checkpoint import file_sha256, weights_path
from alden_lite.physics.hounsfield import LOWEST_HU, PADDING_BELOW_HU

_PLACE = (
    *("pixdim", "xyzt_units", "qform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "sform_code", "srow_x", "srow_y", "srow_z"),
)
"""Fields of a NIfTI header that say where its voxels lie: all that is taken from one."""


def main(argv: list[str] | None = None) -> int:
    """`alden-lite denoise`: denoise NIfTI or DICOM, in HU. Not for clinical use."""
    began = time.perf_counter()
    options = _parser().parse_args(argv)
    source, target = options.input, options.output
    _check_places(source, target)
    network = load_generator(options.generator)
    how = _Method(network, _label(options.generator), options.precision)
    denoise_file = _denoise_nifti if _is_nifti(source) and not source.is_dir() else _denoise_dicom
    n_slices, seconds = denoise_file(source, target, how, options.series)
    print(
        f"{n_slices} {'slice' if n_slices == 1 else 'slices'}, {1000 * seconds / n_slices:.0f} ms a slice, "
        f"{time.perf_counter() - began:.1f} s in all; generator {how.name}, {how.precision}. "
        "Not for clinical use."
    )
    return 0


@dataclass(frozen=True)
class _Method:
    """What denoises: the network, what to call it, and the precision it works in."""

    network: nn.Module
    name: str
    precision: str

    def __str__(self) -> str:
        return f"denoised by alden_lite {version('alden-lite')}, generator {self.name}, {self.precision}"

    def whole_hu(self, hu: np.ndarray) -> tuple[np.ndarray, float]:
        """Denoised HU as scanners store them, int16 from -1024 on, padding as it came; and the seconds."""
        began = time.perf_counter()
        quiet = denoise(hu, self.network, precision=self.precision)
        seconds = time.perf_counter() - began
        limits = np.iinfo(np.int16)
        kept = np.where(hu < PADDING_BELOW_HU, hu, np.maximum(quiet, LOWEST_HU))
        return np.round(kept).clip(limits.min, limits.max).astype(np.int16), seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="alden-lite denoise", description=main.__doc__)
    parser.add_argument("input", type=Path, help="CT in HU: .nii, .nii.gz, or a DICOM file or folder")
    parser.add_argument(
        "output",
        type=Path,
        help="what to write: .nii or .nii.gz, or of DICOM a folder for a new, de-identified series; "
        "must not exist yet",
    )
    parser.add_argument("--generator", default="alden", help="alden, l1 or a .safetensors file")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="bfloat16 is faster where the processor has units for it",
    )
    parser.add_argument("--series", metavar="UID", help="which series of a DICOM folder that holds several")
    return parser


def _label(generator: str) -> str:
    """A generator in words that may be published: its name, or of a file its content, not its place."""
    if not generator.endswith(".safetensors"):
        return generator
    return f"of a file with SHA-256 {file_sha256(weights_path(generator))[:16]}"


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def _check_places(source: Path, target: Path) -> None:
    """Raise unless the source is there and the target is a place to write to."""
    if not source.exists():
        raise FileNotFoundError(f"no file or folder at {source}")
    if target.exists() or target.is_symlink():
        raise ValueError(f"{target} exists already: choose another name")
    if target.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{target} lies inside {source}, which would change it: choose a place outside")
    if not _is_nifti(target):
        if _is_nifti(source) and not source.is_dir():
            raise ValueError(
                f"{target} must end in .nii or .nii.gz: DICOM is written of DICOM only, since a NIfTI file "
                "does not say how the CT was taken"
            )
        if target.suffix:
            raise ValueError(
                f"{target} must end in .nii or .nii.gz, or for DICOM be the name of a folder, without a dot"
            )
    if not target.parent.is_dir():
        raise ValueError(f"{target} must lie in a folder that exists: there is no {target.parent}")


def _denoise_dicom(source: Path, target: Path, how: _Method, series: str | None) -> tuple[int, float]:
    """Number of slices, and seconds that denoising them took."""
    import nibabel

    scan = read_series(source, series=series)
    # The reader makes air of padding; the network shall see which is which.
    stored, seconds = how.whole_hu(np.where(scan.padding, 2 * LOWEST_HU, scan.hu))
    stored = np.maximum(stored, np.int16(LOWEST_HU))
    if _is_nifti(target):
        image: Any = nibabel.Nifti1Image(stored.T, scan.affine)
        image.header.set_xyzt_units("mm")
        _save(image, target)
    else:
        write_derived(target, stored, scan, how=str(how))
    return scan.n_slices, seconds


def _denoise_nifti(source: Path, target: Path, how: _Method, series: str | None) -> tuple[int, float]:
    """Number of slices, and seconds that denoising them took."""
    import nibabel

    if series is not None:
        raise ValueError(f"{source} is NIfTI, which has no series to choose from: leave --series out")
    image: Any = read_image(source)
    if image.ndim not in (2, 3) or nibabel.io_orientation(image.affine)[2, 0] != 2:
        raise ValueError(
            f"{source} is {image.ndim}-D, {image.shape}: it must be a slice or a 3-D volume, with axial "
            "slices along its third axis"
        )
    voxels = np.asanyarray(image.dataobj)  # (X, Y, Z) or (X, Y)
    _check_hu(voxels, source)
    # The generators have seen quarter turns and mirror images: no need to turn it upright.
    stored, seconds = how.whole_hu(voxels.T)
    _save(nibabel.Nifti1Image(stored.T, image.affine, header=_place(image.header)), target)
    return 1 if image.ndim == 2 else image.shape[2], seconds


def _place(header: Any) -> Any:
    """A new NIfTI header with the place of another's voxels, without its texts, whose patient may be named.

    Extensions hold whole DICOM headers; db_name, aux_file, intent_name and descrip whatever someone wrote.
    """
    import nibabel

    place: Any = nibabel.Nifti1Header()
    place.set_data_dtype(np.int16)
    for name in _PLACE:
        place[name] = header[name]
    return place


def _check_hu(voxels: np.ndarray, source: Path) -> None:
    """Raise if these can't be HU: colours, labels, grey levels. An MR in whole numbers passes."""
    if voxels.dtype.kind not in "iuf" or voxels.dtype == np.uint8:
        raise ValueError(f"{source} holds {voxels.dtype}, not HU: colours, labels or grey levels")
    if voxels.dtype.kind == "f" and voxels.size and 0 <= voxels.min() < voxels.max() <= 1:
        raise ValueError(f"{source} holds values from 0 to 1, not HU: undo the scaling first")


def _save(image: Any, target: Path) -> None:
    """Write a NIfTI file whole or not at all."""
    import nibabel

    image.header["descrip"] = b"alden_lite denoised; not for clinical use"
    part = target.with_name(f".part-{target.name}")
    try:
        nibabel.save(image, part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
