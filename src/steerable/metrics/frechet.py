"""The Frechet distance between two sets of features, each taken as a Gaussian.

The value falls with the number of items. `floor` says how far apart two sets of real items are at
the same number, `limit` what is left at an infinite one, `redrawn` how far chance moves the value.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import linear_regression

import torch
from torch import Tensor

from steerable.core.errors import UserError

__all__ = ["Frechet"]

BLOCKS = 16  # of items, in `limit`; leaving one out at a time gives the error
KEPT = (8, 12, 15, 16)  # blocks in the subsets of `limit`
LEAST = 2 * BLOCKS  # items a side in `limit`, whatever their features


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
        values[repeat] = _of(features[order[0::2]]).distance(_of(features[order[1::2]]))
    return Floor(float(values.mean()), float(values.std() / repeats**0.5), used)


def redrawn(fakes: Tensor, reals: Frechet, *, repeats: int = 16, seed: int = 0) -> float:
    """Standard error of the distance to `reals`: its spread over redraws of the fakes.

    A redraw takes N of the N fakes with replacement (the bootstrap). It covers the choice of the
    fakes, not that of the reals, and is too large, by up to a third, for sets at their floor.

    Args:
        fakes: Features (N,F).
        reals: What the distance is taken to.
        repeats: Number of redraws, at least two.
        seed: Seed of the draws.

    Raises:
        UserError: E-EVAL for less than two items a side.
    """
    assert repeats >= 2, "a spread needs two repeats"
    generator = torch.Generator().manual_seed(seed)
    values = torch.empty(repeats, dtype=torch.float64)
    for repeat in range(repeats):
        chosen = torch.randint(max(1, len(fakes)), (len(fakes),), generator=generator)
        values[repeat] = _of(fakes[chosen]).distance(reals)
    return float(values.std())


@dataclass(frozen=True)
class Limit:
    """The distance at an infinite number of items.

    Attributes:
        value: Where the line of the distance over 1/n meets 1/n = 0; below 0 by chance, where the
            laws are equal.
        error: Its standard error, for new items on both sides.
        n: Number of items a side that the line was drawn through.
    """

    value: float
    error: float
    n: int


def limit(fakes: Tensor, reals: Tensor, *, seed: int = 0) -> Limit:
    """Frechet distance of two sets, extrapolated to an infinite number of items on both sides.

    Subsets of rising, on both sides equal sizes, from half of the items to all, and the line
    through their mean distances over 1/n. The bias of both sides is then one over the same n, and
    two samples of one law meet 0. Subsets with fewer items than features are left out of this law
    and draw the line far too high, so every subset has as many items as there are features that
    vary.

    The subsets overlap, so what scatters about the line says nothing about new items. A size's
    subsets are therefore one random choice among 16 blocks, turned around, so that all items weigh
    the same in it; what is left of the items' chance is that of the whole set, which the jackknife
    over the same blocks measures. That is right for laws apart, and too large by up to root two for
    equal ones, where the distance is a square about its least value.

    Source: Chong and Forsyth, arXiv 1911.07023, for fakes only and without an error; jackknife
    after Efron and Stein 1981.

    Args:
        fakes: Features (N,F).
        reals: Features (M,F); of the larger set as many are drawn as the smaller one has.
        seed: Seed of the blocks and subsets.

    Raises:
        UserError: E-EVAL for less than 32 items, or than twice the features that vary, on either
            side.
    """
    assert fakes.ndim == reals.ndim == 2 and fakes.shape[1] == reals.shape[1], "one width"
    n = min(len(fakes), len(reals))
    least = max(LEAST, 2 * max(_varying(fakes), _varying(reals)))
    if n < least:
        got, takes = f"{len(fakes)} and {len(reals)} items", f"{least} or more a side"
        raise UserError("E-EVAL", where="limit of the Frechet distance", got=got, takes=takes)
    generator = torch.Generator().manual_seed(seed)
    blocks = [_blocks(rows, n, generator) for rows in (fakes, reals)]
    places, heights, error = [], [], 0.0
    for kept in KEPT:
        base = torch.randperm(BLOCKS, generator=generator)[:kept]
        turns = range(BLOCKS if kept < BLOCKS else 1)
        subsets = [((base + turn) % BLOCKS).tolist() for turn in turns]
        pairs = [[_union(side, subset) for side in blocks] for subset in subsets]
        distances = torch.tensor([a.distance(b) for a, b in pairs], dtype=torch.float64)
        places.append(sum(1.0 / a.n for a, _ in pairs) / len(pairs))
        heights.append(float(distances.mean()))
        if kept == BLOCKS - 1:
            deviation = distances - distances.mean()
            error = float((deviation.square().sum() * kept / BLOCKS).sqrt())
    return Limit(linear_regression(places, heights).intercept, error, n)


def _varying(rows: Tensor) -> int:
    """How many of the features (N,F) are not the same for all items."""
    return int((rows != rows[:1]).any(0).sum())


def _blocks(rows: Tensor, n: int, generator: torch.Generator) -> list[Frechet]:
    """The sums of n of the rows (N,F) in random blocks, whose sizes differ by one at most."""
    order = torch.randperm(len(rows), generator=generator)[:n]
    return [_of(rows[order[place::BLOCKS]]) for place in range(BLOCKS)]


def _union(blocks: list[Frechet], subset: list[int]) -> Frechet:
    union = Frechet()
    for place in subset:
        union.merge(blocks[place])
    return union


def _of(features: Tensor) -> Frechet:
    seen = Frechet()
    seen.update(features)
    return seen
