"""Self-attention over the positions of a feature map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SelfAttention2d"]


class SelfAttention2d(nn.Module):
    """x + projection(attention(norm(x))) over the H*W positions of x (B,C,H,W).

    The projection starts at zero, so a new block is the identity.

    Args:
        channels: C, a multiple of `heads` and of the norm's groups.
        heads: Number of attention heads.
    """

    def __init__(self, channels: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(1, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of the same shape."""
        b, c, h, w = x.shape
        rows = self.norm(x).permute(0, 2, 3, 1).reshape(b, h * w, c)
        qkv = self.qkv(rows).reshape(b, h * w, 3, self.heads, c // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        rows = self.out(mixed.transpose(1, 2).reshape(b, h * w, c))
        return x + rows.reshape(b, h, w, c).permute(0, 3, 1, 2)
