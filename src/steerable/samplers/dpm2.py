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
        guess = _moved(x_t, ask(x_t, t).noise, schedule(t), schedule(middle))
        return _moved(x_t, ask(guess, middle).noise, schedule(t), schedule(s)), None


def _moved(
    x_t: Tensor, slope: Tensor, here: tuple[Tensor, Tensor], there: tuple[Tensor, Tensor]
) -> Tensor:
    """Straight on along the slope d(x / alpha) / d(sigma / alpha) to (alpha, sigma) `there`."""
    scale = there[0] / here[0]
    return spread(scale, x_t) * x_t + spread(there[1] - scale * here[1], x_t) * slope
