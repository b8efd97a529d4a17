from . import assets as assets
from . import dicom as dicom
from .volume import Volume as Volume, load_nifti as load_nifti
from .dicom import read_series as read_series
from .sample import load_sample as load_sample, SPLIT as SPLIT, split_slices as split_slices
from .pairs import (
    PROTOCOLS as PROTOCOLS,
    DoseProtocol as DoseProtocol,
    Pairs as Pairs,
    make_pairs as make_pairs,
    training_pairs as training_pairs,
)
from .organs import GROUPS as GROUPS, sample_groups as sample_groups, phantom_groups as phantom_groups
