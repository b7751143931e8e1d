"""Two-sample accuracy: by hand, against brute force, and an error that is the one observed."""

import json

import pytest
import torch

from steerable.core.errors import UserError
from steerable.metrics import two_sample

from ..mutants import altered, noticed


def _draw(seed, n=200, dims=4):
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _line(*places):
    return torch.tensor(places, dtype=torch.float64)[:, None]


def _value(room, a, b):
    fake, real = room.TwoSample(), room.TwoSample()
    fake.update(a)
    real.update(b)
    value = fake.value(real)
    json.dumps(value, allow_nan=False)
    return value


def check_by_hand(room):
    """Samples 0, 1, 2 and real items 0.4, 10, 11: neighbours and error can be read off."""
    value = _value(room, _line(0, 1, 2), _line(0.4, 10, 11))
    # 0 and 1 -> 0.4 and 0.4 -> 0 (other), 2 -> 1, 10 -> 11 and 11 -> 10 (own).
    assert value["two_sample"] == pytest.approx(3 / 6) and value["n"] == 3
    # Residuals -1 -1 1 -1 1 1, halved; around 0: -2, 1: 0, 2: 1, 0.4: -3, 10: 2, 11: 2, halved:
    # squares add up to 22/4. Less (1 + 1) / 4 for each of the four that are each other's
    # neighbours and 1 / 4 for the other two: 12/4.
    assert value["two_sample_error"] == pytest.approx(3**0.5 / 6)


def check_ties(room):
    """As near to one kind as to the other is one half."""
    value = _value(room, _line(0, 2), _line(-2, 10))
    assert value["two_sample"] == pytest.approx((0.5 + 1 + 0 + 0) / 4)
    one = torch.ones(6, 3)
    assert _value(room, one, one)["two_sample"] == 0.5


def check_brute_force(room):
    """Places of a grid, with copies and ties, neighbour by neighbour."""
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(7, (24, 2), generator=generator).double()
        votes = []
        for i in range(24):
            gaps = [(float((rows[i] - rows[j]).norm()), j // 12) for j in range(24) if j != i]
            least = min(gaps)[0]
            kinds = {kind for gap, kind in gaps if gap == least}
            votes.append(0.5 if len(kinds) == 2 else float(i // 12 in kinds))
        assert _value(room, rows[:12], rows[12:])["two_sample"] == pytest.approx(sum(votes) / 24)


def check_error_by_brute_force(room):
    """All pairs of items that have one in common, where kinds are apart in part and where not."""
    for seed, shift in ((0, 0.0), (2, 1.0), (4, 3.0)):
        a, b = _draw(seed, 15, 2) + shift, _draw(seed + 1, 15, 2)
        gaps = torch.cdist(torch.cat([a, b]), torch.cat([a, b])).fill_diagonal_(torch.inf)
        at = gaps.argmin(1).tolist()
        votes = [float(i // 15 == at[i] // 15) for i in range(30)]
        rest = [vote - sum(votes) / 30 for vote in votes]
        touch = [[i, j] for i in range(30) for j in range(30) if {i, at[i]} & {j, at[j]}]
        pairs = sum(rest[i] * rest[j] for i, j in touch)
        share, mutual = (sum(votes) + 1) / 32, sum(at[at[i]] == i for i in range(30)) / 30
        wanted = max(pairs, 30 * share * (1 - share) * (1 + mutual)) ** 0.5 / 30
        assert _value(room, a, b)["two_sample_error"] == pytest.approx(wanted)


def check_ends(room):
    """Apart: 1; copies: 0; and the error is that of one more of each outcome, not 0."""
    apart = _value(room, _draw(0) + 50, _draw(1))
    copies = _value(room, _draw(1) + 1e-9, _draw(1))
    assert (apart["two_sample"], copies["two_sample"]) == (1.0, 0.0)
    share = 1 / 402  # everybody and his copy are each other's neighbours: twice the variance
    wanted = (share * (1 - share) * 2 / 400) ** 0.5
    assert copies["two_sample_error"] == pytest.approx(wanted)
    assert 0.7 * wanted < apart["two_sample_error"] <= wanted


def check_calibration(room, n=40, repeats=60):
    """For equal laws, where everything is known, the error is the deviation that is observed."""
    pairs = [(_draw(2 * i, n, 2), _draw(2 * i + 1, n, 2)) for i in range(100, 100 + repeats)]
    values = [_value(room, *pair) for pair in pairs]
    found = torch.tensor([value["two_sample"] for value in values]).double()
    errors = torch.tensor([value["two_sample_error"] for value in values]).double()
    assert 0.8 < float(errors.mean() / found.std()) < 1.25
    assert int(((found - 0.5).abs() <= 2.6 * errors).sum()) >= 0.95 * repeats
    assert float(found.mean()) == pytest.approx((n - 1) / (2 * n - 1), abs=3 * 0.06 / repeats**0.5)


def check_refusals(room):
    """Different numbers, or nothing to be near to."""
    for a, b in ((_draw(0, 5), _draw(1, 6)), (_draw(0, 1), _draw(1, 1)), (_draw(0, 0),) * 2):
        with pytest.raises(UserError) as caught:
            _value(room, a, b)
        assert caught.value.code == "E-EVAL" and str(len(a)) in caught.value.got


CHECKS = (check_by_hand, check_refusals, check_ties, check_brute_force, check_ends)
CHECKS += (check_error_by_brute_force, check_calibration)


@pytest.mark.parametrize("check", CHECKS)
def test_two_sample(check):
    check(two_sample)


def test_repeated_and_collapsed_samples_are_told_apart():
    """Copies of each other are near to each other."""
    for samples in (_draw(0, 20).repeat(10, 1), _draw(0).mean(0).expand(200, -1)):
        value = _value(two_sample, samples, _draw(1))
        assert value["two_sample"] - 5 * value["two_sample_error"] > 0.5


def test_order_and_parts_do_not_matter():
    a, b, items = _draw(0), _draw(1), torch.arange(200)
    whole, parts, other = (two_sample.TwoSample() for _ in range(3))
    whole.update(a, items)
    other.update(a[50:].flip(0), items[50:].flip(0))
    parts.update(a[:50], items[:50])
    other.merge(parts)
    real = two_sample.TwoSample()
    real.update(b)
    assert other.value(real) == whole.value(real)
    back = real.value(whole)
    assert back["two_sample"] == pytest.approx(whole.value(real)["two_sample"])


@pytest.mark.slow
@pytest.mark.parametrize("n", [100])
@pytest.mark.parametrize("dims", [2, 16])
def test_error_is_the_observed_deviation(n, dims):
    pairs = [(_draw(2 * i, n, dims), _draw(2 * i + 1, n, dims)) for i in range(100)]
    values = [_value(two_sample, *pair) for pair in pairs]
    found = torch.tensor([value["two_sample"] for value in values]).double()
    errors = torch.tensor([value["two_sample_error"] for value in values]).double()
    assert 0.7 < float(errors.mean() / found.std()) < 1.6
    assert int(((found - 0.5).abs() <= 2.6 * errors).sum()) >= 95


WRONG = {
    "a sample is its own neighbour": ("nearest(a, a, 1, itself=True)", "nearest(a, a, 1)"),
    "a real item is its own": ("nearest(b, b, 1, itself=True)", "nearest(b, b, 1)"),
    "second neighbours": ("nearest(a, b, 1)", "[x[:, 1:2] for x in nearest(a, b, 2)]"),
    "the other kind": ("(own < other)", "(own > other)"),
    "ties for nobody": ("0.5 * (own == other)", "0 * (own == other)"),
    "samples only": ("torch.cat([aa, bb])[:, 0]", "torch.cat([aa, aa])[:, 0]"),
    "binomial error": ("max(least, pairs) ** 0.5", "float(rest.square().sum()) ** 0.5"),
    "kinds confused": ("torch.cat([aa_at, bb_at + n])", "torch.cat([aa_at, bb_at])"),
    "mutual counted twice": ("(rest.square() * (1 + mutual))", "rest.square()"),
    "no error at the ends": ("float(votes.sum() + 1) / (n + 2)", "float(votes.mean())"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_noticed(name):
    faults = RuntimeError, IndexError, UserError, pytest.fail.Exception
    assert noticed(CHECKS, altered("metrics.two_sample", *WRONG[name]), *faults)
