"""CT from DICOM, as scanners write it: a file or a folder in, a volume in HU out. Taught in chapter 01.

What is not a whole stack of axial CT slices is refused with its reason; nothing is repaired or filled in. No
name, number or date of a patient is read. How: `tags`, then `headers`, then `stack`.

Source: DICOM PS3.3, C.7.6.2 (image plane), C.8.2.1 (CT image), C.7.6.16 and C.8.15 (enhanced CT).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alden_lite.data.dicom.headers import Found, Stack, scan_headers
from alden_lite.data.dicom.stack import geometry_of, volume_of
from alden_lite.data.dicom.tags import (
    DicomError,
    as_number,
    as_text,
    exposure_mas_of,
    shared_value,
    shown_tags,
    window_of,
)
from alden_lite.physics.hounsfield import Window

__all__ = ["Series", "SeriesInfo", "find_series", "header", "read_series"]


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
    stack = _chosen(path, scan_headers(path), series)
    try:
        geometry = geometry_of(stack.slices)
        hu, padding = volume_of(geometry)
    except DicomError as error:
        raise DicomError(f"{path} cannot be read: {error}", error.file) from error.__cause__
    ordered = [copies[0] for copies in geometry.places]
    exposures = [exposure_mas_of(one.tags) for one in ordered]
    known = [mas for mas in exposures if mas is not None]
    return Series(
        hu=hu,
        padding=padding,
        spacing_mm=geometry.spacing_mm,
        origin_mm=geometry.origin_mm,
        modality="CT",
        headers=tuple(shown_tags(one) for one in ordered),
        manufacturer=as_text(shared_value(ordered, "Manufacturer")),
        kernel=as_text(shared_value(ordered, "ConvolutionKernel")),
        kvp=as_number(shared_value(ordered, "KVP")),
        exposure_mas=sum(known) / len(known) if len(known) == len(ordered) else None,
        slice_thickness_mm=as_number(shared_value(ordered, "SliceThickness")),
        window=window_of(ordered[len(ordered) // 2].tags),
    )


def find_series(folder: str | Path) -> list[SeriesInfo]:
    """What a folder (or a file) holds, from the headers alone: every series, and why one would be refused.

    Slices of a kind that cannot be read, as localisers, are listed apart from the rest of their series. Files
    that say they are DICOM but are damaged come last, with an empty uid.

    Raises:
        FileNotFoundError: no such folder.
        DicomError: if there is nothing of DICOM in it.
    """
    found = scan_headers(Path(folder))
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
    found = scan_headers(path)
    (first, *_) = (one for stack in found.stacks for one in stack.slices)
    return shown_tags(first)


def _chosen(path: Path, found: Found, series: str | None) -> Stack:
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


def _info(stack: Stack) -> SeriesInfo:
    tags = stack.slices[0].tags
    spacing, refused = None, stack.skipped
    if refused is None:
        try:
            spacing = geometry_of(stack.slices).spacing_mm
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
