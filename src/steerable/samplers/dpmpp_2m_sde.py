"""DPM-Solver++(2M) on the reverse SDE: second order in the estimate, with fresh noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, Range, spread

__all__ = ["Dpmpp2MSde"]


@dataclass(frozen=True)
class Dpmpp2MSde(Sampler):
    """Extrapolate x0-hat as `dpmpp_2m` does, and solve the linear SDE that is left exactly.

    h = lambda_s - lambda_t, g = (1 + eta) h, w = 1 - exp(-g), D = (x0 - x0_prev) h / h_prev;
    x_s = (sigma_s / sigma_t) exp(-eta h) x_t + alpha_s (w x0 + c D)
    + sigma_s sqrt(1 - exp(-2 eta h)) z, with c = w / 2 (midpoint) or 1 - w / g (heun).
    Source: Lu et al., arXiv 2211.01095, appendix; k-diffusion, `sample_dpmpp_2m_sde`.

    Args:
        eta: Share of the fresh noise: 1 is the reverse SDE, 0 is the ODE.
        solver: How the change of x0-hat within a step is weighed.
    """

    eta: Annotated[float, Range(0, 1)] = 1.0
    solver: Literal["midpoint", "heun"] = "midpoint"

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
        """One step; one call of the denoiser. Memory: the last estimate and step."""
        (_, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        h = schedule.level(t) - schedule.level(s)
        g = (1.0 + self.eta) * h
        weight = -torch.expm1(-g)
        x0 = ask(x_t, t).x0
        mean = spread(weight, x_t) * x0
        if memory is not None:
            last_x0, last_h = memory
            share = weight / 2.0 if self.solver == "midpoint" else 1.0 - weight / g
            mean = mean + spread(share * h / last_h, x_t) * (x0 - last_x0)
        kept = sigma_s / sigma_t * torch.exp(-self.eta * h)
        fresh = sigma_s * torch.sqrt(-torch.expm1(-2.0 * self.eta * h))
        x_s = spread(kept, x_t) * x_t + spread(alpha_s, x_t) * mean
        return x_s + spread(fresh, x_t) * noise.normal(x_t), (x0, h)
