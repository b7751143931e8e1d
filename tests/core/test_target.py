"""Targets: the rows of one table, and the way there and back in both precisions."""

from __future__ import annotations

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.schedule import VP, Edm, Flow, Tabulated, VeGeometric, VePower
from steerable.core.target import TARGETS, Target

F64 = torch.float64
SCHEDULES = (
    VP(),
    VePower(),
    VeGeometric(),
    Edm(),
    Flow(),
    *(Tabulated(k, n) for k in ("linear", "cosine", "sigmoid") for n in (4, 1000)),
)


def _world(dtype):
    g = torch.Generator().manual_seed(0)
    x0, z = torch.randn(2, 300, generator=g, dtype=F64)
    return 0.5 * x0.to(dtype), z.to(dtype), torch.linspace(0, 1, 300, dtype=F64)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: repr(s)[:30])
def test_round_trip_of_the_answer_in_float64(kind, schedule):
    x0, z, t = _world(F64)
    alpha, sigma = schedule(t)
    x_t = alpha * x0 + sigma * z
    _, c_skip, c_out = Target(kind, 0.5)(alpha, sigma)
    answer = (x0 - c_skip * x_t) / c_out
    assert float((c_skip * x_t + c_out * answer - x0).abs().max()) < 1e-10


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: repr(s)[:30])
def test_round_trip_in_float32_loses_no_more_than_rounding(kind, schedule):
    x0, z, t = _world(torch.float32)
    alpha, sigma = (v.to(torch.float32) for v in schedule(t))
    x_t = alpha * x0 + sigma * z
    _, c_skip, c_out = Target(kind, 0.5)(alpha, sigma)
    back = c_skip * x_t + c_out * ((x0 - c_skip * x_t) / c_out)
    size = 1 + (c_skip * x_t).abs()  # what the two terms cancel to leave x0
    assert float(((back - x0).abs() / size).max()) < 1e-6


def test_the_edm_row_is_table_1_of_the_paper():
    d = 0.5
    sigma = torch.logspace(-3, 2, 60, dtype=F64)
    c_in, c_skip, c_out = Target("edm", d)(torch.ones_like(sigma), sigma)
    total = sigma**2 + d**2
    assert torch.allclose(c_in, total**-0.5, rtol=1e-12)
    assert torch.allclose(c_skip, d**2 / total, rtol=1e-12)
    assert torch.allclose(c_out, sigma * d / total.sqrt(), rtol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: repr(s)[:30])
def test_the_network_sees_and_answers_unit_variance_under_edm(schedule):
    """For data of std d: Var(c_in x_t) = 1, and the EDM target has unit variance too."""
    d = 0.7
    alpha, sigma = schedule(torch.linspace(0, 1, 40, dtype=F64))
    c_in, c_skip, c_out = Target("edm", d)(alpha, sigma)
    assert torch.allclose(c_in**2 * (alpha**2 * d**2 + sigma**2), torch.ones(40, dtype=F64))
    variance = ((1 - c_skip * alpha) ** 2 * d**2 + (c_skip * sigma) ** 2) / c_out**2
    assert torch.allclose(variance, torch.ones(40, dtype=F64), rtol=1e-6)


def test_an_unknown_target_is_refused():
    with pytest.raises(UserError, match="x0, noise, v, flow, edm"):
        Target("epsilon")
