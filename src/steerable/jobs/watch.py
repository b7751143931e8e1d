"""Looking at a model while it trains: validation loss with fixed noise, previews at fixed seeds."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from steerable.core.denoise import Denoiser
from steerable.core.noise import Noise
from steerable.core.types import Dataset, Spec
from steerable.recipes.recipe import Recipe

from .pictures import bytes_of, labelled_grid, png
from .sample import Wish, drawn

__all__ = ["preview", "validation_loss"]

SEED = 20_240_101  # of every validation and preview, so that only the weights change


@torch.no_grad()
def validation_loss(net: Denoiser, held_out: Dataset, *, items: int = 512) -> float:
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
    losses = net.process.loss_at(net, batch, times, z)
    net.train(was_training)
    return float(losses.mean())


def preview(nets: Sequence[Denoiser], recipe: Recipe, spec: Spec) -> bytes:
    """A PNG with one row of pictures a network, one a class (at most ten), at fixed seeds."""
    names = spec.labels.get("label", ())[:10]
    wishes = [Wish(name, SEED + i) for i, name in enumerate(names or [None] * 8)]
    rows = []
    for net in nets:
        was_training = net.training
        net.eval()
        rows.append(bytes_of(drawn(net, recipe, spec, wishes)))
        net.train(was_training)
    titles = ["raw", "EMA"][: len(rows)]
    return png(labelled_grid(rows, titles, columns=[w.label or "" for w in wishes]))
