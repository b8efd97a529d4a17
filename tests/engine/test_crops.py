"""Crops of pairs: one place in both doses, all ways to lie, more patient than air."""

import numpy as np
import pytest
import torch

from alden_lite.data.pairs import Pairs
from alden_lite.engine.crops import draw_crops


def ramp_pairs() -> Pairs:
    """Two slices whose pixels say where they are; the normal slice is the low one plus 1000."""
    low = np.arange(2 * 40 * 40, dtype=np.int16).reshape(2, 40, 40)
    return Pairs(low, low + 1000, np.full(2, 0.25), np.arange(2))


def test_crops_of_both_doses_show_the_same_place() -> None:
    low, normal = draw_crops(ramp_pairs(), count=6, size=16, seed=0)
    assert low.shape == normal.shape == (6, 1, 16, 16)
    assert low.dtype == torch.float32
    assert torch.equal(normal - low, torch.full_like(low, 1000))


def test_augmented_crops_are_turned_and_mirrored_in_every_way() -> None:
    low, _ = draw_crops(ramp_pairs(), count=200, size=8, seed=0)
    # In the ramp, a step to the right is +1 and a step down +40: eight ways to lie.
    steps = {(int(c[0, 0, 1] - c[0, 0, 0]), int(c[0, 1, 0] - c[0, 0, 0])) for c in low}
    assert steps == {
        (a, b) for one, other in ((1, 40), (40, 1)) for a in (one, -one) for b in (other, -other)
    }
    plain, _ = draw_crops(ramp_pairs(), count=20, size=8, seed=0, augment=False)
    assert {int(c[0, 0, 1] - c[0, 0, 0]) for c in plain} == {1}


def test_crops_follow_their_seed() -> None:
    one, same, other = (draw_crops(ramp_pairs(), count=3, size=16, seed=s)[0] for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_crops_prefer_the_patient_to_the_air() -> None:
    normal = np.full((1, 128, 128), -1000, dtype=np.int16)
    normal[:, 48:80, 48:80] = 40
    pairs = Pairs(normal, normal, np.full(1, 0.25), np.zeros(1, dtype=int))
    _, crops = draw_crops(pairs, count=40, size=32, seed=0)
    assert ((crops > -500).flatten(1).float().mean(1) > 0.2).float().mean() > 0.4


def test_a_crop_larger_than_its_slice_is_refused() -> None:
    with pytest.raises(ValueError, match="crop of 64 x 64 does not fit"):
        draw_crops(ramp_pairs(), count=1, size=64, seed=0)
