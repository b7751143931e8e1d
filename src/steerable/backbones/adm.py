"""The ablated diffusion model of Dhariwal & Nichol: blocks that resize, AdaGN, narrow heads.

The most expensive of the convolutional networks here: every block on the way down, the entry and
the changes of scale included, leaves a skip that one block on the way up takes.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.core.denoise import Backbone
from steerable.core.types import Range, Slots
from steerable.nn.attention import heads_by_width
from steerable.nn.blocks import (
    ResidualBlock,
    attended,
    checked,
    groups_for,
    levels_for,
    silent,
)
from steerable.nn.embeddings import LevelEmbedding
from steerable.nn.resampling import joined, padded

__all__ = ["Adm"]


class Adm(Backbone):
    """Images (B,C,H,W) of any size and any number of channels; reads `vector` and `planes`.

    Level and conditions scale and shift the norm of every residual block (AdaGN); halving and
    doubling happen inside residual blocks; the middle always has self-attention.

    Source: Dhariwal & Nichol, arXiv 2105.05233, section 3 and appendix I. Their ImageNet 64 x 64:
    channels 192 x (1, 2, 3, 4), three blocks a level, attention on maps up to 32, heads of 64,
    dropout 0.1, vector of 768. The defaults are sized for a CPU.

    Args:
        shape: Shape (C,H,W) of the items, set by the data.
        planes: Number of channels that conditions add, set by the conditions.
        channels: Width of each level; a level has half the height and width of the one before.
        blocks: Residual blocks a level on the way down; one more on the way up.
        width: Width of the vector that carries noise level and conditions.
        attention: Largest map side that gets self-attention after each block.
        head: Channels of an attention head; a narrower level has one head.
        dropout: Dropout inside the residual blocks.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"vector", "planes"})

    def __init__(
        self,
        shape: tuple[int, ...],
        planes: int,
        *,
        channels: tuple[int, ...] = (64, 128, 192),
        blocks: Annotated[int, Range(1, 8)] = 2,
        width: Annotated[int, Range(16, 2048)] = 256,
        attention: Annotated[int, Range(0, 64)] = 16,
        head: Annotated[int, Range(8, 256)] = 64,
        dropout: Annotated[float, Range(0, 0.9)] = 0.0,
    ) -> None:
        super().__init__()
        levels = attended(checked(channels), shape, largest=attention, head=head)
        block = functools.partial(ResidualBlock, width=width, dropout=dropout, scaled=True)
        self.width, self.planes, self.multiple = width, planes, 2 ** (len(levels) - 1)
        self.level = LevelEmbedding(width)
        self.enter = nn.Conv2d(shape[0] + planes, channels[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips = [channels[0]]
        for i, (c, h) in enumerate(levels):
            if i:
                self.down.append(block(skips[-1], skips[-1], resize=0.5))
                skips.append(skips[-1])
            for _ in range(blocks):
                self.down.append(block(skips[-1], c, heads=h))
                skips.append(c)
        now = channels[-1]
        heads = (heads_by_width(now, head), 0)
        self.middle = nn.ModuleList(block(now, now, heads=h) for h in heads)
        for i, (c, h) in reversed([*enumerate(levels)]):
            for _ in range(blocks + 1):
                self.up.append(block(now + skips.pop(), c, heads=h))
                now = c
            if i:
                self.up.append(block(c, c, resize=2.0))
        self.last_norm = nn.GroupNorm(groups_for(now), now)
        self.leave = silent(nn.Conv2d(now, shape[0], 3, padding=1))
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def sized(shape: tuple[int, ...], base: int) -> dict[str, Any]:
        """Levels until the map is at most 8 wide, at least two: 1, 2, 3, 4 times the base width.

        One block a level below a base of 96: about a quarter less work than with two.
        """
        channels = tuple(base * min(1 + i, 4) for i in range(levels_for(shape)))
        return {"channels": channels, "width": 4 * base, "blocks": 1 if base < 96 else 2}

    def forward(self, x: Tensor, slots: Slots) -> Tensor:
        """The raw answer (B,C,H,W)."""
        height, width = x.shape[-2:]
        vector = self.level(slots.level)
        vector = F.silu(vector if slots.vector is None else vector + slots.vector)
        x = padded(joined(x, slots.planes, self.planes), self.multiple)
        h = self.enter(x.contiguous(memory_format=torch.channels_last))
        skips = [h]
        for block in self.down:
            h = block(h, vector)
            skips.append(h)
        for block in self.middle:
            h = block(h, vector)
        for block in self.up:
            taken = h if block.resize == 2.0 else torch.cat([h, skips.pop()], 1)
            h = block(taken, vector)
        return self.leave(F.silu(self.last_norm(h)))[..., :height, :width]
