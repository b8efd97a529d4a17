"""A CT series into DICOM again: new HU in the place of those that were read, and nobody's name.

A derived series must not pass for the scanner's own, nor carry the patient along. So no file is copied and
cleaned: each is built anew, and of the source takes only the tags listed here (a list of what to leave out
would miss what nobody thought of, as private tags). Every UID is new and random: it leads back to nothing.
Not for clinical use, and every file says so. Used by `python -m alden_lite denoise`.

The header is all that is looked at: a face can be seen in a head's pixels, and a name burned into them. A
file says that it has no identity (PatientIdentityRemoved, which speaks of pixels too) and no text in its
pixels (BurnedInAnnotation) only if all of its source's headers deny such text.

Source: DICOM PS3.3, A.3 and C.8.2.1 (CT image), C.7.6.1 (general image), C.7.1.1 (patient); PS3.15, E
(de-identification).
"""

from __future__ import annotations

import contextlib
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from alden_lite.data.dicom.series import Series, read_series
from alden_lite.physics.hounsfield import LOWEST_HU

__all__ = ["COPIED", "write_derived"]

COPIED = (
    *("Manufacturer", "ManufacturerModelName", "PatientPosition"),
    *("KVP", "Exposure", "ExposureInuAs", "ConvolutionKernel", "GantryDetectorTilt", "SliceThickness"),
    *("WindowCenter", "WindowWidth", "LossyImageCompression"),
)
"""Keywords of what is copied from each slice: how it was taken and is shown, nothing about whom it shows."""

_EMPTY = (
    *("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName"),
    *("PatientBirthDate", "PatientSex", "PositionReferenceIndicator", "AcquisitionNumber"),
    *("Manufacturer", "PatientPosition", "KVP", "SliceThickness"),  # those of `COPIED` a CT must have
)
"""Keywords that a CT must have, though they may be empty; filled where `COPIED` has them."""


def write_derived(folder: str | Path, hu: np.ndarray, source: Series, *, how: str) -> None:
    """Write HU as a new CT series in DICOM, de-identified, one file a slice, and read it back.

    The slices lie where the source's do, upright (rows from the patient's right to left, columns from front
    to back) and numbered from caudal to cranial, however the source was stored. The pixels are HU as they
    are: int16, slope 1, intercept 0. ImageType is DERIVED, SeriesDescription says what it is and that it is
    not for clinical use, PatientName and PatientID are ANONYMOUS; there are no dates, institutions or private
    tags. BurnedInAnnotation is NO and PatientIdentityRemoved YES if the source says for every slice that
    nothing is burned into it; else both are left out, since nobody knows. Only a whole series gets its name:
    until then it is in a hidden folder beside it.

    Args:
        folder: where to; must not exist yet, its parent must.
        hu: (Z, Y, X) int16 in HU, from -1024 on, on the grid of `source`.
        source: the series that the HU were made from.
        how: what was done to it, for DerivationDescription: at most 1024 characters of ASCII.

    Raises:
        FileExistsError: if the folder exists; FileNotFoundError: if its parent doesn't.
        ValueError: if the HU are of another type or shape than the source's, or below -1024; if the source
            has a slice whose BurnedInAnnotation is neither NO nor empty: such text may be a name; if what is
            read back differs.

    Deviation from PS3.15: no profile is claimed, since the pixels are not looked at; DeidentificationMethod
    says so.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: choose another name")
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {folder.parent} to write {folder.name} into")
    if hu.dtype != np.int16 or hu.shape != source.hu.shape or hu.min() < LOWEST_HU:
        raise ValueError(
            f"expected int16 HU of shape {source.hu.shape}, from -1024 on; got {hu.dtype} of {hu.shape} "
            f"from {hu.min():g} on"
        )
    burned_in = {str(header.get("BurnedInAnnotation") or "").strip().upper() for header in source.headers}
    if burned_in - {"NO", ""}:
        raise ValueError(
            "its header says that text is burned into its pixels (BurnedInAnnotation), which may name the "
            "patient: no de-identified DICOM is made of it"
        )
    common = _common(how, clean=burned_in == {"NO"})
    with tempfile.TemporaryDirectory(prefix=f".part-{folder.name}-", dir=folder.parent) as room:
        part = Path(room, "series")
        part.mkdir()  # with everyone's usual rights; those of `room` are for its owner alone
        for z in range(len(hu)):
            _slice(common, hu, source, z).save_as(part / f"slice_{z + 1:04}.dcm", enforce_file_format=True)
        _check(part, hu, source)
        part.rename(folder)


def _common(how: str, *, clean: bool) -> Any:
    """What all slices say alike; `clean` if the source says that nothing is burned into its pixels."""
    import pydicom
    from pydicom.uid import CTImageStorage

    one = pydicom.Dataset()
    one.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: names of manufacturers and kernels need not be ASCII
    one.SOPClassUID, one.Modality, one.ImageType = CTImageStorage, "CT", ["DERIVED", "SECONDARY", "AXIAL"]
    for name in _EMPTY:
        setattr(one, name, None)
    one.PatientName = one.PatientID = "ANONYMOUS"
    if clean:
        one.PatientIdentityRemoved, one.BurnedInAnnotation = "YES", "NO"
    # At most 64 characters.
    one.DeidentificationMethod = "alden_lite header: listed tags, new UIDs; pixels not looked at"
    one.LongitudinalTemporalInformationModified = "REMOVED"
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = (_new_uid() for _ in range(3))
    one.SeriesNumber = 1
    one.SeriesDescription = "alden_lite denoised; NOT FOR CLINICAL USE"
    one.DerivationDescription = how
    one.SoftwareVersions = f"alden_lite {version('alden-lite')}"
    one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 1
    one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
    one.RescaleSlope, one.RescaleIntercept, one.RescaleType = 1, 0, "HU"
    return one


def _slice(common: Any, hu: np.ndarray, source: Series, z: int) -> Any:
    """One slice, ready to be saved."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian
    from pydicom.valuerep import DSfloat

    one = pydicom.Dataset()
    one.update(common)
    for name in COPIED:
        value = source.headers[z].get(name)
        # What a header has against the standard, as too long a text, is left out.
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            if value not in (None, "", []):
                kind, strict = pydicom.datadict.dictionary_VR(name), pydicom.config.RAISE
                one.add(pydicom.DataElement(name, kind, _writable(value), validation_mode=strict))
    depth, height, width = source.spacing_mm
    bottom, front, right = source.origin_mm

    def number(value: float) -> DSfloat:
        return DSfloat(value, auto_format=True)  # a decimal in DICOM has at most 16 characters

    one.SOPInstanceUID, one.InstanceNumber = _new_uid(), z + 1
    one.PixelSpacing = [number(height), number(width)]
    one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    one.ImagePositionPatient = [number(right), number(front), number(bottom + z * depth)]
    one.Rows, one.Columns = hu.shape[1:]
    one.PixelData = hu[z].astype("<i2").tobytes()
    one["PixelData"].VR = "OW"
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return one


def _writable(value: Any) -> Any:
    """A value of `Series.headers` as pydicom takes it: decimals cut to what DICOM can hold."""
    from pydicom.valuerep import DSfloat

    if isinstance(value, list):
        return [_writable(one) for one in value]
    return DSfloat(value, auto_format=True) if isinstance(value, float) else value


def _new_uid() -> str:
    """A UID from a random number: one from a hash of the source's would lead back to it."""
    from pydicom.uid import generate_uid

    return generate_uid(prefix=None)


def _check(folder: Path, hu: np.ndarray, source: Series) -> None:
    """Raise unless the series in a folder is what was to be written."""
    back = read_series(folder)
    same = np.array_equal(back.hu, hu) and all(
        np.allclose(found, wanted, rtol=0, atol=1e-4)  # mm
        for found, wanted in ((back.spacing_mm, source.spacing_mm), (back.origin_mm, source.origin_mm))
    )
    if not same:
        raise ValueError("the DICOM series differs from what was to be written: is the disk full or damaged?")
