"""A sampler that is wrong and obeys every label: what class accuracy alone does not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule, Tabulated
from steerable.core.types import Ask, spread
from steerable.oracles.mixture import Mixture
from steerable.recipes.part import Part, build

from .tour_line import begun, walk

__all__ = ["Broken", "broken"]

F64 = torch.float64


@dataclass(frozen=True)
class _WrongLevel(Sampler):
    """A broken sampler: x0-hat is noised with alpha of the old level and the noise of one step.

    x_s = alpha_t x0-hat + sqrt(beta) z, beta = 1 - (alpha_t / alpha_s)^2; right is `ancestral`.
    """

    order: ClassVar[int | None] = None
    stochastic: ClassVar[bool] = True

    def step(
        self, ask: Ask, x_t: Tensor, t: Tensor, s: Tensor, schedule: Schedule, memory: Any,
        noise: Noise,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """One wrong step; one call of the denoiser."""
        (alpha_t, _), (alpha_s, _) = schedule(t), schedule(s)
        beta = 1.0 - (alpha_t / alpha_s) ** 2
        fresh = spread(beta.sqrt(), x_t) * noise.normal(x_t)
        return spread(alpha_t, x_t) * ask(x_t, t).x0 + fresh, None


@dataclass(frozen=True)
class Broken:
    """Samples (N,2) of one way of sampling, with what is right and wrong about them."""

    name: str
    x: Tensor
    accuracy: float  # share whose class, by the exact posterior, is the one asked for
    shares: Tensor  # of the modes, (K,)
    spread: float  # standard deviation along the line of modes, over the exact one


def broken(seed: int, *, n: int = 1200, levels: int = 250) -> tuple[Mixture, list[Broken]]:
    """Two classes, one above the other, five modes each: exact, well and wrongly sampled."""
    schedule = Tabulated("linear", levels)
    place = torch.tensor([-1.5, -0.75, 0.0, 0.75, 1.5], dtype=F64)
    one, half = torch.ones(5, dtype=F64), torch.tensor([0.28, 0.14, 0.1, 0.2, 0.28], dtype=F64)
    means = torch.cat([torch.stack([place, 0.6 * one * side], 1) for side in (1, -1)])
    weights, stds = torch.cat([half, half.flip(0)]) / 2, torch.full((10,), 0.1, dtype=F64)
    world = Mixture(schedule, weights, means, stds, torch.arange(2).repeat_interleave(5))
    label = torch.arange(2).repeat_interleave(n // 2)
    g = torch.Generator().manual_seed(seed)
    drawn = torch.cat([world.draw(n // 2, g, label=k) for k in range(2)])
    found = [_judged(world, "exact draws", drawn, label)]
    ddpm = Part(kind="ddpm", options={"levels": levels})
    times = build("grid", ddpm, schedule=schedule, steps=levels)
    x = begun(schedule, times[0], torch.randn(n, 2, generator=g, dtype=F64))
    ways = {"ancestral": build("sampler", Part(kind="ancestral")), "wrong level": _WrongLevel()}
    for name, sampler in ways.items():
        ends = walk(
            lambda x_t, t: world(x_t, t, {"label": label}),
            x,
            schedule=schedule,
            sampler=sampler,
            times=times,
            seed=seed,
        )
        found.append(_judged(world, name, ends[-1], label))
    return world, found


def _judged(world: Mixture, name: str, x: Tensor, label: Tensor) -> Broken:
    assert world.labels is not None
    nearest = world.log_joint(x, torch.zeros((), dtype=F64), {}).argmax(1)
    accuracy = float((world.labels[nearest] == label).to(F64).mean())
    shares = torch.bincount(nearest, minlength=len(world.weights)) / len(x)
    exact = (world.weights * (world.means[:, 0] ** 2 + world.stds**2)).sum().sqrt()
    return Broken(name, x, accuracy, shares, float(x[:, 0].std() / exact))
