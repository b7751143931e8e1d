"""Heun's method: an Euler step, then the mean of the slopes at both ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, spread

__all__ = ["Heun"]


@dataclass(frozen=True)
class Heun(Sampler):
    """The trapezoidal rule on d(x / alpha) / d(sigma / alpha) = z-hat.

    Source: Karras et al., arXiv 2206.00364, algorithm 1.
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
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        scale = spread(alpha_s / alpha_t, x_t)
        rise = spread(sigma_s - alpha_s / alpha_t * sigma_t, x_t)
        slope = ask(x_t, t).noise
        guess = scale * x_t + rise * slope
        return scale * x_t + rise * (slope + ask(guess, s).noise) / 2, None
