"""Retrieval counted by hand, at chance, and with ties."""

import json

import pytest
import torch

from steerable.core.errors import UserError
from steerable.metrics import retrieval as module

from ..mutants import altered

WRONG = {
    "a tie is right": ("credit = 1.0 / torch.arange(", "credit = 1.0 + 0 * torch.arange("),
    "the lowest score": ("scores.amax(", "scores.amin("),
    "the first candidate": (
        "best.gather(1, wanted[:, None])",
        "best.gather(1, 0 * wanted[:, None])",
    ),
    "wrong ones credited": ("credit[0] = 0.0", "credit[0] = 1.0"),
    "spread, not error": ("(variance / n) ** 0.5", "variance**0.5"),
}


def _value(scores, wanted, room=module):
    metric = room.Retrieval(scores.shape[1])
    metric.update(scores, wanted)
    return metric.value()


def check_by_hand(room):
    """Right, right in a tie of two, wrong, in a tie of wrong ones: 1 + 1/2 + 0 + 0 of 4."""
    scores = torch.tensor([[1.0, 5, 2], [3, 0, 3], [4, 1, -torch.inf], [6, 6, 1]])
    found = _value(scores, torch.tensor([1, 2, 1, 2]), room)
    assert found["retrieval"] == 0.375 and found["n"] == 4 and found["candidates"] == 3
    # Credits 1, 1/2, 0, 0: variance 5/16 - 9/64.
    assert found["retrieval_error"] == pytest.approx((11 / 64 / 4) ** 0.5)
    assert found["chance"] == pytest.approx(1 / 3)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_by_hand():
    check_by_hand(module)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_ones_are_noticed(name):
    with pytest.raises((AssertionError, ZeroDivisionError)):
        check_by_hand(altered("metrics.retrieval", *WRONG[name]))


def test_scores_that_know_nothing_are_at_chance():
    wanted = torch.zeros(3000, dtype=torch.int64)
    flat = _value(torch.zeros(3000, 16), wanted)
    assert flat["retrieval"] == pytest.approx(flat["chance"]) == 1 / 16
    drawn = _value(torch.rand(3000, 16, generator=torch.Generator().manual_seed(0)), wanted)
    assert abs(drawn["retrieval"] - 1 / 16) < 4 * drawn["retrieval_error"]
    assert drawn["retrieval_error"] == pytest.approx((15 / 256 / 3000) ** 0.5, rel=0.1)


def test_merge_equals_one_pass():
    scores, wanted = torch.randint(0, 4, (70, 5)), torch.randint(0, 5, (70,))
    parts = module.Retrieval(5)
    for index in torch.randperm(70).split(9):
        part = module.Retrieval(5)
        part.update(scores[index], wanted[index])
        parts.merge(part)
    assert parts.value() == _value(scores, wanted)


def test_refusals():
    with pytest.raises(UserError, match="0 pictures") as caught:
        module.Retrieval(2).value()
    assert caught.value.code == "E-EVAL"
    with pytest.raises(UserError, match="no numbers") as caught:
        _value(torch.tensor([[0.0, torch.nan]]), torch.tensor([0]))
    assert caught.value.code == "E-NUM"
