from .colours import (
    foreground as foreground,
    ForegroundColours as ForegroundColours,
    similarity as similarity,
    compact as compact,
)
from .probes import (
    token_labels as token_labels,
    slabs as slabs,
    collect_tokens as collect_tokens,
    pixel_tokens as pixel_tokens,
    position_tokens as position_tokens,
    make_probe as make_probe,
    fit_probe as fit_probe,
    as_linear as as_linear,
    tested_on as tested_on,
    cross_validated as cross_validated,
    ProbeResult as ProbeResult,
)
from .attention_maps import (
    attention as attention,
    attention_map as attention_map,
    rollout as rollout,
    gradient_rollout as gradient_rollout,
)
from .attribution import (
    BLACK_HU as BLACK_HU,
    organ_score as organ_score,
    output_at as output_at,
    integrated_gradients as integrated_gradients,
    occlusion as occlusion,
    grad_cam as grad_cam,
    receptive_field as receptive_field,
    radius_of as radius_of,
)
from .controls import randomised as randomised, rank_correlation as rank_correlation
