"""Linear multistep: the noise as a polynomial in the noise ratio, integrated exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask
from steerable.nn.multistep import adams, extended, lagrange_integrals

__all__ = ["Lms"]


@dataclass(frozen=True)
class Lms(Sampler):
    """Adams-Bashforth on d(x / alpha) / d(sigma / alpha) = z-hat, for steps of any length.

    x_s / alpha_s = x_t / alpha_t + sum_j w_j z-hat_j, where w_j is the integral of the Lagrange
    polynomial of the j-th of the last four answers, in r = sigma / alpha. The first steps have
    fewer answers: the order 4 is that of an exact history. From its own start it measures as 2.8
    where the path is bent, at sigma / alpha = 6, and as 3.6 from noise, where samples are made.
    Source: k-diffusion, `sample_lms`; Zhang and Chen, arXiv 2204.13902, rho-AB.
    """

    order: ClassVar[int | None] = 4
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
        """One step; one call of the denoiser. Memory: the last 4 answers and their levels."""
        start, end = schedule.level(t), schedule.level(s)
        estimate = ask(x_t, t)
        history = extended(memory, start, estimate.noise, ahead=end, most=4)
        levels = torch.stack([level for level, _ in history])
        weights = lagrange_integrals(levels, start, end, torch.exp)
        return adams(estimate, history, weights, schedule, s), history
