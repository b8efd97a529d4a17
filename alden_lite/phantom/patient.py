"""A patient, drawn once from a seed: size, fat, sex, age, contrast medium, and the HU of every tissue."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

__all__ = ["Patient"]

# tissue: mean HU and spread between patients, native | with contrast medium in the portal venous phase
TISSUE_HU: Mapping[str, tuple[float, float, float, float]] = MappingProxyType({
    "skin":       (35, 10, 35, 10),
    "fat":        (-104, 4, -104, 4),
    "muscle":     (52, 4, 62, 4),
    "artery":     (42, 3, 155, 18),
    "vein":       (40, 3, 145, 15),
    "lung_artery": (42, 3, 150, 20),
    "heart_wall": (48, 3, 105, 8),
    "liver":      (57, 5, 112, 9),
    "spleen":     (48, 3, 122, 9),
    "pancreas":   (40, 4, 98, 9),
    "kidney_cortex":  (34, 3, 195, 18),
    "kidney_medulla": (30, 3, 150, 15),
    "gut_wall":   (40, 5, 85, 10),
    "uterus":     (50, 4, 90, 8),
    "lung":       (-865, 18, -865, 18),
    "cortex":     (1000, 90, 1000, 90),
})  # fmt: skip


@dataclass(frozen=True)
class Patient:
    """One procedural patient. `Patient.draw(seed)` makes one; the same seed is the same patient.

    Sizes are relative to an average adult (1.0) or in mm, ages in years.
    """

    seed: int
    size: float  # skeleton and organs, 0.85 to 1.18
    fat_mm: float  # thickness of the fat under the skin, 6 to 48
    visceral: float  # depth of the belly relative to its width, 0.88 to 1.2
    female: bool
    age: float
    contrast: bool  # contrast medium in the veins
    oral_contrast: bool  # contrast medium in stomach and bowel

    @classmethod
    def draw(cls, seed: int) -> Patient:
        """The patient of this seed (an integer, 0 or above).

        Raises:
            ValueError: on a negative seed.
        """
        if seed < 0:
            raise ValueError(f"a seed is 0 or above, got {seed}")
        rng = np.random.default_rng([seed, 0])
        fat = float(np.clip(rng.lognormal(math.log(18), 0.45), 6, 48))
        return cls(
            seed=seed,
            size=float(np.clip(rng.normal(1.0, 0.07), 0.85, 1.18)),
            fat_mm=fat,
            visceral=float(np.clip(rng.normal(1.0, 0.06) + 0.003 * (fat - 18), 0.88, 1.2)),
            female=bool(rng.random() < 0.5),
            age=float(rng.uniform(30, 85)),
            contrast=bool(rng.random() < 0.7),
            oral_contrast=bool(rng.random() < 0.15),
        )

    @property
    def hu(self) -> Mapping[str, float]:
        """Mean HU of every tissue in this patient, by the names of `TISSUE_HU`, and `marrow`."""
        rng = self.rng("tissues")
        values = {}
        for name, (native, spread, enhanced, enhanced_spread) in TISSUE_HU.items():
            z = rng.standard_normal()
            values[name] = enhanced + enhanced_spread * z if self.contrast else native + spread * z
        if rng.random() < 0.18:
            values["liver"] -= 35  # fatty liver
        values["marrow"] = 265 - 1.9 * self.age + 22 * rng.standard_normal()  # bone thins with age
        return MappingProxyType(values)

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose: what one organ draws does not move another."""
        return np.random.default_rng([self.seed, zlib.crc32(purpose.encode())])
