"""The stochastic posterior step of DDPM, for any schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, Range, spread

__all__ = ["Ancestral"]


@dataclass(frozen=True)
class Ancestral(Sampler):
    """Draw x_s from the posterior of the forward process given x_t and x0-hat.

    x_s = alpha_s x0 + sqrt(sigma_s^2 - tau^2) z-hat + tau z, with
    tau^2 = eta^2 (sigma_s^2 / sigma_t^2) (sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2).
    On the integer grid of a DDPM this is its sampler with the posterior variance.
    Source: Ho et al., arXiv 2006.11239, eq. 7; Song et al., arXiv 2010.02502, eq. 16.

    Args:
        eta: Share of the fresh noise: 1 is ancestral, 0 is DDIM.
    """

    eta: Annotated[float, Range(0, 1)] = 1.0

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
        """One posterior draw; one call of the denoiser."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        estimate = ask(x_t, t)
        fresh = (sigma_s / sigma_t) ** 2 * (sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2)
        tau = self.eta * torch.sqrt(fresh.clamp(min=0.0))
        kept = torch.sqrt((sigma_s**2 - tau**2).clamp(min=0.0))
        x_s = spread(alpha_s, x_t) * estimate.x0 + spread(kept, x_t) * estimate.noise
        return x_s + spread(tau, x_t) * noise.normal(x_t), None
