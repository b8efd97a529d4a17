"""DICOM series: which one is read, what comes along, and that nobody's name is told."""

import io
import warnings
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import SecondaryCaptureImageStorage, XRayRadiationDoseSRStorage

from alden_lite.data import assets
from alden_lite.data.dicom.series import find_series, header, read_series
from alden_lite.data.dicom.tags import DicomError
from alden_lite.physics.hounsfield import Window
from made_dicom import CORONAL, HU, NAME, change, ct, enhanced, packed, refusal, save, write_series


def test_a_folder_becomes_a_volume_in_order_of_position_not_of_name(tmp_path: Path) -> None:
    write_series(tmp_path)
    read = read_series(tmp_path)
    assert np.array_equal(read.hu, HU)
    assert read.hu.dtype == np.int16
    assert read.spacing_mm == (2.5, 0.5, 0.5)
    assert read.origin_mm == (100, -20, -10)
    assert read.n_slices == 4


def test_what_the_header_says_of_the_scan_comes_along(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    for file, mas in zip(files, (100, 200, 300, 400), strict=True):
        change(file, Exposure=mas)
    read = read_series(tmp_path)
    assert (read.modality, read.manufacturer, read.kernel, read.kvp) == ("CT", "ACME", "B30f", 120)
    assert (read.exposure_mas, read.slice_thickness_mm) == (250, 3)
    assert read.window == Window(50, 350)


def test_what_slices_do_not_agree_on_or_do_not_say_is_none(tmp_path: Path) -> None:
    files = write_series(tmp_path, Manufacturer="", WindowCenter=None, SliceThickness=None)
    change(files[0], ConvolutionKernel="B70f", KVP=100, Exposure="")
    read = read_series(tmp_path)
    assert (read.manufacturer, read.kernel, read.kvp, read.exposure_mas) == (None,) * 4
    assert (read.slice_thickness_mm, read.window) == (None, None)


def test_the_window_is_the_first_one_of_the_middle_slice(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    change(files[2], WindowCenter=40, WindowWidth=80)
    assert read_series(tmp_path).window == Window(40, 80)
    change(files[2], WindowWidth=0)  # shows nothing
    assert read_series(tmp_path).window is None


def test_a_kernel_of_two_parts_is_one_text(tmp_path: Path) -> None:
    file = save(
        ct(HU[0], ConvolutionKernel=["I26f", "3"], Exposure=None, ExposureInuAs=85000), tmp_path / "a"
    )
    read = read_series(file)
    assert (read.kernel, read.exposure_mas) == ("I26f 3", 85)


def test_headers_are_those_of_the_slices_from_caudal_to_cranial(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    assert read_series(tmp_path).headers == tuple(header(file) for file in files)


def test_the_affine_leads_from_voxels_to_the_patient(tmp_path: Path) -> None:
    write_series(tmp_path)
    # Column 4, row 3, slice 2: 2 mm to the left, 1.5 mm to the back, 5 mm up; NIfTI counts right and front.
    assert read_series(tmp_path).affine @ [4, 3, 2, 1] == pytest.approx([10 - 2, 20 - 1.5, 100 + 5, 1])


# A slice of a real scanner


def cached(name: str) -> Path:
    """An asset's file; without it the test is skipped."""
    try:
        return assets.path(name)
    except assets.AssetError as error:
        pytest.skip(str(error).splitlines()[0])


def test_the_sample_slice_is_turned_upright_and_agrees_with_a_second_decoder() -> None:
    file = cached("dicom_slice")
    one = pydicom.dcmread(file)
    (code,) = pydicom.encaps.generate_frames(one.PixelData, number_of_frames=1)
    # OpenJPEG by way of Pillow, without pydicom. Pillow lifts signed numbers of 16 bits by half their range.
    stored = np.asarray(Image.open(io.BytesIO(code))).astype(int) - 32768
    read = read_series(file)
    assert one.ImageOrientationPatient == [1, 0, 0, 0, -1, 0]
    assert np.array_equal(read.hu[0], stored[::-1])  # the file has the patient upside down
    assert read.spacing_mm == (1.0, 0.859375, 0.859375)
    # The back rests on the table: bone (the spine) lies behind the middle.
    rows, _ = np.nonzero(read.hu[0] > 400)
    assert np.median(rows) > 256


# A folder of many things


def test_a_mixed_folder_is_sorted_out_and_the_one_series_read(tmp_path: Path) -> None:
    write_series(tmp_path / "ct" / "deep")
    save(ct(HU[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], uid="1.2.3"), tmp_path / "scout.dcm")
    save(ct(HU[0], uid="1.2.4", SOPClassUID=SecondaryCaptureImageStorage), tmp_path / "screenshot")
    report = ct(HU[0], uid="1.2.5", SOPClassUID=XRayRadiationDoseSRStorage, Rows=None, Columns=None)
    save(report, tmp_path / "dose")
    save(ct(HU[0], uid="1.2.6", Modality="PT", SeriesNumber=9), tmp_path / "pet.ima")
    write_series(tmp_path / "coronal", uid="1.2.7", ImageOrientationPatient=list(CORONAL), SeriesNumber=None)
    (tmp_path / "README").write_text("not DICOM, and not called so")
    (tmp_path / ".hidden.dcm").write_text("nor this")
    write_series(tmp_path / ".trash", uid="1.2.8")
    assert np.array_equal(read_series(tmp_path).hu, HU)
    found = {(info.uid, info.refused is None): info for info in find_series(tmp_path)}
    read = found["1.2.3", True]
    assert (read.n_slices, read.size, read.spacing_mm) == (4, (5, 6), (2.5, 0.5, 0.5))
    assert (read.description, read.modality) == ("Abdomen", "CT")
    reasons = {uid: info.refused for (uid, readable), info in found.items() if not readable}
    assert "localiser" in str(reasons["1.2.3"])
    assert "Secondary Capture" in str(reasons["1.2.4"])
    assert "Radiation Dose SR" in str(reasons["1.2.5"])
    assert found["1.2.5", False].size is None
    assert "modality is PT" in str(reasons["1.2.6"])
    assert "coronal or sagittal" in str(reasons["1.2.7"])
    assert [info.uid for info in find_series(tmp_path)][-1] == "1.2.6"  # by series number


def test_what_is_refused_is_refused_when_asked_for_by_uid_too(tmp_path: Path) -> None:
    write_series(tmp_path / "ct")
    save(ct(HU[0], uid="9.9", SOPClassUID=SecondaryCaptureImageStorage), tmp_path / "screenshot")
    assert "Secondary Capture" in refusal(tmp_path, series="9.9")
    assert "no series of that uid" in refusal(tmp_path, series="9.8")
    assert "Secondary Capture" in refusal(tmp_path / "screenshot")


def test_of_several_series_one_must_be_chosen(tmp_path: Path) -> None:
    write_series(tmp_path / "thin", uid="1.2.3")
    write_series(tmp_path / "thick", HU[::2] + 1, uid="1.2.4", step=5)
    said = refusal(tmp_path)
    assert "2 CT series" in said
    assert "4 slices of 5 x 6, 2.5 mm apart" in said
    assert "2 slices of 5 x 6, 5 mm apart" in said
    assert np.array_equal(read_series(tmp_path, series="1.2.4").hu, HU[::2] + 1)


def test_a_series_that_cannot_be_read_is_not_passed_over_for_another(tmp_path: Path) -> None:
    files = write_series(tmp_path / "wanted", uid="1.2.3")
    files[1].unlink()
    write_series(tmp_path / "other", uid="1.2.4")
    assert "refused" in refusal(tmp_path)
    assert "missing" in refusal(tmp_path, series="1.2.3")


# The header, and whose it is


def test_the_header_shows_what_a_lesson_needs_in_plain_python(tmp_path: Path) -> None:
    shown = header(save(ct(HU[0]), tmp_path / "a.dcm"))
    assert shown["TransferSyntaxUID"] == "Explicit VR Little Endian"
    assert (shown["RescaleSlope"], shown["RescaleIntercept"]) == (1.0, 0.0)
    assert shown["PixelSpacing"] == [0.5, 0.5]
    assert shown["ImageType"] == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert (shown["Rows"], shown["KVP"], shown["WindowWidth"]) == (5, 120.0, [350.0, 1500.0])
    kinds = {type(one) for value in shown.values() for one in (value if type(value) is list else [value])}
    assert kinds <= {int, float, str}


def test_the_header_of_an_enhanced_file_is_that_of_its_first_frame(tmp_path: Path) -> None:
    shown = header(save(enhanced(HU, [2, 0, 3, 1]), tmp_path / "a.dcm"))
    assert shown["NumberOfFrames"] == 4
    assert shown["ImagePositionPatient"] == [-10, -20, 105]
    assert shown["ExposureInmAs"] == 202.0


def test_a_header_is_of_one_file(tmp_path: Path) -> None:
    with pytest.raises(DicomError, match="is a folder"):
        header(tmp_path)


def test_nothing_that_is_read_says_whose_it_is(tmp_path: Path) -> None:
    files = write_series(tmp_path, StudyDescription=NAME, ImageComments=NAME, AccessionNumber="PID-1")
    shown = f"{read_series(tmp_path)!r} {header(files[0])}"
    for private in (NAME, "PID", "1947", "1.2.3", str(tmp_path)):
        assert private not in shown


def test_what_is_wrong_with_other_tags_is_not_looked_at(tmp_path: Path) -> None:
    file = save(ct(HU[0], StudyInstanceUID="9.87.654"), tmp_path / "a.dcm")
    file.write_bytes(file.read_bytes().replace(b"9.87.654", NAME.encode()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pydicom quotes a uid that is none
        assert np.array_equal(read_series(file).hu[0], HU[0])


def test_the_warnings_of_libraries_name_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = packed(tmp_path / "whole.dcm", gdcm.TransferSyntax.RLELossless).read_bytes()
    cut = tmp_path / "cut" / f"{NAME}.dcm"
    cut.parent.mkdir()
    cut.write_bytes(whole[:-500])
    with pytest.warns(UserWarning, match="End of file reached") as warned:
        refusal(cut.parent)
    assert not [warning for warning in warned if NAME in str(warning.message)]
    assert "End of file reached" in caplog.text
    assert NAME not in caplog.text
