"""Euler-Maruyama on the reverse SDE, with the variance ratio as the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, spread

__all__ = ["EulerMaruyama"]


@dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """One Euler-Maruyama step of dy = -score(y) dv + dw in v = (sigma / alpha)^2, y = x / alpha.

    y_s = y_t + (v_t - v_s) score + sqrt(v_t - v_s) z, where the score of y is -z-hat sqrt(1 / v).
    The increments of v are exact, so that no derivative of the schedule is needed and no step is
    longer than the noise that is left. The step leaves too much variance, by (v_t - v_s)^2 / v_t:
    the law is right in the limit of many steps, where `ancestral` removes the noise exactly.
    Source: Song et al., arXiv 2011.13456, eq. 6 and appendix E.
    """

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
        """One step; one call of the denoiser."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        fall = (sigma_t / alpha_t) ** 2 - (sigma_s / alpha_s) ** 2
        estimate = ask(x_t, t)
        kept = alpha_s * (sigma_s / alpha_s) ** 2 / (sigma_t / alpha_t)  # of z-hat, after the drift
        fresh = spread(alpha_s * torch.sqrt(fall.clamp(min=0.0)), x_t) * noise.normal(x_t)
        mean = spread(alpha_s, x_t) * estimate.x0 + spread(kept, x_t) * estimate.noise
        return mean + fresh, None
