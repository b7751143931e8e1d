"""Equal steps in t."""

from __future__ import annotations

import torch
from torch import Tensor

from steerable.core.schedule import Schedule

__all__ = ["uniform"]


def uniform(schedule: Schedule, steps: int) -> Tensor:
    """Equal steps in t from 1 to 0, (steps+1,).

    On the straight line of flow matching this is the usual grid; on the schedule of EDM it is
    the grid of the paper.
    """
    return torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
