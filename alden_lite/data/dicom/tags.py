"""DICOM tags as plain Python values; which of them are read, and the error that names what is wrong.

No name, number or date of a patient is read: only the tags listed here are taken from a file. Errors quote
the path that was given and no other file's name, since those hold names too; `DicomError.file` has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alden_lite.physics.hounsfield import Window

__all__ = ["DicomError"]

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


class DicomError(ValueError):
    """DICOM that cannot be read as a CT volume. `file` is the file at fault, if it was one."""

    def __init__(self, message: str, file: Path | None = None) -> None:
        super().__init__(message)
        self.file = file


@dataclass(frozen=True)
class Slice:
    """One slice: a file, or a frame of it, with its technical tags as one flat pydicom Dataset."""

    file: Path
    frame: int
    tags: Any
    syntax: Any  # pydicom's UID of the transfer syntax

    @property
    def key(self) -> tuple[str, int]:
        """What copies of one slice have in common."""
        return str(self.tags.SOPInstanceUID), self.frame


def right_angled(axes: np.ndarray) -> bool:
    """Whether the six numbers of an ImageOrientationPatient are two directions at right angles."""
    pair = axes.reshape(2, 3)
    return np.allclose(pair @ pair.T, np.eye(2), atol=0.02)


# Values of tags


def as_list(value: Any) -> list[Any]:
    """One value or many, as a list."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | bytes) or not isinstance(value, Iterable) else list(value)


def as_vector(value: Any, length: int) -> np.ndarray | None:
    """Finite numbers, (length,), or None if that is not what they are."""
    try:
        numbers = np.array([float(one) for one in as_list(value)])
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (length,) and np.isfinite(numbers).all() else None


def needed_vector(one: Slice, name: str, length: int) -> np.ndarray:
    vector = as_vector(one.tags.get(name), length)
    if vector is None:
        raise DicomError(f"the {name} of a slice is not {length} numbers: damaged", one.file)
    return vector


def as_number(value: Any) -> float | None:
    vector = as_vector(value, 1)
    return None if vector is None else float(vector[0])


def as_text(value: Any) -> str | None:
    """Text, several values joined by a space as Siemens' kernels have them; None if empty."""
    return " ".join(map(str, as_list(value))).strip() or None


def shared_value(slices: Sequence[Slice], name: str) -> Any:
    """What all slices say alike under a keyword, or None."""
    values = [one.tags.get(name) for one in slices]
    return values[0] if all(value == values[0] for value in values) else None


def exposure_mas_of(tags: Any) -> float | None:
    """Exposure in mAs; three tags may have it, in two units."""
    for name, scale in (("Exposure", 1), ("ExposureInmAs", 1), ("ExposureInuAs", 1000)):
        value = as_number(tags.get(name))
        if value is not None:
            return value / scale
    return None


def window_of(tags: Any) -> Window | None:
    """The first window that a header names, or None."""
    level, width = ((as_list(tags.get(name)) or [None])[0] for name in ("WindowCenter", "WindowWidth"))
    level, width = as_number(level), as_number(width)
    return Window(level, width) if level is not None and width is not None and width > 0 else None


def shown_tags(one: Slice) -> dict[str, Any]:
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
