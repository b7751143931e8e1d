"""Score-based SDEs, variance exploding or preserving; score = -noise / sigma."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from steerable.core.process import Law, Process, Weight
from steerable.core.schedule import VP, Schedule, VeGeometric, VePower
from steerable.core.target import Target
from steerable.core.types import Range

__all__ = ["score"]


def score(
    data_std: float,
    *,
    sde: Literal["ve_power", "ve", "vp"] = "ve_power",
    sigma_max: Annotated[float, Range(1, 1000)] = 25.0,
    law: Literal["uniform", "logit_normal"] = "uniform",
    target: Literal["x0", "noise", "v", "flow", "edm"] = "noise",
    weight: Literal["unit", "edm", "min_snr", "p2"] = "unit",
    stratified: bool = True,
) -> Process:
    """Denoising score matching in continuous time, weighted by sigma^2.

    Source: Song et al., arXiv 2011.13456; `ve_power` is dx = s^t dw of the authors' tutorial.

    Args:
        data_std: Standard deviation of the data, set by the data.
        sde: `ve_power` (sigma_max is the base s), `ve` (geometric up to sigma_max) or `vp`.
        sigma_max: Largest noise of the variance-exploding kinds.
        law: Law of the training time: `uniform` in t as published, which rarely trains low noise
            under `ve_power`, or log(sigma / alpha) ~ N(log data_std - 0.5, 1.5^2).
        target: What the network answers; `noise` is the score up to its known scale.
        weight: Weight of the loss.
        stratified: Spread the times of a batch evenly.
    """
    schedules: dict[str, Schedule] = {
        "ve_power": VePower(sigma_max),
        "ve": VeGeometric(sigma_max=sigma_max),
        "vp": VP(),
    }
    times = Law(law, mean=math.log(data_std) - 0.5, std=1.5, stratified=stratified)
    return Process(schedules[sde], Target(target, data_std), times, Weight(weight))
