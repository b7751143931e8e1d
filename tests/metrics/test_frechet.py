import numpy as np
import pytest
import scipy.linalg
import torch

from steerable.core.errors import UserError
from steerable.metrics.frechet import Frechet, floor


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
