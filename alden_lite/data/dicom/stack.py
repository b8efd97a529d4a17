"""From a stack of slices to one volume in HU: geometry checked, pixels read, values rescaled.

Pixels are *stored values*: RescaleSlope and RescaleIntercept make HU of them. ImagePositionPatient and
ImageOrientationPatient say where a slice lies in the patient; no file name does. Nothing is repaired or
filled in.

Source: DICOM PS3.3, C.7.6.2 (image plane), C.8.2.1 (CT image), C.7.6.16 and C.8.15 (enhanced CT).
"""

from __future__ import annotations

import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alden_lite.data.dicom.headers import _Unnamed
from alden_lite.data.dicom.tags import DicomError, Slice, as_number, as_vector, needed_vector, right_angled
from alden_lite.physics.hounsfield import LOWEST_HU, PADDING_BELOW_HU

__all__ = ["hu_from_stored"]

_NEEDED = (
    *("Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
    *("RescaleSlope", "RescaleIntercept", "PhotometricInterpretation"),
)

_PIXEL_TAGS = (
    *("NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)


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


# Where the slices lie


@dataclass(frozen=True)
class Geometry:
    """Places from caudal to cranial, each with the copies of its slice, and how to turn the pictures."""

    places: list[list[Slice]]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    transposed: bool
    flipped: tuple[bool, bool]  # y, x; after transposing

    def turn(self, picture: np.ndarray) -> np.ndarray:
        """A picture (rows, columns) as (y, x)."""
        upright = picture.T if self.transposed else picture
        return upright[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]


def geometry_of(slices: Sequence[Slice]) -> Geometry:
    """Order, spacing and orientation of slices.

    Raises:
        DicomError: if they don't make one straight, even, gapless stack of readable slices.
    """
    _check_alike(slices)
    tags = slices[0].tags
    axes, step = needed_vector(slices[0], "ImageOrientationPatient", 6), _pixel_mm(tags)
    along_row, along_column = axes[:3], axes[3:]
    normal = np.cross(along_row, along_column)
    normal = normal * math.copysign(1 / np.linalg.norm(normal), normal[2])  # towards the head
    positions = np.array([needed_vector(one, "ImagePositionPatient", 3) for one in slices])
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
    return Geometry(places, (depth, step, step), (z, y, x), transposed, flipped)


def _check_alike(slices: Sequence[Slice]) -> None:
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
        values = np.array([needed_vector(one, name, length) for one in slices])
        if np.abs(values - values[0]).max() > within:
            raise DicomError(f"it mixes {what}: put each in a folder of its own")
    if not right_angled(values[0]):  # of ImageOrientationPatient
        raise DicomError("its ImageOrientationPatient is not a pair of directions at right angles: damaged")
    _pixel_mm(slices[0].tags)


def _check_pixels(one: Slice) -> None:
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
    slope, intercept = (as_number(tags.get(name)) for name in ("RescaleSlope", "RescaleIntercept"))
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
    sides = as_vector(tags.PixelSpacing, 2)
    if sides is None or not (sides > 0).all():
        raise DicomError("its PixelSpacing is not two lengths in mm")
    down, across = map(float, sides)
    if abs(down - across) > 1e-3 * across:
        raise DicomError(f"its pixels are oblong, {down:g} x {across:g} mm: resample them to squares first")
    return down


def _places(slices: Sequence[Slice], heights: np.ndarray) -> tuple[list[list[Slice]], np.ndarray]:
    """Slices from caudal to cranial, copies of one slice together, and the heights of the places in mm."""
    order = np.argsort(heights, kind="stable")
    places: list[list[Slice]] = []
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
        thick = as_number(tags.get("SliceThickness"))
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


def volume_of(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """All pixels in HU, (Z, Y, X) int16, turned, and bool where they are padding."""
    first = geometry.places[0][0].tags
    rows, columns = int(first.Rows), int(first.Columns)
    depth = len(geometry.places)
    hu = np.empty((depth, columns, rows) if geometry.transposed else (depth, rows, columns), dtype=np.int16)
    padding = np.empty(hu.shape, dtype=bool)
    by_file: defaultdict[Path, list[tuple[int, Slice]]] = defaultdict(list)
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


def _undecoded(one: Slice, error: Exception) -> str:
    z = float(needed_vector(one, "ImagePositionPatient", 3)[2])
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
    padding = hu < PADDING_BELOW_HU
    first = tags.get("PixelPaddingValue")
    if first is not None:
        # Writers get the sign of these two wrong (63536 for -2000): as 16 bits they are the same.
        last = tags.get("PixelPaddingRangeLimit")
        ends = np.array([first, first if last in (None, "") else last], dtype=np.int64).astype(stored.dtype)
        padding |= (stored >= ends.min()) & (stored <= ends.max())
    hu[padding | (hu < LOWEST_HU)] = LOWEST_HU
    return hu, padding
