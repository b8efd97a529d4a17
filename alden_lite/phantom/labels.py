"""The 46 labels of the phantom, in the order of their numbers."""

from __future__ import annotations

LABELS = (
    "air", "skin", "subcutaneous_fat", "muscle", "visceral_fat", "cortical_bone", "bone_marrow",
    "spinal_canal", "disc_cartilage", "lung", "airway", "lung_vessel", "nodule", "heart_myocardium",
    "heart_left", "heart_right", "aorta", "vena_cava", "pulmonary_artery", "esophagus", "liver",
    "liver_vessel", "liver_lesion", "gallbladder", "spleen", "pancreas", "adrenal", "kidney_cortex",
    "kidney_medulla", "kidney_sinus", "kidney_cyst", "stomach", "bowel", "bowel_gas", "small_vessel",
    "lymph_node", "bladder", "prostate_uterus", "rectum", "brain_grey", "brain_white", "csf", "hemorrhage",
    "table", "calcification", "breast",
)  # fmt: skip
LABEL_ID = {name: number for number, name in enumerate(LABELS)}
