"""DICOM files in a folder: frames, what is passed over, and what is damaged."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from alden_lite.data.dicom.series import find_series, header, read_series
from alden_lite.data.dicom.tags import DicomError
from alden_lite.physics.hounsfield import Window
from made_dicom import HU, NAME, ct, enhanced, refusal, save, write_series

# Many frames in one file


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_an_enhanced_file_is_read_as_a_series(tmp_path: Path, syntax: str) -> None:
    file = save(enhanced(HU, [2, 0, 3, 1]), tmp_path / "a.dcm", syntax)
    read = read_series(file)
    assert np.array_equal(read.hu, HU)
    assert (read.spacing_mm, read.origin_mm) == ((2.5, 0.5, 0.5), (100, -20, -10))
    assert (read.kernel, read.kvp, read.slice_thickness_mm) == ("B30f", 120, 3)
    assert read.exposure_mas == 201.5
    assert read.window == Window(50, 350)


def test_frames_may_each_have_their_own_slope(tmp_path: Path) -> None:
    one = enhanced(HU, [0, 1, 2, 3])
    one.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence[0].RescaleSlope = 3
    hu = read_series(save(one, tmp_path / "a.dcm")).hu
    assert np.array_equal(hu[1], 3 * HU[1])
    assert np.array_equal(hu[[0, 2, 3]], HU[[0, 2, 3]])


def test_an_enhanced_file_that_lacks_frames_is_refused(tmp_path: Path) -> None:
    one = enhanced(HU, [0, 1, 2, 3], NumberOfFrames=5)
    assert "states 5 frames and describes 4" in refusal(save(one, tmp_path / "a.dcm"))
    assert "1 slice is missing, between z = 100.0 and 105.0" in refusal(
        save(enhanced(HU, [0, 2, 3]), tmp_path / "b.dcm")
    )
    one = enhanced(HU, [0, 1, 2, 3])
    one.PixelData = one.PixelData[:-20]
    assert "cannot be decoded" in refusal(save(one, tmp_path / "c.dcm"))


def test_a_localiser_among_frames_is_left_out(tmp_path: Path) -> None:
    one = enhanced(HU, [0, 1, 2, 3])
    one.PerFrameFunctionalGroupsSequence[0].CTImageFrameTypeSequence[0].FrameType = [
        *("ORIGINAL", "PRIMARY", "LOCALIZER", "NONE")
    ]
    file = save(one, tmp_path / "a.dcm")
    assert np.array_equal(read_series(file).hu, HU[1:])
    assert [(info.n_slices, info.refused is None) for info in find_series(file)] == [(3, True), (1, False)]


# A folder of many things


def test_linked_folders_are_not_entered(tmp_path: Path) -> None:
    write_series(tmp_path / "elsewhere")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert "empty folder" in refusal(tmp_path / "here")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes among files here")
def test_what_never_ends_is_not_opened(tmp_path: Path) -> None:
    write_series(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert np.array_equal(read_series(tmp_path).hu, HU)


def test_a_dicomdir_is_passed_over_in_a_folder_and_explained_alone(tmp_path: Path) -> None:
    write_series(tmp_path)
    shutil.copy(get_testdata_file("DICOMDIR", download=False), tmp_path / "DICOMDIR")
    assert np.array_equal(read_series(tmp_path).hu, HU)
    assert "give the folder" in refusal(tmp_path / "DICOMDIR")


# Files that are damaged, or no DICOM


def test_a_path_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file or folder at"):
        read_series(tmp_path / "nowhere")


def test_an_empty_folder_and_one_without_dicom_are_refused(tmp_path: Path) -> None:
    assert "is an empty folder" in refusal(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "short").write_bytes(b"")
    assert "holds no DICOM: none of its 2 files is" in refusal(tmp_path)


BROKEN = {
    "not a DICOM file": b"This text calls itself DICOM.\n" * 9,
    "is empty, 0 bytes": b"",
    "cut off": b"\0" * 128 + b"DICM",
}


@pytest.mark.parametrize(("said", "content"), BROKEN.items())
def test_a_file_that_only_says_it_is_dicom_is_refused(tmp_path: Path, said: str, content: bytes) -> None:
    file = tmp_path / f"{NAME}.dcm"
    file.write_bytes(content)
    with pytest.raises(DicomError, match=said) as caught:
        read_series(file)
    assert caught.value.file == file
    with pytest.raises(DicomError, match=said):
        header(file)


@pytest.mark.parametrize(("said", "content"), BROKEN.items())
def test_a_damaged_file_beside_good_ones_stops_the_reading(tmp_path: Path, said: str, content: bytes) -> None:
    write_series(tmp_path)
    broken = tmp_path / f"zz_{NAME}.DCM"
    broken.write_bytes(content)
    message = refusal(tmp_path)
    assert said in message
    assert "1 of the 5 files" in message
    assert "number 5 in order of name" in message
    with pytest.raises(DicomError) as caught:
        read_series(tmp_path)
    assert caught.value.file == broken
    *_, last = find_series(tmp_path)
    assert (last.uid, last.n_slices) == ("", 1)
    assert said in str(last.refused)


def test_numbers_that_are_none_are_damage(tmp_path: Path) -> None:
    file = save(ct(HU[0]), tmp_path / "a.dcm")
    file.write_bytes(file.read_bytes().replace(b"0.5\\0.5", b"0.5\\a.b"))
    assert "damaged" in refusal(file)


def test_a_file_cut_off_within_a_number_is_damaged(tmp_path: Path) -> None:
    file = save(ct(HU[0]), tmp_path / "a.dcm")
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.index(b"\x28\x00\x10\x00US\x02\x00") + 9])  # one of the two bytes of Rows
    assert "its header is damaged" in refusal(file)


def test_a_link_to_nowhere_is_named_as_such(tmp_path: Path) -> None:
    write_series(tmp_path)
    (tmp_path / f"{NAME}.dcm").symlink_to(tmp_path / "gone")
    assert "link to one that is gone" in refusal(tmp_path)


def test_a_file_that_may_not_be_read_is_said_so(tmp_path: Path) -> None:
    write_series(tmp_path)
    closed = save(ct(HU[0]), tmp_path / f"{NAME}.dcm")
    closed.chmod(0)
    if os.access(closed, os.R_OK):
        pytest.skip("this user may read everything")
    assert "may not be read (Permission denied)" in refusal(tmp_path)


def test_a_folder_that_may_not_be_read_is_said_so(tmp_path: Path) -> None:
    write_series(tmp_path)
    closed = tmp_path / NAME
    closed.mkdir(mode=0)
    if os.access(closed, os.R_OK):
        pytest.skip("this user may read everything")
    assert "holds a folder that may not be read (Permission denied)" in refusal(tmp_path)
