"""A law in the plane: a learned score beside the exact one, every sampler and every grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steerable.backbones.mlp import Mlp
from steerable.core.denoise import Denoiser
from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.process import Process
from steerable.core.sample import Sampler, times_of, trajectory
from steerable.core.schedule import VP, Schedule
from steerable.core.steer import Constraint
from steerable.core.types import Ask, Batch
from steerable.oracles.gaussian import Gaussian
from steerable.oracles.mixture import Mixture
from steerable.processes.flow import flow
from steerable.recipes.part import Part, build, describe, find, kinds

from .grids import optimised_tables
from .tour_line import asked, begun, walk

__all__ = [
    "RATIOS", "STEPS", "Field", "Grid", "Order", "Walk", "field", "grids", "orders",
    "plane_world", "pooled", "training", "walks",
]  # fmt: skip

F64 = torch.float64
ITERATIONS, BATCH = 500, 2048  # of the small network
RATIOS = (0.3, 0.7, 1.8)  # sigma / alpha at which the fields are compared
STEPS = 12
COUNTS = (24, 48, 96, 192)  # steps of the orders


def plane_world(seed: int, schedule: Schedule) -> Mixture:
    """Five modes of unequal weight about a ring, of variance near 1."""
    g = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * (torch.arange(5) + 0.5 * torch.rand(5, generator=g, dtype=F64)) / 5
    weights = torch.tensor([0.34, 0.25, 0.19, 0.13, 0.09], dtype=F64)
    weights = weights[torch.randperm(5, generator=g)]
    means = 1.3 * torch.stack([angle.cos(), angle.sin()], 1)
    stds = 0.22 + 0.1 * torch.rand(5, generator=g, dtype=F64)
    return Mixture(schedule, weights, means - (weights[:, None] * means).sum(0), stds)


def training(seed: int) -> Iterator[tuple[float, Denoiser]]:
    """Train a small network on draws of a plane world: the share done, and the denoiser."""
    process = flow(1.0, target="edm", law="uniform")
    world, g = plane_world(seed, process.schedule), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        denoiser = Denoiser(process, Mlp((2,), hidden=64, blocks=1, width=32), {})
    optimiser = torch.optim.AdamW(denoiser.parameters(), lr=1e-2)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, ITERATIONS)
    for i in range(ITERATIONS):
        noise = Noise.of(seed, iteration=i, items=torch.arange(BATCH))
        loss = process.loss(denoiser, Batch(world.draw(BATCH, g).float()), noise).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
        yield (i + 1) / ITERATIONS, denoiser


@dataclass(frozen=True)
class Field:
    """Exact and learned score at one level, at places (G,2) where there is data.

    Attributes:
        ratio: sigma / alpha.
        x: The places.
        exact: The exact score there.
        learned: That of the network.
        error: Root of E|learned - exact|^2 / E|exact|^2, under p_t.
        size: sigma^2 E|exact|^2, what the level weighs beside others.
    """

    ratio: float
    x: Tensor
    exact: Tensor
    learned: Tensor
    error: float
    size: float


@torch.no_grad()
def field(denoiser: Denoiser, ratio: float, *, seed: int) -> Field:
    """Compare the learned score with the exact one at one level."""
    process: Process = denoiser.process
    world, g = plane_world(seed, process.schedule), torch.Generator().manual_seed(seed + 1)
    t = process.schedule.time_at(torch.tensor(ratio, dtype=F64).log())

    def scores(x: Tensor) -> tuple[Tensor, Tensor]:
        return world(x, t, {}).score, denoiser(x.float(), t, {}).score.to(F64)

    x0 = world.draw(4000, g)
    exact, got = scores(process.noised(x0, t, torch.randn(x0.shape, generator=g, dtype=F64)))
    error = float(((got - exact).square().sum() / exact.square().sum()).sqrt())
    line = torch.linspace(-2.2, 2.2, 19, dtype=F64)
    x = torch.cartesian_prod(line, line)
    log = world.log_joint(x, t, {}).logsumexp(1)
    x = x[log > log.max() - 5.0]
    size = float((process.schedule(t)[1] * exact).square().sum(1).mean())
    return Field(ratio, x, *scores(x), error, size)


def pooled(fields: Sequence[Field]) -> float:
    """The relative error over all levels, weighted with sigma^2 as the loss weighs them."""
    total = sum(f.size for f in fields)
    return math.sqrt(sum(f.size * f.error**2 for f in fields) / total)


@dataclass(frozen=True)
class Walk:
    """The way of one sampler (N+1,B,2) over a grid of N steps."""

    kind: str
    order: int | None
    stochastic: bool
    calls: int
    x: Tensor


def walks(seed: int, *, n: int = 7) -> tuple[list[Walk], dict[str, str]]:
    """Every sampler of the room from the same starts; and those that lack a library, with why."""
    world = plane_world(seed, flow(1.0).schedule)
    times = build("grid", Part(kind="log_snr"), schedule=world.schedule, steps=STEPS)
    z = Noise(torch.arange(n) + (seed << 32)).normal(torch.zeros(n, 2, dtype=F64))
    x = begun(world.schedule, times[0], z)
    found, missing = [], {}
    for kind in kinds("sampler"):
        sampler = build("sampler", Part(kind=kind))
        times_asked: list[float] = []

        def ask(x_t: Tensor, t: Tensor, seen: list[float] = times_asked) -> Any:
            seen.append(float(t))
            return world(x_t, t, {})

        try:
            way = walk(ask, x, schedule=world.schedule, sampler=sampler, times=times, seed=seed)
        except UserError as error:
            if error.code != "E-EXTRA":
                raise
            missing[kind] = f"{error.got}: {error.do}"
            continue
        found.append(Walk(kind, sampler.order, sampler.stochastic, len(times_asked), way))
    return found, missing


@dataclass(frozen=True)
class Order:
    """Errors (N,) of a sampler at numbers of steps, and the order that they show."""

    kind: str
    declared: int
    counts: tuple[int, ...]
    errors: list[float]

    @property
    def measured(self) -> float:
        """Minus the slope of log error against log steps, without the coarsest grid."""
        x, y = (torch.tensor(v[1:], dtype=F64).log() for v in (self.counts, self.errors))
        x, y = x - x.mean(), y - y.mean()
        return -float((x * y).sum() / x.square().sum())


@dataclass(frozen=True, kw_only=True)
class _OnPath(Constraint):
    """Puts the first samples of a run where the exact path is."""

    world: Gaussian
    x: Tensor  # at the time t
    t: Tensor
    until: float

    def __call__(self, x_s: Tensor, s: Tensor, schedule: Schedule, noise: Noise) -> Tensor:
        return self.world.flow(self.x, self.t, s) if float(s) >= self.until else x_s


def orders(seed: int) -> list[Order]:
    """Error against number of steps on Gaussian data, whose ODE has a closed form.

    From sigma / alpha = 6 to 0.1. A multistep method begins with steps of lower order, whose
    error would hide its own: so its first order - 1 samples are put on the exact path.
    """
    found = []
    for kind in kinds("sampler"):
        sampler = build("sampler", Part(kind=kind))
        if sampler.order is not None:
            errors = [_error(sampler, count, seed) for count in COUNTS]
            found.append(Order(kind, sampler.order, COUNTS, errors))
    return found


def _error(sampler: Sampler, count: int, seed: int) -> float:
    """Root mean square distance to the end of the exact path after `count` steps."""
    schedule = VP()
    basis = torch.tensor([[1.0, 0.4], [-0.3, 0.8]], dtype=F64)
    world = Gaussian(schedule, torch.tensor([0.7, -0.4], dtype=F64), 0.5 * basis @ basis.mT)
    share = torch.linspace(0, 1, count + 1, dtype=F64)
    times = schedule.time_at(math.log(6.0) + share * (math.log(0.1) - math.log(6.0)))
    noise = Noise(torch.arange(16) + (seed << 32))
    x = begun(schedule, times[0], noise.normal(torch.zeros(16, 2, dtype=F64)))
    assert sampler.order is not None
    held = _OnPath(world=world, x=x, t=times[0], until=float(times[sampler.order - 1]))
    moments = trajectory(
        lambda x_t, t: world(x_t, t, {}),
        x,
        schedule=schedule,
        sampler=sampler,
        times=times,
        noise=noise,
        constraints=[held],
    )
    end = [moment.x for moment in moments][-1]
    return float((end - world.flow(x, times[0], times[-1])).square().mean().sqrt())


@dataclass(frozen=True)
class Grid:
    """Levels log(sigma / alpha) (STEPS,) of a grid, and how far `ddim` ends from the exact ODE."""

    kind: str
    levels: Tensor
    off: float


def grids(seed: int) -> list[Grid]:
    """Every grid of the room at the same number of steps; fitted ones are fitted to this world."""
    schedule = flow(1.0).schedule
    world = plane_world(seed, schedule)
    z = Noise(torch.arange(128) + (seed << 32)).normal(torch.zeros(128, 2, dtype=F64))
    found = []
    for kind in kinds("grid"):
        options: dict[str, Any] = {}
        if "tables" in {option["name"] for option in describe("grid", kind)["options"]}:
            start = begun(schedule, times_of(schedule, torch.tensor([math.log(160.0)]))[0], -z)
            tables = optimised_tables(lambda: asked(world), schedule, [STEPS], start=start)
            options = {"tables": tables}
        times = find("grid", kind)(schedule, STEPS, **options)
        found.append(Grid(kind, schedule.level(times[:-1]), _off(asked(world), schedule, times, z)))
    return found


def _off(ask: Ask, schedule: Schedule, times: Tensor, z: Tensor) -> float:
    """Mean distance of the ends of `ddim` on a grid and of a fine solution from the same starts."""
    low = math.log(0.004)
    fine = torch.linspace(float(schedule.level(times[0])), low, 100, dtype=F64)
    x = begun(schedule, times[0], z)
    runs = (("ddim", times), ("heun", times_of(schedule, fine)))
    ends = [
        walk(ask, x, schedule=schedule, sampler=build("sampler", Part(kind=kind)), times=grid)[-1]
        for kind, grid in runs
    ]
    return float((ends[0] - ends[1]).norm(dim=1).mean())
