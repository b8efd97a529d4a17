"""What the checks of several chapters need of torch, which the exercises of the first chapters do without."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alden_lite.lessons.exercises import Mistake

__all__ = ["returned_tensor"]


def returned_tensor(value: Any) -> Tensor:
    """What an attempt returned as a tensor without a graph, or a `Mistake` that a beginner understands."""
    try:
        return torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError):
        raise Mistake(f"your function should return a tensor, it returned {type(value).__name__}") from None
