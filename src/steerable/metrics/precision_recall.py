"""Precision and recall: samples inside what is real, and real items inside what is sampled."""

from __future__ import annotations

import torch
from torch import Tensor

from steerable.nn.halves import halving_error
from steerable.nn.neighbours import inside, nearest
from steerable.nn.rows import Rows, matched

__all__ = ["PrecisionRecall"]


class PrecisionRecall:
    """A set of items as rows: features of a judge, or pixels.

    Source: Kynkaanniemi et al., arXiv 1904.06991, equations 1 and 2.
    """

    def __init__(self) -> None:
        self.rows = Rows()

    def update(self, rows: Tensor, items: Tensor | None = None) -> None:
        """Add rows (B,...) of the items (B,) int64; without numbers, of those that come next."""
        self.rows.update(rows, items)

    def merge(self, other: PrecisionRecall) -> None:
        """Add all that another one has seen."""
        self.rows.merge(other.rows)

    def value(self, real: PrecisionRecall, k: int = 5) -> dict[str, float | int]:
        """`precision` and `recall` in [0,1] with standard errors, `n` of each kind and `k`.

        Around every real item lies a ball that reaches to its k-th nearest real item. Precision is
        the share of samples that are in at least one of them. Recall is the same with the kinds
        exchanged: low where whole parts of the real law are never drawn. Both depend on n and on
        the width of the rows, so compare only with real against real at the same n.

        Args:
            real: Real items, as many as there are samples.
            k: Neighbours that a ball reaches to, itself not counted.

        Raises:
            UserError: E-EVAL when the numbers differ or are less than 2 (k + 1): the errors take
                halves.
        """
        assert k >= 1, "a neighbour"
        a, b = matched(self.rows, real.rows, least=2 * (k + 1), where="precision and recall")
        n = len(a)

        def measure(a: Tensor, b: Tensor) -> Tensor:
            return torch.stack([_within(a, b, k), _within(b, a, k)])

        values = measure(a, b)
        # Items share balls, so they are not independent; but less than that of n independent ones
        # is never stated, and with one more of each outcome it is not 0 at the ends.
        share = (n * values + 1) / (n + 2)
        errors = torch.maximum(halving_error(measure, a, b), (share * (1 - share) / n).sqrt())
        return {
            "precision": float(values[0]),
            "precision_error": float(errors[0]),
            "recall": float(values[1]),
            "recall_error": float(errors[1]),
            "n": n,
            "k": k,
        }


def _within(a: Tensor, b: Tensor, k: int) -> Tensor:
    """Share of the rows a (N,D) in a ball around a row of b (M,D) to its k-th neighbour in b."""
    radius = nearest(b, b, k, itself=True)[0][:, -1]
    return (inside(a, b, radius) > 0).double().mean()
