"""Conditions: what absent means, the null, and dropout of whole items."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from torch import nn

from steerable.core.condition import Condition, absent, absent_like
from steerable.core.noise import Noise


class _Scaled(Condition):
    """Floats (B,P,H,W) as planes, twice as large."""

    slot: ClassVar[str] = "planes"

    def encode(self, value):
        return 2 * value


class _Index(Condition):
    """An integer as a vector of its own value."""

    slot: ClassVar[str] = "vector"

    def encode(self, value):
        assert int(value.min()) >= 0, "an absent value must not reach the code"
        return value[:, None].to(torch.float32).expand(-1, 3)


VALUES = {
    "index": torch.tensor([4, 0, 2]),
    "several indices": torch.tensor([[4, 3], [0, 1], [2, -1]]),
    "vector": torch.rand(3, 5),
    "planes": torch.rand(3, 2, 4, 4),
}


@pytest.mark.parametrize("name", VALUES)
def test_absent_is_seen_per_item_and_only_when_all_of_it_is(name):
    value = VALUES[name].clone()
    assert absent(value).tolist() == [False] * 3
    assert absent(absent_like(value)).tolist() == [True] * 3
    value[1] = absent_like(value)[1]
    assert absent(value).tolist() == [False, True, False]
    if value.ndim > 1:
        value[0].view(-1)[0] = absent_like(value)[0].view(-1)[0]
        assert absent(value).tolist() == [False, True, False], "a part is not the whole"


@pytest.mark.parametrize("name", VALUES)
def test_dropout_takes_whole_items_and_leaves_the_others_alone(name):
    value = VALUES[name].repeat_interleave(1000, 0)
    condition = _Scaled((1,), dropout=0.25)
    got = condition.dropped(value, Noise(torch.arange(3000)))
    gone = absent(got)
    assert torch.equal(got[~gone], value[~gone])
    assert abs(float(gone.float().mean()) - 0.25) < 4 * math.sqrt(0.1875 / 3000)
    alone = condition.dropped(value[7:8], Noise(torch.arange(7, 8)))
    assert bool(absent(alone)[0]) == bool(gone[7])


def test_no_dropout_and_full_dropout():
    value = torch.arange(500)
    noise = Noise(torch.arange(500))
    assert torch.equal(_Index((3,), dropout=0.0).dropped(value, noise), value)
    assert bool((_Index((3,), dropout=1.0).dropped(value, noise) == -1).all())


def test_conditions_are_dropped_independently_of_each_other():
    conditions = nn.ModuleDict({"a": _Index((3,), dropout=0.5), "b": _Index((3,), dropout=0.5)})
    cond = {"b": torch.zeros(8000, dtype=torch.int64), "a": torch.zeros(8000, dtype=torch.int64)}
    got = Condition.drop_all(conditions, cond, Noise(torch.arange(8000)))
    a, b = absent(got["a"]), absent(got["b"])
    assert abs(float((a & b).float().mean()) - 0.25) < 4 * math.sqrt(0.1875 / 8000)
    again = Condition.drop_all(conditions, dict(reversed(cond.items())), Noise(torch.arange(8000)))
    assert torch.equal(again["a"], got["a"]), "the order of the names must not matter"


def test_the_null_answers_for_absent_items_in_a_mixed_batch():
    condition = _Index((3,), dropout=0.1)
    nn.init.constant_(condition.null, -5.0)
    got = condition(torch.tensor([4, -1, 2, -1]))
    assert got[:, 0].tolist() == [4.0, -5.0, 2.0, -5.0]
    planes = _Scaled((2, 4, 4), dropout=0.1)
    nn.init.constant_(planes.null, 7.0)
    value = VALUES["planes"].clone()
    value[1] = float("nan")
    got = planes(value)
    assert bool((got[1] == 7.0).all()) and torch.equal(got[[0, 2]], 2 * value[[0, 2]])


def test_gradients_reach_the_null_from_absent_items_only():
    condition = _Scaled((2, 4, 4), dropout=0.1)
    value = VALUES["planes"].clone()
    condition(value).sum().backward()
    assert float(condition.null.grad.abs().max()) == 0
    value[0] = float("nan")
    condition(value).sum().backward()
    assert bool((condition.null.grad == 1).all())
