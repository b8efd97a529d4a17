from .loop import (
    Plan as Plan,
    Run as Run,
    Player as Player,
    Report as Report,
    frozen as frozen,
    learning_rate as learning_rate,
)
from .crops import Batch as Batch, CropBank as CropBank, draw_crops as draw_crops
from .checkpoint import (
    CheckpointError as CheckpointError,
    load_weights as load_weights,
    write_weights as write_weights,
)
from .speed import bfloat16_gain as bfloat16_gain
