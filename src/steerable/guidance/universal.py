"""Universal guidance: up the gradient of any score of the clean estimate, through the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.steer import Guidance
from steerable.core.types import Cond, Denoise, Estimate, Range, spread
from steerable.nn.precision import in_float32
from steerable.nn.slopes import check_slope, freed

__all__ = ["Universal"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Universal(Guidance):
    """x0 <- x0 + scale (sigma^2 / alpha) grad score(x0(x_t)), the gradient at x_t.

    Forward universal guidance. The score is any differentiable function of clean items, higher
    where better: the brightness of a corner, minus a distance, log p(y | x0) of a classifier that
    has seen clean items only. As if x0 given x_t were the point x0-hat, it takes score(x0-hat) for
    the log of the mean of exp(score(x0)); so even with an exact model the samples do not follow
    p(x) exp(score(x)), and the spread of the items given x_t is not heard. One call of the network
    and one gradient through it.
    Source: Bansal et al., arXiv 2302.07121, section 3.1.

    Args:
        score: From clean items (B,*S) to a number each, (B,), from Python only.
        scale: 0 is off.
        start: At work from this time on (1 is pure noise) ...
        stop: ... down to this time (0 is data).

    Raises:
        UserError: At the first step: E-SHAPE for a score that is not one number an item; E-CONFIG
            for one that is not differentiable, or below a guidance that keeps no gradient.
    """

    score: Callable[[Tensor], Tensor]
    scale: Annotated[float, Range(-1e6, 1e6)] = 1.0

    @in_float32
    def __call__(self, denoise: Denoise) -> Denoise:
        def guided(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
            if self.scale == 0 or not self.active(t):
                return denoise(x_t, t, cond)
            with torch.enable_grad():
                asked = x_t.detach().requires_grad_()
                estimate = denoise(asked, t, cond)
                check_slope(estimate, "universal")
                value = self._scored(estimate.x0)
                (slope,) = torch.autograd.grad(value.sum(), asked)
            factor = self.scale * estimate.sigma**2 / estimate.alpha
            x0 = estimate.x0.detach() + spread(factor, x_t) * slope
            return Estimate(x0, x_t, estimate.alpha, estimate.sigma, freed(estimate.terms))

        return guided

    def _scored(self, x0: Tensor) -> Tensor:
        """The score (B,) of each item.

        Raises:
            UserError: E-SHAPE or E-CONFIG if it cannot guide.
        """
        where = "guidance 'universal'"
        value = self.score(x0)
        if value.shape != x0.shape[:1]:
            got, takes = f"scores of shape {tuple(value.shape)}", f"one an item, {(len(x0),)}"
            raise UserError("E-SHAPE", where=where, got=got, takes=takes)
        if not value.requires_grad:
            got, takes = "a score that is constant", "a differentiable function of x0-hat"
            raise UserError("E-CONFIG", where=where, got=got, takes=takes)
        return value
