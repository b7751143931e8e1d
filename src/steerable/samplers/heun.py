"""Heun's method: an Euler step, then the mean of the slopes at both ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask
from steerable.nn.trapezium import trapezium

__all__ = ["Heun"]


@dataclass(frozen=True)
class Heun(Sampler):
    """The trapezoidal rule on the probability-flow ODE, in one of two variables.

    `line`: with u = sigma / (alpha + sigma) and y = x / (alpha + sigma), dy/du = z-hat - x0-hat; on
    the straight line of flow matching this is Heun in t, and no step is ever long, since u is at
    most 1. `ratio`: d(x / alpha) / d(sigma / alpha) = z-hat as published. There a first step from
    sigma / alpha = 10^4, where grids in t begin, gives half of its length to the slope at its end,
    and few steps end in noise. Both are of second order.
    Source: Karras et al., arXiv 2206.00364, algorithm 1; in t: Lipman et al., arXiv 2210.02747.

    Args:
        variable: What is integrated over.
    """

    variable: Literal["line", "ratio"] = "line"

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
        return trapezium(ask, x_t, t, s, schedule, line=self.variable == "line"), None
