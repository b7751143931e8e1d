"""The judge: a classifier that never guided anything, whose features and verdicts measure samples.

The features are plainly the activations of its last hidden layer after the ReLU, never rescaled.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.types import Dataset, Spec
from steerable.nn.classifier import Classifier

from . import durable
from .fitting import MOST, digest, fitted, frozen, known, moved, plain, seen
from .output import Place, check_file

__all__ = ["Judge", "judge_bytes", "read_judge", "shipped_judge", "train_judge"]

# SHA-256 of data/judge_fashion.safetensors, which `python -m steerable.jobs.judge` made.
FASHION_SHA256 = "9f6931f1e4eef4697850d27d724af812391ed8ee5df49b6bd205737accd14781"
SMOOTHING = 0.05


@dataclass(frozen=True)
class Judge:
    """A frozen classifier with what is known of it.

    Attributes:
        net: The network, in evaluation mode.
        names: Names of the classes, in the order of the indices.
        shape: Shape (C,H,W) of the pictures that it takes.
        accuracy: Share of the `n` held-out pictures that it names rightly.
        n: Number of held-out pictures behind `accuracy`.
        sha256: SHA-256 of the weights as tensors, without the header's notes.
    """

    net: Classifier
    names: tuple[str, ...]
    shape: tuple[int, ...]
    accuracy: float
    n: int
    sha256: str

    @property
    def name(self) -> str:
        """What it is, for people."""
        return f"judge (classifier of {len(self.names)} classes)"

    def features(self, x: Tensor) -> Tensor:
        """The features of `look` alone, as an extractor gives them.

        Raises:
            UserError: E-SHAPE for pictures of another shape or number type.
        """
        return self.look(x)[0]

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N,128) float64 and predicted classes (N,) int64 of pictures (N,C,H,W) uint8.

        Raises:
            UserError: E-SHAPE for pictures of another shape or number type.
        """
        if tuple(x.shape[1:]) != self.shape or x.dtype != torch.uint8:
            raise UserError(
                "E-SHAPE",
                where="the judge",
                got=f"pictures {tuple(x.shape[1:])} of {x.dtype}",
                takes=f"{self.shape} of {torch.uint8}",
            )
        features, logits = seen(self.net, x)
        return features, logits.argmax(1)


def train_judge(
    train: Dataset, held_out: Dataset, *, seconds: float, seed: int = 0, most: int = MOST
) -> Judge:
    """Train a judge on labelled pictures and measure it on others.

    Small data ends early: training stops after 480,000 pictures seen, but within 8 to 60 epochs.
    When the epochs end it rather than the time, the same seed gives the same judge.

    Args:
        train: Pictures to learn from.
        held_out: Pictures to be measured on.
        seconds: Most time to train.
        seed: Seed of the weights, of the order and of the shifts.
        most: Pictures to be seen, within 8 to 60 epochs.

    Raises:
        UserError: E-DATA without labelled pictures or with less than two classes; E-SHAPE for
            pictures below 4 x 4; E-LIMIT for a time that is not above 0.
    """
    train, held_out = known(train, "label", "training"), known(held_out, "label", "held-out")
    spec = train.spec
    names = spec.labels["label"]
    if len(names) < 2:
        raise UserError("E-DATA", where=spec.name, got=f"{len(names)} class", takes="2 or more")
    labels = train.cond["label"]

    def loss(logits: Tensor, index: Tensor) -> Tensor:
        wanted = labels[index].to(logits.device)
        return F.cross_entropy(logits, wanted, label_smoothing=SMOOTHING)

    move = partial(moved, flip=spec.flip)
    net = fitted(train, len(names), loss=loss, move=move, seconds=seconds, seed=seed, most=most)
    right = seen(net, held_out.x)[1].argmax(1) == held_out.cond["label"]
    accuracy, n = float(right.to(torch.float64).mean()), len(held_out)
    return Judge(frozen(net), tuple(names), tuple(spec.shape), accuracy, n, digest(plain(net)))


def read_judge(data: bytes, *, sha256: str) -> Judge:
    """The judge of a safetensors file.

    Args:
        data: The file.
        sha256: The SHA-256 that the file must have.

    Raises:
        UserError: E-CKPT-HASH when it has another one; E-CKPT-HEADER when it holds no judge.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise UserError(
            "E-CKPT-HASH",
            where="weights of the judge",
            got=f"SHA-256 {found}",
            takes=sha256,
            do="install the package anew",
        )
    try:
        state = load(data)
        size = int.from_bytes(data[:8], "little")
        notes = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["judge"])
        names, shape = tuple(notes["names"]), tuple(notes["shape"])
        accuracy, n = float(notes["accuracy"]), int(notes["n"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            "E-CKPT-HEADER", where="weights of the judge", got=f"no judge: {error!r}"
        ) from error
    net = Classifier(shape[0], len(names))
    net.load_state_dict(state)
    return Judge(frozen(net), names, shape, accuracy, n, digest(plain(net)))


def judge_bytes(judge: Judge, more: Mapping[str, Any] | None = None) -> bytes:
    """A safetensors file for `read_judge`.

    Args:
        judge: The judge.
        more: Further plain facts for whoever reads the header.
    """
    notes = {
        "accuracy": judge.accuracy,
        "n": judge.n,
        "names": judge.names,
        "shape": judge.shape,
        **(more or {}),
        "weights": judge.sha256,
    }
    # One note only: the order of several would differ from file to file.
    return save(plain(judge.net), metadata={"judge": json.dumps(notes)})


def shipped_judge(spec: Spec) -> Judge | None:
    """The frozen judge that comes with the package, if there is one for such data.

    Raises:
        UserError: E-CKPT-HASH when its file is damaged.
    """
    if tuple(spec.shape) != (1, 28, 28):
        return None
    file = resources.files("steerable").joinpath("data", "judge_fashion.safetensors")
    judge = read_judge(file.read_bytes(), sha256=FASHION_SHA256)
    return judge if tuple(spec.labels.get("label", ())) == judge.names else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the shipped judge from the official training pictures and write it."""
    from steerable.datasets.fashion import fashion

    parser = argparse.ArgumentParser(
        prog="python -m steerable.jobs.judge", description=main.__doc__
    )
    parser.add_argument("out", type=Path, help="safetensors file to write")
    parser.add_argument("--seconds", type=float, default=3600.0, help="most time to train")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    check_file(options.out, Place(None), marks=[b'"judge"'])
    splits = fashion(source="full")
    judge = train_judge(splits.train, splits.held_out, seconds=options.seconds, seed=options.seed)
    more = {
        "data": "Fashion-MNIST, 60,000 official training pictures; accuracy on the official test",
        "command": "python -m steerable.jobs.judge OUT.safetensors",
        "seed": options.seed,
    }
    data = judge_bytes(judge, more)
    durable.write(options.out, data)
    sys.stdout.write(
        f"accuracy {judge.accuracy:.4f} on {judge.n} official test pictures, {len(data)} bytes, "
        f"SHA-256 {hashlib.sha256(data).hexdigest()}\n"
    )


if __name__ == "__main__":
    main()
