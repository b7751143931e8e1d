"""Cheap measures of a few samples while training, which show early what goes wrong.

What they cost is counted in operations of the network and not by the clock, so that the same run
has the same records on every machine and after every resume.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from steerable.core.denoise import Denoiser
from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.types import Batch, Dataset
from steerable.metrics.accuracy import Accuracy
from steerable.metrics.colours import Colours
from steerable.metrics.kid import Kid
from steerable.metrics.memorisation import Memorisation
from steerable.metrics.spread import Spread

from .judge import Judge, shipped_judge, train_judge
from .objective import loss_at
from .pictures import bytes_of
from .prepare import Prepared
from .sample import drawn, moments
from .wish import Wish, as_asked

__all__ = ["Checks", "mixed"]

SEED = 20_240_103  # of every check, so that only the weights change
SAMPLES = (128, 64)  # the first number that is paid for; the least while the network is young
YOUNG = 200  # iterations
BATCH = 64  # samples in one call of the network
LOSSES = 128  # held-out items that are told another item's conditions
REALS = 512  # held-out pictures that samples are compared with
UNSEEN = 256  # of them, where all training pictures are looked through for the nearest
SMALL = 10_000  # training pictures: with more of them, copies are not what goes wrong first

SHARE = 0.03  # of the operations of training so far
FREE = 1.5e11  # operations beside, in all: one to five seconds on a CPU of today
FORWARDS = 3  # forward passes that a training step of one item costs

JUDGING = 0.02  # of the planned seconds, to train a judge
LEAST, MOST = 3.0, 20.0  # seconds: less makes no judge, more makes no better one


def mixed(data: Dataset, count: int, seed: int = SEED) -> Tensor:
    """Places (n,) of `count` items, or of all, in an order that mixes the classes."""
    every = torch.arange(len(data))
    return Noise.of(seed, iteration=1, items=every).uniform(len(every)).argsort()[:count]


class Checks:
    """The checks of one run; what they compare with is made at the first one.

    Args:
        job: The run.
    """

    def __init__(self, job: Prepared) -> None:
        self.job = job
        self.spec = job.splits.train.spec
        self._calls = 0
        self._judge: Judge | None = None
        self._missing: dict[str, str] | None = None  # why something is not measured at all
        self._reals: tuple[Dataset, Tensor] | None = None

    def check(self, net: Denoiser, iteration: int, *, number: int) -> dict[str, Any]:
        """The record of a check, which says why something was not measured.

        Args:
            net: The weights that are looked at.
            iteration: Iterations done.
            number: How many checks the run has had, with this one.
        """
        record = {"event": "check", "iteration": iteration}
        was_training = net.training
        net.eval()
        try:
            n = self._affordable(net, iteration, number)
            if not n:
                why = f"more than {SHARE:.0%} of the training so far"
                return {**record, "skipped": why}
            return {**record, "n": n, **self._measured(net, n)}
        finally:
            net.train(was_training)

    def _affordable(self, net: Denoiser, iteration: int, number: int) -> int:
        """Number of samples that so much training pays for, or 0."""
        if not self._calls:
            *_, (_, self._calls) = moments(net, self.job.recipe, self.spec, self._wishes(1))
        flop = 1e6 * self.job.facts["forward_mflop"]
        earned = SHARE * FORWARDS * flop * self.job.recipe.training.batch * iteration + FREE
        train = self.job.splits.train
        # A product and a sum for every pixel of every pair, in double precision.
        pair = 4.0 * len(train) * train.x[0].numel() if len(train) < SMALL else 0.0
        for n in SAMPLES[iteration < YOUNG :]:
            cost = flop * (n * self._calls + 2 * LOSSES) + (n + UNSEEN) * pair
            if number * cost <= earned:
                return n
        return 0

    def _wishes(self, n: int) -> list[Wish]:
        """The conditions of held-out items, so that samples have the same shares of them."""
        data = self.job.splits.held_out
        places = mixed(data, n).tolist()
        wanted = []
        for i in range(n):
            k = places[i % len(places)]
            told = {
                name: value[k]
                for name, value in data.cond.items()
                if name in self.spec.labels or name in self.spec.vectors or name in self.spec.tokens
            }
            wanted.append(Wish(as_asked(self.spec, told), SEED + i))
        return wanted

    def _measured(self, net: Denoiser, n: int) -> dict[str, Any]:
        missing = dict(self._prepared())
        found: dict[str, Any] = self._gain(net)
        wanted = self._wishes(n)
        parts = [
            drawn(net, self.job.recipe, self.spec, wanted[k : k + BATCH])
            for k in range(0, n, BATCH)
        ]
        floats = torch.cat(parts).cpu()
        finite = floats.isfinite().flatten(1).all(1)
        found["broken"] = int((~finite).sum())
        floats[~finite] = -1.0  # black, so that they count as dead
        x = bytes_of(floats)
        labels = self._labels([wish.label for wish in wanted])
        measures: dict[str, Callable[[], dict[str, Any]]] = {
            "accuracy": lambda: self._accuracy(x, labels),
            "kid": lambda: self._kid(x),
            "spread": lambda: self._spread(x, labels),
            "colours": lambda: self._colours(x),
            "memorisation": lambda: self._memorisation(x),
        }
        for name, measure in measures.items():
            if name in missing:
                continue
            try:
                found |= measure()
            except UserError as error:
                if error.code != "E-EVAL":
                    raise
                missing[name] = str(error)
        return {**found, "missing": missing}

    def _prepared(self) -> dict[str, str]:
        """What is never measured in this run and why; the first call makes the judge."""
        if self._missing is None:
            splits, missing = self.job.splits, {}
            why = self._without_judge()
            if why:
                missing["accuracy"] = why
            if len(splits.train) >= SMALL:
                missing["memorisation"] = f"{len(splits.train):,} training pictures are many"
            held_out = splits.held_out
            real = held_out.take(mixed(held_out, REALS))
            self._reals = real, self._features(real.x)
            self._missing = missing
        return self._missing

    def _without_judge(self) -> str:
        """Get a judge, or say why there is none."""
        splits, names = self.job.splits, self.spec.labels.get("label", ())
        known = [bool((part.cond["label"] >= 0).any()) for part in self._parts()] if names else []
        if len(names) < 2 or not all(known):
            return "the model is told no label"
        self._judge = shipped_judge(self.spec)
        seconds = min(MOST, JUDGING * self.job.facts["seconds"])
        if self._judge is not None:
            return ""
        if seconds < LEAST:
            return f"the run is too short to train a judge: {LEAST / JUDGING:.0f} s pay for one"
        if min(self.spec.shape[1:]) < 4:
            return "the pictures are too small for a judge"
        self._judge = train_judge(splits.train, splits.held_out, seconds=seconds)
        return ""

    def _parts(self) -> tuple[Dataset, Dataset]:
        return self.job.splits.train, self.job.splits.held_out

    def _labels(self, names: list[str | None]) -> Tensor:
        known = self.spec.labels.get("label", ())
        return torch.tensor([-1 if name is None else known.index(name) for name in names])

    def _features(self, x: Tensor) -> Tensor:
        """Features of the judge, or without one the pixels in [-1, 1]."""
        if self._judge is not None:
            return self._judge.look(x)[0]
        return x.flatten(1).to(torch.float64).div_(127.5).sub_(1.0)

    def _real(self) -> tuple[Dataset, Tensor]:
        assert self._reals is not None, "prepared before"
        return self._reals

    @torch.no_grad()
    def _gain(self, net: Denoiser) -> dict[str, Any]:
        """By how much the loss rises when items are told the conditions of others."""
        held_out = self.job.splits.held_out
        index = mixed(held_out, LOSSES)
        batch, count = held_out.batch(index), len(index)
        told = [name for name in batch.cond if name in net.conditions]
        other = {name: batch.cond[name].roll(1, 0) for name in told}
        changed = torch.zeros(count, dtype=torch.bool)
        for name in told:
            changed |= (batch.cond[name] != other[name]).reshape(count, -1).any(1)
        if int(changed.sum()) < 2:
            return {}
        noise = Noise.of(SEED, iteration=0, items=torch.arange(count))
        t = net.process.draw(count, noise)
        z = noise.normal(batch.x)
        right = loss_at(net, batch, t, z)
        wrong = loss_at(net, Batch(batch.x, {**batch.cond, **other}), t, z)
        gain = (wrong - right)[changed].to(torch.float64)
        error = float(gain.std() / len(gain) ** 0.5)
        return {"gain": float(gain.mean()), "gain_error": error, "gain_n": len(gain)}

    def _accuracy(self, x: Tensor, labels: Tensor) -> dict[str, Any]:
        assert self._judge is not None
        known = labels >= 0
        wanted, predicted = labels[known], self._judge.look(x)[1][known]
        metric = Accuracy(len(self._judge.names))
        metric.update(predicted, wanted)
        right = metric.value()["accuracy"]
        error = (right * (1.0 - right) / len(wanted)) ** 0.5
        counts = metric.counts.to(torch.float64)
        # How often one is right who answers as often with each class, but knows nothing.
        chance = float((counts.sum(0) * counts.sum(1)).sum() / counts.sum() ** 2)
        judge = {"judge_accuracy": self._judge.accuracy, "judge_n": self._judge.n}
        return {"accuracy": right, "accuracy_error": error, "chance": chance, **judge}

    def _kid(self, x: Tensor) -> dict[str, Any]:
        fake, real = Kid(), Kid()
        fake.update(self._features(x))
        real.update(self._real()[1])
        value = fake.value(real)
        of = "judge" if self._judge is not None else "pixels"
        return {"kid": value["kid"], "kid_error": value["kid_error"], "kid_of": of}

    def _spread(self, x: Tensor, labels: Tensor) -> dict[str, Any]:
        """Distances within the classes, or within all where a class has too few samples."""
        real, rows = self._real()
        theirs = real.cond.get("label", torch.full((len(real),), -1))
        classes = max(1, len(self.spec.labels.get("label", ())))
        if len(x) < 4 * classes or bool((labels < 0).any()) or bool((theirs < 0).any()):
            classes, labels, theirs = 1, torch.zeros_like(labels), torch.zeros_like(theirs)
        fake, true = Spread(classes), Spread(classes)
        fake.update(self._features(x), labels)
        true.update(rows, theirs)
        mine, other = fake.value(), true.value()
        return {
            "spread": mine["spread"],
            "spread_error": mine["spread_error"],
            "spread_real": other["spread"],
            "spread_real_error": other["spread_error"],
        }

    def _colours(self, x: Tensor) -> dict[str, Any]:
        fake, real = Colours(x.shape[1]), Colours(x.shape[1])
        fake.update(x)
        real.update(self._real()[0].x)
        return {k: v for k, v in fake.value(real).items() if k != "n"}

    def _memorisation(self, x: Tensor) -> dict[str, Any]:
        """The measure, and a control: the same with halves of the held-out items.

        Blurred samples are near to everything. Nobody trained on the halves, so that what is below
        1 there is blur, and only what is below that is copying.
        """
        train, held_out = (part.x for part in self._parts())
        if self.job.recipe.training.flip:  # what is seen mirrored can be copied mirrored
            train = torch.cat([train, train.flip(-1)])
        order = mixed(self.job.splits.held_out, UNSEEN)
        own = _copies(x, train, held_out[order])
        control = _copies(x, held_out[order[0::2]], held_out[order[1::2]])
        names = ("memorisation", "near_copies")
        keys = [key for name in names for key in (name, f"{name}_error")]
        found = {key: own[key] for key in keys}
        return {**found, **{f"control_{key}": control[key] for key in keys}}


def _copies(x: Tensor, train: Tensor, unseen: Tensor) -> dict[str, Any]:
    sets = []
    for pictures in (x, train, unseen):
        metric = Memorisation()
        metric.update(pictures.to(torch.float64).div_(127.5).sub_(1.0))
        sets.append(metric)
    return sets[0].value(*sets[1:])
