"""How much of the attributes that were asked for is found again in the pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.nn.jackknife import GROUPS, group_of, jackknife

__all__ = ["Regression"]

LEAST = 16  # items


class Regression:
    """R^2 of attributes told against those read off the pictures: 1 - E (told - read)^2 / var told.

    1 when all is as told; 0 for pictures that always show the mean; about -1 for pictures that have
    the right law and nothing to do with what was told.

    Sums only, in 16 groups of items by number; the error is the jackknife over the groups. Copies
    among the items make it too small.

    Args:
        attributes: K.
    """

    def __init__(self, attributes: int) -> None:
        assert attributes >= 1, "at least one attribute"
        self.items = torch.zeros(GROUPS, dtype=torch.int64)
        self.counts = torch.zeros(GROUPS, attributes, dtype=torch.int64)
        # Sums of told, told^2 and (told - read)^2.
        self.sums = torch.zeros(GROUPS, 3, attributes, dtype=torch.float64)
        self.seen = 0

    def update(self, told: Tensor, read: Tensor, items: Tensor | None = None) -> None:
        """Add attributes told (B,K), NaN where absent, and read (B,K), of the items (B,) int64.

        Without numbers of the items they are those that come next. An item of which nothing was
        told is left out.

        Raises:
            UserError: E-NUM when an attribute that was read is not finite.
        """
        assert told.shape == read.shape == (len(told), self.sums.shape[2]), "two tables (B,K)"
        told, read = told.detach().to("cpu", torch.float64), read.detach().to("cpu", torch.float64)
        broken = int((~read.isfinite()).any(1).sum())
        if broken:
            got = f"{broken} of {len(read)} items that are not finite"
            raise UserError("E-NUM", where="attributes that were read", got=got)
        numbers = torch.arange(self.seen, self.seen + len(told)) if items is None else items
        group = group_of(numbers)
        assert group.shape == told.shape[:1], "a number for every item"
        there = ~told.isnan()
        told = torch.where(there, told, 0.0)
        miss = torch.where(there, told - read, 0.0)
        self.items.index_add_(0, group, there.any(1).to(torch.int64))
        self.counts.index_add_(0, group, there.to(torch.int64))
        self.sums.index_add_(0, group, torch.stack([told, told.square(), miss.square()], 1))
        self.seen += len(told)

    def merge(self, other: Regression) -> None:
        """Add all that another one has seen."""
        assert self.counts.shape == other.counts.shape, "the same attributes"
        self.items += other.items
        self.counts += other.counts
        self.sums += other.sums
        self.seen += other.seen

    def value(self) -> dict[str, Any]:
        """Plain JSON: `r2`, mean over the attributes, with its standard error and `n`.

        `per_attribute` has the R^2 of each, `per_attribute_error` the errors; None stands for one
        that was told of less than 16 items or that does not vary, which the mean leaves out.

        Raises:
            UserError: E-EVAL for less than 16 items, or when no attribute varies.
        """
        n = int(self.items.sum())
        if n < LEAST:
            takes = f"{LEAST} or more with attributes"
            raise UserError("E-EVAL", where="R^2", got=f"{n} items", takes=takes)
        every = torch.ones(GROUPS, dtype=torch.bool)
        some = (self.counts.sum(0) >= LEAST) & self._varies(every)
        for group in range(GROUPS):  # or the jackknife would divide by nothing
            some &= self._varies(every & (torch.arange(GROUPS) != group))
        if not bool(some.any()):
            got = f"{n} items whose attributes do not vary"
            raise UserError("E-EVAL", where="R^2", got=got, takes="attributes that vary")
        each = self._of(every, some)
        error = jackknife(lambda kept: self._of(kept, some), self.items).tolist()
        return {
            "r2": float(each[-1]),
            "r2_error": error[-1],
            "per_attribute": _filled(each.tolist(), some),
            "per_attribute_error": _filled(error, some),
            "n": n,
        }

    def _spread(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of (told - mean)^2 of every attribute, (K,), and that of told^2."""
        total, square, _ = self.sums[kept].sum(0)
        return square - total.square() / self.counts[kept].sum(0).clamp(min=1), square

    def _varies(self, kept: Tensor) -> Tensor:
        inner, square = self._spread(kept)
        return inner > 1e-12 * square  # less is the rounding of the sums

    def _of(self, kept: Tensor, some: Tensor) -> Tensor:
        """R^2 of the attributes `some`, and their mean as the last."""
        each = 1.0 - self.sums[kept].sum(0)[2, some] / self._spread(kept)[0][some]
        return torch.cat([each, each.mean(0, keepdim=True)])


def _filled(values: list[float], some: Tensor) -> list[float | None]:
    """The values at the places `some`, None at the others."""
    left = iter(values)
    return [next(left) if there else None for there in some.tolist()]
