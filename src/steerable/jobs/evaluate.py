"""Does the label work? Samples of every class, looked at by a judge that never guided them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.types import Dataset, Splits
from steerable.metrics.accuracy import Accuracy
from steerable.metrics.frechet import Frechet, floor
from steerable.recipes.recipe import Recipe

from .data import known_to
from .judge import Judge, shipped_judge, train_judge
from .model import Model
from .sample import Sample, sample
from .wish import Wish, check_counts

__all__ = [
    "Evaluation",
    "Looking",
    "distance",
    "evaluate",
    "judge_for",
    "measurable",
    "obedience",
    "reference",
]

JUDGE_SECONDS = 45.0  # at most, for a data set of the user's own
SEED = 1_000_000  # evaluation samples share no seed with what a user looks at by default


@dataclass(frozen=True)
class Evaluation:
    """What was measured, as plain data, and the pictures it was measured on, if it makes any."""

    result: dict[str, Any]
    sample: Sample | None = None


@dataclass(frozen=True)
class Looking:
    """Progress of an evaluation: share done of the sampling, or the finished evaluation."""

    stage: str
    done: int
    of: int
    evaluation: Evaluation | None = None


def judge_for(splits: Splits, seconds: float = JUDGE_SECONDS) -> Judge:
    """The judge that ships for this data, or one trained on its training part."""
    shipped = shipped_judge(splits.train.spec)
    return shipped or train_judge(splits.train, splits.held_out, seconds=seconds)


def evaluate(
    model: Model, splits: Splits, *, recipe: Recipe, n: int = 2000, seed: int = SEED
) -> Iterator[Looking]:
    """Sample `n` pictures, equally many of each class, and measure them; the last item holds all.

    Args:
        model: The model.
        splits: Real pictures of the same classes.
        recipe: The model's recipe with the sampling settings to use.
        n: Number of samples.
        seed: Seed of the first sample.

    Raises:
        UserError: E-EVAL when there are no labels to obey or too few pictures; E-DATA when the
            data is not what the model was trained for.
    """
    started = time.monotonic()
    splits = known_to(splits, set(model.recipe.conditions))
    names = measurable(model, splits, n, seed)
    real, part = reference(splits, n, seed)
    yield Looking("judge", 0, 1)
    judge = judge_for(splits)
    wanted = [Wish({"label": names[i % len(names)]}, seed + i) for i in range(n)]
    made: Sample | None = None
    sampling = time.monotonic()
    for progress in sample(model, recipe, wanted):
        made = progress.sample
        if made is None:
            yield Looking("samples", progress.done, progress.of)
    assert made is not None
    speed = n / (time.monotonic() - sampling)
    yield Looking("measures", 0, 1)
    result = {
        **obedience(judge, made, names),
        **distance(judge, made, real, part),
        "judge_accuracy": judge.accuracy,
        "judge_n": judge.n,
        "judge_sha256": judge.sha256,
        "n": n,
        "samples_per_second": round(speed, 2),
        "calls_per_sample": made.calls,
        "sampler": recipe.sampler.flat(),
        "guidance": [part.flat() for part in recipe.guidance],
        "seconds": round(time.monotonic() - started, 1),
    }
    yield Looking("done", 1, 1, Evaluation(result, made))


def measurable(model: Model, splits: Splits, n: int, seed: int) -> tuple[str, ...]:
    """The class names, if there are any and the data has the same."""
    names, spec = model.labels, splits.train.spec
    if not names:
        do = "train on pictures with labels, one sub-folder a class, and a preset that reads them"
        raise UserError("E-EVAL", where=model.spec.name, got="a model without labels", do=do)
    if spec.labels != model.spec.labels or spec.shape != model.spec.shape:
        got = f"{spec.shape}, {len(spec.labels.get('label', ()))} classes"
        takes = f"{model.spec.shape}, the {len(names)} classes of the model"
        raise UserError("E-DATA", where=spec.name, got=got, takes=takes)
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
        "accuracy_error": value["error"],
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
        "frechet_error": _bootstrap(reals, fakes),
        "frechet_floor": between.value,
        "frechet_floor_error": between.error,
        "frechet_n": count,
        "frechet_reference": part,
    }


def _to(reals: Frechet, fakes: Tensor) -> float:
    one = Frechet()
    one.update(fakes)
    return one.distance(reals)


def _bootstrap(reals: Frechet, fakes: Tensor, repeats: int = 16) -> float:
    """Standard error of the distance over redraws of the samples."""
    generator = torch.Generator().manual_seed(0)
    size = (len(fakes),)
    draws = [
        _to(reals, fakes[torch.randint(len(fakes), size, generator=generator)])
        for _ in range(repeats)
    ]
    return float(torch.tensor(draws).std())


def reference(splits: Splits, n: int, seed: int) -> tuple[Dataset, str]:
    """Twice n real pictures with equal shares of the classes, or as many as there are.

    Held-out ones if they suffice, else those of the larger part.

    Raises:
        UserError: E-EVAL when a class has less than two.
    """
    classes = len(splits.train.spec.labels["label"])
    wanted = 2 * (n // classes)
    chosen: list[tuple[int, Dataset, str]] = []
    for pool, part in ((splits.held_out, "held-out"), (splits.train, "train")):
        least = int(torch.bincount(pool.cond["label"], minlength=classes).min())
        chosen.append((min(wanted, 2 * (least // 2)), pool, part))
    each, pool, part = max(chosen, key=lambda choice: choice[0])  # the first of equals
    if each < 2:
        takes = "2 or more real pictures of every class"
        raise UserError("E-EVAL", where=pool.spec.name, got=f"{each} of the rarest", takes=takes)
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))
    labels = pool.cond["label"][order]
    index = torch.cat([order[labels == c][:each] for c in range(classes)])
    return pool.take(index), part
