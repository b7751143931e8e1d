"""The score U-Net with transformers on its small maps, where every position reads the tokens."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.core.denoise import Backbone
from steerable.core.types import Range, Slots
from steerable.nn.attention import SpatialTransformer, heads_for
from steerable.nn.biased import BiasedConvolution
from steerable.nn.blocks import checked, levels_for
from steerable.nn.embeddings import RandomLevelEmbedding
from steerable.nn.resampling import joined

__all__ = ["TransformerUnet"]


class TransformerUnet(Backbone):
    """Images (B,C,H,W) of any size and channels; reads `vector`, `tokens` and `planes`.

    Each small map goes through self-attention, attention to the tokens and a feed-forward network,
    on the way down and on the way up; skips are added. Without tokens the attention to them is
    left out, and its parameters are not trained.

    Source: arXiv 2112.10752, section 3.3, on the network of the score tutorial.

    Args:
        shape: Shape (C,H,W) of the items, set by the data.
        planes: Number of channels that conditions add, set by the conditions.
        channels: Width of each level; a level has half the height and width of the one before.
        width: Width of the vector that carries noise level and conditions, and of the tokens.
        scale: Standard deviation of the level's frequencies, in turns a unit of log(sigma/alpha).
        attention: Largest map side that gets a transformer; the smallest map always gets one.
        heads: Attention heads; 0 for about one head for 32 channels.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"vector", "tokens", "planes"})

    def __init__(
        self,
        shape: tuple[int, ...],
        planes: int,
        *,
        channels: tuple[int, ...] = (32, 64, 128, 256),
        width: Annotated[int, Range(16, 2048)] = 256,
        scale: Annotated[float, Range(0.01, 100)] = 0.5,
        attention: Annotated[int, Range(0, 64)] = 8,
        heads: Annotated[int, Range(0, 64)] = 0,
    ) -> None:
        super().__init__()
        channels = checked(channels)
        self.width, self.planes = width, planes
        self.level = RandomLevelEmbedding(width, scale=scale)
        self.enter = BiasedConvolution(shape[0] + planes, channels[0], width)
        pairs = list(itertools.pairwise(channels))
        self.down = nn.ModuleList(BiasedConvolution(a, b, width, size="half") for a, b in pairs)
        self.up = nn.ModuleList(BiasedConvolution(b, a, width, size="double") for a, b in pairs)
        self.read_down, self.read_up = nn.ModuleDict(), nn.ModuleDict()
        deepest = len(channels) - 1
        for i, c in enumerate(channels):
            small = -(-max(shape[1:]) // 2**i) <= attention
            count = heads_for(c, heads) if small or i == deepest else 0
            if count:
                self.read_down[str(i)] = SpatialTransformer(c, context=width, heads=count)
            if count and i < deepest:
                self.read_up[str(i)] = SpatialTransformer(c, context=width, heads=count)
        self.leave = nn.Conv2d(channels[0], shape[0], 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def sized(shape: tuple[int, ...], base: int) -> dict[str, Any]:
        """Three to five levels until the map is at most 4 wide, from 2/3 of the base width upwards.

        A first level at full resolution costs more time than its arithmetic: 32 for base 48.
        """
        first, levels = 8 * round(base / 12), min(5, max(3, levels_for(shape, 4)))
        return {"channels": tuple(first * 2**i for i in range(levels)), "width": 4 * base}

    def forward(self, x: Tensor, slots: Slots) -> Tensor:
        """The raw answer (B,C,H,W)."""
        vector = self.level(slots.level)
        vector = F.silu(vector if slots.vector is None else vector + slots.vector)
        x = joined(x, slots.planes, self.planes)
        h = self.enter(x.contiguous(memory_format=torch.channels_last), vector)
        h = self._read(self.read_down, 0, h, slots)
        skips = []
        for i, shrink in enumerate(self.down):
            skips.append(h)
            h = self._read(self.read_down, i + 1, shrink(h, vector), slots)
        for i in reversed(range(len(self.up))):
            skip = skips[i]
            # An odd side was rounded up on the way down, so the way up is one too long.
            h = skip + self.up[i](h, vector)[..., : skip.shape[-2], : skip.shape[-1]]
            h = self._read(self.read_up, i, h, slots)
        return self.leave(h)

    @staticmethod
    def _read(readers: nn.ModuleDict, i: int, h: Tensor, slots: Slots) -> Tensor:
        """The map of level i after its transformer, if it has one."""
        return readers[str(i)](h, slots.tokens, slots.mask) if str(i) in readers else h
