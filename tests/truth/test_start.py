"""Orders of the multistep solvers from their own start, whose first steps are of a lower order."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from steerable.oracles.gaussian import Gaussian

from .checks import interior_schedules, measured_order
from .worlds import F64, Kit

KIT = Kit()
# kind: the order with an exact history, and from its own start inside the path; docs/samplers.md
OWN = {
    "deis": (4, 2.2),
    "dpmpp_2m": (2, 2.0),
    "dpmpp_3m": (3, 1.8),
    "ipndm": (2, 2.0),
    "lms": (4, 2.8),
    "unipc": (4, 3.8),
}
# the same from noise, sigma / alpha = 140, to 0.1 in 24 to 192 steps
FROM_NOISE = {
    "deis": 3.9,
    "dpmpp_2m": 1.9,
    "dpmpp_3m": 3.5,
    "ipndm": 2.0,
    "lms": 3.6,
    "unipc": 3.7,
}


@pytest.mark.parametrize("family", ["vp", "ve", "flow"])
@pytest.mark.parametrize("kind", OWN)
def test_the_order_from_its_own_start(kind, family):
    """From sigma / alpha = 6, where the path is bent and the first steps cost most."""
    declared, own = OWN[kind]
    sampler, schedule = KIT.sampler(kind)(), interior_schedules(KIT)[family]
    assert sampler.order == declared
    slope = measured_order(KIT, sampler, schedule, exact_steps=0)
    assert abs(slope - own) < 0.1, f"measured {slope:.2f}"


def _from_noise(kind):
    """Slope of log error against log step from the noise of sigma / alpha = 140."""
    schedule = KIT("core.schedule").VP()
    basis = torch.tensor([[1.0, 0.4], [-0.3, 0.8]], dtype=F64)
    world = Gaussian(schedule, torch.tensor([0.7, -0.4], dtype=F64), 0.5 * basis @ basis.mT)
    ends = (math.log(140.0), math.log(0.1))
    start = schedule.time_at(torch.tensor(ends, dtype=F64))
    g = torch.Generator().manual_seed(3)
    x = float(schedule(start[0])[1]) * torch.randn(16, 2, generator=g, dtype=F64)
    exact = world.flow(x, *start)
    points = []
    for steps in (24, 48, 96, 192):
        times = schedule.time_at(torch.linspace(*ends, steps + 1, dtype=F64))
        got = KIT.run(
            lambda x_t, u: world(x_t, u, {}),
            x,
            schedule=schedule,
            sampler=KIT.sampler(kind)(),
            times=times,
        )
        points.append((math.log(steps), math.log(float((got - exact).square().mean().sqrt()))))
    slopes = [(a[1] - b[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(points)]
    return sum(slopes) / len(slopes)


@pytest.mark.parametrize("kind", FROM_NOISE)
def test_from_noise_the_start_costs_next_to_nothing(kind):
    """There the path is straight, and samples are made from there."""
    slope = _from_noise(kind)
    assert abs(slope - FROM_NOISE[kind]) < 0.1, f"measured {slope:.2f}"
