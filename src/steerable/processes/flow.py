"""Flow matching on straight lines, with most of the training in the middle of the path."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from steerable.core.process import Law, Process, Weight
from steerable.core.schedule import Flow
from steerable.core.target import Target
from steerable.core.types import Range

__all__ = ["flow"]


def flow(
    data_std: float,
    *,
    target: Literal["x0", "noise", "v", "flow", "edm"] = "flow",
    law: Literal["logit_normal", "uniform"] = "logit_normal",
    mean: Annotated[float, Range(-10, 10)] = 0.0,
    std: Annotated[float, Range(0.01, 10)] = 1.2,
    weight: Literal["unit", "edm", "min_snr", "p2"] = "unit",
    stratified: bool = True,
) -> Process:
    """x_t = (1 - t) x0 + t z; the network answers z - x0.

    Source: Lipman et al., arXiv 2210.02747; Liu et al., arXiv 2209.03003; the logit-normal law:
    Esser et al., arXiv 2403.03206.

    Args:
        data_std: Standard deviation of the data, set by the data.
        target: What the network answers.
        law: Law of the training time.
        mean: Mean of log(sigma / alpha) for data of unit variance; scaled to the data.
        std: Standard deviation of log(sigma / alpha).
        weight: Weight of the loss.
        stratified: Spread the times of a batch evenly.
    """
    times = Law(law, mean=mean + math.log(data_std), std=std, stratified=stratified)
    return Process(Flow(), Target(target, data_std), times, Weight(weight))
