"""Checks of tensors, for several chapters; not in exercises.py, because the first chapters need no torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alden_lite.lessons.exercises import Mistake

__all__ = ["returned_tensor"]


def returned_tensor(value: Any) -> Tensor:
    """An attempt's value as a tensor without a graph; `Mistake`, in a beginner's words, for anything else."""
    try:
        return torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError):
        raise Mistake(f"your function should return a tensor, it returned {type(value).__name__}") from None
