"""Euler's method on the probability-flow ODE, with the noise ratio as the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, spread

__all__ = ["Euler"]


@dataclass(frozen=True)
class Euler(Sampler):
    """Euler on d(x / alpha) / d(sigma / alpha) = z-hat, the same path for every schedule.

    The step is that of `ddim`; on the straight line of flow matching it is Euler in t.
    Source: Karras et al., arXiv 2206.00364, algorithm 1 without the correction.
    """

    order: ClassVar[int | None] = 1
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
        """One step; one call of the denoiser."""
        alpha_s, sigma_s = schedule(s)
        estimate = ask(x_t, t)
        # x_t / alpha_t + (r_s - r_t) z-hat with x_t = alpha_t x0 + sigma_t z-hat put in: the terms
        # with r_t = sigma_t / alpha_t, 10^4 at t = 1 of a flow, cancel on paper, not in float32.
        return spread(alpha_s, x_t) * estimate.x0 + spread(sigma_s, x_t) * estimate.noise, None
