"""Equal steps in the angle between signal and noise."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from steerable.core.sample import level_range, times_of
from steerable.core.schedule import Schedule
from steerable.core.types import Range

__all__ = ["cosine"]


def cosine(
    schedule: Schedule,
    steps: int,
    *,
    high: Annotated[float, Range(1, 1e4)] = 160.0,
    low: Annotated[float, Range(1e-5, 0.5)] = 0.004,
) -> Tensor:
    """Equal steps in arctan(sigma / alpha), then the data, (steps+1,).

    These are equal steps in t of the cosine schedule, on whatever schedule the model was trained.
    Source: Nichol and Dhariwal, arXiv 2102.09672; the angle: Salimans and Ho, arXiv 2202.00512.

    Args:
        schedule: The process to sample.
        steps: Number of steps.
        high: First sigma / alpha, for data of unit variance; at most what the schedule reaches.
        low: Last sigma / alpha before the data.
    """
    first, last = (math.atan(math.exp(float(end))) for end in level_range(schedule, high, low))
    angle = first + torch.arange(steps, dtype=torch.float64) / steps * (last - first)
    return times_of(schedule, torch.log(torch.tan(angle)))
