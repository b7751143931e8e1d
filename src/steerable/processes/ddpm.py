"""DDPM: a tabulated schedule, the noise as target, every level equally often."""

from __future__ import annotations

from typing import Annotated, Literal

from steerable.core.process import Law, Process, Weight
from steerable.core.schedule import Tabulated
from steerable.core.target import Target
from steerable.core.types import Range

__all__ = ["ddpm"]


def ddpm(
    data_std: float,
    *,
    schedule: Literal["linear", "cosine", "sigmoid"] = "linear",
    levels: Annotated[int, Range(2, 4000)] = 1000,
    target: Literal["x0", "noise", "v", "flow", "edm"] = "noise",
    weight: Literal["unit", "edm", "min_snr", "p2"] = "unit",
    stratified: bool = True,
) -> Process:
    """Denoising diffusion on integer levels.

    Source: Ho et al., arXiv 2006.11239; cosine: arXiv 2102.09672; sigmoid: arXiv 2212.11972.

    Args:
        data_std: Standard deviation of the data, set by the data.
        schedule: Curve of the signal power.
        levels: Number of noise levels T.
        target: What the network answers.
        weight: Weight of the loss.
        stratified: Spread the levels of a batch evenly.
    """
    return Process(
        Tabulated(schedule, levels),
        Target(target, data_std),
        Law("levels", levels=levels, stratified=stratified),
        Weight(weight),
    )
