"""Slices to a volume in HU: turned, rescaled, unpacked, and stacks that make no volume."""

import io
import shutil
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)

from alden_lite.data.dicom.series import find_series, header, read_series
from alden_lite.data.dicom.stack import hu_from_stored
from alden_lite.data.dicom.tags import DicomError
from made_dicom import (
    AXIAL,
    CORONAL,
    CT_SMALL,
    HU,
    change,
    ct,
    orientations,
    packed,
    refusal,
    save,
    stored_at,
    write_series,
)

# The right way up


@pytest.mark.parametrize(("thickness", "depth"), [(3, 3.0), (None, 1.0), (0, 1.0)])
def test_one_slice_is_as_deep_as_its_header_says_or_1_mm(
    tmp_path: Path, thickness: float | None, depth: float
) -> None:
    read = read_series(save(ct(HU[0], SliceThickness=thickness), tmp_path / "slice"))
    assert read.spacing_mm == (depth, 0.5, 0.5)
    assert np.array_equal(read.hu, HU[:1])


@pytest.mark.parametrize("start", [-1000.04, 0.0, 0.06])
def test_positions_rounded_to_a_tenth_are_evenly_spaced(tmp_path: Path, start: float) -> None:
    heights = [round(start + 0.625 * n, 1) for n in range(len(HU))]
    for picture, z in zip(HU, heights, strict=True):
        save(ct(picture, z=z), tmp_path / f"{z}.dcm")
    # The whole length in equal parts: no single step is right.
    assert read_series(tmp_path).spacing_mm[0] == pytest.approx((heights[-1] - heights[0]) / 3)


def test_a_rounded_orientation_is_axial(tmp_path: Path) -> None:
    write_series(tmp_path, ImageOrientationPatient=[0.99995, 0.01, 0, -0.01, 0.99995, 0])
    assert np.array_equal(read_series(tmp_path).hu, HU)


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
    orientation=orientations(),
    scale=st.sampled_from([("1", "0"), ("1", "-1024"), ("0.5", "-100.25"), ("1.7", "-8192"), ("-1", "12")]),
    kind=st.sampled_from(["int16", "uint16", "uint8"]),
    syntax=st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_a_volume_written_any_way_up_and_in_any_order_is_read_back(
    shape: tuple[int, int, int],
    orientation: tuple[int, ...],
    scale: tuple[str, str],
    kind: str,
    syntax: str,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    limits = np.iinfo(kind)
    stored = rng.integers(max(limits.min, -2000), min(limits.max, 6000), shape, dtype=kind)
    slope, intercept = map(Fraction, scale)
    exact = [max(-1024, round(int(value) * slope + intercept)) for value in stored.flat]
    start = np.array([-7.0, 11.0, -50.0])
    names = rng.permutation(shape[0])
    with tempfile.TemporaryDirectory() as folder:
        for n, picture in enumerate(stored):
            origin = start + np.array([0, 0, 1.25 * n])
            turned, first = stored_at(picture, orientation, origin, 0.75)
            one = ct(turned, PixelSpacing=[0.75, 0.75], ImageOrientationPatient=list(orientation))
            one.RescaleSlope, one.RescaleIntercept = scale
            one.ImagePositionPatient = list(first)
            save(one, Path(folder, f"{names[n]}"), syntax)
        read = read_series(folder)
    assert np.array_equal(read.hu, np.array(exact).reshape(shape))
    assert read.spacing_mm == (1.25 if shape[0] > 1 else 3, 0.75, 0.75)
    assert read.origin_mm == (-50, 11, -7)


# HU


def test_stored_values_become_hu_by_slope_and_intercept() -> None:
    stored = np.array([[0, 1, 2], [3, 4095, 65535]], dtype=np.uint16)
    hu = hu_from_stored(stored, slope=0.5, intercept=-1000)
    assert hu.tolist() == [[-1000, -1000, -999], [-998, 1048, 31768]]  # halves to even
    assert hu.dtype == np.int16


def test_what_16_bits_cannot_hold_is_clipped_and_does_not_wrap() -> None:
    hu = hu_from_stored(np.array([0, 65535], dtype=np.uint16), slope=2, intercept=-40000)
    assert hu.tolist() == [-32768, 32767]


@pytest.mark.parametrize(("slope", "intercept"), [(0, 0), (float("nan"), 0), (1, float("inf"))])
def test_a_slope_that_makes_no_hu_is_refused(slope: float, intercept: float) -> None:
    with pytest.raises(ValueError, match="make no HU"):
        hu_from_stored(np.zeros(1), slope=slope, intercept=intercept)


def test_slices_may_each_have_their_own_slope(tmp_path: Path) -> None:
    for n, slope in enumerate((1, 2, 0.5)):
        save(ct(np.full((2, 2), 100, np.int16), z=n, RescaleSlope=slope), tmp_path / f"{n}")
    assert read_series(tmp_path).hu[:, 0, 0].tolist() == [100, 200, 50]


def test_padding_is_air(tmp_path: Path) -> None:
    stored = np.array([[-2048, -2000, -1025], [-1024, -1000, 0]], dtype=np.int16)
    read = read_series(save(ct(stored), tmp_path / "a"))
    assert read.hu.tolist() == [[[-1024, -1024, -1024], [-1024, -1000, 0]]]


def test_pixels_of_the_padding_value_are_air_whatever_their_hu(tmp_path: Path) -> None:
    stored = np.array([[9, 10, 11]], dtype=np.int16)
    one = ct(stored, PixelPaddingValue=10)
    one["PixelPaddingValue"].VR = "SS"
    assert read_series(save(one, tmp_path / "one")).hu.tolist() == [[[9, -1024, 11]]]
    one.PixelPaddingRangeLimit = 9
    one["PixelPaddingRangeLimit"].VR = "SS"
    assert read_series(save(one, tmp_path / "range")).hu.tolist() == [[[-1024, -1024, 11]]]


def test_padding_is_marked_where_it_lies_and_clipped_air_is_not(tmp_path: Path) -> None:
    stored = np.array([[-2000, -1501, -1500], [-1025, 7, 0]], dtype=np.int16)
    one = ct(stored, ImageOrientationPatient=[-1, 0, 0, 0, 1, 0])  # columns run from left to right
    one.add_new("PixelPaddingValue", "SS", 7)
    read = read_series(save(one, tmp_path / "a"))
    assert read.hu.tolist() == [[[-1024, -1024, -1024], [0, -1024, -1024]]]
    assert read.padding.tolist() == [[[False, True, True], [False, True, False]]]


@pytest.mark.parametrize(("kind", "vr", "padding"), [("int16", "US", 63536), ("uint16", "SS", -2000)])
def test_a_padding_value_of_the_wrong_sign_is_understood(
    tmp_path: Path, kind: str, vr: str, padding: int
) -> None:
    stored = np.array([-2000, 7], dtype=np.int16).astype(kind)[None]
    one = ct(stored, RescaleIntercept=0 if kind == "int16" else -100)
    one.add_new("PixelPaddingValue", vr, padding)
    read = read_series(save(one, tmp_path / "a"))
    assert read.hu.tolist() == [[[-1024, 7 + int(one.RescaleIntercept)]]]


def test_bits_above_those_stored_do_not_count(tmp_path: Path) -> None:
    stored = np.array([[0x8FFF, 0x1000]], dtype=np.uint16)  # old scanners kept overlays up there
    read = read_series(save(ct(stored, BitsStored=12, HighBit=11), tmp_path / "a"))
    assert read.hu.tolist() == [[[4095, 0]]]


# Ways of packing


def small_hu() -> np.ndarray:
    """pydicom's CT_small.dcm in HU, from its raw bytes: (1, 128, 128)."""
    one = pydicom.dcmread(CT_SMALL)
    return np.frombuffer(one.PixelData, "<i2").reshape(1, 128, 128) - 1024


LOSSLESS = [
    "ImplicitVRLittleEndian",
    "ExplicitVRBigEndian",
    "DeflatedExplicitVRLittleEndian",
    "RLELossless",
    "JPEGLosslessProcess14",
    "JPEGLosslessProcess14_1",
    "JPEGLSLossless",
    "JPEG2000Lossless",
]


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_every_lossless_packing_gives_the_same_hu(tmp_path: Path, syntax: str) -> None:
    file = packed(tmp_path / "a.dcm", getattr(gdcm.TransferSyntax, syntax))
    assert header(file)["TransferSyntaxUID"] != "Explicit VR Little Endian"
    assert np.array_equal(read_series(file).hu, small_hu())


@pytest.mark.filterwarnings("ignore:End of file reached")
@pytest.mark.parametrize("syntax", [*LOSSLESS, "ExplicitVRLittleEndian"])
def test_a_file_that_is_cut_off_is_never_read_as_if_whole(tmp_path: Path, syntax: str) -> None:
    whole = packed(tmp_path / "whole.dcm", getattr(gdcm.TransferSyntax, syntax)).read_bytes()
    cut = tmp_path / "cut.dcm"
    # CT_small.dcm ends with 126 bytes of padding after its pixels, which deflates to a few.
    ends = [len(whole) - 200, *np.linspace(1, len(whole) - 200, 12).astype(int)]
    for end in ends:
        cut.write_bytes(whole[:end])
        with pytest.raises(
            DicomError, match=r"cut\.dcm cannot be read: .*(cut off|damaged|not a DICOM file)"
        ):
            read_series(cut)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("MR_small_implicit.dcm", "MR_small.dcm"),
        ("MR_small_bigendian.dcm", "MR_small.dcm"),
    ],
)
def test_files_packed_by_others_give_the_same_numbers(tmp_path: Path, name: str, plain: str) -> None:
    def as_ct(source: str) -> np.ndarray:
        one = pydicom.dcmread(Path(get_testdata_file(source, download=False)))
        one.SOPClassUID, one.Modality, one.RescaleSlope, one.RescaleIntercept = CTImageStorage, "CT", 1, 0
        one.ImageOrientationPatient = list(AXIAL)
        one.save_as(tmp_path / source)
        return read_series(tmp_path / source).hu

    expected = pydicom.dcmread(Path(get_testdata_file(plain, download=False))).PixelData
    assert np.array_equal(as_ct(name)[0], np.frombuffer(expected, "<i2").reshape(64, 64))


def test_near_lossless_jpeg_ls_is_read_to_its_tolerance(tmp_path: Path) -> None:
    # pydicom's test file: 16 bits, error up to 2, a ramp of which its README gives values.
    one = pydicom.dcmread(get_testdata_file("JPEGLSNearLossless_16.dcm", download=False))
    slice_ = ct(np.zeros((one.Rows, one.Columns), np.uint16), BitsStored=one.BitsStored, HighBit=one.HighBit)
    slice_.PixelData = one.PixelData
    slice_["PixelData"].VR = "OB"
    slice_["PixelData"].is_undefined_length = True
    file = save(slice_, tmp_path / "a", one.file_meta.TransferSyntaxUID)
    assert np.array_equal(read_series(file).hu[0], one.pixel_array.clip(max=32767))


def test_lossy_jpeg_2000_of_ct_agrees_with_a_second_decoder() -> None:
    file = Path(get_testdata_file("693_J2KI.dcm", download=False))
    one = pydicom.dcmread(file)
    one.pixel_array_options(decoding_plugin="pillow")
    other = np.maximum(one.pixel_array.astype(int) - 1024, -1024)
    assert np.array_equal(read_series(file).hu[0], other)
    assert header(file)["ImageType"] == ["DERIVED", "PRIMARY", "AXIAL"]  # the file has "DERIVED "


def test_baseline_jpeg_is_read(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(16), np.arange(24)).astype(np.uint8)
    with io.BytesIO() as buffer:
        Image.fromarray(smooth).save(buffer, "JPEG", quality=95)
        coded = buffer.getvalue()
    one = ct(smooth, RescaleIntercept=-20)
    one.PixelData = encapsulate([coded])
    one["PixelData"].VR = "OB"
    read = read_series(save(one, tmp_path / "a", JPEGBaseline8Bit))
    assert np.array_equal(read.hu[0], np.asarray(Image.open(io.BytesIO(coded))).astype(int) - 20)


def test_a_deflated_file_is_read(tmp_path: Path) -> None:
    file = save(ct(HU[0]), tmp_path / "a", DeflatedExplicitVRLittleEndian)
    assert np.array_equal(read_series(file).hu[0], HU[0])


def test_big_endian_pixels_are_swapped(tmp_path: Path) -> None:
    one = ct(HU[0])
    one.PixelData = HU[0].astype(">i2").tobytes()
    assert np.array_equal(read_series(save(one, tmp_path / "a", ExplicitVRBigEndian)).hu[0], HU[0])


def test_a_packing_without_a_decoder_is_refused_before_pixels_are_read(tmp_path: Path) -> None:
    one = ct(HU[0])
    one.PixelData = encapsulate([b"no picture"])
    one["PixelData"].VR = "OB"
    file = save(one, tmp_path / "a", HTJ2KLossless)
    assert "High-Throughput JPEG 2000" in refusal(file)
    assert "unpack them first" in str(find_series(file)[0].refused)


def test_jpeg_of_12_bits_is_refused_and_not_guessed_at(tmp_path: Path) -> None:
    source = pydicom.dcmread(get_testdata_file("JPEG-lossy.dcm", download=False))
    one = ct(np.zeros((source.Rows, source.Columns), np.uint16), BitsStored=12, HighBit=11)
    one.PixelData = source.PixelData
    one["PixelData"].VR = "OB"
    said = refusal(save(one, tmp_path / "a", JPEGExtended12Bit))
    assert "12-bit" in said
    assert "cannot be decoded" in said


# Copies of a slice


def test_copies_of_a_slice_are_read_once(tmp_path: Path) -> None:
    files = write_series(tmp_path / "a")
    shutil.copy(files[2], tmp_path / "copy.dcm")
    assert np.array_equal(read_series(tmp_path).hu, HU)
    assert find_series(tmp_path)[0].n_slices == 4


def test_copies_that_differ_are_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path / "a")
    one = pydicom.dcmread(files[2])
    one.PixelData = (HU[2] + 1).tobytes()
    one.save_as(tmp_path / "copy.dcm")
    assert "two copies of one slice" in refusal(tmp_path)


# Series that make no volume

ODD: list[tuple[str, Callable[[list[Path]], None]]] = [
    ("1 slice is missing, between z = 100.0 and 105.0 mm", lambda files: files[1].unlink()),
    (
        "mixes 3 slices of 5 x 6 and 1 slices of 2 x 2",
        lambda files: replace(files[0], np.zeros((2, 2), "i2")),
    ),
    ("mixes pixel sizes", lambda files: change(files[3], PixelSpacing=[0.6, 0.6])),
    ("mixes orientations", lambda files: change(min(files), ImageOrientationPatient=list(CORONAL))),
    ("mixes orientations", lambda files: change(max(files), ImageOrientationPatient=list(CORONAL))),
    ("mixes orientations", lambda files: change(files[3], ImageOrientationPatient=[-1, 0, 0, 0, 1, 0])),
    (
        "two slices lie at one place, z = 105.0",
        lambda files: change(files[3], ImagePositionPatient=[-10, -20, 105]),
    ),
    (
        "shifted against each other by up to 1.00 mm",
        lambda files: change(files[3], ImagePositionPatient=[-10, -19, 107.5]),
    ),
    (
        "not evenly spaced, 2.50 to 3.70 mm apart",
        lambda files: change(files[3], ImagePositionPatient=[-10, -20, 108.7]),
    ),
    ("1 of its 4 slices have no RescaleSlope", lambda files: strip(files[2], "RescaleSlope")),
    ("1 of its 4 slices have no ImagePositionPatient", lambda files: strip(files[2], "ImagePositionPatient")),
    ("no numbers that make HU", lambda files: change(files[2], RescaleSlope=0)),
    (
        "ImagePositionPatient of a slice is not 3 numbers",
        lambda files: change(files[0], ImagePositionPatient=[1, 2]),
    ),
    ("in colour", lambda files: change(files[0], SamplesPerPixel=3, PhotometricInterpretation="RGB")),
    ("MONOCHROME1", lambda files: change(files[0], PhotometricInterpretation="MONOCHROME1")),
    ("RescaleType Z_EFF", lambda files: change(files[0], RescaleType="Z_EFF")),
    ("cannot be decoded", lambda files: strip(files[1], "PixelData")),
    ("z = 102.5 mm", lambda files: change(files[1], PixelData=b"\0" * 58)),
]


def replace(file: Path, stored: np.ndarray) -> None:
    """A slice of other pixels in place of a file."""
    z = pydicom.dcmread(file).ImagePositionPatient[2]
    save(ct(stored, z=z), file)


def strip(file: Path, name: str) -> None:
    """Take a tag out of a file."""
    one = pydicom.dcmread(file)
    delattr(one, name)
    one.save_as(file)


@pytest.mark.parametrize(("said", "spoil"), ODD, ids=[said for said, _ in ODD])
def test_a_series_that_makes_no_volume_is_refused_with_the_reason(
    tmp_path: Path, said: str, spoil: Callable[[list[Path]], None]
) -> None:
    spoil(write_series(tmp_path))
    assert said in refusal(tmp_path)


def test_all_missing_slices_are_counted(tmp_path: Path) -> None:
    files = write_series(tmp_path, np.repeat(HU, 3, axis=0))
    for n in (2, 6, 7):
        files[n].unlink()
    assert "3 slices are missing, between z = 102.5 and 107.5 mm and in 1 more places" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("said", "tags"),
    [
        ("pixels are oblong, 0.5 x 0.7 mm", {"PixelSpacing": [0.5, 0.7]}),
        ("not two lengths", {"PixelSpacing": [0, 0]}),
        ("not a pair of directions", {"ImageOrientationPatient": [0] * 6}),
        ("tilted by 20.0 degrees", {"ImageOrientationPatient": [1, 0, 0, 0, 0.9397, -0.3420]}),
        (
            "turned in its plane by 20.0 degrees",
            {"ImageOrientationPatient": [0.9397, 0.342, 0, -0.342, 0.9397, 0]},
        ),
    ],
)
def test_slices_that_do_not_lie_straight_are_refused(tmp_path: Path, said: str, tags: dict[str, Any]) -> None:
    write_series(tmp_path, **tags)
    assert said in refusal(tmp_path)
    assert said in str(find_series(tmp_path)[0].refused)
    assert find_series(tmp_path)[0].spacing_mm is None


def test_slices_stacked_along_a_tilted_table_are_refused(tmp_path: Path) -> None:
    for n, picture in enumerate(HU):
        save(ct(picture, z=n, ImagePositionPatient=[-10, -20 + 0.2 * n, n]), tmp_path / f"{n}")
    assert "shifted against each other by up to 0.60 mm" in refusal(tmp_path)
