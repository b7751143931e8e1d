"""The Frechet distance between two sets of features, each taken as a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steerable.core.errors import UserError

__all__ = ["Frechet"]


class Frechet:
    """Running sums of features (B,F) in float64: count, sum f and sum f f^T.

    The distance has a bias of about c / n that depends on the features, so compare only values of
    the same n and the same extractor, and give the floor between two real sets beside them.
    """

    def __init__(self) -> None:
        self.n = 0
        self.total: Tensor | None = None  # sum f, (F,)
        self.products: Tensor | None = None  # sum f f^T, (F,F)

    def update(self, features: Tensor) -> None:
        """Add features (B,F)."""
        assert features.ndim == 2, "features (B,F)"
        rows = features.detach().to("cpu", torch.float64)
        self._add(len(rows), rows.sum(0), rows.T @ rows)

    def merge(self, other: Frechet) -> None:
        """Add all that another one has seen."""
        if other.total is not None and other.products is not None:
            self._add(other.n, other.total, other.products)

    def _add(self, n: int, total: Tensor, products: Tensor) -> None:
        if self.total is None or self.products is None:
            self.total, self.products = torch.zeros_like(total), torch.zeros_like(products)
        assert self.total.shape == total.shape, "features of one width"
        self.n, self.total, self.products = self.n + n, self.total + total, self.products + products

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (F,) and unbiased covariance (F,F).

        Raises:
            UserError: E-EVAL for less than two items.
        """
        if self.n < 2 or self.total is None or self.products is None:
            raise UserError(
                "E-EVAL", where="Frechet distance", got=f"{self.n} items", takes="2 or more a side"
            )
        mean = self.total / self.n
        return mean, (self.products - self.n * torch.outer(mean, mean)) / (self.n - 1)

    def value(self) -> dict[str, float | int]:
        """n, width F of the features, norm of their mean and trace of their covariance."""
        mean, covariance = self.moments()
        return {
            "n": self.n,
            "features": len(mean),
            "mean_norm": float(mean.norm()),
            "variance": float(covariance.trace()),
        }

    def distance(self, other: Frechet) -> float:
        """|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^{1/2}), float64.

        With S = L L^T, the eigenvalues of (S1 S2)^{1/2} are the singular values of L1^T L2. So no
        root is taken of a difference that rounding may have made negative, and features that
        never vary (rank-deficient covariances) do no harm.

        Source: Dowson and Landau, "The Frechet distance between multivariate normal
        distributions", 1982.

        Raises:
            UserError: E-EVAL when either side has less than two items.
        """
        (mean_1, s_1), (mean_2, s_2) = self.moments(), other.moments()
        assert mean_1.shape == mean_2.shape, "features of one width"
        mixed = torch.linalg.svdvals(_factor(s_1).T @ _factor(s_2)).sum()
        gap = (mean_1 - mean_2).square().sum()
        return max(0.0, float(gap + s_1.trace() + s_2.trace() - 2.0 * mixed))


def _factor(covariance: Tensor) -> Tensor:
    """L with L L^T = S, directions of no variance left at zero."""
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    # Below this, an eigenvalue is the rounding error of the decomposition.
    floor = values[-1].clamp(min=0.0) * len(values) * torch.finfo(values.dtype).eps
    return vectors * torch.where(values > floor, values, 0.0).sqrt()


@dataclass(frozen=True)
class Floor:
    """The distance that two samples of real items have from each other.

    Attributes:
        value: Mean over the repeats.
        error: Standard error of the mean over the repeats; they redraw from the same items, so it
            does not cover the choice of these.
        n: Number of items a side.
    """

    value: float
    error: float
    n: int


def floor(
    features: Tensor, n: int, *, groups: Tensor | None = None, repeats: int = 8, seed: int = 0
) -> Floor:
    """Frechet distance between two disjoint random samples of n real features each.

    Args:
        features: Features (N,F) of real items.
        n: Items a side; when N < 2 n, the largest equal halves are used and the result says so.
        groups: Class of each item, (N,); each is then split evenly between the two sides.
        repeats: Number of random draws, at least two.
        seed: Seed of the draws.

    Raises:
        UserError: E-EVAL for less than two items a side.
    """
    assert repeats >= 2, "an error needs two repeats"
    used = min(n, len(features) // 2)
    generator = torch.Generator().manual_seed(seed)
    values = torch.empty(repeats, dtype=torch.float64)
    for repeat in range(repeats):
        order = torch.randperm(len(features), generator=generator)[: 2 * used]
        if groups is not None:  # sorted by class, so that every other item is a fair half
            order = order[torch.argsort(groups[order], stable=True)]
        sides = Frechet(), Frechet()
        sides[0].update(features[order[0::2]])
        sides[1].update(features[order[1::2]])
        values[repeat] = sides[0].distance(sides[1])
    return Floor(float(values.mean()), float(values.std() / repeats**0.5), used)
