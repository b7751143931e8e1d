"""Sampling: the sampler's contract, what grids of times share, and the one loop over the steps.

The last step to t = 0 is Tweedie's formula, x = x0-hat, for every sampler: no noise is left over,
and no sampler has an end of its own. A grid may climb: a stochastic sampler then renoises exactly,
a deterministic one follows its ODE upwards.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from .errors import UserError
from .noise import Noise
from .schedule import Schedule
from .steer import Constraint
from .types import Ask, Estimate

__all__ = ["Moment", "Sampler", "level_range", "times_of", "trajectory"]


class Sampler(ABC):
    """One step of a solver, without state: what a multistep solver remembers lives in `memory`."""

    order: ClassVar[int | None]  # of the error, given an exact history; None: none is promised
    stochastic: ClassVar[bool]

    @abstractmethod
    def step(
        self, ask: Ask, x_t: Tensor, t: Tensor, s: Tensor, schedule: Schedule, memory: Any,
        noise: Noise,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """From x_t (B,*S) at time t () to x_s at time s (), with the new memory."""


@dataclass(frozen=True)
class Moment:
    """The state after step i: time t, sample x (B,*S), and the last estimate x0 (B,*S)."""

    i: int
    t: float
    x: Tensor
    x0: Tensor


def renoised(x_t: Tensor, t: Tensor, s: Tensor, schedule: Schedule, noise: Noise) -> Tensor:
    """A draw of x_s given x_t for s > t, exact; at t = 0 the sample is x0-hat, without noise."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t) if t > 0 else (t + 1, t), schedule(s)
    scale = alpha_s / alpha_t
    std = torch.sqrt(sigma_s**2 - (scale * sigma_t) ** 2)
    return scale.to(x_t) * x_t + std.to(x_t) * noise.normal(x_t)


def trajectory(
    denoise: Ask, x: Tensor, *, schedule: Schedule, sampler: Sampler, times: Tensor, noise: Noise,
    constraints: Sequence[Constraint] = (),
) -> Iterator[Moment]:  # fmt: skip
    """Every moment of sampling; preview, cancel and progress are the caller's for loop.

    `denoise` has its conditions bound; x (B,*S) is the start at times[0]; `times` has N+1 entries.
    A sample of half precision is kept in float32 between the calls, so samplers see no other.

    Raises:
        UserError: E-NUM at the first step whose sample is not finite.
    """
    memory: Any = None
    first: Tensor | None = None  # x0-hat of the step's first call; no other is kept
    dtype, wide = x.dtype, torch.promote_types(x.dtype, torch.float32)
    x = x.to(wide)

    def ask(x_t: Tensor, t: Tensor) -> Estimate:
        nonlocal first
        estimate = denoise(x_t.to(dtype), t)
        first = estimate.x0 if first is None else first
        return estimate if dtype == wide else replace(estimate.to(wide), x_t=x_t)

    for i, (t, s) in enumerate(pairwise(times)):
        renoises = bool(s > t) and sampler.stochastic
        if renoises:
            x, memory = renoised(x, t, s, schedule, noise), None
        elif s == 0:
            x = ask(x, t).x0
        else:
            x, memory = sampler.step(ask, x, t, s, schedule, memory, noise)
        for constraint in () if renoises else constraints:
            x = constraint(x, s, schedule, noise)
        if not bool(torch.isfinite(x.to(dtype)).all()):
            where, do = f"sampling step {i + 1} of {len(times) - 1}", "lower the guidance"
            raise UserError("E-NUM", where=where, got="non-finite values", do=do)
        yield Moment(i + 1, float(s), x.to(dtype), x.to(dtype) if first is None else first)
        first = None


def times_of(schedule: Schedule, levels: Tensor) -> Tensor:
    """Times of the noise levels log(sigma / alpha) (N,), then the data: (N+1,) float64."""
    return torch.cat([schedule.time_at(levels), torch.zeros(1, dtype=torch.float64)])


def level_range(schedule: Schedule, high: float, low: float) -> tuple[Tensor, Tensor]:
    """log(high) and log(low), clamped to what the schedule reaches above t = 0, where data is."""
    ends = schedule.level(torch.tensor([1e-9, 1.0], dtype=torch.float64))
    limits = torch.tensor([high, low], dtype=torch.float64).log().clamp(ends[0], ends[1])
    return limits[0], limits[1]
