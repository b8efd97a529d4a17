"""Fetch the three CT series that the shipped generators were trained and tested on beside the sample patient.

    python data_scripts/development_patients.py --dry-run
    python data_scripts/development_patients.py --out runs/development_patients

Each series comes from the NCI Imaging Data Commons (IDC) as DICOM, 165 MB in all, without a login. It becomes
one NIfTI file of int16 HU, as `alden_lite.data.load_nifti` reads it, with voxels of a known SHA-256. The
course does not need these files: they are for training the generators again, and for testing them on the
chest, which was never trained on. Not for clinical use.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "SERIES",
    "DataError",
    "Series",
    "download_from_idc",
    "fetch",
    "find_series",
    "read_series",
    "write_nifti",
]


class DataError(RuntimeError):
    """A series is missing, incomplete, or not what it should be; the message says which and why."""


@dataclass(frozen=True)
class Series:
    """One CT series of the IDC, and the volume that is made of it.

    `slices` and `megabytes` are those of the DICOM series; of its slices every `every`-th is kept, beginning
    with the lowest. `sha256` is that of the voxels as `load_nifti` gives them, little-endian int16.
    """

    name: str
    patient: str
    collection: str
    uid: str
    slices: int
    every: int
    megabytes: float
    licence: str
    doi: str
    sha256: str

    @property
    def filename(self) -> str:
        """Name of its NIfTI file."""
        return f"{self.name}.nii.gz"


SERIES = (
    Series(
        name="chest_C3N-00249_siemens",
        patient="C3N-00249",
        collection="cptac_pda",
        uid="1.3.6.1.4.1.14519.5.2.1.7085.2626.176520109931701354483419993926",
        slices=102,
        every=1,
        megabytes=53.9,
        licence="CC BY 4.0",
        doi="10.7937/K9/TCIA.2018.SC20FO18",
        sha256="53df260f0fc22213856639e96cd8a3731670a7d870c780959f0d4754155f0b3f",
    ),
    Series(
        name="abdomen_CRLM-CT-1006_ge",
        patient="CRLM-CT-1006",
        collection="colorectal_liver_metastases",
        uid="1.3.6.1.4.1.14519.5.2.1.9203.8273.286130801613533577338339572281",
        slices=51,
        every=1,
        megabytes=26.9,
        licence="CC BY 4.0",
        doi="10.7937/QXK2-QG03",
        sha256="5e07725de8517284e7a43c59761730417ade08ddc7d0cb4141d553bce6ebe929",
    ),
    Series(
        name="abdopelvis_TCGA-09-2043_toshiba",
        patient="TCGA-09-2043",
        collection="tcga_ov",
        uid="1.3.6.1.4.1.14519.5.2.1.7695.4007.126563852233915063519077303364",
        slices=160,
        every=2,
        megabytes=84.5,
        licence="CC BY 3.0",
        doi="10.7937/K9/TCIA.2016.NDO1MDFQ",
        sha256="bff5958a8fbee4d477e1d009766b271103458329c6e9cc3f7ca09ce61a584e52",
    ),
)
"""The development patients. Slices, sizes and licences are those that version 25 of the IDC lists."""

_SAME_EVERYWHERE = {  # DICOM's name: ours
    "Rows": "rows",
    "Columns": "columns",
    "PixelSpacing": "pixel spacing",
    "ImageOrientationPatient": "orientation",
}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM counts to the left and back, NIfTI right and front


# The course of events --------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch, convert and verify what is missing; returns 0, or 1 if a series could not be had."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/development_patients"), help="folder (default: %(default)s)"
    )
    parser.add_argument(
        "--from-dicom", type=Path, metavar="FOLDER", help="convert files that lie here, download nothing"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be fetched, and stop")
    options = parser.parse_args(argv)
    if options.dry_run:
        print("\n\n".join(_entry(series, options.out) for series in SERIES))
        print(f"\n{sum(series.megabytes for series in SERIES):.0f} MB of DICOM in all. Nothing was fetched.")
        return 0
    try:
        fetch(SERIES, options.out, dicom=options.from_dicom)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def download_from_idc(uids: Sequence[str], folder: Path) -> None:
    """Bring series from the IDC into a folder, with the IDC's own client.

    Raises:
        DataError: if the client is not installed, or says that it failed.
    """
    try:
        client = importlib.import_module("idc_index").IDCClient.client()
    except ImportError as error:
        raise DataError(
            f"downloading needs the package idc-index ({error}). Install it with\n"
            "    pip install -e '.[data]'\n"
            "or give a folder of DICOM files that you have: --from-dicom FOLDER"
        ) from error
    try:
        client.download_from_selection(downloadDir=str(folder), seriesInstanceUID=list(uids))
    except Exception as error:  # whatever its index, its network or its disk did
        raise DataError(f"the client of the Imaging Data Commons failed: {error}") from error


def fetch(
    wanted: Sequence[Series],
    out: Path,
    *,
    dicom: Path | None = None,
    download: Callable[[Sequence[str], Path], None] = download_from_idc,
) -> list[Path]:
    """Leave a verified NIfTI file of each series in a folder; files that are right already stay.

    Args:
        wanted: the series.
        out: folder for the NIfTI files; made if missing.
        dicom: folder of DICOM files to convert instead of downloading any.
        download: brings the series with these UIDs into a folder.

    Raises:
        DataError: if a series is not there, cannot be converted, or has other voxels. The series before it
            are kept, and of the failed one nothing is written.
    """
    out.mkdir(parents=True, exist_ok=True)
    missing = [series for series in wanted if not _is_right(series, out / series.filename)]
    if missing and dicom is not None:
        _convert(missing, dicom, out)
    elif missing:
        with tempfile.TemporaryDirectory(dir=out, prefix=".dicom-") as folder:
            download([series.uid for series in missing], Path(folder))
            _convert(missing, Path(folder), out)
    files = [out / series.filename for series in wanted]
    for file in files:
        print(f"ready: {file}")
    return files


def _convert(wanted: Sequence[Series], dicom: Path, out: Path) -> None:
    """DICOM files somewhere below a folder to verified NIfTI files."""
    found = find_series(dicom)
    for series in wanted:
        files = found.get(series.uid, [])
        if len(files) != series.slices:
            raise DataError(
                f"{dicom} holds {len(files)} of the {series.slices} slices of {series.patient}, "
                f"series {series.uid}"
            )
        hu, affine = read_series(files)
        affine[:, 2] *= series.every
        _write_verified(series, hu[:: series.every], affine, out / series.filename)


def _write_verified(series: Series, hu: np.ndarray, affine: np.ndarray, file: Path) -> None:
    """Write under another name, read back as the course does, compare, and only then rename."""
    part = file.with_name(f".part-{uuid.uuid4().hex}-{file.name}")
    try:
        write_nifti(part, hu, affine)
        digest = _voxel_sha256(part)
        if digest != series.sha256:
            raise DataError(
                f"{series.patient} has voxels of SHA-256 {digest} instead of {series.sha256}: the series was "
                "revised, or these are other files. Nothing was written."
            )
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def _is_right(series: Series, file: Path) -> bool:
    """Is there a file with just these voxels?"""
    if not file.exists():
        return False
    try:
        return _voxel_sha256(file) == series.sha256
    except ValueError:  # damaged
        return False


def _voxel_sha256(file: Path) -> str:
    from alden_lite.data.volume import load_nifti

    return hashlib.sha256(load_nifti(file).hu.astype("<i2").tobytes()).hexdigest()


def _entry(series: Series, out: Path) -> str:
    kept = len(range(0, series.slices, series.every))
    return (
        f"{series.patient} of {series.collection}\n"
        f"  series   {series.uid}\n"
        f"  DICOM    {series.slices} slices, {series.megabytes:.1f} MB; {kept} slices are kept\n"
        f"  licence  {series.licence}, https://doi.org/{series.doi}\n"
        f"  to       {out / series.filename}"
    )


# DICOM to NIfTI --------------------------------------------------------------------------------------------


def find_series(folder: Path) -> dict[str, list[Path]]:
    """DICOM files in a folder and all folders below it, by their series; other files are passed over.

    Raises:
        DataError: if there is no such folder.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    found: dict[str, list[Path]] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        except InvalidDicomError:
            continue  # a licence, a manifest
        found.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(file)
    return found


def read_series(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """One CT series in HU, and where it lies.

    Args:
        files: its slices, in any order: they are sorted by ImagePositionPatient.

    Returns:
        `(hu, affine)`: int16 (slices, rows, columns) in HU by the header's rescale, not clipped; and the
        4 x 4 matrix from (column, row, slice) to millimetres to the right, front and head, as NIfTI has it.

    Raises:
        DataError: for anything but one stack of parallel, evenly spaced CT slices of one size; the message
            says what is wrong.
    """
    import pydicom

    slices = [pydicom.dcmread(file) for file in files]
    if len(slices) < 2:
        raise DataError(f"a volume needs two slices or more, got {len(slices)}")
    for one in slices:
        _refuse_other_than_ct(one)
    for attribute, name in _SAME_EVERYWHERE.items():
        if len(values := {tuple(_numbers(one, attribute).round(4)) for one in slices}) > 1:
            shown = " and ".join(", ".join(f"{v:g}" for v in value) for value in sorted(values)[:3])
            raise DataError(f"the series mixes slices of different {name}: {shown}")
    row, column = _numbers(slices[0], "ImageOrientationPatient").reshape(2, 3)
    normal = np.cross(row, column)
    slices.sort(key=lambda one: float(_position(one) @ normal))
    step = _step(np.array([_position(one) for one in slices]), normal)
    between_rows, between_columns = _numbers(slices[0], "PixelSpacing")
    affine = np.eye(4)
    affine[:3] = np.stack([row * between_columns, column * between_rows, step, _position(slices[0])], axis=1)
    return np.stack([_hu(one) for one in slices]), _LPS_TO_RAS @ affine


def write_nifti(file: Path, hu: np.ndarray, affine: np.ndarray) -> None:
    """Write int16 HU (slices, rows, columns) and the affine of `read_series` as .nii or .nii.gz."""
    import nibabel

    image = nibabel.Nifti1Image(hu.transpose(2, 1, 0), affine)  # (columns, rows, slices)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, file)


def _refuse_other_than_ct(one: Any) -> None:
    """Raise unless this is an axial (or other) CT slice with a place, a size and a rescale."""
    name = Path(one.filename).name
    if one.get("Modality") != "CT":
        raise DataError(f"{name} is of modality {one.get('Modality')}, not CT")
    if "LOCALIZER" in str(one.get("ImageType")).upper():
        raise DataError(f"{name} is a localiser (scout view), not a slice")
    needed = [*_SAME_EVERYWHERE, "ImagePositionPatient", "RescaleSlope", "RescaleIntercept", "PixelData"]
    if lacking := [attribute for attribute in needed if one.get(attribute) in (None, "")]:
        raise DataError(f"{name} has no {', '.join(lacking)}: it is not a plain CT slice")


def _numbers(one: Any, attribute: str) -> np.ndarray:
    return np.atleast_1d(np.asarray(one.get(attribute), dtype=float))


def _position(one: Any) -> np.ndarray:
    """Centre of the first pixel, in mm to the patient's left, back and head."""
    return _numbers(one, "ImagePositionPatient")


def _step(positions: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """From one slice to the next in mm, (3,); the positions (slices, 3) are in order along the normal."""
    along = positions @ normal
    gaps = np.diff(along)
    narrowest, widest = int(gaps.argmin()), int(gaps.argmax())
    if gaps[narrowest] < 0.01:
        raise DataError(f"two slices lie at the same place, {along[narrowest]:g} mm")
    if gaps[widest] > 1.5 * gaps[narrowest]:
        raise DataError(
            f"slices are missing between {along[widest]:g} and {along[widest + 1]:g} mm: "
            f"others are {gaps[narrowest]:g} mm apart"
        )
    if np.abs(along - np.linspace(along[0], along[-1], len(along))).max() > 0.1:
        raise DataError(f"slices are unevenly spaced: {gaps.min():g} to {gaps.max():g} mm")
    whole = positions[-1] - positions[0]
    sideways = float(np.linalg.norm(whole - (whole @ normal) * normal))
    if sideways > 0.5:
        raise DataError(f"the slices slide sideways by {sideways:.1f} mm, as with a tilted gantry")
    step: np.ndarray = whole / (len(positions) - 1)
    return step


def _hu(one: Any) -> np.ndarray:
    """A slice's stored values in HU, int16."""
    name = Path(one.filename).name
    try:
        stored = one.pixel_array
    except Exception as error:  # each of pydicom's decoders has its own
        raise DataError(f"the pixels of {name} cannot be read: {error}") from error
    hu = np.rint(stored * float(one.RescaleSlope) + float(one.RescaleIntercept))
    limits = np.iinfo(np.int16)
    if hu.min() < limits.min or hu.max() > limits.max:
        raise DataError(f"{name} has {hu.min():g} to {hu.max():g} HU, beyond 16 bits")
    return hu.astype(np.int16)


if __name__ == "__main__":
    sys.exit(main())
