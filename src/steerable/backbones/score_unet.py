"""The U-Net of score tutorials: full resolution, one layer a level, a bias for level and condition.

The noise level enters as frozen random Fourier features. The division by sigma that turns the
answer into a score belongs to the target; the network itself knows no schedule.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.core.denoise import Backbone
from steerable.core.types import Range, Slots
from steerable.nn.biased import BiasedConvolution
from steerable.nn.blocks import checked, levels_for
from steerable.nn.embeddings import RandomLevelEmbedding
from steerable.nn.resampling import joined

__all__ = ["ScoreUnet"]


class ScoreUnet(Backbone):
    """Images (B,C,H,W) of any size and any number of channels; reads `vector` and `planes`.

    Source: the score-matching tutorial of arXiv 2011.13456 (its network for MNIST), here with
    padded convolutions, so that any size fits.

    Args:
        shape: Shape (C,H,W) of the items, set by the data.
        planes: Number of channels that conditions add, set by the conditions.
        channels: Width of each level; a level has half the height and width of the one before.
        width: Width of the vector that carries noise level and conditions.
        scale: Standard deviation of the level's frequencies, in turns a unit of log(sigma/alpha).
        skips: Whether the way up gets the maps of the way down beside its own or added to them.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"vector", "planes"})

    def __init__(
        self,
        shape: tuple[int, ...],
        planes: int,
        *,
        channels: tuple[int, ...] = (32, 64, 128, 256),
        width: Annotated[int, Range(16, 2048)] = 256,
        scale: Annotated[float, Range(0.01, 100)] = 0.5,
        skips: Literal["concat", "add"] = "concat",
    ) -> None:
        super().__init__()
        channels = checked(channels)
        self.width, self.planes, self.skips = width, planes, skips
        self.level = RandomLevelEmbedding(width, scale=scale)
        self.enter = BiasedConvolution(shape[0] + planes, channels[0], width)
        pairs = list(itertools.pairwise(channels))
        self.down = nn.ModuleList(BiasedConvolution(a, b, width, size="half") for a, b in pairs)
        # All maps but the deepest arrive with a skip beside them.
        times = 2 if skips == "concat" else 1
        self.up = nn.ModuleList(
            BiasedConvolution(b if i + 1 == len(pairs) else times * b, a, width, size="double")
            for i, (a, b) in enumerate(pairs)
        )
        last = channels[0] * (times if pairs else 1)
        self.leave = nn.Conv2d(last, shape[0], 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def sized(shape: tuple[int, ...], base: int) -> dict[str, Any]:
        """Three to five levels until the map is at most 2 wide, as in the tutorial.

        Without attention only the deepest level sees the whole picture: ending at maps of 4, digits
        of 14 x 14 were more than twice as far from real ones. The widths are 1, 2, 4, 8, 8 times
        two thirds of the base: 32 for base 48, as a first level at full resolution costs more time
        than its arithmetic.
        """
        first, levels = 8 * round(base / 12), min(5, max(3, levels_for(shape, 2)))
        channels = tuple(first * min(2**i, 8) for i in range(levels))
        return {"channels": channels, "width": 4 * base}

    def forward(self, x: Tensor, slots: Slots) -> Tensor:
        """The raw answer (B,C,H,W)."""
        vector = self.level(slots.level)
        vector = F.silu(vector if slots.vector is None else vector + slots.vector)
        x = joined(x, slots.planes, self.planes)
        h = self.enter(x.contiguous(memory_format=torch.channels_last), vector)
        skips = []
        for shrink in self.down:
            skips.append(h)
            h = shrink(h, vector)
        for grow in reversed(self.up):
            skip = skips.pop()
            # An odd side was rounded up on the way down, so the way up is one too long.
            h = grow(h, vector)[..., : skip.shape[-2], : skip.shape[-1]]
            h = torch.cat([h, skip], 1) if self.skips == "concat" else h + skip
        return self.leave(h)
