"""A residual network of fully connected layers over flattened items, for items of any kind."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.core.denoise import Backbone
from steerable.core.errors import UserError
from steerable.core.types import Range, Slots
from steerable.nn.embeddings import LevelEmbedding

__all__ = ["Mlp"]


class _Block(nn.Module):
    """h + second(silu(film(first(norm(h))))), the second layer zero at the start."""

    def __init__(self, hidden: int, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.first = nn.Linear(hidden, hidden)
        self.film = nn.Linear(width, 2 * hidden)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(hidden, hidden)
        for layer in (self.film, self.second):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.film(vector).chunk(2, 1)
        inner = torch.addcmul(shift, self.first(self.norm(h)), 1.0 + scale)
        return h + self.second(self.dropout(F.silu(inner)))


class Mlp(Backbone):
    """Items (B,*S) of one shape, whatever it is: pictures, point clouds, vectors; reads `vector`.

    The answer is leave(blocks(enter(x))) + gain(vector) x. The gain is one number an item: it
    passes on the noise in all the directions that the hidden layer is too narrow to hold.

    Source: residual blocks of arXiv 2106.11959 (section 3.2) with the modulation of
    arXiv 1709.07871.

    Args:
        shape: Shape of the items, set by the data.
        hidden: Width of the hidden layers.
        blocks: Number of residual blocks.
        width: Width of the vector that carries noise level and conditions.
        dropout: Dropout inside the residual blocks.

    Raises:
        UserError: E-SHAPE, when it is asked about items of another shape.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"vector"})

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        hidden: Annotated[int, Range(8, 8192)] = 768,
        blocks: Annotated[int, Range(1, 32)] = 4,
        width: Annotated[int, Range(16, 2048)] = 192,
        dropout: Annotated[float, Range(0, 0.9)] = 0.0,
    ) -> None:
        super().__init__()
        self.shape, self.width = tuple(shape), width
        size = math.prod(shape)
        self.level = LevelEmbedding(width)
        self.enter = nn.Linear(size, hidden)
        self.blocks = nn.ModuleList(_Block(hidden, width, dropout) for _ in range(blocks))
        self.last_norm = nn.LayerNorm(hidden)
        self.leave = nn.Linear(hidden, size)
        self.gain = nn.Linear(width, 1)
        for layer in (self.leave, self.gain):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @staticmethod
    def sized(shape: tuple[int, ...], base: int) -> dict[str, Any]:
        """Four blocks, sixteen times as wide as the base: 768 for base 48."""
        return {"hidden": 16 * base, "width": 4 * base}

    def forward(self, x: Tensor, slots: Slots) -> Tensor:
        """The raw answer (B,*S)."""
        if tuple(x.shape[1:]) != self.shape:
            got, takes = f"items of shape {tuple(x.shape[1:])}", f"items of shape {self.shape}"
            do = "Take another backbone for items of several sizes."
            raise UserError("E-SHAPE", where="backbone 'mlp'", got=got, takes=takes, do=do)
        vector = self.level(slots.level)
        vector = F.silu(vector if slots.vector is None else vector + slots.vector)
        flat = x.flatten(1)
        h = self.enter(flat)
        for block in self.blocks:
            h = block(h, vector)
        answer = torch.addcmul(self.leave(F.silu(self.last_norm(h))), self.gain(vector), flat)
        return answer.reshape(x.shape)
