"""EDM's stochastic sampler: put a little noise back, then step down by Heun's method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, Range, spread
from steerable.nn.trapezium import trapezium

__all__ = ["HeunChurn"]


@dataclass(frozen=True)
class HeunChurn(Sampler):
    """Raise the noise ratio r_t by the factor 1 + churn, then one Heun step to r_s, on the line.

    A kind of its own beside `heun`, because a sampler says once for all whether it is stochastic
    and the loop climbs accordingly. The paper's S_churn is `churn` times the number of steps:
    gamma = min(S_churn / N, sqrt(2) - 1), and a step does not know N.
    Source: Karras et al., arXiv 2206.00364, algorithm 2; defaults: S_churn = 40 in 256 steps.

    Args:
        churn: gamma, the relative rise of the noise ratio before each step; 0 is `heun`.
        churn_min: Lowest sigma / alpha at which noise is added.
        churn_max: Highest sigma / alpha at which noise is added.
        churn_noise: Standard deviation of the added noise; a little over 1 makes up for
            a network that removes too much.
        variable: What Heun's step is taken over, as in `heun`; `ratio` is the published one.
    """

    churn: Annotated[float, Range(0, 0.4142135623730951)] = 0.15625
    churn_min: Annotated[float, Range(0, 1e4)] = 0.05
    churn_max: Annotated[float, Range(0, 1e4)] = 50.0
    churn_noise: Annotated[float, Range(0.9, 1.1)] = 1.003
    variable: Literal["line", "ratio"] = "line"

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
        """One step; two calls of the denoiser."""
        level = schedule.level(t)
        if self.churn > 0 and self.churn_min <= math.exp(level) <= self.churn_max:
            higher = schedule.time_at(level + math.log1p(self.churn))
            (alpha_t, sigma_t), (alpha_u, sigma_u) = schedule(t), schedule(higher)
            scale = alpha_u / alpha_t
            missing = torch.sqrt((sigma_u**2 - (scale * sigma_t) ** 2).clamp(min=0.0))
            fresh = spread(self.churn_noise * missing, x_t) * noise.normal(x_t)
            x_t, t = spread(scale, x_t) * x_t + fresh, higher
        return trapezium(ask, x_t, t, s, schedule, line=self.variable == "line"), None
