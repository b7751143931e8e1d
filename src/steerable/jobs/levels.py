"""Loss at every noise level, on items seen and unseen, beside the least that any net can reach.

The least is the loss of the exact denoiser of the training items. It is not zero, as noise hides
which item it was, and it differs from level to level, so a loss says little without it.
Source: arXiv 2506.13763.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from steerable.core.condition import absent
from steerable.core.denoise import Denoiser
from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.process import Process
from steerable.core.sample import level_range
from steerable.core.types import Batch, Dataset, Denoise
from steerable.oracles.points import Points

__all__ = [
    "Losses",
    "level_losses",
    "levels_of",
    "losses_at",
    "mirrored",
    "optimum_at",
    "summary",
    "trained_at",
]

BATCH = 64
FEW = 8  # items of an optimum at all their levels at once, so that items are read rarely
SEED = 3_000_000  # of the choice of items and of their noise
MOST = 20_000 * 3 * 32 * 32  # numbers in the items of an optimum: 20,000 colour pictures 32 wide
UNSURE = 0.75  # of its error at pure noise: above, the items of the optimum blur into each other


@dataclass(frozen=True)
class Losses:
    """What was measured; each loss is (levels, items) float64, one and the same noise an item."""

    levels: Tensor
    train: Tensor
    held_out: Tensor | None
    optimum: Tensor | None
    of: int  # training items of the optimum


def levels_of(process: Process, count: int) -> Tensor:
    """Evenly spaced log(sigma / alpha) over what a sampler visits, rising, (count,) float64."""
    high, low = level_range(process.schedule, 160.0, 0.004)
    return torch.linspace(float(low), float(high), count, dtype=torch.float64)


def trained_at(process: Process, draws: int = 1 << 14) -> Tensor:
    """Levels log(sigma / alpha) (draws,) at equal steps through the law of the training time."""
    law = replace(process.law, stratified=True)
    t = law.draw(draws, Noise(torch.arange(draws)), process.schedule)
    return process.schedule.level(t)


def mirrored(data: Dataset) -> Dataset:
    """The items and their mirror images, which are what training with flips sees."""
    x = torch.cat([data.x, data.x.flip(-1)])
    return Dataset(data.spec, x, {k: torch.cat([v, v]) for k, v in data.cond.items()})


def losses_at(
    denoise: Denoise, process: Process, batch: Batch, levels: Tensor, z: Tensor
) -> Iterator[Tensor]:
    """The loss (B,) float64 of the items at each level, all with the same noise z (B,*S)."""
    z = z.to(batch.x)
    for t in process.schedule.time_at(levels).to(z.device):
        parts = []
        for i in range(0, len(z), BATCH):
            rows = slice(i, i + BATCH)
            cond = {name: value[rows] for name, value in batch.cond.items()}
            with torch.inference_mode():
                part = process.loss_at(denoise, Batch(batch.x[rows], cond), t, z[rows])
            parts.append(part.to("cpu", torch.float64))
        yield torch.cat(parts)


def optimum_at(
    points: Points, process: Process, batch: Batch, levels: Tensor, z: Tensor
) -> Iterator[Tensor]:
    """The loss (levels,n) float64 of the exact denoiser for the next few items, as `losses_at`."""
    times, count = process.schedule.time_at(levels), len(levels)
    for i in range(0, len(z), FEW):
        rows = slice(i, i + FEW)
        cond = {name: torch.cat([v[rows]] * count) for name, v in batch.cond.items()}
        x, noise = (torch.cat([v[rows]] * count) for v in (batch.x, z))
        t = times.repeat_interleave(len(z[rows]))
        loss = process.loss_at(points, Batch(x, cond), t, noise)
        yield loss.to(torch.float64).reshape(count, -1)


def _told(data: Dataset, names: list[str]) -> Dataset:
    """The items that have every condition, with the conditions of the model only."""
    full = torch.ones(len(data), dtype=torch.bool)
    for name in names:
        full &= ~absent(data.cond[name])
    cond = {name: data.cond[name][full] for name in names}
    return Dataset(data.spec, data.x[full], cond)


def _chosen(data: Dataset, count: int) -> tuple[Batch, Tensor]:
    """Some items and their noise; sorted by condition, which lets the optimum skip the others."""
    every = torch.arange(len(data))
    index = Noise.of(SEED, iteration=1, items=every).uniform(len(every)).argsort()[:count]
    noise = Noise.of(SEED, iteration=0, items=index)
    batch = data.batch(index)
    z = noise.normal(batch.x)
    order = torch.arange(len(index))
    for value in batch.cond.values():
        first = value.reshape(len(order), -1)[:, 0]
        order = order[torch.argsort(first[order], stable=True)]
    return Batch(batch.x[order], {k: v[order] for k, v in batch.cond.items()}), z[order]


def level_losses(
    net: Denoiser, train: Dataset, held_out: Dataset, *, items: int = 200, count: int = 24
) -> Iterator[tuple[float, Losses | None]]:
    """The share done, and at the end the losses.

    Self-conditioning nets are asked without an estimate, and every net without guidance.

    Args:
        net: The denoiser in eval mode.
        train: All items that it was trained on; the optimum is theirs.
        held_out: Items that it was not trained on.
        items: How many items of each are measured, at most all of them.
        count: Number of noise levels.

    Raises:
        UserError: E-EVAL where no training item has every condition of the model; E-NUM for
            broken weights.
    """
    names = [name for name in net.conditions if name in train.cond]
    parts = [_told(data, names) for data in (train, held_out)]
    if not len(parts[0]):
        got = f"no training item has all of {', '.join(names)}"
        raise UserError("E-EVAL", where=train.spec.name, got=got)
    levels = levels_of(net.process, count)
    shown: list[Tensor] = []
    for part in parts[: 2 if len(parts[1]) >= 2 else 1]:
        batch, z = _chosen(part, items)
        rows: list[Tensor] = []
        for row in losses_at(net, net.process, _on(net, batch), levels, z):
            rows.append(row)
            yield (len(shown) + len(rows) / count) / 3, None
        shown.append(torch.stack(rows))
    if not all(bool(part.isfinite().all()) for part in shown):
        raise UserError("E-NUM", where="loss", got="non-finite values", do="check the model")
    optimum = None
    if math.prod(parts[0].x.shape) <= MOST:
        every = parts[0].batch(torch.arange(len(parts[0])))
        points = Points(net.process.schedule, every.x, every.cond)
        batch, z = _chosen(parts[0], items)
        columns: list[Tensor] = []
        for column in optimum_at(points, net.process, batch, levels, z):
            columns.append(column)
            yield (2 + len(columns) * FEW / (len(z) + FEW)) / 3, None
        optimum = torch.cat(columns, 1)
    held_out = shown[1] if len(shown) > 1 else None
    yield 1.0, Losses(levels, shown[0], held_out, optimum, len(parts[0]))


def _on(net: Denoiser, batch: Batch) -> Batch:
    device = next(net.parameters()).device
    return Batch(batch.x.to(device), {name: v.to(device) for name, v in batch.cond.items()})


def _shares(process: Process, levels: Tensor) -> Tensor:
    """The share of training that falls to each of evenly spaced levels (L,)."""
    edges = (levels[1:] + levels[:-1]) / 2
    place = torch.bucketize(trained_at(process), edges)
    return torch.bincount(place, minlength=len(levels)).to(torch.float64) / len(place)


def _mean(loss: Tensor) -> dict[str, list[float]]:
    error = loss.std(1) / loss.shape[1] ** 0.5 if loss.shape[1] > 1 else torch.zeros(len(loss))
    return {"mean": loss.mean(1).tolist(), "error": error.tolist()}


def _ratio(above: Tensor, below: Tensor) -> dict[str, float]:
    """Mean above / mean below over items (n,), with the standard error of the ratio, paired."""
    value = above.mean() / below.mean()
    error = (above - value * below).std() / below.mean().abs() / len(above) ** 0.5
    return {"value": float(value), "error": float(error)}


def summary(process: Process, found: Losses) -> dict[str, Any]:
    """The losses as plain data, with two figures: what is under-fitted, what learned by heart.

    `underfit` is (training loss - optimum) / optimum over the levels at which even the optimum is
    nearly as wrong as at pure noise: there it cannot yet tell single items, so it is within reach
    of a network that generalises. `memorised` is (held-out - training) / (held-out - optimum) of
    the loss as training weighs the levels: 0 if both parts are alike, 1 if the training loss is
    the optimum, as of a net that has learned its items by heart.
    """
    shares = _shares(process, found.levels)
    plain: dict[str, Any] = {
        "levels": found.levels.tolist(),
        "law": shares.tolist(),
        "n": found.train.shape[1],
        "of": found.of,
        "train": _mean(found.train),
        "held_out": None if found.held_out is None else _mean(found.held_out),
        "optimum": None,
    }
    if found.optimum is None:
        return plain
    plain["optimum"] = _mean(found.optimum)
    scales = process.schedule(process.schedule.time_at(found.levels))
    error = found.optimum.mean(1) / process.weight(*scales, process.target)
    unsure = error > UNSURE * error[-1]
    if bool(unsure.any()) and found.train.shape[1] > 1:
        over = (shares + 1e-9) * unsure  # so that levels without training count where none has
        gap, least = over @ (found.train - found.optimum), over @ found.optimum
        plain["underfit"] = {**_ratio(gap, least), "from": float(found.levels[unsure].min())}
    if found.held_out is not None and found.train.shape[1] > 1:
        held, train, least = (shares @ v for v in (found.held_out, found.train, found.optimum))
        room = float(held.mean() - least.mean())
        spread = math.hypot(*(float(v.std()) / len(v) ** 0.5 for v in (held, train)))
        if room > 0:
            value = float(held.mean() - train.mean())
            plain["memorised"] = {"value": value / room, "error": spread / room}
    return plain
