"""A set that repeats itself is told from one that does not."""

from __future__ import annotations

import pytest
import torch

from steerable.core.errors import UserError
from steerable.metrics import repeats as room

from ..mutants import altered


def _value(fakes, reals, repeats=room):
    one, two = repeats.Repeats(), repeats.Repeats()
    one.update(fakes)
    two.update(reals)
    return one.value(two)


def _draw(n, seed, d=6):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check_by_hand(repeats):
    """On a line with gaps 1, 2, 3, ...: the nearest neighbours of real items are known."""
    line = torch.cumsum(torch.arange(12.0), 0)[:, None].double()
    # Nearest distances 1 1 2 3 ... 10 with the first hundredth between the two ones: 1.
    fakes = torch.cat([line[:9] + 1000, torch.tensor([[5.0], [5.5], [6.5]]).double()])
    found = _value(fakes, line, repeats)
    # Within 1 of another: 0 and 1 of the line, and all three of the tail.
    assert found["repeats"] == 5 / 12 and found["n"] == 12


def check_laws(repeats):
    """One law: a hundredth, within the stated error; a set of pairs: all."""
    shares = []
    for seed in range(40):
        found = _value(_draw(300, 2 * seed), _draw(300, 2 * seed + 1), repeats)
        shares.append((found["repeats"] - 0.01) / found["repeats_error"])
    assert sum(abs(share) < 2.6 for share in shares) >= 38
    few = _draw(150, 7)
    assert _value(torch.cat([few, few]), _draw(300, 8), repeats)["repeats"] == 1.0


def test_by_hand():
    check_by_hand(room)


def test_laws():
    check_laws(room)


@pytest.mark.parametrize(
    "edit",
    [
        ("itself=True", "itself=False"),
        ("own <= limit", "own > limit"),
        ("quantile(SHARE)", "quantile(1 - SHARE)"),
        ("for rows in (a, b))", "for rows in (b, a))"),
    ],
)
def test_mistakes_are_noticed(edit):
    with pytest.raises(AssertionError):
        check_by_hand(altered("metrics.repeats", *edit))


def test_refusals():
    for fakes, reals in ((9, 9), (20, 21), (0, 0)):
        with pytest.raises(UserError) as caught:
            _value(_draw(fakes, 0), _draw(reals, 1))
        assert caught.value.code == "E-EVAL"
