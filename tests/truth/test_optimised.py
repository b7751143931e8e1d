"""The fitted grid: the optimum is the optimum, and few steps end nearer to the exact path."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.schedule import VP, Edm, Flow
from steerable.grids.cosine import cosine
from steerable.grids.karras import karras
from steerable.grids.log_snr import log_snr
from steerable.grids.optimised import optimised
from steerable.grids.uniform import uniform
from steerable.jobs import grids
from steerable.samplers.ddim import Ddim
from steerable.samplers.dpmpp_2m import Dpmpp2M
from steerable.samplers.euler import Euler
from steerable.samplers.heun import Heun

from ..mutants import altered
from .worlds import F64, random_mixture, spread_of

OTHERS = (uniform, log_snr, karras, cosine)
SEEDS = (1, 2, 3)


def brute(cost, end, steps):
    many = len(end)

    def price(nodes):
        return sum(float(cost[i, j]) for i, j in itertools.pairwise(nodes)) + float(end[nodes[-1]])

    return min(price((0, *rest)) for rest in itertools.combinations(range(1, many), steps - 1))


def check_exact(module):
    for seed in range(12):
        g = torch.Generator().manual_seed(seed)
        many = 9
        cost = torch.rand(many, many, generator=g, dtype=F64).square()
        cost = cost.masked_fill(torch.ones(many, many).tril().bool(), torch.inf)
        end = torch.rand(many, generator=g, dtype=F64)
        for steps in range(1, many + 1):
            nodes = module.shortest(cost, end, steps)
            assert len(nodes) == steps and nodes[0] == 0 and nodes == sorted(set(nodes))
            price = sum(float(cost[i, j]) for i, j in itertools.pairwise(nodes))
            assert price + float(end[nodes[-1]]) <= brute(cost, end, steps) + 1e-12


def test_the_optimum_is_that_of_brute_force():
    check_exact(grids)
    with pytest.raises(UserError, match="1 to 9"):
        grids.shortest(torch.full((9, 9), torch.inf), torch.zeros(9), 10)


class World:
    """A mixture with its denoiser, noise to begin with and exact ends of its paths."""

    def __init__(self, seed, schedule, scale=1.0):
        mixture = random_mixture(seed, schedule)
        self.mixture = replace(mixture, means=scale * mixture.means, stds=scale * mixture.stds)
        self.schedule, self.std = schedule, spread_of(self.mixture)

    def ask(self, x_t, t):
        return self.mixture(x_t, t, {})

    def start(self, t, seed, n):
        alpha, sigma = self.schedule(t)
        scale = math.hypot(float(sigma), float(alpha) * self.std)
        return scale * Noise(seed + torch.arange(n)).normal(torch.zeros(n, 2, dtype=F64))

    def end(self, times, sampler, seed=0, n=1000):
        x = self.start(times[0], seed, n)
        return grids.moments(self.ask, x, self.schedule, sampler, times)[-1].x

    def error(self, times, sampler, exact):
        return float((self.end(times, sampler) - exact).square().mean().sqrt()) / self.std

    def exact(self):
        return self.end(log_snr(self.schedule, 300), Heun())

    def tables(self, steps, **more):
        first = self.schedule.time_at(grids.levels_of(self.schedule)[0])
        start = self.start(first, 10**6, grids.PATHS)
        return grids.optimised_tables(lambda: self.ask, self.schedule, steps, start=start, **more)


def test_costs_are_those_of_single_steps():
    world = World(1, Flow())
    levels = grids.levels_of(world.schedule, 12)
    times = world.schedule.time_at(levels)
    x = world.start(times[0], 5, 8)
    reference = grids.paths(world.ask, x, schedule=world.schedule, levels=levels)
    cost, end = grids.costs(reference)
    for i, j in ((0, 1), (0, 7), (3, 11), (9, 10)):
        alpha_i, alpha_j = (world.schedule(times[k])[0] for k in (i, j))
        for sampler in (Euler(), Ddim()):
            at = alpha_i * reference.y[i]
            pair = torch.stack([times[i], times[j]])
            stepped = grids.moments(world.ask, at, world.schedule, sampler, pair)[-1].x / alpha_j
            want = float((stepped - reference.y[j]).norm(dim=1).mean())
            assert abs(float(cost[i, j]) - want) < 1e-9
    assert bool(torch.isinf(cost.tril()[cost.tril() != 0]).all())
    assert abs(float(end[-1])) < 1e-12, "the reference ends with the same step"


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [VP(), Flow(), Edm()], ids=lambda s: type(s).__name__)
def test_few_steps_of_first_order_end_nearer(schedule):
    """Data of std 0.2 and 0.8: a fixed grid suits one of them at best, a fitted one both."""
    total = {}
    for seed, scale in itertools.product(SEEDS, (0.25, 1.0)):
        world = World(seed, schedule, scale)
        exact, tables = world.exact(), world.tables([6, 8])
        for steps, sampler in itertools.product((6, 8), (Euler(), Ddim())):
            for make in (*OTHERS, lambda s, n, tables=tables: optimised(s, n, tables=tables)):
                name = make.__name__
                off = world.error(make(schedule, steps), sampler, exact)
                key = (steps, scale, name)
                total[key] = total.get(key, 0.0) + off / (2 * len(SEEDS))
    for steps in (6, 8):
        for make in OTHERS:
            both = [
                sum(total[steps, s, k] for s in (0.25, 1.0)) for k in ("<lambda>", make.__name__)
            ]
            assert both[0] < both[1], f"{steps} steps, {make.__name__}: {both}"
            # Measured: for data near unit std the cosine grid is a tie with the optimum, and a
            # search on the true end finds nothing better; so there it is only held to 2 %.
            room = 1.02 if make is cosine else 1.0
            assert total[steps, 1.0, "<lambda>"] < room * total[steps, 1.0, make.__name__]


def test_the_search_is_no_worse_than_any_start_on_its_own_paths():
    world, sampler = World(1, VP()), Dpmpp2M()
    levels = grids.levels_of(world.schedule)
    x = world.start(world.schedule.time_at(levels[0]), 10**6, 32)
    reference = grids.paths(world.ask, x, schedule=world.schedule, levels=levels)
    starts = [[0, 10, 20, 30], [0, 20, 35, 50], [0, 1, 2, 3]]

    def off(nodes):
        times = torch.cat([world.schedule.time_at(levels[nodes]), torch.zeros(1, dtype=F64)])
        last = grids.moments(world.ask, x, world.schedule, sampler, times)[-1].x
        return float((last - reference.end).square().mean())

    options = {"schedule": world.schedule, "sampler": sampler}
    nodes = grids.refined(lambda: world.ask, reference, starts, **options)
    assert nodes == sorted(set(nodes)) and nodes[0] == 0 and len(nodes) == 4
    assert off(nodes) < min(off(start) for start in starts)


def test_a_sampler_of_first_order_takes_the_optimum_as_it_is():
    world = World(2, VP())
    assert world.tables([3], sampler=Ddim()) == world.tables([3])
    assert world.tables([3], sampler=Dpmpp2M()) != world.tables([3])


@pytest.mark.slow
def test_six_steps_with_a_multistep_sampler():
    """On noise that was not fitted on. Measured, from 8 steps on the search is no longer better
    than every fixed grid, as 64 paths are few for a world whose paths part."""
    schedule, total = VP(), {}
    for seed in SEEDS:
        world = World(seed, schedule)
        exact, plain = world.exact(), world.tables([6])
        starts = [lambda n, make=make: make(schedule, n) for make in OTHERS]
        fitted = world.tables([6], sampler=Dpmpp2M(), grids=starts)
        rows = {"plain": optimised(schedule, 6, tables=plain)}
        rows["fitted"] = optimised(schedule, 6, tables=fitted)
        rows |= {make.__name__: make(schedule, 6) for make in OTHERS}
        for name, times in rows.items():
            total[name] = total.get(name, 0.0) + world.error(times, Dpmpp2M(), exact)
    assert total["fitted"] < min(value for name, value in total.items() if name != "fitted")


def test_a_table_is_found_by_its_number_of_steps_and_refused_otherwise():
    tables = {2: [1.0, -1.0], 3: [2.0, 0.0, -2.0]}
    times = optimised(VP(), 3, tables=tables)
    assert torch.equal(times, optimised(VP(), 3, tables={str(k): v for k, v in tables.items()}))
    assert torch.allclose(VP().level(times[:-1]), torch.tensor(tables[3], dtype=F64), atol=1e-8)
    with pytest.raises(UserError, match=r"2, 3 steps.*steerable grid RUN --steps 5"):
        optimised(VP(), 5, tables=tables)
    with pytest.raises(UserError, match="steerable grid RUN --steps 4"):
        optimised(VP(), 4)
    for broken in ([1.0], [0.0, 1.0], [1.0, 1.0], [-50.0, -60.0], [1.0, float("nan")]):
        with pytest.raises(UserError, match="falling"):
            optimised(VP(), 2, tables={2: broken})


MUTANTS = {
    "greedy": (
        "(best[:, None] + cost).min(0)",
        "(torch.where(best.isinf(), best, 0.0)[:, None] + cost).min(0)",
    ),
    "the last step is free": ("int((best + end).argmin())", "int(best.argmin())"),
    "not from the first node": ("best[0] = 0.0", "best[:] = 0.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name):
    with pytest.raises(AssertionError):
        check_exact(altered("jobs.grids", *MUTANTS[name]))
