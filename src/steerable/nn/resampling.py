"""Fitting pictures and condition planes of any size to a network that halves them, without loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["folded", "joined", "padded", "stem_for", "unfolded"]


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
    if not len(x):  # torch repeats the rows of one item at least
        return x.new_zeros(0, x.shape[1], height + below, width + right)
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x


def folded(x: Tensor, factor: int) -> Tensor:
    """Space to depth, (B,C,H,W) -> (B,C f^2,H/f,W/f); torch's own leaves no items as they are."""
    if len(x):
        return F.pixel_unshuffle(x, factor)
    return x.reshape(0, x.shape[1] * factor**2, x.shape[2] // factor, x.shape[3] // factor)


def unfolded(x: Tensor, factor: int) -> Tensor:
    """Depth to space, the way back from `folded`."""
    if len(x):
        return F.pixel_shuffle(x, factor)
    return x.reshape(0, x.shape[1] // factor**2, x.shape[2] * factor, x.shape[3] * factor)


def stem_for(shape: tuple[int, ...], width: int) -> int:
    """The largest of 1, 2, 4, 8 that leaves 12 positions a side and half the width to features.

    A first level narrower than the numbers of a patch cannot pass the noise of every pixel on,
    and the samples stay noisy.
    """
    fits = [s for s in (1, 2, 4, 8) if max(shape[1:]) >= 12 * s and 2 * shape[0] * s**2 <= width]
    return max(fits, default=1)
