"""Precision and recall: by hand, against brute force, and errors that are those observed."""

import json

import pytest
import torch

from steerable.core.errors import UserError
from steerable.metrics import precision_recall

from ..mutants import altered, noticed


def _draw(seed, n=200, dims=3):
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _line(*places):
    return torch.tensor(places, dtype=torch.float64)[:, None]


def _value(room, a, b, **options):
    fake, real = room.PrecisionRecall(), room.PrecisionRecall()
    fake.update(a)
    real.update(b)
    value = fake.value(real, **options)
    json.dumps(value, allow_nan=False)
    return value


def check_by_hand(room):
    """Samples 0 to 3; the balls of real 0.4, 10, 11, 30 have the radii 9.6, 1, 1, 19."""
    value = _value(room, _line(0, 1, 2, 3), _line(0.4, 10, 11, 30), k=1)
    assert value["precision"] == 1.0 and value["recall"] == 0.25
    assert (value["n"], value["k"]) == (4, 1)
    # An item on the edge of a ball is in it: 1 is the neighbour that 0 and 2 reach to.
    assert _value(room, _line(1, 1, 1, 1), _line(0, 1, 2, 9), k=1)["recall"] == 0.25
    assert _value(room, _line(16, 16, 17, 17), _line(0, 1, 2, 9), k=1)["precision"] == 0.5


def check_brute_force(room):
    """Ball by ball, on a grid with copies and ties and on a plain law."""
    generator = torch.Generator().manual_seed(0)
    sets = [torch.randint(9, (2, 30, 2), generator=generator).double()]
    sets += [torch.stack([_draw(1, 30), _draw(2, 30) + 0.5])]
    for (a, b), k in ((pair, k) for pair in sets for k in (1, 3, 5)):
        shares = []
        for x, y in ((a, b), (b, a)):
            gaps = (y[:, None] - y).square().sum(2).sqrt()
            radius = [sorted(line)[k] for line in gaps.tolist()]  # the first is itself
            reach = (x[:, None] - y).square().sum(2).sqrt().tolist()
            held = [any(g <= r for g, r in zip(line, radius, strict=True)) for line in reach]
            shares.append(sum(held) / 30)
        value = _value(room, a, b, k=k)
        assert [value["precision"], value["recall"]] == pytest.approx(shares)


def check_default_is_five(room):
    a, b = _draw(1, 50), _draw(2, 50)
    assert _value(room, a, b) == _value(room, a, b, k=5)


def check_ends(room):
    """Apart: 0; copies: 1; the error is that of one more of each outcome."""
    a, b = _draw(0, 50), _draw(1, 50)
    apart, copies = _value(room, a + 50, b), _value(room, b, b)
    wanted = (1 / 52 * 51 / 52 / 50) ** 0.5
    for name in ("precision", "recall"):
        assert (apart[name], copies[name]) == (0.0, 1.0)
        assert apart[f"{name}_error"] == pytest.approx(wanted)


def check_lost_modes(room):
    """Two of four far modes drawn, and all of them well: recall is the share of real items there.

    The errors are then binomial: an item is in a drawn mode or not.
    """
    mode = torch.arange(200) % 4
    real = _draw(1) + 30 * mode[:, None]
    samples = _draw(2) + 30 * (mode % 2)[:, None]
    value = _value(room, samples, real)
    assert value["precision"] > 0.9
    assert 0.4 < value["recall"] <= 0.5
    assert value["recall_error"] == pytest.approx((0.25 / 200) ** 0.5, rel=0.5)


def check_collapse(room):
    """One place, or few items many times: inside what is real, and nearly nothing is reached."""
    for samples in (torch.zeros(60, 3).double(), _draw(0, 5).repeat(12, 1) * 0.3):
        value = _value(room, samples, _draw(1, 60))
        assert value["precision"] > 0.95 and value["recall"] < 0.05


def check_calibration(room, n=100, dims=2, repeats=20, shift=0.7):
    """Errors are the deviation that is observed: here the binomial one is half of it."""
    values = []
    for i in range(repeats):
        values.append(_value(room, _draw(2 * i, n, dims) + shift, _draw(2 * i + 1, n, dims)))
    for name in ("precision", "recall"):
        found = torch.tensor([value[name] for value in values]).double()
        errors = torch.tensor([value[f"{name}_error"] for value in values]).double()
        assert 0.7 < float(errors.mean() / found.std()) < 1.6
        assert (
            int(((found - found.mean()).abs() <= 2.6 * errors).sum())
            >= (0.95 if repeats > 50 else 0.9) * repeats
        )


def check_refusals(room):
    """Different numbers, or halves without k neighbours."""
    for a, b in ((_draw(0, 15), _draw(1, 16)), (_draw(0, 11), _draw(1, 11)), (_draw(0, 0),) * 2):
        with pytest.raises(UserError) as caught:
            _value(room, a, b)
        assert caught.value.code == "E-EVAL" and str(len(a)) in caught.value.got
    assert _value(room, _draw(0, 12), _draw(1, 12))["n"] == 12


CHECKS = (check_by_hand, check_refusals, check_default_is_five, check_ends, check_brute_force)
CHECKS += (check_lost_modes, check_collapse, check_calibration)


@pytest.mark.parametrize("check", CHECKS)
def test_precision_recall(check):
    check(precision_recall)


def test_order_and_parts_do_not_matter():
    a, items = _draw(0), torch.arange(200)
    whole, parts, other, real = (precision_recall.PrecisionRecall() for _ in range(4))
    whole.update(a, items)
    other.update(a[50:].flip(0), items[50:].flip(0))
    parts.update(a[:50], items[:50])
    other.merge(parts)
    real.update(_draw(1))
    assert other.value(real) == whole.value(real)
    there, back = whole.value(real), real.value(whole)
    assert (there["precision"], there["recall"]) == (back["recall"], back["precision"])


@pytest.mark.slow
@pytest.mark.parametrize("n", [100])
@pytest.mark.parametrize("dims", [2, 16])
def test_errors_are_the_observed_deviations(n, dims):
    check_calibration(precision_recall, n=n, dims=dims, repeats=100, shift=0.0)


WRONG = {
    "itself is a neighbour": ("nearest(b, b, k, itself=True)", "nearest(b, b, k)"),
    "k too small": ("[0][:, -1]", "[0][:, max(0, k - 2)]"),
    "another default": ("k: int = 5", "k: int = 3"),
    "kinds exchanged": ("[_within(a, b, k), _within(b, a, k)]", "[_within(b, a, k)] * 2"),
    "precision for recall": ("[_within(a, b, k), _within(b, a, k)]", "[_within(a, b, k)] * 2"),
    "turned round": (
        "[_within(a, b, k), _within(b, a, k)]",
        "[_within(b, a, k), _within(a, b, k)]",
    ),
    "balls of the other kind": ("radius = nearest(b, b,", "radius = nearest(a, a,"),
    "in two balls": ("radius) > 0)", "radius) > 1)"),
    "binomial error": ("torch.maximum(halving_error(measure, a, b), ", "("),
    "no error at the ends": ("(n * values + 1) / (n + 2)", "values"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_noticed(name):
    faults = RuntimeError, UserError, pytest.fail.Exception
    assert noticed(CHECKS, altered("metrics.precision_recall", *WRONG[name]), *faults)
