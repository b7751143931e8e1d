"""Schedules: finite, monotone, and equal to the tables and formulas of their papers."""

from __future__ import annotations

import math

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.schedule import VP, Edm, Flow, Tabulated, VeGeometric, VePower, log_ratios

F64 = torch.float64
KINDS = ("linear", "cosine", "sigmoid")
EVERY_T = (*range(2, 51), 100, 1000, 4000)
CONTINUOUS = (VP(), VePower(), VeGeometric(), Edm(), Flow())


@pytest.mark.parametrize("kind", KINDS)
def test_tables_are_finite_and_monotone_at_every_number_of_levels(kind):
    for levels in EVERY_T:
        schedule = Tabulated(kind, levels)
        t = torch.linspace(0, 1, 2 * levels + 1, dtype=F64)
        alpha, sigma = schedule(t)
        assert bool(torch.isfinite(alpha).all() & torch.isfinite(sigma).all())
        assert float(alpha.min()) > 0 and float(sigma.min()) > 0
        assert bool((schedule.level(t).diff() > 0).all()), f"T={levels}"
        assert float((alpha**2 + sigma**2 - 1).abs().max()) < 1e-12
        assert float(alpha[-1] ** 2) < 1e-2, f"T={levels}: signal is left at the end"
        abar = alpha[2::2] ** 2
        betas = 1 - abar[1:] / abar[:-1]
        assert float(betas.min()) > 0 and float(betas.max()) <= 0.999 + 1e-12


@pytest.mark.parametrize("schedule", CONTINUOUS, ids=lambda s: type(s).__name__)
def test_continuous_schedules_are_finite_and_monotone(schedule):
    t = torch.linspace(0, 1, 10_001, dtype=F64)
    assert bool((schedule.level(t).diff() > 0).all())
    for value in schedule(t.to(torch.float32)):
        assert bool(torch.isfinite(value).all()) and float(value.min()) > 0
        assert value.dtype == torch.float32


@pytest.mark.parametrize(
    "schedule", (*CONTINUOUS, *(Tabulated(k, 1000) for k in KINDS)), ids=lambda s: repr(s)[:28]
)
def test_time_at_undoes_level(schedule):
    t = torch.linspace(0, 1, 777, dtype=F64)
    level = schedule.level(t)
    assert float((schedule.time_at(level) - t).abs().max()) < 1e-10
    assert float((schedule.level(schedule.time_at(level)) - level).abs().max()) < 1e-8
    beyond = schedule.time_at(torch.tensor([-1e3, 1e3]))
    assert beyond.tolist() == [0.0, 1.0] and beyond.dtype == F64


def test_linear_table_is_that_of_ddpm_at_all_thousand_knots():
    abar, product = [], 1.0
    for i in range(1000):
        product *= 1 - (1e-4 + i * (0.02 - 1e-4) / 999)
        abar.append(product)
    alpha, sigma = Tabulated("linear", 1000)(torch.arange(1, 1001, dtype=F64) / 1000)
    want = torch.tensor(abar, dtype=F64)
    assert float((alpha**2 - want).abs().max()) < 1e-12
    assert float((alpha**2 / want - 1).abs().max()) < 1e-10
    assert float((sigma**2 - (1 - want)).abs().max()) < 1e-12
    assert abs(float(alpha[-1] ** 2) - 4.0358e-05) < 1e-8  # known end of the published table


def test_levels_read_the_same_curve():
    coarse, fine = Tabulated("linear", 20), Tabulated("linear", 1000)
    t = torch.arange(1, 21, dtype=F64) / 20
    assert float((coarse(t)[0] - fine(t)[0]).abs().max()) < 1e-12


def test_sigmoid_runs_from_minus_three_to_three():
    u = torch.arange(1, 51, dtype=F64) / 50
    low, high = 1 / (1 + math.exp(3)), 1 / (1 + math.exp(-3))
    want = (high - 1 / (1 + torch.exp(3 - 6 * u))) / (high - low)
    alpha, _ = Tabulated("sigmoid", 50)(u)
    assert float((alpha[:-1] ** 2 - want[:-1]).abs().max()) < 1e-12


@pytest.mark.parametrize("levels", [-1, 0, 1, 4001])
def test_levels_out_of_range_are_refused(levels):
    with pytest.raises(UserError, match="2 to 4000") as fault:
        Tabulated("linear", levels)
    assert fault.value.code == "E-LIMIT"


def test_an_unknown_table_is_refused_when_it_is_built():
    with pytest.raises(UserError, match="linear, cosine or sigmoid"):
        Tabulated("cosin", 10)


def test_variance_exploding_power_equals_its_closed_form():
    schedule = VePower(25.0)
    t = torch.linspace(0, 1, 50, dtype=F64)
    late = 1e-5 + (1 - 1e-5) * t
    want = ((25.0 ** (2 * late) - 1) / (2 * math.log(25.0))).sqrt()
    assert float((schedule(t)[1] / want - 1).abs().max()) < 1e-9
    assert abs(float(schedule(torch.ones((), dtype=F64))[1]) - 9.845) < 2e-3
    thousandth = (1e-3 - 1e-5) / (1 - 1e-5)
    assert abs(float(schedule(torch.tensor(thousandth, dtype=F64))[1]) - 0.0317) < 1e-4


def test_variance_preserving_integral():
    n = 20_000
    schedule = VP()
    end = torch.ones((), dtype=F64)
    middle = (torch.arange(n, dtype=F64) + 0.5) / n
    integral = float((0.1 + 19.9 * middle).mean())
    assert abs(float(-2 * torch.log(schedule(end)[0])) - integral) < 1e-9
    half = (0.5 - 1e-5) / (1 - 1e-5)
    area = 0.5 * float((0.1 + 19.9 * 0.5 * middle).mean())
    assert abs(float(-2 * torch.log(schedule(torch.tensor(half, dtype=F64))[0])) - area) < 1e-9


def test_the_edm_schedule_is_the_grid_of_the_paper():
    n = 18
    i = torch.arange(n, dtype=F64)
    want = (80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    _, sigma = Edm()(1 - i / (n - 1))
    assert float((sigma / want - 1).abs().max()) < 1e-9


def test_level_zero_lies_below_the_first_level():
    table = log_ratios("linear", 1000)
    assert abs(float(table[1] - table[0]) - math.log(10)) < 1e-12
    assert table.dtype == F64 and len(table) == 1001
