"""The exact denoiser of a Gaussian with any covariance, and its exact ODE map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steerable.core.schedule import Schedule
from steerable.core.types import Cond, Estimate, spread

__all__ = ["Gaussian"]


@dataclass(frozen=True)
class Gaussian:
    """E[x0 | x_t] for x0 ~ N(mean, covariance) under a schedule.

    Args:
        schedule: The process whose x_t is asked about.
        mean: (D,).
        covariance: (D,D), positive definite.
    """

    schedule: Schedule
    mean: Tensor
    covariance: Tensor

    def __call__(self, x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
        """The exact estimate for x_t (B,D) at one time t ()."""
        alpha, sigma = self.schedule(t)
        values, basis = self._spectrum(x_t)
        gain = alpha.to(x_t) * values / (alpha.to(x_t) ** 2 * values + sigma.to(x_t) ** 2)
        mean = self.mean.to(x_t)
        rest = (x_t - spread(alpha, x_t) * mean) @ basis
        return Estimate(mean + (gain * rest) @ basis.mT, x_t, alpha, sigma)

    def flow(self, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Where the exact probability-flow ODE takes x_t (B,D) from time t to time s."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.schedule(t), self.schedule(s)
        values, basis = self._spectrum(x_t)
        before = alpha_t.to(x_t) ** 2 * values + sigma_t.to(x_t) ** 2
        after = alpha_s.to(x_t) ** 2 * values + sigma_s.to(x_t) ** 2
        mean = self.mean.to(x_t)
        rest = (x_t - spread(alpha_t, x_t) * mean) @ basis
        return spread(alpha_s, x_t) * mean + (torch.sqrt(after / before) * rest) @ basis.mT

    def _spectrum(self, like: Tensor) -> tuple[Tensor, Tensor]:
        values, basis = torch.linalg.eigh(self.covariance.to(like))
        return values, basis
