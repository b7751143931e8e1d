"""A process: schedule, target, law of t and weight of the loss.

DDPM, score-SDE, EDM and flow matching are four choices of these, never four code paths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import UserError
from .noise import Noise
from .schedule import Schedule
from .target import Target
from .types import Batch, Denoise, spread

__all__ = ["WEIGHTS", "Law", "Process", "Weight"]


@dataclass(frozen=True)
class Law:
    """The law of the training time, one t per item.

    Args:
        kind: `uniform` in t; `logit_normal`: log(sigma / alpha) ~ N(mean, std^2), which on the
            straight line is the logit-normal law of t; `levels`: uniform on t = 1/T, ..., 1.
        mean: Mean of log(sigma / alpha).
        std: Standard deviation of log(sigma / alpha).
        levels: T of the law `levels`.
        stratified: One draw in each of B equal shares of the law, which lowers the variance.
    """

    kind: str = "uniform"
    mean: float = 0.0
    std: float = 1.0
    levels: int = 1000
    stratified: bool = True

    def draw(self, n: int, noise: Noise, schedule: Schedule) -> Tensor:
        """Times (n,) float64 in [0, 1]."""
        u = noise.stratified(n) if self.stratified else noise.uniform(n)
        if self.kind == "logit_normal":
            return schedule.time_at(self.mean + self.std * torch.special.ndtri(u))
        if self.kind == "levels":
            return (torch.floor(u * self.levels) + 1.0) / self.levels
        if self.kind != "uniform":
            takes = "uniform, logit_normal or levels"
            raise UserError("E-CONFIG", where="law of t", got=repr(self.kind), takes=takes)
        return u


WEIGHTS = ("unit", "edm", "min_snr", "p2")


@dataclass(frozen=True)
class Weight:
    """Weight of the squared error of x0-hat.

    Args:
        kind: `unit`: weight one on the network's own target, 1 / c_out^2; `edm`: (r^2 + d^2) /
            (r d)^2 with r = sigma / alpha (arXiv 2206.00364); `min_snr`: min(SNR, gamma)
            (arXiv 2303.09556); `p2`: SNR / (1 + SNR), which is 1 / (1 + SNR) on the noise
            (arXiv 2204.00227, k = gamma = 1).
        gamma: Ceiling of `min_snr`.
    """

    kind: str = "unit"
    gamma: float = 5.0

    def __call__(self, alpha: Tensor, sigma: Tensor, target: Target) -> Tensor:
        """Weights (B,) for signal and noise scales (B,)."""
        ratio = sigma / alpha
        if self.kind == "unit":
            return 1.0 / target(alpha, sigma)[2] ** 2
        if self.kind == "edm":
            return (ratio**2 + target.data_std**2) / (ratio * target.data_std) ** 2
        if self.kind == "min_snr":
            return torch.clamp(1.0 / ratio**2, max=self.gamma)
        if self.kind == "p2":
            return 1.0 / (1.0 + ratio**2)
        raise UserError("E-CONFIG", where="weight", got=repr(self.kind), takes=", ".join(WEIGHTS))


@dataclass(frozen=True)
class Process:
    """How data is noised, which times are trained, and what an error costs."""

    schedule: Schedule
    target: Target
    law: Law = Law()
    weight: Weight = Weight()

    def draw(self, n: int, noise: Noise) -> Tensor:
        """Training times (n,) float64, one per item."""
        return self.law.draw(n, noise, self.schedule)

    def noised(self, x0: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """x_t = alpha x0 + sigma z, (B,*S)."""
        alpha, sigma = self.schedule(t)
        return spread(alpha, x0) * x0 + spread(sigma, x0) * z

    def loss(self, denoiser: Denoise, batch: Batch, noise: Noise) -> Tensor:
        """Weighted squared error of x0-hat per item, (B,), unreduced."""
        t = self.draw(len(batch.x), noise)
        return self.loss_at(denoiser, batch, t, noise.normal(batch.x))

    def loss_at(self, denoiser: Denoise, batch: Batch, t: Tensor, z: Tensor) -> Tensor:
        """The loss (B,) at given times t (B,) and noise z (B,*S)."""
        estimate = denoiser(self.noised(batch.x, t, z), t, batch.cond)
        weight = self.weight(*self.schedule(t), self.target).to(batch.x)
        return weight * (estimate.x0 - batch.x).square().flatten(1).mean(1)

    def start(self, t: Tensor, noise: Noise, like: Tensor) -> Tensor:
        """Noise to begin sampling with at time t: N(0, sigma^2 + alpha^2 d^2), (B,*S)."""
        alpha, sigma = self.schedule(t)
        scale = math.hypot(float(sigma), float(alpha) * self.target.data_std)
        return noise.normal(like) * scale
