"""Every time grid: its form, its ends, and the formula of each."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.schedule import VP, Edm, Flow, Tabulated, VeGeometric, VePower
from steerable.grids.cosine import cosine
from steerable.grids.ddpm import ddpm
from steerable.grids.karras import karras
from steerable.grids.log_snr import log_snr

from .rooms import assert_well_formed, files, part

KINDS = files("grids")
F64 = torch.float64
SCHEDULES = (VP(), VePower(), VeGeometric(), Edm(), Flow(), Tabulated("cosine", 1000))


@pytest.mark.parametrize("kind", KINDS)
def test_form(kind):
    assert_well_formed("grids", kind)
    first, second = list(inspect.signature(part("grids", kind)).parameters)[:2]
    assert (first, second) == ("schedule", "steps")


def made(kind, schedule, steps):
    """The times of a grid; one that is fitted to a model is given levels of its own."""
    tables = {steps: schedule.level(log_snr(schedule, steps)[:-1]).tolist()}
    options = {"tables": tables} if kind == "optimised" else {}
    return part("grids", kind)(schedule, steps, **options)


@pytest.mark.parametrize("grid", KINDS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_a_grid_falls_from_noise_to_data_in_exactly_n_steps(schedule, grid):
    for steps in (1, 2, 3, 10, 50, 250):
        times = made(grid, schedule, steps)
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


def test_a_ddpm_grid_is_refused_with_too_many_steps():
    with pytest.raises(UserError, match="1 to 20"):
        ddpm(Tabulated("linear", 20), 21, levels=20)


def test_cosine_is_equal_steps_in_the_angle_on_any_schedule():
    for schedule in (VP(), Flow(), VeGeometric()):
        times = cosine(schedule, 9, high=40.0, low=0.02)
        angles = torch.atan(torch.exp(schedule.level(times[:-1])))
        want = math.atan(40.0) + torch.arange(9, dtype=F64) / 9 * (math.atan(0.02) - math.atan(40))
        assert float((angles - want).abs().max()) < 1e-8
