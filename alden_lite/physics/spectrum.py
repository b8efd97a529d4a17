"""A 120 kVp beam instead of one energy: beam hardening, and the correction every scanner makes for water.

Soft X-rays are absorbed first, so a beam gets harder, and each further mm weakens it less. A line integral
is then no longer proportional to the path: the middle of a body reads too low (*cupping*), and dark bands
run between bones. A polynomial measured on water straightens water; bones stay (Kak & Slaney ch. 4.1; Herman,
PMB 24:81, 1979). Optional: the course's numbers use one energy.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from alden_lite.physics.hounsfield import AIR_HU, MU_WATER_PER_MM
from alden_lite.physics.scanner import Scanner

__all__ = ["BONE_RATIO", "THIN_WATER_PER_MM", "polychromatic_lines", "water_precorrection"]

BEAM = np.array(
    [  # keV, share of the signal, water 1/mm, cortical bone (1.92 g/cm3) 1/mm
        (32.4, 0.0092, 0.03428, 0.21625),
        (40.9, 0.0619, 0.02647, 0.12382),
        (48.7, 0.0831, 0.02311, 0.08599),
        (55.6, 0.1158, 0.02139, 0.06818),
        (60.5, 0.1483, 0.02051, 0.05977),
        (67.8, 0.1573, 0.01954, 0.05142),
        (77.0, 0.1340, 0.01863, 0.04458),
        (88.2, 0.1531, 0.01778, 0.03929),
        (103.7, 0.1373, 0.01689, 0.03487),
    ]
)
"""The beam in nine bins (9, 4): 120 kVp from tungsten at 7 degrees behind 6 mm Al and 0.9 mm Ti (SpekPy 2),
weighted by energy and by what 0.14 cm of Gd2O2S absorbs; attenuation from xraydb (Elam), bone of ICRU's
composition."""

THIN_WATER_PER_MM = float((BEAM[:, 1] * BEAM[:, 2]).sum() / BEAM[:, 1].sum())
"""Attenuation of the first mm of water in this beam. Uncorrected lines times `MU_WATER_PER_MM /
THIN_WATER_PER_MM` reconstruct to HU in which a thin sheet of water reads 0."""

BONE_RATIO = float((BEAM[:, 1] * BEAM[:, 3]).sum() / (BEAM[:, 1] * BEAM[:, 2]).sum())
"""Thin cortical bone against thin water: it reads 1000 (BONE_RATIO - 1) HU."""

DENSEST_SOFT_TISSUE = 1.1  # times water: above 100 HU a pixel is taken to hold bone
LONGEST_WATER_MM = 600.0


def polychromatic_lines(scanner: Scanner, hu: torch.Tensor) -> torch.Tensor:
    """Line integrals as this beam measures them: -ln of the signal that is left, over all energies.

    A pixel up to 100 HU is water of another density; above, a mixture with cortical bone. (So iodine hardens
    the beam like bone, which is nearly right.)

    Args:
        scanner: geometry.
        hu: (N, N) in HU; values below -1000 count as air.

    Returns:
        (n_views, n_channels) float32, dimensionless, at least 0.

    Raises:
        ValueError: if the slice is not N x N for this scanner or holds NaN or infinity.

    Warns nobody of padding or of a patient cut by the field of view: `Scanner.project` does.
    """
    relative = torch.as_tensor(hu, dtype=torch.float32).clamp(min=AIR_HU) / 1000 + 1  # times water
    bone = ((relative - DENSEST_SOFT_TISSUE) / (BONE_RATIO - DENSEST_SOFT_TISSUE)).clamp(min=0)
    water = torch.where(bone > 0, DENSEST_SOFT_TISSUE * (1 - bone), relative)
    water_mm, bone_mm = (scanner.line_integrals(basis).clamp(min=0) for basis in (water, bone))
    _, share, mu_water, mu_bone = torch.from_numpy(BEAM).T[:, :, None, None]  # each (9, 1, 1)
    return -torch.logsumexp(share.log() - mu_water * water_mm - mu_bone * bone_mm, 0).float()


def water_precorrection(lines: torch.Tensor) -> torch.Tensor:
    """Measured lines to those of one energy, as if all that was crossed were water.

    Args:
        lines: dimensionless, any shape.

    Returns:
        Same shape: the path in water (mm) that gives such a line, times `MU_WATER_PER_MM`; so
        `scanner.reconstruct` reads water as 0 HU. A polynomial of degree 5, fitted up to 600 mm of water.
    """
    result = torch.zeros_like(lines)
    for coefficient in reversed(_water_polynomial()):  # Horner; nothing crossed stays nothing
        result = (result + coefficient) * lines
    return result


@lru_cache(maxsize=1)
def _water_polynomial() -> tuple[float, ...]:
    """Coefficients of line^1 ... line^5."""
    path_mm = np.linspace(0, LONGEST_WATER_MM, 2000)
    line = -np.log((BEAM[:, 1] * np.exp(-BEAM[:, 2] * path_mm[:, None])).sum(1))
    powers = line[:, None] ** np.arange(1, 6)
    coefficients, *_ = np.linalg.lstsq(powers, MU_WATER_PER_MM * path_mm, rcond=None)
    return tuple(float(c) for c in coefficients)
