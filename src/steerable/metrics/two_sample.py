"""Two-sample accuracy: can the nearest neighbour tell samples from real items?"""

from __future__ import annotations

import torch
from torch import Tensor

from steerable.nn.neighbours import nearest
from steerable.nn.rows import Rows, matched

__all__ = ["TwoSample"]

LEAST = 2  # items a side: fewer have no neighbour of their own kind


class TwoSample:
    """A set of items as rows: features of a judge, or pixels.

    Source: Lopez-Paz and Oquab, arXiv 1610.06545, with the nearest neighbour as classifier.
    """

    def __init__(self) -> None:
        self.rows = Rows()

    def update(self, rows: Tensor, items: Tensor | None = None) -> None:
        """Add rows (B,...) of the items (B,) int64; without numbers, of those that come next."""
        self.rows.update(rows, items)

    def merge(self, other: TwoSample) -> None:
        """Add all that another one has seen."""
        self.rows.merge(other.rows)

    def value(self, real: TwoSample) -> dict[str, float | int]:
        """`two_sample` in [0,1], its standard error and `n`, the number of items of each kind.

        It is the share of all 2 n items whose nearest neighbour, itself left out, is of their own
        kind: about 0.5 for equal laws, (n - 1) / (2 n - 1) to be exact; 1 for laws apart; less
        than 0.5 for copies, 0 when every item has its copy on the other side. An item as near to
        the one kind as to the other counts one half.

        Args:
            real: Real items, as many as there are samples.

        Raises:
            UserError: E-EVAL when the numbers differ or are less than two.
        """
        a, b = matched(self.rows, real.rows, least=LEAST, where="two-sample accuracy")
        n = len(a)
        (aa, aa_at), (ab, ab_at) = nearest(a, a, 1, itself=True), nearest(a, b, 1)
        (bb, bb_at), (ba, ba_at) = nearest(b, b, 1, itself=True), nearest(b, a, 1)
        own, other = torch.cat([aa, bb])[:, 0], torch.cat([ab, ba])[:, 0]
        at_own, at_other = torch.cat([aa_at, bb_at + n])[:, 0], torch.cat([ab_at + n, ba_at])[:, 0]
        votes = (own < other).double() + 0.5 * (own == other).double()
        error = _error(votes, torch.where(own <= other, at_own, at_other))
        return {"two_sample": float(votes.mean()), "two_sample_error": error, "n": n}


def _error(votes: Tensor, at: Tensor) -> float:
    """Standard error of the mean of votes (N,), where `at` (N,) is everybody's neighbour.

    Votes are not independent: two items that are each other's neighbours cast the same one, which
    happens to 62 % of all items in the plane, so the binomial error is 1.27 times too small there;
    and items that share a neighbour agree when the kinds are apart. So the residuals of all pairs
    that have an item in common are multiplied. Equal laws leave the first term, which with 1/4
    for the variance of a vote is the variance over all exchanges of the kinds for equal numbers.
    It is also the least that is stated, and with one item more of each kind it is not 0 at the
    ends.

    Source: Schilling, "Multivariate two-sample tests based on nearest neighbors", 1986; Henze,
    "A multivariate two-sample test based on the number of nearest neighbor type coincidences",
    1988.
    """
    n = len(votes)
    mutual = (at[at] == torch.arange(n)).double()
    share = float(votes.sum() + 1) / (n + 2)
    least = n * share * (1 - share) * (1 + float(mutual.mean()))
    rest = votes - votes.mean()
    around = rest.index_add(0, at, rest)  # for every item the residuals that have to do with it
    # Everybody has to do with two items, itself and its neighbour, and mutual pairs share both.
    pairs = float(around.square().sum() - (rest.square() * (1 + mutual)).sum())
    return max(least, pairs) ** 0.5 / n
