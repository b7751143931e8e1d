"""Restart: go back up with fresh noise and come down again, some times."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, Range, spread
from steerable.nn.trapezium import trapezium

__all__ = ["Restart"]


@dataclass(frozen=True)
class Restart(Sampler):
    """Heun's method; the step that passes below `low` is repeated from `high`.

    When the noise ratio passes from above `low` to `low` or below, the sample goes back up to
    `high` by exact renoising and comes down again in `inner` Heun steps, `repeats` times. Each
    turn forgets a share of the errors made above. A grid that never passes `low` before its last
    step, which is not a sampler's, restarts never.
    Source: Xu et al., arXiv 2306.14878, algorithm 1; defaults: its CIFAR-10 settings, [0.06, 0.30]
    for data of std 0.5, read for data of unit variance.

    Args:
        low: Lower end of the interval, as sigma / alpha; the grid's first level below counts.
        high: Upper end of the interval, as sigma / alpha; at most what the schedule reaches.
        repeats: How often the interval is passed again; 2 * repeats * inner calls in all.
        inner: Heun steps of one passage, equal in log(sigma / alpha).
    """

    low: Annotated[float, Range(1e-3, 100)] = 0.12
    high: Annotated[float, Range(1e-3, 1000)] = 0.6
    repeats: Annotated[int, Range(1, 50)] = 2
    inner: Annotated[int, Range(1, 50)] = 3

    def __post_init__(self) -> None:
        if self.high <= self.low:
            takes = f"a number above low = {self.low}"
            raise UserError("E-CONFIG", where="restart.high", got=str(self.high), takes=takes)

    order: ClassVar[int | None] = None
    stochastic: ClassVar[bool] = True

    def step(
        self,
        ask: Ask,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        schedule: Schedule,
        memory: Any,
        noise: Noise,
    ) -> tuple[Tensor, Any]:
        """One step; two calls of the denoiser, and those of the passages where they fall."""
        x_s = trapezium(ask, x_t, t, s, schedule)
        bottom = schedule.level(s)
        if schedule.level(t) > math.log(self.low) >= bottom:
            top = schedule.level(schedule.time_at(torch.full_like(bottom, math.log(self.high))))
            share = torch.linspace(0.0, 1.0, self.inner + 1, dtype=torch.float64).to(top)
            times = [schedule.time_at(level) for level in top + share[:-1] * (bottom - top)]
            for _ in range(self.repeats):
                x = _renoised(x_s, s, times[0], schedule, noise)
                for u, v in pairwise([*times, s]):
                    x = trapezium(ask, x, u, v, schedule)
                x_s = x
        return x_s, None


def _renoised(x_s: Tensor, s: Tensor, t: Tensor, schedule: Schedule, noise: Noise) -> Tensor:
    """A draw of the forward process from s up to t."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = schedule(s), schedule(t)
    scale = alpha_t / alpha_s
    missing = torch.sqrt((sigma_t**2 - (scale * sigma_s) ** 2).clamp(min=0.0))
    return spread(scale, x_s) * x_s + spread(missing, x_s) * noise.normal(x_s)
