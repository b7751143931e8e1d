"""Samples of a labelled model under a judge that never guided them: the measures of a sweep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.types import Dataset, Splits
from steerable.metrics.accuracy import Accuracy
from steerable.metrics.frechet import Frechet, floor, redrawn

from .fitting import PATIENCE, affordable
from .judge import Judge, shipped_judge, train_judge
from .model import Model
from .sample import Sample
from .wish import check_counts

__all__ = ["check_fit", "distance", "judge_for", "measurable", "obedience", "reference"]

LEARNING = 45.0  # seconds in which a judge learns on two usual cores


def judge_for(splits: Splits) -> Judge:
    """The judge that ships for this data, or one trained on its training part.

    How much that one sees follows from the cost of a picture alone, not from the clock, so that
    the same data gives the same judge.
    """
    shipped = shipped_judge(splits.train.spec)
    if shipped:
        return shipped
    most = affordable(splits.train.spec.shape, LEARNING)
    return train_judge(splits.train, splits.held_out, seconds=PATIENCE, most=most)


def check_fit(model: Model, splits: Splits) -> None:
    """Check that the data has the model's shape and classes.

    Raises:
        UserError: E-DATA.
    """
    spec = splits.train.spec
    if spec.labels != model.spec.labels or spec.shape != model.spec.shape:
        got = f"{spec.shape}, {len(spec.labels.get('label', ()))} classes"
        takes = f"{model.spec.shape}, the {len(model.labels)} classes of the model"
        raise UserError("E-DATA", where=spec.name, got=got, takes=takes)


def measurable(model: Model, splits: Splits, n: int, seed: int) -> tuple[str, ...]:
    """The class names, if there are any and the data has the same."""
    names = model.labels
    if not names:
        do = "train on pictures with labels, one sub-folder a class, and a preset that reads them"
        raise UserError("E-EVAL", where=model.spec.name, got="a model without labels", do=do)
    check_fit(model, splits)
    if n < 2 * len(names):
        takes = f"{2 * len(names)} or more, two a class"
        raise UserError("E-EVAL", where="n", got=str(n), takes=takes)
    check_counts(n, seed)
    return names


def obedience(judge: Judge, made: Sample, names: tuple[str, ...]) -> dict[str, Any]:
    """Class accuracy of the samples, with its standard error, and the confusion matrix."""
    wanted = torch.tensor([names.index(w.label) for w in made.wishes if w.label is not None])
    accuracy = Accuracy(len(names))
    accuracy.update(judge.look(made.x)[1], wanted)
    value = accuracy.value()
    return {
        "accuracy": value["accuracy"],
        "accuracy_error": value["accuracy_error"],
        "per_class": dict(zip(names, value["per_class"], strict=True)),
        "confusion": value["confusion"],
        "labels": list(names),
    }


def distance(judge: Judge, made: Sample, real: Dataset, part: str) -> dict[str, Any]:
    """Feature Frechet distance to real pictures, and between two sets of real ones.

    All three sets have the same size and equal shares of the classes, so that the distance says
    nothing about how many pictures of a class the data happens to have.
    """
    labels, count = real.cond["label"], len(real) // 2
    features, _ = judge.look(real.x)
    by_class = torch.argsort(labels, stable=True)
    reals = Frechet()
    reals.update(features[by_class[0::2]])
    fakes, _ = judge.look(made.x[:count])  # the classes take turns in the samples
    between = floor(features, count, groups=labels)
    return {
        "frechet": _to(reals, fakes),
        "frechet_error": redrawn(fakes, reals),
        "frechet_floor": between.value,
        "frechet_floor_error": between.error,
        "frechet_n": count,
        "frechet_reference": part,
    }


def _to(reals: Frechet, fakes: Tensor) -> float:
    one = Frechet()
    one.update(fakes)
    return one.distance(reals)


def reference(splits: Splits, n: int, seed: int) -> tuple[Dataset, str]:
    """Twice n real pictures with equal shares of the classes, class by class, or fewer.

    Held-out ones if they suffice, else those of the larger part.

    Raises:
        UserError: E-EVAL when a class has less than two.
    """
    classes = len(splits.train.spec.labels.get("label", ("",)))  # without: all are of one
    wanted = 2 * (n // classes)
    chosen: list[tuple[int, Dataset, str]] = []
    for pool, part in ((splits.held_out, "held-out"), (splits.train, "train")):
        least = int(torch.bincount(_class_of(pool), minlength=classes).min())
        chosen.append((min(wanted, 2 * (least // 2)), pool, part))
    each, pool, part = max(chosen, key=lambda choice: choice[0])  # the first of equals
    if each < 2:
        takes = "2 or more real pictures of every class"
        raise UserError("E-EVAL", where=pool.spec.name, got=f"{each} of the rarest", takes=takes)
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))
    labels = _class_of(pool)[order]
    index = torch.cat([order[labels == c][:each] for c in range(classes)])
    return pool.take(index), part


def _class_of(data: Dataset) -> Tensor:
    """The class of every item, 0 where there are none."""
    return data.cond.get("label", torch.zeros(len(data), dtype=torch.int64))
