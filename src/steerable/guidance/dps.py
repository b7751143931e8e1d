"""DPS: down the gradient of the distance to a measurement, through the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from steerable.core.steer import Guidance, Operator
from steerable.core.types import Cond, Denoise, Estimate, Range, spread
from steerable.nn.precision import in_float32
from steerable.nn.slopes import check_numbers, check_slope, freed

__all__ = ["Dps"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Dps(Guidance):
    """x0 <- x0 - weight (sigma^2 / alpha) grad |y - A x0(x_t)|^2 / (2 v), the gradient at x_t.

    This is the score of y ~ N(A x0, v I). Here v is the mean square |r|^2 / M of the M numbers
    r = y - A x0 that are left over, held between k / 2 and k and then at least noise^2. Here k is
    the variance of A x0 along r when x_t is known, k = r^T A C A^T r / |r|^2 with C as in
    `posterior`; C A^T r is the step at v = 1, so k costs no further gradient. The mean square alone
    says little of v where the numbers are few, or most of them hidden: near y it vanishes and the
    step grows without bound, far from y the step is too short to arrive. With v >= k / 2 a single
    number is never left further from y than it was. Where k is not positive, which only a network
    can answer, there is no step.

    The paper steps along the same gradient by 1 / |r| times a number to be tuned for its 1000
    steps; here weight 1 means the same at any number of steps. One number v stands for the whole
    posterior of x0 given x_t, so mean and spread of the samples are both off: for a linear A
    `posterior` is better, at about twice the time.
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
        check_numbers(self.measured, "dps")

    @in_float32
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
            direction = spread(estimate.sigma**2 / estimate.alpha, x_t) * slope / -2.0
            step = spread(self._step(rest.detach(), self.operator(direction)), x_t)
            x0 = estimate.x0.detach() + self.weight * step * direction
            return Estimate(x0, x_t, estimate.alpha, estimate.sigma, freed(estimate.terms))

        return guided

    def _step(self, rest: Tensor, moved: Tensor) -> Tensor:
        """1 / v of each item, (B,), of r and of A C A^T r; 0 where there is no step."""
        square = rest.square().flatten(1).sum(1)
        k = (rest * moved).flatten(1).sum(1) / square  # not a number at r = 0
        v = torch.maximum(torch.minimum(square / rest.shape[1:].numel(), k), k / 2.0)
        return torch.where(k > 0, 1.0 / v.clamp(min=max(self.noise**2, 1e-12)), 0.0)
