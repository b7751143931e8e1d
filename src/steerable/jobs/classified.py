"""What a classifier of noised items gets right, level by level, on items it was not trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from steerable.core.condition import absent
from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.types import Dataset, Splits
from steerable.metrics.accuracy import Accuracy
from steerable.nn.noisy_classifier import NoisyClassifier

from .data import known_to
from .model import Model

__all__ = ["by_level", "by_level_lines", "classified", "labelled"]

LEVELS = 10
BATCH = 256
SEED = 20_240_102  # of every measurement, so that only the weights change


def labelled(splits: Splits, name: str) -> Splits:
    """The items that have the label; the others teach a classifier nothing.

    Raises:
        UserError: E-DATA if one of the two parts has none.
    """
    parts = {}
    for part in ("train", "held_out"):
        data = getattr(splits, part)
        there = ~absent(data.cond[name]) if name in data.cond else torch.zeros(0, dtype=torch.bool)
        if not bool(there.any()):
            where, takes = f"{part.replace('_', '-')} items", "labelled items in both parts"
            raise UserError("E-DATA", where=where, got=f"none with '{name}'", takes=takes)
        parts[part] = data if bool(there.all()) else data.take(there.nonzero()[:, 0])
    return replace(splits, **parts)


@torch.no_grad()
def by_level(net: NoisyClassifier, held_out: Dataset, *, items: int = 512) -> dict[str, Any]:
    """Accuracy at the middle of ten equal shares of time, with fixed noise, as plain data.

    Args:
        net: The classifier.
        held_out: Items that all have its label.
        items: Use so many of them, mixed, or all.
    """
    was_training = net.training
    net.eval()
    every, name = torch.arange(len(held_out)), net.classifies
    names = held_out.spec.labels[name]
    index = Noise.of(SEED, iteration=LEVELS, items=every).uniform(len(every)).argsort()[:items]
    schedule, device = net.process.schedule, next(net.parameters()).device
    rows = []
    for k in range(LEVELS):
        t, right = torch.tensor((k + 0.5) / LEVELS, dtype=torch.float64), Accuracy(len(names))
        for some in index.split(BATCH):
            batch, noise = held_out.batch(some), Noise.of(SEED, iteration=k, items=some)
            x_t = net.process.noised(batch.x, t, noise.normal(batch.x)).to(device)
            right.update(net.log_probs(x_t, t).argmax(1), batch.cond[name])
        value, level = right.value(), round(float(schedule.level(t)), 3)
        keys = {"accuracy": "accuracy", "error": "accuracy_error", "n": "n"}
        figures = {key: value[name] for key, name in keys.items()}
        rows.append({"t": float(t), "level": level, **figures})
    net.train(was_training)
    most = int(torch.bincount(held_out.cond[name][index]).max())
    facts = {"classifies": name, "classes": len(names), "n": len(index)}
    return {**facts, "commonest": most / len(index), "levels": rows}


def by_level_lines(found: dict[str, Any]) -> list[str]:
    """The figures of `by_level` for people."""
    head = (
        f"accuracy in naming '{found['classifies']}', {found['classes']} classes, of held-out "
        f"items by noise level; to say the commonest class always is {found['commonest']:.3f}"
    )
    rows = [
        f"  t {row['t']:.2f}  log(sigma/alpha) {row['level']:+6.2f}  "
        f"{row['accuracy']:.3f} ± {row['error']:.3f}  n = {row['n']}"
        for row in found["levels"]
    ]
    return [head, *rows]


def classified(model: Model, splits: Splits, *, n: int) -> dict[str, Any]:
    """`by_level` of a classifier's run on at most `n` held-out items.

    Raises:
        UserError: E-DATA if the items are not those that it was trained for, or have no label;
            E-LIMIT for an `n` below 1.
    """
    net = model.network
    assert isinstance(net, NoisyClassifier)
    if n < 1:
        raise UserError("E-LIMIT", where="n", got=str(n), takes="1 or more")
    name, spec = net.classifies, splits.train.spec
    mine, its = model.spec.labels[name], spec.labels.get(name, ())
    if mine != its or spec.shape != model.spec.shape:
        got, takes = f"{spec.shape}, {len(its)} classes", f"{model.spec.shape}, its {len(mine)}"
        raise UserError("E-DATA", where=spec.name, got=got, takes=takes)
    return by_level(net, labelled(known_to(splits, {name}), name).held_out, items=n)
