"""The error from halves is the usual one where there is a usual one."""

import pytest
import torch

from steerable.nn import halves

from ..mutants import altered, noticed


def _draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check_one_set(room):
    """The mean of 1,000 numbers: s / sqrt(N), within what 256 squares of a normal law vary."""
    x = _draw(0, 1000, 1) * 3 + 50
    found = float(room.halving_error(lambda x: x.mean(0), x, repeats=256))
    assert found == pytest.approx(float(x.std()) / 1000**0.5, rel=3 / (2 * 256) ** 0.5)


def check_two_sets(room):
    """Variances of independent sets of different sizes add up."""
    a, b = _draw(1, 400, 1), 2 * _draw(2, 900, 1)
    found = float(room.halving_error(lambda a, b: a.mean(0) - b.mean(0), a, b, repeats=256))
    wanted = (float(a.var()) / 400 + float(b.var()) / 900) ** 0.5
    assert found == pytest.approx(wanted, rel=3 / (2 * 256) ** 0.5)


def check_by_hand(room):
    """Two items have one cut: half their difference; of three, one is left out."""
    x = torch.tensor([[1.0, 5], [4, 5]]).double()
    assert room.halving_error(lambda x: x.mean(0), x).tolist() == [1.5, 0.0]
    seen = []
    room.halving_error(lambda x: seen.append(len(x)) or x.mean(0), torch.zeros(3, 1), repeats=2)
    assert seen == [1] * 4


CHECKS = check_one_set, check_two_sets, check_by_hand


@pytest.mark.parametrize("check", CHECKS)
def test_errors(check):
    check(halves)


def test_the_same_items_have_the_same_error():
    x = _draw(3, 50, 2)
    first, second = (halves.halving_error(lambda x: x.mean(0), x) for _ in range(2))
    assert torch.equal(first, second)


WRONG = {
    "not halved": ("(one - two) / 2", "one - two"),
    "one half twice": ("cut[-(len(cut) // 2) :]", "cut[: len(cut) // 2]"),
    "halves that overlap": ("cut[-(len(cut) // 2) :]", "cut[-(len(cut) * 3 // 4) :]"),
    "no root": (".mean(0).sqrt()", ".mean(0)"),
    "summed": ("torch.stack(squares).mean(0)", "torch.stack(squares).sum(0)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_noticed(name):
    assert noticed(CHECKS, altered("nn.halves", *WRONG[name]))
