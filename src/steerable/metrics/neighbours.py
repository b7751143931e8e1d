"""What nearest neighbours say: two-sample accuracy, precision, recall, coverage, memorisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError

__all__ = ["Neighbours"]

CHUNK = 512  # rows of a distance matrix at a time


class Neighbours:
    """A set of items as rows (N,D): features of a judge, or pixels.

    Source: two-sample accuracy: Lopez-Paz and Oquab, arXiv 1610.06545; precision and recall:
    Kynkaanniemi et al., arXiv 1904.06991; density and coverage: Naeem et al., arXiv 2002.09797.
    """

    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    def update(self, rows: Tensor) -> None:
        """Add items (B,...), flattened to rows."""
        self.rows.append(rows.detach().cpu().flatten(1).to(torch.float64))

    def merge(self, other: Neighbours) -> None:
        """Add all that another one has seen."""
        self.rows += other.rows

    def table(self) -> Tensor:
        """All rows (N,D)."""
        return torch.cat(self.rows) if self.rows else torch.zeros(0, 0, dtype=torch.float64)

    def value(self, real: Neighbours, *, k: int = 5) -> dict[str, Any]:
        """How these samples lie among real items; plain JSON.

        `two_sample` is the share of all items whose nearest neighbour is of their own kind: 0.5
        for equal laws, 1 for laws apart, less than 0.5 for copies. `precision` is the share of
        samples inside the real neighbourhoods, `recall` of real items inside the samples';
        `density` counts how many neighbourhoods a sample is in, over k; `coverage` is the share
        of real items with a sample near, 1 - 2^-k for equal laws and numbers.

        Args:
            real: Real items, as many as there are samples.
            k: Neighbours that make a neighbourhood.

        Raises:
            UserError: E-EVAL when the numbers differ or are not more than k.
        """
        a, b = self.table(), real.table()
        if len(a) != len(b) or len(a) <= k:
            got, takes = f"{len(a)} and {len(b)} items", f"as many of both, more than {k}"
            raise UserError("E-EVAL", where="neighbours", got=got, takes=takes)
        among_a, among_b = _nearest(a, a, k, itself=True), _nearest(b, b, k, itself=True)
        across = _nearest(a, b, 1)[:, 0], _nearest(b, a, 1)[:, 0]
        own = torch.cat([among_a[:, 0] < across[0], among_b[:, 0] < across[1]]).double()
        inside_b, inside_a = _inside(a, b, among_b[:, -1]), _inside(b, a, among_a[:, -1])
        return {
            "two_sample": float(own.mean()),
            "two_sample_error": float(own.std() / len(own) ** 0.5),
            "precision": float((inside_b > 0).double().mean()),
            "recall": float((inside_a > 0).double().mean()),
            "density": float(inside_b.double().mean() / k),
            "coverage": float((across[1] < among_b[:, -1]).double().mean()),
            "n": len(a),
            "k": k,
        }

    def copied(self, train: Neighbours, unseen: Neighbours) -> dict[str, Any]:
        """Whether these samples are copies of the training items; plain JSON.

        `ratio` is the median distance to the nearest training item, over that of real items that
        training never saw: about 1 where nothing is copied, 0 for copies.

        Raises:
            UserError: E-EVAL when one of the three is empty.
        """
        sets = self.table(), train.table(), unseen.table()
        if not all(len(rows) for rows in sets):
            got = f"{[len(rows) for rows in sets]} samples, training and unseen items"
            raise UserError("E-EVAL", where="neighbours", got=got, takes="1 or more of each")
        mine, theirs = (_nearest(rows, sets[1], 1).median() for rows in (sets[0], sets[2]))
        ratio = float(mine / theirs) if theirs > 0 else float("inf")
        return {"ratio": ratio, "samples": float(mine), "unseen": float(theirs)}


def _nearest(a: Tensor, b: Tensor, k: int, *, itself: bool = False) -> Tensor:
    """Distances (N,k) of the rows a (N,D) to their k nearest in b, itself left out if asked."""
    found = []
    for start in range(0, len(a), CHUNK):
        distance = _distance(a[start : start + CHUNK], b)
        if itself:
            rows = torch.arange(len(distance))
            distance[rows, start + rows] = torch.inf
        found.append(distance.topk(k, largest=False).values)
    return torch.cat(found)


def _inside(a: Tensor, b: Tensor, radius: Tensor) -> Tensor:
    """In how many balls of `radius` (M,) around the rows b (M,D) each row of a (N,D) is, (N,)."""
    parts = [a[start : start + CHUNK] for start in range(0, len(a), CHUNK)]
    return torch.cat([(_distance(part, b) <= radius).sum(1) for part in parts])


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
