"""DPS: down the gradient of the distance to a measurement, through the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.steer import Guidance, Operator
from steerable.core.types import Cond, Denoise, Estimate, Range, spread
from steerable.nn.slopes import check_slope, freed

__all__ = ["Dps"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Dps(Guidance):
    """x0 <- x0 - weight (sigma^2 / alpha) grad |y - A x0(x_t)|^2 / (2 v), the gradient at x_t.

    This is the score of y ~ N(A x0, v I) with v = |y - A x0|^2 / M, the mean square of the M
    numbers that are left over, but at least noise^2. The paper steps along the same gradient by
    1 / |y - A x0| times a number to be tuned for its 1000 steps; here weight 1 means the same at
    any number of steps. The posterior of x0 given x_t is taken for a point, so mean and spread of
    the samples are both off: for a linear A `posterior` is better at a similar cost.
    One call of the network and one gradient through it.
    Source: Chung et al., arXiv 2209.14687, algorithm 1.

    Args:
        operator: A.
        measured: y, (B,*Y).
        weight: 0 is off.
        noise: Standard deviation of the noise of y, on the scale of the data.
        start: At work from this time on (1 is pure noise) ...
        stop: ... down to this time (0 is data).

    Raises:
        UserError: E-DATA for a measurement that is not finite; E-CONFIG, at the first step, below
            a guidance that keeps no gradient.
    """

    operator: Operator
    measured: Tensor
    weight: Annotated[float, Range(0, 100)] = 1.0
    noise: Annotated[float, Range(0, 100)] = 0.0

    def __post_init__(self) -> None:
        if not bool(self.measured.isfinite().all()):
            do = "put 0 where nothing was measured"
            got = "values that are not finite"
            raise UserError("E-DATA", where="dps, measured", got=got, do=do)

    def __call__(self, denoise: Denoise) -> Denoise:
        def guided(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
            if not self.active(t) or self.weight == 0:
                return denoise(x_t, t, cond)
            with torch.enable_grad():
                asked = x_t.detach().requires_grad_()
                estimate = denoise(asked, t, cond)
                check_slope(estimate, "dps")
                rest = self.measured.to(x_t) - self.operator(estimate.x0)
                square = rest.square().flatten(1).sum(1)
                (slope,) = torch.autograd.grad(square.sum(), asked)
            numbers = rest[0].numel()
            v = (square.detach() / numbers).clamp(min=max(self.noise**2, 1e-12))
            scale = spread(estimate.sigma**2 / estimate.alpha, x_t) * self.weight
            x0 = estimate.x0.detach() - scale * slope / (2.0 * spread(v, x_t))
            return Estimate(x0, x_t, estimate.alpha, estimate.sigma, freed(estimate.terms))

        return guided
