"""Grids and the loop over the steps; what the mutants go through too is in tests/truth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.sample import trajectory
from steerable.core.schedule import VP, Edm, Flow, Tabulated, VeGeometric, VePower
from steerable.core.steer import Constraint
from steerable.grids.log_snr import log_snr
from steerable.grids.uniform import uniform
from steerable.oracles.gaussian import Gaussian
from steerable.samplers.ancestral import Ancestral
from steerable.samplers.ddim import Ddim
from steerable.samplers.heun import Heun

F64 = torch.float64
SCHEDULES = (VP(), VePower(), VeGeometric(), Edm(), Flow(), Tabulated("cosine", 1000))


def _gaussian(schedule):
    return Gaussian(schedule, torch.tensor([0.5], dtype=F64), torch.tensor([[0.3]], dtype=F64))


def _moments(sampler, times, *, schedule=None, x=None, ask=None, constraints=()):
    schedule = schedule or VP()
    world = _gaussian(schedule)
    x = torch.full((4, 1), 0.3, dtype=F64) if x is None else x
    return list(
        trajectory(
            ask or (lambda x_t, t: world(x_t, t, {})),
            x,
            schedule=schedule,
            sampler=sampler,
            times=times,
            noise=Noise(torch.arange(len(x))),
            constraints=constraints,
        )
    )


def test_the_last_moment_is_the_last_estimate():
    for sampler in (Ddim(), Heun(), Ancestral()):
        moments = _moments(sampler, log_snr(VP(), 7))
        assert len(moments) == 7 and torch.equal(moments[-1].x, moments[-1].x0)
        assert moments[-1].t == 0.0
        before, last = moments[-2], moments[-1]
        t = torch.tensor(before.t, dtype=F64)
        assert torch.equal(_gaussian(VP())(before.x, t, {}).x0, last.x)


def test_a_climb_follows_the_ode_up_and_comes_back():
    """Encode and decode: a deterministic sampler on a grid that climbs is its own inverse."""
    levels = torch.linspace(math.log(0.05), math.log(20), 200, dtype=F64)
    up = VP().time_at(levels)
    x = torch.linspace(-1, 1, 9, dtype=F64)[:, None]
    there = _moments(Heun(), up, x=x)[-1].x
    exact = _gaussian(VP()).flow(x, up[0], up[-1])
    assert float((there - exact).abs().max()) < 1e-3
    back = _moments(Heun(), up.flip(0), x=there)[-1].x
    assert float((back - x).abs().max()) < 1e-4


def test_a_climb_does_not_ask():
    asked = []
    world = _gaussian(VP())

    def ask(x_t, t):
        asked.append(float(t))
        return world(x_t, t, {})

    times = torch.tensor([0.8, 0.5, 0.7, 0.4, 0.0], dtype=F64)
    moments = _moments(Ancestral(), times, ask=ask)
    assert asked == [0.8, 0.7, 0.4] and [m.t for m in moments] == [0.5, 0.7, 0.4, 0.0]


def test_non_finite_values_stop_the_loop_with_the_number_of_the_step():
    world = _gaussian(VP())

    def ask(x_t, t):
        estimate = world(x_t, t, {})
        return estimate if float(t) > 0.5 else estimate.with_x0(estimate.x0 / 0.0)

    times = torch.tensor([0.9, 0.6, 0.4, 0.2, 0.0], dtype=F64)
    with pytest.raises(UserError, match="sampling step 3 of 4") as fault:
        _moments(Ddim(), times, ask=ask)
    assert fault.value.code == "E-NUM"


@dataclass(frozen=True, kw_only=True)
class _Hold(Constraint):
    """Puts the first item at the noised value."""

    value: float

    def __call__(self, x_s, s, schedule, noise):
        alpha = float(schedule(s)[0]) if float(s) > 0 else 1.0
        return torch.cat([torch.full_like(x_s[:1], alpha * self.value), x_s[1:]])


def test_constraints_act_after_every_step_with_the_time_reached():
    moments = _moments(Ddim(), uniform(VP(), 6), constraints=(_Hold(value=3.0),))
    for moment in moments:
        alpha = float(VP()(torch.tensor(moment.t, dtype=F64))[0]) if moment.t > 0 else 1.0
        assert abs(float(moment.x[0]) - 3.0 * alpha) < 1e-12
    free = _moments(Ddim(), uniform(VP(), 6))
    assert torch.equal(moments[-1].x[1:], free[-1].x[1:])


def test_leaving_the_loop_early_is_allowed():
    world = _gaussian(VP())
    asked = []

    def ask(x_t, t):
        asked.append(t)
        return world(x_t, t, {})

    steps = trajectory(
        ask,
        torch.zeros(1, 1, dtype=F64),
        schedule=VP(),
        sampler=Ddim(),
        times=uniform(VP(), 50),
        noise=Noise(torch.arange(1)),
    )
    assert next(steps).i == 1 and next(steps).i == 2
    steps.close()
    assert len(asked) == 2
