"""Sets of feature rows, each with the number of its item, so that sets from anywhere can merge."""

from __future__ import annotations

import torch
from torch import Tensor

from steerable.core.errors import UserError

__all__ = ["Rows", "matched"]


class Rows:
    """Rows (N,D) float64 that come out in the order of their items, whoever brought them when.

    What is drawn from a set by place (bootstrap, blocks, halves) is then the same however many
    processes have filled it.
    """

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._items: list[Tensor] = []

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows)

    def update(self, rows: Tensor, items: Tensor | None = None) -> None:
        """Add rows (B,...), flattened, of the items (B,) int64; without, those that come next.

        Raises:
            UserError: E-NUM when a number is not finite.
        """
        flat = rows.detach().flatten(1).to("cpu", torch.float64)
        broken = int((~flat.isfinite().all(1)).sum())
        if broken:
            got = f"{broken} of {len(flat)} items that are not finite"
            raise UserError("E-NUM", where="features", got=got, do="look at these items")
        given = torch.arange(len(self), len(self) + len(flat)) if items is None else items.cpu()
        assert given.shape == (len(flat),), "a number for every item"
        self._rows.append(flat)
        self._items.append(given)

    def merge(self, other: Rows) -> None:
        """Add all that another one holds."""
        self._rows += other._rows
        self._items += other._items

    def table(self) -> Tensor:
        """All rows (N,D), by rising number of their item."""
        if not self._rows:
            return torch.zeros(0, 0, dtype=torch.float64)
        order = torch.argsort(torch.cat(self._items), stable=True)
        return torch.cat(self._rows)[order]


def matched(one: Rows, other: Rows, *, least: int, where: str) -> tuple[Tensor, Tensor]:
    """The tables of samples and of real items, once they are known to have equal numbers.

    What neighbours say depends on how many there are, so unequal sets cannot be compared.

    Args:
        one: The samples.
        other: The real items.
        least: Items a side, at least.
        where: What is measured, for the error.

    Raises:
        UserError: E-EVAL when the numbers differ or are too small.
    """
    a, b = one.table(), other.table()
    if len(a) != len(b) or len(a) < least:
        got, takes = (
            f"{len(a)} samples and {len(b)} real items",
            f"as many of both, {least} or more",
        )
        raise UserError("E-EVAL", where=where, got=got, takes=takes)
    return a, b
