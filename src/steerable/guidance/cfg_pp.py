"""CFG++: guidance that interpolates, and puts the noise back that was found without a condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from steerable.core.schedule import Schedule
from steerable.core.steer import Guidance
from steerable.core.types import Cond, Denoise, Estimate, Range, spread
from steerable.nn.precision import in_float32

__all__ = ["CfgPp"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CfgPp(Guidance):
    """The step x_s = alpha_s (u + lambda (c - u)) + sigma_s z-hat_u, in the form of x0-hat.

    With r = sigma / alpha, that step is the one that `ddim` makes from x0 = u + w (c - u) with
    w = lambda / (1 - r_s / r_t): guidance that is weak in long steps and strong in short ones. At
    the end s = 0 and w = lambda. Exact with `ddim` and `euler`, which are the same step; with other
    samplers an approximation. s is the next time of the grid below t, so a call between two
    times belongs to the step around it. Calls: two. Fulfils no product law.
    Source: Chung et al., arXiv 2406.08070, algorithm 2.

    Args:
        schedule: The process.
        times: The times of sampling, (N+1,).
        scale: Lambda. 0 is unconditional; 1 is not off as it is in `cfg`, it is the strongest.
        start: Guidance is at work from this time on (1 is pure noise) ...
        stop: ... down to this time (0 is data); outside, the conditional estimate is used.
    """

    schedule: Schedule
    times: Tensor
    scale: Annotated[float, Range(0, 1)] = 0.6

    @in_float32
    def __call__(self, denoise: Denoise) -> Denoise:
        def guided(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
            c = denoise(x_t, t, cond)
            if not cond or not self.active(t):
                return c
            u = denoise(x_t, t, {}).x0
            return c.with_x0(u + spread(self._weight(t), x_t) * (c.x0 - u))

        return guided

    def _weight(self, t: Tensor) -> Tensor:
        """The weight of plain guidance at t, () or (B,)."""
        times = self.times.to(t)
        s = torch.where(times < t[..., None], times, torch.zeros_like(times)).amax(-1)
        ratio = torch.exp(self.schedule.level(s) - self.schedule.level(t))
        return self.scale / (1.0 - ratio.where(s > 0, 0.0))
