"""Standard errors of measures of whole sets, where the items of a sum would not be independent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["halving_error"]

REPEATS = 16


def halving_error(
    measure: Callable[..., Tensor], *sets: Tensor, repeats: int = REPEATS, seed: int = 0
) -> Tensor:
    """Standard errors (V,) of the values measure(*sets) (V,), each set rows (N,D).

    Every set is cut at random into two halves. These are independent, so half the difference of
    their values has half the variance of a value of N / 2 items: that of a value of N items, where
    the variance falls as 1 / N. A bootstrap would draw items twice, and an item has its copy for a
    neighbour; leaving out one block at a time counts every item that changes sides at a ball's
    edge many times over, and gave twice the true error for balls around neighbours.

    Args:
        measure: Takes the sets, or halves of them, and gives values (V,) that do not depend on the
            order of the rows.
        sets: Two items or more each; with an odd number, one is left out of each cut.
        repeats: Number of cuts, over which the squares are averaged.
        seed: Seed of the cuts.

    Source: for the sample mean, the average over all cuts is the usual s^2 / N; McCarthy,
    "Pseudo-replication: half samples", 1969.
    """
    assert all(len(rows) >= 2 for rows in sets), "two halves"
    generator = torch.Generator().manual_seed(seed)
    squares = []
    for _ in range(repeats):
        cuts = [torch.randperm(len(rows), generator=generator) for rows in sets]
        one = measure(*(rows[cut[: len(cut) // 2]] for rows, cut in zip(sets, cuts, strict=True)))
        two = measure(
            *(rows[cut[-(len(cut) // 2) :]] for rows, cut in zip(sets, cuts, strict=True))
        )
        squares.append(((one - two) / 2).square())
    return torch.stack(squares).mean(0).sqrt()
