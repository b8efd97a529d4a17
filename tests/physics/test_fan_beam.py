"""Rebinning against chords worked out in the fan's own geometry."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from alden_lite.physics.fan_beam import FanBeam, fan_to_parallel, parallel_to_fan
from alden_lite.physics.hounsfield import MU_WATER_PER_MM
from alden_lite.physics.scanner import Scanner

SCANNER = Scanner.covering(256, 1.4)
FAN = FanBeam(n_channels=368, channel_mm=2 * 1.2858, n_views=576)

X_MM, Y_MM, RADIUS_MM = 50.0, -30.0, 60.0
"""A cylinder of water beside the isocentre: wrong signs and mirrored channels would show."""


def fan_chords(fan: FanBeam) -> np.ndarray:
    """Line integrals (V, C) from the source's place and each ray's direction, without any sinogram."""
    beta, gamma = fan.view_angles[:, None], fan.fan_angles
    source = fan.source_to_isocentre_mm * np.sin(beta), -fan.source_to_isocentre_mm * np.cos(beta)
    # To the isocentre is (-sin, cos) of beta; channels count up along (cos, sin).
    dx = -np.sin(beta) * np.cos(gamma) + np.cos(beta) * np.sin(gamma)
    dy = np.cos(beta) * np.cos(gamma) + np.sin(beta) * np.sin(gamma)
    distance = (X_MM - source[0]) * dy - (Y_MM - source[1]) * dx
    return 2 * np.sqrt(np.maximum(RADIUS_MM**2 - distance**2, 0)) * MU_WATER_PER_MM


def parallel_chords(scanner: Scanner) -> torch.Tensor:
    theta, t = scanner.view_angles[:, None], scanner.channel_positions_mm
    distance = t - (X_MM * np.cos(theta) + Y_MM * np.sin(theta))
    return torch.from_numpy(2 * np.sqrt(np.maximum(RADIUS_MM**2 - distance**2, 0)) * MU_WATER_PER_MM)


def relative_rms(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(((one - other) ** 2).mean()) / other.max())


def test_parallel_lines_sorted_into_a_fan_are_the_fans_own_chords() -> None:
    fan = parallel_to_fan(parallel_chords(SCANNER), SCANNER, FAN)
    assert relative_rms(fan.numpy(), fan_chords(FAN)) < 3e-3


def test_fan_lines_sorted_into_parallel_ones_are_parallel_chords() -> None:
    parallel = fan_to_parallel(torch.from_numpy(fan_chords(FAN)), FAN, SCANNER)
    assert relative_rms(parallel.numpy(), parallel_chords(SCANNER).numpy()) < 3e-3


def test_there_and_back_again_changes_next_to_nothing() -> None:
    lines = parallel_chords(SCANNER)
    back = fan_to_parallel(parallel_to_fan(lines, SCANNER, FAN), FAN, SCANNER)
    assert relative_rms(back.numpy(), lines.numpy()) < 2e-3


def test_a_slice_from_fan_data_reads_water_where_water_is() -> None:
    parallel = fan_to_parallel(torch.from_numpy(fan_chords(FAN)), FAN, SCANNER)
    hu = SCANNER.reconstruct(parallel)
    along = (torch.arange(256) - 127.5) * SCANNER.pixel_mm
    inside = torch.hypot(along[:, None] - Y_MM, along - X_MM) < RADIUS_MM - 8
    assert abs(hu[inside].mean().item()) < 0.5
    assert hu[inside].std().item() < 1


def test_both_measurements_of_a_line_are_used() -> None:
    noise = torch.randn(FAN.n_views, FAN.n_channels, generator=torch.Generator().manual_seed(0))
    middle = slice(100, -100)
    both = fan_to_parallel(noise, FAN, SCANNER)[:, SCANNER.n_channels // 2 - 60 :][:, :120]
    half_turn = noise.clone()
    half_turn[: FAN.n_views // 2] = 0
    one = fan_to_parallel(half_turn, FAN, SCANNER)[middle, SCANNER.n_channels // 2 - 20 :][:, :40]
    # Each half of the turn brings half of every line: in amplitude, so variances add up to a half.
    assert one.var().item() == pytest.approx(both.var().item() / 2, rel=0.05)


def test_rays_that_were_not_measured_read_as_air() -> None:
    narrow = replace(FAN, n_channels=100)  # sees 138 mm
    parallel = fan_to_parallel(torch.ones(narrow.n_views, 100), narrow, SCANNER)
    outside = np.abs(SCANNER.channel_positions_mm) > narrow.field_mm / 2 + SCANNER.channel_mm
    assert (parallel[:, outside] == 0).all()
    assert (parallel[:, ~outside] > 0).any()


def test_the_default_fan_is_the_siemens_scanner_of_the_public_projection_data() -> None:
    fan = FanBeam()
    at_isocentre = fan.channel_mm * fan.source_to_isocentre_mm / fan.source_to_detector_mm
    assert at_isocentre == pytest.approx(0.705, abs=5e-4)
    assert fan.field_mm == pytest.approx(500, abs=3)
    assert math.degrees(2 * fan.fan_angles[-1]) == pytest.approx(49.9, abs=0.1)


def test_impossible_fans_and_wrong_sinograms_are_refused() -> None:
    with pytest.raises(ValueError, match="n_views must be above 0"):
        FanBeam(n_views=0)
    with pytest.raises(ValueError, match="beyond the isocentre"):
        FanBeam(source_to_detector_mm=500)
    with pytest.raises(ValueError, match="too wide"):
        FanBeam(n_channels=4000)
    with pytest.raises(ValueError, match="360 views x 368 channels"):
        parallel_to_fan(torch.zeros(3, 3), Scanner.covering(256, 1.4, n_channels=368), FAN)
    with pytest.raises(ValueError, match="NaN"):
        fan_to_parallel(torch.full((FAN.n_views, FAN.n_channels), torch.nan), FAN, SCANNER)
