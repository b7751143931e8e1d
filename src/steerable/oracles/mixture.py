"""The exact denoiser of a Gaussian mixture, conditional on a label if components have one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steerable.core.condition import absent
from steerable.core.schedule import Schedule
from steerable.core.types import Cond, Estimate, spread

__all__ = ["Mixture"]


@dataclass(frozen=True)
class Mixture:
    """E[x0 | x_t] for p(x0) = sum_k w_k N(mean_k, std_k^2 I) under a schedule.

    p(x_t) = sum_k w_k N(alpha mean_k, v_k), v_k = alpha^2 std_k^2 + sigma^2, so with
    responsibilities g_k: x0 = sum_k g_k (mean_k + (alpha std_k^2 / v_k)(x_t - alpha mean_k)).

    Args:
        schedule: The process whose x_t is asked about.
        weights: (K,), summing to one.
        means: (K,D).
        stds: (K,).
        labels: Class of each component, (K,) int64; with `cond["label"]` (B,) only components of
            that class count, and an absent label means all.
    """

    schedule: Schedule
    weights: Tensor
    means: Tensor
    stds: Tensor
    labels: Tensor | None = None

    def log_joint(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """Log w_k N(x_t; alpha mean_k, v_k), (B,K)."""
        alpha, sigma = (spread(a.to(x_t), x_t) for a in self.schedule(t))
        variance = alpha**2 * self.stds.to(x_t) ** 2 + sigma**2
        distance = (x_t[:, None, :] - alpha[..., None] * self.means.to(x_t)).square().sum(-1)
        dims = x_t.shape[1]
        log = self.weights.to(x_t).log() - distance / (2 * variance)
        log = log - 0.5 * dims * torch.log(2 * torch.pi * variance)
        if self.labels is not None and "label" in cond:
            wrong = self.labels[None] != cond["label"][:, None]
            wrong &= ~absent(cond["label"])[:, None]
            log = log.masked_fill(wrong, -torch.inf)
        return log

    def __call__(self, x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
        """The exact estimate for x_t (B,D)."""
        alpha, sigma = self.schedule(t)
        a, s = spread(alpha, x_t), spread(sigma, x_t)
        stds = self.stds.to(x_t)
        gain = a * stds**2 / (a**2 * stds**2 + s**2)
        share = torch.softmax(self.log_joint(x_t, t, cond), 1)
        means = self.means.to(x_t)
        inner = means + gain[..., None] * (x_t[:, None, :] - a[..., None] * means)
        return Estimate((share[..., None] * inner).sum(1), x_t, alpha, sigma)

    def draw(self, n: int, generator: torch.Generator, label: int | None = None) -> Tensor:
        """Exact draws (n,D), of one class if `label` is given."""
        weights = self.weights.clone()
        if label is not None:
            assert self.labels is not None
            weights = weights.masked_fill(self.labels != label, 0.0)
        k = torch.multinomial(weights, n, replacement=True, generator=generator)
        z = torch.randn(n, self.means.shape[1], dtype=self.means.dtype, generator=generator)
        return self.means[k] + self.stds[k, None] * z
