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
from steerable.grids.repaint import repaint
from steerable.grids.uniform import uniform

from .rooms import assert_well_formed, files, part

KINDS = files("grids")
CLIMBING = {"repaint"}  # grids that go back up
F64 = torch.float64
SCHEDULES = (VP(), VePower(), VeGeometric(), Edm(), Flow(), Tabulated("cosine", 1000))


@pytest.mark.parametrize("kind", KINDS)
def test_form(kind):
    assert_well_formed("grids", kind)
    first, second = list(inspect.signature(part("grids", kind)).parameters)[:2]
    assert (first, second) == ("schedule", "steps")


def made(kind, schedule, steps):
    """The times of a grid; one that is fitted to a model is given levels of its own.

    One that climbs is given a jump that fits into the steps.
    """
    options = {}
    if kind == "optimised":
        options["tables"] = {steps: schedule.level(log_snr(schedule, steps)[:-1]).tolist()}
    if kind in CLIMBING:
        options = {"jump": max(1, min(7, steps - 1)), "repeats": 3 if steps > 1 else 1}
    return part("grids", kind)(schedule, steps, **options)


@pytest.mark.parametrize("grid", KINDS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_a_grid_falls_from_noise_to_data_in_exactly_n_steps(schedule, grid):
    for steps in (1, 2, 3, 10, 50, 250):
        times = made(grid, schedule, steps)
        places = times.unique().flip(0)  # every time once, falling
        assert places.shape == (steps + 1,) and times.dtype == F64
        assert float(times[-1]) == 0.0 and 0 < float(times[0]) <= 1.0
        assert torch.equal(times, places) or (grid in CLIMBING and steps > 1)


@pytest.mark.parametrize("grid", sorted(CLIMBING))
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_a_climbing_grid_skips_no_step_down_and_reaches_the_data_once(schedule, grid):
    for steps in (2, 3, 10, 50, 250):
        times = made(grid, schedule, steps)
        places = times.unique().flip(0)
        index = (times[:, None] == places).to(torch.int64).argmax(1)
        moves = index.diff()
        assert bool(((moves == 1) | (moves < 0)).all()), "a step down leaves out a time"
        assert bool((moves < 0).any()), "it never climbs"
        assert int((times == 0).sum()) == 1 and float(times[-1]) == 0.0


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


@pytest.mark.parametrize(("steps", "jump", "repeats"), [(250, 10, 10), (50, 7, 3), (21, 20, 2)])
def test_repaint_is_the_published_schedule(steps, jump, repeats):
    """The paper's loop over integer levels, which climbs one level at a time."""
    left = dict.fromkeys(range(0, steps - jump, jump), repeats - 1)
    level, levels = steps, []
    while level >= 1:
        level -= 1
        levels.append(level)
        if left.get(level, 0) > 0:
            left[level] -= 1
            level += jump
            levels.append(level)
    falling = uniform(VP(), steps)
    want = torch.cat([falling[steps - 1 - torch.tensor(levels)], falling[-1:]])
    got = repaint(VP(), steps, jump=jump, repeats=repeats, base="uniform")
    assert torch.equal(got, want)
    down = int((got.diff() < 0).sum())
    assert down == steps + (repeats - 1) * jump * ((steps - 1) // jump)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_repaint_walks_the_grid_that_it_names(schedule):
    for base in ("uniform", "log_snr", "cosine"):
        plain = part("grids", base)(schedule, 30)
        assert torch.equal(repaint(schedule, 30, repeats=1, base=base), plain)
        back = repaint(schedule, 30, jump=5, repeats=4, base=base)
        assert torch.equal(back.unique(), plain.unique())


def test_repaint_is_refused_when_nothing_can_be_repeated():
    with pytest.raises(UserError, match="11 steps or more"):
        repaint(VP(), 10)
    assert bool((repaint(VP(), 11).diff() > 0).any())
