"""Equal steps in the logarithm of the noise ratio."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from steerable.core.sample import level_range, times_of
from steerable.core.schedule import Schedule
from steerable.core.types import Range

__all__ = ["log_snr"]


def log_snr(
    schedule: Schedule,
    steps: int,
    *,
    high: Annotated[float, Range(1, 1e4)] = 160.0,
    low: Annotated[float, Range(1e-5, 0.5)] = 0.004,
) -> Tensor:
    """Equal steps in log(sigma / alpha) from `high` to `low`, then the data, (steps+1,).

    Source: Lu et al., arXiv 2206.00927; the range is that of EDM for data of unit variance.

    Args:
        schedule: The process to sample.
        steps: Number of steps.
        high: First sigma / alpha, for data of unit variance; at most what the schedule reaches.
        low: Last sigma / alpha before the data.
    """
    first, last = level_range(schedule, high, low)
    share = torch.linspace(0.0, 1.0, steps, dtype=torch.float64)
    return times_of(schedule, first + share * (last - first))
