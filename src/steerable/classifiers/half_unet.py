"""The down half of a U-Net with an attention that pools: it names classes of noised pictures."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.core.types import Range
from steerable.nn.attention import Weighing, heads_by_width
from steerable.nn.blocks import ResidualBlock, attended, checked, groups_for, levels_for
from steerable.nn.embeddings import LevelEmbedding, grid_code
from steerable.nn.resampling import padded

__all__ = ["HalfUnet"]


class _Pool(nn.Module):
    """The mean of all positions asks them, and itself, what to keep; a line makes logits of it.

    The place of a position is told by sines and cosines instead of a learned table, so that maps of
    any size can be pooled. The last layer starts at zero: all classes are equally likely at first.
    Source: Radford et al., arXiv 2103.00020, section 2.4.
    """

    def __init__(self, channels: int, classes: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels, bias=False)  # a softmax would ignore the bias
        self.value = nn.Linear(channels, channels)
        self.weighing = Weighing()
        self.out = nn.Linear(channels, classes)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B,C,H,W) -> logits (B,classes)."""
        height, width = x.shape[-2:]
        rows = x.flatten(2).mT
        code = grid_code(height, width, x.shape[1]).to(x)
        mean = rows.mean(1, keepdim=True)
        rows = torch.cat([mean, rows + code], 1)
        query, key, value = self.query(mean), self.key(rows), self.value(rows)
        mixed = self.weighing(*(self._split(part) for part in (query, key, value)))
        return self.out(mixed.flatten(1))

    def _split(self, rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class HalfUnet(nn.Module):
    """Pictures (B,C,H,W) of any size and number of channels and noise levels (B,) to logits.

    The level scales and shifts the norm of every residual block; halving happens inside residual
    blocks; the last map is pooled by attention.

    Source: Dhariwal & Nichol, arXiv 2105.05233, section 4 and appendix I. Their ImageNet 128 x 128:
    channels 128 x (1, 1, 2, 3, 4), two blocks a level, attention on maps of 32, 16 and 8, heads of
    64. The defaults are sized for a CPU.

    Args:
        shape: Shape (C,H,W) of the items, set by the data.
        classes: Number of classes, set by the data.
        channels: Width of each level; a level has half the height and width of the one before.
        blocks: Residual blocks a level.
        width: Width of the vector that carries the noise level.
        attention: Largest map side that gets self-attention after each block.
        head: Channels of an attention head; a narrower level has one head.
        dropout: Dropout inside the residual blocks.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        *,
        channels: tuple[int, ...] = (32, 64, 96),
        blocks: Annotated[int, Range(1, 8)] = 1,
        width: Annotated[int, Range(16, 2048)] = 128,
        attention: Annotated[int, Range(0, 64)] = 8,
        head: Annotated[int, Range(8, 256)] = 64,
        dropout: Annotated[float, Range(0, 0.9)] = 0.0,
    ) -> None:
        super().__init__()
        levels = attended(checked(channels), shape, largest=attention, head=head)
        block = functools.partial(ResidualBlock, width=width, dropout=dropout, scaled=True)
        self.multiple = 2 ** (len(levels) - 1)
        self.level = LevelEmbedding(width)
        self.enter = nn.Conv2d(shape[0], channels[0], 3, padding=1)
        self.down = nn.ModuleList()
        now = channels[0]
        for i, (c, h) in enumerate(levels):
            if i:
                self.down.append(block(now, now, resize=0.5))
            for _ in range(blocks):
                self.down.append(block(now, c, heads=h))
                now = c
        self.middle = nn.ModuleList([block(now, now)])
        self.last_norm = nn.GroupNorm(groups_for(now), now)
        self.pool = _Pool(now, classes, heads=heads_by_width(now, head))
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def sized(shape: tuple[int, ...], base: int) -> dict[str, Any]:
        """Levels until the map is at most 8 wide, at least two: 1, 2, 3, 4 times the base width.

        One block a level below a base of 96, two above, with attention where the paper has it.
        """
        channels = tuple(base * min(1 + i, 4) for i in range(levels_for(shape)))
        small = base < 96
        return {
            "channels": channels,
            "width": 4 * base,
            "blocks": 1 if small else 2,
            "attention": 8 if small else 32,
        }

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Logits (B,classes)."""
        vector = F.silu(self.level(level))
        x = padded(x, self.multiple)
        h = self.enter(x.contiguous(memory_format=torch.channels_last))
        for block in (*self.down, *self.middle):
            h = block(h, vector)
        return self.pool(F.silu(self.last_norm(h)))
