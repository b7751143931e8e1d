"""Classifier guidance: up the gradient of the probability that the noised item has its label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from steerable.core.steer import Guidance
from steerable.core.types import Cond, Denoise, Estimate, Range, spread
from steerable.nn.precision import at_least_float32

__all__ = ["Classifier"]


@dataclass(frozen=True, kw_only=True)
class Classifier(Guidance):
    """x0 <- x0 + scale (sigma^2 / alpha) grad log p(y | x_t), the gradient at x_t.

    With the true log p(y | x_t) scale 1 is the clean item expected given x_t and the label y: it
    samples p(x | y) with a model of p(x). Other scales do not sample p(x) p(y | x)^scale, since
    noise and power do not commute; Langevin steps at low noise repair that (the sampler
    `predictor_corrector`). The published form for DDPM, which shifts the mean of a step by its
    variance times the gradient, is the same in the limit of small steps; in larger ones it shifts
    less, so its scale must be tuned again for fewer steps and this one need not.

    Only a classifier of noised items will do: the gradient of one that has seen clean items alone
    says nothing at high noise and is adversarial at low noise. sigma^2 / alpha is large where there
    is hardly any signal (10^4 at t = 1 of a flow), and with it the error of a trained classifier
    grows, unless it is built to grow silent as the ones of the preset `noisy-classifier` are. For
    others `start` below 1 leaves those times out; `clip` bounds x0-hat.
    An item without a label is left as it is. One call of the network, and one of the classifier
    with a gradient through it.
    Source: Dhariwal and Nichol, arXiv 2105.05233, algorithms 1 and 2; Song et al., arXiv
    2011.13456, appendix I.4.

    Args:
        classifier: From a run's path to log p(label | x_t) (B,), of x_t, t and cond; 0 for an item
            without a label.
        run: Run folder or model file of a classifier that was trained with the same process.
        scale: 1 is p(x | y), 0 is off.
        clip: Clip x0-hat to -clip and clip after guidance; 0 does not.
        start: Guidance is at work from this time on (1 is pure noise) ...
        stop: ... down to this time (0 is data).
    """

    classifier: Callable[[str], Callable[[Tensor, Tensor, Cond], Tensor]]
    run: str = ""
    scale: Annotated[float, Range(-100, 100)] = 1.0
    clip: Annotated[float, Range(0, 1000)] = 0.0

    def __call__(self, denoise: Denoise) -> Denoise:
        log_p = self.classifier(self.run)

        def guided(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
            estimate = denoise(x_t, t, cond)
            if self.scale == 0 or not self.active(t):
                return estimate
            with torch.enable_grad():
                asked = x_t.detach().requires_grad_()
                value = log_p(asked, t, cond)
                if not value.requires_grad:  # no item has a label
                    return estimate
                (slope,) = torch.autograd.grad(value.sum(), asked)
            factor = self.scale * estimate.sigma**2 / estimate.alpha
            slope = slope.to(at_least_float32(x_t))
            shift = spread(factor, slope) * slope
            x0 = estimate.x0.detach() + shift
            if self.clip > 0:
                moved = spread(shift.flatten(1).any(1), slope) > 0
                x0 = torch.where(moved, x0.clamp(-self.clip, self.clip), x0)
            return estimate.with_x0(x0.to(x_t))

        return guided
