"""DiffPIR: the clean estimate is moved to where it agrees with a measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from steerable.core.steer import Guidance, Operator
from steerable.core.types import Cond, Denoise, Estimate, Range, spread
from steerable.nn.precision import in_float32

__all__ = ["Diffpir"]

# Below this weight `nearest` would amplify the rounding of float32 (6e-8) by more than 5000.
_FLOOR = 1e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class Diffpir(Guidance):
    """x0 <- the minimiser over x of |y - A x|^2 + k |x - x0|^2, k = lam noise^2 / (sigma/alpha)^2.

    The proximal step of a linear measurement y = A x + noise z, closed for every operator of the
    library: no gradient through the network, one call a step. A measurement without noise gives
    k -> 0, the projection onto A x = y; k is held above 1e-8, so that directions that A weakens ten
    thousand times are left to the network. The estimate is right where the posterior of x0 given
    x_t is round; where it is not, the samples are biased: use `posterior` when that matters.
    Source: Zhu et al., arXiv 2305.08995, algorithm 1; `eta` of the sampler is their zeta.

    Args:
        operator: A.
        measured: y, (B,*Y).
        noise: Standard deviation of the noise of y, on the scale of the data.
        lam: Trust in the network against the measurement.
        start: At work from this time on (1 is pure noise) ...
        stop: ... down to this time (0 is data).
    """

    operator: Operator
    measured: Tensor
    noise: Annotated[float, Range(0, 100)] = 0.0
    lam: Annotated[float, Range(0, 1e4)] = 1.0

    @in_float32
    def __call__(self, denoise: Denoise) -> Denoise:
        def guided(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
            estimate = denoise(x_t, t, cond)
            if not self.active(t):
                return estimate
            return estimate.with_x0(self._nearest(estimate))

        return guided

    def _nearest(self, estimate: Estimate) -> Tensor:
        x0 = near = estimate.x0
        k = self.lam * (self.noise * estimate.alpha / estimate.sigma) ** 2
        k = k.clamp(min=_FLOOR)
        for weight in k.unique():  # one, unless the items have times of their own
            moved = self.operator.nearest(x0, self.measured.to(x0), float(weight))
            near = torch.where(spread(k == weight, x0) > 0, moved, near)
        return near
