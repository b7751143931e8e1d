"""Classifier-free guidance: away from the unconditional answer, towards the conditional one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from steerable.core.condition import absent_like
from steerable.core.steer import Guidance
from steerable.core.types import Cond, Denoise, Estimate, Range

__all__ = ["Cfg"]


@dataclass(frozen=True, kw_only=True)
class Cfg(Guidance):
    """x0 = u + weight (c - u), with u and c the unconditional and the conditional estimate.

    Source: Ho and Salimans, arXiv 2207.12598; the interval: Kynkaanniemi et al., arXiv 2404.07724.

    Args:
        weight: 1 is off, 0 is unconditional, above 1 exaggerates the condition.
        start: Guidance is at work from this time on (1 is pure noise) ...
        stop: ... down to this time (0 is data); outside, the conditional estimate is used.
        together: Largest batch that is asked both in one doubled call, which is faster when
            small (measured: 1.2 to 1.4 times up to 16 pictures, equal at 64); same result.
    """

    weight: Annotated[float, Range(-100, 100)] = 2.0
    together: Annotated[int, Range(0, 65536)] = 32

    def __call__(self, denoise: Denoise) -> Denoise:
        def guided(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
            if self.weight == 1.0 or not cond or not self.active(t):
                return denoise(x_t, t, cond)
            if len(x_t) <= self.together:
                with_cond, without = self._doubled(denoise, x_t, t, cond)
            else:
                estimate = denoise(x_t, t, cond)
                with_cond, without = estimate.x0, denoise(x_t, t, {}).x0
                alpha, sigma = estimate.alpha, estimate.sigma
                return Estimate(torch.lerp(without, with_cond, self.weight), x_t, alpha, sigma)
            return with_cond.with_x0(torch.lerp(without.x0, with_cond.x0, self.weight))

        return guided

    @staticmethod
    def _doubled(denoise: Denoise, x_t: Tensor, t: Tensor, cond: Cond) -> tuple[Estimate, Estimate]:
        n = len(x_t)
        both = {name: torch.cat([value, absent_like(value)]) for name, value in cond.items()}
        times = t if t.ndim == 0 else torch.cat([t, t])
        answer = denoise(torch.cat([x_t, x_t]), times, both)
        alpha, sigma = (a if a.ndim == 0 else a[:n] for a in (answer.alpha, answer.sigma))
        first = Estimate(answer.x0[:n], x_t, alpha, sigma)
        return first, first.with_x0(answer.x0[n:])
