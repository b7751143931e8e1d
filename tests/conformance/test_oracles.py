"""Every oracle against numerical integration, which knows nothing of closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.schedule import VP, Flow, VePower
from steerable.oracles.gaussian import Gaussian
from steerable.oracles.mixture import Mixture
from steerable.oracles.points import Points

from .rooms import assert_well_formed, files

F64 = torch.float64
SCHEDULES = (VP(), VePower(), Flow())
WEIGHTS = torch.tensor([0.55, 0.3, 0.15], dtype=F64)
MEANS = torch.tensor([[-0.9], [0.4], [1.3]], dtype=F64)
STDS = torch.tensor([0.3, 0.15, 0.4], dtype=F64)


@pytest.mark.parametrize("kind", files("oracles"))
def test_form(kind):
    assert_well_formed("oracles", kind)


def test_every_oracle_is_tested_here():
    assert files("oracles") == ["gaussian", "mixture", "points"]


def _posterior_mean(density, x_t, alpha, sigma):
    """E[x0 | x_t] by quadrature over x0, for a density (N,) on a fine grid of x0."""
    x0, p = density
    log = -((x_t[:, None] - alpha * x0[None]) ** 2) / (2 * sigma**2)
    weight = torch.exp(log - log.max(1, keepdim=True).values) * p
    return (weight * x0).sum(1) / weight.sum(1)


def _density(labels=None, label=None):
    x0 = torch.linspace(-4, 4, 40_001, dtype=F64)
    parts = WEIGHTS[:, None] / STDS[:, None] * torch.exp(-(((x0 - MEANS) / STDS[:, None]) ** 2) / 2)
    if label is not None:
        parts = parts[labels == label]
    return x0, parts.sum(0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("time", [0.05, 0.3, 0.6, 0.9])
def test_the_mixture_is_the_posterior_mean(schedule, time):
    labels = torch.tensor([0, 1, 0])
    world = Mixture(schedule, WEIGHTS, MEANS, STDS, labels)
    t = torch.tensor(time, dtype=F64)
    alpha, sigma = (float(v) for v in schedule(t))
    x_t = torch.linspace(-2, 2, 21, dtype=F64) * (alpha + sigma)
    for label in (None, 0, 1):
        cond = {} if label is None else {"label": torch.full((21,), label)}
        got = world(x_t[:, None], t, cond).x0[:, 0]
        want = _posterior_mean(_density(labels, label), x_t, alpha, sigma)
        assert float((got - want).abs().max()) < 1e-6, f"label {label}"


def test_a_mixed_batch_of_labels_and_times():
    world = Mixture(VP(), WEIGHTS, MEANS, STDS, torch.tensor([0, 1, 0]))
    x_t = torch.tensor([[0.3], [0.3], [0.3], [0.3]], dtype=F64)
    t = torch.tensor([0.2, 0.5, 0.5, 0.8], dtype=F64)
    y = torch.tensor([0, 1, -1, -1])
    got = world(x_t, t, {"label": y}).x0
    for i in range(4):
        cond = {"label": y[i : i + 1]} if int(y[i]) >= 0 else {}
        assert torch.allclose(got[i : i + 1], world(x_t[i : i + 1], t[i], cond).x0)


def test_bayes_rule_joins_the_classes():
    """u = sum_y p(y | x_t) c_y, with p(y | x_t) from the oracle's own joint density."""
    world = Mixture(VP(), WEIGHTS, MEANS, STDS, torch.tensor([0, 1, 0]))
    x_t = torch.linspace(-2, 2, 15, dtype=F64)[:, None]
    t = torch.tensor(0.35, dtype=F64)
    joint = world.log_joint(x_t, t, {}).exp()
    share = joint[:, 1:2] / joint.sum(1, keepdim=True)
    c = [world(x_t, t, {"label": torch.full((15,), k)}).x0 for k in (0, 1)]
    want = (1 - share) * c[0] + share * c[1]
    assert float((world(x_t, t, {}).x0 - want).abs().max()) < 1e-12


def test_the_joint_density_integrates_to_one():
    world = Mixture(VP(), WEIGHTS, MEANS, STDS)
    x = torch.linspace(-8, 8, 20_001, dtype=F64)[:, None]
    for time in (0.01, 0.4, 1.0):
        p = world.log_joint(x, torch.tensor(time, dtype=F64), {}).exp().sum(1)
        assert abs(float(p.sum()) * 16 / 20_000 - 1) < 1e-6


def test_draws_have_the_weights_and_moments_of_the_mixture():
    world = Mixture(VP(), WEIGHTS, MEANS, STDS, torch.tensor([0, 1, 0]))
    n = 20_000
    x = world.draw(n, torch.Generator().manual_seed(0))
    mean = float((WEIGHTS * MEANS[:, 0]).sum())
    variance = float((WEIGHTS * (STDS**2 + MEANS[:, 0] ** 2)).sum()) - mean**2
    assert abs(float(x.mean()) - mean) < 4 * math.sqrt(variance / n)
    assert abs(float(x.var()) / variance - 1) < 0.05
    only = world.draw(n, torch.Generator().manual_seed(1), 1)
    assert abs(float(only.mean()) - 0.4) < 4 * 0.15 / math.sqrt(n)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_the_gaussian_is_the_posterior_mean(schedule):
    mean = torch.tensor([0.4], dtype=F64)
    world = Gaussian(schedule, mean, torch.tensor([[0.09]], dtype=F64))
    x0 = torch.linspace(-3, 4, 40_001, dtype=F64)
    density = (x0, torch.exp(-((x0 - 0.4) ** 2) / 0.18))
    for time in (0.05, 0.4, 0.9):
        t = torch.tensor(time, dtype=F64)
        alpha, sigma = (float(v) for v in schedule(t))
        x_t = torch.linspace(-2, 2, 11, dtype=F64) * (alpha + sigma)
        want = _posterior_mean(density, x_t, alpha, sigma)
        assert float((world(x_t[:, None], t, {}).x0[:, 0] - want).abs().max()) < 1e-6


def test_a_correlated_gaussian_equals_the_textbook_formula():
    g = torch.Generator().manual_seed(1)
    root = torch.randn(4, 4, generator=g, dtype=F64)
    covariance = root @ root.mT / 4 + 0.05 * torch.eye(4, dtype=F64)
    mean = torch.randn(4, generator=g, dtype=F64)
    world = Gaussian(VP(), mean, covariance)
    t = torch.tensor(0.4, dtype=F64)
    alpha, sigma = VP()(t)
    x = torch.randn(7, 4, generator=g, dtype=F64)
    total = alpha**2 * covariance + sigma**2 * torch.eye(4, dtype=F64)
    want = mean + alpha * torch.linalg.solve(total, (x - alpha * mean).mT).mT @ covariance
    assert float((world(x, t, {}).x0 - want).abs().max()) < 1e-10


def test_the_flow_carries_the_marginal_at_t_to_the_marginal_at_s():
    covariance = torch.tensor([[0.5, 0.2], [0.2, 0.4]], dtype=F64)
    mean = torch.tensor([0.3, -1.0], dtype=F64)
    world = Gaussian(VP(), mean, covariance)
    t, s = torch.tensor(0.8, dtype=F64), torch.tensor(0.2, dtype=F64)
    (a_t, g_t), (a_s, g_s) = VP()(t), VP()(s)
    eye = torch.eye(2, dtype=F64)
    before = world.flow(torch.zeros(1, 2, dtype=F64), t, s)
    linear = world.flow(eye, t, s) - before
    moved = linear.mT @ (a_t**2 * covariance + g_t**2 * eye) @ linear
    assert torch.allclose(moved, a_s**2 * covariance + g_s**2 * eye, atol=1e-12)
    assert torch.allclose(world.flow(a_t * mean[None], t, s), a_s * mean[None], atol=1e-12)


def _points(count=37, shape=(3,)):
    g = torch.Generator().manual_seed(3)
    x = torch.randn(count, *shape, generator=g, dtype=F64)
    return x, torch.randint(0, 3, (count,), generator=g), g


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("chunk", [1, 5, 4096])
def test_points_are_the_mixture_without_width(schedule, chunk):
    x, labels, g = _points()
    even = torch.full((37,), 1 / 37, dtype=F64)
    world = Mixture(schedule, even, x, 0.0 * even, labels)
    points = Points(schedule, x, {"label": labels}, chunk=chunk)
    asked = torch.tensor([0, 1, 2, -1] * 5)
    for time in (0.001, 0.05, 0.3, 0.6, 1.0):
        t = torch.tensor(time, dtype=F64)
        alpha, sigma = schedule(t)
        x_t = alpha * x[:20] + sigma * torch.randn(20, 3, generator=g, dtype=F64)
        for cond in ({}, {"label": asked}, {"unknown": asked}):
            off = points(x_t, t, cond).x0 - world(x_t, t, cond).x0
            assert float(off.abs().max()) < 1e-9


def test_points_of_any_shape_against_brute_force():
    """A time an item, one point at a time, and weights without the tricks of a running sum."""
    x, _, g = _points(11, (2, 3, 2))
    t = torch.tensor([0.02, 0.2, 0.4, 0.7], dtype=F64)
    x_t = torch.randn(4, 2, 3, 2, generator=g, dtype=F64)
    got = Points(Flow(), x, chunk=4)(x_t, t, {})
    for i in range(4):
        alpha, sigma = (float(v) for v in Flow()(t[i]))
        square = [float((x_t[i] - alpha * one).square().sum()) / (2 * sigma**2) for one in x]
        weight = [math.exp(min(square) - s) for s in square]
        want = sum(w * one for w, one in zip(weight, x, strict=True)) / sum(weight)
        assert float((got.x0[i] - want).abs().max()) < 1e-11
    assert got.x0.shape == x_t.shape and got.alpha.shape == (4,)


def test_points_are_told_words_and_refuse_what_no_item_has():
    """Padding is no word: a shorter prompt names the same items. Labels join with the prompt."""
    x, _, _ = _points(4)
    words = torch.tensor([[1, 2, -1], [1, 2, -1], [2, 1, -1], [1, 2, 3]])
    labels = torch.tensor([0, 1, 0, 0])
    points = Points(VP(), x, {"prompt": words, "label": labels})
    t, x_t = torch.tensor(1.0, dtype=F64), torch.zeros(1, 3, dtype=F64)
    for prompt, label, chosen in (
        ([[1, 2]], -1, [0, 1]),
        ([[1, 2, -1, -1]], 1, [1]),
        ([[-1]], 0, [0, 2, 3]),
        ([[2, 1, -1]], 0, [2]),
    ):
        cond = {"prompt": torch.tensor(prompt), "label": torch.tensor([label])}
        want = Points(VP(), x[chosen])(x_t, t, {}).x0
        assert torch.allclose(points(x_t, t, cond).x0, want, atol=1e-12)
    with pytest.raises(UserError) as caught:
        points(x_t, t, {"prompt": torch.tensor([[3, 3]])})
    assert caught.value.code == "E-LABEL"
