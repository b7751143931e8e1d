"""Density and coverage: by hand, against brute force, and errors that are those observed."""

import json

import pytest
import torch

from steerable.core.errors import UserError
from steerable.metrics import density_coverage

from ..mutants import altered, noticed


def _draw(seed, n=200, dims=3):
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _line(*places):
    return torch.tensor(places, dtype=torch.float64)[:, None]


def _value(room, a, b, **options):
    fake, real = room.DensityCoverage(), room.DensityCoverage()
    fake.update(a)
    real.update(b)
    value = fake.value(real, **options)
    json.dumps(value, allow_nan=False)
    return value


def check_by_hand(room):
    """The balls of real 0.4, 10, 11, 30 have the radii 9.6, 1, 1, 19."""
    value = _value(room, _line(0, 1, 2, 3), _line(0.4, 10, 11, 30), k=1)
    assert value["density"] == 1.0 and value["coverage"] == 0.25
    assert (value["n"], value["k"]) == (4, 1)
    # 10.5 is in two balls, 20 in one, -20 in none, 0 in one.
    value = _value(room, _line(10.5, 20, -20, 0), _line(0.4, 10, 11, 30), k=1)
    assert value["density"] == 1.0 and value["coverage"] == 1.0
    # On the edges of [-1,1], [0,2], [1,3] and [2,16] around 0, 1, 2, 9: two balls, three, one.
    value = _value(room, _line(1, 2, 16, 50), _line(0, 1, 2, 9), k=1)
    assert value["density"] == pytest.approx((3 + 3 + 1 + 0) / 4) and value["coverage"] == 1.0


def check_brute_force(room):
    """Ball by ball, on a grid with copies and ties and on a plain law."""
    generator = torch.Generator().manual_seed(0)
    sets = [torch.randint(9, (2, 30, 2), generator=generator).double()]
    sets += [torch.stack([_draw(1, 30), _draw(2, 30) + 0.5])]
    for (a, b), k in ((pair, k) for pair in sets for k in (1, 3, 5)):
        gaps = (b[:, None] - b).square().sum(2).sqrt()
        radius = [sorted(line)[k] for line in gaps.tolist()]  # the first is itself
        reach = (b[:, None] - a).square().sum(2).sqrt().tolist()
        counts = [sum(g <= r for g in line) for line, r in zip(reach, radius, strict=True)]
        value = _value(room, a, b, k=k)
        assert value["density"] == pytest.approx(sum(counts) / 30 / k)
        assert value["coverage"] == pytest.approx(sum(count > 0 for count in counts) / 30)


def check_copies(room):
    """Every item is in its own ball and in those of k others on average: (k + 1) / k."""
    value = _value(room, _draw(1, 50), _draw(1, 50))
    assert value["density"] == pytest.approx(6 / 5) and value["coverage"] == 1.0


def check_equal_laws(room):
    """1 - 2^-k, and a density of 1: means of ten repeats, within three errors of those."""
    values = [_value(room, _draw(2 * i, 100), _draw(2 * i + 1, 100), k=2) for i in range(50, 60)]
    for name, wanted in (("density", 1.0), ("coverage", 0.75)):
        mean = sum(value[name] for value in values) / 10
        error = sum(value[f"{name}_error"] ** 2 for value in values) ** 0.5 / 10
        assert abs(mean - wanted) < 3 * error


def check_ends(room):
    """Apart: 0, with the error of one more of each outcome."""
    value = _value(room, _draw(0, 50) + 50, _draw(1, 50))
    wanted = (1 / 52 * 51 / 52 / 50) ** 0.5
    for name in ("density", "coverage"):
        assert value[name] == 0.0 and value[f"{name}_error"] == pytest.approx(wanted)


def check_lost_modes(room):
    """Two of four far modes: coverage is halved, density is not: each mode has twice the items."""
    mode = torch.arange(200) % 4
    value = _value(
        room, _draw(2) + 30 * (mode % 2)[:, None], _draw(1) + 30 * mode[:, None].double()
    )
    assert 0.45 < value["coverage"] <= 0.5 and value["density"] > 0.7


def check_collapse(room):
    """One place, or five places many times: most of the coverage is lost."""
    for samples in (torch.zeros(60, 3).double(), _draw(0, 5).repeat(12, 1) * 0.3):
        assert _value(room, samples, _draw(1, 60))["coverage"] < 0.5


def check_calibration(room, n=100, dims=2, repeats=20, shift=0.7):
    """Errors are the deviation that is observed: here the binomial one is half of it."""
    values = []
    for i in range(repeats):
        values.append(_value(room, _draw(2 * i, n, dims) + shift, _draw(2 * i + 1, n, dims)))
    for name in ("density", "coverage"):
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
    assert _value(room, _draw(0, 12), _draw(1, 12))["k"] == 5


CHECKS = (check_by_hand, check_refusals, check_copies, check_ends, check_brute_force)
CHECKS += (check_lost_modes, check_collapse, check_equal_laws, check_calibration)


@pytest.mark.parametrize("check", CHECKS)
def test_density_coverage(check):
    check(density_coverage)


def test_order_and_parts_do_not_matter():
    a, items = _draw(0), torch.arange(200)
    whole, parts, other, real = (density_coverage.DensityCoverage() for _ in range(4))
    whole.update(a, items)
    other.update(a[50:].flip(0), items[50:].flip(0))
    parts.update(a[:50], items[:50])
    other.merge(parts)
    real.update(_draw(1))
    assert other.value(real) == whole.value(real)


@pytest.mark.slow
@pytest.mark.parametrize("n", [100])
@pytest.mark.parametrize("dims", [2, 16])
def test_errors_are_the_observed_deviations(n, dims):
    check_calibration(density_coverage, n=n, dims=dims, repeats=100, shift=0.0)


WRONG = {
    "itself is a neighbour": ("nearest(b, b, k, itself=True)", "nearest(b, b, k)"),
    "k too small": ("[0][:, -1]", "[0][:, max(0, k - 2)]"),
    "another default": ("k: int = 5", "k: int = 3"),
    "kinds exchanged": ("def measure(a: Tensor, b: Tensor)", "def measure(b: Tensor, a: Tensor)"),
    "samples covered": ("nearest(b, a, 1)", "nearest(a, b, 1)"),
    "a second sample near": ("nearest(b, a, 1)[0][:, 0]", "nearest(b, a, 2)[0][:, 1]"),
    "edge outside": ("near <= radius", "near < radius"),
    "not over k": ("counts.mean() / k", "counts.mean()"),
    "over k + 1": ("counts.mean() / k", "counts.mean() / (k + 1)"),
    "binomial error": ("torch.maximum(halving_error(measure, a, b)[:2], ", "("),
    "no error at the ends": ("(n * torch.stack([within, coverage]) + 1) / (n + 2)", "coverage"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_noticed(name):
    faults = RuntimeError, UserError, pytest.fail.Exception
    assert noticed(CHECKS, altered("metrics.density_coverage", *WRONG[name]), *faults)
