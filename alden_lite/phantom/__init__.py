"""Patients without end: labelled procedural CT anatomy, free of noise. Taught in chapter 02.

    patient = Patient.draw(7)
    phantom = render(patient, "abdomen", matrix=256)   # .hu, .labels, .pixel_mm

What no scan has: the noise-free truth, exact labels, and as many patients as a statistic needs. Anatomy is
data (`chest`, `abdomen`, `pelvis`, `shoulders`, `head`: tables of curves in mm), the painter is code
(`shapes`, `painting`). Drawn, not scanned: a phantom shows what physics and networks do, not what
patients have.
"""

from alden_lite.phantom.body import EXTENT_MM, REGIONS, Lesion, Phantom, render, render_stack
from alden_lite.phantom.labels import LABEL_ID, LABELS
from alden_lite.phantom.patient import Patient

__all__ = [
    "EXTENT_MM",
    "LABELS",
    "LABEL_ID",
    "REGIONS",
    "Lesion",
    "Patient",
    "Phantom",
    "render",
    "render_stack",
]
