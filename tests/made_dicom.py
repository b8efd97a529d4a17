"""DICOM files as scanners could have written them, made up for tests, and how reading refuses them."""

import random
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from alden_lite.data.dicom.series import read_series
from alden_lite.data.dicom.tags import DicomError

AXIAL = (1, 0, 0, 0, 1, 0)
CORONAL = (1, 0, 0, 0, 0, -1)
HU = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 50  # (Z, Y, X), every voxel its own
NAME = "Doe^Jane"
FUNCTIONAL = (
    *("PixelSpacing", "SliceThickness", "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope"),
    *("RescaleIntercept", "ConvolutionKernel", "KVP", "Exposure", "WindowCenter", "WindowWidth"),
)
"""What an enhanced file says of its frames, and not at its top."""


def ct(stored: np.ndarray, *, z: float = 0.0, uid: str = "1.2.3", **tags: Any) -> pydicom.Dataset:
    """One CT slice that scanners could have written; `tags` set, or with None remove, what is given."""
    one = pydicom.Dataset()
    one.SOPClassUID, one.SOPInstanceUID, one.SeriesInstanceUID = CTImageStorage, generate_uid(), uid
    one.PatientName, one.PatientID, one.PatientBirthDate = NAME, "PID-4711", "19470101"
    one.SeriesDescription, one.SeriesNumber, one.InstanceNumber = "Abdomen", 4, 1
    one.Modality, one.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    one.Manufacturer, one.ConvolutionKernel, one.KVP, one.Exposure = "ACME", "B30f", 120, 200
    one.SliceThickness, one.PixelSpacing = 3, [0.5, 0.5]
    one.ImageOrientationPatient, one.ImagePositionPatient = list(AXIAL), [-10, -20, z]
    one.Rows, one.Columns = stored.shape
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 8 * stored.dtype.itemsize
    one.HighBit, one.PixelRepresentation = one.BitsStored - 1, int(stored.dtype.kind == "i")
    one.RescaleSlope, one.RescaleIntercept = 1, 0
    one.WindowCenter, one.WindowWidth = [50, -600], [350, 1500]
    one.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(one, name)
        else:
            setattr(one, name, value)
    return one


def save(one: pydicom.Dataset, file: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a slice with its file meta information."""
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = syntax
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    file.parent.mkdir(parents=True, exist_ok=True)
    one.save_as(file, enforce_file_format=True)
    return file


def write_series(folder: Path, hu: np.ndarray = HU, step: float = 2.5, **tags: Any) -> list[Path]:
    """A series from caudal to cranial; file names in another order."""
    names = random.Random(0).sample(range(1000), len(hu))
    return [
        save(ct(picture, z=100 + step * n, **tags), folder / f"{name:03}.dcm")
        for n, (picture, name) in enumerate(zip(hu, names, strict=True))
    ]


@st.composite
def orientations(draw: st.DrawFn) -> tuple[int, ...]:
    """One of the eight ways an axial picture can lie: supine, prone, on a side, and their mirror images."""
    x, y = draw(st.sampled_from([-1, 1])), draw(st.sampled_from([-1, 1]))
    return draw(st.sampled_from([(x, 0, 0, 0, y, 0), (0, y, 0, x, 0, 0)]))


def stored_at(
    hu: np.ndarray, orientation: Sequence[int], origin: np.ndarray, pixel: float
) -> tuple[np.ndarray, np.ndarray]:
    """A slice (Y, X) as pictured along an orientation: (rows, columns), and the position of its first pixel.

    By DICOM PS3.3 equation C.7.6.2.1-1, pixel by pixel: where a pixel lies says which voxel it shows.
    """
    along_row, along_column = np.array(orientation[:3]), np.array(orientation[3:])
    height, width = hu.shape
    far = origin + np.array([(width - 1) * pixel, (height - 1) * pixel, 0])
    first = np.where(along_row + along_column < 0, far, origin)
    rows, columns = (width, height) if along_row[1] else (height, width)
    picture = np.empty((rows, columns), dtype=hu.dtype)
    for row in range(rows):
        for column in range(columns):
            place = first + column * pixel * along_row + row * pixel * along_column
            x, y, _ = np.rint((place - origin) / pixel).astype(int)
            picture[row, column] = hu[y, x]
    return picture, first


def item(**tags: Any) -> pydicom.Dataset:
    """A Dataset of the given tags."""
    one = pydicom.Dataset()
    for name, value in tags.items():
        setattr(one, name, value)
    return one


def enhanced(hu: np.ndarray, order: Sequence[int], **tags: Any) -> pydicom.Dataset:
    """A series in one file; its frames in any order."""
    one = ct(hu[0], SOPClassUID=EnhancedCTImageStorage, ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
    for name in FUNCTIONAL:
        delattr(one, name)
    one.NumberOfFrames = len(order)
    one.PixelData = hu[list(order)].tobytes()
    shared = item(
        PixelMeasuresSequence=Items([item(PixelSpacing=[0.5, 0.5], SliceThickness=3)]),
        PlaneOrientationSequence=Items([item(ImageOrientationPatient=list(AXIAL))]),
        CTReconstructionSequence=Items([item(ConvolutionKernel="B30f")]),
        CTXRayDetailsSequence=Items([item(KVP=120)]),
        FrameVOILUTSequence=Items([item(WindowCenter=50, WindowWidth=350)]),
    )
    one.SharedFunctionalGroupsSequence = Items([shared])
    one.PerFrameFunctionalGroupsSequence = Items(
        item(
            PlanePositionSequence=Items([item(ImagePositionPatient=[-10, -20, 100 + 2.5 * n])]),
            PixelValueTransformationSequence=Items(
                [item(RescaleSlope=1, RescaleIntercept=0, RescaleType="HU")]
            ),
            CTExposureSequence=Items([item(ExposureInmAs=200.0 + n)]),
            CTImageFrameTypeSequence=Items([item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])]),
        )
        for n in order
    )
    for name, value in tags.items():
        setattr(one, name, value)
    return one


def refusal(path: Path, **options: Any) -> str:
    """What `read_series` says when it refuses, after checking that it gives away no name."""
    with pytest.raises(DicomError) as caught:
        read_series(path, **options)
    said = "".join(traceback.format_exception(caught.value))
    assert NAME not in said
    assert "PID" not in said
    return str(caught.value)


def change(file: Path, **tags: Any) -> None:
    """Write a file again with other tags."""
    one = pydicom.dcmread(file)
    for name, value in tags.items():
        setattr(one, name, value)
    one.save_as(file)


CT_SMALL = Path(get_testdata_file("CT_small.dcm", download=False))


def packed(file: Path, syntax: int) -> Path:
    """CT_small.dcm in another transfer syntax, by GDCM."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(CT_SMALL))
    assert reader.Read()
    changer = gdcm.ImageChangeTransferSyntax()
    changer.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    changer.SetInput(reader.GetImage())
    assert changer.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(file))
    writer.SetFile(reader.GetFile())
    writer.SetImage(changer.GetOutput())
    assert writer.Write()
    return file
