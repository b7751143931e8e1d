"""Back and forth: every stretch of the way down is walked several times."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.sample import level_range, times_of
from steerable.core.schedule import Schedule
from steerable.core.types import Range

__all__ = ["repaint"]


def repaint(
    schedule: Schedule,
    steps: int,
    *,
    jump: Annotated[int, Range(1, 1000)] = 10,
    repeats: Annotated[int, Range(1, 100)] = 10,
    base: Literal["log_snr", "uniform", "cosine"] = "log_snr",
) -> Tensor:
    """A falling grid that climbs back after every `jump` steps and repeats them, then the data.

    Between the repeats the constraint `keep` and the model agree on one picture, which one pass of
    replacement never reaches. The last step to the data is not repeated, and neither are the first
    ones, which `jump` steps do not fill. Steps down: steps + (repeats - 1) jump floor((steps - 1) /
    jump), which is the number of calls of a sampler that asks once a step. The sampler must be
    stochastic, such as `ancestral`: it renoises on a climb. A deterministic one follows its ODE up
    and comes back to where it was, and the repeats do nothing.
    Source: Lugmayr et al., arXiv 2201.09865, algorithm 1.

    Args:
        schedule: The process to sample.
        steps: Number of steps of the grid that is walked back and forth, more than `jump`.
        jump: Steps to climb back.
        repeats: How often each stretch is walked down; 1 never climbs.
        base: The falling grid: equal steps in log(sigma / alpha), in t (as published) or in
            arctan(sigma / alpha); the first and last from sigma / alpha = 160 to 0.004 at most.

    Raises:
        UserError: E-LIMIT when there are not more steps than a jump climbs.
    """
    if repeats > 1 and steps <= jump:
        got, takes = f"{steps} steps with jumps of {jump}", f"{jump + 1} steps or more"
        do = "or a smaller jump" if jump > 1 else ""
        raise UserError("E-LIMIT", where="grid 'repaint'", got=got, takes=takes, do=do)
    falling = _falling(schedule, steps, base)
    low = steps - 1  # the last noisy time; from there the stretches are counted
    order = list(range((low % jump) + 1))
    for top in range(low % jump, low, jump):
        stretch = list(range(top + 1, top + jump + 1))
        order += stretch + [i for _ in range(repeats - 1) for i in (top, *stretch)]
    return falling[torch.tensor([*order, steps])]


def _falling(schedule: Schedule, steps: int, base: str) -> Tensor:
    """The times that are walked, (steps+1,)."""
    if base == "uniform":
        return torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    first, last = level_range(schedule, 160.0, 0.004)
    if base == "log_snr":
        share = torch.linspace(0.0, 1.0, steps, dtype=torch.float64)
        return times_of(schedule, first + share * (last - first))
    high, low = (math.atan(math.exp(float(end))) for end in (first, last))
    share = torch.arange(steps, dtype=torch.float64) / steps
    return times_of(schedule, torch.log(torch.tan(high + share * (low - high))))
