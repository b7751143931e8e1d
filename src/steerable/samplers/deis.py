"""DEIS: the noise as a polynomial in the time of a VP process, integrated exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask
from steerable.nn.multistep import adams, extended, lagrange_integrals

__all__ = ["Deis"]


@dataclass(frozen=True)
class Deis(Sampler):
    """tAB-DEIS: extrapolate z-hat in t, integrate d(x / alpha) / d(sigma / alpha) = z-hat exactly.

    The variable t is the time at which the VP process of linear beta has the noise ratio at hand,
    (sigma / alpha)^2 = exp(0.1 t + 9.95 t^2) - 1, whatever the schedule of the model: so the
    steps do not depend on it. Four answers give a cubic; the first steps have fewer: the order 4
    is that of an exact history. From its own start it measures as 2.2 where the path is bent, at
    sigma / alpha = 6, and as 3.9 from noise, where samples are made.
    In 6 to 10 calls on mixtures its error is the smallest of the room on the grid `karras`, and
    within 10 % of the smallest (`ipndm`) on `log_snr`, 20 % in 6 calls.
    Source: Zhang and Chen, arXiv 2204.13902, eq. 15, order 3 of its count.

    Args:
        solver_order: Answers that are used, one more than the degree of the polynomial.
        variable: What z-hat is a polynomial in: `time`, or log(sigma / alpha), which is what
            diffusers' scheduler of this name does, with 2 answers.
    """

    solver_order: Literal[1, 2, 3, 4] = 4
    variable: Literal["time", "log_ratio"] = "time"

    order: ClassVar[int | None] = 4
    stochastic: ClassVar[bool] = False

    def step(
        self,
        ask: Ask,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        schedule: Schedule,
        memory: Any,
        noise: Noise,
    ) -> tuple[Tensor, Any]:
        """One step; one call of the denoiser. Memory: the last answers and their levels."""
        start, end = schedule.level(t), schedule.level(s)
        estimate = ask(x_t, t)
        history = extended(memory, start, estimate.noise, ahead=end, most=self.solver_order)
        levels = torch.stack([level for level, _ in history])
        weights = lagrange_integrals(levels, start, end, _VARIABLES[self.variable])
        return adams(estimate, history, weights, schedule, s), history


def _time(level: Tensor) -> Tensor:
    """Time of the VP process (beta 0.1 to 20, arXiv 2011.13456, eq. 33) at log(sigma / alpha)."""
    log_power = torch.nn.functional.softplus(2.0 * level, threshold=60.0)
    return (torch.sqrt(0.1**2 + 4 * 9.95 * log_power) - 0.1) / (2 * 9.95)


_VARIABLES = {"time": _time, "log_ratio": lambda level: level}
