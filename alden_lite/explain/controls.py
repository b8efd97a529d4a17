"""Does a map mean anything? Destroy what the network has learned and look again. Taught in chapter 05."""

from __future__ import annotations

import copy
import hashlib

import numpy as np
import torch
from torch import Tensor

from alden_lite.alden.pvm import PVM
from alden_lite.explain.attention_maps import plain_blocks

__all__ = ["randomised", "rank_correlation"]


def randomised(pvm: PVM, *, from_block: int = 1, seed: int = 0) -> PVM:
    """A copy of a PVM that has forgotten its blocks from `from_block` to the last.

    Every tensor of these blocks is drawn anew from a normal distribution with the mean and standard deviation
    that it had. From the fourth such block on, tokens have a cosine of about 0.1 or less to the true ones on
    average (0.3 at most) and are two to ten times as long. OURS: a fresh initialisation, the paper's way, has
    LayerScale at 1e-5 in DINOv2, at which a block does nothing and every map would stay as it was. Patch and
    position embedding stay. Going from the last block down is the paper's cascade.

    Args:
        pvm: as for `attention`; it is not touched.
        from_block: 1 (all blocks) to the last (that one alone).
        seed: same seed, same weights; a block gets the same whatever `from_block`.

    Returns:
        A PVM whose `name` and `weights_sha256` say that it is not the pretrained one.

    Raises:
        ValueError: for a model without plain transformer blocks, or a block that there is not.

    Source: Adebayo et al., NeurIPS 2018, arXiv:1810.03292, section 3.
    """
    last = len(plain_blocks(pvm))
    if not 1 <= from_block <= last:
        raise ValueError(f"blocks of {pvm.name} are numbers from 1 to {last}, got {from_block}")
    other = copy.deepcopy(pvm)
    for number in range(from_block, last + 1):
        generator = torch.Generator().manual_seed(seed * 1000 + number)
        for tensor in plain_blocks(other)[number - 1].parameters():
            drawn = torch.randn(tensor.shape, generator=generator).to(tensor)
            tensor.data = drawn * tensor.std(correction=0) + tensor.mean()
    which = f"block {last}" if from_block == last else f"blocks {from_block}-{last}"
    other.name = f"{pvm.name}, {which} random"
    other.weights_sha256 = hashlib.sha256(f"{pvm.weights_sha256} {which} {seed}".encode()).hexdigest()
    return other


def rank_correlation(first: Tensor, second: Tensor, *, where: Tensor | None = None) -> Tensor:
    """How alike two maps order their places by strength: Spearman's correlation of |values|, slice by slice.

    Places that are 0 in both by definition (air, for an attribution) make two maps look alike that are not:
    leave them out with `where`.

    Args:
        first, second: (B, ...) of one shape.
        where: of the same shape, bool: places that count; all when None.

    Returns:
        (B,), float64, -1 to 1; NaN for a map of one value.

    Raises:
        ValueError: for different shapes, or fewer than three places.

    Source: Adebayo et al., arXiv:1810.03292, section 3.
    """
    if first.shape != second.shape or first.ndim < 2:
        raise ValueError(f"maps of one shape (B, ...), got {tuple(first.shape)} and {tuple(second.shape)}")
    if where is None:
        where = torch.ones_like(first, dtype=torch.bool)
    if where.shape != first.shape or where.dtype != torch.bool or where.flatten(1).sum(1).min() < 3:
        raise ValueError(
            f"where is bool {tuple(first.shape)}, with three places or more in every slice: got "
            f"{tuple(where.shape)} {where.dtype}"
        )
    pairs = zip(first, second, where, strict=True)
    values = [_spearman(a[chosen], b[chosen]) for a, b, chosen in pairs]
    return torch.tensor(values, dtype=torch.double)


def _spearman(first: Tensor, second: Tensor) -> float:
    from scipy import stats

    one, other = (values.detach().abs().cpu().numpy() for values in (first, second))
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(stats.spearmanr(one, other).statistic)
