"""DICOM out: the same voxels in the same places, a new series, and nothing that says whose it was."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.config import IGNORE
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, generate_uid

from alden_lite.data.dicom import write as dicom_writer
from alden_lite.data.dicom.series import Series, find_series, header, read_series
from alden_lite.data.dicom.write import write_derived
from alden_lite.physics.hounsfield import Window
from made_dicom import HU, ct, enhanced, orientations, save, stored_at, write_series

HOW = "halved by a test"
KERNEL_B30F = b"\x18\x00\x10\x12SH\x04\x00B30f"
KERNEL_TOO_LONG = b"\x18\x00\x10\x12SH\x12\x00eighteen_letters__"


def written(folder: Path, source: Series, hu: np.ndarray | None = None) -> list[pydicom.FileDataset]:
    """The files of a derived series, in order of name; its HU are the source's if not given."""
    write_derived(folder, source.hu if hu is None else hu, source, how=HOW)
    return [pydicom.dcmread(file) for file in sorted(folder.iterdir())]


def burned_in(folder: Path, said: Sequence[str | None]) -> Series:
    """A series as read, whose slices' headers have these BurnedInAnnotations, or none of it where None."""
    for n, value in enumerate(said):
        one = ct(HU[n], z=n)
        if value is not None:
            one.add(DataElement("BurnedInAnnotation", "CS", value, validation_mode=IGNORE))
        save(one, folder / str(n))
    return read_series(folder)


# Voxels and places


def test_what_is_written_is_read_back_in_its_place(tmp_path: Path) -> None:
    write_series(tmp_path / "scan")
    source = read_series(tmp_path / "scan")
    write_derived(tmp_path / "out", HU * 2 - 7, source, how=HOW)
    back = read_series(tmp_path / "out")
    assert np.array_equal(back.hu, HU * 2 - 7)
    assert (back.spacing_mm, back.origin_mm) == ((2.5, 0.5, 0.5), (100, -20, -10))
    assert (back.manufacturer, back.kernel, back.kvp, back.exposure_mas) == ("ACME", "B30f", 120, 200)
    assert (back.slice_thickness_mm, back.window) == (3, Window(50, 350))


@given(orientation=orientations(), depth=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_however_the_patient_lay_the_voxels_stay_where_they_were(
    tmp_path_factory: pytest.TempPathFactory, orientation: tuple[int, ...], depth: int
) -> None:
    folder = tmp_path_factory.mktemp("scan")
    for n in range(depth):
        turned, first = stored_at(HU[n], orientation, np.array([-7.3, 11.1, -50 + 1.25 * n]), 0.7421875)
        one = ct(turned, PixelSpacing=[0.7421875] * 2, ImageOrientationPatient=list(orientation))
        one.ImagePositionPatient = [round(float(value), 6) for value in first]
        save(one, folder / "scan" / f"{9 - n}")
    source = read_series(folder / "scan")
    files = written(folder / "out", source)
    back = read_series(folder / "out")
    assert np.array_equal(back.hu, HU[:depth])
    assert back.spacing_mm == pytest.approx((1.25 if depth > 1 else 3, 0.7421875, 0.7421875))
    assert back.origin_mm == pytest.approx((-50, 11.1, -7.3))
    for n, one in enumerate(files):
        assert one.InstanceNumber == n + 1
        assert one.ImagePositionPatient[2] == pytest.approx(-50 + 1.25 * n)
        assert one.ImageOrientationPatient == [1, 0, 0, 0, 1, 0]


@pytest.mark.filterwarnings("ignore:The DICOM readers are highly experimental")
def test_two_other_readers_find_the_same_hu_in_the_same_places(tmp_path: Path) -> None:
    from nibabel.nicom import dicomwrappers

    write_series(tmp_path / "scan")
    source = read_series(tmp_path / "scan")
    write_derived(tmp_path / "out", source.hu, source, how=HOW)
    for z, file in enumerate(sorted((tmp_path / "out").iterdir())):
        wrapper = dicomwrappers.wrapper_from_file(file)
        assert np.array_equal(wrapper.get_data(), HU[z])
        # nibabel's voxels here are (row, column): row 3, column 4 lies 2 mm left and 1.5 mm behind the first.
        assert wrapper.affine @ [3, 4, 0, 1] == pytest.approx([-10 + 2, -20 + 1.5, 100 + 2.5 * z, 1])
        reader = gdcm.ImageReader()
        reader.SetFileName(str(file))
        assert reader.Read()
        image = reader.GetImage()
        assert [image.GetOrigin(n) for n in range(3)] == [-10, -20, 100 + 2.5 * z]
        assert [image.GetSpacing(n) for n in range(2)] == [0.5, 0.5]
        assert [image.GetDirectionCosines(n) for n in range(6)] == [1, 0, 0, 0, 1, 0]
        assert (image.GetSlope(), image.GetIntercept()) == (1, 0)
        assert image.GetPixelFormat().GetScalarTypeAsString() == "INT16"


def test_a_place_that_no_short_decimal_holds_is_kept_to_a_thousandth_of_a_millimetre(tmp_path: Path) -> None:
    for n in range(3):
        one = ct(HU[n], PixelSpacing=[0.683593751234] * 2)
        one.ImagePositionPatient = [-174.65820312345, -331.6582031234, round(-1000 + 2.5 / 3 * n, 9)]
        save(one, tmp_path / "scan" / str(n))
    source = read_series(tmp_path / "scan")
    files = written(tmp_path / "out", source)
    back = read_series(tmp_path / "out")
    assert back.spacing_mm == pytest.approx(source.spacing_mm, abs=1e-6)
    assert back.origin_mm == pytest.approx(source.origin_mm, abs=1e-6)
    assert max(len(str(value)) for one in files for value in one.ImagePositionPatient) <= 16


def test_hu_are_stored_as_they_are_up_to_the_ends_of_16_bits(tmp_path: Path) -> None:
    source = read_series(save(ct(np.zeros((2, 2), np.int16)), tmp_path / "slice"))
    hu = np.array([[[-1024, 32767], [0, 3071]]], dtype=np.int16)
    (one,) = written(tmp_path / "out", source, hu)
    assert (one.RescaleSlope, one.RescaleIntercept, one.RescaleType) == (1, 0, "HU")
    assert np.array_equal(one.pixel_array, hu[0])
    assert np.array_equal(read_series(tmp_path / "out").hu, hu)


@pytest.mark.parametrize(("thickness", "depth"), [(0.625, 0.625), (None, 1.0)])
def test_one_slice_stays_as_deep_as_it_was(tmp_path: Path, thickness: float | None, depth: float) -> None:
    source = read_series(save(ct(HU[0], SliceThickness=thickness), tmp_path / "slice"))
    (one,) = written(tmp_path / "out", source)
    assert one.SliceThickness == thickness  # one that the scanner did not state is not made up
    assert read_series(tmp_path / "out").spacing_mm[0] == depth


def test_the_frames_of_an_enhanced_file_become_files(tmp_path: Path) -> None:
    source = read_series(save(enhanced(HU, [2, 0, 3, 1]), tmp_path / "enhanced.dcm"))
    files = written(tmp_path / "out", source)
    assert len(files) == len(HU)
    assert {one.SOPClassUID.name for one in files} == {"CT Image Storage"}
    assert np.array_equal(read_series(tmp_path / "out").hu, HU)


def test_a_slice_keeps_its_own_exposure_and_all_its_windows(tmp_path: Path) -> None:
    for n, mas in enumerate((80, 110, 95)):
        save(ct(HU[n], z=n, Exposure=mas, PatientPosition="FFP"), tmp_path / "scan" / str(n))
    files = written(tmp_path / "out", read_series(tmp_path / "scan"))
    assert [one.Exposure for one in files] == [80, 110, 95]
    assert [(one.WindowCenter, one.WindowWidth) for one in files] == [([50, -600], [350, 1500])] * 3
    assert {one.PatientPosition for one in files} == {"FFP"}


def test_what_the_source_says_against_the_standard_is_left_out(tmp_path: Path) -> None:
    scan = save(ct(HU[0]), tmp_path / "slice")
    scan.write_bytes(scan.read_bytes().replace(KERNEL_B30F, KERNEL_TOO_LONG))
    with pytest.warns(UserWarning, match="maximum length"):
        source = read_series(scan)
    assert source.kernel == "eighteen_letters__"
    (out,) = written(tmp_path / "out", source)
    assert "ConvolutionKernel" not in out
    assert out.KVP == 120


def test_a_name_in_any_alphabet_is_kept(tmp_path: Path) -> None:
    one = ct(HU[0])
    one.SpecificCharacterSet, one.Manufacturer = "ISO_IR 100", "Röntgenwerk"
    (out,) = written(tmp_path / "out", read_series(save(one, tmp_path / "slice")))
    assert out.Manufacturer == "Röntgenwerk"
    assert "Röntgenwerk".encode() in (tmp_path / "out" / "slice_0001.dcm").read_bytes()
    assert out.SpecificCharacterSet == "ISO_IR 192"  # UTF-8


# What the files say of themselves


def test_every_file_says_what_it_is(tmp_path: Path) -> None:
    write_series(tmp_path / "scan")
    for one in written(tmp_path / "out", read_series(tmp_path / "scan")):
        assert one.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]
        assert one.SeriesDescription == "alden_lite denoised; NOT FOR CLINICAL USE"
        assert one.DerivationDescription == HOW
        assert re.fullmatch(r"alden_lite \d+\.\d+\.\d+", one.SoftwareVersions)
        assert re.search("header: .* new UIDs; pixels not looked at", one.DeidentificationMethod)
        assert len(one.DeidentificationMethod) <= 64  # LO
        assert one.LongitudinalTemporalInformationModified == "REMOVED"
        assert (one.PatientName, one.PatientID) == ("ANONYMOUS", "ANONYMOUS")
        assert (one.Modality, one.PhotometricInterpretation, one.SamplesPerPixel) == ("CT", "MONOCHROME2", 1)
        assert (one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation) == (16, 16, 15, 1)


@pytest.mark.parametrize("said", [("NO", "NO", "NO"), ("no ", " NO", "No")])
def test_no_text_and_no_identity_are_vouched_for_where_every_slice_denies_burned_in_text(
    tmp_path: Path, said: tuple[str, ...]
) -> None:
    for one in written(tmp_path / "out", burned_in(tmp_path / "scan", said)):
        assert (one.BurnedInAnnotation, one.PatientIdentityRemoved) == ("NO", "YES")
        assert "pixels not looked at" in one.DeidentificationMethod


@pytest.mark.parametrize("said", [(None, None, None), ("NO", None, "NO"), ("NO", "NO", ""), ("  ", "", "")])
def test_of_pixels_that_no_header_speaks_of_no_file_says_that_they_name_nobody(
    tmp_path: Path, said: tuple[str | None, ...]
) -> None:
    for one in written(tmp_path / "out", burned_in(tmp_path / "scan", said)):
        assert "BurnedInAnnotation" not in one
        assert "PatientIdentityRemoved" not in one
        assert "pixels not looked at" in one.DeidentificationMethod


@pytest.mark.parametrize(("said", "vouched"), [(None, False), ("", False), (" ", False), (" no ", True)])
def test_a_series_made_by_hand_may_say_none_or_nothing_of_burned_in_text(
    tmp_path: Path, said: str | None, vouched: bool
) -> None:
    source = burned_in(tmp_path / "scan", ["NO"])
    source = replace(source, headers=({**source.headers[0], "BurnedInAnnotation": said},))
    (one,) = written(tmp_path / "out", source)
    assert ("PatientIdentityRemoved" in one) == ("BurnedInAnnotation" in one) == vouched


def test_uids_are_new_valid_and_shared_by_a_run(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", StudyInstanceUID="1.2.840.1", FrameOfReferenceUID="1.2.840.2")
    source = read_series(tmp_path / "scan")
    runs = [written(tmp_path / name, source) for name in ("out", "again")]
    names = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    for run in runs:
        assert [len({one[name].value for one in run}) for name in names] == [1, 1, 1]
        assert all(one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID for one in run)
    of_run = [run[0][name].value for run in runs for name in names]
    of_slice = [one.SOPInstanceUID for run in runs for one in run]
    assert len({*of_run, *of_slice}) == 2 * 3 + 2 * len(HU)
    assert all(UID(uid).is_valid and uid.startswith("2.25.") for uid in (*of_run, *of_slice))


def test_a_ct_has_every_attribute_that_the_standard_asks_for(tmp_path: Path) -> None:
    source = read_series(save(ct(HU[0], Manufacturer="", KVP=None, SliceThickness=None), tmp_path / "slice"))
    (one,) = written(tmp_path / "out", source)
    # Types 1 and 2 of the modules that DICOM PS3.3 A.3.3 makes mandatory for a CT image.
    type_1 = (
        *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
        *("Modality", "ImageType", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"),
        *("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored"),
        *("HighBit", "PixelRepresentation", "PixelData", "RescaleIntercept", "RescaleSlope", "RescaleType"),
    )
    type_2 = (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
        *("AccessionNumber", "ReferringPhysicianName", "SeriesNumber", "PositionReferenceIndicator"),
        *("Manufacturer", "AcquisitionNumber", "InstanceNumber", "SliceThickness", "KVP", "PatientPosition"),
    )
    assert not [name for name in type_1 if one.get(name) in (None, "")]
    assert not [name for name in type_2 if name not in one]


def test_every_value_is_valid_for_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "scan")
    write_derived(tmp_path / "out", HU, read_series(tmp_path / "scan"), how=HOW)
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    for file in (tmp_path / "out").iterdir():
        assert all(element.VR != "UN" for element in pydicom.dcmread(file).iterall())


def test_a_derived_series_can_be_derived_from(tmp_path: Path) -> None:
    write_series(tmp_path / "scan")
    write_derived(tmp_path / "once", HU, read_series(tmp_path / "scan"), how=HOW)
    write_derived(tmp_path / "twice", HU, read_series(tmp_path / "once"), how=HOW)
    assert np.array_equal(read_series(tmp_path / "twice").hu, HU)
    assert [info.refused for info in find_series(tmp_path / "twice")] == [None]


# Whose it is


def planted() -> Dataset:
    """A slice whose header has a secret wherever one could stand."""
    one = ct(HU[0])
    texts = (
        *("PatientID", "OtherPatientNames", "PatientComments", "ImageComments", "PatientAddress", "StudyID"),
        *("InstitutionName", "InstitutionAddress", "ReferringPhysicianName", "OperatorsName", "StationName"),
        *("AccessionNumber", "StudyDescription", "SeriesDescription", "ProtocolName", "DeviceSerialNumber"),
        *(
            "DerivationDescription",
            "DeidentificationMethod",
            "MedicalRecordLocator",
            "AdditionalPatientHistory",
        ),
    )
    for n, name in enumerate(texts):
        setattr(one, name, f"SECRET{n}")
    one.PatientName = "SECRET^Doe"
    for name in ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(one, name, "19470102")
    for name in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime", "PatientBirthTime"):
        setattr(one, name, "121314")
    one.PatientSex, one.PatientAge, one.PatientWeight, one.PatientSize = "O", "079Y", "71.25", "1.875"
    one.StudyInstanceUID, one.FrameOfReferenceUID = "1.2.99999.1", "1.2.99999.2"
    one.private_block(0x0029, "SECRET MAKER", create=True).add_new(1, "LO", "SECRET of a private tag")
    inner = Dataset()
    inner.RequestedProcedureDescription, inner.ScheduledProcedureStepID = "SECRET item", "SECRET id"
    inner.ReferencedSOPInstanceUID = "1.2.99999.3"
    one.RequestAttributesSequence = Items([inner])
    outer = Dataset()
    outer.ReferencedSeriesSequence = Items([inner])
    one.OriginalAttributesSequence = Items([outer])
    one.add_new(0x60000010, "US", 1)  # an overlay: text drawn over the picture
    one.add_new(0x60003000, "OW", b"SECRET overlay")
    return one


def secrets(one: Dataset) -> list[bytes]:
    """What must not be found in any file made from `planted`."""
    uids = (one.SOPInstanceUID, one.SeriesInstanceUID, one.StudyInstanceUID, "1.2.99999")
    return [b"SECRET", b"Doe", b"19470102", b"121314", b"079Y", b"71.25", b"1.875", *map(str.encode, uids)]


def test_no_patient_identifier_is_in_any_file_that_is_written(tmp_path: Path) -> None:
    one = planted()
    one.SeriesInstanceUID = generate_uid()
    file = save(one, tmp_path / "SECRET_Doe" / "SECRET.dcm")
    source = read_series(file)
    assert all(secret in file.read_bytes() for secret in secrets(one))  # else the search would show nothing
    write_derived(tmp_path / "out", source.hu, source, how=HOW)
    for made in (tmp_path / "out").iterdir():
        content = made.read_bytes()
        assert not [secret for secret in secrets(one) if secret in content]
        assert "SECRET" not in made.name


def test_a_file_holds_the_listed_tags_and_no_others(tmp_path: Path) -> None:
    (one,) = written(tmp_path / "out", read_series(save(planted(), tmp_path / "slice")))
    own = (
        *("SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "StudyDate", "StudyTime"),
        *("AccessionNumber", "Modality", "ReferringPhysicianName", "SeriesDescription", "PatientName"),
        *("DerivationDescription", "PatientID", "PatientBirthDate", "PatientSex"),
        *("DeidentificationMethod", "SoftwareVersions", "StudyInstanceUID", "SeriesInstanceUID", "StudyID"),
        *("SeriesNumber", "AcquisitionNumber", "InstanceNumber", "ImagePositionPatient", "PatientPosition"),
        *("ImageOrientationPatient", "FrameOfReferenceUID", "PositionReferenceIndicator", "SamplesPerPixel"),
        *("PhotometricInterpretation", "Rows", "Columns", "PixelSpacing", "BitsAllocated", "BitsStored"),
        *("HighBit", "PixelRepresentation", "RescaleIntercept", "RescaleSlope"),
        *("RescaleType", "LongitudinalTemporalInformationModified", "PixelData"),
    )
    copied = (
        "Manufacturer",
        "KVP",
        "Exposure",
        "ConvolutionKernel",
        "SliceThickness",
        "WindowCenter",
        "WindowWidth",
    )
    assert sorted(element.keyword for element in one) == sorted((*own, *copied))
    assert not [element for element in one.iterall() if element.tag.is_private or element.VR == "SQ"]
    for name in ("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "PatientBirthDate", "PatientSex"):
        assert one[name].is_empty


@pytest.mark.parametrize("said", [("YES", "YES"), ("NO", "YES"), (None, "YES"), ("yes ", None), ("?", "NO")])
def test_pixels_with_a_burned_in_text_are_not_called_anonymous(
    tmp_path: Path, said: tuple[str | None, ...]
) -> None:
    source = burned_in(tmp_path / "scan", said)
    with pytest.raises(ValueError, match="burned into its pixels"):
        write_derived(tmp_path / "out", source.hu, source, how=HOW)
    assert [file.name for file in tmp_path.iterdir()] == ["scan"]


# Whole or not at all


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    source = read_series(save(ct(HU[0]), tmp_path / "slice"))
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        write_derived(tmp_path / "out", source.hu, source, how=HOW)
    with pytest.raises(FileNotFoundError, match="no folder"):
        write_derived(tmp_path / "nowhere" / "out", source.hu, source, how=HOW)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "hu",
    [HU[:1].astype(np.float32), HU[:1, :, :-1], HU[:2], HU[:1] - np.int16(1000)],
    ids=["float", "narrower", "deeper", "below -1024"],
)
def test_hu_that_do_not_fit_the_source_are_refused(tmp_path: Path, hu: np.ndarray) -> None:
    source = read_series(save(ct(HU[0]), tmp_path / "slice"))
    with pytest.raises(ValueError, match=r"expected int16 HU of shape \(1, 5, 6\)"):
        write_derived(tmp_path / "out", hu, source, how=HOW)


@pytest.mark.parametrize("moved", ["hu", "spacing_mm", "origin_mm"])
def test_a_series_that_reads_back_otherwise_gets_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    write_series(tmp_path / "scan")
    source = read_series(tmp_path / "scan")

    def damaged(path: Path) -> Series:
        back = read_series(path)
        changes: dict[str, Any] = {
            "hu": back.hu + np.int16(1),
            "spacing_mm": (2.5, 0.5, 0.501),
            "origin_mm": (100.001, -20, -10),
        }
        return Series(**{**back.__dict__, moved: changes[moved]})

    monkeypatch.setattr(dicom_writer, "read_series", damaged)
    with pytest.raises(ValueError, match="differs from what was to be written"):
        write_derived(tmp_path / "out", source.hu, source, how=HOW)
    assert [file.name for file in tmp_path.iterdir()] == ["scan"]


def test_a_finished_series_has_everyones_usual_rights(tmp_path: Path) -> None:
    source = read_series(save(ct(HU[0]), tmp_path / "slice"))
    write_derived(tmp_path / "out", source.hu, source, how=HOW)
    (tmp_path / "usual").mkdir()
    assert os.stat(tmp_path / "out").st_mode == os.stat(tmp_path / "usual").st_mode
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "slice", "usual"]


def test_a_slice_of_a_real_scanner_survives(tmp_path: Path) -> None:
    source = read_series(get_testdata_file("CT_small.dcm", download=False))
    (one,) = written(tmp_path / "out", source)
    assert np.array_equal(read_series(tmp_path / "out").hu, source.hu)
    assert (one.Manufacturer, one.KVP, one.SliceThickness) == ("GE MEDICAL SYSTEMS", 120, 5)
    assert (
        b"CompressedSamples" not in (tmp_path / "out" / "slice_0001.dcm").read_bytes()
    )  # its patient's name
    assert header(tmp_path / "out" / "slice_0001.dcm")["ImageType"][0] == "DERIVED"
