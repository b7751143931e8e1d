"""How many items of a set are near-copies of other items of the same set."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from steerable.nn.neighbours import nearest
from steerable.nn.rows import Rows, matched

__all__ = ["Repeats"]

LEAST = 10  # items below which there is no lowest hundredth to speak of
SHARE = 0.01  # of real items that are nearer to another one than the limit, by its definition


class Repeats:
    """A set of items as rows, asked whether it repeats itself.

    A generator that draws the same few pictures again and again has the right features on average;
    its samples are nearer to each other than real items are. The limit is the distance below which
    a hundredth of as many real items have their nearest neighbour, so a set of real items has a
    share of about 0.01, and a set in which everything is there twice has 1.
    """

    def __init__(self) -> None:
        self.rows = Rows()

    def update(self, rows: Tensor, items: Tensor | None = None) -> None:
        """Add rows (B,D) of the items (B,) int64."""
        self.rows.update(rows, items)

    def merge(self, other: Repeats) -> None:
        """Add all that another one has seen."""
        self.rows.merge(other.rows)

    def value(self, real: Repeats) -> dict[str, Any]:
        """`repeats`, the share of near-copies, with its `repeats_error` and `n`; plain JSON.

        The error is that of both shares: an item and its copy count together, so the number of
        independent ones is at least half.

        Args:
            real: Real items, as many as there are samples: the more there are, the nearer they lie.

        Raises:
            UserError: E-EVAL when the numbers differ or are below 10.
        """
        a, b = matched(self.rows, real.rows, least=LEAST, where="repeats")
        own, natural = (nearest(rows, rows, 1, itself=True)[0][:, 0] for rows in (a, b))
        limit = natural.quantile(SHARE)
        share = float((own <= limit).to(torch.float64).mean())
        variance = share * (1.0 - share) + SHARE * (1.0 - SHARE)
        return {"repeats": share, "repeats_error": (2.0 * variance / len(a)) ** 0.5, "n": len(a)}
