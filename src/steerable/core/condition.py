"""Conditions write slots, backbones read slots.

A condition may be absent for an item: its value is then -1 (integers) or NaN (floats) everywhere.
So the null is part of the value itself, a batch may mix both, and no mask travels beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from .noise import Noise
from .types import Cond

__all__ = ["Condition", "absent", "absent_like", "counted"]


def absent(value: Tensor) -> Tensor:
    """Where a condition is absent, (B,) bool."""
    flat = value.flatten(1) if value.ndim > 1 else value[:, None]
    return (flat.isnan() if value.is_floating_point() else flat == -1).all(1)


def counted(value: Tensor) -> Tensor:
    """Which places of a sequence (B,L,...) count, (B,L): of an absent one its first, the null."""
    rows = value.flatten(2) if value.ndim > 2 else value[..., None]
    there = ~(rows.isnan() if value.is_floating_point() else rows == -1).all(-1)
    first = torch.arange(value.shape[1], device=value.device) == 0
    return there | (first & ~there.any(1, keepdim=True))


def absent_like(value: Tensor) -> Tensor:
    """A value of the same shape that is absent for every item."""
    return torch.full_like(value, float("nan") if value.is_floating_point() else -1)


class Condition(nn.Module, ABC):
    """Encodes one condition into one slot; owns the learned null and the per-item dropout.

    Args:
        shape: Shape of one encoded item, for instance (D,) for a vector.
        dropout: Share of the items that are trained with the null instead.
    """

    slot: ClassVar[str]

    def __init__(self, shape: tuple[int, ...], *, dropout: float) -> None:
        super().__init__()
        self.null = nn.Parameter(torch.zeros(shape))
        self.dropout = dropout

    @abstractmethod
    def encode(self, value: Tensor) -> Tensor:
        """Slot tensor (B,...) of present values (B,...)."""

    def forward(self, value: Tensor) -> Tensor:
        """Slot tensor (B,...), the learned null where the value is absent."""
        gone = absent(value)
        inner = value.masked_fill(gone.reshape(-1, *[1] * (value.ndim - 1)), 0)
        encoded = self.encode(inner)
        return torch.where(gone.reshape(-1, *[1] * (encoded.ndim - 1)), self.null, encoded)

    def dropped(self, value: Tensor, noise: Noise) -> Tensor:
        """The value (B,...) with a random share of the items made absent, whole items at a time."""
        drop = (noise.uniform(len(value)) < self.dropout).to(value.device)
        return torch.where(drop.reshape(-1, *[1] * (value.ndim - 1)), absent_like(value), value)

    @staticmethod
    def drop_all(conditions: nn.ModuleDict, cond: Cond, noise: Noise) -> dict[str, Tensor]:
        """Every condition of a batch after its own, independent dropout."""
        owners = {name: cast(Condition, conditions[name]) for name in sorted(cond)}
        return {name: owner.dropped(cond[name], noise) for name, owner in owners.items()}
