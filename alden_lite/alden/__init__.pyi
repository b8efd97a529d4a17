from .denoising import denoise as denoise, load_generator as load_generator
from .training import Recipe as Recipe, Training as Training
from .paired import PairedPlan as PairedPlan, PairedRun as PairedRun
from .generator import UNet as UNet, build_generator as build_generator, keep_input as keep_input
from .pvm import (
    INPUTS as INPUTS,
    PVM as PVM,
    crop_to_grid as crop_to_grid,
    load_pvm as load_pvm,
    random_pvm as random_pvm,
)
from .fusion import Attention as Attention, AttentionFeatureFusion as AttentionFeatureFusion
from .discriminator import (
    AnatomyAwareDiscriminator as AnatomyAwareDiscriminator,
    discriminator_loss as discriminator_loss,
    generator_loss as generator_loss,
)
from .contrastive import (
    discordant_places as discordant_places,
    semantic_contrastive_loss as semantic_contrastive_loss,
)
