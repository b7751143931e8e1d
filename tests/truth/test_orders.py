"""Measured orders of the solvers on Gaussian data, whose ODE has a closed form."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from steerable.oracles.gaussian import Gaussian

from .checks import ORDERS, interior_schedules, measured_order
from .worlds import F64, Kit

KIT = Kit()


def _room(order):
    """Slopes near their limit: the regression begins at 24 steps, where order 4 is still bent."""
    return 0.15 if order == 1 else 0.1 + 0.1 * order


@pytest.mark.parametrize("kind", ORDERS)
def test_order(kind):
    """With a history that starts on exact values, see `measured_order`.

    The other families of schedules are in the conformance test of the room.
    """
    slope = measured_order(KIT, KIT.sampler(kind)(), interior_schedules(KIT)["vp"])
    assert abs(slope - ORDERS[kind]) < _room(ORDERS[kind]), f"measured order {slope:.2f}"


@pytest.mark.parametrize("kind", ORDERS)
def test_order_upwards(kind):
    """The ODE is followed up as well as down: data are encoded with the same order."""
    sampler, schedule = KIT.sampler(kind)(), interior_schedules(KIT)["vp"]
    slope = measured_order(KIT, sampler, schedule, up=True)
    assert slope > ORDERS[kind] - _room(ORDERS[kind]), f"measured order {slope:.2f}"


@pytest.mark.parametrize(
    ("kind", "options", "order"),
    [
        ("er_sde", {"fresh": "none"}, 3),
        ("er_sde", {"fresh": "none", "solver_order": 2}, 2),
        ("er_sde", {"fresh": "none", "solver_order": 1}, 1),
        ("dpmpp_2m_sde", {"eta": 0.0}, 2),
        ("dpmpp_2m_sde", {"eta": 0.0, "solver": "heun"}, 2),
        ("unipc", {"solver_order": 2}, 3),
        ("heun_churn", {"churn": 0.0}, 2),
    ],
)
def test_the_order_of_options(kind, options, order):
    """Solvers of an SDE have the order of their ODE, once their noise is off."""
    sampler, schedule = KIT.sampler(kind)(**options), interior_schedules(KIT)["flow"]
    slope = measured_order(KIT, sampler, schedule, exact_steps=order - 1)
    assert abs(slope - order) < _room(order), f"measured order {slope:.2f}"


def _path(world, schedule, sampler, ratios, x):
    times = schedule.time_at(torch.tensor(ratios, dtype=F64).log())
    exact = world.flow(x, times[0], times[-1])
    got = KIT.run(
        lambda x_t, u: world(x_t, u, {}), x, schedule=schedule, sampler=sampler, times=times
    )
    return float((got - exact).square().mean().sqrt())


@pytest.mark.parametrize("kind", [k for k, order in ORDERS.items() if order > 1])
def test_a_path_that_turns_and_comes_back_to_its_own_levels(kind):
    """Down, up over the same levels, down again: a history with one level twice would be NaN."""
    schedule = interior_schedules(KIT)["vp"]
    world = Gaussian(schedule, torch.tensor([0.7], dtype=F64), torch.tensor([[0.4]], dtype=F64))
    x = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    errors = []
    for n in (20, 40):
        down = torch.linspace(math.log(3.0), math.log(0.3), n + 1).exp().tolist()
        ratios = [*down, *down[-2 : n // 2 : -1], *down[n // 2 :]]
        errors.append(_path(world, schedule, KIT.sampler(kind)(), ratios, x))
    assert errors[0] < 0.01 and errors[1] < errors[0] / 3.2, errors


def test_the_adaptive_solver_keeps_its_tolerance():
    """Ten times what a step may be off by: atol + rtol |y|, where y = x / alpha is largest."""
    schedule = interior_schedules(KIT)["vp"]
    world = Gaussian(schedule, torch.tensor([0.7], dtype=F64), torch.tensor([[0.4]], dtype=F64))
    x = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    for ratios in ([6.0, 1.0, 0.1], [0.1, 6.0]):
        largest = 2.0 * math.hypot(1.0, max(ratios))
        for tolerance in (1e-3, 1e-5, 1e-8):
            sampler = KIT.sampler("ode")(rtol=tolerance, atol=tolerance)
            error = _path(world, schedule, sampler, ratios, x)
            assert error < 10 * tolerance * (1 + largest), f"{ratios} {tolerance}: {error:.1e}"


@pytest.mark.parametrize("family", ["vp", "ve", "flow"])
def test_the_reference_map_is_the_ode(family):
    """The closed form against a fine Runge-Kutta integration of d(x/alpha)/d(sigma/alpha)."""
    schedule = interior_schedules(KIT)[family]
    covariance = torch.tensor([[0.6, 0.2], [0.2, 0.3]], dtype=F64)
    world = Gaussian(schedule, torch.tensor([0.7, -0.4], dtype=F64), covariance)
    t, s = schedule.time_at(torch.tensor([4.0, 0.2], dtype=F64).log())
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=F64) * 2

    def slope(y, r):
        u = schedule.time_at(r.log())
        return world(schedule(u)[0] * y, u, {}).noise

    y = x / schedule(t)[0]
    ratios = torch.linspace(4.0, 0.2, 101, dtype=F64)
    for r, q in pairwise(ratios):
        h, m = q - r, (r + q) / 2
        k1 = slope(y, r)
        k2 = slope(y + h / 2 * k1, m)
        k3 = slope(y + h / 2 * k2, m)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(y + h * k3, q))
    assert float((schedule(s)[0] * y - world.flow(x, t, s)).abs().max()) < 1e-6
    assert float((world.flow(world.flow(x, t, s), s, t) - x).abs().max()) < 1e-10


@pytest.mark.parametrize("kind", ["euler", "dpmpp_2m"])
@pytest.mark.parametrize("claimed", [2, 3, 4])
def test_an_impostor_is_unmasked(kind, claimed):
    """Exact first steps do not make a method of low order pass for one of higher order."""
    true = KIT.sampler(kind).order
    for schedule in interior_schedules(KIT).values():
        slope = measured_order(KIT, KIT.sampler(kind)(), schedule, exact_steps=claimed - 1)
        assert abs(slope - true) < _room(true)
        assert claimed == true or abs(slope - claimed) > _room(claimed)
