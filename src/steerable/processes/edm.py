"""EDM: preconditioned network, log-normal law of sigma, weight that evens out the levels."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from steerable.core.process import Law, Process, Weight
from steerable.core.schedule import Edm
from steerable.core.target import Target
from steerable.core.types import Range

__all__ = ["edm"]


def edm(
    data_std: float,
    *,
    sigma_min: Annotated[float, Range(1e-5, 0.1)] = 0.002,
    sigma_max: Annotated[float, Range(1, 1000)] = 80.0,
    mean: Annotated[float, Range(-10, 10)] = -1.2,
    std: Annotated[float, Range(0.01, 10)] = 1.2,
    target: Literal["x0", "noise", "v", "flow", "edm"] = "edm",
    weight: Literal["unit", "edm", "min_snr", "p2"] = "edm",
    stratified: bool = True,
) -> Process:
    """The design of Karras et al., arXiv 2206.00364.

    Args:
        data_std: Standard deviation of the data, set by the data.
        sigma_min: Smallest noise, for data of std 0.5 as in the paper; scaled to the data.
        sigma_max: Largest noise, likewise.
        mean: Mean of log sigma in training, for data of std 0.5.
        std: Standard deviation of log sigma.
        target: What the network answers.
        weight: Weight of the loss.
        stratified: Spread the levels of a batch evenly.
    """
    scale = data_std / 0.5
    law = Law("logit_normal", mean=mean + math.log(scale), std=std, stratified=stratified)
    schedule = Edm(sigma_min * scale, sigma_max * scale)
    return Process(schedule, Target(target, data_std), law, Weight(weight))
