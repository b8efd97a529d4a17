"""Volumes from NIfTI and DICOM, and files that are refused."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from alden_lite.data.volume import load_nifti, read_image
from made_dicom import HU, write_series


def write_nifti(path: Path, voxels: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 5.0, 1.0])), path)
    return path


def test_a_nifti_file_is_read_and_its_padding_clipped(tmp_path: Path) -> None:
    voxels = np.full((4, 5, 6), -2048, dtype=np.int16)
    voxels[3, 4, 5] = 77  # rightmost, frontmost, uppermost in RAS
    volume = load_nifti(write_nifti(tmp_path / "ct.nii.gz", voxels))
    assert volume.hu.shape == (6, 5, 4)
    assert volume.hu.min() == -1024
    assert volume.hu[5, 0, 0] == 77  # top slice, first row is the front, first column the patient's right
    assert volume.spacing_mm == (5.0, 2.0, 2.0)


def test_broken_nifti_files_are_refused(tmp_path: Path) -> None:
    whole = write_nifti(
        tmp_path / "ct.nii.gz", np.random.default_rng(0).integers(0, 99, (40, 40, 9)).astype(np.int16)
    )
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    flipped = tmp_path / "flipped.nii.gz"
    content = bytearray(whole.read_bytes())
    content[len(content) // 2] ^= 0xFF
    flipped.write_bytes(content)
    text = tmp_path / "text.nii.gz"
    text.write_bytes(gzip.compress(b"not a CT"))
    for broken in (cut, text, flipped):
        with pytest.raises(ValueError, match="not a complete NIfTI file"):
            load_nifti(broken)
    with pytest.raises(FileNotFoundError):
        load_nifti(tmp_path / "none.nii")
    small = write_nifti(tmp_path / "labels.nii", np.zeros((2, 2, 2), dtype=np.int16))
    with pytest.raises(ValueError, match="not the same grid"):
        load_nifti(whole, labels=small)
    with pytest.raises(ValueError, match="NaN"):
        load_nifti(write_nifti(tmp_path / "nan.nii", np.full((3, 3, 3), np.nan)))
    with pytest.raises(ValueError, match="3"):
        load_nifti(write_nifti(tmp_path / "flat.nii", np.zeros((3, 3), dtype=np.int16)))


def test_the_course_reads_dicom_where_it_reads_nifti(tmp_path: Path) -> None:
    write_series(tmp_path / "scan")
    volume = load_nifti(tmp_path / "scan")
    assert np.array_equal(volume.hu, HU)
    assert (volume.name, volume.spacing_mm) == ("scan", (2.5, 0.5, 0.5))
    image = read_image(tmp_path / "scan")
    # Column 4, row 3, slice 2: 2 mm to the left, 1.5 mm to the back, 5 mm up; NIfTI counts right and front.
    assert (image.affine @ [4, 3, 2, 1])[:3] == pytest.approx([10 - 2, 20 - 1.5, 100 + 5])
    assert image.get_fdata()[4, 3, 2] == HU[2, 3, 4]
