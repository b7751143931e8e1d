"""What is trained on, as a function of (seed, position): items, augmentation, condition dropout.

The position counts every item that was ever trained on, so neither the batch size nor a resume
changes what is drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from steerable.core.condition import Condition
from steerable.core.noise import Noise
from steerable.core.types import Batch

from .augment import augmented
from .masks import training_masks
from .prepare import Prepared

__all__ = ["Order", "drawn"]


class Order:
    """The item at each position: every epoch is its own permutation, a function of (seed, epoch).

    Args:
        count: Number of items.
        seed: Seed of the run.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._epochs: dict[int, Tensor] = {}  # of the last call, so that an epoch is sorted once

    def __call__(self, positions: Tensor) -> Tensor:
        """Items (B,) at consecutive positions (B,)."""
        first, last = int(positions[0]) // self.count, int(positions[-1]) // self.count
        known = self._epochs
        self._epochs = {}
        for epoch in range(first, last + 1):
            table = known.get(epoch)
            self._epochs[epoch] = self._permutation(epoch) if table is None else table
        table = torch.cat([self._epochs[e] for e in range(first, last + 1)])
        return table[positions - first * self.count]

    def _permutation(self, epoch: int) -> Tensor:
        items = torch.arange(self.count)
        keys = Noise.of(self.seed, iteration=-1 - epoch, items=items).uniform(self.count)
        return torch.argsort(keys, stable=True)


def drawn(job: Prepared, positions: Tensor, items: Tensor) -> tuple[Batch, Noise]:
    """The batch at these positions after augmentation and condition dropout, and its noise."""
    hyper, conditions = job.recipe.training, job.denoiser.conditions
    noise = Noise.of(hyper.seed, iteration=0, items=positions)
    batch = job.splits.train.batch(items)
    flip = noise.uniform(len(positions)) < 0.5
    x = batch.x
    if hyper.flip:
        x = torch.where(flip.reshape(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)
    told = {name: value for name, value in batch.cond.items() if name in conditions}
    # What the network is not told, such as the label that a classifier names, is never dropped.
    cond = {**batch.cond, **Condition.drop_all(conditions, told, noise)}
    if hyper.augment > 0:
        # A stream of its own, so that all other draws are those of the run without augmentation.
        own = Noise.of(hyper.seed, iteration=1, items=positions)
        x, value = augmented(x, hyper, own)
        if "augmentation" in conditions:
            teller = conditions["augmentation"]
            assert isinstance(teller, Condition)
            cond["augmentation"] = teller.dropped(value, own)
    # The holes too have a stream of their own, and are torn into the picture as it is trained on.
    holes = Noise.of(hyper.seed, iteration=2, items=positions)
    cond |= training_masks(conditions, x, holes)
    return Batch(x, cond), noise
