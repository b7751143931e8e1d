"""The judge: a classifier that never guided anything, whose features and verdicts measure samples.

The features are plainly the activations of its last hidden layer after the ReLU, never rescaled.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.types import Dataset, Spec
from steerable.nn.classifier import Classifier

from . import durable

__all__ = ["Judge", "read_judge", "shipped_judge", "train_judge"]

# SHA-256 of data/judge_fashion.safetensors, which `python -m steerable.jobs.judge` made.
FASHION_SHA256 = "9f6931f1e4eef4697850d27d724af812391ed8ee5df49b6bd205737accd14781"
PEAK_LR = 4e-3  # of AdamW behind batch norms; the mean of the cycle is about half of it
WARM_UP = 0.2  # share of the training during which the learning rate climbs
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
        return _look(self.net, x)


def _look(net: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    device = net.out.weight.device
    features = torch.empty(len(x), net.feature_width, dtype=torch.float64)
    predicted = torch.empty(len(x), dtype=torch.int64)
    net.eval()
    with torch.inference_mode():
        for start in range(0, len(x), 256):
            rows = slice(start, start + 256)
            inner = net.features(x[rows].to(device, torch.float32).div_(127.5).sub_(1.0))
            features[rows] = inner.to("cpu", torch.float64)
            predicted[rows] = net.out(inner).argmax(1).cpu()
    return features, predicted


def _augmented(x: Tensor, noise: Noise, *, flip: bool) -> Tensor:
    """Bytes (B,C,H,W) moved by up to a fourteenth of each side, half of them flipped if allowed.

    The border pixels are repeated, which fits any background.
    """
    places = []
    for side in x.shape[-2:]:
        reach = max(1, round(side / 14))
        shift = noise.integers(len(x), 2 * reach + 1) - reach
        places.append((torch.arange(side) + shift[:, None]).clamp(0, side - 1))
    rows, columns = places
    if flip:
        turned = noise.uniform(len(x)) < 0.5
        columns = torch.where(turned[:, None], columns.flip(1), columns)
    item = torch.arange(len(x))[:, None, None]
    return x[item, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _labelled(data: Dataset, part: str) -> Dataset:
    """The items whose label is known."""
    if "label" not in data.cond:
        raise UserError(
            "E-DATA",
            where=f"{part} pictures of '{data.spec.name}'",
            got=f"conditions: {', '.join(data.cond) or 'none'}",
            takes="the condition 'label', which a judge learns",
        )
    chosen = torch.nonzero(data.cond["label"] >= 0)[:, 0]
    if len(chosen) == 0:
        raise UserError(
            "E-DATA", where=f"{part} pictures of '{data.spec.name}'", got="no labelled picture"
        )
    return data if len(chosen) == len(data) else data.take(chosen)


def _fit(net: Classifier, train: Dataset, *, seconds: float, seed: int) -> None:
    """AdamW with one cycle of the learning rate, which ends with the time or with the epochs."""
    count, device = len(train), net.out.weight.device
    size = min(128, max(8, count // 8))
    total = math.ceil(count / size) * min(60, max(8, 480_000 // count))
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_LR, weight_decay=0.05)
    generator = torch.Generator().manual_seed(seed)
    net.train()
    begun, iteration, share = time.monotonic(), 0, 0.0
    while share < 1.0:
        for index in torch.randperm(count, generator=generator).split(size):
            climb, fall = share / WARM_UP, (1.0 - share) / (1.0 - WARM_UP)
            for group in optimizer.param_groups:
                group["lr"] = PEAK_LR * max(0.01, min(climb, 0.5 - 0.5 * math.cos(math.pi * fall)))
            noise = Noise.of(seed, iteration=iteration, items=index)
            x = _augmented(train.x[index], noise, flip=train.spec.flip)
            logits = net(x.to(device, torch.float32).div_(127.5).sub_(1.0))
            wanted = train.cond["label"][index].to(device)
            loss = F.cross_entropy(logits, wanted, label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            iteration += 1
            share = max(iteration / total, (time.monotonic() - begun) / seconds)
            if share >= 1.0:
                break


def train_judge(train: Dataset, held_out: Dataset, *, seconds: float, seed: int = 0) -> Judge:
    """Train a judge on labelled pictures and measure it on others.

    Small data ends early: training stops after 480,000 pictures seen, but within 8 to 60 epochs.
    When the epochs end it rather than the time, the same seed gives the same judge.

    Args:
        train: Pictures to learn from.
        held_out: Pictures to be measured on.
        seconds: Most time to train.
        seed: Seed of the weights, of the order and of the shifts.

    Raises:
        UserError: E-DATA without labelled pictures or with less than two classes; E-SHAPE for
            pictures below 4 x 4; E-LIMIT for a time that is not above 0.
    """
    train, held_out = _labelled(train, "training"), _labelled(held_out, "held-out")
    spec = train.spec
    names = spec.labels["label"]
    if not seconds > 0:
        raise UserError("E-LIMIT", where="seconds of the judge", got=str(seconds), takes="above 0")
    if len(names) < 2:
        raise UserError("E-DATA", where=spec.name, got=f"{len(names)} class", takes="2 or more")
    if len(spec.shape) != 3 or min(spec.shape[1:]) < 4:
        raise UserError("E-SHAPE", where=spec.name, got=str(spec.shape), takes="(C,H,W), 4 x 4 up")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Classifier(spec.shape[0], len(names))
    _fit(net, train, seconds=seconds, seed=seed)
    right = _look(net, held_out.x)[1] == held_out.cond["label"]
    accuracy, n = float(right.to(torch.float64).mean()), len(held_out)
    return Judge(_frozen(net), tuple(names), tuple(spec.shape), accuracy, n, _digest(net))


def _frozen(net: Classifier) -> Classifier:
    return net.eval().requires_grad_(False)


def _plain(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}


def _digest(net: nn.Module) -> str:
    return hashlib.sha256(save(_plain(net))).hexdigest()


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
    return Judge(_frozen(net), names, shape, accuracy, n, _digest(net))


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
    splits = fashion(source="full")
    judge = train_judge(splits.train, splits.held_out, seconds=options.seconds, seed=options.seed)
    notes = {
        "accuracy": judge.accuracy,
        "n": judge.n,
        "names": judge.names,
        "shape": judge.shape,
        "data": "Fashion-MNIST, 60,000 official training pictures; accuracy on the official test",
        "command": "python -m steerable.jobs.judge OUT.safetensors",
        "seed": options.seed,
        "weights": judge.sha256,
    }
    # One note only: the order of several would differ from file to file.
    data = save(_plain(judge.net), metadata={"judge": json.dumps(notes)})
    durable.write(options.out, data)
    sys.stdout.write(
        f"accuracy {judge.accuracy:.4f} on {judge.n} official test pictures, {len(data)} bytes, "
        f"SHA-256 {hashlib.sha256(data).hexdigest()}\n"
    )


if __name__ == "__main__":
    main()
