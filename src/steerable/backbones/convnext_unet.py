"""A U-Net of ConvNeXt blocks: a wide depthwise convolution that looks, narrow ones that mix.

Purely convolutional: its reach comes from 7x7 kernels on every scale, not from attention.
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
from steerable.nn.blocks import Grow, Halve, SkipGate, checked, levels_for, silent
from steerable.nn.depthwise import depthwise
from steerable.nn.embeddings import LevelEmbedding
from steerable.nn.resampling import joined, padded

__all__ = ["ConvnextUnet"]

LAYER_SCALE = 0.1  # start of every branch's own scale; CaiT up to 18 blocks deep, arXiv 2103.17239


class _Block(nn.Module):
    """shortcut(x) + scale * conv(norm(gelu(conv(norm(depthwise(x) + linear(vector)))))))."""

    def __init__(self, enter: int, leave: int, width: int, kernel: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(enter, enter, 7, padding=3, groups=enter)
        self.add = nn.Linear(width, enter)
        self.first_norm = nn.GroupNorm(1, enter)
        self.first = nn.Conv2d(enter, 2 * leave, kernel, padding=kernel // 2)
        self.second_norm = nn.GroupNorm(1, 2 * leave)
        self.second = nn.Conv2d(2 * leave, leave, kernel, padding=kernel // 2)
        self.scale = nn.Parameter(torch.full((leave, 1, 1), LAYER_SCALE))
        self.shortcut = nn.Identity() if enter == leave else nn.Conv2d(enter, leave, 1)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        h = depthwise(self.look, x) + self.add(vector)[:, :, None, None]
        h = F.gelu(self.first(self.first_norm(h)))
        return torch.addcmul(self.shortcut(x), self.scale, self.second(self.second_norm(h)))


class ConvnextUnet(Backbone):
    """Images (B,C,H,W) of any size and any number of channels; reads `vector` and `planes`.

    Stem 7x7; a level is one or two blocks and as many skips; down by space-to-depth and 1x1, up by
    repetition and 3x3; two blocks in the middle; a last block sees the stem's map again.

    The code that this design is known from mixes channels by dense 3x3 convolutions inside the
    block. ConvNeXt itself uses 1x1 ("pointwise") ones, which need nine times less work
    there and leave the looking to the 7x7 kernel; that is what the name promises and the default.

    Source: Liu et al., arXiv 2201.03545 (block, layer scale); arXiv 1804.03999 (gates).

    Args:
        shape: Shape (C,H,W) of the items, set by the data.
        planes: Number of channels that conditions add, set by the conditions.
        channels: Width of each level; a level has half the height and width of the one before.
        residuals: Blocks and skips a level, on the way down and on the way up.
        width: Width of the vector that carries noise level and conditions.
        pointwise: Mix channels by 1x1 convolutions, as ConvNeXt does; else by dense 3x3 ones.
        gates: Multiply every skip of a level by a gate in (0, 1) that the way up computes.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"vector", "planes"})

    def __init__(
        self,
        shape: tuple[int, ...],
        planes: int,
        *,
        channels: tuple[int, ...] = (64, 128, 256, 512),
        residuals: Annotated[int, Range(1, 2)] = 2,
        width: Annotated[int, Range(16, 2048)] = 256,
        pointwise: bool = True,
        gates: bool = False,
    ) -> None:
        super().__init__()
        channels, pairs = checked(channels), list(itertools.pairwise(channels))
        block = functools.partial(_Block, width=width, kernel=1 if pointwise else 3)

        def stages(times: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.ModuleList(block(times * c, c) for _ in range(residuals)) for c in channels
            )

        self.width, self.planes, self.multiple = width, planes, 2 ** (len(channels) - 1)
        self.level = LevelEmbedding(width)
        self.stem = nn.Conv2d(shape[0] + planes, channels[0], 7, padding=3)
        self.down = stages(1)
        self.shrink = nn.ModuleList(Halve(a, b) for a, b in pairs)
        self.middle = nn.ModuleList(block(channels[-1], channels[-1]) for _ in range(2))
        self.gated = gates
        self.gates = nn.ModuleList(
            nn.ModuleList(SkipGate(c) for _ in range(residuals)) for c in channels if gates
        )
        self.up = stages(2)
        self.grow = nn.ModuleList(Grow(b, a) for a, b in pairs)
        self.last = block(2 * channels[0], channels[0])
        self.leave = silent(nn.Conv2d(channels[0], shape[0], 1))
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def sized(shape: tuple[int, ...], base: int) -> dict[str, Any]:
        """Levels until the map is at most 8 wide, 2 to 4: the base width, doubled at each."""
        levels = min(4, levels_for(shape))
        return {"channels": tuple(base * 2**i for i in range(levels)), "width": 4 * base}

    def forward(self, x: Tensor, slots: Slots) -> Tensor:
        """The raw answer (B,C,H,W)."""
        height, width = x.shape[-2:]
        vector = self.level(slots.level)
        vector = F.gelu(vector if slots.vector is None else vector + slots.vector)
        x = padded(joined(x, slots.planes, self.planes), self.multiple)
        stem = h = self.stem(x.contiguous(memory_format=torch.channels_last))
        skips: list[list[Tensor]] = []
        for i, stage in enumerate(self.down):
            skips.append([])
            for block in stage.children():
                h = block(h, vector)
                skips[i].append(h)
            if i < len(self.shrink):
                h = self.shrink[i](h)
        for block in self.middle:
            h = block(h, vector)
        for i in reversed(range(len(self.up))):
            h = self._raised(i, h, skips[i], vector)
        h = self.last(torch.cat([h, stem], 1), vector)
        return self.leave(h)[..., :height, :width]

    def _raised(self, level: int, h: Tensor, skips: list[Tensor], vector: Tensor) -> Tensor:
        """The map after a level of the way up, the last skip first, in the size of the next."""
        for i, (block, skip) in enumerate(zip(self.up[level], reversed(skips), strict=True)):
            taken = self.gates[level][i](h, skip) if self.gated else skip
            h = block(torch.cat([h, taken], 1), vector)
        return self.grow[level - 1](h) if level else h
