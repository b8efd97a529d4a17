"""CT from DICOM, as scanners and archives write it: a file or a folder in, a volume in HU out.

Pixels are *stored values*: RescaleSlope and RescaleIntercept make HU of them. ImagePositionPatient and
ImageOrientationPatient say where a slice lies in the patient; no file name does. And a folder holds more than
slices: localisers, dose reports, screenshots. What is not a whole stack of axial CT slices is refused with
its reason; nothing is repaired or filled in. Taught in chapter 01.

No name, number or date of a patient is read: only the tags listed here are taken from a file. Errors quote
the path that was given and no other file's name, since those hold names too; `DicomError.file` has it.

Source: DICOM PS3.3, C.7.6.2 (image plane), C.8.2.1 (CT image), C.7.6.16 and C.8.15 (enhanced CT).
"""

from __future__ import annotations

import io
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alden_lite.hounsfield import AIR_HU, Window

__all__ = ["DicomError", "Series", "SeriesInfo", "find_series", "header", "hu_from_stored", "read_series"]

TECHNICAL = (
    *("Modality", "ImageType", "FrameType", "Manufacturer", "ManufacturerModelName", "PatientPosition"),
    *("KVP", "Exposure", "ExposureInuAs", "ExposureInmAs", "ConvolutionKernel", "GantryDetectorTilt"),
    *("SliceThickness", "SpacingBetweenSlices", "InstanceNumber", "NumberOfFrames"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
    *("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "LossyImageCompression"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "WindowCenter", "WindowWidth", "BurnedInAnnotation"),
)
"""Keywords that `header` shows: how a slice was taken and stored, nothing about whom it shows."""

_GROUPING = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription")
_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_NEEDED = (
    *("Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
    *("RescaleSlope", "RescaleIntercept", "PhotometricInterpretation"),
)

_PIXEL_TAGS = (
    *("NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)

_CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
}
_DICOMDIR = "1.2.840.10008.1.3.10"
PADDING_HU = -1500.0
"""Below this is padding outside the field of view (-2000, -2048, -3024); noisy air stays well above."""

_SUFFIXES = {".dcm", ".dicom", ".ima"}
"""A file so named says that it is DICOM; many DICOM files have no suffix at all."""

_TILT_DEGREES = 1.0
"""Slices may lie this far from the patient's axes: rounded headers do, and 1 degree is 9 mm across 512 mm."""


class DicomError(ValueError):
    """DICOM that cannot be read as a CT volume. `file` is the file at fault, if it was one."""

    def __init__(self, message: str, file: Path | None = None) -> None:
        super().__init__(message)
        self.file = file


@dataclass(frozen=True)
class SeriesInfo:
    """One series of a folder, from its headers. `refused` says why `read_series` won't read it, else None.

    `uid` and `description` come from the scanner as they are: don't publish those of a real patient.
    `size` is (rows, columns), `spacing_mm` (z, y, x); both None where the headers don't agree on them.
    """

    uid: str
    description: str
    modality: str
    n_slices: int
    size: tuple[int, int] | None
    spacing_mm: tuple[float, float, float] | None
    refused: str | None


@dataclass(frozen=True, eq=False)
class Series:
    """A CT series as one volume, without anything that says whose it is.

    `hu` (Z, Y, X) is int16 in HU, never below -1024; z runs caudal to cranial, y front to back, x from the
    patient's right to left, however the patient lay. `spacing_mm` and `origin_mm` (the centre of voxel
    [0, 0, 0] in DICOM's patient coordinates) are (z, y, x). What the header doesn't say, or not for all
    slices alike, is None; `exposure_mas` is the mean of the slices, since scanners change it along the
    patient; `window` is the first one that the middle slice names. `padding` (Z, Y, X) is bool, true where
    nothing was measured (PixelPaddingValue, or below -1500 HU); `headers` has, for each slice, what `header`
    shows of it, as stored: before any turning.
    """

    hu: np.ndarray = field(repr=False)
    padding: np.ndarray = field(repr=False)
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    modality: str
    headers: tuple[dict[str, Any], ...] = field(repr=False)
    manufacturer: str | None = None
    kernel: str | None = None
    kvp: float | None = None
    exposure_mas: float | None = None
    slice_thickness_mm: float | None = None
    window: Window | None = None

    @property
    def n_slices(self) -> int:
        """Number of slices, Z."""
        return len(self.hu)

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) as NIfTI has it: from voxel (x, y, z, 1) to mm to the right, to the front and up."""
        affine = np.diag([*self.spacing_mm[::-1], 1.0])
        affine[:3, 3] = self.origin_mm[::-1]
        affine[:2] *= -1  # DICOM counts to the left and back
        return affine


def read_series(path: str | Path, *, series: str | None = None) -> Series:
    """Read a CT series, in HU, turned to how a reading station shows it.

    Args:
        path: a DICOM file (one slice, or an enhanced multi-frame CT), or a folder of them. All folders
            below it are read too, linked and hidden ones aside; what doesn't say it is DICOM is passed over.
        series: uid of the series to read (`find_series` lists them), needed where a folder holds several.

    Returns:
        Series. HU are `stored * RescaleSlope + RescaleIntercept`, rounded to whole numbers, halves to even.
        Padding (PixelPaddingValue, and all below -1024 HU) is -1024. A single slice is as deep as its
        SliceThickness says, or 1 mm if it says nothing.

    Raises:
        FileNotFoundError: no such file or folder.
        DicomError: if it is not DICOM, is cut off, or holds no axial CT series, or several; if a series mixes
            sizes, lacks a slice, has two at one place, is tilted by more than 1 degree (a tilted gantry
            stacks slices askew, and z would lie), has oblong pixels (the course's scanner takes square ones),
            colour or MONOCHROME1, or a compression that cannot be decoded.
    """
    path = Path(path)
    stack = _chosen(path, _scan(path), series)
    try:
        geometry = _geometry(stack.slices)
        hu, padding = _volume(geometry)
    except DicomError as error:
        raise DicomError(f"{path} cannot be read: {error}", error.file) from error.__cause__
    ordered = [copies[0] for copies in geometry.places]
    exposures = [_exposure_mas(one.tags) for one in ordered]
    known = [mas for mas in exposures if mas is not None]
    return Series(
        hu=hu,
        padding=padding,
        spacing_mm=geometry.spacing_mm,
        origin_mm=geometry.origin_mm,
        modality="CT",
        headers=tuple(_shown(one) for one in ordered),
        manufacturer=_text(_shared(ordered, "Manufacturer")),
        kernel=_text(_shared(ordered, "ConvolutionKernel")),
        kvp=_number(_shared(ordered, "KVP")),
        exposure_mas=sum(known) / len(known) if len(known) == len(ordered) else None,
        slice_thickness_mm=_number(_shared(ordered, "SliceThickness")),
        window=_window(ordered[len(ordered) // 2].tags),
    )


def find_series(folder: str | Path) -> list[SeriesInfo]:
    """What a folder (or a file) holds, from the headers alone: every series, and why one would be refused.

    Slices of a kind that cannot be read, as localisers, are listed apart from the rest of their series. Files
    that say they are DICOM but are damaged come last, with an empty uid.

    Raises:
        FileNotFoundError: no such folder.
        DicomError: if there is nothing of DICOM in it.
    """
    found = _scan(Path(folder))
    infos = [_info(stack) for stack in found.stacks]
    for reason, count in Counter(broken.reason for broken in found.broken).items():
        infos.append(SeriesInfo("", "", "", count, None, None, f"damaged: {reason}"))
    return infos


def header(path: str | Path) -> dict[str, Any]:
    """How a slice was taken and stored, by DICOM's own keywords; nothing that tells whose it is.

    Args:
        path: one DICOM file. Of an enhanced multi-frame file the first frame is described.

    Returns:
        Numbers, texts and lists of them, for those of the keywords in `TECHNICAL` that the file has, and its
        `TransferSyntaxUID` in words: how the pixels are packed.

    Raises:
        FileNotFoundError: no such file.
        DicomError: if it is a folder, no DICOM, or damaged.
    """
    path = Path(path)
    if path.is_dir():
        raise DicomError(f"{path} is a folder: a header is that of one file")
    found = _scan(path)
    (first, *_) = (one for stack in found.stacks for one in stack.slices)
    return _shown(first)


def hu_from_stored(stored: np.ndarray, *, slope: float, intercept: float) -> np.ndarray:
    """HU from stored values: `stored * slope + intercept`, rounded to whole numbers, halves to even.

    Args:
        stored: any shape, whole numbers as the file has them.
        slope, intercept: RescaleSlope and RescaleIntercept of its header.

    Returns:
        Same shape, int16. What int16 cannot hold is clipped to its ends.

    Raises:
        ValueError: if the slope is 0, or either is not finite.

    Source: DICOM PS3.3 C.11.1.1.2.

    >>> hu_from_stored(np.array([24, 1024, 1064], dtype=np.uint16), slope=1, intercept=-1024)
    array([-1000,     0,    40], dtype=int16)
    """
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        raise ValueError(
            f"slope {slope} and intercept {intercept} make no HU: they must be finite, slope not 0"
        )
    limits = np.iinfo(np.int16)
    hu = np.rint(stored.astype(np.float64) * slope + intercept)
    return hu.clip(limits.min, limits.max).astype(np.int16)


# Finding the files


@dataclass(frozen=True)
class _Slice:
    """One slice: a file, or a frame of it, with its technical tags as one flat pydicom Dataset."""

    file: Path
    frame: int
    tags: Any
    syntax: Any  # pydicom's UID of the transfer syntax

    @property
    def key(self) -> tuple[str, int]:
        """What copies of one slice have in common."""
        return str(self.tags.SOPInstanceUID), self.frame


@dataclass(frozen=True)
class _Stack:
    """The slices of one series that are of one kind; `skipped` says why that kind is never read."""

    uid: str
    skipped: str | None
    slices: list[_Slice]


@dataclass(frozen=True)
class _Broken:
    """A file that says it is DICOM but cannot be read; `number` counts the files in order of name."""

    file: Path
    number: int
    reason: str


@dataclass(frozen=True)
class _Found:
    stacks: list[_Stack]
    broken: list[_Broken]
    n_files: int


def _scan(path: Path) -> _Found:
    """All headers of a file or folder."""
    if not path.exists():
        raise FileNotFoundError(f"no file or folder at {path}")
    single = not path.is_dir()
    files = [path] if single else list(_files(path))
    if not files:
        raise DicomError(f"{path} is an empty folder: give one that holds DICOM files")
    by_kind: defaultdict[tuple[str, str | None], list[_Slice]] = defaultdict(list)
    broken: list[_Broken] = []
    for number, file in enumerate(files, 1):
        try:
            slices = _read_headers(file, must_be_dicom=single)
        except DicomError as error:
            broken.append(_Broken(file, number, str(error)))
            continue
        for one in slices:
            by_kind[str(one.tags.SeriesInstanceUID), _skipped(one)].append(one)
    if single and broken:
        raise DicomError(f"{path} cannot be read: {broken[0].reason}", path)
    if not by_kind and not broken:
        raise DicomError(f"{path} holds no DICOM: none of its {len(files)} files is")

    def order(stack: _Stack) -> tuple[float, str, bool]:
        return _number(stack.slices[0].tags.get("SeriesNumber")) or 0, stack.uid, stack.skipped is not None

    stacks = []
    for (uid, skipped), slices in by_kind.items():
        # A reformat is one as a whole; one odd slice among others is damage, and not left out.
        odd = [_not_axial(one) for one in slices] if skipped is None else []
        stacks.append(_Stack(uid, odd[0] if odd and all(odd) else skipped, slices))
    return _Found(sorted(stacks, key=order), broken, len(files))


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


def _read_headers(file: Path, *, must_be_dicom: bool) -> list[_Slice]:
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
            return [_Slice(file, n, frame, syntax) for n, frame in enumerate(_frames(tags))]
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


def _skipped(one: _Slice) -> str | None:
    """Why a slice is of a kind that is never read, or None."""
    import pydicom

    kind, modality = pydicom.uid.UID(one.tags.SOPClassUID), one.tags.get("Modality")
    if kind not in _CT_CLASSES:
        return f"not a CT picture but {kind.name if kind.name != kind else 'an unknown kind of object'}"
    if modality != "CT":
        return f"its modality is {modality}: only CT is in HU"
    kinds = (*_listed(one.tags.get("ImageType")), *_listed(one.tags.get("FrameType")))
    if "LOCALIZER" in {str(kind).strip() for kind in kinds}:
        return "a localiser: a projection to plan the scan by, not a slice"
    return None


def _not_axial(one: _Slice) -> str | None:
    """Why a slice's orientation is not that of an axial slice, or None. Damage is `_geometry`'s to report."""
    axes = _vector(one.tags.get("ImageOrientationPatient"), 6)
    if axes is None or not _right_angled(axes):
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


def _chosen(path: Path, found: _Found, series: str | None) -> _Stack:
    """The one stack to read."""
    if found.broken:
        first = found.broken[0]
        raise DicomError(
            f"{len(found.broken)} of the {found.n_files} files in {path} cannot be read, the first of them "
            f"number {first.number} in order of name: {first.reason}. It may be a slice of what you want: "
            "copy the folder again, or take the file out if it doesn't belong",
            first.file,
        )
    stacks = found.stacks
    if series is not None:
        stacks = [stack for stack in stacks if stack.uid == series]
        if not stacks:
            raise DicomError(f"{path} has no series of that uid: find_series lists those that it has")
    wanted = [stack for stack in stacks if stack.skipped is None]
    if len(wanted) == 1:
        return wanted[0]
    if wanted:
        sizes = "; ".join(_summary(_info(stack)) for stack in wanted)
        raise DicomError(
            f"{path} holds {len(wanted)} CT series ({sizes}): choose one by the uid that find_series lists, "
            "read_series(path, series=uid)"
        )
    reasons = "; ".join(f"{len(stack.slices)} x {stack.skipped}" for stack in stacks)
    raise DicomError(f"{path} holds no axial CT slices: {reasons}")


def _info(stack: _Stack) -> SeriesInfo:
    tags = stack.slices[0].tags
    spacing, refused = None, stack.skipped
    if refused is None:
        try:
            spacing = _geometry(stack.slices).spacing_mm
        except DicomError as error:
            refused = str(error)
    sizes = {(one.tags.get("Rows"), one.tags.get("Columns")) for one in stack.slices}
    size = sizes.pop() if len(sizes) == 1 else None
    return SeriesInfo(
        uid=stack.uid,
        description=str(tags.get("SeriesDescription") or ""),
        modality=str(tags.get("Modality") or ""),
        n_slices=len({one.key for one in stack.slices}),
        size=None if size is None or None in size else size,
        spacing_mm=spacing,
        refused=refused,
    )


def _summary(info: SeriesInfo) -> str:
    size = "of mixed size" if info.size is None else f"of {info.size[0]} x {info.size[1]}"
    apart = "" if info.spacing_mm is None else f", {info.spacing_mm[0]:g} mm apart"
    return f"{info.n_slices} slices {size}{apart}{', refused' if info.refused else ''}"


# Where the slices lie


@dataclass(frozen=True)
class _Geometry:
    """Places from caudal to cranial, each with the copies of its slice, and how to turn the pictures."""

    places: list[list[_Slice]]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    transposed: bool
    flipped: tuple[bool, bool]  # y, x; after transposing

    def turn(self, picture: np.ndarray) -> np.ndarray:
        """A picture (rows, columns) as (y, x)."""
        upright = picture.T if self.transposed else picture
        return upright[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]


def _geometry(slices: Sequence[_Slice]) -> _Geometry:
    """Order, spacing and orientation of slices.

    Raises:
        DicomError: if they don't make one straight, even, gapless stack of readable slices.
    """
    _check_alike(slices)
    tags = slices[0].tags
    axes, step = _needed_vector(slices[0], "ImageOrientationPatient", 6), _pixel_mm(tags)
    along_row, along_column = axes[:3], axes[3:]
    normal = np.cross(along_row, along_column)
    normal = normal * math.copysign(1 / np.linalg.norm(normal), normal[2])  # towards the head
    positions = np.array([_needed_vector(one, "ImagePositionPatient", 3) for one in slices])
    heights = positions @ normal
    aside = positions - heights[:, None] * normal
    shift = float(np.abs(aside - aside[0]).max())
    if shift > step / 2:
        raise DicomError(
            f"its slices are shifted against each other by up to {shift:.2f} mm: not one straight stack"
        )
    places, where = _places(slices, heights)
    depth = _step_mm(where, tags)
    transposed = abs(along_row[1]) > abs(along_row[0])
    across, down = (along_column, along_row) if transposed else (along_row, along_column)
    flipped = (bool(down[1] < 0), bool(across[0] < 0))
    # The stored position is that of the first pixel; turned, the first pixel may be another.
    rows, columns = (tags.Columns, tags.Rows) if transposed else (tags.Rows, tags.Columns)
    origin = positions[int(np.argmin(heights))]
    origin = origin + flipped[0] * (rows - 1) * step * down + flipped[1] * (columns - 1) * step * across
    x, y, z = (float(value) for value in origin)
    return _Geometry(places, (depth, step, step), (z, y, x), transposed, flipped)


def _check_alike(slices: Sequence[_Slice]) -> None:
    """Raise unless every slice has what it needs, and all are of one size, spacing and orientation."""
    for name in _NEEDED:
        without = [one for one in slices if one.tags.get(name) in (None, "")]
        if without:
            cut = ": cut off, or not a CT as DICOM defines one"
            raise DicomError(
                f"{len(without)} of its {len(slices)} slices have no {name}{cut}", without[0].file
            )
    for one in slices:
        _check_pixels(one)
    sizes = Counter((one.tags.Rows, one.tags.Columns) for one in slices)
    if len(sizes) > 1:
        said = " and ".join(f"{n} slices of {rows} x {columns}" for (rows, columns), n in sizes.most_common())
        raise DicomError(f"it mixes {said}: put each size in a folder of its own")
    for name, length, within, what in (
        ("PixelSpacing", 2, 1e-3, "pixel sizes"),
        ("ImageOrientationPatient", 6, 1e-2, "orientations"),
    ):
        values = np.array([_needed_vector(one, name, length) for one in slices])
        if np.abs(values - values[0]).max() > within:
            raise DicomError(f"it mixes {what}: put each in a folder of its own")
    if not _right_angled(values[0]):  # of ImageOrientationPatient
        raise DicomError("its ImageOrientationPatient is not a pair of directions at right angles: damaged")
    _pixel_mm(slices[0].tags)


def _right_angled(axes: np.ndarray) -> bool:
    """Whether the six numbers of an ImageOrientationPatient are two directions at right angles."""
    pair = axes.reshape(2, 3)
    return np.allclose(pair @ pair.T, np.eye(2), atol=0.02)


def _check_pixels(one: _Slice) -> None:
    """Raise if the header says that the pixels are none that become HU."""
    from pydicom.pixels.decoders.base import get_decoder

    colours, tags = one.tags.PhotometricInterpretation, one.tags
    if tags.get("SamplesPerPixel", 1) != 1 or not str(colours).startswith("MONOCHROME"):
        raise DicomError(f"its pixels are in colour ({colours}): a screenshot, not HU", one.file)
    if colours != "MONOCHROME2":
        raise DicomError(f"its pixels are {colours}: CT in HU is MONOCHROME2, white is dense", one.file)
    kind = tags.get("RescaleType") or "HU"
    if kind not in ("HU", "US"):  # US is "unspecified": gdcmconv writes it where there was none
        raise DicomError(f"its values are of RescaleType {kind}, not HU", one.file)
    slope, intercept = (_number(tags.get(name)) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope is None or intercept is None or slope == 0:
        raise DicomError("its RescaleSlope and RescaleIntercept are no numbers that make HU", one.file)
    try:
        readable = get_decoder(one.syntax).is_available
    except NotImplementedError:
        readable = False
    if not readable:
        raise DicomError(
            f"its pixels are packed as {one.syntax.name}, which is not decoded here: unpack them first, "
            "for example with `gdcmconv --raw`, dcmtk's `dcmdjpeg`, or your archive's export",
            one.file,
        )


def _pixel_mm(tags: Any) -> float:
    """Side of the square pixels in mm."""
    sides = _vector(tags.PixelSpacing, 2)
    if sides is None or not (sides > 0).all():
        raise DicomError("its PixelSpacing is not two lengths in mm")
    down, across = map(float, sides)
    if abs(down - across) > 1e-3 * across:
        raise DicomError(f"its pixels are oblong, {down:g} x {across:g} mm: resample them to squares first")
    return down


def _places(slices: Sequence[_Slice], heights: np.ndarray) -> tuple[list[list[_Slice]], np.ndarray]:
    """Slices from caudal to cranial, copies of one slice together, and the heights of the places in mm."""
    order = np.argsort(heights, kind="stable")
    places: list[list[_Slice]] = []
    where: list[float] = []
    for n in map(int, order):
        if where and heights[n] - where[-1] < 0.01:
            if slices[n].key != places[-1][0].key:
                raise DicomError(
                    f"two slices lie at one place, z = {heights[n]:.1f} mm: several phases, doses or "
                    "kernels in one series? Put each in a folder of its own",
                    slices[n].file,
                )
            places[-1].append(slices[n])
        else:
            places.append([slices[n]])
            where.append(float(heights[n]))
    return places, np.array(where)


def _step_mm(where: np.ndarray, tags: Any) -> float:
    """Distance of the slices in mm; of one slice, its thickness."""
    if len(where) == 1:
        thick = _number(tags.get("SliceThickness"))
        return thick if thick is not None and thick > 0 else 1.0
    steps = np.diff(where)
    step = float(steps.min())
    uneven = steps - step > max(0.1, 0.1 * step) + 1e-3  # positions are often rounded to 0.1 mm
    if uneven.any():
        n = int(np.argmax(uneven))
        between = f"between z = {where[n]:.1f} and {where[n + 1]:.1f} mm"
        missing = sum(round(float(gap) / step) - 1 for gap in steps[uneven])
        if np.allclose(steps / step, np.round(steps / step), atol=0.1):
            places = "" if uneven.sum() == 1 else f" and in {uneven.sum() - 1} more places"
            raise DicomError(
                f"{missing} {'slice is' if missing == 1 else 'slices are'} missing, {between}{places}: "
                "copy the series again, or keep only the slices to one side of the gap"
            )
        raise DicomError(
            f"its slices are not evenly spaced, {step:.2f} to {steps.max():.2f} mm apart, the first change "
            f"{between}: a volume needs one spacing, so keep one part of them"
        )
    return float((where[-1] - where[0]) / (len(where) - 1))


# Pixels


def _volume(geometry: _Geometry) -> tuple[np.ndarray, np.ndarray]:
    """All pixels in HU, (Z, Y, X) int16, turned, and bool where they are padding."""
    first = geometry.places[0][0].tags
    rows, columns = int(first.Rows), int(first.Columns)
    depth = len(geometry.places)
    hu = np.empty((depth, columns, rows) if geometry.transposed else (depth, rows, columns), dtype=np.int16)
    padding = np.empty(hu.shape, dtype=bool)
    by_file: defaultdict[Path, list[tuple[int, _Slice]]] = defaultdict(list)
    for z, copies in enumerate(geometry.places):
        for one in copies:
            by_file[one.file].append((z, one))
    filled = np.zeros(depth, dtype=bool)
    for file, frames in by_file.items():
        pictures = _stored(file, [one.frame for _, one in frames])
        for z, one in frames:
            try:
                stored = next(pictures)
            except Exception as error:  # each of pydicom's decoders has its own
                raise DicomError(_undecoded(one, error), file) from None
            picture, unmeasured = map(geometry.turn, _slice_hu(stored, one.tags))
            if filled[z] and not np.array_equal(hu[z], picture):
                raise DicomError(
                    "two copies of one slice, equal in name, differ in their pixels: keep the right one", file
                )
            hu[z], padding[z], filled[z] = picture, unmeasured, True
    return hu, padding


def _stored(file: Path, frames: list[int]) -> Iterator[np.ndarray]:
    """Stored values of chosen frames of a file, (Y, X) each."""
    import pydicom
    from pydicom.pixels.utils import iter_pixels

    # Not iter_pixels of the file itself: that fails on a deflated one (pydicom 3.0).
    tags: list[Any] = list(_PIXEL_TAGS)
    with _Unnamed(io.FileIO(file)) as handle:
        yield from iter_pixels(pydicom.dcmread(handle, specific_tags=tags), indices=frames)


def _undecoded(one: _Slice, error: Exception) -> str:
    z = float(_needed_vector(one, "ImagePositionPatient", 3)[2])
    # Of a file that cannot be opened, the text has the name.
    said = (
        error.strerror
        if isinstance(error, OSError) and error.strerror
        else str(error) or type(error).__name__
    )
    return (
        f"the pixels of the slice at z = {z:.1f} mm ({one.syntax.name}) cannot be decoded: the file is cut "
        f"off or damaged, or packed in a way that is not decoded here: {said}"
    )


def _slice_hu(stored: np.ndarray, tags: Any) -> tuple[np.ndarray, np.ndarray]:
    """Stored values as HU, padding as air; and where padding is."""
    hu = hu_from_stored(stored, slope=float(tags.RescaleSlope), intercept=float(tags.RescaleIntercept))
    padding = hu < PADDING_HU
    first = tags.get("PixelPaddingValue")
    if first is not None:
        # Writers get the sign of these two wrong (63536 for -2000): as 16 bits they are the same.
        last = tags.get("PixelPaddingRangeLimit")
        ends = np.array([first, first if last in (None, "") else last], dtype=np.int64).astype(stored.dtype)
        padding |= (stored >= ends.min()) & (stored <= ends.max())
    hu[padding | (hu < AIR_HU)] = AIR_HU
    return hu, padding


# Values of tags


def _listed(value: Any) -> list[Any]:
    """One value or many, as a list."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | bytes) or not isinstance(value, Iterable) else list(value)


def _vector(value: Any, length: int) -> np.ndarray | None:
    """Finite numbers, (length,), or None if that is not what they are."""
    try:
        numbers = np.array([float(one) for one in _listed(value)])
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (length,) and np.isfinite(numbers).all() else None


def _needed_vector(one: _Slice, name: str, length: int) -> np.ndarray:
    vector = _vector(one.tags.get(name), length)
    if vector is None:
        raise DicomError(f"the {name} of a slice is not {length} numbers: damaged", one.file)
    return vector


def _number(value: Any) -> float | None:
    vector = _vector(value, 1)
    return None if vector is None else float(vector[0])


def _text(value: Any) -> str | None:
    """Text, several values joined by a space as Siemens' kernels have them; None if empty."""
    return " ".join(map(str, _listed(value))).strip() or None


def _shared(slices: Sequence[_Slice], name: str) -> Any:
    """What all slices say alike under a keyword, or None."""
    values = [one.tags.get(name) for one in slices]
    return values[0] if all(value == values[0] for value in values) else None


def _exposure_mas(tags: Any) -> float | None:
    """Exposure in mAs; three tags may have it, in two units."""
    for name, scale in (("Exposure", 1), ("ExposureInmAs", 1), ("ExposureInuAs", 1000)):
        value = _number(tags.get(name))
        if value is not None:
            return value / scale
    return None


def _window(tags: Any) -> Window | None:
    """The first window that a header names, or None."""
    level, width = ((_listed(tags.get(name)) or [None])[0] for name in ("WindowCenter", "WindowWidth"))
    level, width = _number(level), _number(width)
    return Window(level, width) if level is not None and width is not None and width > 0 else None


def _shown(one: _Slice) -> dict[str, Any]:
    """What `header` says of a slice."""
    shown = {name: _plain(one.tags[name].value) for name in TECHNICAL if one.tags.get(name) is not None}
    return {"TransferSyntaxUID": one.syntax.name, **shown}


def _plain(value: Any) -> Any:
    """A tag's value without pydicom's classes."""
    if isinstance(value, str):
        return str(value).strip()
    if isinstance(value, Iterable):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, int):
        return value if value is None else int(value)
    return float(value)
