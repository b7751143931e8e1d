"""Self-conditioning: the network's own last estimate is one of its conditions.

Source: Chen et al., arXiv 2208.04202, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steerable.conditions.estimate import Estimate as EstimateCondition
from steerable.core.condition import Condition
from steerable.core.denoise import Denoiser
from steerable.core.noise import Noise
from steerable.core.types import Batch, Cond, Denoise, Estimate

__all__ = ["estimated", "names_of", "remembering"]


def names_of(net: Denoiser) -> list[str]:
    """Names of the conditions that are the network's own estimate."""
    return [name for name, c in net.conditions.items() if isinstance(c, EstimateCondition)]


def estimated(net: Denoiser, batch: Batch, t: Tensor, z: Tensor, noise: Noise) -> Batch:
    """The batch with the estimates of a first pass, hidden from the condition's share of items.

    The first pass sees no estimate and gets no gradient.
    """
    names = names_of(net)
    if not names:
        return batch
    with torch.no_grad():
        x0 = net(net.process.noised(batch.x, t, z), t, batch.cond).x0
    owners = {name: net.conditions[name] for name in names}
    cond = dict(batch.cond)
    for name, owner in owners.items():
        assert isinstance(owner, Condition)
        cond[name] = owner.dropped(x0, noise)
    return Batch(batch.x, cond)


def remembering(denoise: Denoise, names: Sequence[str]) -> Denoise:
    """The denoiser that is told its own last answer; make a new one for every trajectory.

    It stands below the guidances, which ask the same question under other conditions and in
    batches of another size: each such way of asking has a memory of its own.

    Args:
        denoise: The network.
        names: Names of the conditions that receive the estimate; without one nothing changes.
    """
    if not names:
        return denoise
    memory: dict[tuple[frozenset[str], int], Tensor] = {}

    def told(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
        key = (frozenset(cond), len(x_t))
        last = memory.get(key)
        known = {} if last is None else dict.fromkeys(names, last)
        estimate = denoise(x_t, t, {**cond, **known})
        memory[key] = estimate.x0
        return estimate

    return told
