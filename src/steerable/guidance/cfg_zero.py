"""CFG-Zero*: classifier-free guidance from a rescaled unconditional velocity, and a calm start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.schedule import Schedule
from steerable.core.steer import Guidance
from steerable.core.types import Cond, Denoise, Estimate, Range, spread
from steerable.nn.precision import in_float32

__all__ = ["CfgZero"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CfgZero(Guidance):
    """v = k v_u + w (v_c - k v_u) with k = <v_c, v_u> / |v_u|^2 of each item; v = 0 at first.

    v_c and v_u are the velocities with and without the conditions. Scaling v_u to be as near to v_c
    as it can be, and standing still in the first steps, keeps the errors of a model that is not
    trained to the end from being multiplied. The velocity is v = z-hat - x0-hat for every process:
    y = x / (alpha + sigma) moves with dy/du = v over u = sigma / (alpha + sigma), whatever the
    schedule, and x0 = (x_t - sigma v) / (alpha + sigma). On the straight line of flow matching
    that is the model's own velocity. Calls: two, none in the first steps. Fulfils no product law.
    Source: Fan et al., arXiv 2503.18886, algorithm 1.

    Args:
        schedule: The process.
        times: The times of sampling, (N+1,).
        weight: 1 is off, above 1 exaggerates the conditions.
        zero: Number of first steps with v = 0; published: 1, or 4 % of the steps.
        start: Guidance is at work from this time on (1 is pure noise) ...
        stop: ... down to this time (0 is data); outside, the conditional estimate is used.

    Raises:
        UserError: E-LIMIT if no step is left.
    """

    schedule: Schedule
    times: Tensor
    weight: Annotated[float, Range(-100, 100)] = 2.0
    zero: Annotated[int, Range(0, 1000)] = 1

    def __post_init__(self) -> None:
        steps = len(self.times) - 1
        if self.zero >= steps:
            got, takes = f"{self.zero} of {steps} steps", f"0 to {steps - 1}"
            raise UserError("E-LIMIT", where="cfg_zero.zero", got=got, takes=takes)

    @in_float32
    def __call__(self, denoise: Denoise) -> Denoise:
        def guided(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
            if self.weight == 1.0 or not self.active(t):
                return denoise(x_t, t, cond)
            alpha, sigma = self.schedule(t)
            whole = spread(alpha + sigma, x_t)
            if bool(torch.all(t > self.times[self.zero])):
                return Estimate(x_t / whole, x_t, alpha, sigma)
            c = denoise(x_t, t, cond)
            if not cond:
                return c
            v = self._velocity(c.velocity, denoise(x_t, t, {}).velocity)
            return c.with_x0((x_t - spread(sigma, x_t) * v) / whole)

        return guided

    def _velocity(self, v_c: Tensor, v_u: Tensor) -> Tensor:
        """The guided velocity, (B,*S)."""
        size = v_u.square().flatten(1).sum(1).clamp(min=torch.finfo(v_u.dtype).tiny)
        scaled = spread((v_c * v_u).flatten(1).sum(1) / size, v_u) * v_u
        return scaled + self.weight * (v_c - scaled)
