from . import studies as studies
from .metrics import psnr_db as psnr_db, ssim as ssim, rmse_hu as rmse_hu
from .quality import (
    image_metrics as image_metrics,
    slice_quality as slice_quality,
    appraise as appraise,
    mean_of as mean_of,
)
from .perception import perceptual_distance as perceptual_distance
from .organs import errors_by_label as errors_by_label, dice as dice
from .segmenter import load_segmenter as load_segmenter, segment as segment
from .lesions import (
    place_lesion as place_lesion,
    lesion_pairs as lesion_pairs,
    npw as npw,
    contrast_recovered as contrast_recovered,
)
from .statistics import (
    compare as compare,
    interval as interval,
    interval_by_patient as interval_by_patient,
    holm as holm,
)
from .studies.methods import METHODS as METHODS
from .studies.outcome import (
    FLOOR as FLOOR,
    VERDICTS as VERDICTS,
    claims as claims,
    read_outcome as read_outcome,
)
from .studies.ablations import (
    BASE as BASE,
    VARIATIONS as VARIATIONS,
    train_variation as train_variation,
    look as look,
    read_study as read_study,
    against as against,
)
