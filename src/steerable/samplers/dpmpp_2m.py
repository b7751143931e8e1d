"""DPM-Solver++(2M): second order from the last two estimates, one call a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, spread

__all__ = ["Dpmpp2M"]


@dataclass(frozen=True)
class Dpmpp2M(Sampler):
    """Extrapolate x0-hat in lambda = log(alpha / sigma), then integrate the rest exactly.

    h = lambda_s - lambda_t, D = x0 + (h / 2 h_prev)(x0 - x0_prev),
    x_s = (sigma_s / sigma_t) x_t - alpha_s (exp(-h) - 1) D; the first step takes D = x0.
    Source: Lu et al., arXiv 2211.01095, algorithm 2.
    """

    order: ClassVar[int | None] = 2
    stochastic: ClassVar[bool] = False

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
        """One step; one call of the denoiser. Memory: the last estimate and step."""
        (_, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        h = schedule.level(t) - schedule.level(s)
        x0 = ask(x_t, t).x0
        extrapolated = x0
        if memory is not None:
            last_x0, last_h = memory
            extrapolated = x0 + spread(h / (2.0 * last_h), x_t) * (x0 - last_x0)
        weight = spread(-alpha_s * torch.expm1(-h), x_t)
        return spread(sigma_s / sigma_t, x_t) * x_t + weight * extrapolated, (x0, h)
