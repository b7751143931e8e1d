"""Nearest rows of a table, exact and without a table of all distances."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["inside", "nearest"]

ENTRIES = 1 << 22  # of a table of distances at a time, 32 MB
SPARE = 4  # candidates beyond the wanted number, so that rounding rarely calls for a second look


def nearest(a: Tensor, b: Tensor, k: int, *, itself: bool = False) -> tuple[Tensor, Tensor]:
    """Distances (N,k), rising, from the rows a (N,D) to their k nearest in b (M,D), and which.

    A product of matrices gives squared distances up to rounding, which choose candidates. The
    distances of these are taken from differences, so that copies have distance 0 and not the root
    of a rounding error; and a row whose other items are not farther than rounding can tell is
    looked at again among all that may be as near. Of equal distances the lower row comes first.

    Args:
        a: Rows that ask, float64.
        b: Rows that are looked among, float64.
        k: Number of neighbours, at most M, or M - 1 without itself.
        itself: Whether row i of a is row i of b and is to be left out.
    """
    assert 1 <= k <= len(b) - itself, f"{len(b)} rows have no {k} neighbours"
    assert a.shape[1:] == b.shape[1:], "rows of one width"
    size = b.square().sum(1)
    count = min(k + SPARE, len(b) - itself)
    step = _step(b)
    found = []
    for number, part in enumerate(a.split(step)):
        rough = _squares(part, b, size)
        if itself:
            row = torch.arange(len(part))
            rough[row, number * step + row] = torch.inf
        values, columns = rough.topk(count, largest=False)
        near, which = _ordered(part, b, columns.sort(1).values, k)
        limit = near[:, -1].square() + _slack(part, size)
        if count < len(b) - itself:
            for i in torch.nonzero(values[:, -1] <= limit)[:, 0].tolist():
                maybe = torch.nonzero(rough[i] <= limit[i])[:, 0]
                near[i], which[i] = _again(part[i], b, maybe, k)
        found.append((near, which))
    return torch.cat([near for near, _ in found]), torch.cat([which for _, which in found])


def inside(a: Tensor, b: Tensor, radius: Tensor) -> Tensor:
    """In how many balls of `radius` (M,) around the rows b (M,D) each row of a (N,D) is, (N,).

    The edge belongs to the ball: pairs that rounding leaves in doubt are measured by differences,
    as `nearest` does, so that a copy of the neighbour that gave a ball its radius is in it.
    """
    assert radius.shape == (len(b),) and bool((radius >= 0).all()), "a radius for every ball"
    assert a.shape[1:] == b.shape[1:], "rows of one width"
    size, reach = b.square().sum(1), radius.square()
    counts = []
    for part in a.split(_step(b)):
        beyond = _squares(part, b, size).sub_(reach)
        slack = _slack(part, size)[:, None] + 4 * torch.finfo(reach.dtype).eps * reach
        held = beyond < -slack
        for pairs in torch.nonzero(beyond.abs() <= slack).split(_step(b)):
            i, j = pairs.T
            held[i, j] = _distance(part[i], b[j]) <= radius[j]
        counts.append(held.sum(1))
    return torch.cat(counts)


def _step(b: Tensor) -> int:
    """Rows at a time, so that neither they nor their distances to b (M,D) take much memory."""
    return max(1, ENTRIES // max(1, *b.shape))


def _squares(a: Tensor, b: Tensor, size: Tensor) -> Tensor:
    """|a|^2 - 2 a b + |b|^2, (N,M), with `size` = |b|^2 (M,); off by at most `_slack`."""
    return torch.addmm(size, a, b.T, alpha=-2.0).add_(a.square().sum(1)[:, None])


def _slack(a: Tensor, size: Tensor) -> Tensor:
    """Bound (N,) of the rounding in `_squares`, and in the square of a `_distance`.

    Source: a sum of D products is off by at most D eps / (2 - D eps) times the sum of their sizes
    (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1); here with room.
    """
    width = 4.0 * (a.shape[1] + 8) * torch.finfo(a.dtype).eps
    return width * (a.square().sum(1).sqrt() + size.max().sqrt()).square()


def _ordered(a: Tensor, b: Tensor, columns: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest of the rows `columns` (N,C), rising in each line, of b; distances and which."""
    if len(a) == 1:
        exact = _distance(a, b[columns[0]])[None]
    else:
        exact = torch.stack([_distance(a, b[column]) for column in columns.T], 1)
    order = exact.argsort(dim=1, stable=True)[:, :k]
    return exact.gather(1, order), columns.gather(1, order)


def _again(a: Tensor, b: Tensor, columns: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest (k,) of the rows `columns` (C,), rising, of b to the one item a (D,)."""
    # Where all items are the same, all are candidates for all, and the first few are an answer.
    for some in (columns[: SPARE * k], columns):
        near, which = _ordered(a[None], b, some[None], k)
        if near.shape[1] == k and not bool(near[0, -1]):
            break
    return near[0], which[0]


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Distances (N,) of the rows a (N,D) to the rows b (N,D)."""
    return (a - b).square().sum(1).sqrt()
