"""Samples against real items in one list of figures, each with its n, its error and its floor.

The floor is what two sets of real items of the same number have: a distance of 0.3 means nothing
until one knows that real pictures are 0.3 apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steerable.core.types import Dataset
from steerable.metrics.accuracy import Accuracy
from steerable.metrics.colours import Colours
from steerable.metrics.density_coverage import DensityCoverage
from steerable.metrics.frechet import Frechet, limit, redrawn
from steerable.metrics.kid import Kid
from steerable.metrics.memorisation import Memorisation
from steerable.metrics.precision_recall import PrecisionRecall
from steerable.metrics.repeats import Repeats
from steerable.metrics.spread import Spread
from steerable.metrics.two_sample import TwoSample

__all__ = [
    "COMPARED",
    "Figures",
    "balanced_halves",
    "between",
    "by_class",
    "colours",
    "copying",
    "figure",
    "likeness",
    "obeying",
    "share",
    "varying",
]

Figures = dict[str, dict[str, Any]]

FLOORS = 8  # random halves of the real items
FEWEST = 12  # items a side below which neighbourhoods of five say nothing
EXTRAPOLATED = 500  # items a side from which on a line in 1 / n is worth drawing


def figure(found: Mapping[str, Any], name: str, **more: Any) -> dict[str, Any]:
    """One measure of a metric's value with its error and n, and what else is known of it."""
    own = {"value": found[name], "error": found[f"{name}_error"], "n": found["n"]}
    return {**own, **{key: value for key, value in more.items() if value is not None}}


def share(right: int, n: int) -> dict[str, Any]:
    """A share of n items as a figure; its error is not zero where all are right or none is.

    Source of the error: Agresti and Coull, "Approximate is better than exact", 1998: two items of
    either kind are thought in addition.
    """
    near = (right + 2) / (n + 4)
    return {"value": right / n, "error": (near * (1 - near) / (n + 4)) ** 0.5, "n": n}


@dataclass(frozen=True)
class _Compared:
    """A way to compare two sets of rows, which gives the values of `names` with errors and n."""

    names: tuple[str, ...]
    value: Callable[[Tensor, Tensor], dict[str, Any]]
    least: int = 2  # items a side


def _by(kind: type[Any], *names: str, least: int) -> _Compared:
    def of(fakes: Tensor, reals: Tensor) -> dict[str, Any]:
        one, two = kind(), kind()
        one.update(fakes)
        two.update(reals)
        return one.value(two)

    return _Compared(names, of, least)


def _frechet(fakes: Tensor, reals: Tensor) -> dict[str, Any]:
    two = Frechet()
    two.update(reals)
    one = Frechet()
    one.update(fakes)
    error = redrawn(fakes, two)
    return {"frechet": one.distance(two), "frechet_error": error, "n": len(fakes)}


COMPARED = (
    _Compared(("frechet",), _frechet),
    _by(Kid, "kid", least=4),
    _by(TwoSample, "two_sample", least=FEWEST),
    _by(PrecisionRecall, "precision", "recall", least=FEWEST),
    _by(DensityCoverage, "density", "coverage", least=FEWEST),
    _by(Repeats, "repeats", least=FEWEST),
)


def balanced_halves(
    rows: Tensor, labels: Tensor | None, count: int, *, repeats: int = FLOORS, seed: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Random disjoint pairs of sets of `count` rows each, with the same classes on both sides."""
    assert 2 * count <= len(rows), f"{len(rows)} rows have no two sets of {count}"
    generator = torch.Generator().manual_seed(seed)
    for _ in range(repeats):
        order = torch.randperm(len(rows), generator=generator)[: 2 * count]
        if labels is not None:  # sorted by class, so that every other item is a fair half
            order = order[torch.argsort(labels[order], stable=True)]
        yield rows[order[0::2]], rows[order[1::2]]


def likeness(fakes: Tensor, reals: Tensor, floors: Figures, labels: Tensor | None) -> Figures:
    """How like real items the samples are as a set, in features.

    Args:
        fakes: Features (N,F) of the samples; a prefix of them must be a fair choice.
        reals: Features (M,F) of real items with the same shares of the classes.
        floors: From `between` for these real items and the same number.
        labels: Class of each real item, (M,), or None.
    """
    count = _count(len(fakes), len(reals))
    mine, theirs = fakes[:count], next(balanced_halves(reals, labels, count))[0]
    found: Figures = {}
    for way in _possible(count):
        value = way.value(mine, theirs)
        found |= {name: {**figure(value, name), **floors[name]} for name in way.names}
    if count >= max(EXTRAPOLATED, 2 * fakes.shape[1]):
        end = limit(mine, theirs)
        own = {"value": end.value, "error": end.error, "n": end.n}
        found["frechet_infinity"] = {**own, "floor": 0.0}
    return found


def between(reals: Tensor, n: int, labels: Tensor | None) -> Figures:
    """What two sets of real items have, by measure: the mean `floor` and its `floor_std`.

    Args:
        reals: Features (M,F).
        n: Number of samples that will be compared with them.
        labels: Class of each real item, (M,), or None.
    """
    count = _count(n, len(reals))
    pairs = list(balanced_halves(reals, labels, count))
    found: Figures = {}
    for way in _possible(count):
        values = [way.value(one, other) for one, other in pairs]
        for name in way.names:
            each = torch.tensor([value[name] for value in values], dtype=torch.float64)
            found[name] = {"floor": float(each.mean()), "floor_std": float(each.std())}
    return found


def _count(n: int, real: int) -> int:
    """Items a side: as many samples as real items, of which the floors need twice as many."""
    return min(n, real // 2)


def _possible(count: int) -> tuple[_Compared, ...]:
    """What can be said of so many items a side."""
    return tuple(way for way in COMPARED if count >= way.least)


def obeying(predicted: Tensor, wanted: Tensor, classes: int) -> tuple[Figures, dict[str, Any]]:
    """Class accuracy, and the metric's own value with the confusion matrix."""
    metric = Accuracy(classes)
    metric.update(predicted, wanted)
    value = metric.value()
    return {"accuracy": figure(value, "accuracy", chance=1.0 / classes)}, value


def varying(
    name: str, fakes: Tensor, wanted: Tensor, reals: Tensor, labels: Tensor
) -> tuple[Figures, list[dict[str, Any] | None]]:
    """Spread of rows within a class over that of real items, for all and for each class.

    Args:
        name: Name of the measure.
        fakes: Rows (N,...) of the samples: features or pixels.
        wanted: Class of each, (N,); 0 for all where there are none.
        reals: Rows (M,...) of the real items.
        labels: Class of each, (M,).
    """
    classes = int(max(wanted.max(), labels.max())) + 1

    def spread(rows: Tensor, of: Tensor) -> dict[str, Any]:
        metric = Spread(classes)
        metric.update(rows.flatten(1), of)
        return metric.value()

    def ratio(mine: Tensor, theirs: Tensor) -> dict[str, Any]:
        one, two = spread(fakes[mine], wanted[mine]), spread(reals[theirs], labels[theirs])
        value = one["spread"] / two["spread"]
        errors = [s["spread_error"] / max(s["spread"], 1e-12) for s in (one, two)]
        error = value * (errors[0] ** 2 + errors[1] ** 2) ** 0.5
        return {"value": value, "error": error, "n": int(mine.sum())}

    each: list[dict[str, Any] | None] = []
    for c in range(classes):
        mine, theirs = wanted == c, labels == c
        enough = min(int(mine.sum()), int(theirs.sum())) >= FEWEST
        each.append(ratio(mine, theirs) if enough else None)
    return {name: {**ratio(wanted >= 0, labels >= 0), "floor": 1.0}}, each


def by_class(
    fakes: Tensor, wanted: Tensor, reals: Tensor, labels: Tensor, classes: int
) -> list[dict[str, Any] | None]:
    """The kernel distance of each class to the real items of that class."""
    found: list[dict[str, Any] | None] = []
    for c in range(classes):
        mine, theirs = fakes[wanted == c], reals[labels == c]
        enough = min(len(mine), len(theirs)) >= FEWEST
        found.append(
            figure(_by(Kid, "kid", least=4).value(mine, theirs), "kid") if enough else None
        )
    return found


def copying(x: Tensor, train: Dataset, unseen: Tensor) -> tuple[Figures, list[dict[str, Any]]]:
    """Whether samples are copies of training items, in pixels, and the nearest pairs.

    Args:
        x: Samples (N,*S) uint8.
        train: All items that the model was trained on, mirrored ones too if it saw them.
        unseen: Real items (M,*S) uint8 that it was not trained on.
    """
    sets = []
    for items in (x, train.x, unseen):
        metric = Memorisation()
        metric.update(items.to(torch.float64) / 127.5 - 1.0)
        sets.append(metric)
    value = sets[0].value(sets[1], sets[2])
    counts = {"n_train": value["n_train"], "n_unseen": value["n_unseen"]}
    figures = {
        "memorisation": figure(value, "memorisation", floor=1.0, **counts),
        "near_copies": figure(value, "near_copies", floor=value["near_copies_unseen"], **counts),
    }
    return figures, value["worst"]


def colours(x: Tensor, real: Tensor) -> Figures:
    """Colour statistics and dead pictures of (N,C,H,W) uint8; the floor is between real halves."""
    half = len(real) // 2

    def of(mine: Tensor, theirs: Tensor) -> dict[str, Any]:
        one, two = (Colours(x.shape[1]) for _ in range(2))
        one.update(mine)
        two.update(theirs)
        return one.value(two)

    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(1))
    value, between = of(x, real), of(real[order[:half]], real[order[half:]])
    names = ("colour", "tint", "contrast")
    found = {name: figure(value, name, floor=between[name]) for name in names}
    return {**found, "dead": figure(value, "dead", floor=value["dead_real"])}
