"""Thresholding: the clean item never leaves the range of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from steerable.core.steer import Guidance
from steerable.core.types import Cond, Denoise, Estimate, Range, spread
from steerable.nn.precision import in_float32

__all__ = ["Threshold"]


@dataclass(frozen=True, kw_only=True)
class Threshold(Guidance):
    """Clip x0-hat to [-limit, limit]; with a quantile below 1, scale each item down before.

    Static: x0 <- clip(x0, -limit, limit), the clip of DDPM. Dynamic: with s the quantile of |x0| of
    an item, but at least `limit`, x0 <- clip(x0, -s, s) limit / s, which keeps strong guidance from
    saturating. For items in pixels; latents have no such range.
    Source: Ho et al., arXiv 2006.11239; dynamic: Saharia et al., arXiv 2205.11487, section 2.3.

    Args:
        limit: Largest absolute value of the data.
        quantile: 1 clips; 0.995 is the published dynamic threshold.
        start: At work from this time on (1 is pure noise) ...
        stop: ... down to this time (0 is data).
    """

    limit: Annotated[float, Range(1e-3, 1e3)] = 1.0
    quantile: Annotated[float, Range(0.5, 1)] = 1.0

    @in_float32
    def __call__(self, denoise: Denoise) -> Denoise:
        def guided(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
            estimate = denoise(x_t, t, cond)
            if not self.active(t):
                return estimate
            x0, limit = estimate.x0, self.limit
            if self.quantile == 1.0:
                return estimate.with_x0(x0.clamp(-limit, limit))
            reach = torch.quantile(x0.abs().flatten(1), self.quantile, dim=1).clamp(min=limit)
            scale = spread(reach, x0)
            return estimate.with_x0(torch.maximum(torch.minimum(x0, scale), -scale) * limit / scale)

        return guided
