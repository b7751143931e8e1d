"""Looking at a model while it trains: validation loss with fixed noise, previews at fixed seeds."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from steerable.core.denoise import Denoiser
from steerable.core.noise import Noise
from steerable.core.types import Dataset, Spec
from steerable.recipes.assembly import Network
from steerable.recipes.recipe import Recipe

from .objective import loss_at
from .pictures import bytes_of, labelled_grid, png
from .sample import drawn
from .wish import Wish

__all__ = ["preview", "validation_loss"]

SEED = 20_240_101  # of every validation and preview, so that only the weights change


@torch.no_grad()
def validation_loss(net: Network, held_out: Dataset, *, items: int = 512) -> float:
    """Mean loss of held-out items at fixed times and noise, in eval mode."""
    was_training = net.training
    net.eval()
    count = min(items, len(held_out))
    every = torch.arange(len(held_out))
    # Times are spread over the items in turn, so these must not be sorted by class.
    index = Noise.of(SEED, iteration=1, items=every).uniform(len(every)).argsort()[:count]
    noise = Noise.of(SEED, iteration=0, items=torch.arange(count))
    times = net.process.draw(count, noise)
    batch = held_out.batch(index)
    z = noise.normal(batch.x)
    losses = loss_at(net, batch, times, z)
    net.train(was_training)
    return float(losses.mean())


def shown(spec: Spec) -> list[Wish]:
    """Up to ten wishes that show what the conditions do: a class each, else other words each."""
    for name, names in spec.labels.items():
        return [Wish({name: label}, SEED + i) for i, label in enumerate(names[:10])]
    for name, words in spec.tokens.items():
        return [Wish({name: (word,)}, SEED + i) for i, word in enumerate(words[:10])]
    for name, numbers in spec.vectors.items():
        ramp = torch.linspace(-1, 1, 8).tolist()
        return [Wish({name: (v,) * len(numbers)}, SEED + i) for i, v in enumerate(ramp)]
    return [Wish({}, SEED + i) for i in range(8)]


def preview(nets: Sequence[Denoiser], recipe: Recipe, spec: Spec) -> bytes:
    """A PNG with one row of pictures a network, one a class (at most ten), at fixed seeds."""
    wishes = shown(spec)
    rows = []
    for net in nets:
        was_training = net.training
        net.eval()
        rows.append(bytes_of(drawn(net, recipe, spec, wishes)))
        net.train(was_training)
    titles = ["raw", "EMA"][: len(rows)]
    return png(labelled_grid(rows, titles, columns=[w.title for w in wishes]))
