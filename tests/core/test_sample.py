"""Grids and the loop over the steps; what the mutants go through too is in tests/truth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.sample import GRIDS, ddpm, karras, log_snr, trajectory, uniform
from steerable.core.schedule import VP, Edm, Flow, Tabulated, VeGeometric, VePower
from steerable.core.steer import Constraint
from steerable.oracles.gaussian import Gaussian
from steerable.samplers.ancestral import Ancestral
from steerable.samplers.ddim import Ddim
from steerable.samplers.heun import Heun

F64 = torch.float64
SCHEDULES = (VP(), VePower(), VeGeometric(), Edm(), Flow(), Tabulated("cosine", 1000))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_a_grid_falls_from_noise_to_data_in_exactly_n_steps(schedule, grid):
    for steps in (1, 2, 3, 10, 50, 250):
        times = GRIDS[grid](schedule, steps)
        assert times.shape == (steps + 1,) and times.dtype == F64
        assert float(times[-1]) == 0.0 and 0 < float(times[0]) <= 1.0
        assert bool((times.diff() < 0).all())


def test_log_snr_and_karras_keep_inside_what_the_schedule_reaches():
    for schedule in SCHEDULES:
        ends = schedule.level(torch.tensor([0.0, 1.0], dtype=F64))
        for grid in (log_snr, karras):
            levels = schedule.level(grid(schedule, 20)[:-1])
            high = min(float(ends[1]), math.log(160))
            low = max(float(ends[0]), math.log(0.004))
            assert abs(float(levels[0]) - high) < 1e-8
            assert abs(float(levels[-1]) - low) < 1e-6
    steps = VP().level(log_snr(VP(), 20, high=10.0, low=0.1)[:-1]).diff()
    assert float((steps + math.log(100) / 19).abs().max()) < 1e-9


def test_karras_on_its_own_schedule_is_the_uniform_grid():
    edm = Edm()
    got = karras(edm, 18, high=80.0, low=0.002)[:-1]
    assert float((got - torch.linspace(1, 0, 18, dtype=F64)).abs().max()) < 1e-8


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 250, 999, 1000])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_ddpm_levels_are_distinct_integers_with_the_promised_ends(spacing, steps):
    levels = ddpm(Tabulated(), steps, spacing=spacing)[:-1] * 1000
    whole = levels.round().to(torch.int64)
    assert float((levels - whole).abs().max()) < 1e-9
    assert len(whole.unique()) == steps and int(whole.min()) >= 1 and int(whole.max()) <= 1000
    if spacing != "leading":
        assert int(whole[0]) == 1000
    if spacing == "leading" or (spacing == "linspace" and steps > 1):
        assert int(whole[-1]) == 1


def test_a_ddpm_grid_is_refused_with_too_many_steps_or_another_spacing():
    with pytest.raises(UserError, match="1 to 20"):
        ddpm(Tabulated("linear", 20), 21, levels=20)
    with pytest.raises(UserError, match="trailing, leading or linspace"):
        ddpm(Tabulated(), 5, spacing="quadratic")


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
