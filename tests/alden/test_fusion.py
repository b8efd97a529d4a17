"""Attention fusion against loops over tokens in float64, and its locality."""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from alden_lite.alden.fusion import Attention, AttentionFeatureFusion

QUERIES = ["image", "semantic"]


def anatomy(batch: int = 2, channels: int = 6, grid: int = 4, seed: int = 0) -> list[Tensor]:
    """Three semantic maps (batch, channels, grid, grid)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, channels, grid, grid, generator=generator) for _ in range(3)]


def wake(fusion: nn.Module) -> None:
    """Give zero weights values, as if the fusion had been trained."""
    for parameter in fusion.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)


# The fusion against loops over tokens, in float64


def linear(layer: nn.Module, token: Tensor) -> Tensor:
    """A linear layer or 1 x 1 convolution on one token."""
    weight = layer.weight.flatten(1)
    answer = torch.stack([(row * token).sum() for row in weight])
    return answer if layer.bias is None else answer + layer.bias


def normed(token: Tensor) -> Tensor:
    return (token - token.mean()) / (token.var(correction=0) + 1e-5).sqrt()


def group_normed(layer: nn.GroupNorm, a: Tensor) -> Tensor:
    """One map (C, h, w)."""
    out = torch.empty_like(a)
    size = len(a) // layer.num_groups
    for start in range(0, len(a), size):
        group = a[start : start + size]
        out[start : start + size] = (group - group.mean()) / (group.var(correction=0) + layer.eps).sqrt()
    return out * layer.weight[:, None, None] + layer.bias[:, None, None]


def attend(
    attention: Attention, asking: list[Tensor], asked: list[Tensor], far: Callable[[int, int], float]
) -> tuple[list[Tensor], Tensor]:
    """Answers of one image, and the weights (heads, q, k); `far` is the distance of asking i and asked k."""
    slopes = [*[2.0, 1.0, 0.5, 0.25][: attention.heads - 1], 0.0]
    size = attention.width // attention.heads
    weights = torch.zeros(attention.heads, len(asking), len(asked), dtype=torch.float64)
    answers = []
    for i, token in enumerate(asking):
        query = linear(attention.to_query, normed(token))
        found = []
        for head in range(attention.heads):
            part = slice(head * size, (head + 1) * size)
            scores = [
                math.exp(
                    query[part] @ linear(attention.to_key, normed(t))[part] / math.sqrt(size)
                    - slopes[head] * far(i, k)
                )
                for k, t in enumerate(asked)
            ]
            for k, score in enumerate(scores):
                weights[head, i, k] = score / sum(scores)
            values = [linear(attention.to_value, normed(t))[part] for t in asked]
            found.append(sum(a * v for a, v in zip(weights[head, i], values, strict=True)))
        answers.append(linear(attention.out, torch.cat(found)))
    return answers, weights


def gated(layer: nn.Module, token: Tensor) -> Tensor:
    value, gate = linear(layer.up, normed(token)).chunk(2)
    return linear(layer.down, value * gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2))))


def place(i: int, j: int, h: int, w: int, width: int) -> Tensor:
    """Sines and cosines of y and x at half a period to eight periods a crop."""
    quarter = width // 4
    frequencies = [math.pi * 16 ** (k / (quarter - 1)) for k in range(quarter)]
    angles = [u * f for u in ((i + 0.5) / h, (j + 0.5) / w) for f in frequencies]
    return torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])


def resized(a: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, of one map (C, h, w), pixel centres at halves."""
    out = torch.empty(len(a), height, width, dtype=a.dtype)
    for i, j in product(range(height), range(width)):
        out[:, i, j] = 0
        for (r, u), (c, v) in product(corners(i, a.shape[1], height), corners(j, a.shape[2], width)):
            out[:, i, j] += u * v * a[:, r, c]
    return out


def corners(i: int, source: int, target: int) -> list[tuple[int, float]]:
    at = max((i + 0.5) * source / target - 0.5, 0)
    low = int(at)
    return [(low, 1 - (at - low)), (min(low + 1, source - 1), at - low)]


def convolved(weight: Tensor, a: Tensor) -> Tensor:
    """3 x 3, zeros around, of one map (C, h, w)."""
    _, h, w = a.shape
    out = torch.zeros(len(weight), h, w, dtype=a.dtype)
    for i, j, di, dj in product(range(h), range(w), range(3), range(3)):
        r, c = i + di - 1, j + dj - 1
        if 0 <= r < h and 0 <= c < w:
            out[:, i, j] += weight[:, :, di, dj] @ a[:, r, c]
    return out


def fuse_by_loops(fusion: AttentionFeatureFusion, f: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """The whole block for one image, F (C, H, W) and A (C', h, w): output and attention."""

    def tokens(layer: nn.Module, x: Tensor) -> list[Tensor]:
        _, h, w = x.shape
        found = []
        for i, j in product(range(h), range(w)):
            found.append(linear(layer, x[:, i, j]))
            if fusion.positions:
                found[-1] = found[-1] + place(i, j, h, w, fusion.width)
        return found

    def add(old: list[Tensor], new: list[Tensor]) -> list[Tensor]:
        return [o + n for o, n in zip(old, new, strict=True)] if fusion.residual else new

    norm, project = fusion.semantic_in

    def far(i: int, k: int) -> float:
        """Between asking place i and asked place k, in tokens of A."""
        if not fusion.locality:
            return 0.0
        ends = []
        for n, (h, w) in ((i, grids[0]), (k, grids[1])):
            ends.append(((n // w + 0.5) * a.shape[1] / h, (n % w + 0.5) * a.shape[2] / w))
        return math.dist(*ends)

    s, t = tokens(project, group_normed(norm, a)), tokens(fusion.image_in, f)
    s = add(s, attend(fusion.self_attention, s, s, lambda i, k: 0.0)[0])
    q, kv, grids = (t, s, (f.shape[1:], a.shape[1:]))
    if fusion.query == "semantic":
        q, kv, grids = (s, t, (a.shape[1:], f.shape[1:]))
    grid = grids[0]
    answers, weights = attend(fusion.cross_attention, q, kv, far)
    q = add(q, answers)
    q = add(q, [gated(fusion.feed_forward, token) for token in q])
    evidence = torch.stack([linear(fusion.zero, token) for token in q], 1).reshape(-1, *grid)
    return convolved(fusion.spread.weight, resized(evidence, *f.shape[1:])), weights


@torch.no_grad()
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("options", [{}, {"residual": False}, {"positions": True}, {"locality": False}])
def test_fusion_equals_loops_over_tokens(query: str, options: dict[str, bool]) -> None:
    torch.manual_seed(1)
    fusion = AttentionFeatureFusion(5, 6, width=8, heads=2, query=query, **options)
    wake(fusion)
    nn.init.normal_(fusion.semantic_in[0].weight)
    fusion.double().eval()
    f = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    a = torch.randn(2, 6, 2, 3, dtype=torch.float64)
    output, attention = fusion(f, a), fusion.attention(f, a)
    for b in range(2):
        expected, weights = fuse_by_loops(fusion, f[b], a[b])
        # Places come in float32, which is where they lose digits.
        tolerance = 1e-10 if options == {"locality": False} else 1e-5
        torch.testing.assert_close(output[b], expected, rtol=0, atol=tolerance)
        torch.testing.assert_close(attention[b], weights, rtol=0, atol=tolerance)


# What the fusion can and cannot know


def test_with_locality_a_place_takes_most_from_the_token_that_covers_it() -> None:
    """A fresh fusion asks by distance alone, nearly: 8 x 8 places, 4 x 4 tokens of 2 x 2 places."""
    fusion = AttentionFeatureFusion(5, 6, width=8, heads=4)
    for parameter in (*fusion.image_in.parameters(), *fusion.cross_attention.to_query.parameters()):
        nn.init.zeros_(parameter)  # all contents score the same
    weights = fusion.attention(torch.zeros(1, 5, 8, 8), anatomy(1)[0])[0]  # (4, 64, 16)
    own = torch.arange(16).reshape(4, 4).repeat_interleave(2, 0).repeat_interleave(2, 1).flatten()
    assert torch.equal(weights[:3].argmax(-1), own.expand(3, -1))
    torch.testing.assert_close(weights[3], torch.full((64, 16), 1 / 16))  # the last head looks everywhere
    sharp = weights[:3].amax(-1).mean(-1)
    assert sharp[0] > sharp[1] > sharp[2] > 1 / 16
    # Place (0, 0) lies a quarter token from its own token's middle either way, 1.25 from the next.
    near, far = math.hypot(0.25, 0.25), math.hypot(0.25, 1.25)
    ratio = (weights[0, 0, 0] / weights[0, 0, 1]).item()
    assert ratio == pytest.approx(math.exp(2 * (far - near)), rel=1e-4)


def test_a_single_head_is_local() -> None:
    fusion = AttentionFeatureFusion(5, 6, width=8, heads=1)
    assert fusion.attention(torch.zeros(1, 5, 8, 8), torch.zeros(1, 6, 4, 4))[0, 0, 0, 0] > 0.3
