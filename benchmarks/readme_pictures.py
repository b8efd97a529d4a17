"""The pictures of the README: `python benchmarks/readme_pictures.py` writes images/before_after.png."""

from __future__ import annotations

from pathlib import Path

import torch

from alden_lite import plots
from alden_lite.data import load_sample, make_pairs
from alden_lite.denoising import denoise

SLICE = 24  # of the test slab through the liver
PATCH = (150, 350, 90, 290)  # rows and columns: liver, ribs, vessels


def main() -> None:
    """Write the picture and say where it is."""
    volume = load_sample()
    pairs = make_pairs(volume, [SLICE])
    low, normal = (torch.from_numpy(hu[0]).float() for hu in (pairs.low, pairs.normal))
    panels = {
        "quarter dose": low,
        "pixel loss alone": denoise(low, "l1"),
        "ALDEN": denoise(low, "alden"),
        "normal dose": normal,
    }
    figure = plots.ct_panels(panels, window="evaluation", zoom=PATCH, spacing_mm=volume.spacing_mm[1])
    target = Path(__file__).parents[1] / "images" / "before_after.png"
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, dpi=110)
    print(f"wrote {target.name}, {target.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
