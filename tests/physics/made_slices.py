"""Small scanners, and water and hips to scan with them."""

import torch

from alden_lite.physics.dose import simulate_pair
from alden_lite.physics.scanner import Scanner

SMALL = Scanner.covering(128, 2.0, n_views=240)
FINE = Scanner(matrix=128, pixel_mm=0.7, channel_mm=0.7, n_channels=184, n_views=360)
"""A quarter of the usual field of view with the usual pixels, channels and kernel."""


def disk(scanner: Scanner, radius_mm: float) -> torch.Tensor:
    """A cylinder of water in air, (N, N) HU."""
    return torch.where(distance_mm(scanner) < radius_mm, 0.0, -1000.0)


def distance_mm(scanner: Scanner) -> torch.Tensor:
    return torch.hypot(*along_axes_mm(scanner))


def along_axes_mm(scanner: Scanner) -> tuple[torch.Tensor, torch.Tensor]:
    """y (N, 1) and x (N,) of the pixels, from the isocentre."""
    along = (torch.arange(scanner.matrix) - (scanner.matrix - 1) / 2) * scanner.pixel_mm
    return along[:, None], along


def hips(scanner: Scanner) -> torch.Tensor:
    """Water 320 x 200 mm with two heavy bones left and right, (N, N) HU."""
    y, x = along_axes_mm(scanner)
    hu = torch.where((x / 110) ** 2 + (y / 75) ** 2 < 1, 0.0, -1000.0)
    hu[torch.hypot(x.abs() - 70, y) < 24] = 1000.0
    return hu


def noise(scanner: Scanner, hu: torch.Tensor, *, dose: float, scans: int) -> torch.Tensor:
    """Noise of independent scans, (scans, N, N) HU."""
    pairs = [
        simulate_pair(hu, scanner=scanner, dose=dose, seed=seed, mode="independent") for seed in range(scans)
    ]
    return torch.stack([pair.low - pair.clean for pair in pairs])
