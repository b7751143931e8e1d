"""The kernel distance against its definition and closed form; its error against exact variances."""

import itertools
import json
import math

import numpy as np
import pytest
import torch

from steerable.core.errors import UserError
from steerable.metrics import kid

from ..mutants import altered

F64 = torch.float64


def _set(rows, items=None, room=kid):
    made = room.Kid()
    made.update(rows, items)
    return made


def _value(x, y, room=kid):
    return _set(x, room=room).value(_set(y, room=room))


def _draw(law, n, generator):
    """n items of three laws: flat, of one direction, and like features: sparse and uneven."""
    if law == "flat":
        return torch.randn(n, 12, generator=generator, dtype=F64)
    if law == "narrow":
        return 2 * torch.randn(n, 1, generator=generator, dtype=F64)
    kind = torch.randint(10, (n,), generator=generator)
    noise = torch.randn(n, 20, generator=generator, dtype=F64)
    return (3 * torch.eye(10, dtype=F64)[kind].repeat(1, 2) + noise).relu()


def _many(law, n, m, repeats, move=0.0):
    """Values and errors of repeats, the first set moved by so much."""
    generator = torch.Generator().manual_seed(n)
    drawn = [
        _value(_draw(law, n, generator) + move, _draw(law, m, generator)) for _ in range(repeats)
    ]
    return torch.tensor([[v["kid"], v["kid_error"]] for v in drawn], dtype=F64).T


def _expected(a, cov_a, b, cov_b):
    """E (x.y/d + 1)^3 for independent Gaussian x and y, from their moment tensors.

    E (x.y)^p is the product, summed over all indices, of the p-th moment tensors, and for Gaussians
    E x_i x_j x_k = a_i a_j a_k + a_i S_jk + a_j S_ik + a_k S_ij.
    """

    def moments(mean, cov):
        third = np.einsum("i,jk->ijk", mean, cov)
        third = third + third.transpose(1, 0, 2) + third.transpose(1, 2, 0)
        return mean, cov + np.outer(mean, mean), third + np.einsum("i,j,k", mean, mean, mean)

    pairs = zip(moments(a, cov_a), moments(b, cov_b), strict=True)
    first, second, third = (float((p * q).sum()) for p, q in pairs)
    d = len(a)
    return 1 + 3 * first / d + 3 * second / d**2 + third / d**3


def _closed_form(a, cov_a, b, cov_b):
    within = _expected(a, cov_a, a, cov_a) + _expected(b, cov_b, b, cov_b)
    return within - 2 * _expected(a, cov_a, b, cov_b)


def check_definition(room):
    """Sums over all pairs, written out."""
    x, y = np.random.default_rng(0).normal(size=(2, 7, 3))
    y = y[:5] + 0.5

    def k(p, q):
        return (np.dot(p, q) / 3 + 1) ** 3

    own = [
        sum(k(p, q) for p, q in itertools.permutations(s, 2)) / (len(s) * (len(s) - 1))
        for s in (x, y)
    ]
    cross = sum(k(p, q) for p in x for q in y) / 35
    made = _value(torch.from_numpy(x), torch.from_numpy(y), room)
    assert made["kid"] == pytest.approx(sum(own) - 2 * cross, rel=1e-12)
    assert (made["n"], made["n_real"]) == (7, 5)


def check_closed_form(room):
    """Points m +- sqrt(d) s_i e_i have the moments of a Gaussian up to the third, which is all that
    the kernel sees; n copies of them differ from the law by the pairs of an item with itself."""
    copies, d = 40, 4
    means = np.array([[0.2, -1.0, 0.5, 0.0], [1.0, 0.3, 0.5, -0.4]])
    stds = np.array([[1.0, 0.5, 2.0, 0.1], [0.7, 1.5, 1.0, 1.0]])
    sets, covs, wanted = [], [], 0.0
    for mean, std in zip(means, stds, strict=True):
        steps = d**0.5 * np.diag(std)
        points = np.tile(np.concatenate([mean + steps, mean - steps]), (copies, 1))
        n, cov = len(points), np.diag(std**2)
        itself = ((points**2).sum(1) / d + 1) ** 3
        law = _expected(mean, cov, mean, cov)
        wanted += (n**2 * law - itself.sum()) / (n * (n - 1))
        sets.append(torch.from_numpy(points))
        covs.append(cov)
    wanted -= 2 * _expected(means[0], covs[0], means[1], covs[1])
    assert _value(*sets, room)["kid"] == pytest.approx(wanted, rel=1e-11)


def _samples(points, chances, size):
    """All samples of a law on a few points, but for their order, each with its probability."""
    for index in itertools.combinations_with_replacement(range(len(points)), size):
        counts = np.bincount(index, minlength=len(points))
        orders = math.factorial(size) / math.prod(map(math.factorial, counts.tolist()))
        yield points[list(index)], orders * float((np.array(chances) ** counts).prod())


def check_error(room):
    """Every sample of two small laws: mean and variance of the distance are sums, no estimates."""
    points = torch.randn(5, 2, generator=torch.Generator().manual_seed(3), dtype=F64)
    one, two = _samples(points[:3], [0.5, 0.3, 0.2], 4), _samples(points[3:], [0.6, 0.4], 5)
    table = []
    for (x, p), (y, q) in itertools.product(one, two):
        sums = room._sums(x, None, 0.0), room._sums(y, None, 0.0), room._sums(x, y, 0.0)
        distance = sums[0].total / 12 + sums[1].total / 20 - sums[2].total / 10
        table.append((p * q, distance, *room._variance(*sums)))
    chance, distance, first, second = torch.tensor(table, dtype=F64).T
    assert float(chance.sum()) == pytest.approx(1.0)
    mean = (chance * distance).sum()
    variance = float((chance * (distance - mean).square()).sum())
    assert float((chance * (first + second)).sum()) == pytest.approx(variance, rel=1e-10)


CHECKS = {"definition": check_definition, "closed form": check_closed_form, "error": check_error}

WRONG = {
    "the diagonal is counted": ("definition", "part.diagonal(start).zero_()", "pass"),
    "a biased mean": ("definition", "xx.total / (n * (n - 1)) +", "xx.total / (n * n) +"),
    "second power": ("closed form", ".pow_(3)", ".pow_(2)"),
    "not over d": ("closed form", ".div_(a.shape[1])", ""),
    "no one added": ("closed form", ".add_(1.0)", ""),
    "cross term once": ("closed form", "- 2 * xy.total", "- xy.total"),
    "cross term four times": ("closed form", "- 2 * xy.total", "- 4 * xy.total"),
    "cross term over n n": ("definition", "xy.total / (n * m)", "xy.total / (n * n)"),
    "no level in the diagonal's place": (
        "definition",
        "part.diagonal(start).zero_()",
        "part.diagonal(start).sub_(level)",
    ),
    "second order counted twice": ("error", "- v_xx / (n - 2) - v_xy / m", ""),
    "first order of one set only": ("error", "first += 4 / m", "first += 0 / m"),
    "n - 1 for the witness": ("error", "own / (len(own) - 2)", "own / (len(own) - 1)"),
    "n - 1 for n - 3": ("error", "/ (n * (n - 3))", "/ (n * (n - 1))"),
    "residual over all cells": ("error", "left / ((n - 1) * (m - 1))", "left / (n * m)"),
    "cross remainder twice": ("error", "+ 4 * v_xy", "+ 8 * v_xy"),
    "rows for columns": ("error", "_witness(yy.rows, xy.columns, n)", "_witness(yy.rows, 0, n)"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_mathematics(name):
    CHECKS[name](kid)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_mathematics_is_noticed(name):
    check, *edits = WRONG[name]
    with pytest.raises(AssertionError):
        CHECKS[check](altered("metrics.kid", *edits))


def test_chunks_are_invisible():
    generator = torch.Generator().manual_seed(1)
    x, y = _draw("features", 45, generator), _draw("features", 61, generator) + 0.2
    chunked = _value(x, y, altered("metrics.kid", "CHUNK = 512", "CHUNK = 7"))
    assert chunked == pytest.approx(_value(x, y), rel=1e-10)


def test_sampled_gaussians_have_the_closed_form_within_two_percent():
    generator = torch.Generator().manual_seed(2)
    a, b = np.zeros(3), np.array([2.0, -2.0, 2.0])
    cov_a, cov_b = np.diag([0.25, 0.06, 0.12]), np.diag([0.12, 0.25, 0.06])
    x, y = (
        torch.from_numpy(mean)
        + torch.randn(3000, 3, generator=generator, dtype=F64) * torch.from_numpy(cov).diag().sqrt()
        for mean, cov in ((a, cov_a), (b, cov_b))
    )
    wanted, value = _closed_form(a, cov_a, b, cov_b), _value(x, y)
    assert value["kid_error"] < 0.01 * wanted  # two errors are two percent
    assert value["kid"] == pytest.approx(wanted, rel=0.02)
    assert abs(value["kid"] - wanted) < 2.6 * value["kid_error"]


@pytest.mark.parametrize("law", ["flat", "narrow", "features"])
@pytest.mark.parametrize(("n", "m"), [(100, 100), (40, 160)])
def test_equal_laws_are_at_zero_and_the_error_says_how_near(law, n, m):
    distance, error = _many(law, n, m, 100)
    assert abs(distance.mean()) < 3 * distance.std() / 10
    assert int((distance.abs() < 2.6 * error).sum()) >= 95
    assert 0.7 < float(error.mean() / distance.std()) < 1.6


def test_the_error_falls_as_one_over_n_for_equal_laws():
    distance, error = _many("features", 500, 500, 100)
    assert int((distance.abs() < 2.6 * error).sum()) >= 95
    assert 0.7 < float(error.mean() / distance.std()) < 1.6
    assert float(_many("features", 100, 100, 100)[1].mean() / error.mean()) == pytest.approx(5, 0.2)


@pytest.mark.parametrize(("n", "m"), [(60, 60), (40, 160)])
def test_the_error_of_laws_apart(n, m):
    distance, error = _many("flat", n, m, 150, move=0.5)
    wanted = _closed_form(np.full(12, 0.5), np.eye(12), np.zeros(12), np.eye(12))
    assert abs(distance.mean() - wanted) < 3 * distance.std() / 150**0.5
    # A share of 0.99 in 150; below 143 once in a thousand.
    assert int(((distance - wanted).abs() < 2.6 * error).sum()) >= 143
    assert 0.8 < float(error.mean() / distance.std()) < 1.25


def test_a_set_that_is_the_other_one_is_below_zero():
    x = _draw("features", 200, torch.Generator().manual_seed(4))
    value = _value(x, x)
    assert value["kid"] < -2.6 * value["kid_error"]


def test_one_picture_again_and_again():
    """No variance in a set does no harm; and equal constants are at distance zero exactly."""
    generator = torch.Generator().manual_seed(5)
    same, real = torch.full((50, 20), 3.7, dtype=F64), _draw("features", 50, generator)
    value = _value(same, same)
    assert value["kid"] == pytest.approx(0, abs=1e-12) and value["kid_error"] < 1e-10
    value = _value(same, real)
    assert value["kid"] > 10 * value["kid_error"] > 0


def test_large_features_lose_no_figures():
    """What all entries of the kernel matrix share is taken out before squares are summed."""
    generator = torch.Generator().manual_seed(6)
    x, y = (3e3 + 0.05 * torch.randn(80, 5, generator=generator, dtype=F64) for _ in range(2))
    k = [[(float(p @ q) / 5 + 1) ** 3 for q in y] for p in x]
    left = np.array(k) - np.mean(k)
    left = left - left.mean(0) - left.mean(1)[:, None]
    exact = float((left**2).sum() / 79**2)
    middle = (x.mean(0) + y.mean(0)).div(2)[None]
    level = float(kid._kernel(middle, middle))
    assert kid._remainder_across(kid._sums(x, y, level)) == pytest.approx(exact, rel=1e-2)
    assert kid._remainder_across(kid._sums(x, y, 0.0)) != pytest.approx(exact, rel=0.5)


def test_merge_equals_one_pass_in_every_order():
    generator = torch.Generator().manual_seed(7)
    rows, real = _draw("features", 101, generator), _set(_draw("features", 80, generator))
    items = torch.arange(101)
    whole = _set(rows, items).value(real)
    assert json.loads(json.dumps(whole)) == whole
    shuffled = torch.randperm(101, generator=generator)
    parts = kid.Kid()
    for piece in shuffled.split(17):
        parts.merge(_set(rows[piece], items[piece]))
    parts.merge(kid.Kid())
    assert parts.value(real) == whole
    turned = kid.Kid()
    for piece in shuffled.flip(0).split(40):
        turned.update(rows[piece], items[piece])
    assert turned.value(real) == whole


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_too_few_items_are_refused_on_either_side(n):
    enough = _set(torch.rand(4, 3))
    few = _set(torch.rand(n, 3))
    for a, b in ((few, enough), (enough, few)):
        with pytest.raises(UserError, match=f"{n}.* 4 or more") as caught:
            a.value(b)
        assert caught.value.code == "E-EVAL"
    assert enough.value(_set(torch.rand(4, 3)))["n"] == 4


def test_numbers_that_are_none_are_refused():
    rows = torch.rand(4, 3)
    rows[2, 1] = torch.nan
    with pytest.raises(UserError) as caught:
        _set(rows)
    assert caught.value.code == "E-NUM"
