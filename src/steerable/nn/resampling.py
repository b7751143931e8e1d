"""Fitting pictures of any size to a network that halves them, without loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["padded"]


def padded(x: Tensor, multiple: int) -> Tensor:
    """Pictures x (B,C,H,W) with their last row and column repeated until H and W are multiples."""
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x
