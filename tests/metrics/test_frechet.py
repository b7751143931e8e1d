import numpy as np
import pytest
import scipy.linalg
import torch

from steerable.core.errors import UserError
from steerable.metrics import frechet
from steerable.metrics.frechet import Frechet, floor, limit, redrawn
from steerable.nn.rows import Rows

from ..mutants import altered


def seen(features):
    metric = Frechet()
    metric.update(features)
    return metric


def exact_sample(mean, covariance, n, seed):
    """n features whose sample mean and unbiased covariance are exactly these."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(n, len(mean), generator=generator, dtype=torch.float64)
    raw = raw - raw.mean(0)
    whiten = torch.linalg.inv(torch.linalg.cholesky(raw.T @ raw / (n - 1)))
    return raw @ whiten.T @ torch.linalg.cholesky(covariance).T + mean


def scipy_distance(a, b):
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(s1 @ s2).real
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(s1 + s2 - 2 * root)


def test_diagonal_gaussians_have_the_closed_form():
    m1, m2 = torch.tensor([[0.0, 1, -2], [0.5, 1, 3]], dtype=torch.float64)
    v1, v2 = torch.tensor([[1.0, 4, 0.25], [9, 1, 0.25]], dtype=torch.float64)
    a = exact_sample(m1, torch.diag(v1), 50, 0)
    b = exact_sample(m2, torch.diag(v2), 70, 1)
    wanted = float(((m1 - m2) ** 2).sum() + ((v1.sqrt() - v2.sqrt()) ** 2).sum())
    assert seen(a).distance(seen(b)) == pytest.approx(wanted, abs=1e-9)


def test_rotated_gaussians_have_the_closed_form():
    # A common rotation changes nothing; a turn between the two does, and in two dimensions
    # Tr (S1 S2)^{1/2} = sqrt(Tr(S1 S2) + 2 sqrt(det S1 det S2)).
    zero = torch.zeros(2, dtype=torch.float64)
    s1 = torch.diag(torch.tensor([4.0, 1.0], dtype=torch.float64))
    angle = torch.tensor(0.6, dtype=torch.float64)
    c, s = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([c, -s]), torch.stack([s, c])])
    s2 = turn @ torch.diag(torch.tensor([9.0, 0.5], dtype=torch.float64)) @ turn.T
    mixed = ((s1 @ s2).trace() + 2 * (s1.det() * s2.det()).sqrt()).sqrt()
    wanted = float(s1.trace() + s2.trace() - 2 * mixed)
    a, b = exact_sample(zero, s1, 40, 2), exact_sample(zero, s2, 40, 3)
    assert seen(a).distance(seen(b)) == pytest.approx(wanted, abs=1e-9)
    assert seen(a @ turn).distance(seen(b @ turn)) == pytest.approx(wanted, abs=1e-9)


def test_agrees_with_the_matrix_root_of_scipy():
    generator = torch.Generator().manual_seed(4)
    mixing = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    a = torch.randn(200, 12, generator=generator, dtype=torch.float64) @ mixing
    b = torch.randn(300, 12, generator=generator, dtype=torch.float64) @ mixing.T + 0.3
    wanted = scipy_distance(a.numpy(), b.numpy())
    assert seen(a).distance(seen(b)) == pytest.approx(wanted, rel=1e-9)
    assert seen(b).distance(seen(a)) == pytest.approx(wanted, rel=1e-9)


def test_merge_equals_one_pass():
    generator = torch.Generator().manual_seed(5)
    a = torch.rand(101, 9, generator=generator)
    b = torch.rand(80, 9, generator=generator)
    parts = Frechet()
    for piece in a.split(17):
        parts.merge(seen(piece))
    parts.merge(Frechet())
    assert parts.n == 101
    assert parts.distance(seen(b)) == pytest.approx(seen(a).distance(seen(b)), abs=1e-9)


@pytest.mark.parametrize("rank", [1, 3, 16])
def test_identical_sets_are_at_distance_zero(rank):
    # Also with fewer independent directions than features, and features that never fire.
    generator = torch.Generator().manual_seed(6)
    a = torch.randn(64, rank, generator=generator, dtype=torch.float64)
    a = a @ torch.randn(rank, 16, generator=generator, dtype=torch.float64)
    a[:, 5] = 0.0
    assert seen(a).distance(seen(a)) == pytest.approx(0.0, abs=1e-10)
    # Same moments in another order of summation.
    assert seen(a).distance(seen(a.flip(0))) == pytest.approx(0.0, abs=1e-7)


def test_fewer_items_than_features():
    # Two sets in orthogonal planes: nothing is shared, so all variances add up.
    generator = torch.Generator().manual_seed(7)
    a, b = torch.zeros(5, 40, dtype=torch.float64), torch.zeros(5, 40, dtype=torch.float64)
    a[:, :3] = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    b[:, 3:6] = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    a, b = a - a.mean(0), b - b.mean(0)
    wanted = float(a.var(0).sum() + b.var(0).sum())
    assert seen(a).distance(seen(b)) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_items_are_refused(n):
    many, few = seen(torch.rand(4, 3)), seen(torch.rand(n, 3))
    with pytest.raises(UserError) as caught:
        many.distance(few)
    assert caught.value.code == "E-EVAL"
    with pytest.raises(UserError):
        Frechet().value()


def test_value_tells_the_moments():
    a = exact_sample(torch.tensor([3.0, 4.0]).double(), torch.eye(2).double() * 2, 30, 8)
    value = seen(a).value()
    assert value["n"] == 30 and value["features"] == 2
    assert value["mean_norm"] == pytest.approx(5.0) and value["variance"] == pytest.approx(4.0)


def test_floor_falls_with_n_and_says_the_n_it_used():
    features = torch.randn(400, 8, generator=torch.Generator().manual_seed(9))
    small, large, most = (floor(features, n, seed=1) for n in (25, 100, 1000))
    assert (small.n, large.n, most.n) == (25, 100, 200)
    assert small.value > large.value > most.value > 0
    # One over n, the law of the bias.
    assert small.value / large.value == pytest.approx(4.0, rel=0.35)
    assert floor(features, 25, seed=1) == small
    with pytest.raises(UserError):
        floor(features[:3], 2)


def normal(n, generator, *, features=4, move=0.0):
    """Gaussian features with variances 1, 1/2, 1/3 ..., moved by as many of their deviations."""
    std = torch.arange(1, features + 1, dtype=torch.float64) ** -0.5
    return (torch.randn(n, features, generator=generator, dtype=torch.float64) + move) * std


def moved(features, by):
    """The distance of `normal` from itself, moved."""
    return by**2 * sum(1 / i for i in range(1, features + 1))


def test_sampled_gaussians_have_the_closed_form_within_two_percent():
    generator = torch.Generator().manual_seed(10)
    a, b = normal(20000, generator), 2 * normal(20000, generator, move=0.5)
    # Means 0 and 2 * 0.5 deviations; deviations s and 2 s.
    wanted = moved(4, 1.0) + moved(4, 1.0)
    assert seen(a).distance(seen(b)) == pytest.approx(wanted, rel=0.02)


def limits(room, move, repeats, n=48, m=64):
    """Limits and errors of repeats, and the distances at n items."""
    generator = torch.Generator().manual_seed(11)
    table = []
    for seed in range(repeats):
        a, b = normal(n, generator, features=10, move=move), normal(m, generator, features=10)
        found = room.limit(a, b, seed=seed)
        assert found.n == min(n, m)
        side = min(n, m)
        table.append((found.value, found.error, seen(a[:side]).distance(seen(b[:side]))))
    return torch.tensor(table, dtype=torch.float64).T


def check_limit_of_one_law(room, repeats=8):
    """The error is to be at most root two times what it is; a deviation is known to 1/sqrt(2 R)."""
    value, error, plain = limits(room, 0.0, repeats)
    mean_error, slack = error.mean() / repeats**0.5, 1 + 2.6 / (2 * repeats) ** 0.5
    assert abs(value.mean()) < 3 * mean_error < plain.mean() / 2
    assert 1 / slack < float(error.mean() / value.std()) < 2**0.5 * slack
    assert int((value.abs() < 2.6 * error).sum()) >= 0.95 * repeats


def check_limit_of_laws_apart(room, repeats=8):
    value, error, plain = limits(room, 0.7, repeats)
    truth, slack = moved(10, 0.7), 1 + 2.6 / (2 * repeats) ** 0.5
    assert abs(value.mean() - truth) < 3 * error.mean() / repeats**0.5
    assert abs(value.mean() - truth) < abs(plain.mean() - truth)
    assert 1 / slack < float(error.mean() / value.std()) < slack
    assert int(((value - truth).abs() < 2.6 * error).sum()) >= 0.95 * repeats


def check_limit_of_unequal_sets(room, repeats=8):
    """As many of both are used, or the bias of one side would not be told by the other's size."""
    value, error, plain = limits(room, 0.0, repeats, n=1000, m=48)
    assert abs(value.mean()) < 3 * error.mean() / repeats**0.5 < plain.mean() / 2


LIMITS = [check_limit_of_one_law, check_limit_of_laws_apart, check_limit_of_unequal_sets]

WRONG = {
    "no extrapolation": ("linear_regression(places, heights).intercept", "heights[-1]"),
    "over n": ("1.0 / a.n", "1.0 * a.n"),
    "over the root of n": ("1.0 / a.n", "a.n**-0.5"),
    "error of the mean": ("square().sum() * kept / BLOCKS", "square().mean() / BLOCKS"),
    "spread of overlapping subsets": ("square().sum() * kept / BLOCKS", "square().mean()"),
    "spread of halves": ("if kept == BLOCKS - 1:", "if kept == BLOCKS // 2:"),
    "all items of the larger side": ("generator=generator)[:n]", "generator=generator)"),
}


@pytest.mark.parametrize("check", LIMITS)
def test_limit(check):
    check(frechet)


@pytest.mark.slow
@pytest.mark.parametrize("check", LIMITS)
def test_limit_more_closely(check):
    check(frechet, repeats=100)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_limits_are_noticed(name):
    room = altered("metrics.frechet", *WRONG[name])
    with pytest.raises(AssertionError):
        for check in LIMITS:
            check(room)


def test_limit_follows_the_units_and_not_the_place():
    generator = torch.Generator().manual_seed(13)
    a, b = normal(50, generator, move=0.4), normal(50, generator)
    found, scaled, shifted = limit(a, b), limit(3 * a, 3 * b), limit(a + 5, b + 5)
    assert (scaled.value, scaled.error) == pytest.approx((9 * found.value, 9 * found.error))
    assert (shifted.value, shifted.error) == pytest.approx((found.value, found.error))
    assert limit(a, b) == found != limit(a, b, seed=1)


@pytest.mark.parametrize(("n", "features", "least"), [(0, 3, 32), (1, 3, 32), (31, 3, 32)])
def test_limit_refuses_few_items(n, features, least):
    few, many = torch.rand(n, features), torch.rand(50, features)
    for a, b in ((few, many), (many, few)):
        with pytest.raises(UserError, match=f"{least} or more") as caught:
            limit(a, b)
        assert caught.value.code == "E-EVAL"


def test_limit_wants_two_items_for_each_feature_that_varies():
    generator = torch.Generator().manual_seed(14)
    a, b = (torch.randn(59, 30, generator=generator, dtype=torch.float64) for _ in range(2))
    with pytest.raises(UserError, match="60 or more"):
        limit(a, b)
    a[:, 25:], b[:, 25:] = 1.0, 1.0  # features that never fire
    assert limit(a, b).n == 59


@pytest.mark.parametrize(("move", "low", "high"), [(0.0, 0.85, 1.7), (0.7, 0.75, 1.35)])
def test_redraws_spread_as_fresh_items_do(move, low, high):
    """At the floor by a factor of up to 1.3 more; 60 draws know a deviation to 10 %."""
    generator = torch.Generator().manual_seed(15)
    reals = seen(normal(200, generator))
    fakes = [normal(200, generator, move=move) for _ in range(60)]
    fresh = torch.tensor([seen(rows).distance(reals) for rows in fakes], dtype=torch.float64).std()
    stated = sum(redrawn(rows, reals) for rows in fakes[:25]) / 25
    assert low < stated / float(fresh) < high


@pytest.mark.parametrize("n", [0, 1])
def test_redraws_refuse_few_items(n):
    with pytest.raises(UserError) as caught:
        redrawn(torch.rand(n, 3), seen(torch.rand(9, 3)))
    assert caught.value.code == "E-EVAL"


def test_draws_do_not_depend_on_the_order_of_updates():
    generator = torch.Generator().manual_seed(16)
    a, b = normal(60, generator), normal(60, generator)
    parts, order = Rows(), torch.randperm(60, generator=generator)
    for piece in order.split(13):
        part = Rows()
        part.update(a[piece], piece)
        parts.merge(part)
    table = parts.table()
    assert redrawn(table, seen(b)) == redrawn(a, seen(b)) != redrawn(a, seen(b), seed=1)
    assert limit(table, b) == limit(a, b)
