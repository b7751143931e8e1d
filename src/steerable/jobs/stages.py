"""The stages of an evaluation: each looks at the same samples and gives its part of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.types import Dataset, Splits
from steerable.recipes.recipe import Recipe

from .eyes import Eyes
from .features import cache_folder
from .fitting import PATIENCE, affordable
from .judge import Judge, train_judge
from .levels import level_losses, mirrored, summary
from .likelihood import integral_for, likelihood
from .measures import Figures, by_class, colours, copying, figure, likeness, obeying, share, varying
from .model import Model
from .reader import adherence_tokens, adherence_vector, train_reader
from .reference_fid import reference_fid
from .sample import Sample

__all__ = ["STAGES", "Seen", "Stage", "check_fid", "left_out"]

LEVELS, ITEMS = 9, 100  # noise levels at which the loss is looked at, and items
READING = 30.0  # seconds on two usual cores in which a reader learns
SCORING = 15.0  # the same of a classifier of the classification score; more would raise both
UNSEEN = 2000  # real items that copies are compared with, at most
LIKELY = 16  # items whose likelihood is integrated


@dataclass(frozen=True)
class Seen:
    """Samples and real items, and what the eyes see in them.

    Attributes:
        model: The model.
        recipe: Its recipe with the sampling settings.
        splits: The real data.
        own: The data that the model was trained on, or None where it is not at hand.
        eyes: Who looks.
        made: The samples.
        real: The real items that they are compared with, equal shares of the classes.
        fakes: Features of the samples, (n,F).
        reals: Features of the real items, (m,F).
        floors: What the measures of likeness are between real items, from `between`.
        sources: The real item whose conditions each sample was told, (n,).
        inception: Weights of the published Inception network, "" for the tool's own place.
    """

    model: Model
    recipe: Recipe
    splits: Splits
    own: Splits | None
    eyes: Eyes
    made: Sample
    real: Dataset
    fakes: Tensor
    reals: Tensor
    floors: Figures
    sources: Tensor
    inception: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Class names that the model was told."""
        return self.model.labels

    def wanted(self) -> Tensor:
        """The class that each sample was asked for, (n,) int64; 0 where there are none."""
        names = self.names
        if not names:
            return torch.zeros(len(self.made.x), dtype=torch.int64)
        return torch.tensor([names.index(w.cond["label"]) for w in self.made.wishes])

    @property
    def seen(self) -> Dataset | None:
        """All items that training has shown, mirrored ones too if it flips; None if not at hand."""
        flips = self.model.recipe.training.flip
        if self.own is None or not flips:
            return None if self.own is None else self.own.train
        return mirrored(self.own.train)


Part = dict[str, Any]


def _one_class(data: Dataset) -> Tensor:
    return torch.zeros(len(data), dtype=torch.int64)


def _judge(seen: Seen) -> Judge | None:
    """The judge, where the model has classes that one could name."""
    return seen.eyes.judge if seen.names else None


def like_real(seen: Seen) -> Part:
    """How like real items the samples are as a set."""
    labels = seen.real.cond.get("label") if seen.names else None
    return {"measures": likeness(seen.fakes, seen.reals, seen.floors, labels)}


def variety(seen: Seen) -> Part:
    """How different the samples of one class are, in features and in pixels.

    A judge has learned not to see what does not matter for the class, so pixels are asked too.
    """
    sets = seen.wanted(), seen.real.cond["label"] if seen.names else _one_class(seen.real)
    of, each = varying("spread", seen.fakes, sets[0], seen.reals, sets[1])
    pixels = [x.flatten(1).to(torch.float64) / 127.5 - 1 for x in (seen.made.x, seen.real.x)]
    of_pixels, _ = varying("spread_pixels", pixels[0], sets[0], pixels[1], sets[1])
    rows = {name: {"spread": row} for name, row in zip(seen.names, each, strict=False) if row}
    return {"measures": {**of, **of_pixels}, "per_class": rows}


def obedience(seen: Seen) -> Part:
    """Whether the judge sees the classes that were asked for, and each class on its own."""
    judge, wanted, names = _judge(seen), seen.wanted(), seen.names
    assert judge is not None
    figures, value = obeying(judge.look(seen.made.x)[1], wanted, len(names))
    error = (judge.accuracy * (1 - judge.accuracy) / judge.n) ** 0.5
    figures["accuracy"] |= {"real": judge.accuracy, "real_error": error, "real_n": judge.n}
    kids = by_class(seen.fakes, wanted, seen.reals, seen.real.cond["label"], len(names))
    rows: dict[str, Figures] = {}
    for c, name in enumerate(names):
        n, right = sum(value["confusion"][c]), value["confusion"][c][c]
        if n:
            kid = kids[c]
            rows[name] = {"accuracy": share(right, n), **({} if kid is None else {"kid": kid})}
    confusion = value["confusion"]
    return {"measures": figures, "labels": list(names), "confusion": confusion, "per_class": rows}


def copies(seen: Seen) -> Part:
    """Whether samples are copies of training items."""
    train = seen.seen
    assert train is not None and seen.own is not None
    figures, nearest = copying(seen.made.x, train, seen.own.held_out.x[:UNSEEN])
    return {"measures": figures, "nearest": nearest}


def colour(seen: Seen) -> Part:
    """Colours, contrast and dead pictures."""
    return {"measures": colours(seen.made.x, seen.real.x)}


def adherence(seen: Seen) -> Part:
    """Whether numbers and words that were asked for can be read off the samples."""
    found: Figures = {}
    spec, splits = seen.model.spec, seen.splits
    for name in (*spec.vectors, *spec.tokens):
        value = seen.real.cond[name][seen.sources]
        most = affordable(spec.shape, READING)
        parts = splits.train, splits.held_out
        reader = train_reader(*parts, name, seconds=PATIENCE, most=most)
        if name in spec.vectors:
            read = adherence_vector(reader, seen.made.x, value)
            found[f"r2 of {name}"] = figure(read, "r2", real=reader.accuracy, real_n=reader.n)
        else:
            read = adherence_tokens(reader, seen.made.x, value, seed=0)
            more = {"chance": read["chance"], "real": reader.accuracy, "real_n": reader.n}
            found[f"retrieval of {name}"] = figure(read, "retrieval", **more)
    return {"measures": found}


def score(seen: Seen) -> Part:
    """The classification accuracy score: learn from samples, be tested on real pictures.

    Beside it the same from as many real training pictures. Source: Ravuri and Vinyals,
    arXiv 1905.10887.
    """
    held_out, train, wanted = seen.splits.held_out, seen.splits.train, seen.wanted()
    count = min(len(wanted), len(train))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    fake = Dataset(train.spec, seen.made.x[:count], {"label": wanted[:count]})
    rows = {}
    most = affordable(train.spec.shape, SCORING)
    for name, data in (("fake", fake), ("real", train.take(order[:count]))):
        rows[name] = train_judge(data, held_out, seconds=PATIENCE, most=most)
    fake, real = rows["fake"], rows["real"]
    own = share(round(fake.accuracy * fake.n), fake.n)
    more = {"n_train": count, "real": real.accuracy, "chance": 1.0 / len(seen.names)}
    return {"measures": {"classification_score": {**own, **more}}}


def levels(seen: Seen) -> Part:
    """The loss at every noise level beside the least that any network can reach."""
    net, own, train = seen.model.denoiser, seen.own, seen.seen
    assert train is not None and own is not None
    *_, (_, found) = level_losses(net, train, own.held_out, items=ITEMS, count=LEVELS)
    assert found is not None
    return {"levels": summary(net.process, found)}


def likely(seen: Seen) -> Part:
    """Bits per dimension of a few held-out items."""
    how = integral_for(seen.model.spec, tolerance=1e-3)
    *_, last = likelihood(seen.model, seen.splits.held_out, n=LIKELY, integral=how)
    assert last.result is not None
    return {"measures": {"bits_per_dim": figure(last.result, "bpd")}}


def published(seen: Seen) -> Part:
    """The distance that papers call FID, by their network and tool."""
    found = reference_fid(seen.made.x, seen.real.x, weights=seen.inception, cache=cache_folder())
    more = {"n_real": found["n_real"], "protocol": found["protocol"]}
    return {"measures": {"fid": figure(found, "fid", **more)}}


@dataclass(frozen=True)
class Stage:
    """A part of the report.

    Attributes:
        name: What it is called in the plan and in what was left out.
        run: Its part of the report.
        seconds: Roughly how long it takes for n samples, on two cores.
        essential: Whether a short budget keeps it.
    """

    name: str
    run: Callable[[Seen], Part]
    seconds: Callable[[int], float]
    essential: bool = True


STAGES = (
    Stage("likeness", like_real, lambda n: 4 + n / 300),
    Stage("variety", variety, lambda n: 1 + n / 2000),
    Stage("obedience", obedience, lambda n: 1 + n / 2000),
    Stage("copies", copies, lambda n: 2 + n / 300),
    Stage("colours", colour, lambda n: n / 2000),
    Stage("adherence", adherence, lambda n: 2 * READING, essential=False),
    Stage("classification score", score, lambda n: 40.0, essential=False),
    Stage("noise levels", levels, lambda n: 10.0, essential=False),
    Stage("likelihood", likely, lambda n: 15.0, essential=False),
    Stage("reference FID", published, lambda n: 20 + n / 5),
)


def check_fid(inception: str | None) -> None:
    """Refuse the published FID, if weights for it are given, where there is no torch-fidelity.

    Raises:
        UserError: E-EXTRA.
    """
    if inception is not None and not find_spec("torch_fidelity"):
        do = 'pip install "steerable[eval-ref]"'
        raise UserError("E-EXTRA", where="reference FID", got="no torch-fidelity", do=do)


def left_out(model: Model, own: Splits | None, eyes: Eyes, *, fid: bool) -> dict[str, str]:
    """Why each stage that says nothing about this model is left out, by its name.

    Args:
        model: The model.
        own: The data that it was trained on, where it is at hand.
        eyes: Who looks.
        fid: Whether the published FID is asked for.
    """
    judged = "" if eyes.judge and model.labels else "the model was trained without classes"
    owned = "" if own else "the training data is not at hand"
    told = model.spec.vectors or model.spec.tokens
    why = {
        "obedience": judged,
        "classification score": judged,
        "copies": owned,
        "noise levels": owned,
        "adherence": "" if told else "no numbers or words to ask for",
        "reference FID": "" if fid else "not asked for, --reference-fid",
        "likelihood": "" if find_spec("torchdiffeq") else 'pip install "steerable[ode]"',
    }
    return {name: reason for name, reason in why.items() if reason}
