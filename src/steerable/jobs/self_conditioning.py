"""Self-conditioning: the network's own last estimate is one of its conditions.

Source: Chen et al., arXiv 2208.04202, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steerable.conditions.estimate import Estimate as EstimateCondition
from steerable.core.condition import Condition
from steerable.core.noise import Noise
from steerable.core.types import Batch, Cond, Denoise, Estimate
from steerable.recipes.assembly import Network

__all__ = ["estimated", "names_of", "remembering"]


def names_of(net: Network) -> list[str]:
    """Names of the conditions that are the network's own estimate."""
    return [name for name, c in net.conditions.items() if isinstance(c, EstimateCondition)]


def estimated(net: Network, batch: Batch, t: Tensor, z: Tensor, noise: Noise) -> Batch:
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

    It stands below the guidances, which ask the same question without some of the conditions: each
    set of conditions has a memory of its own. Or they ask in one longer batch, which begins with
    the question itself and is as many times longer. When guidance begins, the question without a
    condition is told what the question itself is. So an item is told the same whichever way its
    batch is asked.

    Args:
        denoise: The network.
        names: Names of the conditions that receive the estimate; without one nothing changes.
    """
    if not names:
        return denoise
    answers: dict[frozenset[str], Tensor] = {}
    heard: dict[frozenset[str], Tensor | None] = {}  # what each set was told last

    def told(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
        key, n = frozenset(cond), len(x_t)
        wider = max((k for k in heard if k > key), key=len, default=key)
        last = answers.get(key, heard.get(wider))
        if last is not None and len(last) < n:
            last = torch.cat([last] * -(-n // len(last)))
        heard[key] = None if last is None else last[:n]
        known = {} if last is None else dict.fromkeys(names, last[:n])
        estimate = denoise(x_t, t, {**cond, **known})
        x0 = estimate.x0.detach()  # a guidance may take gradients through this answer alone
        answers[key] = x0 if last is None else torch.cat([x0, last[n:]])
        return estimate

    return told
