"""The pictures of the README: `python benchmarks/readme_pictures.py` writes them into images/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from alden_lite.alden.denoising import denoise
from alden_lite.data.pairs import make_pairs
from alden_lite.data.sample import load_sample
from alden_lite.phantom import Patient, render
from alden_lite.physics.hounsfield import WINDOWS
from alden_lite.show import plots

IMAGES = Path(__file__).parents[1] / "images"
SLICE = 24  # of the test slab through the liver
PATCH = (150, 350, 90, 290)  # rows and columns: liver, ribs, vessels


# region, height in mm, window
REGIONS = [
    ("shoulders", 0, "abdomen"),
    ("chest", 30, "lung"),
    ("chest", -40, "abdomen"),
    ("abdomen", 30, "abdomen"),
    ("pelvis", 0, "abdomen"),
    ("head", 5, "brain"),
]
SEED = 3


def main() -> None:
    """Write the pictures and say where they are."""
    IMAGES.mkdir(exist_ok=True)
    _save(_before_after(), "before_after.png")
    one = [(Patient.draw(SEED), *view) for view in REGIONS]
    _save(_phantoms(one, columns=3), "phantom.png")
    twelve = [(Patient.draw(seed), "abdomen", 20, "abdomen") for seed in range(12)]
    _save(_phantoms(twelve, columns=6), "twelve_patients.png")


def _before_after() -> Figure:
    volume = load_sample()
    pairs = make_pairs(volume, [SLICE])
    low, normal = (torch.from_numpy(hu[0]).float() for hu in (pairs.low, pairs.normal))
    panels = {
        "quarter dose": low,
        "pixel loss alone": denoise(low, "l1"),
        "ALDEN": denoise(low, "alden"),
        "normal dose": normal,
    }
    return plots.ct_panels(panels, window="evaluation", zoom=PATCH, spacing_mm=volume.spacing_mm[1])


def _phantoms(views: Sequence[tuple[Patient, str, float, str]], *, columns: int) -> Figure:
    """Noise-free slices in a grid; the window stands in each title."""
    rows = len(views) // columns
    figure, axes = plt.subplots(
        rows, columns, figsize=(12, 12 * rows / columns * 1.1), layout="constrained", squeeze=False
    )
    for axis, (patient, region, z_mm, name) in zip(axes.flat, views, strict=True):
        hu = render(patient, region, z_mm=z_mm, matrix=384).hu
        limits = {"vmin": WINDOWS[name].low, "vmax": WINDOWS[name].high}
        axis.imshow(hu, cmap="gray", interpolation="antialiased", **limits)
        about = f"patient {patient.seed}" if len({view[0] for view in views}) > 1 else region
        axis.set_title(f"{about}, {WINDOWS[name]}", fontsize=9)
        axis.axis("off")
    return figure


def _save(figure: Figure, name: str) -> None:
    figure.savefig(IMAGES / name, dpi=110)
    print(f"wrote {name}, {(IMAGES / name).stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
