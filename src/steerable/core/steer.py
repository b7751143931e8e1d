"""Two ways to steer: guidance changes the answer of a denoiser, a constraint moves the sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from .noise import Noise
from .schedule import Schedule
from .types import Denoise, Range

__all__ = ["Constraint", "Guidance", "Operator"]


@dataclass(frozen=True, kw_only=True)
class Guidance(ABC):
    """Denoise -> Denoise, at work while stop <= t <= start (sampling runs from t = 1 to t = 0)."""

    start: Annotated[float, Range(0, 1)] = 1.0
    stop: Annotated[float, Range(0, 1)] = 0.0

    @abstractmethod
    def __call__(self, denoise: Denoise) -> Denoise:
        """The guided denoiser, for one trajectory."""

    def active(self, t: Tensor) -> bool:
        """Whether guidance is at work at time t; all items of a sampling step share their time."""
        return bool(torch.all((t <= self.start) & (t >= self.stop)))


@dataclass(frozen=True, kw_only=True)
class Constraint(ABC):
    """Moves a sample after each step that is not a renoising; at s = 0 the sample is clean."""

    @abstractmethod
    def __call__(self, x_s: Tensor, s: Tensor, schedule: Schedule, noise: Noise) -> Tensor:
        """The sample (B,*S) that obeys the constraint at time s."""


class Operator(ABC):
    """A linear measurement y = A x of items, of which inverse problems are made."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A x, (B,*Y), of items (B,*S)."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y, (B,*S), of measurements (B,*Y)."""

    @abstractmethod
    def nearest(self, x: Tensor, y: Tensor, weight: float) -> Tensor:
        """The minimiser over u of |A u - y|^2 + weight |u - x|^2, (B,*S); weight above 0."""
