"""Small networks, and slices, scores and probes for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from alden_lite.alden.pvm import PVM
from alden_lite.explain import attention_maps
from alden_lite.explain.probes import LinearProbe


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def soft_tissue(batch: int = 1, height: int = 42, width: int = 56, seed: int = 0) -> Tensor:
    """Random soft tissue inside the abdominal window, (B, 1, H, W) HU: a grid of 3 x 4 patches."""
    return 50 + 50 * seeded(batch, 1, height, width, seed=seed).clamp(-3, 3)


GRID = (3, 4)


def wrapped(backbone: nn.Module, *, taps: Sequence[int] = (2, 3), patch_size: int = 14) -> PVM:
    return PVM(
        backbone,
        name="tiny",
        taps=taps,
        windows="abdomen",
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        patch_size=patch_size,
        weights_sha256="tiny",
    )


def tiny_backbone(**options: Any) -> nn.Module:
    """Three blocks of three heads and 24 channels, a class token; no tensor too small to matter."""
    backbone = VisionTransformer(
        img_size=28,
        patch_size=14,
        embed_dim=24,
        depth=3,
        num_heads=3,
        num_classes=0,
        init_values=1.0,
        dynamic_img_size=True,
        **options,
    )
    with torch.no_grad():
        for number, tensor in enumerate(backbone.parameters()):
            tensor += 0.2 * seeded(*tensor.shape, seed=number)
    return backbone


def by_hand(pvm: PVM, hu: Tensor) -> dict[int, dict[str, Tensor]]:
    """A plain ViT block by block, without timm's attention: tokens, queries, keys, values, weights."""
    backbone: Any = pvm.backbone
    tokens = backbone._pos_embed(backbone.patch_embed(pvm.image(hu)))
    seen: dict[int, dict[str, Tensor]] = {}
    for number, block in enumerate(backbone.blocks, start=1):
        b, n, c = tokens.shape
        heads = block.attn.num_heads
        parts = block.attn.qkv(block.norm1(tokens)).reshape(b, n, 3, heads, c // heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        q, k = block.attn.q_norm(q), block.attn.k_norm(k)
        likeness = torch.einsum("bhic,bhjc->bhij", q, k) / (c // heads) ** 0.5
        strength = (likeness - likeness.amax(-1, keepdim=True)).exp()
        weights = strength / strength.sum(-1, keepdim=True)
        taken = torch.einsum("bhij,bhjc->bihc", weights, v).reshape(b, n, c)
        tokens = tokens + block.ls1(block.attn.proj(taken))
        tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
        seen[number] = {"q": q, "k": k, "v": v, "weights": weights, "tokens": tokens}
    return seen


def state(pvm: PVM) -> list[Any]:
    """What a careless look inside would leave behind: fused or not, and the number of hooks."""
    layers = [block.attn for block in pvm.backbone.blocks]  # type: ignore[union-attr]
    hooks = [len(module._forward_hooks) for module in pvm.modules()]
    return [[layer.fused_attn for layer in layers], hooks, pvm.taps]


def patch_score(pvm: PVM, tap: int = 0) -> attention_maps.Score:
    """A score with a gradient that changes sign over tokens and channels."""
    direction = seeded(24, 12, seed=5)

    def score(hu: Tensor) -> Tensor:
        return (pvm(hu)[tap].flatten(2) * direction).sum((1, 2))

    return score


def probe(channels: int = 24) -> LinearProbe:
    weight, bias = seeded(3, channels).double().numpy(), np.array([0.5, -1.0, 2.0])
    return LinearProbe(weight, bias, (1, 4, 9))  # lung, liver, bone
