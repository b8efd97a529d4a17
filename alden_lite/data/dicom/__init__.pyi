from .series import (
    Series as Series,
    SeriesInfo as SeriesInfo,
    find_series as find_series,
    header as header,
    read_series as read_series,
)
from .tags import DicomError as DicomError
from .write import write_derived as write_derived
