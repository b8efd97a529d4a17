"""From a folder of files to stacks of slices that belong together, by their headers alone.

A folder holds more than slices: localisers, dose reports, screenshots. What is not an axial CT slice is left
out with its reason.
"""

from __future__ import annotations

import io
import math
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alden_lite.data.dicom.tags import (
    TECHNICAL,
    DicomError,
    Slice,
    as_list,
    as_number,
    as_vector,
    right_angled,
)

_GROUPING = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription")
_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")

_CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
}
_DICOMDIR = "1.2.840.10008.1.3.10"

_SUFFIXES = {".dcm", ".dicom", ".ima"}
"""A file so named says that it is DICOM; many DICOM files have no suffix at all."""

_TILT_DEGREES = 1.0
"""Slices may lie this far from the patient's axes: rounded headers do, and 1 degree is 9 mm across 512 mm."""


@dataclass(frozen=True)
class Stack:
    """The slices of one series that are of one kind; `skipped` says why that kind is never read."""

    uid: str
    skipped: str | None
    slices: list[Slice]


@dataclass(frozen=True)
class Broken:
    """A file that says it is DICOM but cannot be read; `number` counts the files in order of name."""

    file: Path
    number: int
    reason: str


@dataclass(frozen=True)
class Found:
    stacks: list[Stack]
    broken: list[Broken]
    n_files: int


def scan_headers(path: Path) -> Found:
    """All headers of a file or folder."""
    if not path.exists():
        raise FileNotFoundError(f"no file or folder at {path}")
    single = not path.is_dir()
    files = [path] if single else list(_files(path))
    if not files:
        raise DicomError(f"{path} is an empty folder: give one that holds DICOM files")
    by_kind: defaultdict[tuple[str, str | None], list[Slice]] = defaultdict(list)
    broken: list[Broken] = []
    for number, file in enumerate(files, 1):
        try:
            slices = _read_headers(file, must_be_dicom=single)
        except DicomError as error:
            broken.append(Broken(file, number, str(error)))
            continue
        for one in slices:
            by_kind[str(one.tags.SeriesInstanceUID), _skipped(one)].append(one)
    if single and broken:
        raise DicomError(f"{path} cannot be read: {broken[0].reason}", path)
    if not by_kind and not broken:
        raise DicomError(f"{path} holds no DICOM: none of its {len(files)} files is")

    def order(stack: Stack) -> tuple[float, str, bool]:
        return as_number(stack.slices[0].tags.get("SeriesNumber")) or 0, stack.uid, stack.skipped is not None

    stacks = []
    for (uid, skipped), slices in by_kind.items():
        # A reformat is one as a whole; one odd slice among others is damage, and not left out.
        odd = [_not_axial(one) for one in slices] if skipped is None else []
        stacks.append(Stack(uid, odd[0] if odd and all(odd) else skipped, slices))
    return Found(sorted(stacks, key=order), broken, len(files))


def _files(folder: Path) -> Iterator[Path]:
    """Files of a folder and those below it, in order of name; hidden ones aside (macOS leaves `._` files)."""

    def refuse(error: OSError) -> None:
        raise DicomError(f"{folder} holds a folder that may not be read ({error.strerror})") from None

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


class _Unnamed(io.BufferedReader):
    """An open file whose name pydicom cannot quote in its warnings and its log."""

    name = "a DICOM file"


def _read_headers(file: Path, *, must_be_dicom: bool) -> list[Slice]:
    """The slices of a file, without pixels; none if it doesn't say that it is DICOM.

    Raises:
        DicomError: damaged, or not DICOM although it should be.
    """
    import pydicom

    named_so = must_be_dicom or file.suffix.lower() in _SUFFIXES
    try:
        if not file.is_file():  # a link to nowhere, or something that would never end, as a pipe
            if named_so:
                raise DicomError("it is not a file, or a link to one that is gone")
            return []
        with _Unnamed(io.FileIO(file)) as handle:
            start = handle.read(132)
            if start[128:] != b"DICM":
                if named_so:
                    raise DicomError(_not_dicom(start))
                return []
            handle.seek(0)
            # Other tags are not taken, so that no name can get into a warning or an error.
            wanted: list[Any] = [*TECHNICAL, *_GROUPING, *_FUNCTIONAL_GROUPS]
            tags = pydicom.dcmread(handle, stop_before_pixels=True, specific_tags=wanted)
            kind = tags.file_meta.get("MediaStorageSOPClassUID")
            if kind == _DICOMDIR:
                if must_be_dicom:
                    raise DicomError("it is a DICOMDIR, the index of a disc: give the folder that it lies in")
                return []
            syntax = tags.file_meta.get("TransferSyntaxUID")
            list(tags)  # values are converted when they are asked for: now, so that damage shows here
            if not syntax or any(not tags.get(name) for name in _GROUPING[:3]):
                raise DicomError("its header lacks what every DICOM file has: the file is cut off")
            return [Slice(file, n, frame, syntax) for n, frame in enumerate(_frames(tags))]
    except DicomError:
        raise
    except OSError as error:  # its text has the file's name
        raise DicomError(f"it may not be read ({error.strerror or 'input or output error'})") from None
    except Exception as error:  # a damaged header can make pydicom raise anything
        raise DicomError(f"its header is damaged ({error})") from error


def _not_dicom(start: bytes) -> str:
    if not start:
        return "it is empty, 0 bytes: copy it again"
    return "it is not a DICOM file: one has the letters DICM after its first 128 bytes"


def _frames(tags: Any) -> Iterator[Any]:
    """One flat Dataset a frame: of an enhanced file, the common tags, the shared ones and the frame's own."""
    import pydicom

    shared, per_frame = (tags.get(name) for name in _FUNCTIONAL_GROUPS)
    for name in _FUNCTIONAL_GROUPS:
        if name in tags:
            del tags[name]
    if not per_frame or tags.SOPClassUID not in _CT_CLASSES:
        yield tags
        return
    if (stated := tags.get("NumberOfFrames")) != len(per_frame):
        raise DicomError(f"its header states {stated} frames and describes {len(per_frame)}")
    wanted = {*TECHNICAL}
    for own in per_frame:
        flat = pydicom.Dataset()
        flat.update(tags)
        for groups in (*(shared or []), own):
            for sequence in groups:
                for item in sequence.value if sequence.VR == "SQ" else ():
                    flat.update({element.tag: element for element in item if element.keyword in wanted})
        yield flat


def _skipped(one: Slice) -> str | None:
    """Why a slice is of a kind that is never read, or None."""
    import pydicom

    kind, modality = pydicom.uid.UID(one.tags.SOPClassUID), one.tags.get("Modality")
    if kind not in _CT_CLASSES:
        return f"not a CT picture but {kind.name if kind.name != kind else 'an unknown kind of object'}"
    if modality != "CT":
        return f"its modality is {modality}: only CT is in HU"
    kinds = (*as_list(one.tags.get("ImageType")), *as_list(one.tags.get("FrameType")))
    if "LOCALIZER" in {str(kind).strip() for kind in kinds}:
        return "a localiser: a projection to plan the scan by, not a slice"
    return None


def _not_axial(one: Slice) -> str | None:
    """Why a slice's orientation is not that of an axial slice, or None. Damage is `_geometry`'s to report."""
    axes = as_vector(one.tags.get("ImageOrientationPatient"), 6)
    if axes is None or not right_angled(axes):
        return None
    along_row, along_column = axes[:3], axes[3:]
    tilt = math.degrees(math.acos(min(1.0, abs(float(np.cross(along_row, along_column)[2])))))
    if tilt > 45:
        return "not axial: coronal or sagittal slices, reformatted from others"
    if tilt > _TILT_DEGREES:
        return (
            f"tilted by {tilt:.1f} degrees: slices of a tilted gantry are stacked askew, and their z would "
            "lie; have it resampled to straight axial slices first"
        )
    x, y = (abs(float(axis[np.argmax(abs(axis))])) for axis in (along_row, along_column))
    turned = math.degrees(math.acos(min(1.0, x, y)))
    if turned > _TILT_DEGREES:
        return f"turned in its plane by {turned:.1f} degrees against the patient's axes"
    return None
