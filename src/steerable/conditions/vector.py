"""Continuous attributes: some numbers an item, such as hue, size or age."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from steerable.core.condition import Condition
from steerable.core.types import Range

__all__ = ["Vector"]


class Vector(Condition):
    """`numbers` attributes in about [-1, 1], (B,numbers), to a vector (B,width); NaN means none.

    Sines and cosines of every number go through a small network, so that nearby values are told
    apart and distant ones are alike in nothing.
    Source: Tancik et al., arXiv 2006.10739.

    Args:
        width: Width of the vector, set by the backbone.
        numbers: Number of attributes, set by the data.
        dropout: Share of the training items whose attributes are hidden, for guidance.
        features: Frequencies a number, from half a turn over [-1, 1] upwards in octaves.
    """

    slot: ClassVar[str] = "vector"

    def __init__(
        self,
        width: int,
        numbers: int,
        *,
        dropout: Annotated[float, Range(0, 1)] = 0.1,
        features: Annotated[int, Range(1, 16)] = 4,
    ) -> None:
        super().__init__((width,), dropout=dropout)
        self.features = features
        inside = numbers * (1 + 2 * features)
        self.net = nn.Sequential(nn.Linear(inside, width), nn.SiLU(), nn.Linear(width, width))

    def encode(self, value: Tensor) -> Tensor:
        """Embedded attributes (B,width)."""
        octaves = 2.0 ** torch.arange(self.features, device=value.device, dtype=value.dtype)
        angle = value[..., None] * octaves * (math.pi / 2)
        parts = [value, angle.sin().flatten(1), angle.cos().flatten(1)]
        return self.net(torch.cat(parts, 1))
