"""R^2 against readings whose error is known exactly."""

import json

import pytest
import torch

from steerable.core.errors import UserError
from steerable.metrics import regression as module

from ..mutants import altered

WRONG = {
    "the share that is missed": ("each = 1.0 - self", "each = self"),
    "about zero, not the mean": ("square - total.square() /", "square - 0.0 * total.square() /"),
    "absolute errors": ("told, told.square(), miss.square()", "told, told.square(), miss.abs()"),
    "absent ones taken for zero": (
        "self.counts.index_add_(0, group, there.to(torch.int64))",
        "self.counts.index_add_(0, group, torch.ones_like(there, dtype=torch.int64))",
    ),
    "absent ones missed": (
        "miss = torch.where(there, told - read, 0.0)",
        "miss = told - read",
    ),
    "sum over the attributes": ("each.mean(0, keepdim=True)", "each.sum(0, keepdim=True)"),
}


def _value(told, read, room=module):
    metric = room.Regression(told.shape[1])
    metric.update(told, read)
    return metric.value()


def _crossed(copies=8):
    """Told (N,) of 3 +- 1 and errors of +- 0.3, every sign with every sign."""
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).repeat(copies, 1)
    return 3 + signs[:, 0], 0.3 * signs[:, 1]


def check_known(room):
    """Read = 3 + slope (told - 3) + e: R^2 = 1 - (1 - slope)^2 - 0.09."""
    told, e = _crossed()
    reads = torch.stack([told + e, 3 + 0.5 * (told - 3) + e], 1)
    found = _value(told[:, None].repeat(1, 2), reads, room)
    assert found["per_attribute"] == pytest.approx([0.91, 0.66])
    assert found["r2"] == pytest.approx(0.785) and found["n"] == 32
    lost = told[:, None].repeat(1, 2)
    lost[:8, 1], lost[8:16] = torch.nan, torch.nan
    again = _value(lost, reads, room)
    assert again["per_attribute"] == pytest.approx([0.91, 0.66]) and again["n"] == 24


def test_known():
    check_known(module)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_ones_are_noticed(name):
    with pytest.raises((AssertionError, UserError)):
        check_known(altered("metrics.regression", *WRONG[name]))


def test_obedient_and_deaf_pictures():
    generator = torch.Generator().manual_seed(0)
    told = torch.rand(4000, 2, generator=generator)
    value = _value(told, told)
    assert (value["r2"], value["r2_error"]) == (1.0, 0.0)
    mean = _value(told, told.mean(0).expand(4000, -1))
    assert mean["r2"] == pytest.approx(0, abs=1e-6)
    deaf = _value(told, told[torch.randperm(4000, generator=generator)])
    assert abs(deaf["r2"] + 1) < 4 * deaf["r2_error"] < 0.2


def test_the_errors_are_those_of_repeats():
    """R^2 = 1 - 0.5 / 1.25 of normal readings; two errors hold in most of 100 repeats."""
    generator = torch.Generator().manual_seed(2)
    inside, gaps, errors = 0, [], []
    for _ in range(100):
        told = 5 + 1.25**0.5 * torch.randn(200, 2, generator=generator)
        read = told + 0.5**0.5 * torch.randn(200, 2, generator=generator)
        found = _value(told, read)
        inside += abs(found["r2"] - 0.6) < 2 * found["r2_error"]
        gaps.append(found["per_attribute"][1] - 0.6)
        errors.append(found["per_attribute_error"][1])
    assert inside >= 86  # 94 expected of Student's law with 15; below 86 once in a thousand
    ratio = torch.tensor(errors).square().mean() / torch.tensor(gaps).square().mean()
    assert 0.6 < float(ratio) < 1.7


def test_what_does_not_vary_is_left_out():
    told, e = _crossed()
    table = torch.stack([told, torch.full_like(told, 7.3), told], 1)
    read = table + e[:, None]
    table[5:, 2] = torch.nan
    found = _value(table, read)
    assert found["per_attribute"] == [pytest.approx(0.91), None, None]
    assert found["per_attribute_error"][1:] == [None, None] and found["r2"] == pytest.approx(0.91)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for part, words in ((table[:15], "15 items"), (table[:, 1:2], "do not vary")):
        with pytest.raises(UserError, match=words) as caught:
            _value(part, torch.zeros_like(part))
        assert caught.value.code == "E-EVAL"
    with pytest.raises(UserError) as caught:
        _value(table, table / 0)
    assert caught.value.code == "E-NUM"


def test_merge_equals_one_pass():
    told = torch.randn(60, 3)
    read = told + 0.4 * torch.randn(60, 3)
    told[::7] = torch.nan
    parts = module.Regression(3)
    for index in torch.randperm(60).split(11):
        part = module.Regression(3)
        part.update(told[index], read[index], index)
        parts.merge(part)
    whole, merged = _value(told, read), parts.value()
    assert merged.keys() == whole.keys() and merged["n"] == whole["n"]
    for key in ("r2", "r2_error", "per_attribute", "per_attribute_error"):
        assert merged[key] == pytest.approx(whole[key], rel=1e-9)
