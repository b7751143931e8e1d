"""The kernel distance between two sets of features: no bias at any size, and its exact error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.nn.rows import Rows

__all__ = ["Kid"]

CHUNK = 512  # rows of a kernel matrix at a time
LEAST = 4  # items a side, for which the variance has an unbiased estimate


class Kid:
    """A set of features (N,D) as rows; against a set of real ones, the squared kernel distance.

    The kernel is (a.b/D + 1)^3, so means, covariances and third moments are compared. The distance
    has no bias at any size: for equal laws it is 0 on average, so about as often below as above.
    Below 0 by more than its error explains, it says that the two sets share items.

    The standard error takes the items of a set as independent draws of one law. Where the classes
    take equal turns it is a little too large; where a set holds copies of its own items, too small.

    Source: Binkowski, Sutherland, Arbel and Gretton, arXiv 1801.01401.
    """

    def __init__(self) -> None:
        self.rows = Rows()

    def update(self, rows: Tensor, items: Tensor | None = None) -> None:
        """Add features (B,...), flattened, of the items (B,) int64; without, those that come next.

        Raises:
            UserError: E-NUM when a number is not finite.
        """
        self.rows.update(rows, items)

    def merge(self, other: Kid) -> None:
        """Add all that another one holds."""
        self.rows.merge(other.rows)

    def value(self, real: Kid) -> dict[str, float | int]:
        """`kid`, its standard error `kid_error`, and the numbers of items `n` and `n_real`.

        Raises:
            UserError: E-EVAL for less than four items on either side.
        """
        x, y = self.rows.table(), real.rows.table()
        n, m = len(x), len(y)
        if min(n, m) < LEAST:
            got, takes = f"{n} samples and {m} real items", f"{LEAST} or more of each"
            raise UserError("E-EVAL", where="kernel distance", got=got, takes=takes)
        assert x.shape[1] == y.shape[1], "features of one width"
        middle = (x.mean(0) + y.mean(0)).div(2)[None]
        level = float(_kernel(middle, middle))
        xx, yy, xy = _sums(x, None, level), _sums(y, None, level), _sums(x, y, level)
        distance = xx.total / (n * (n - 1)) + yy.total / (m * (m - 1)) - 2 * xy.total / (n * m)
        first, second = _variance(xx, yy, xy)
        # The estimate of the first part may fall below 0 where the laws are equal and it is 0.
        error = (max(0.0, first) + max(0.0, second)) ** 0.5
        return {"kid": distance, "kid_error": error, "n": n, "n_real": m}


@dataclass(frozen=True)
class _Sums:
    """Sums of the kernel matrix (N,M) of two sets, or of one set without its diagonal.

    `rows` (N,), `columns` (M,), and `square`, the sum of the squares of all entries.
    """

    rows: Tensor
    columns: Tensor
    square: float

    @property
    def total(self) -> float:
        return float(self.rows.sum())


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T).div_(a.shape[1]).add_(1.0).pow_(3)


def _sums(a: Tensor, b: Tensor | None, level: float) -> _Sums:
    """Of a (N,D) and b (M,D), or of a and itself; a few rows of the matrix exist at a time.

    The distance and its variance do not change when a number is taken from all entries. Taking
    `level`, about their mean, leaves small differences no large sums to drown in.
    """
    other = a if b is None else b
    rows, columns, square = [], torch.zeros(len(other), dtype=a.dtype), 0.0
    for start in range(0, len(a), CHUNK):
        part = _kernel(a[start : start + CHUNK], other).sub_(level)
        if b is None:
            part.diagonal(start).zero_()
        rows.append(part.sum(1))
        columns += part.sum(0)
        square += float(part.flatten().dot(part.flatten()))
    return _Sums(torch.cat(rows), columns, square)


def _variance(xx: _Sums, yy: _Sums, xy: _Sums) -> tuple[float, float]:
    """Unbiased estimates of the two parts of the distance's variance, first and second order.

    By Hoeffding's decomposition the distance is the sum of uncorrelated parts: of the witness
    w(x) = E k(x,X) - E k(x,Y) over the items of each set, and of what remains of each kernel
    matrix once its row and column means are taken away. For sizes n and m its variance is exactly

        4/n Var w(X) + 4/m Var w(Y)                                            first order
        + 2/(n(n-1)) V_xx + 2/(m(m-1)) V_yy + 4/(nm) V_xy                      second order

    with V the variance of a remainder. For equal laws w = 0 and the second order is all there is.
    Blocks of items miss this: the first order falls as one over the size of a block and the second
    as its square, so blocks cannot be right in both cases, nor can a bootstrap or a jackknife,
    which double the second order or worse. Each term here is estimated without bias.

    Source: Hoeffding 1948; Sutherland and Deka, arXiv 1906.02104, for n = m.
    """
    n, m = len(xx.rows), len(yy.rows)
    v_xx, v_yy, v_xy = _remainder(xx), _remainder(yy), _remainder_across(xy)
    first = 4 / n * (_witness(xx.rows, xy.rows, m) - v_xx / (n - 2) - v_xy / m)
    first += 4 / m * (_witness(yy.rows, xy.columns, n) - v_yy / (m - 2) - v_xy / n)
    second = 2 * v_xx / (n * (n - 1)) + 2 * v_yy / (m * (m - 1)) + 4 * v_xy / (n * m)
    return first, second


def _witness(own: Tensor, across: Tensor, size: int) -> float:
    """Variance of the estimated witness, from row sums over the own set and one of `size` items.

    Every row sum holds the sum over all items less the item itself: dividing by n - 2, not n - 1,
    gives what is the item's own its right weight; the rest is the same for all items.
    """
    return float((own / (len(own) - 2) - across / size).var())


def _remainder(sums: _Sums) -> float:
    """Unbiased estimate of the variance of what rows and columns leave, of one set.

    Source: U-centred matrices, Szekely and Rizzo 2014, equations 2.1 and 2.4.
    """
    n = len(sums.rows)
    left = sums.square - 2 / (n - 2) * float(sums.rows.square().sum())
    return (left + sums.total**2 / ((n - 1) * (n - 2))) / (n * (n - 3))


def _remainder_across(sums: _Sums) -> float:
    """The same of two sets: the residual of a two-way table with one entry in every cell."""
    n, m = len(sums.rows), len(sums.columns)
    rows, columns = float(sums.rows.square().sum()), float(sums.columns.square().sum())
    left = sums.square - rows / m - columns / n + sums.total**2 / (n * m)
    return left / ((n - 1) * (m - 1))
