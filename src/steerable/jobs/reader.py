"""The reader: who reads attributes or captions off pictures that have no class to be judged by.

Like a judge it never guided anything, and its last hidden layer is a space of features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from steerable.core.condition import absent
from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.types import Dataset
from steerable.metrics.regression import Regression
from steerable.metrics.retrieval import Retrieval
from steerable.nn.classifier import Classifier

from .fitting import MOST, chunks, digest, fitted, frozen, known, moved, plain, seen

__all__ = ["Reader", "adherence_tokens", "adherence_vector", "train_reader"]

CANDIDATES = 16
SMOOTHING = 0.05


@dataclass(frozen=True)
class Reader:
    """A frozen network that reads one condition off pictures, with what is known of it.

    Attributes:
        net: The network, in evaluation mode.
        name: The condition that it reads.
        words: Names of the K attributes of a vector, or the V words of captions by index.
        length: L, the longest caption; 0 for a reader of attributes.
        shape: Shape (C,H,W) of the pictures that it takes.
        zero: Of attributes the means (K,), of captions log p(word at a place) (L,V), both of the
            training items.
        scale: Of attributes the standard deviations (K,), of captions ones (1,).
        accuracy: R^2 (of attributes) or share of captions found among 16 on held-out pictures.
        accuracy_error: Its standard error.
        n: Number of held-out pictures behind `accuracy`.
        sha256: SHA-256 of the weights, `zero` and `scale` as tensors.
    """

    net: Classifier
    name: str
    words: tuple[str, ...]
    length: int
    shape: tuple[int, ...]
    zero: Tensor
    scale: Tensor
    accuracy: float
    accuracy_error: float
    n: int
    sha256: str

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N,128) float64 and outputs (N,K) or (N,L*V) of pictures (N,C,H,W) uint8.

        Raises:
            UserError: E-SHAPE for pictures of another shape or number type.
        """
        self._check(x)
        return seen(self.net, x)

    def attributes(self, x: Tensor) -> Tensor:
        """Attributes (N,K) float64, in the units of the data, read off pictures (N,C,H,W) uint8.

        Raises:
            UserError: E-SHAPE for pictures of another shape or number type.
        """
        assert self.length == 0, "a reader of attributes"
        return self.look(x)[1] * self.scale + self.zero

    def fit(self, x: Tensor, captions: Tensor) -> Tensor:
        """How well each of K captions (N,K,L) fits each picture (N,C,H,W) uint8, (N,K) float64.

        The sum over the words of log p(word | picture, place) - log p(word | place), with places
        read apart from each other: so neither long captions nor frequent words have an advantage,
        and a reader that sees nothing gives 0 to all.

        Raises:
            UserError: E-SHAPE for pictures of another shape or number type.
        """
        self._check(x)
        assert captions.shape[2] == self.length > 0, "captions (N,K,L)"
        scores = torch.empty(captions.shape[:2], dtype=torch.float64)
        for rows, _, out in chunks(self.net, x):
            part = captions[rows].cpu()
            shape = (len(part), self.length, len(self.words))
            gain = out.to(torch.float64).reshape(shape).log_softmax(2) - self.zero
            words = part.clamp(min=0).transpose(1, 2)  # (B,L,K), to look K words up at each place
            found = gain.gather(2, words).transpose(1, 2)
            scores[rows] = torch.where(part >= 0, found, 0.0).sum(2)
        return scores

    def _check(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != self.shape or x.dtype != torch.uint8:
            got = f"pictures {tuple(x.shape[1:])} of {x.dtype}"
            takes = f"{self.shape} of {torch.uint8}"
            raise UserError("E-SHAPE", where="the reader", got=got, takes=takes)


def train_reader(
    train: Dataset,
    held_out: Dataset,
    name: str,
    *,
    seconds: float,
    seed: int = 0,
    most: int = MOST,
) -> Reader:
    """Train a reader of the condition `name` on some pictures and measure it on others.

    It ends with the time or, for small data, with the epochs; in the latter case the same seed
    gives the same reader. Pictures are never flipped, since a condition may name a side, and for
    attributes never moved either, since one may be a place.

    Args:
        train: Pictures to learn from.
        held_out: Pictures to be measured on.
        name: A vector or a token condition of both.
        seconds: Most time to train.
        seed: Seed of the weights, of the order and of the candidates.
        most: Pictures to be seen, within 8 to 60 epochs.

    Raises:
        UserError: E-DATA without pictures that have the condition; E-EVAL for too few held-out
            ones to measure it, or where it does not vary; E-SHAPE for pictures below 4 x 4; E-LIMIT
            for a time that is not above 0.
    """
    spec = train.spec
    if name not in spec.vectors and name not in spec.tokens:
        takes = f"one of {', '.join([*spec.vectors, *spec.tokens]) or 'none'}"
        raise UserError("E-DATA", where=spec.name, got=f"condition '{name}' to read", takes=takes)
    train, held_out = known(train, name, "training"), known(held_out, name, "held-out")
    fit = _of_attributes if name in spec.vectors else _of_captions
    net, zero, scale = fit(train, name, seconds=seconds, seed=seed, most=most)
    length = 0 if name in spec.vectors else train.cond[name].shape[1]
    words = tuple(spec.vectors[name] if name in spec.vectors else spec.tokens[name])
    sha256 = digest({**plain(net), "zero": zero, "scale": scale})
    shape = tuple(spec.shape)
    reader = Reader(frozen(net), name, words, length, shape, zero, scale, 0.0, 0.0, 0, sha256)
    told = held_out.cond[name]
    found, measure = (
        (adherence_vector(reader, held_out.x, told), "r2")
        if name in spec.vectors
        else (adherence_tokens(reader, held_out.x, told, seed=seed), "retrieval")
    )
    share, error = found[measure], found[f"{measure}_error"]
    return replace(reader, accuracy=share, accuracy_error=error, n=found["n"])


def _of_attributes(
    train: Dataset, name: str, *, seconds: float, seed: int, most: int
) -> tuple[Classifier, Tensor, Tensor]:
    """A network for the attributes in units of `scale` from `zero`."""
    told = train.cond[name].to(torch.float64)
    there = ~told.isnan()
    count = there.sum(0).clamp(min=1)
    zero = told.nansum(0) / count
    scale = ((told - zero).square().nansum(0) / count).sqrt()
    scale = torch.where(scale > 1e-6 * zero.abs(), scale, 1.0)  # one that does not vary
    wanted = ((told - zero) / scale).nan_to_num(0.0).to(torch.float32)

    def loss(out: Tensor, index: Tensor) -> Tensor:
        goal, counts = wanted[index].to(out.device), there[index].to(out.device)
        return ((out - goal).square() * counts).sum() / counts.sum().clamp(min=1)

    def still(x: Tensor, noise: Noise) -> Tensor:
        return x

    net = fitted(train, told.shape[1], loss=loss, move=still, seconds=seconds, seed=seed, most=most)
    return net, zero, scale


def _of_captions(
    train: Dataset, name: str, *, seconds: float, seed: int, most: int
) -> tuple[Classifier, Tensor, Tensor]:
    """A network for the word at each place, log p(word | place) (L,V) of the data, and ones."""
    told = train.cond[name]
    length, words = told.shape[1], len(train.spec.tokens[name])
    spots = torch.arange(length)[:, None] * words
    places = (told.T + spots)[told.T >= 0]
    counts = torch.bincount(places, minlength=length * words).reshape(length, words).double() + 1.0
    zero = (counts / counts.sum(1, keepdim=True)).log()

    def loss(out: Tensor, index: Tensor) -> Tensor:
        logits = out.reshape(len(index), length, words).flatten(0, 1)
        wanted = told[index].flatten().to(out.device)
        return F.cross_entropy(logits, wanted, ignore_index=-1, label_smoothing=SMOOTHING)

    move = partial(moved, flip=False)
    net = fitted(train, length * words, loss=loss, move=move, seconds=seconds, seed=seed, most=most)
    return net, zero, torch.ones(1, dtype=torch.float64)


def adherence_vector(reader: Reader, x: Tensor, told: Tensor) -> dict[str, Any]:
    """R^2 of the attributes told (N,K), NaN where absent, against those read off the pictures.

    What `Regression.value` says, as plain JSON; the reader's own R^2 on held-out pictures is the
    most that obedient pictures reach.

    Args:
        reader: A reader of attributes.
        x: Pictures (N,C,H,W) uint8.
        told: Attributes that they were asked to have.

    Raises:
        UserError: E-SHAPE for other pictures or another number of attributes; E-EVAL for too few.
    """
    if reader.length or told.shape != (len(x), len(reader.words)):
        got = f"{tuple(told.shape)} for {len(x)} pictures"
        takes = f"(N,K), attributes {', '.join(reader.words)}" if not reader.length else "captions"
        raise UserError("E-SHAPE", where=f"'{reader.name}' that was told", got=got, takes=takes)
    metric = Regression(len(reader.words))
    metric.update(told, reader.attributes(x))
    return metric.value()


def adherence_tokens(
    reader: Reader, x: Tensor, told: Tensor, *, candidates: int = CANDIDATES, seed: int
) -> dict[str, Any]:
    """How often the caption told fits its picture better than other captions of the set.

    What `Retrieval.value` says, as plain JSON. The others are drawn evenly from the captions in
    `told` that differ from the right one, each at most once for a picture; where there are fewer
    than wanted, all are taken, and `candidates` and `chance` of the result say so.

    Args:
        reader: A reader of captions.
        x: Pictures (N,C,H,W) uint8.
        told: Captions (N,L) int64 that they were asked to have; those of -1 alone are left out.
        candidates: Captions to choose from, with the right one.
        seed: Seed of the candidates.

    Raises:
        UserError: E-SHAPE for other pictures or captions of another length; E-LIMIT for less than
            two candidates; E-EVAL for less than two different captions.
    """
    if candidates < 2:
        raise UserError("E-LIMIT", where="candidates", got=str(candidates), takes="2 or more")
    if not reader.length or told.shape != (len(x), reader.length):
        got = f"{tuple(told.shape)} for {len(x)} pictures"
        takes = f"(N,{reader.length}), captions" if reader.length else "attributes"
        raise UserError("E-SHAPE", where=f"'{reader.name}' that was told", got=got, takes=takes)
    some = ~absent(told)
    x, told = x[some], told[some].to("cpu", torch.int64)
    every, which = torch.unique(told, dim=0, return_inverse=True)
    if len(every) < 2:
        got, takes = f"{len(every)} different captions", "2 or more"
        raise UserError("E-EVAL", where="retrieval", got=got, takes=takes)
    count = min(candidates, len(every))
    metric = Retrieval(count)
    chosen = _candidates(which, len(every), count, seed)
    metric.update(reader.fit(x, every[chosen]), torch.zeros(len(x), dtype=torch.int64))
    return metric.value()


def _candidates(which: Tensor, captions: int, count: int, seed: int) -> Tensor:
    """`count` different captions for every item, (N,count), its own `which` (N,) the first."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for own in which.split(256):
        order = torch.rand(len(own), captions, generator=generator)
        order.scatter_(1, own[:, None], 2.0)
        found.append(order.topk(count, dim=1).indices)
    return torch.cat(found)
