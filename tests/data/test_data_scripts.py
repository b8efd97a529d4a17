"""The scripts that fetch public data: DICOM to NIfTI on small made-up series, and no network anywhere."""

import hashlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from alden_lite.data.volume import load_nifti

SCRIPTS = Path(__file__).parents[2] / "data_scripts"


def script(name: str) -> ModuleType:
    """A script as a module; the folder is no package."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


patients = script("development_patients")
UID = "1.2.826.0.1.3680043.8.498.1"
AXIAL = (1, 0, 0, 0, 1, 0)
HU = np.random.default_rng(0).integers(-1000, 1500, (4, 6, 5)).astype(np.int16)
"""What the made-up patient is made of: (Z, Y, X), z from the feet, y from the front, x from the right."""


def write_slice(file: Path, hu: np.ndarray, position: Sequence[float], **tags: Any) -> None:
    """One CT slice, stored with the slope and intercept that are in `tags`, or with 1 and -1024."""
    one = pydicom.Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = pydicom.uid.generate_uid()
    one.SeriesInstanceUID = UID
    one.Modality, one.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    one.ImagePositionPatient, one.ImageOrientationPatient = list(position), list(AXIAL)
    one.PixelSpacing = [0.8, 0.5]  # between rows, between columns
    one.RescaleSlope, one.RescaleIntercept, one.PixelRepresentation = 1, -1024, 0
    for name, value in tags.items():
        setattr(one, name, value)
    one.Rows, one.Columns = hu.shape
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit = 15
    stored = (hu.astype(int) - int(one.RescaleIntercept)) / int(one.RescaleSlope)
    one.PixelData = stored.astype("<i2" if one.PixelRepresentation else "<u2").tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    one.save_as(file, enforce_file_format=True)


def write_series(folder: Path, hu: np.ndarray = HU, **tags: Any) -> list[Path]:
    """Axial slices 2.5 mm apart, in files whose names say nothing of their order."""
    names = [hashlib.sha256(bytes([z])).hexdigest()[:8] for z in range(len(hu))]
    files = [folder / f"{name}.dcm" for name in names]
    for z, file in enumerate(files):
        write_slice(file, hu[z], (-10, -20, 100 + 2.5 * z), **tags)
    assert sorted(files) != files
    return sorted(files)


def wanted(hu: np.ndarray = HU, **changes: Any) -> Any:
    """The entry of the made-up series."""
    sha256 = hashlib.sha256(np.ascontiguousarray(np.clip(hu, -1024, None)).tobytes()).hexdigest()
    made_up = replace(patients.SERIES[0], name="made_up", uid=UID, slices=len(HU), every=1, sha256=sha256)
    return replace(made_up, **changes)


def converted(files: Sequence[Path], folder: Path) -> Any:
    """DICOM to NIfTI and back by the course's reader."""
    patients.write_nifti(folder / "volume.nii.gz", *patients.read_series(files))
    return load_nifti(folder / "volume.nii.gz")


# Conversion


def test_slices_are_sorted_by_place_and_lie_as_on_a_reading_station(tmp_path: Path) -> None:
    volume = converted(write_series(tmp_path), tmp_path)
    np.testing.assert_array_equal(volume.hu, HU)
    assert volume.spacing_mm == pytest.approx((2.5, 0.8, 0.5))


def test_the_affine_leads_from_a_voxel_to_the_patient(tmp_path: Path) -> None:
    _, affine = patients.read_series(write_series(tmp_path))
    # Column 4, row 2, slice 3: 2 mm to the left and 1.6 mm to the back of (-10, -20) in DICOM's axes.
    x, y, z, _ = affine @ [4, 2, 3, 1]
    assert (x, y, z) == pytest.approx((8.0, 18.4, 107.5))


def test_a_patient_lying_prone_is_turned_over(tmp_path: Path) -> None:
    far = (-10 + 4 * 0.5, -20 + 5 * 0.8)  # of the pixel that is now the first
    for z, hu in enumerate(HU):
        place, turned = (*far, 100 + 2.5 * z), (-1, 0, 0, 0, -1, 0)
        write_slice(tmp_path / f"{z}.dcm", hu[::-1, ::-1], place, ImageOrientationPatient=list(turned))
    np.testing.assert_array_equal(converted(list(tmp_path.glob("*.dcm")), tmp_path).hu, HU)


def test_coronal_slices_become_the_same_volume(tmp_path: Path) -> None:
    for y in range(HU.shape[1]):
        place = (-10, -20 + 0.8 * y, 100 + 2.5 * 3)  # rows run from the head to the feet
        tags = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "PixelSpacing": [2.5, 0.5]}
        write_slice(tmp_path / f"{y}.dcm", HU[::-1, y], place, **tags)
    volume = converted(list(tmp_path.glob("*.dcm")), tmp_path)
    np.testing.assert_array_equal(volume.hu, HU)
    assert volume.spacing_mm == pytest.approx((2.5, 0.8, 0.5))


@pytest.mark.parametrize(
    ("slope", "intercept", "signed"), [(1, 0, 1), (1, -1024, 0), (2, -1000, 0), (1, -24, 1)]
)
def test_hu_follow_from_the_header(tmp_path: Path, slope: int, intercept: int, signed: int) -> None:
    tags = {"RescaleSlope": slope, "RescaleIntercept": intercept, "PixelRepresentation": signed}
    even = HU // 2 * 2
    np.testing.assert_array_equal(converted(write_series(tmp_path, even, **tags), tmp_path).hu, even)


def test_each_slice_has_a_rescale_of_its_own(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm", HU[0], (0, 0, 0), RescaleIntercept=-1024)
    write_slice(tmp_path / "b.dcm", HU[1], (0, 0, 5), RescaleIntercept=-2000)
    np.testing.assert_array_equal(converted(list(tmp_path.glob("*.dcm")), tmp_path).hu, HU[:2])


def test_padding_is_kept_in_the_file_and_clipped_by_the_reader(tmp_path: Path) -> None:
    padded = HU.copy()
    padded[:, 0] = -2048
    files = write_series(tmp_path, padded, RescaleIntercept=0, PixelRepresentation=1)
    hu, _ = patients.read_series(files)
    assert hu.min() == -2048
    np.testing.assert_array_equal(converted(files, tmp_path).hu, np.clip(padded, -1024, None))


# What is refused


def test_a_missing_slice_is_named_by_its_place(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    gone = next(file for file in files if pydicom.dcmread(file).ImagePositionPatient[2] == 105)
    with pytest.raises(patients.DataError, match="missing between 102.5 and 107.5 mm"):
        patients.read_series([file for file in files if file != gone])


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localiser"),
        ({"Modality": "MR"}, "of modality MR"),
        ({"PixelSpacing": [0.9, 0.5]}, "different pixel spacing: 0.8, 0.5 and 0.9, 0.5"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "different orientation"),
        ({"RescaleSlope": 20}, "beyond 16 bits"),
        ({"ImagePositionPatient": [-10, -20, 107.5]}, "two slices lie at the same place, 107.5 mm"),
        ({"ImagePositionPatient": [-10, -20, 110.5]}, "unevenly spaced"),
    ],
)
def test_one_slice_that_does_not_fit_is_refused(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    files = write_series(tmp_path)
    write_slice(tmp_path / "odd.dcm", HU[0], (-10, -20, 110))
    odd = pydicom.dcmread(tmp_path / "odd.dcm")
    patients.read_series([*files, tmp_path / "odd.dcm"])  # fits, so far
    for name, value in tags.items():
        setattr(odd, name, value)
    odd.save_as(tmp_path / "odd.dcm")
    with pytest.raises(patients.DataError, match=message):
        patients.read_series([*files, tmp_path / "odd.dcm"])


@pytest.mark.parametrize("lost", ["RescaleSlope", "ImagePositionPatient", "PixelSpacing", "PixelData"])
def test_a_slice_without_a_needed_tag_is_refused(tmp_path: Path, lost: str) -> None:
    files = write_series(tmp_path)
    one = pydicom.dcmread(files[0])
    delattr(one, lost)
    one.save_as(files[0])
    with pytest.raises(patients.DataError, match=f"has no {lost}"):
        patients.read_series(files)


def test_mixed_sizes_are_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    write_slice(tmp_path / "small.dcm", HU[0, :3], (-10, -20, 110))
    with pytest.raises(patients.DataError, match="different rows: 3 and 6"):
        patients.read_series([*files, tmp_path / "small.dcm"])


def test_truncated_pixels_are_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    one = pydicom.dcmread(files[0])
    one.PixelData = one.PixelData[:20]
    one.save_as(files[0])
    with pytest.raises(patients.DataError, match=f"the pixels of {files[0].name} cannot be read"):
        patients.read_series(files)


def test_a_tilted_gantry_is_refused(tmp_path: Path) -> None:
    for z, hu in enumerate(HU):
        write_slice(tmp_path / f"{z}.dcm", hu, (0, 0.5 * z, 2.5 * z))
    with pytest.raises(patients.DataError, match=r"slide sideways by 1\.5 mm"):
        patients.read_series(list(tmp_path.glob("*.dcm")))


def test_a_single_slice_is_no_volume(tmp_path: Path) -> None:
    with pytest.raises(patients.DataError, match="two slices or more, got 1"):
        patients.read_series(write_series(tmp_path)[:1])


# Fetching


def test_a_series_is_picked_out_of_a_folder_and_verified(tmp_path: Path) -> None:
    write_series(tmp_path / "dicom" / "study" / "a")
    write_series(tmp_path / "dicom" / "study" / "scout", HU[:2], SeriesInstanceUID=f"{UID}.2")
    (tmp_path / "dicom" / "LICENSE").write_text("CC BY")
    (file,) = patients.fetch([wanted()], tmp_path / "out", dicom=tmp_path / "dicom")
    np.testing.assert_array_equal(load_nifti(file).hu, HU)
    assert list((tmp_path / "out").iterdir()) == [file]


def test_every_second_slice_is_kept_from_the_lowest_on(tmp_path: Path) -> None:
    write_series(tmp_path / "dicom")
    (file,) = patients.fetch([wanted(HU[::2], every=2)], tmp_path / "out", dicom=tmp_path / "dicom")
    volume = load_nifti(file)
    np.testing.assert_array_equal(volume.hu, HU[::2])
    assert volume.spacing_mm[0] == pytest.approx(5.0)


def test_what_is_downloaded_is_converted_and_then_removed(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def deliver(uids: Sequence[str], folder: Path) -> None:
        asked.append(list(uids))
        write_series(folder / "collection" / "patient")

    for _ in range(2):  # the second time it is there already
        (file,) = patients.fetch([wanted()], tmp_path / "out", download=deliver)
    assert asked == [[UID]]
    assert list((tmp_path / "out").iterdir()) == [file]


def test_other_voxels_are_not_written(tmp_path: Path) -> None:
    write_series(tmp_path / "dicom", HU + 1)
    with pytest.raises(patients.DataError, match="Nothing was written"):
        patients.fetch([wanted()], tmp_path / "out", dicom=tmp_path / "dicom")
    assert not list((tmp_path / "out").iterdir())


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    write_series(tmp_path / "dicom")
    (file,) = patients.fetch([wanted()], tmp_path / "out", dicom=tmp_path / "dicom")
    file.write_bytes(file.read_bytes()[:100])
    patients.fetch([wanted()], tmp_path / "out", dicom=tmp_path / "dicom")
    np.testing.assert_array_equal(load_nifti(file).hu, HU)


def test_an_incomplete_series_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "dicom")[-1].unlink()
    with pytest.raises(patients.DataError, match="holds 3 of the 4 slices of"):
        patients.fetch([wanted()], tmp_path / "out", dicom=tmp_path / "dicom")


def test_the_missing_client_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "idc_index", None)
    assert patients.main(["--out", str(tmp_path)]) == 1
    assert "pip install -e '.[data]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_client_is_asked_for_the_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class IDCClient:  # as idc-index has it
        @classmethod
        def client(cls) -> "IDCClient":
            return cls()

        def download_from_selection(self, downloadDir: str, **selection: Any) -> None:
            asked.update(selection, downloadDir=downloadDir)

    stand_in = ModuleType("idc_index")
    monkeypatch.setattr(stand_in, "IDCClient", IDCClient, raising=False)
    monkeypatch.setitem(sys.modules, "idc_index", stand_in)
    patients.download_from_idc((UID,), tmp_path)
    assert asked == {"downloadDir": str(tmp_path), "seriesInstanceUID": [UID]}


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert patients.main(["--out", str(tmp_path), "--from-dicom", str(tmp_path / "none")]) == 1
    assert f"there is no folder {tmp_path / 'none'}" in capsys.readouterr().err


def test_a_dry_run_names_source_and_licence_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert patients.main(["--dry-run", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    for series in patients.SERIES:
        for part in (series.uid, series.collection, series.licence, series.doi, f"{series.megabytes:.1f} MB"):
            assert part in said
    assert "165 MB" in said
    assert not (tmp_path / "out").exists()


def test_the_readme_lists_every_series_with_its_licence() -> None:
    text = (SCRIPTS / "README.md").read_text(encoding="utf-8")
    for series in patients.SERIES:
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {series.patient} ")]
        assert all(part in line for part in (series.collection, series.licence, series.doi, series.uid))
