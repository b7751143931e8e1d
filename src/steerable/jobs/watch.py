"""Looking at a model while it trains: validation loss with fixed noise, previews at fixed seeds.

Beside them the checks, which measure a few samples, and the warnings that follow from all records.
Nothing here draws from a generator that training draws from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from steerable.core.denoise import Denoiser
from steerable.core.noise import Noise
from steerable.core.types import Dataset, Spec
from steerable.nn.noisy_classifier import NoisyClassifier
from steerable.recipes.assembly import Network
from steerable.recipes.recipe import Recipe

from . import durable
from .beside import RECORD, records_in, sound
from .checks import FORWARDS, Checks
from .classified import by_level
from .objective import loss_at
from .pictures import bytes_of, labelled_grid, png
from .prepare import Prepared
from .run import Run
from .sample import drawn
from .state import State
from .trouble import fresh
from .wish import Wish

__all__ = [
    "RECORD",
    "Watch",
    "look_cost",
    "milestone",
    "preview",
    "preview_file",
    "records",
    "troubled",
    "troubles_of",
    "validation_loss",
]

FIRST = 50  # iterations; samples of less are noise
VALIDATION = 512  # held-out items whose loss is measured
SEED = 20_240_101  # of every validation and preview, so that only the weights change


def milestone(i: int) -> bool:
    """1, 2 or 5 times a power of ten, from 50 on: trouble shows early, long runs stay cheap."""
    power = 10 ** (len(str(i)) - 1)
    return i >= FIRST and i % power == 0 and i // power in (1, 2, 5)


def _number(i: int) -> int:
    """How many milestones lie up to iteration i; an end between two of them is one more."""
    before = [unit * 10**k for k in range(1, len(str(i))) for unit in (1, 2, 5)]
    return sum(1 for j in before if FIRST <= j < i) + 1


def troubled(i: int) -> bool:
    """Whether the records are read for trouble after iteration i: each time they are 3 to 6 % more.

    So reading all of them again costs next to nothing, and no trouble waits for a milestone.
    """
    return i % max(100, 2 ** max(0, i.bit_length() - 5)) == 0


def preview_file(run: Path, i: int) -> Path:
    """The preview of iteration i."""
    return run / "samples" / f"preview-{i:08d}.png"


def records(run: Path) -> list[dict[str, Any]]:
    """The sound lines of the record of a run, none if there is no record yet."""
    return records_in(run / RECORD, sound)


def troubles_of(run: Path) -> list[dict[str, Any]]:
    """What was said to go wrong in a run, in the order of its beginning."""
    return [record for record in records(run) if record.get("event") == "trouble"]


def look_cost(job: Prepared) -> float:
    """About what a look costs, in training iterations, before one has been made.

    Counted in forward passes of one item: the validation loss of two networks, a preview of both,
    and a check, with four calls a step, as a sampler of second order with guidance makes.
    """
    losses = 2 * min(VALIDATION, len(job.splits.held_out))
    pictures = 20 + (64 if job.recipe.training.checks == "auto" else 0)
    forwards = losses + pictures * 4 * job.recipe.sampler.steps
    return forwards / (FORWARDS * job.recipe.training.batch)


class Watch:
    """What is seen of one run; every record of it goes through `note`.

    Args:
        job: The run.
        run: Its folder, whose record is cut back to where training goes on.
    """

    def __init__(self, job: Prepared, run: Run) -> None:
        self.job, self.run = job, run
        on = job.recipe.training.checks == "auto"
        self.checks = Checks(job) if on else None
        self.history = records(job.run) if on else []

    def note(self, record: dict[str, Any]) -> dict[str, Any]:
        """Write a record down; it is kept for the warnings too."""
        self.run.append(RECORD, record)
        if self.checks is not None:
            self.history.append(record)
        return record

    def begin(self, net: Network, iteration: int) -> None:
        """The loss before the first update, which all others are compared with."""
        known = any(r.get("event") == "start" for r in self.history)
        if self.checks is None or known or iteration:
            return
        loss = validation_loss(net, self.job.splits.held_out)
        self.note({"event": "start", "iteration": 0, "validation_loss_raw": loss})

    def look(self, state: State, pays: Callable[[], bool]) -> list[dict[str, Any]]:
        """At milestones and at the end the validation loss, the pictures and a check.

        Args:
            state: The state of the training.
            pays: Whether the budget of time pays for looking now.
        """
        events: list[dict[str, Any]] = []
        i, due = state.iteration, milestone(state.iteration) or state.over
        if due and not pays():
            skipped = {"event": "look_skipped", "iteration": i, "reason": "no time is left for it"}
            events.append(self.note(skipped))
        elif due:
            held_out = self.job.splits.held_out
            losses = {
                "event": "validation",
                "iteration": i,
                "validation_loss": validation_loss(state.ema.module, held_out),
                "validation_loss_raw": validation_loss(state.net, held_out),
            }
            state.validations.append(self.note(losses))
            events += [losses, *self._seen(state.net, state.ema.module, i)]
        if self.checks is not None and (events or troubled(i)):
            events += [self.note(found.record(i)) for found in fresh(self.history)]
        return events

    def _seen(self, net: Network, averaged: Any, i: int) -> list[dict[str, Any]]:
        """A preview and a check, or the accuracies of a classifier's EMA weights."""
        if isinstance(net, NoisyClassifier):
            assert isinstance(averaged, NoisyClassifier)
            found = by_level(averaged, self.job.splits.held_out)
            return [self.note({"event": "accuracy", "iteration": i, **found})]
        assert isinstance(averaged, Denoiser)
        path = preview_file(self.job.run, i)
        picture = preview([net, averaged], self.job.recipe, self.job.splits.train.spec)
        self.run.tolerate("previews", lambda: durable.write(path, picture))
        name = path.relative_to(self.job.run).as_posix()
        events = [{"event": "preview", "iteration": i, "file": name}]
        if self.checks is not None and i >= FIRST:
            began = time.perf_counter()
            events.append(self.note(self.checks.check(averaged, i, number=_number(i))))
            spent = time.perf_counter() - began
            self.run.append("times.jsonl", {"iteration": i, "check_seconds": round(spent, 3)})
        return events


@torch.no_grad()
def validation_loss(net: Network, held_out: Dataset, *, items: int = VALIDATION) -> float:
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
