"""Memorisation: by hand, copies, repeats in the data, and errors that are those observed."""

import json

import pytest
import torch

from steerable.core.errors import UserError
from steerable.metrics import memorisation

from ..mutants import altered, noticed


def _draw(seed, n=200, dims=4):
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _away(*distances):
    """Items on a line at these distances from the training item 0, which has a far companion."""
    return torch.tensor(distances, dtype=torch.float64)[:, None]


TRAIN = _away(10_000.0, 0.0)


def _value(room, a, train, unseen):
    sets = [room.Memorisation() for _ in range(3)]
    for metric, rows in zip(sets, (a, train, unseen), strict=True):
        metric.update(rows)
    value = sets[0].value(*sets[1:])
    json.dumps(value, allow_nan=False)
    return value


def check_by_hand(room):
    """Samples at 1 to 10, unseen items at 2 to 22 in steps of two."""
    value = _value(room, _away(*range(10, 0, -1)), TRAIN, _away(*range(2, 23, 2)))
    assert value["memorisation"] == pytest.approx(5.5 / 12)
    # Of eleven unseen items the least, 2, stands for the first hundredth: 1 and 2 are as near.
    assert value["near_copies"] == pytest.approx(0.2)
    assert value["near_copies_unseen"] == pytest.approx(1 / 11)
    assert (value["n"], value["n_train"], value["n_unseen"]) == (10, 2, 11)
    assert value["worst"] == [
        {"sample": 10 - d, "train": 1, "distance": float(d)} for d in range(1, 11)
    ]


def check_percentile(room):
    """In the rising order of m, place 0.01 (m + 1): 2 of 199, half between 1 and 2 of 149."""
    samples = _away(*[0.5, 1.4, 1.6, 1.9, 2.0, 2.1, 3, 50, 198, 199])
    for m, share in ((199, 0.5), (149, 0.2)):
        value = _value(room, samples, TRAIN, _away(*range(1, m + 1)))
        assert value["near_copies"] == pytest.approx(share)


def check_fresh(room):
    """Means of ten repeats are 1 and 0.01, within three errors of the means."""
    train = _draw(0, 300)
    values = [_value(room, _draw(2 * i, 300), train, _draw(2 * i + 1, 300)) for i in range(1, 11)]
    for name, wanted in (("memorisation", 1.0), ("near_copies", 0.01)):
        mean = sum(value[name] for value in values) / 10
        error = sum(value[f"{name}_error"] ** 2 for value in values) ** 0.5 / 10
        assert abs(mean - wanted) < 3 * error


def check_copies(room):
    """All copies: 0 and 1; a third copies: the share says so and the list names their models."""
    train, unseen = _draw(1, 300), _draw(2)
    value = _value(room, train[:200], train, unseen)
    assert value["memorisation"] == 0.0 and value["near_copies"] == 1.0
    assert value["near_copies_error"] > 0
    assert len(value["worst"]) == 16
    assert value["worst"] == [{"sample": i, "train": i, "distance": 0.0} for i in range(16)]
    samples = torch.cat([_draw(3, 140), train[100:160]])
    value = _value(room, samples, train, unseen)
    assert value["near_copies"] == pytest.approx(0.31, abs=0.02)
    assert 0.5 < value["memorisation"] < 1
    assert value["worst"][0] == {"sample": 140, "train": 100, "distance": 0.0}


def check_near_copies(room):
    """Copies with a little noise are near copies, samples far from everything are not."""
    train = _draw(1, 300)
    value = _value(room, train[:200] + 0.01 * _draw(4), train, _draw(2))
    assert value["near_copies"] == 1.0 and value["memorisation"] < 0.1
    value = _value(room, _draw(5) + 20, train, _draw(2))
    assert value["near_copies"] == 0.0 and value["memorisation"] > 5


def check_repeats_in_the_data(room):
    """Five of 100 unseen items are training items: copies still count, and the floor says 0.05."""
    train = _draw(1, 300)
    unseen = torch.cat([_draw(2, 95), train[:5]])
    value = _value(room, train[:100], train, unseen)
    assert value["near_copies"] == 1.0 and value["memorisation"] == 0.0
    assert value["near_copies_unseen"] == pytest.approx(0.05)
    for same in (60, 50):  # more than half; half, where some draws of the bootstrap have more
        with pytest.raises(UserError) as caught:
            _value(room, _draw(3, 100), train, torch.cat([_draw(2, 100 - same), train[:same]]))
        assert caught.value.code == "E-EVAL" and f"{same} of 100" in caught.value.got


def check_errors(room):
    """The median of n distances spread over [0,1] is off by 1 / (2 sqrt(n)), of a median of 1/2."""
    even = (torch.arange(400)[:, None] + 0.5) / 400
    value = _value(room, even, TRAIN, torch.full((400, 1), 0.5))
    assert value["memorisation_error"] == pytest.approx(2 * 0.5 / 20, rel=0.25)
    both = _value(room, even, TRAIN, even)
    assert both["memorisation_error"] == pytest.approx(2 * 0.5 / 20 * 2**0.5, rel=0.25)
    # A quarter is nearer than every unseen item: binomial.
    value = _value(room, even, TRAIN, torch.full((400, 1), 0.25))
    assert value["near_copies_error"] == pytest.approx((0.25 * 0.75 / 400) ** 0.5, rel=0.25)


def check_refusals(room):
    """No training items, or too few of the others."""
    many, few = _draw(1), _draw(2, 9)
    for sets in ((few, many, many), (many, many, few), (many, many[:0], many), (few[:0],) * 3):
        with pytest.raises(UserError) as caught:
            _value(room, *sets)
        assert caught.value.code == "E-EVAL" and str(len(sets[0])) in caught.value.got
    assert _value(room, many[:10], many[:1], many[10:20])["n_train"] == 1


CHECKS = (check_by_hand, check_refusals, check_percentile, check_copies, check_near_copies)
CHECKS += (check_errors, check_repeats_in_the_data, check_fresh)


@pytest.mark.parametrize("check", CHECKS)
def test_memorisation(check):
    check(memorisation)


def test_order_and_parts_do_not_matter():
    a, items = _draw(0), torch.arange(200)
    whole, parts, other, train, unseen = (memorisation.Memorisation() for _ in range(5))
    whole.update(a, items)
    other.update(a[50:].flip(0), items[50:].flip(0))
    parts.update(a[:50], items[:50])
    other.merge(parts)
    train.update(_draw(1))
    unseen.update(_draw(2))
    assert other.value(train, unseen) == whole.value(train, unseen)


@pytest.mark.slow
@pytest.mark.parametrize("n", [100])
@pytest.mark.parametrize("dims", [2, 16])
def test_errors_are_the_observed_deviations(n, dims):
    train = _draw(9_999, 300, dims)
    sets = [(_draw(2 * i, n, dims), train, _draw(2 * i + 1, n, dims)) for i in range(100)]
    values = [_value(memorisation, *three) for three in sets]
    found = torch.tensor([value["memorisation"] for value in values]).double()
    errors = torch.tensor([value["memorisation_error"] for value in values]).double()
    assert 0.7 < float(errors.mean() / found.std()) < 1.6
    assert int(((found - found.mean()).abs() <= 2.6 * errors).sum()) >= 95
    # A share of 0.01 of 100 is 0, 1 or 2 items: its error may be too large, not too small.
    found = torch.tensor([value["near_copies"] for value in values]).double()
    errors = torch.tensor([value["near_copies_error"] for value in values]).double()
    assert float(errors.mean() / found.std()) > 0.7
    assert int(((found - 0.01).abs() <= 2.6 * errors).sum()) >= 95


WRONG = {
    "turned over": ("_median(mine) / _median(theirs)", "_median(theirs) / _median(mine)"),
    "against the samples": ("nearest(b, known, 1)", "nearest(b, a, 1)"),
    "against the unseen": ("= nearest(a, known, 1)", "= nearest(a, b, 1)"),
    "the other side of the percentile": ("NEAR * (n + 1)", "(1 - NEAR) * (n + 1)"),
    "place of the percentile": ("NEAR * (n + 1) - 1", "NEAR * (n - 1)"),
    "nearer than it only": ("(mine <= limit", "(mine < limit"),
    "farther than it": ("(mine <= limit", "(mine >= limit"),
    "least that is nearly the greatest": ("NEAR = 0.01", "NEAR = 0.1"),
    "lower median": ("rising[..., n // 2]) / 2", "rising[..., (n - 1) // 2]) / 2"),
    "unseen items not drawn": ("for x in (mine, theirs):", "for x in (mine, mine):"),
    "error of the mean of the draws": ("ratios.std()", "ratios.std() / REPEATS**0.5"),
    "no error at the ends": (".clamp(min=least**0.5)", ""),
    "farthest first": ("mine.argsort(stable=True)", "mine.argsort(stable=True, descending=True)"),
    "too many listed": ("WORST = 16", "WORST = 17"),
    "over nothing": ("if not bool(errors.isfinite().all())", "if False"),
    "no least number": ("min(len(a), len(b)) < LEAST", "min(len(a), len(b)) < 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_noticed(name):
    faults = RuntimeError, ValueError, pytest.fail.Exception
    assert noticed(CHECKS, altered("metrics.memorisation", *WRONG[name]), *faults)
