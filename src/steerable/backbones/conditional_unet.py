"""The classic U-Net of class-conditional DDPM: whole resolution, noise level and label everywhere.

Level and label are summed, pass a nonlinearity and are added inside every residual block. It does
more arithmetic at full resolution than the compact `unet` and is the yardstick for it.
"""

from __future__ import annotations

import functools
import itertools
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.core.denoise import Backbone
from steerable.core.types import Range, Slots
from steerable.nn.attention import heads_by_width
from steerable.nn.blocks import (
    Grow,
    ResidualBlock,
    attended,
    checked,
    groups_for,
    levels_for,
    silent,
)
from steerable.nn.embeddings import LevelEmbedding
from steerable.nn.resampling import joined, padded

__all__ = ["ConditionalUnet"]

HEAD = 64  # width of an attention head


class ConditionalUnet(Backbone):
    """Images (B,C,H,W) of any size and any number of channels; reads `vector` and `planes`.

    Every level halves the map by a strided convolution and doubles it by repetition and a
    convolution; the map at the end of a level on the way down is concatenated on the way up, at
    every level. The middle always has self-attention, so every pixel sees the whole picture.

    Source: Ho et al., arXiv 2006.11239, appendix B (128 wide, two blocks a level, attention at
    16 x 16, dropout 0.1 on CIFAR-10); the default widths are those of small class-conditional
    networks, 64-128-256.

    Args:
        shape: Shape (C,H,W) of the items, set by the data.
        planes: Number of channels that conditions add, set by the conditions.
        channels: Width of each level; a level has half the height and width of the one before.
        blocks: Residual blocks a level, on the way down and on the way up.
        width: Width of the vector that carries noise level and conditions.
        attention: Largest map side that gets self-attention after each block.
        dropout: Dropout inside the residual blocks.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"vector", "planes"})

    def __init__(
        self,
        shape: tuple[int, ...],
        planes: int,
        *,
        channels: tuple[int, ...] = (64, 128, 256),
        blocks: Annotated[int, Range(1, 8)] = 1,
        width: Annotated[int, Range(16, 2048)] = 256,
        attention: Annotated[int, Range(0, 64)] = 16,
        dropout: Annotated[float, Range(0, 0.9)] = 0.0,
    ) -> None:
        super().__init__()
        levels = attended(checked(channels), shape, largest=attention, head=HEAD)
        block = functools.partial(ResidualBlock, width=width, dropout=dropout)
        last, pairs = channels[-1], list(itertools.pairwise(channels))

        self.width, self.planes, self.multiple = width, planes, 2 ** len(pairs)
        self.level = LevelEmbedding(width)
        self.enter = nn.Conv2d(shape[0] + planes, channels[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.ModuleList(block(c, c, heads=h) for _ in range(blocks)) for c, h in levels
        )
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.middle = nn.ModuleList(
            [block(last, last, heads=heads_by_width(last, HEAD)), block(last, last)]
        )
        self.up = nn.ModuleList(
            nn.ModuleList(block(c if i else 2 * c, c, heads=h) for i in range(blocks))
            for c, h in levels
        )
        self.grow = nn.ModuleList(Grow(b, a) for a, b in pairs)
        self.last_norm = nn.GroupNorm(groups_for(channels[0]), channels[0])
        self.leave = silent(nn.Conv2d(channels[0], shape[0], 3, padding=1))
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def sized(shape: tuple[int, ...], base: int) -> dict[str, Any]:
        """Levels until the map is at most 8 wide, at least two: 1, 2, 4 times the base."""
        levels = levels_for(shape)
        return {"channels": tuple(base * min(2**i, 4) for i in range(levels)), "width": 4 * base}

    def forward(self, x: Tensor, slots: Slots) -> Tensor:
        """The raw answer (B,C,H,W)."""
        height, width = x.shape[-2:]
        vector = self.level(slots.level)
        vector = F.silu(vector if slots.vector is None else vector + slots.vector)
        x = padded(joined(x, slots.planes, self.planes), self.multiple)
        h = self.enter(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for i, stage in enumerate(self.down):
            h = _run(stage, h, vector)
            skips.append(h)
            if i < len(self.shrink):
                h = self.shrink[i](h)
        h = _run(self.middle, h, vector)
        for i in reversed(range(len(self.up))):
            h = _run(self.up[i], torch.cat([h, skips[i]], 1), vector)
            if i:
                h = self.grow[i - 1](h)
        return self.leave(F.silu(self.last_norm(h)))[..., :height, :width]


def _run(stage: nn.Module, h: Tensor, vector: Tensor) -> Tensor:
    for block in stage.children():
        h = block(h, vector)
    return h
