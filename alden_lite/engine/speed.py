"""What makes a frozen network quicker to ask: bfloat16 where it pays, and a copy for crops of one size."""

from __future__ import annotations

import copy
import time
from functools import lru_cache
from typing import Any, TypeGuard, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["bfloat16_gain", "for_crops"]

Network = TypeVar("Network", bound=nn.Module)


def for_crops(network: Network, *, rounded: bool, fused: bool) -> Network:
    """A copy that looks at many small crops, with gradient, in less time: training's. It shares the weights.

    Autocast would round the frozen weights anew in every pass; here they are rounded once. A convolution
    that cuts the image into patches becomes a matrix product, whose gradient is ten times faster on a CPU.

    Args:
        network: frozen; stays as it is.
        rounded: keep weights of convolutions and linear layers in bfloat16, as autocast would make them;
            without autocast, the copy is then of no use.
        fused: use fused kernels for attention, which on a CPU are slower for tens of tokens, but keep its
            logits in float32 under autocast: bfloat16 maps are 1 % off with them and 2 % without.

    Returns:
        A network of the same class and attributes.
    """
    shared = {id(parameter): parameter for parameter in network.parameters()}
    copied = copy.deepcopy(network, shared)
    for module in list[Any](copied.modules()):
        for name, child in list(module.named_children()):
            if _cuts_patches(child):
                setattr(module, name, _PatchProduct(child))
        if hasattr(module, "fused_attn"):  # timm's switch
            module.fused_attn = fused
    if rounded:
        for module in copied.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | _PatchProduct):
                for name, parameter in list(module.named_parameters(recurse=False)):
                    half = parameter.detach().to(torch.bfloat16)
                    setattr(module, name, nn.Parameter(half, requires_grad=False))
    return copied


class _PatchProduct(nn.Module):
    """A convolution whose patches do not overlap, as a product with the matrix of its weights."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.side = convolution.kernel_size[0]
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, image: Tensor) -> Tensor:
        patches = F.pixel_unshuffle(image, self.side).permute(0, 2, 3, 1)  # (B, h, w, C side side)
        tokens = F.linear(patches.contiguous(), self.weight.flatten(1), self.bias)
        return tokens.permute(0, 3, 1, 2)


def _cuts_patches(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    if not isinstance(module, nn.Conv2d):
        return False
    side, _ = module.kernel_size
    alike = module.kernel_size == module.stride == (side, side)
    return alike and side > 1 and module.padding == (0, 0) and module.groups == 1


@lru_cache
def bfloat16_gain(device_type: str = "cpu") -> float:
    """How many times faster this machine multiplies matrices in bfloat16 than in float32, measured once.

    About 2 to 8 where there are units for it (AMX, AVX512-BF16, a GPU since Ampere), below 1 elsewhere.
    """
    left, right = torch.rand(1024, 384, device=device_type), torch.rand(384, 1536, device=device_type)
    pairs = {kind: (left.to(kind), right.to(kind)) for kind in (torch.float32, torch.bfloat16)}
    fastest = dict.fromkeys(pairs, float("inf"))
    for _ in range(6):  # the first of them warms up
        for kind, (a, b) in pairs.items():
            start = time.perf_counter()
            float((a @ b)[0, 0])  # also waits for a GPU
            fastest[kind] = min(fastest[kind], time.perf_counter() - start)
    return fastest[torch.float32] / fastest[torch.bfloat16]
