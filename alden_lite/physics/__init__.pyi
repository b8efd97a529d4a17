from .hounsfield import (
    Window as Window,
    WINDOWS as WINDOWS,
    window as window,
    grey_levels as grey_levels,
    normalise as normalise,
    denormalise as denormalise,
    MU_WATER_PER_MM as MU_WATER_PER_MM,
    hu_to_mu as hu_to_mu,
    mu_to_hu as mu_to_hu,
)
from .scanner import (
    Scanner as Scanner,
    KERNELS as KERNELS,
    PRESETS as PRESETS,
    line_variance as line_variance,
)
from .dose import (
    Pair as Pair,
    simulate_pair as simulate_pair,
    insert_noise as insert_noise,
    photons_matching as photons_matching,
    log_transform as log_transform,
)
from .noise import (
    smooth_tissue as smooth_tissue,
    own_noise_hu as own_noise_hu,
    texture_hu as texture_hu,
    regions_of_interest as regions_of_interest,
    noise_power_spectrum as noise_power_spectrum,
    radial_nps as radial_nps,
    theory_sigma as theory_sigma,
    theory_nps as theory_nps,
    photons_for_sigma as photons_for_sigma,
)
from .fan_beam import FanBeam as FanBeam, parallel_to_fan as parallel_to_fan
