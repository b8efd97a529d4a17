"""The Fourier slice theorem as code: a slice to its line integrals, and lines back over a slice.

P(f, theta) = F(f cos(theta), f sin(theta)): the 1-D Fourier transform P of a parallel projection is the
slice's 2-D transform F on the radial line at the angle theta of that view (Kak & Slaney, ch. 3). `finufft`
evaluates F on those lines; the rest is below. Both ways are linear, adjoint to each other and known to
torch's autograd. Taught in chapter 02. Lengths are mm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import scipy.fft
import torch

__all__ = ["Geometry", "Lines", "SliceTheorem", "Smear", "slice_theorem"]


@dataclass(frozen=True)
class Geometry:
    """Where pixels and rays lie; views cover half a turn. For names see `physics.Scanner`."""

    matrix: int
    pixel_mm: float
    n_views: int
    n_channels: int
    channel_mm: float

    @property
    def view_angles(self) -> np.ndarray:
        """Angles in radians, (n_views,), over half a turn."""
        return (np.arange(self.n_views) + 0.5) * np.pi / self.n_views

    @property
    def channel_positions_mm(self) -> np.ndarray:
        """Distance of each channel's ray from the isocentre in mm, (n_channels,)."""
        return (np.arange(self.n_channels) - (self.n_channels - 1) / 2) * self.channel_mm


class SliceTheorem:
    """The theorem for one geometry. Weights for its two methods: `seen`, `sharp`, both (V, F) complex64.

    V views of C channels; F frequencies of the detector, zero-padded to `padded` channels.
    """

    EPS = 1e-4  # relative accuracy of the non-uniform transform; single precision carries no more than 1e-6

    def __init__(self, geometry: Geometry) -> None:
        s = self.geometry = geometry
        # Zero-pad the detector until the slice's diagonal fits: no view may wrap around.
        need = max(s.n_channels, 1.02 * math.sqrt(2) * s.matrix * s.pixel_mm / s.channel_mm)
        self.padded = scipy.fft.next_fast_len(math.ceil(need / 2), real=True) * 2
        frequency = np.fft.rfftfreq(self.padded, s.channel_mm)  # (F,) cycles/mm
        cos, sin = np.cos(s.view_angles)[:, None], np.sin(s.view_angles)[:, None]
        self.kx = 2 * np.pi * s.pixel_mm * cos * frequency  # (V, F) radians a pixel
        self.ky = 2 * np.pi * s.pixel_mm * sin * frequency
        # The transform counts pixels from matrix // 2; the isocentre lies between the middle pixels.
        half_pixel = s.matrix // 2 - (s.matrix - 1) / 2
        first_channel = s.channel_positions_mm[0]
        shift = np.exp(-1j * half_pixel * (self.kx + self.ky) + 2j * np.pi * frequency * first_channel)
        # A pixel is a square and a channel has a width: both blur the projection.
        square = np.sinc(cos * frequency * s.pixel_mm) * np.sinc(sin * frequency * s.pixel_mm)
        blur = square * np.sinc(frequency * s.channel_mm) * s.pixel_mm**2 / s.channel_mm
        self.seen = torch.from_numpy((shift * blur).astype(np.complex64))  # as the detector sees it
        self.sharp = torch.from_numpy(shift.astype(np.complex64))  # as FBP takes it back: points, no blur
        self.both_halves = torch.from_numpy(_both_halves(self.padded))
        self.plans: dict[int, Any] = {}

    def plan(self, kind: int) -> Any:
        """finufft's plan: kind 2 is grid to radial lines, kind 1 is radial lines to grid."""
        if kind not in self.plans:
            n = self.geometry.matrix
            plan = _finufft().Plan(
                kind,
                (n, n),
                eps=self.EPS,
                dtype="complex64",
                isign=-1 if kind == 2 else 1,
                nthreads=1,  # sums in one order: the same seed gives the same scan on any number of cores
            )
            plan.setpts(self.ky.ravel().astype(np.float32), self.kx.ravel().astype(np.float32))
            self.plans[kind] = plan
        return self.plans[kind]

    def lines(self, image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """(N, N) to (V, C): the 2-D transform on radial lines, each line back-transformed in 1-D."""
        radial = self.plan(2).execute(image.numpy().astype(np.complex64, order="C"))
        spectrum = torch.from_numpy(radial).reshape(self.kx.shape) * weight
        return torch.fft.irfft(spectrum, self.padded)[..., : self.geometry.n_channels]

    def smear(self, lines: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """(V, C) to (N, N): adjoint of `lines`, times `padded`. Lines are spread over their rays."""
        spectrum = torch.fft.rfft(lines, self.padded) * (weight.conj() * self.both_halves)
        return torch.from_numpy(self.plan(1).execute(spectrum.reshape(-1).numpy()).real.copy())


class Lines(torch.autograd.Function):
    """`SliceTheorem.lines` for autograd: the gradient of a linear map is its adjoint."""

    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, theorem: SliceTheorem, weight: torch.Tensor) -> torch.Tensor:
        ctx.theorem, ctx.weight = theorem, weight
        return theorem.lines(image, weight)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return Smear.apply(gradient, ctx.theorem, ctx.weight) / ctx.theorem.padded, None, None


class Smear(torch.autograd.Function):
    """`SliceTheorem.smear` for autograd."""

    @staticmethod
    def forward(ctx: Any, lines: torch.Tensor, theorem: SliceTheorem, weight: torch.Tensor) -> torch.Tensor:
        ctx.theorem, ctx.weight = theorem, weight
        return theorem.smear(lines, weight)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return Lines.apply(gradient, ctx.theorem, ctx.weight) * ctx.theorem.padded, None, None


def _finufft() -> Any:
    try:
        return import_module("finufft")
    except ImportError as error:
        raise ImportError(
            "line integrals need the package finufft. Where it has no wheel, as on Linux on ARM, "
            "`pip install finufft` compiles it: that takes cmake and a C++ compiler"
        ) from error


def _both_halves(n: int) -> np.ndarray:
    """Weights that make a half spectrum of length n // 2 + 1 stand for the whole: its ends count once."""
    weight = np.full(n // 2 + 1, 2.0, dtype=np.float32)
    weight[0] = weight[-1] = 1.0  # n is even
    return weight


@lru_cache(maxsize=4)
def slice_theorem(geometry: Geometry) -> SliceTheorem:
    """The theorem for a geometry: its plans are costly, so the last few are kept."""
    return SliceTheorem(geometry)
