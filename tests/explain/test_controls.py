"""Controls of explanations: random weights, and whether two maps are alike."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from made_networks import seeded, soft_tissue
from torch import Tensor

from alden_lite import explain
from alden_lite.alden.pvm import PVM, load_pvm

# Random weights


def block_weights(pvm: PVM, number: int) -> list[Tensor]:
    return list(pvm.backbone.blocks[number - 1].parameters())  # type: ignore[index]


def test_randomising_goes_from_the_last_block_down(tiny: PVM) -> None:
    kept = copy.deepcopy(tiny.state_dict())
    other = explain.randomised(tiny, from_block=2)
    for number, same in [(1, True), (2, False), (3, False)]:
        for ours, theirs in zip(block_weights(other, number), block_weights(tiny, number), strict=True):
            assert torch.equal(ours, theirs) == same
    for name, tensor in other.state_dict().items():
        if ".blocks." not in name:
            assert torch.equal(tensor, kept[name]), name
    assert all(torch.equal(tensor, kept[name]) for name, tensor in tiny.state_dict().items())


def test_drawn_weights_have_the_spread_they_had(tiny: PVM) -> None:
    other = explain.randomised(tiny)
    theirs = tiny.backbone.blocks[1].mlp.fc1.weight  # type: ignore[index,union-attr]
    ours = other.backbone.blocks[1].mlp.fc1.weight  # type: ignore[index,union-attr]
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.05)
    assert ours.mean().item() == pytest.approx(theirs.mean().item(), abs=0.02)
    gains = other.backbone.blocks[1].norm1.weight  # type: ignore[index,union-attr]
    assert gains.mean().item() == pytest.approx(1, abs=0.3)  # not about 0
    assert abs(torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1]) < 0.1
    assert not any(tensor.requires_grad for tensor in other.parameters())


def test_a_randomised_network_says_so_and_never_passes_for_the_pretrained_one(tiny: PVM) -> None:
    names = {start: explain.randomised(tiny, from_block=start).name for start in (1, 2, 3)}
    assert names == {
        1: "tiny, blocks 1-3 random",
        2: "tiny, blocks 2-3 random",
        3: "tiny, block 3 random",
    }
    hashes = {
        explain.randomised(tiny, from_block=start, seed=seed).weights_sha256
        for start, seed in itertools.product((1, 2, 3), (0, 1))
    }
    assert len(hashes | {tiny.weights_sha256}) == 7
    assert tiny.name == "tiny"


def test_random_weights_depend_on_the_seed_and_the_block_alone(tiny: PVM) -> None:
    torch.manual_seed(1)
    some = explain.randomised(tiny, from_block=3, seed=4)
    torch.manual_seed(2)
    more = explain.randomised(tiny, from_block=1, seed=4)
    other = explain.randomised(tiny, from_block=3, seed=5)
    for a, b, c in zip(*(block_weights(pvm, 3) for pvm in (some, more, other)), strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)
    # Nor is a block of one seed another block of the next.
    third = max(block_weights(more, 3), key=Tensor.numel).flatten()
    second = max(block_weights(explain.randomised(tiny, seed=5), 2), key=Tensor.numel).flatten()
    assert abs(torch.corrcoef(torch.stack([second, third]))[0, 1]) < 0.1


def test_random_blocks_of_dinov2_do_something() -> None:
    # Drawn as before training, LayerScale is 1e-5: the blocks would hand on what they get, unchanged.
    pvm, hu = load_pvm(taps=(8, 12)), soft_tissue()
    other = explain.randomised(pvm, from_block=9)
    before, after = other(hu)
    torch.testing.assert_close(before, pvm(hu)[0])
    assert torch.cosine_similarity(after, before, dim=1).max() < 0.5
    assert torch.cosine_similarity(after, pvm(hu)[1], dim=1).abs().mean() < 0.2


def test_blocks_that_there_are_not_cannot_be_randomised(tiny: PVM) -> None:
    for block in (0, 4):
        with pytest.raises(ValueError, match=f"blocks of tiny are numbers from 1 to 3, got {block}"):
            explain.randomised(tiny, from_block=block)


# Are two maps alike?


def test_rank_correlation_by_hand() -> None:
    first = torch.tensor([[1.0, 2, 3, 4], [1.0, 2, 3, 4]])
    second = torch.tensor([[2.0, 1, 4, 3], [40.0, 30, 2, 1]])
    assert explain.rank_correlation(first, second).tolist() == pytest.approx([0.6, -1])  # 1 - 6 * 4 / 60
    tied = torch.tensor([[1.0, 1, 2, 3]])  # ranks 1.5, 1.5, 3, 4
    assert explain.rank_correlation(first[:1], tied).tolist() == pytest.approx([4.5 / (5 * 4.5) ** 0.5])


def test_only_the_order_of_magnitudes_counts() -> None:
    maps = seeded(2, 1, 5, 6)
    assert explain.rank_correlation(maps, -maps.pow(3)).tolist() == pytest.approx([1, 1])


def test_places_that_are_zero_in_both_can_be_left_out() -> None:
    first, second = seeded(1, 1, 8, 8), seeded(1, 1, 8, 8, seed=1)
    air = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    air[..., 2:] = True
    a, b = first.masked_fill(air, 0), second.masked_fill(air, 0)
    assert explain.rank_correlation(a, b).item() > 0.8  # alike in their air alone
    inside = explain.rank_correlation(a, b, where=~air)
    assert inside.item() == pytest.approx(explain.rank_correlation(a[..., :2], b[..., :2]).item())
    assert abs(inside.item()) < 0.6


def test_a_map_of_one_value_has_no_order() -> None:
    assert torch.isnan(explain.rank_correlation(torch.ones(1, 4), seeded(1, 4))).all()


@pytest.mark.parametrize(
    ("first", "second", "where", "text"),
    [
        (seeded(1, 4), seeded(1, 5), None, r"maps of one shape .* got \(1, 4\) and \(1, 5\)"),
        (seeded(4), seeded(4), None, "maps of one shape"),
        (seeded(1, 4), seeded(1, 4), torch.tensor([[True, True, False, False]]), "three places or more"),
        (seeded(1, 4), seeded(1, 4), torch.ones(1, 4), "where is bool"),
        (seeded(1, 2), seeded(1, 2), None, "three places or more"),
    ],
)
def test_maps_that_cannot_be_compared_are_refused(first: Any, second: Any, where: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        explain.rank_correlation(first, second, where=where)
