"""How often a judge sees the class that was asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError

__all__ = ["Accuracy"]


class Accuracy:
    """Counts of (wanted class, predicted class).

    Args:
        classes: Number of classes.
    """

    def __init__(self, classes: int) -> None:
        assert classes >= 1, "at least one class"
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)

    def update(self, predicted: Tensor, wanted: Tensor) -> None:
        """Add predicted and wanted classes, both (B,) int64."""
        classes = len(self.counts)
        assert predicted.shape == wanted.shape and wanted.ndim == 1, "two rows of one length"
        both = torch.stack([wanted, predicted]).to("cpu", torch.int64)
        assert bool(((both >= 0) & (both < classes)).all()), f"classes 0 to {classes - 1}"
        pairs = both[0] * classes + both[1]
        self.counts += torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def merge(self, other: Accuracy) -> None:
        """Add all that another one has seen."""
        assert self.counts.shape == other.counts.shape, "the same classes"
        self.counts += other.counts

    def value(self) -> dict[str, Any]:
        """Plain JSON: `accuracy` with its binomial standard error and `n`; `per_class`.

        `per_class` is the accuracy of each wanted class, None where it was never wanted;
        `confusion` holds the counts, rows wanted and columns predicted.

        Raises:
            UserError: E-EVAL when nothing was counted.
        """
        n = int(self.counts.sum())
        if n == 0:
            raise UserError("E-EVAL", where="accuracy", got="0 items", takes="1 or more")
        share = int(self.counts.diagonal().sum()) / n
        rows = self.counts.tolist()
        return {
            "accuracy": share,
            "accuracy_error": (share * (1.0 - share) / n) ** 0.5,
            "n": n,
            "per_class": [row[i] / sum(row) if sum(row) else None for i, row in enumerate(rows)],
            "confusion": rows,
        }
