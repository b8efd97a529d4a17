"""Fan beam: how a scanner really measures, and how its rays are sorted into parallel ones.

The source turns around the patient and its rays spread like a fan onto an arc of detectors. A fan ray and
a parallel ray that run along the same line measure the same integral, so one sinogram is the other with its
samples in another order: *rebinning* (Kak & Slaney, ch. 3.4). Every clinical reconstruction that calls
itself WFBP starts like this (Stierstorfer et al., PMB 49:2209, 2004). Taught in chapter 02.

    parallel angle  theta = beta - gamma          beta: angle of the source, gamma: angle in the fan
    position        t = source_to_isocentre * sin(gamma)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from alden_lite.physics.scanner import Scanner

__all__ = ["FanBeam", "fan_to_parallel", "parallel_to_fan"]


@dataclass(frozen=True)
class FanBeam:
    """An equiangular fan over a full turn; the defaults are the SOMATOM Definition AS+.

    At angle beta the source stands at `source_to_isocentre_mm` * (sin(beta), -cos(beta)) in (x, y), with x
    along the columns of a slice and y along its rows; the middle ray runs through the isocentre.

    Raises:
        ValueError: if a length or count is not above 0, the detector is nearer than the isocentre, or the
            fan is half a turn wide or wider.
    """

    source_to_isocentre_mm: float = 595.0
    source_to_detector_mm: float = 1085.6
    n_channels: int = 736
    channel_mm: float = 1.2858  # along the arc of the detector
    n_views: int = 1152  # over 360 degrees

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("n_channels", "n_views"):
            if getattr(self, name) != int(getattr(self, name)):
                raise ValueError(f"{name} must be a whole number, got {getattr(self, name)}")
        if self.source_to_detector_mm < self.source_to_isocentre_mm:
            raise ValueError("the detector must lie beyond the isocentre, seen from the source")
        if self.fan_angles[-1] >= math.pi / 2:
            raise ValueError(f"a fan of {math.degrees(2 * self.fan_angles[-1]):.0f} degrees is too wide")

    @property
    def view_angles(self) -> np.ndarray:
        """Angles beta of the source in radians, (n_views,), over a full turn."""
        return (np.arange(self.n_views) + 0.5) * 2 * np.pi / self.n_views

    @property
    def fan_angles(self) -> np.ndarray:
        """Angle gamma of each channel's ray from the middle one in radians, (n_channels,)."""
        middle = (self.n_channels - 1) / 2
        return (np.arange(self.n_channels) - middle) * self.channel_mm / self.source_to_detector_mm

    @property
    def field_mm(self) -> float:
        """Diameter of the circle that every view sees whole."""
        return 2 * self.source_to_isocentre_mm * math.sin(self.fan_angles[-1])


def parallel_to_fan(sinogram: torch.Tensor, scanner: Scanner, fan: FanBeam) -> torch.Tensor:
    """What the fan would have measured: its rays looked up among the parallel ones.

    Args:
        sinogram: parallel lines (scanner.n_views, scanner.n_channels).
        scanner: their geometry.
        fan: the wanted geometry.

    Returns:
        (fan.n_views, fan.n_channels) float32. Rays beyond the parallel detector read 0, as air.

    Raises:
        ValueError: if the sinogram does not fit the scanner.
    """
    lines = _checked(sinogram, (scanner.n_views, scanner.n_channels))
    # The other half of the turn sees the same lines from behind: p(theta + pi, t) = p(theta, -t).
    whole_turn = np.concatenate([lines, lines[:, ::-1]])
    beta, gamma = fan.view_angles[:, None], fan.fan_angles
    theta = beta - gamma
    t = fan.source_to_isocentre_mm * np.sin(gamma)
    return _look_up(whole_turn, scanner.view_angles[0], theta, t / scanner.channel_mm)


def fan_to_parallel(sinogram: torch.Tensor, fan: FanBeam, scanner: Scanner) -> torch.Tensor:
    """Fan rays sorted into the parallel sinogram that FBP wants.

    A full turn measures every line twice, once from each end: the result is the mean of both, so it has the
    photons of both.

    Args:
        sinogram: fan lines (fan.n_views, fan.n_channels).
        fan: their geometry.
        scanner: the wanted geometry.

    Returns:
        (scanner.n_views, scanner.n_channels) float32. Rays beyond the fan read 0, as air.

    Raises:
        ValueError: if the sinogram does not fit the fan.
    """
    lines = _checked(sinogram, (fan.n_views, fan.n_channels))
    theta, t = scanner.view_angles[:, None], scanner.channel_positions_mm
    gamma = np.arcsin(np.clip(t / fan.source_to_isocentre_mm, -1, 1))  # 90 degrees is beyond any fan
    channel = gamma * fan.source_to_detector_mm / fan.channel_mm  # from the middle
    one_end = _look_up(lines, fan.view_angles[0], theta + gamma, channel)
    other_end = _look_up(lines, fan.view_angles[0], theta + np.pi - gamma, -channel)
    return (one_end + other_end) / 2


def _look_up(
    whole_turn: np.ndarray, first_angle: float, angle: np.ndarray, channel: np.ndarray
) -> torch.Tensor:
    """Cubic interpolation of a sinogram (V, C) over a full turn, periodic; 0 beyond its channels.

    `angle` (V', C') in radians; `channel` (C',) counted from the middle of the detector.
    """
    views, channels = whole_turn.shape
    edge = 8  # samples repeated at both ends of the turn: the spline's prefilter forgets faster than that
    around = np.pad(whole_turn, ((edge, edge), (0, 0)), mode="wrap")
    row = np.mod((angle - first_angle) * views / (2 * np.pi), views) + edge
    column = np.broadcast_to(channel + (channels - 1) / 2, row.shape)
    values = ndimage.map_coordinates(around, [row, column], order=3, mode="constant", cval=0.0)
    return torch.from_numpy(values)


def _checked(sinogram: torch.Tensor, shape: tuple[int, int]) -> np.ndarray:
    lines = torch.as_tensor(sinogram, dtype=torch.float32).detach().numpy()
    if lines.shape != shape:
        raise ValueError(f"a sinogram of {shape[0]} views x {shape[1]} channels is wanted, got {lines.shape}")
    if not np.isfinite(lines).all():
        raise ValueError("the sinogram holds NaN or infinity: replace them before rebinning")
    return lines
