from . import (
    alden as alden,
    data as data,
    engine as engine,
    evaluation as evaluation,
    explain as explain,
    lessons as lessons,
    neighbours as neighbours,
    phantom as phantom,
    physics as physics,
    show as show,
)
from .alden import (
    denoise as denoise,
    load_generator as load_generator,
    PVM as PVM,
    load_pvm as load_pvm,
    UNet as UNet,
    AnatomyAwareDiscriminator as AnatomyAwareDiscriminator,
    semantic_contrastive_loss as semantic_contrastive_loss,
    Recipe as Recipe,
    Training as Training,
)
from .physics import Scanner as Scanner

__version__: str
