"""Beam hardening: how much a water cylinder cups, and that the correction takes it away."""

import numpy as np
import pytest
import torch

from alden_lite.physics.hounsfield import MU_WATER_PER_MM
from alden_lite.physics.scanner import Scanner
from alden_lite.physics.spectrum import (
    BEAM,
    BONE_RATIO,
    THIN_WATER_PER_MM,
    polychromatic_lines,
    water_precorrection,
)

SCANNER = Scanner.covering(128, 3.125, n_views=240)


def distance_mm(x_mm: float = 0.0) -> torch.Tensor:
    along = (torch.arange(SCANNER.matrix) - (SCANNER.matrix - 1) / 2) * SCANNER.pixel_mm
    return torch.hypot(along[:, None], along - x_mm)


def water() -> torch.Tensor:
    """A cylinder of 30 cm, (N, N) HU."""
    return torch.where(distance_mm() < 150, 0.0, -1000.0)


def centre_and_edge(hu: torch.Tensor) -> tuple[float, float]:
    r = distance_mm()
    return hu[r < 20].mean().item(), hu[(r >= 130) & (r < 142)].mean().item()


def uncorrected(lines: torch.Tensor) -> torch.Tensor:
    return SCANNER.reconstruct(lines * MU_WATER_PER_MM / THIN_WATER_PER_MM)


def test_thirty_centimetres_of_water_cup() -> None:
    centre, edge = centre_and_edge(uncorrected(polychromatic_lines(SCANNER, water())))
    assert centre == pytest.approx(-49, abs=1.5)
    assert edge == pytest.approx(-25, abs=1.5)


def test_the_water_precorrection_takes_the_cup_away() -> None:
    centre, edge = centre_and_edge(
        SCANNER.reconstruct(water_precorrection(polychromatic_lines(SCANNER, water())))
    )
    assert abs(centre) < 0.3
    assert abs(edge) < 0.3


def test_precorrected_water_paths_are_their_length_times_attenuation() -> None:
    path_mm = np.array([0.0, 1.0, 50.0, 300.0, 590.0])
    lines = -np.log((BEAM[:, 1] * np.exp(-BEAM[:, 2] * path_mm[:, None])).sum(1))
    corrected = water_precorrection(torch.from_numpy(lines)).numpy()
    np.testing.assert_allclose(corrected / MU_WATER_PER_MM, path_mm, atol=0.01)
    assert corrected[0] == 0


def test_lines_are_those_of_the_energies_one_by_one() -> None:
    hu = torch.where(distance_mm() < 100, 0.0, -1000.0)
    hu[distance_mm(40.0) < 20] = 800.0
    bone = (1.8 - 1.1) / (BONE_RATIO - 1.1)
    signal = 0
    for _, share, mu_water, mu_bone in BEAM:  # attenuation of each pixel at this energy
        mu = torch.where(hu == 800, 1.1 * (1 - bone) * mu_water + bone * mu_bone, (hu / 1000 + 1) * mu_water)
        signal = signal + share * torch.exp(-SCANNER.line_integrals(mu))
    through_bone = SCANNER.line_integrals((hu == 800).float()) > 5  # mm: beside it, sharp edges ring below 0
    lines = polychromatic_lines(SCANNER, hu)
    assert through_bone.sum() > 1000
    torch.testing.assert_close(lines[through_bone], -signal.log()[through_bone], atol=1e-4, rtol=0)


def test_a_thin_object_has_the_attenuation_of_the_open_beam() -> None:
    hu = torch.full((128, 128), -1000.0)
    hu[60:68, 60:68] = -990.0  # a hundredth of water
    ratio = polychromatic_lines(SCANNER, hu).sum() / SCANNER.project(hu).sum()
    assert ratio.item() == pytest.approx(THIN_WATER_PER_MM / MU_WATER_PER_MM, rel=2e-3)


def test_between_bones_a_dark_band_stays() -> None:
    hu = water()
    for x in (-90.0, 90.0):
        hu[distance_mm(x) < 25] = 1000.0
    read = SCANNER.reconstruct(water_precorrection(polychromatic_lines(SCANNER, hu)))
    assert read[distance_mm() < 15].mean() < -5


def test_the_beam_is_a_whole_and_gets_weaker_with_energy() -> None:
    assert BEAM[:, 1].sum() == pytest.approx(1, abs=1e-9)
    assert (np.diff(BEAM[:, [0]], axis=0) > 0).all()
    assert (np.diff(BEAM[:, 2:], axis=0) < 0).all()


def test_slices_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="128 x 128"):
        polychromatic_lines(SCANNER, torch.zeros(64, 64))
    with pytest.raises(ValueError, match="NaN"):
        polychromatic_lines(SCANNER, torch.full((128, 128), torch.nan))
