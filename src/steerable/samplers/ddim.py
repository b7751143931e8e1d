"""DDIM: the deterministic first-order step, straight in (alpha, sigma)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, spread

__all__ = ["Ddim"]


@dataclass(frozen=True)
class Ddim(Sampler):
    """x_s = alpha_s x0-hat + sigma_s z-hat: remove all the noise, put the lesser amount back.

    With fresh noise in the step it becomes `ancestral`, whose `eta` covers the values between.
    Source: Song et al., arXiv 2010.02502, eq. 12 with sigma = 0.
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
        return spread(alpha_s, x_t) * estimate.x0 + spread(sigma_s, x_t) * estimate.noise, None
