"""How different the samples of one class are from each other."""

from __future__ import annotations

import torch
from torch import Tensor

from steerable.core.errors import UserError

__all__ = ["Spread"]

GROUPS = 16  # of items; leaving one out at a time gives the error


class Spread:
    """Root mean square distance of features to the mean of their class.

    Guidance buys accuracy with this. Sums only: count, sum f and sum |f|^2 of each class in 16
    groups; the error is the jackknife over the groups. An item's group is a function of its
    features, so that merged sets agree with one pass, and copies count as the one item they are.

    Args:
        classes: Number of classes.
    """

    def __init__(self, classes: int) -> None:
        assert classes >= 1, "at least one class"
        self.count = torch.zeros(GROUPS, classes, dtype=torch.float64)
        self.square = torch.zeros(GROUPS, classes, dtype=torch.float64)
        self.total: Tensor | None = None  # sum f, (GROUPS, classes, F)

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add features (B,F) of items with classes (B,) int64."""
        assert features.ndim == 2 and len(features) == len(labels), "a class for each row"
        rows, label = features.detach().to("cpu", torch.float64), labels.cpu()
        if self.total is None:
            shape = (*self.count.shape, rows.shape[1])
            self.total = torch.zeros(shape, dtype=torch.float64)
        group = (rows.sum(1).abs().mul(1e4).frac() * GROUPS).to(torch.int64).clamp(max=GROUPS - 1)
        place = (group, label)
        self.count.index_put_(place, torch.ones(len(rows), dtype=torch.float64), accumulate=True)
        self.square.index_put_(place, rows.square().sum(1), accumulate=True)
        self.total.index_put_(place, rows, accumulate=True)

    def merge(self, other: Spread) -> None:
        """Add all that another one has seen."""
        assert self.count.shape == other.count.shape, "the same classes"
        self.count, self.square = self.count + other.count, self.square + other.square
        if other.total is not None:
            self.total = other.total if self.total is None else self.total + other.total

    def _of(self, keep: Tensor) -> float:
        """The spread over the groups `keep` (GROUPS,) bool, every class with two items the same."""
        assert self.total is not None
        n, square = self.count[keep].sum(0), self.square[keep].sum(0)
        some = n >= 2
        mean = self.total[keep].sum(0)[some] / n[some, None]
        inner = square[some] - n[some] * mean.square().sum(1)
        return float((inner / (n[some] - 1)).clamp(min=0).mean().sqrt())

    def value(self) -> dict[str, float | int]:
        """`spread`, its jackknife standard error and `n`.

        Raises:
            UserError: E-EVAL when no class has two items.
        """
        n = int(self.count.sum())
        if self.total is None or not bool((self.count.sum(0) >= 2).any()):
            raise UserError(
                "E-EVAL", where="spread", got=f"{n} items", takes="2 or more of a class"
            )
        every = torch.ones(GROUPS, dtype=torch.bool)
        used = torch.nonzero(self.count.sum(1) > 0)[:, 0].tolist()
        left = [every & (torch.arange(GROUPS) != g) for g in used]
        parts = torch.tensor(
            [self._of(keep) for keep in left if bool((self.count[keep].sum(0) >= 2).any())],
            dtype=torch.float64,
        )
        deviation = (parts - parts.mean()).square().sum() if len(parts) else torch.zeros(())
        error = float((deviation * (len(parts) - 1) / max(1, len(parts))).clamp(min=0).sqrt())
        return {"spread": self._of(every), "spread_error": error, "n": n}
