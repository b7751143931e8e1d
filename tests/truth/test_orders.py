"""Measured orders of the solvers on Gaussian data, whose ODE has a closed form."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from steerable.oracles.gaussian import Gaussian

from .checks import interior_schedules, measured_order
from .worlds import F64, Kit

KIT = Kit()
ORDERS = {"ddim": (1.0, 0.15), "euler": (1.0, 0.15), "heun": (2.0, 0.2), "dpmpp_2m": (2.0, 0.3)}


@pytest.mark.parametrize("family", ["vp", "ve", "flow"])
@pytest.mark.parametrize("kind", ORDERS)
def test_order(kind, family):
    want, room = ORDERS[kind]
    slope = measured_order(KIT, KIT.sampler(kind)(), interior_schedules(KIT)[family])
    assert abs(slope - want) < room, f"measured order {slope:.2f}"


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


def test_an_impostor_is_unmasked():
    """Euler that calls itself second order measures as first order."""
    for schedule in interior_schedules(KIT).values():
        assert measured_order(KIT, KIT.sampler("euler")(), schedule) < 1.5
