"""Equal steps in a root of the noise ratio: small steps where there is little noise."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from steerable.core.sample import level_range, times_of
from steerable.core.schedule import Schedule
from steerable.core.types import Range

__all__ = ["karras"]


def karras(
    schedule: Schedule,
    steps: int,
    *,
    rho: Annotated[float, Range(1, 100)] = 7.0,
    high: Annotated[float, Range(1, 1e4)] = 160.0,
    low: Annotated[float, Range(1e-5, 0.5)] = 0.004,
) -> Tensor:
    """Equal steps in (sigma / alpha)^(1/rho), then the data, (steps+1,).

    Source: Karras et al., arXiv 2206.00364, eq. 5; the range is for data of unit variance.

    Args:
        schedule: The process to sample.
        steps: Number of steps.
        rho: The root; larger values put more steps at low noise.
        high: First sigma / alpha, for data of unit variance; at most what the schedule reaches.
        low: Last sigma / alpha before the data.
    """
    first, last = (torch.exp(end / rho) for end in level_range(schedule, high, low))
    share = torch.linspace(0.0, 1.0, steps, dtype=torch.float64)
    return times_of(schedule, rho * torch.log(first + share * (last - first)))
