"""DPM-Solver-2: the slope at the middle of the step in log sigma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, spread

__all__ = ["Dpm2"]


@dataclass(frozen=True)
class Dpm2(Sampler):
    """The midpoint rule on d(x / alpha) / d(sigma / alpha) = z-hat, the middle in the logarithm.

    Source: Lu et al., arXiv 2206.00927, algorithm 1 with r1 = 1/2; k-diffusion, `sample_dpm_2`.
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
        """One step; two calls of the denoiser."""
        middle = schedule.time_at((schedule.level(t) + schedule.level(s)) / 2)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        alpha_m, sigma_m = schedule(middle)
        first = ask(x_t, t)
        guess = spread(alpha_m, x_t) * first.x0 + spread(sigma_m, x_t) * first.noise
        # The slope at the middle is the first one and this difference, of numbers that are small.
        change = (first.x0 - ask(guess, middle).x0) * spread(alpha_m / sigma_m, x_t)
        end = spread(alpha_s, x_t) * first.x0 + spread(sigma_s, x_t) * first.noise
        return end + spread(sigma_s - alpha_s / alpha_t * sigma_t, x_t) * change, None
