"""Density and coverage: how many real neighbourhoods a sample is in, and how many hold a sample."""

from __future__ import annotations

import torch
from torch import Tensor

from steerable.nn.halves import halving_error
from steerable.nn.neighbours import inside, nearest
from steerable.nn.rows import Rows, matched

__all__ = ["DensityCoverage"]


class DensityCoverage:
    """A set of items as rows: features of a judge, or pixels.

    Source: Naeem et al., arXiv 2002.09797, equations 3 and 4, with the edge in the ball.
    """

    def __init__(self) -> None:
        self.rows = Rows()

    def update(self, rows: Tensor, items: Tensor | None = None) -> None:
        """Add rows (B,...) of the items (B,) int64; without numbers, of those that come next."""
        self.rows.update(rows, items)

    def merge(self, other: DensityCoverage) -> None:
        """Add all that another one has seen."""
        self.rows.merge(other.rows)

    def value(self, real: DensityCoverage, k: int = 5) -> dict[str, float | int]:
        """`density` and `coverage` with standard errors, `n` of each kind and `k`.

        Around every real item lies a ball that reaches to its k-th nearest real item. Density is
        the mean number of balls that a sample is in, over k: about 1 for equal laws, above 1 for
        samples that crowd where real items are dense. Coverage is the share of balls that hold a
        sample: 1 - 2^-k to be expected for equal laws and numbers, so 0.969 for k = 5.

        Args:
            real: Real items, as many as there are samples.
            k: Neighbours that a ball reaches to, itself not counted.

        Raises:
            UserError: E-EVAL when the numbers differ or are less than 2 (k + 1): the errors take
                halves.
        """
        assert k >= 1, "a neighbour"
        a, b = matched(self.rows, real.rows, least=2 * (k + 1), where="density and coverage")
        n = len(a)

        def measure(a: Tensor, b: Tensor) -> Tensor:
            radius = nearest(b, b, k, itself=True)[0][:, -1]
            counts, near = inside(a, b, radius).double(), nearest(b, a, 1)[0][:, 0]
            shares = (counts > 0).double().mean(), (near <= radius).double().mean()
            return torch.stack([counts.mean() / k, shares[1], shares[0]])

        density, coverage, within = measure(a, b)
        # Items share balls, so they are not independent; but less than that of n independent ones
        # is never stated, and with one more of each outcome it is not 0 at the ends. A sample is
        # in some ball or in none: that is the least which a density varies by.
        share = (n * torch.stack([within, coverage]) + 1) / (n + 2)
        errors = torch.maximum(halving_error(measure, a, b)[:2], (share * (1 - share) / n).sqrt())
        return {
            "density": float(density),
            "density_error": float(errors[0]),
            "coverage": float(coverage),
            "coverage_error": float(errors[1]),
            "n": n,
            "k": k,
        }
