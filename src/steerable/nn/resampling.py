"""Fitting pictures and condition planes of any size to a network that halves them, without loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["joined", "padded", "stem_for"]


def joined(x: Tensor, planes: Tensor | None, count: int) -> Tensor:
    """X (B,C,H,W) with its `count` condition planes (B,count,H,W) as further channels.

    Zeros where a network that reads planes is asked without any.
    """
    if not count:
        return x
    if planes is None:
        planes = x.new_zeros(len(x), count, *x.shape[2:])
    assert planes.shape == (len(x), count, *x.shape[2:]), "one plane a channel, of the item's size"
    return torch.cat([x, planes.to(x)], 1)


def padded(x: Tensor, multiple: int) -> Tensor:
    """Pictures x (B,C,H,W) with their last row and column repeated until H and W are multiples."""
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x


def stem_for(shape: tuple[int, ...], width: int) -> int:
    """The largest of 1, 2, 4, 8 that leaves 12 positions a side and half the width to features.

    A first level narrower than the numbers of a patch cannot pass the noise of every pixel on,
    and the samples stay noisy.
    """
    fits = [s for s in (1, 2, 4, 8) if max(shape[1:]) >= 12 * s and 2 * shape[0] * s**2 <= width]
    return max(fits, default=1)
