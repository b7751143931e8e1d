"""Standard errors from sums alone: leave out one group of items at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from steerable.core.noise import mix

__all__ = ["GROUPS", "group_of", "jackknife"]

GROUPS = 16


def group_of(items: Tensor) -> Tensor:
    """Group (B,) of items by their numbers (B,) int64.

    The number is scrambled first: where classes take turns, every 16th item has few of them.
    """
    return mix(items.to("cpu", torch.int64)) & (GROUPS - 1)


def jackknife(value: Callable[[Tensor], Tensor], sizes: Tensor) -> Tensor:
    """Standard error (M,) of the measures (M,) that `value` makes of the groups kept.

    Exactly unbiased (in its square) for a mean over independent items, whatever the sizes.
    Source: Busing, Meijer and van der Leeden, "Delete-m jackknife for unequal m", 1999, eq. 9.

    Args:
        value: From the groups to be used, (GROUPS,) bool, to measures (M,) float64.
        sizes: Number of items of each group, (GROUPS,); at least two are not empty.
    """
    every = sizes > 0
    used = every.nonzero()[:, 0]
    assert len(used) >= 2, "nothing would be left"
    whole, one = value(every), torch.arange(len(sizes))
    left = torch.stack([value(every & (one != g)) for g in used])
    n, m = sizes.sum().to(torch.float64), sizes[used].to(torch.float64)[:, None]
    rest = n / m - 1.0
    estimate = len(used) * whole - ((1.0 - m / n) * left).sum(0)
    gaps = (rest + 1.0) * whole - rest * left - estimate
    return (gaps.square() / rest).mean(0).sqrt()
