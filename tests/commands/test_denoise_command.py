"""`alden-lite denoise`: NIfTI and DICOM in and out, and nothing overwritten."""

import gzip
import re
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from pydicom.data import get_testdata_file

import alden_lite
from alden_lite.alden import denoising
from alden_lite.commands import denoise as denoise_command
from alden_lite.commands.denoise import main
from alden_lite.data.dicom.series import read_series
from alden_lite.data.dicom.tags import DicomError
from alden_lite.data.volume import load_nifti
from alden_lite.engine.checkpoint import weights_path
from made_dicom import ct, save, write_series


def test_sagittal_files_and_impossible_targets_are_refused_before_any_work(tmp_path: Path) -> None:
    source = tmp_path / "sagittal.nii"
    affine = np.array([[0, 0, 1.0, 0], [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 8), dtype=np.int16), affine), source)
    with pytest.raises(ValueError, match="axial slices along its third axis"):
        main([str(source), str(tmp_path / "out.nii")])
    for target in (tmp_path / "out", tmp_path / "out.dcm", tmp_path / "out.gz"):
        with pytest.raises(ValueError, match=r"must end in .nii or .nii.gz: DICOM is written of DICOM only"):
            main([str(source), str(target)])
    with pytest.raises(ValueError, match=r"a folder that exists: there is no .*nowhere"):
        main([str(source), str(tmp_path / "nowhere" / "out.nii")])
    with pytest.raises(FileNotFoundError, match=r"no file or folder at .*none"):
        main([str(tmp_path / "none.nii"), str(tmp_path / "out.nii")])
    with pytest.raises(ValueError, match="no series to choose from"):
        main([str(source), str(tmp_path / "out.nii"), "--series", "1.2"])
    assert [p.name for p in tmp_path.iterdir()] == ["sagittal.nii"]


def test_the_command_denoises_a_nifti_file_and_overwrites_nothing(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(40, 30, (32, 40, 2)).astype(np.int16)
    affine = np.diag([0.8, 0.7, 3.0, 1.0])
    source, target = tmp_path / "ct.nii.gz", tmp_path / "quiet.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, affine), source)
    assert main([str(source), str(target), "--generator", "l1"]) == 0
    result = nibabel.load(target)
    np.testing.assert_allclose(result.affine, affine, rtol=1e-6)
    quiet = np.asanyarray(result.dataobj)
    assert quiet.shape == voxels.shape
    assert quiet.std() < voxels.std()
    assert b"not for clinical use" in bytes(result.header["descrip"])
    before = target.read_bytes()
    with pytest.raises(ValueError, match="exists already"):
        main([str(source), str(target)])
    assert target.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ct.nii.gz", "quiet.nii.gz"]


@pytest.fixture
def halving(halving_network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's generator halves every HU."""
    monkeypatch.setattr(denoise_command, "load_generator", lambda name: halving_network)


def command(source: Path, target: Path, *further: str) -> int:
    return main([str(source), str(target), *further])


def nifti(file: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """A NIfTI file of (X, Y, Z)."""
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), file)
    return file


def voxels_of(file: Path) -> np.ndarray:
    """What a NIfTI file holds, (X, Y, Z), as stored."""
    image = nibabel.load(file)
    assert image.get_data_dtype() == np.int16
    return np.asanyarray(image.dataobj)


SCAN = np.random.default_rng(0).integers(-1024, 2000, (3, 10, 12), dtype=np.int16)  # (Z, Y, X)
HALVED = np.round(SCAN / 2)  # halves to even, as torch and numpy do


def test_nifti_comes_out_as_whole_hu_in_its_place(tmp_path: Path, halving: None) -> None:
    affine = np.array([[-0.8, 0, 0, 5.0], [0, 0.7, 0, -6.0], [0, 0, 3.0, 7.0], [0, 0, 0, 1.0]])
    command(nifti(tmp_path / "ct.nii", SCAN.T, affine), tmp_path / "quiet.nii")
    assert np.array_equal(voxels_of(tmp_path / "quiet.nii"), HALVED.T)
    np.testing.assert_allclose(nibabel.load(tmp_path / "quiet.nii").affine, affine, rtol=1e-6)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_made_of_nifti_names_no_patient_and_lies_where_it_lay(
    tmp_path: Path, halving: None, suffix: str
) -> None:
    texts = {
        "data_type": b"Doe^Jane 1",
        "db_name": b"Doe^Jane 2",
        "descrip": b"chest of the patient, " + b"Doe^Jane 3 " * 5,
        "aux_file": b"Doe^Jane 4.txt",
        "intent_name": b"Doe^Jane 5",
    }
    turned = nibabel.affines.from_matvec(
        nibabel.eulerangles.euler2mat(0.1, 0.2, 0.3) @ np.diag([-0.8, 0.7, 3]), [5, -6, 7]
    )
    elsewhere = turned + np.array([[0, 0.01, 0, 1], [0, 0, 0.02, 2], [0.03, 0, 0, 3], [0, 0, 0, 0]])
    one = pydicom.Dataset()
    one.PatientName = "Doe^Jane 6"
    extensions = (
        nibabel.nifti1.Nifti1Extension("comment", b"Doe^Jane 7"),
        nibabel.nifti1.Nifti1DicomExtension(2, one),
    )
    for swapped in (False, True):
        header = nibabel.Nifti1Header(endianness=">" if swapped else "<")
        scan = nibabel.Nifti1Image(SCAN.T, None, header)
        scan.set_qform(turned, "scanner")
        scan.set_sform(elsewhere, "talairach")
        scan.header.set_xyzt_units("mm", "sec")
        for name, text in texts.items():
            scan.header[name] = text
        scan.header.extensions.extend(extensions)
        source, target = tmp_path / f"ct{swapped}{suffix}", tmp_path / f"quiet{swapped}{suffix}"
        nibabel.save(scan, source)
        assert whole(source).count(b"Doe^Jane") == 11  # else the search would show nothing
        command(source, target)
        assert b"Jane" not in whole(target) and b"Doe" not in whole(target)
        quiet = nibabel.load(target)
        assert not quiet.header.extensions
        assert whole(target)[352:] == HALVED.astype("<i2").tobytes()  # and nothing after the voxels
        for form in ("get_qform", "get_sform"):
            found, wanted = (getattr(image, form)(coded=True) for image in (quiet, nibabel.load(source)))
            np.testing.assert_array_equal(found[0], wanted[0])
            assert found[1] == wanted[1] > 0
        assert quiet.header.get_xyzt_units() == ("mm", "sec")
        assert quiet.header.get_zooms() == nibabel.load(source).header.get_zooms()
        assert quiet.header.get_intent() == ("none", (), "")


def whole(file: Path) -> bytes:
    """A NIfTI file's content, unpacked."""
    content = file.read_bytes()
    return gzip.decompress(content) if file.suffix == ".gz" else content


def test_one_slice_of_nifti_stays_two_dimensional(tmp_path: Path, halving: None) -> None:
    command(nifti(tmp_path / "ct.nii", SCAN[0].T), tmp_path / "quiet.nii")
    assert np.array_equal(voxels_of(tmp_path / "quiet.nii"), HALVED[0].T)


def test_nifti_keeps_its_padding_and_nothing_else_falls_below_1024(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lower(torch.nn.Linear):  # by 100 HU
        def forward(self, u: torch.Tensor) -> torch.Tensor:
            return u - 100 / 1024

    monkeypatch.setattr(denoise_command, "load_generator", lambda name: Lower(1, 1))
    hu = np.array([[[-3024], [-2048], [-1501]], [[-1500], [-1024], [0]]], dtype=np.int16)
    command(nifti(tmp_path / "ct.nii", hu), tmp_path / "quiet.nii")
    wanted = [[-3024, -2048, -1501], [-1024, -1024, -100]]
    assert voxels_of(tmp_path / "quiet.nii")[..., 0].tolist() == wanted


def test_dicom_comes_out_as_dicom_or_as_nifti_with_the_same_hu(tmp_path: Path, halving: None) -> None:
    write_series(tmp_path / "scan", SCAN)
    assert command(tmp_path / "scan", tmp_path / "quiet") == 0
    assert command(tmp_path / "scan", tmp_path / "quiet.nii.gz") == 0
    series = read_series(tmp_path / "quiet")
    assert np.array_equal(series.hu, HALVED)
    assert (series.spacing_mm, series.origin_mm) == ((2.5, 0.5, 0.5), (100, -20, -10))
    assert np.array_equal(voxels_of(tmp_path / "quiet.nii.gz"), HALVED.T)
    affine = nibabel.load(tmp_path / "quiet.nii.gz").affine
    # Column 4, row 3, slice 2: 2 mm left, 1.5 mm behind, 5 mm above the first; NIfTI counts right and front.
    assert affine @ [4, 3, 2, 1] == pytest.approx([10 - 2, 20 - 1.5, 100 + 5, 1])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["quiet", "quiet.nii.gz", "scan"]
    assert [file.name for file in sorted((tmp_path / "quiet").iterdir())] == [
        f"slice_{n:04}.dcm" for n in (1, 2, 3)
    ]


def test_one_dicom_file_becomes_a_folder_of_one(tmp_path: Path, halving: None) -> None:
    command(save(ct(SCAN[0]), tmp_path / "slice.dcm"), tmp_path / "quiet")
    assert np.array_equal(read_series(tmp_path / "quiet").hu, HALVED[:1])


def test_dicom_padding_stays_air_and_is_no_air_to_the_network(tmp_path: Path, halving: None) -> None:
    stored = np.array([[-2000, -1600, -1400, -1024], [300, -1000, 0, 40]], dtype=np.int16)
    one = ct(stored)
    one.add_new("PixelPaddingValue", "SS", 300)
    file = save(one, tmp_path / "slice.dcm")
    command(file, tmp_path / "quiet")
    command(file, tmp_path / "quiet.nii")
    wanted = [[-1024, -1024, -512, -512], [-1024, -500, 0, 20]]
    assert read_series(tmp_path / "quiet").hu[0].tolist() == wanted
    assert voxels_of(tmp_path / "quiet.nii")[..., 0].T.tolist() == wanted


def test_a_series_of_several_is_chosen_by_its_uid(tmp_path: Path, halving: None) -> None:
    for name, uid, hu in (("a", "1.2.3", SCAN), ("b", "1.2.4", -1 - SCAN)):
        write_series(tmp_path / "scan" / name, hu, uid=uid)
    with pytest.raises(DicomError, match="holds 2 CT series"):
        command(tmp_path / "scan", tmp_path / "quiet")
    command(tmp_path / "scan", tmp_path / "quiet", "--series", "1.2.3")
    assert np.array_equal(read_series(tmp_path / "quiet").hu, HALVED)


def test_the_command_says_what_it_did_and_what_it_took(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scan = nifti(tmp_path / "ct.nii", SCAN.T)
    command(scan, tmp_path / "a.nii", "--generator", "l1", "--precision", "bfloat16")
    said, bar = capfd.readouterr()
    assert re.fullmatch(
        r"3 slices, \d+ ms a slice, \d+\.\d s in all; generator l1, bfloat16\. Not for clinical use\.\n", said
    )
    assert "3/3" in bar
    own = weights_path("l1")
    command(nifti(tmp_path / "one.nii", SCAN[0].T), tmp_path / "b.nii", "--generator", str(own))
    said, _ = capfd.readouterr()
    assert re.match(r"1 slice, .* generator of a file with SHA-256 [0-9a-f]{16}, float32", said)
    assert not np.array_equal(voxels_of(tmp_path / "a.nii")[..., 0], voxels_of(tmp_path / "b.nii"))


def test_the_time_of_a_slice_is_that_of_denoising_shared_by_all(
    tmp_path: Path, halving: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 2.0, 8.0, 9.5])  # begun, denoising from 2 to 8, done
    monkeypatch.setattr(denoise_command.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(denoising, "tqdm", lambda slices, **_: slices)
    command(nifti(tmp_path / "ct.nii", SCAN.T), tmp_path / "quiet.nii")
    assert capsys.readouterr().out.startswith("3 slices, 2000 ms a slice, 9.5 s in all; ")


def test_derived_dicom_says_by_what(tmp_path: Path) -> None:
    command(save(ct(SCAN[0]), tmp_path / "slice.dcm"), tmp_path / "quiet", "--generator", "l1")
    one = pydicom.dcmread(tmp_path / "quiet" / "slice_0001.dcm")
    assert (
        one.DerivationDescription == f"denoised by alden_lite {alden_lite.__version__}, generator l1, float32"
    )
    assert str(tmp_path) not in str(one)


def test_no_output_is_put_into_the_input(tmp_path: Path) -> None:
    write_series(tmp_path / "scan")
    (tmp_path / "link").symlink_to(tmp_path / "scan")
    for target in (
        *(tmp_path / "scan" / "quiet", tmp_path / "scan" / "quiet.nii", tmp_path / "link" / "quiet"),
        tmp_path / "scan" / ".." / "scan" / "quiet",
    ):
        with pytest.raises(ValueError, match="lies inside"):
            command(tmp_path / "scan", target)
    assert len(list((tmp_path / "scan").iterdir())) == 4


def test_what_exists_is_never_replaced(tmp_path: Path) -> None:
    write_series(tmp_path / "scan")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.nii").write_text("mine")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "file.nii", "gone", "scan"):
        with pytest.raises(ValueError, match="exists already"):
            command(tmp_path / "scan", tmp_path / name)
    assert (tmp_path / "file.nii").read_text() == "mine"


@pytest.mark.parametrize("name", ["out.png", "out.dcm", "out.gz", "out.mha"])
def test_dicom_goes_to_nifti_or_to_a_folder_and_nowhere_else(tmp_path: Path, name: str) -> None:
    write_series(tmp_path / "scan")
    with pytest.raises(
        ValueError, match=r"must end in .nii or .nii.gz, or for DICOM be the name of a folder"
    ):
        command(tmp_path / "scan", tmp_path / name)


@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_what_is_no_ct_in_hu_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for said, voxels in {
        "4-D": np.zeros((4, 4, 2, 2), dtype=np.int16),
        "NaN or infinite": np.full((4, 4, 2), np.nan),
        "values from 0 to 1, not HU": rng.random((4, 4, 2)),
        "uint8, not HU": np.zeros((4, 4, 2), dtype=np.uint8),
        "complex64, not HU": np.zeros((4, 4, 2), dtype=np.complex64),
    }.items():
        with pytest.raises(ValueError, match=said):
            command(nifti(tmp_path / "ct.nii", voxels), tmp_path / "out.nii")
    mr = Path(str(get_testdata_file("MR_small.dcm", download=False)))
    with pytest.raises(DicomError, match="not a CT picture but MR Image Storage"):
        command(mr, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["ct.nii"]


def test_water_of_zeros_and_a_phantom_in_floats_are_ct(tmp_path: Path, halving: None) -> None:
    command(nifti(tmp_path / "zeros.nii", np.zeros((4, 4, 2), dtype=np.float32)), tmp_path / "a.nii")
    command(nifti(tmp_path / "floats.nii", SCAN.T.astype(np.float64) / 10), tmp_path / "b.nii")
    assert not voxels_of(tmp_path / "a.nii").any()
    np.testing.assert_allclose(voxels_of(tmp_path / "b.nii"), SCAN.T / 20, atol=0.51)


def test_no_half_written_file_is_left(tmp_path: Path, halving: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(image: nibabel.Nifti1Image, file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    scan = nifti(tmp_path / "ct.nii", SCAN.T)
    monkeypatch.setattr(nibabel, "save", full)
    with pytest.raises(OSError, match="no space left"):
        command(scan, tmp_path / "quiet.nii")
    assert [file.name for file in tmp_path.iterdir()] == ["ct.nii"]


def test_a_dicom_folder_is_denoised_on_the_command_line(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).normal(40, 20, (2, 32, 32)).astype(np.int16)
    write_series(tmp_path / "scan", hu)
    assert (
        denoise_command.main([str(tmp_path / "scan"), str(tmp_path / "quiet.nii.gz"), "--generator", "l1"])
        == 0
    )
    quiet = load_nifti(tmp_path / "quiet.nii.gz")
    assert quiet.spacing_mm == (2.5, 0.5, 0.5)
    assert quiet.hu.std() < hu.std()
    (tmp_path / "text.dcm").write_text("no picture")
    with pytest.raises(DicomError, match="is not a DICOM file"):
        denoise_command.main([str(tmp_path / "text.dcm"), str(tmp_path / "other.nii")])
