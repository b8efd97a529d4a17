"""Whose slices are looked at."""

import numpy as np
import pytest

from alden_lite.cohorts import Cohort, first_patients, phantoms, real_patients
from alden_lite.data import DoseProtocol, Pairs, Volume


def test_phantom_patients_are_scanned_twice_and_once_without_noise() -> None:
    found = phantoms(2, 0.25, progress=False)
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
    assert len(set(found.pixel_mm)) == 2 or found.pixel_mm[0] > 0.5
    with pytest.raises(ValueError, match="at least 1"):
        phantoms(0, 0.25)


def noisy(name: str, pixel_mm: float) -> Volume:
    hu = np.random.default_rng(0).normal(40, 10, (4, 96, 96)).astype(np.int16)
    y, x = np.mgrid[:96, :96] - 47.5
    hu[:, np.hypot(y, x) > 44] = -1000
    return Volume(name, hu, (3.0, pixel_mm, pixel_mm))


def test_real_patients_keep_their_names_and_pixels() -> None:
    found = real_patients("development", [(noisy("anna", 0.7), [0, 2]), (noisy("bo", 0.8), [1])], 0.5, seed=3)
    assert list(found.patients) == ["anna", "anna", "bo"] and list(found.pixel_mm) == [0.7, 0.7, 0.8]
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
    n = np.arange(4, dtype=np.int16)[:, None, None] * np.ones((1, 2, 2), np.int16)
    pairs = Pairs(n, n + 10, np.full(4, 0.25), np.arange(4))
    cohort = Cohort("c", ["a", "b", "a", "d"], pairs, [1.0, 2.0, 3.0, 4.0], again=n + 20, groups=n + 30)
    found = first_patients(cohort, 2)
    assert found.patients == ["a", "b", "a"] and found.pixel_mm == [1.0, 2.0, 3.0]
    assert found.pairs.low[:, 0, 0].tolist() == [0, 1, 2] and found.clean is None
    assert found.again is not None and found.again[:, 0, 0].tolist() == [20, 21, 22]
    assert found.groups is not None and found.groups[:, 0, 0].tolist() == [30, 31, 32]
    assert found.pairs.normal[2, 0, 0] == 12 and found.pairs.slices.tolist() == [0, 1, 2]
