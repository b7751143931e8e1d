"""Does it listen? Samples measured against real items, as plain figures and plain words.

The report is a function of the run, the settings and the seed; how long it took is kept apart.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.types import Dataset, Splits
from steerable.recipes.recipe import Recipe

from .data import fingerprint, known_to
from .effort import Effort, Plan, planned
from .eyes import Eyes, eyes_for
from .items import Items
from .judged import check_fit, reference
from .measures import between
from .model import Model
from .sample import Sample, sample
from .stages import STAGES, Seen, check_fid, left_out
from .verdicts import verdicts
from .wish import Wish, as_asked, check_counts

__all__ = ["SCHEMA", "Evaluation", "Looking", "evaluate"]

SCHEMA = 1  # of the report; raised when a key changes its meaning


@dataclass(frozen=True)
class Evaluation:
    """What was measured, as plain data, and what it was measured on.

    Attributes:
        result: The report, a function of run, settings and seed.
        sample: The samples; none of a classifier.
        nearest: The samples nearest to training items, each with its item, (P,2,C,H,W) uint8.
        items: What was seen of each item, for comparisons.
        seconds: How long each stage took.
    """

    result: dict[str, Any]
    sample: Sample | None = None
    nearest: Tensor | None = None
    items: Items | None = None
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Looking:
    """Progress: the stage and the share of it that is done, the plan, the evaluation at last."""

    stage: str
    done: int
    of: int
    plan: Plan | None = None
    evaluation: Evaluation | None = None


def evaluate(
    model: Model,
    splits: Splits,
    *,
    recipe: Recipe,
    effort: Effort | None = None,
    own: Splits | None = None,
    folder: Path | None = None,
) -> Iterator[Looking]:
    """Sample, equally many of each class, and measure; the last item holds the evaluation.

    Args:
        model: A model that samples.
        splits: Real items to compare with.
        recipe: The model's recipe with the sampling settings to use.
        effort: How many samples, from which seed, in which time.
        own: The data that the model was trained on, where it is at hand; None is unknown.
        folder: Where a judge that is trained now is kept for the next time.

    Raises:
        UserError: E-EVAL for too few samples or items; E-DATA when the data is not of the model's
            shape and classes; E-LIMIT for a number or a time out of range.
    """
    effort, clock = effort or Effort(), _Clock()
    names = set(model.recipe.conditions)
    known, own = known_to(splits, names), known_to(own, names) if own else None
    check_fid(effort.inception)
    real, part = _reference(model, known, effort)
    yield Looking("judge", 0, 1)
    eyes = eyes_for(splits, folder, effort.extractor)
    clock.stop("judge")
    why = left_out(model, own, eyes, fid=effort.inception is not None)
    wishes, sources = _wishes(model, real, effort)
    plan = planned(model, recipe, wishes, why, effort)
    clock.stop("plan")
    yield Looking("plan", 1, 1, plan)
    made = yield from _sampled(model, recipe, wishes, plan)
    clock.stop("samples")
    seen = _seen(model, recipe, (known, own), eyes, (made, real, sources))
    seen = replace(seen, inception=effort.inception or "")
    result = _facts(seen, part, plan, effort)
    clock.stop("floors")
    yield from _measured(result, seen, plan, clock)
    result["verdicts"] = verdicts(result)
    pairs, items = _pairs(seen, result), _items(seen)
    evaluation = Evaluation(result, made, pairs, items, clock.seconds)
    yield Looking("done", 1, 1, plan, evaluation)


def _sampled(
    model: Model, recipe: Recipe, wishes: list[Wish], plan: Plan
) -> Generator[Looking, None, Sample]:
    """The samples of the plan."""
    made: Sample | None = None
    for progress in sample(model, recipe, wishes[: plan.n]):
        made = progress.sample
        yield Looking("samples", progress.done, progress.of, plan)
    assert made is not None
    return made


def _seen(
    model: Model,
    recipe: Recipe,
    data: tuple[Splits, Splits | None],
    eyes: Eyes,
    drawn: tuple[Sample, Dataset, Tensor],
) -> Seen:
    """Samples and real items with their features and floors."""
    made, real, sources = drawn
    fakes, reals = eyes.of_samples(made.x), eyes.of_real(real.x)
    floors = between(reals, len(fakes), real.cond.get("label") if model.labels else None)
    asked = sources[: len(fakes)]
    return Seen(model, recipe, *data, eyes, made, real, fakes, reals, floors, asked)


def _measured(result: dict[str, Any], seen: Seen, plan: Plan, clock: _Clock) -> Iterator[Looking]:
    """Fill the report stage by stage."""
    for i, stage in enumerate(stage for stage in STAGES if stage.name in plan.stages):
        yield Looking(stage.name, i, len(plan.stages), plan)
        try:
            _add(result, stage.run(seen))
        except UserError as error:
            if error.code != "E-EVAL":
                raise
            result["skipped"][stage.name] = str(error)  # too few items for this one; all else holds
        clock.stop(stage.name)


def _add(result: dict[str, Any], part: dict[str, Any]) -> None:
    """Put a stage's part into the report; measures and classes collect, all else is new."""
    result["measures"] |= part.pop("measures", {})
    for name, figures in part.pop("per_class", {}).items():
        result["per_class"].setdefault(name, {}).update(figures)
    result.update(part)


class _Clock:
    """Seconds between the stops, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def stop(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = round(now - self._last, 1)
        self._last = now


def _reference(model: Model, splits: Splits, effort: Effort) -> tuple[Dataset, str]:
    """The real items that samples are compared with, once the data is known to fit the model."""
    names, n = model.labels, effort.n
    check_counts(n, effort.seed)
    check_fit(model, splits)
    least = max(10, 2 * len(names))
    if n < least:
        takes = f"{least} or more, two a class"
        raise UserError("E-EVAL", where="n", got=str(n), takes=takes)
    return reference(splits, n, effort.seed)


def _wishes(model: Model, real: Dataset, effort: Effort) -> tuple[list[Wish], Tensor]:
    """A wish with the conditions of a real item each, the classes in turn, and which items."""
    classes = max(1, len(model.labels))
    each, turn = len(real) // classes, torch.arange(effort.n)
    sources = turn % classes * each + turn // classes % each
    known = [name for name in model.recipe.conditions if name in real.cond]
    wishes = [
        Wish(as_asked(model.spec, {name: real.cond[name][k] for name in known}), effort.seed + i)
        for i, k in enumerate(sources.tolist())
    ]
    return wishes, sources


def _facts(seen: Seen, part: str, plan: Plan, effort: Effort) -> dict[str, Any]:
    """What was measured on what, with which eyes."""
    model, recipe, real = seen.model, seen.recipe, seen.real
    training = model.about["training"]
    return {
        "schema": SCHEMA,
        "model": {
            "name": model.spec.name,
            "sha256": model.about["sha256"],
            "parameters": sum(p.numel() for p in model.denoiser.parameters()),
            "iterations": training["iterations"],
            "images": training["images"],
        },
        "settings": {
            "n": plan.n,
            "seed": effort.seed,
            "sampler": recipe.sampler.flat(),
            "guidance": [guidance.flat() for guidance in recipe.guidance],
            "calls_per_sample": seen.made.calls,
        },
        **seen.eyes.facts(),
        "reference": {"n": len(real), "part": part, "fingerprint": fingerprint(real)},
        "skipped": dict(plan.skipped),
        "measures": {},
        "per_class": {},
    }


def _pairs(seen: Seen, result: dict[str, Any]) -> Tensor | None:
    """The samples nearest to training items, each with its item."""
    train = seen.seen
    if "nearest" not in result or train is None:
        return None
    rows = [(row["sample"], row["train"]) for row in result["nearest"]]
    return torch.stack([torch.stack([seen.made.x[i], train.x[j]]) for i, j in rows])


def _items(seen: Seen) -> Items:
    """What was seen of each item."""
    none = torch.full((len(seen.fakes),), -1)
    judge = seen.eyes.judge
    named = bool(seen.names) and judge is not None
    return Items(
        seen.fakes.to(torch.float32),
        seen.reals.to(torch.float32),
        seen.wanted() if named else none,
        judge.look(seen.made.x)[1] if named and judge else none.clone(),
        seen.real.cond["label"] if named else torch.full((len(seen.reals),), -1),
    )
