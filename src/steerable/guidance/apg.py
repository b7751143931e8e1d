"""Adaptive projected guidance: classifier-free guidance without the part that saturates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from steerable.core.steer import Guidance
from steerable.core.types import Cond, Denoise, Estimate, Range, spread
from steerable.nn.precision import in_float32

__all__ = ["Apg"]


@dataclass(frozen=True, kw_only=True)
class Apg(Guidance):
    """x0 = c + (w - 1)(d_orthogonal + eta d_parallel), with d from c - u, split along c.

    c is the conditional estimate, u the one without any condition. First d <- (c - u) + momentum d,
    with the d of the call before; then an item's d that is longer than `norm` is scaled down to
    it; then it is split. The part along c changes contrast more than content, so the published
    eta = 0 leaves it out: large weights without over-saturation. An item of one number has no
    other part. Every call of the denoiser counts as a step of the momentum: in samplers with two
    calls a step, such as `heun`, it fades twice as fast, and the second call sees the first.
    Calls: two. Fulfils no product law.
    Source: Sadat et al., arXiv 2410.02416, algorithm 1.

    Args:
        weight: 1 is off, above 1 exaggerates the conditions.
        eta: Share of the part along c that is kept; 1 with norm 0 and momentum 0 is `cfg`.
        norm: Largest length |d| of an item; 0 is off. It grows with the root of an item's size.
        momentum: Share of the last d that is added; below 0 it turns away from where it went.
        start: Guidance is at work from this time on (1 is pure noise) ...
        stop: ... down to this time (0 is data); outside, the conditional estimate is used.
    """

    weight: Annotated[float, Range(-100, 100)] = 2.0
    eta: Annotated[float, Range(0, 1)] = 0.0
    norm: Annotated[float, Range(0, 1e6)] = 0.0
    momentum: Annotated[float, Range(-0.95, 0.95)] = -0.5

    @in_float32
    def __call__(self, denoise: Denoise) -> Denoise:
        last: Tensor | None = None  # of this trajectory

        def guided(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
            nonlocal last
            c = denoise(x_t, t, cond)
            if self.weight == 1.0 or not cond or not self.active(t):
                return c
            difference = c.x0 - denoise(x_t, t, {}).x0
            if last is not None:
                difference = difference + self.momentum * last
            last = difference.detach()
            return c.with_x0(c.x0 + (self.weight - 1.0) * self._projected(difference, c.x0))

        return guided

    def _projected(self, difference: Tensor, c: Tensor) -> Tensor:
        """The difference, no longer than `norm`, with less of what is parallel to c."""
        d, along = difference.flatten(1), c.flatten(1)
        if self.norm > 0:
            length = torch.linalg.vector_norm(d, dim=1, keepdim=True)
            d = d * (self.norm / length.clamp(min=self.norm))
        tiny = torch.finfo(d.dtype).tiny
        share = (d * along).sum(1) / along.square().sum(1).clamp(min=tiny)
        parallel = spread(share, d) * along
        return (d - (1.0 - self.eta) * parallel).reshape(c.shape)
