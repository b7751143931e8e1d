"""The compact U-Net of the default recipe: small maps, additive skips, one residual block a level.

It spends its arithmetic in 3x3 convolutions, which run near the peak of a CPU: space-to-depth in
place of full-resolution layers, addition in place of concatenation, attention on small maps only.
"""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.core.denoise import Backbone
from steerable.core.errors import UserError
from steerable.core.types import Range, Slots
from steerable.nn.attention import SelfAttention2d, heads_for
from steerable.nn.embeddings import LevelEmbedding
from steerable.nn.resampling import folded, joined, padded, stem_for, unfolded

__all__ = ["Unet"]


class _Block(nn.Module):
    """x + conv(silu(film(norm(conv(silu(norm(x))))))); a new block is the identity."""

    def __init__(self, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(_groups(channels), channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second_norm = nn.GroupNorm(_groups(channels), channels)
        self.film = nn.Linear(width, 2 * channels)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for layer in (self.second, self.film):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        h = self.first(F.silu(self.first_norm(x)))
        scale, shift = self.film(vector)[:, :, None, None].chunk(2, 1)
        h = torch.addcmul(shift, self.second_norm(h), 1.0 + scale)
        return x + self.second(self.dropout(F.silu(h)))


def _groups(channels: int) -> int:
    return max(g for g in (8, 4, 2, 1) if channels % g == 0)


class Unet(Backbone):
    """Images (B,C,H,W) of any size and any number of channels; reads `vector` and `planes`.

    Args:
        shape: Shape (C,H,W) of the items, set by the data.
        planes: Number of channels that conditions add, set by the conditions.
        channels: Width of each level; a level has half the height and width of the one before.
        blocks: Residual blocks a level, on the way down and on the way up.
        stem: Space-to-depth factor before the first level; 0 chooses it from size and width.
        width: Width of the vector that carries noise level and conditions.
        attention: Largest map side that gets self-attention.
        dropout: Dropout inside the residual blocks.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"vector", "planes"})

    def __init__(
        self,
        shape: tuple[int, ...],
        planes: int,
        *,
        channels: tuple[int, ...] = (48, 96),
        blocks: Annotated[int, Range(1, 8)] = 1,
        stem: Annotated[int, Range(0, 16)] = 0,
        width: Annotated[int, Range(16, 2048)] = 192,
        attention: Annotated[int, Range(0, 64)] = 8,
        dropout: Annotated[float, Range(0, 0.9)] = 0.0,
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise UserError("E-LIMIT", where="channels", got=str(channels), takes="1 or more each")
        depth, side = shape[0], max(shape[1:])
        self.stem = stem or stem_for(shape, channels[0])
        self.multiple = self.stem * 2 ** (len(channels) - 1)
        self.width, self.planes = width, planes
        self.level = LevelEmbedding(width)
        self.enter = nn.Conv2d((depth + planes) * self.stem**2, channels[0], 3, padding=1)

        pairs = list(itertools.pairwise(channels))
        self.down = nn.ModuleList(
            nn.ModuleList(_Block(c, width, dropout) for _ in range(blocks)) for c in channels
        )
        if -(-side // self.multiple) <= attention:
            self.down[-1].append(SelfAttention2d(channels[-1], heads=heads_for(channels[-1])))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.up = nn.ModuleList(
            nn.ModuleList(_Block(c, width, dropout) for _ in range(blocks)) for c in channels
        )
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.last_norm = nn.GroupNorm(_groups(channels[0]), channels[0])
        self.leave = nn.Conv2d(channels[0], depth * self.stem**2, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def sized(shape: tuple[int, ...], base: int) -> dict[str, Any]:
        """Levels until the map is at most 8 wide, at least two: the base width, then twice that."""
        stem = stem_for(shape, base)
        levels = max(2, 1 + math.ceil(math.log2(max(shape[1:]) / stem / 8)))
        return {"channels": (base, *[2 * base] * (levels - 1)), "width": 4 * base, "stem": stem}

    def forward(self, x: Tensor, slots: Slots) -> Tensor:
        """The raw answer (B,C,H,W)."""
        height, width = x.shape[-2:]
        vector = self.level(slots.level)
        vector = F.silu(vector if slots.vector is None else vector + slots.vector)
        x = joined(x, slots.planes, self.planes)
        h = folded(padded(x, self.multiple), self.stem)
        h = self.enter(h.contiguous(memory_format=torch.channels_last))
        skips = []
        for i, stage in enumerate(self.down):
            h = self._run(stage, h, vector)
            if i < len(self.shrink):
                skips.append(h)
                h = self.shrink[i](h)
        for i in reversed(range(len(self.up))):
            h = self._run(self.up[i], h, vector)
            if i:
                h = skips[i - 1] + F.interpolate(self.grow[i - 1](h), scale_factor=2.0)
        h = unfolded(self.leave(F.silu(self.last_norm(h))), self.stem)
        return h[..., :height, :width]

    @staticmethod
    def _run(stage: nn.Module, h: Tensor, vector: Tensor) -> Tensor:
        for part in stage.children():
            h = part(h, vector) if isinstance(part, _Block) else part(h)
        return h
