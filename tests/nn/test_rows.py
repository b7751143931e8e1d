"""Rows come out by their item, whoever brought them; sets of unequal size are not compared."""

from __future__ import annotations

import pytest
import torch

from steerable.core.errors import UserError
from steerable.nn import rows

from ..mutants import altered, noticed


def _set(room, values, items=None):
    made = room.Rows()
    made.update(torch.as_tensor(values).double().reshape(-1, 1), items)
    return made


def check_order(room):
    """In any order of updates and merges, the table is that of one pass."""
    one = _set(room, [5.0, 1.0], torch.tensor([4, 0]))
    two = _set(room, [3.0, 2.0, 4.0], torch.tensor([2, 1, 3]))
    one.merge(two)
    assert one.table()[:, 0].tolist() == [1, 2, 3, 4, 5] and len(one) == 5


def check_numbers_that_come_next(room):
    made = _set(room, [1.0, 2.0])
    made.update(torch.tensor([[3.0]]))
    made.update(torch.tensor([[0.5]]), torch.tensor([1]))
    assert made.table()[:, 0].tolist() == [1, 2, 0.5, 3], "of equal numbers the first comes first"


def check_broken_numbers(room):
    for bad in (float("nan"), float("inf")):
        with pytest.raises(UserError, match="1 of 3") as caught:
            _set(room, [1.0, bad, 2.0])
        assert caught.value.code == "E-NUM"


def check_matched(room):
    three, four = _set(room, [1.0, 2.0, 3.0]), _set(room, [4.0, 5.0, 6.0, 7.0])
    a, b = room.matched(three, _set(room, [7.0, 8.0, 9.0]), least=3, where="here")
    assert a[:, 0].tolist() == [1, 2, 3] and b[:, 0].tolist() == [7, 8, 9]
    for one, other, least in ((three, four, 2), (four, three, 2), (three, three, 4)):
        with pytest.raises(UserError, match="here") as caught:
            room.matched(one, other, least=least, where="here")
        assert caught.value.code == "E-EVAL"


CHECKS = [check_order, check_numbers_that_come_next, check_broken_numbers, check_matched]
WRONG = {
    "not sorted": ("torch.cat(self._rows)[order]", "torch.cat(self._rows)"),
    "falling": ("stable=True)", "stable=True, descending=True)"),
    "items begin anew": (
        "torch.arange(len(self), len(self) + len(flat))",
        "torch.arange(len(flat))",
    ),
    "merged without numbers": ("self._items += other._items", "self._items += other._rows"),
    "infinite passes": ("flat.isfinite()", "flat.isnan().logical_not()"),
    "unequal numbers": ("len(a) != len(b) or ", ""),
    "no least number": ("len(a) < least", "len(a) < 0"),
    "the other way round": ("one.table(), other.table()", "other.table(), one.table()"),
}


@pytest.mark.parametrize("check", CHECKS)
def test_rows(check):
    check(rows)


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_noticed(name):
    faults = RuntimeError, IndexError, pytest.fail.Exception
    assert noticed(CHECKS, altered("nn.rows", *WRONG[name]), *faults)
