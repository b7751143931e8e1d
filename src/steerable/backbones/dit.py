"""A transformer over patches, steered by adaptive layer norms whose gates start at zero."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.core.denoise import Backbone
from steerable.core.types import Range, Slots
from steerable.nn.attention import Attention, heads_for
from steerable.nn.embeddings import LevelEmbedding, grid_code, line_code
from steerable.nn.resampling import folded, joined, padded, unfolded

__all__ = ["Dit"]


def _modulated(rows: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(rows) (1 + scale) + shift; the norm has no weights of its own."""
    return torch.addcmul(shift, F.layer_norm(rows, rows.shape[-1:], eps=1e-6), 1.0 + scale)


class _Block(nn.Module):
    """rows + gate attention(modulated rows), then rows + gate feed-forward(modulated rows).

    Shifts, scales and gates are one linear map of the vector that starts at zero, so a new block
    is the identity (adaLN-Zero). The branches themselves must then not start at zero.
    """

    def __init__(self, width: int, heads: int, normed: bool) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.attention = Attention(width, heads=heads, normed=normed, zero=False)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, rows: Tensor, vector: Tensor, mask: Tensor | None) -> Tensor:
        told = self.modulation(vector)[:, None].chunk(6, -1)
        mixed = self.attention(_modulated(rows, told[0], told[1]), mask=mask)
        rows = torch.addcmul(rows, told[2], mixed)
        return torch.addcmul(rows, told[5], self.feed(_modulated(rows, told[3], told[4])))


class Dit(Backbone):
    """Images (B,C,H,W) of any size and channels; reads `vector`, `tokens` and `planes`.

    Tokens stand behind the patches in the same sequence and take part in every block, so they need
    no parameters of their own; where the mask is false nobody attends to them, and the answer is
    read from the patches alone.

    Source: arXiv 2212.09748, section 3.2 (adaLN-Zero, in-context tokens); the norm of queries and
    keys from arXiv 2302.05442.

    Args:
        shape: Shape (C,H,W) of the items, set by the data.
        planes: Number of channels that conditions add, set by the conditions.
        patch: Side of a patch; 0 for 2 up to 16 pixels a side, 4 up to 64, 8 up to 128, else 16.
        width: Width of the rows, of the tokens and of the vector of noise level and conditions.
        depth: Number of blocks.
        heads: Attention heads; 0 for about one head for 32 channels.
        normed: Whether queries and keys are brought to unit size, which steadies the training.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"vector", "tokens", "planes"})

    def __init__(
        self,
        shape: tuple[int, ...],
        planes: int,
        *,
        patch: Annotated[int, Range(0, 64)] = 0,
        width: Annotated[int, Range(16, 2048)] = 192,
        depth: Annotated[int, Range(1, 48)] = 6,
        heads: Annotated[int, Range(0, 64)] = 0,
        normed: bool = True,
    ) -> None:
        super().__init__()
        side = max(shape[1:])
        auto = 2 if side <= 16 else 4 if side <= 64 else 8 if side <= 128 else 16
        self.patch = patch or auto
        self.width, self.planes = width, planes
        heads = heads_for(width, heads)
        self.level = LevelEmbedding(width)
        self.enter = nn.Linear((shape[0] + planes) * self.patch**2, width)
        self.blocks = nn.ModuleList(_Block(width, heads, normed) for _ in range(depth))
        self.modulation = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, shape[0] * self.patch**2)
        for layer in (self.modulation, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @staticmethod
    def sized(shape: tuple[int, ...], base: int) -> dict[str, Any]:
        """Six blocks, four times as wide as the base: 192 for base 48."""
        return {"width": 4 * base, "depth": 6}

    def forward(self, x: Tensor, slots: Slots) -> Tensor:
        """The raw answer (B,C,H,W)."""
        height, width = x.shape[-2:]
        vector = self.level(slots.level)
        vector = F.silu(vector if slots.vector is None else vector + slots.vector)
        cut = folded(padded(joined(x, slots.planes, self.planes), self.patch), self.patch)
        down, along = cut.shape[-2:]
        rows = self.enter(cut.flatten(2).mT) + grid_code(down, along, self.width).to(x)
        rows, mask = self._with_tokens(rows, slots)
        for block in self.blocks:
            rows = block(rows, vector, mask)
        shift, scale = self.modulation(vector)[:, None].chunk(2, -1)
        rows = self.leave(_modulated(rows[:, : down * along], shift, scale))
        return unfolded(rows.mT.unflatten(2, (down, along)), self.patch)[..., :height, :width]

    @staticmethod
    def _with_tokens(rows: Tensor, slots: Slots) -> tuple[Tensor, Tensor | None]:
        """The rows with the tokens behind them, numbered by a code, and the mask of all keys."""
        if slots.tokens is None:
            return rows, None
        tokens = slots.tokens + line_code(*slots.tokens.shape[1:]).to(rows)
        mask = slots.mask
        if mask is not None:
            mask = torch.cat([mask.new_ones(rows.shape[:2]), mask], 1)
        return torch.cat([rows, tokens], 1), mask
