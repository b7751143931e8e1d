"""Autoguidance: away from what a weaker model answers, with or without a condition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.steer import Guidance
from steerable.core.types import Cond, Denoise, Estimate, Range
from steerable.nn.precision import at_least_float32

__all__ = ["Autoguidance"]


@dataclass(frozen=True, kw_only=True)
class Autoguidance(Guidance):
    """x0 = b + w (D - b), with b what a weaker model answers to the same question.

    Where both err in the same direction, and the weaker one more, the step past D removes errors
    without a loss of variety; it needs no condition. The weaker model must have the process of this
    one. The model's own early state is enough: train with `--set training.ema_kind=power`, and
    `steerable average RUN --at 0.3 --out weak.safetensors` writes it; one of a smaller `--size`
    costs less a step. It is told the conditions that it was trained with and no others, so one that
    was trained without any guides away from what all pictures share. The names of the classes of a
    condition that both have must be the same. Calls: one of each model.
    Source: Karras et al., arXiv 2406.02507.

    Args:
        weaker: The denoiser of a run folder or a model file.
        model: Run folder or model file of the weaker model.
        weight: 1 is off and does not ask for the weaker model, 0 is the weaker model.
        start: Guidance is at work from this time on (1 is pure noise) ...
        stop: ... down to this time (0 is data).

    Raises:
        UserError: E-CONFIG without a weaker model, or for one that does not fit.
    """

    weaker: Callable[[str], Denoise]
    model: str = ""
    weight: Annotated[float, Range(-100, 100)] = 2.0

    def __call__(self, denoise: Denoise) -> Denoise:
        if self.weight == 1.0:
            return denoise
        if not self.model:
            do = "steerable average RUN --at 0.3 --out weak.safetensors"
            where, takes = "autoguidance.model", "a run folder or a model file"
            raise UserError("E-CONFIG", where=where, got="nothing", takes=takes, do=do)
        weak = self.weaker(self.model)

        def guided(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
            own = denoise(x_t, t, cond)
            if not self.active(t):
                return own
            own = own.to(at_least_float32(x_t))
            b = weak(x_t, t, cond).x0.to(own.x0)
            factors = own.terms or ((1.0, own.x0),)
            terms = [(self.weight * exponent, x0) for exponent, x0 in factors]
            x0 = b + self.weight * (own.x0 - b)
            guided = replace(own, x0=x0, terms=(*terms, (1.0 - self.weight, b)))
            return guided.to(x_t.dtype)

        return guided
