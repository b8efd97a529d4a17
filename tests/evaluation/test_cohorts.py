"""Whose slices are looked at."""

from dataclasses import replace

import numpy as np
import pytest

from alden_lite.data.organs import phantom_groups
from alden_lite.data.pairs import DoseProtocol, Pairs
from alden_lite.data.sample import load_sample
from alden_lite.data.volume import Volume
from alden_lite.evaluation.cohorts import Cohort, first_patients, phantoms, real_patients, sample_test
from alden_lite.phantom import Patient, render


@pytest.fixture(scope="module")
def found() -> Cohort:
    return phantoms(2, 0.25, progress=False)


def test_phantom_patients_are_scanned_twice_and_once_without_noise(found: Cohort) -> None:
    assert list(found.patients) == ["phantom 0", "phantom 1"] and found.name == "phantoms"
    low, normal = (hu.astype(float) for hu in (found.pairs.low, found.pairs.normal))
    assert found.again is not None and found.clean is not None and found.groups is not None
    body = (found.clean > 0) & (found.clean < 100)
    spread = [(hu - found.clean)[body].std() for hu in (low, normal, found.again)]
    assert spread[0] / spread[1] == pytest.approx(2, rel=0.1), "a quarter of the dose, twice the noise"
    assert spread[1] == pytest.approx(spread[2], rel=0.05)
    both, other = ((a - found.clean)[body] for a in (normal, found.again.astype(float)))
    assert abs(np.corrcoef(both, other)[0, 1]) < 0.05, "another scan has noise of its own"
    nested = np.corrcoef((low - found.clean)[body], both)[0, 1]
    assert nested == pytest.approx(0.5, abs=0.08), "sqrt of the dose: the low dose is part of the normal one"
    assert set(np.unique(found.groups[0])) != set(np.unique(found.groups[1])), "abdomen and chest in turn"
    assert found.groups.shape == low.shape == (2, 512, 512)
    assert found.pairs.dose.tolist() == [0.25, 0.25]
    assert found.reference is found.again, "not the scan that the low dose is part of"
    with pytest.raises(ValueError, match="at least 1"):
        phantoms(0, 0.25)


def test_a_phantoms_pixels_are_those_it_was_drawn_with(found: Cohort) -> None:
    places = (("abdomen", 20.0), ("chest", 0.0))
    drawn = [render(Patient.draw(n), region, z_mm=z_mm) for n, (region, z_mm) in enumerate(places)]
    assert list(found.pixel_mm) == [phantom.pixel_mm for phantom in drawn]
    assert len(set(found.pixel_mm)) == 2, "else this says nothing about their order"
    assert found.groups is not None
    for groups, phantom in zip(found.groups, drawn, strict=True):
        assert np.array_equal(groups, phantom_groups(phantom.labels))


def test_the_samples_slices_have_its_pixels_and_are_compared_with_the_scan_they_came_from() -> None:
    volume = load_sample()
    found = sample_test(0.25, every=1000)
    assert found.name == "sample-test" and list(found.patients) == [volume.name]
    assert list(found.pixel_mm) == [volume.spacing_mm[2]] != [volume.spacing_mm[0]]
    assert found.again is None and found.reference is found.pairs.normal


def noisy(name: str, pixel_mm: float) -> Volume:
    hu = np.random.default_rng(0).normal(40, 10, (4, 96, 96)).astype(np.int16)
    y, x = np.mgrid[:96, :96] - 47.5
    hu[:, np.hypot(y, x) > 44] = -1000
    return Volume(name, hu, (3.0, pixel_mm, pixel_mm))


def test_real_patients_keep_their_names_and_pixels() -> None:
    found = real_patients("development", [(noisy("anna", 0.7), [0, 2]), (noisy("bo", 0.8), [1])], 0.5, seed=3)
    assert list(found.patients) == ["anna", "anna", "bo"] and list(found.pixel_mm) == [0.7, 0.7, 0.8]
    assert found.reference is found.pairs.normal, "a patient was scanned once"
    assert found.pairs.slices.tolist() == [0, 2, 1] and set(found.pairs.dose.tolist()) == {0.5}
    with pytest.raises(ValueError, match="no patient"):
        real_patients("nobody", [], 0.5)


def test_another_protocol_changes_the_kernel_but_not_the_dose() -> None:
    one = [(noisy("anna", 0.7), [0])]
    sharp = DoseProtocol(dose=(0.1, 0.1), sharpness=(3.0, 3.0))
    plain, sharper = (real_patients("k", one, 0.5, protocol=p).pairs for p in (None, sharp))
    assert sharper.dose.tolist() == [0.5]
    assert sharper.normal[0, 30:60, 30:60].std() > 1.3 * plain.normal[0, 30:60, 30:60].std()


def test_the_first_patients_keep_all_that_belongs_to_them() -> None:
    n = np.arange(5, dtype=np.int16)[:, None, None] * np.ones((1, 2, 2), np.int16)
    pairs = Pairs(n, n + 10, np.full(5, 0.25), np.arange(5))
    sizes = [1.0, 2.0, 3.0, 4.0, 5.0]
    cohort = Cohort("c", ["a", "d", "a", "b", "d"], pairs, sizes, again=n + 20, groups=n + 30)
    both = first_patients(cohort, 2)
    assert both.patients == ["a", "d", "a", "d"] and both.pixel_mm == [1.0, 2.0, 3.0, 5.0]
    found = first_patients(cohort, 1)
    assert found.patients == ["a", "a"] and found.pixel_mm == [1.0, 3.0]
    assert found.pairs.low[:, 0, 0].tolist() == [0, 2] and found.clean is None
    assert found.again is not None and found.again[:, 0, 0].tolist() == [20, 22]
    assert np.array_equal(found.reference, found.again)
    assert found.groups is not None and found.groups[:, 0, 0].tolist() == [30, 32]
    assert found.pairs.normal[:, 0, 0].tolist() == [10, 12] and found.pairs.slices.tolist() == [0, 2]
    once = first_patients(replace(cohort, again=None), 1)
    assert np.array_equal(once.reference, found.pairs.normal)
