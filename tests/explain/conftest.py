"""Networks that tests of explanations share."""

from __future__ import annotations

import pytest
from made_networks import tiny_backbone, wrapped
from timm.models.vision_transformer_sam import VisionTransformerSAM

from alden_lite.alden.pvm import PVM, load_pvm


@pytest.fixture(scope="module")
def tiny() -> PVM:
    return wrapped(tiny_backbone())


@pytest.fixture(scope="module")
def lite0() -> PVM:
    return load_pvm("efficientnet_lite0")


@pytest.fixture(scope="module")
def windowed() -> PVM:
    """The architecture of SAM, small: two blocks that attend in windows."""
    backbone = VisionTransformerSAM(
        img_size=64, patch_size=16, embed_dim=12, depth=2, num_heads=2, window_size=2, neck_chans=0
    )
    return wrapped(backbone, taps=(2,), patch_size=16)
