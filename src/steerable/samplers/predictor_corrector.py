"""Predictor-corrector: Langevin steps at the level at hand, then a step down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, Range, spread

__all__ = ["PredictorCorrector"]


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """Langevin steps that repair the law at t, then the predictor from t to s.

    Corrector: x += eps score + sqrt(2 eps) z with eps = 2 a (snr |z| / |score|)^2, where
    a = (alpha_t / alpha_s)^2 is 1 - beta of the step (1 where the variance explodes). The paper
    averages both norms over the batch; so that an item does not depend on its neighbours, they
    are the values for noise, |z| = sqrt(D) and |score| = sqrt(D) / sigma, so eps =
    2 a (snr sigma)^2. The norms of the item itself would bias the law, since a step that depends
    on the place or on the very noise that it scales is not Langevin's: on 2-D mixtures the
    distance to the law stays at .09 in 200 calls, where this form and two exact samples have .05.
    Steps in proportion to the noise suit data as thin as pictures: where sigma is small they hardly
    move, and a law that changes with the noise is not reached. With `detail` they stay as long, so
    the last levels are plain Langevin sampling of nearly the law of the data: what strong guidance
    needs to sample p(x) p(y | x)^scale, which its score is at t near 0 only.
    Predictor: the step of `euler_maruyama`. On 2-D mixtures with the exact score it beats that
    predictor at equal calls with snr 0.4 in 60 calls (5 of 5 mixtures), not with the published
    0.16 (0 of 5); the correctors pay where the score is not exact, or calls abound.
    Source: Song et al., arXiv 2011.13456, algorithms 2 to 5.

    Args:
        corrector_steps: Langevin steps before each predictor step; each is one call.
        snr: Length of the Langevin steps; .05 to .2 is usual, larger is rougher.
        detail: Width of the narrowest part of the data, if it is known; the Langevin steps are as
            long below this sigma as at it.
    """

    corrector_steps: Annotated[int, Range(0, 20)] = 1
    snr: Annotated[float, Range(0.01, 0.5)] = 0.16
    detail: Annotated[float, Range(0, 1000)] = 0.0

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
        """One step; corrector_steps + 1 calls of the denoiser."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        for _ in range(self.corrector_steps):
            eps = 2.0 * (alpha_t / alpha_s * self.snr * sigma_t) ** 2
            eps = eps.clamp(min=2.0 * (self.snr * self.detail) ** 2)
            fresh = spread(torch.sqrt(2.0 * eps), x_t) * noise.normal(x_t)
            x_t = x_t + spread(eps, x_t) * ask(x_t, t).score + fresh
        fall = (sigma_t / alpha_t) ** 2 - (sigma_s / alpha_s) ** 2
        estimate = ask(x_t, t)
        kept = alpha_s * (sigma_s / alpha_s) ** 2 / (sigma_t / alpha_t)  # of z-hat, after the drift
        fresh = spread(alpha_s * torch.sqrt(fall.clamp(min=0.0)), x_t) * noise.normal(x_t)
        mean = spread(alpha_s, x_t) * estimate.x0 + spread(kept, x_t) * estimate.noise
        return mean + fresh, None
