"""The integer levels of a DDPM, respaced."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.schedule import Schedule
from steerable.core.types import Range

__all__ = ["ddpm"]


def ddpm(
    schedule: Schedule,
    steps: int,
    *,
    levels: Annotated[int, Range(2, 4000)] = 1000,
    spacing: Literal["trailing", "leading", "linspace"] = "trailing",
) -> Tensor:
    """Integer levels i of a DDPM, each at t = (i + 1) / levels, then the data, (steps+1,).

    Where `steps` does not divide `levels` there are two readings of `leading`. This one is
    floor(k levels / steps), which reaches as high as it can; diffusers multiplies k by the whole
    part of levels / steps and stays below: of 1000 levels in 7 steps the first is 857 here and 852
    there. `trailing` and `linspace` are those of diffusers.
    Source: Lin et al., arXiv 2305.08891, table 2.

    Args:
        schedule: The process to sample.
        steps: Number of steps, at most `levels`.
        levels: Number of levels T of the model.
        spacing: `trailing` keeps the last level, `leading` the first, `linspace` both.
    """
    if steps > levels:
        raise UserError("E-LIMIT", where="steps", got=str(steps), takes=f"1 to {levels}")
    place = torch.arange(steps, dtype=torch.float64)
    if spacing == "trailing":
        index = torch.round(levels - place * levels / steps) - 1
    elif spacing == "leading":
        index = torch.floor((steps - 1 - place) * levels / steps)
    else:
        index = torch.round(torch.linspace(levels - 1, 0, steps, dtype=torch.float64))
    return torch.cat([(index + 1) / levels, torch.zeros(1, dtype=torch.float64)])
