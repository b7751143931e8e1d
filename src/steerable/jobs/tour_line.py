"""Laws on a line, whose every answer is known: noising, sampling and guidance measured exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler, trajectory
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, Estimate
from steerable.guidance.cfg import Cfg
from steerable.oracles.mixture import Mixture
from steerable.processes.flow import flow
from steerable.recipes.part import Part, build

__all__ = [
    "BINS", "REACH", "Forward", "Reverse", "Tilt", "asked", "begun", "class_world", "density",
    "forward", "line_world", "reverse", "sliced_w2", "tilted_law", "tilts", "variation", "walk",
]  # fmt: skip

F64 = torch.float64
MODES = 6
PATHS = 24  # trajectories that are drawn
REACH = 3.2  # the line from -REACH to REACH holds all laws of unit variance here
WEIGHTS = (0.0, 1.0, 2.0, 4.0)  # of guidance
BINS = 64


def line_world(seed: int, schedule: Schedule) -> Mixture:
    """Six separate modes of unequal weight on a line, of mean 0 and variance 1."""
    g = torch.Generator().manual_seed(seed)
    place = (0.6 + 0.5 * torch.rand(MODES, generator=g, dtype=F64)).cumsum(0)
    weights = torch.rand(MODES, generator=g, dtype=F64).square() + 0.15
    weights = weights / weights.sum()
    stds = 0.08 + 0.1 * torch.rand(MODES, generator=g, dtype=F64)
    place = place - (weights * place).sum()
    scale = (weights * (place**2 + stds**2)).sum().sqrt()
    return Mixture(schedule, weights, place[:, None] / scale, stds / scale)


def density(world: Mixture, x: Tensor, t: Tensor, label: int | None = None) -> Tensor:
    """p_t at the places x (G,) or (G,D), given a class if there is a label, (G,)."""
    at = x[:, None] if x.ndim == 1 else x
    if label is None:
        return world.log_joint(at, t, {}).logsumexp(1).exp()
    assert world.labels is not None
    joint = world.log_joint(at, t, {"label": torch.full((len(at),), label)})
    return joint.logsumexp(1).exp() / world.weights[world.labels == label].sum()


def asked(world: Mixture) -> Ask:
    """The exact denoiser with no condition."""
    return lambda x_t, t: world(x_t, t, {})


def begun(schedule: Schedule, t: Tensor, z: Tensor) -> Tensor:
    """Noise z (B,D) as the start of data of unit variance at time t."""
    alpha, sigma = schedule(t)
    return math.hypot(float(alpha), float(sigma)) * z


def walk(
    ask: Ask, x: Tensor, *, schedule: Schedule, sampler: Sampler, times: Tensor, seed: int = 0
) -> Tensor:
    """The start and every moment of a trajectory, (N+1,B,D)."""
    noise = Noise(torch.arange(len(x)) + (seed << 32))
    moments = trajectory(ask, x, schedule=schedule, sampler=sampler, times=times, noise=noise)
    return torch.stack([x, *(moment.x for moment in moments)])


def sliced_w2(a: Tensor, b: Tensor, directions: int = 32) -> float:
    """Sliced 2-Wasserstein distance of two samples (N,D) of the same size, D at most 2."""
    angle = torch.arange(directions, dtype=F64) * math.pi / directions
    axes = torch.stack([angle.cos(), angle.sin()]) if a.shape[1] == 2 else torch.ones(1, 1).to(F64)
    one, other = ((v.to(F64) @ axes).sort(0).values for v in (a, b))
    return float((one - other).square().mean().sqrt())


def floor_w2(world: Mixture, n: int, g: torch.Generator) -> float:
    """Median distance of two exact samples: what a perfect sampler scores."""
    pairs = [sliced_w2(world.draw(n, g), world.draw(n, g)) for _ in range(7)]
    return sorted(pairs)[3]


@dataclass(frozen=True)
class Forward:
    """Densities p_t of a world at the times (T,) and places (G,), and paths (T,P) of data."""

    world: Mixture
    times: Tensor
    x: Tensor
    density: Tensor  # (T,G)
    paths: Tensor  # (T,P)


def forward(seed: int) -> Forward:
    """Noise the data of a line; a grid that climbs makes the library renoise exactly."""
    schedule = flow(1.0).schedule
    world = line_world(seed, schedule)
    times = torch.linspace(0, 1, 121, dtype=F64)
    x = torch.linspace(-REACH, REACH, 241, dtype=F64)
    sampler = build("sampler", Part(kind="ancestral"))
    x0 = world.draw(PATHS, torch.Generator().manual_seed(seed))
    paths = walk(asked(world), x0, schedule=schedule, sampler=sampler, times=times, seed=seed)
    return Forward(
        world, times, x, torch.stack([density(world, x, t) for t in times]), paths[..., 0]
    )


@dataclass(frozen=True)
class Reverse:
    """Samples (N,) of one sampler, some of their paths (T,P) at times (T,), and the distance."""

    kind: str
    steps: int
    calls: int
    times: Tensor
    paths: Tensor
    end: Tensor
    w2: float
    floor: float


def reverse(world: Mixture, kind: str, steps: int, *, seed: int, n: int = 4000) -> Reverse:
    """Sample a line with exact answers and compare where the samples end with the law."""
    times = build("grid", Part(kind="log_snr"), schedule=world.schedule, steps=steps)
    z = Noise(torch.arange(n) + (seed << 32)).normal(torch.zeros(n, 1, dtype=F64))
    calls = 0

    def ask(x_t: Tensor, t: Tensor) -> Estimate:
        nonlocal calls
        calls += 1
        return world(x_t, t, {})

    sampler = build("sampler", Part(kind=kind))
    x = begun(world.schedule, times[0], z)
    moments = walk(ask, x, schedule=world.schedule, sampler=sampler, times=times, seed=seed + 1)
    g = torch.Generator().manual_seed(seed + 1)
    w2, floor = sliced_w2(moments[-1], world.draw(n, g)), floor_w2(world, n, g)
    shown = moments[:, :PATHS, 0]
    return Reverse(kind, steps, calls, times, shown, moments[-1, :, 0], w2, floor)


@dataclass(frozen=True)
class Tilt:
    """Guidance of one weight: the tilted law and what is sampled, as shares of bins (BINS,).

    Attributes:
        weight: Of the guidance.
        law: p(x) p(y|x)^weight, normalised.
        ode: What the probability-flow ODE makes of evenly spaced quantiles.
        ancestral: What the ancestral sampler makes of random starts.
        floor: Total variation of as many exact draws from the law.
    """

    weight: float
    law: Tensor
    ode: Tensor
    ancestral: Tensor
    floor: float

    @property
    def off(self) -> tuple[float, float]:
        """Total variation of the ODE and of the ancestral sampler to the tilted law."""
        return variation(self.ode, self.law), variation(self.ancestral, self.law)


def variation(a: Tensor, b: Tensor) -> float:
    """Total variation of two laws given as shares of the same bins."""
    return 0.5 * float((a - b).abs().sum())


def _shares(x: Tensor) -> Tensor:
    return torch.histc(x.clamp(-REACH, REACH), BINS, -REACH, REACH) / x.numel()


def tilted_law(world: Mixture, weight: float) -> Tensor:
    """Shares of the law p(x) p(y|x)^w for the class 0: p(x|y)^w p(x)^(1 - w), normalised."""
    fine = BINS * 16
    x = (torch.arange(fine, dtype=F64) + 0.5) * (2 * REACH / fine) - REACH
    t = torch.zeros((), dtype=F64)
    log = weight * density(world, x, t, 0).log() + (1 - weight) * density(world, x, t).log()
    law = torch.softmax(log, 0)
    return law.reshape(BINS, 16).sum(1)


def class_world(schedule: Schedule) -> Mixture:
    """Two classes that overlap on a line, three modes each."""
    means = torch.tensor([-1.6, -0.4, 0.9, -0.9, 0.4, 1.7], dtype=F64)
    weights = torch.tensor([0.1, 0.28, 0.12, 0.25, 0.1, 0.15], dtype=F64)
    stds = torch.tensor([0.3, 0.35, 0.3, 0.3, 0.3, 0.25], dtype=F64)
    return Mixture(schedule, weights, means[:, None], stds, torch.arange(2).repeat_interleave(3))


def tilts(seed: int, *, n: int = 6000, steps: int = 100) -> list[Tilt]:
    """Sample the class 0 with guidance of every weight of `WEIGHTS`.

    In one dimension the ODE keeps the order of its starts, so quantiles of the start become
    quantiles of the law that is sampled: its histogram has no sampling noise.
    """
    world = class_world(flow(1.0).schedule)
    grids = {"heun": steps // 2, "ancestral": steps}  # heun asks twice a step
    share = (torch.arange(2000, dtype=F64) + 0.5) / 2000
    starts = {
        "heun": torch.special.ndtri(share)[:, None],
        "ancestral": Noise(torch.arange(n) + (seed << 32)).normal(torch.zeros(n, 1, dtype=F64)),
    }
    g = torch.Generator().manual_seed(seed)
    found = []
    for weight in WEIGHTS:
        guided, ends = Cfg(weight=weight)(world), {}
        for kind, z in starts.items():
            cond = {"label": torch.zeros(len(z), dtype=torch.int64)}
            grid = Part(kind="log_snr")
            times = build("grid", grid, schedule=world.schedule, steps=grids[kind])
            ends[kind] = walk(
                lambda x_t, t, ask=guided, cond=cond: ask(x_t, t, cond),
                begun(world.schedule, times[0], z),
                schedule=world.schedule,
                sampler=build("sampler", Part(kind=kind)),
                times=times,
                seed=seed + 2,
            )[-1]
        law = tilted_law(world, weight)
        drawn = torch.multinomial(law, n, replacement=True, generator=g)
        floor = variation(torch.bincount(drawn, minlength=BINS) / n, law)
        found.append(Tilt(weight, law, _shares(ends["heun"]), _shares(ends["ancestral"]), floor))
    return found
