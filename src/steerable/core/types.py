"""The values that parts exchange. The core never looks past dimension 0 of an item tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "Ask", "Batch", "Cond", "Dataset", "Denoise", "Estimate", "Range", "Slots", "Spec", "Splits",
    "spread",
]  # fmt: skip


def spread(value: Tensor, like: Tensor) -> Tensor:
    """Reshape per-item numbers () or (B,) so that they broadcast over `like` (B,*S)."""
    return value.to(like).reshape(-1, *[1] * (like.ndim - 1)) if value.ndim else value.to(like)


@dataclass(frozen=True)
class Range:
    """Closed range of a number, written in an annotation: `Annotated[float, Range(0, 20)]`."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """What a denoiser answers: the clean item, from which all other parameterisations follow."""

    x0: Tensor  # estimate of E[x0 | x_t], (B,*S)
    x_t: Tensor  # the noised item that was asked about, (B,*S)
    alpha: Tensor  # signal scale, () or (B,)
    sigma: Tensor  # noise scale, () or (B,)
    terms: tuple[tuple[float, Tensor], ...] = ()  # exponent and x0-hat of each factor of a product

    @property
    def noise(self) -> Tensor:
        """z-hat = (x_t - alpha x0) / sigma."""
        return (self.x_t - spread(self.alpha, self.x_t) * self.x0) / spread(self.sigma, self.x_t)

    @property
    def score(self) -> Tensor:
        """Grad log p(x_t) = -z-hat / sigma."""
        return -self.noise / spread(self.sigma, self.x_t)

    @property
    def velocity(self) -> Tensor:
        """The flow-matching direction z-hat - x0."""
        return self.noise - self.x0

    def to(self, dtype: torch.dtype) -> Estimate:
        """The same in another precision, in which all that follows from it is computed."""
        terms = tuple((exponent, x0.to(dtype)) for exponent, x0 in self.terms)
        return replace(self, x0=self.x0.to(dtype), x_t=self.x_t.to(dtype), terms=terms)

    def with_x0(self, x0: Tensor) -> Estimate:
        """The same question with another answer."""
        return replace(self, x0=x0)


Cond = Mapping[str, Tensor]
Denoise = Callable[[Tensor, Tensor, Cond], Estimate]  # (x_t, t, cond) -> Estimate
Ask = Callable[[Tensor, Tensor], Estimate]  # a Denoise whose cond is bound


@dataclass(frozen=True)
class Batch:
    """Items (B,*S) as float in [-1, 1] and their conditions, one tensor (B,...) a name."""

    x: Tensor
    cond: Cond = field(default_factory=dict)


@dataclass(frozen=True)
class Slots:
    """All that a backbone may know beside `c_in * x_t`."""

    level: Tensor  # log(sigma / alpha), (B,)
    vector: Tensor | None = None  # sum of the vector conditions, (B,D)
    tokens: Tensor | None = None  # token conditions, (B,L,D)
    mask: Tensor | None = None  # (B,L), true where a token counts
    planes: Tensor | None = None  # conditions in the form of extra channels, (B,P,*S)


@dataclass(frozen=True)
class Spec:
    """What is known of a data set: enough to build and to use a model, without the data."""

    name: str  # for people
    shape: tuple[int, ...]  # of one item, (C,H,W) for pictures
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # class names by index
    vectors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # names of the numbers
    tokens: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # words by index
    std: float = 0.5  # of the items in [-1, 1], the `data_std` of targets
    flip: bool = False  # whether a left-right flip keeps the meaning


@dataclass(frozen=True)
class Dataset:
    """Items in memory as bytes, `x` (N,*S) uint8, and one tensor per condition in `cond`.

    Labels are int64 (N,), vectors float32 (N,K), tokens int64 (N,L) padded with -1.
    """

    spec: Spec
    x: Tensor
    cond: Mapping[str, Tensor]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Item i with its conditions and, where known, its file name."""
        name = {"name": self.names[i]} if self.names else {}
        return {"x": self.x[i], **{key: value[i] for key, value in self.cond.items()}, **name}

    def batch(self, index: Tensor) -> Batch:
        """Items `index` (B,) as floats in [-1, 1]."""
        x = self.x[index].to(torch.float32).div_(127.5).sub_(1.0)
        return Batch(x, {key: value[index] for key, value in self.cond.items()})

    def take(self, index: Tensor) -> Dataset:
        """The data set of these items only."""
        names = tuple(self.names[int(i)] for i in index) if self.names else ()
        cond = {key: value[index] for key, value in self.cond.items()}
        return Dataset(self.spec, self.x[index], cond, names)


@dataclass(frozen=True)
class Splits:
    """A data set in its two parts, with the report of the scan that made it (plain JSON)."""

    train: Dataset
    held_out: Dataset
    report: Mapping[str, Any] = field(default_factory=dict)
