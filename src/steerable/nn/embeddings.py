"""Embeddings of numbers: the noise level as Fourier features behind a small network."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["LevelEmbedding"]


class LevelEmbedding(nn.Module):
    """log(sigma / alpha) (B,) -> (B,width): sines and cosines of it, then a two-layer network.

    Args:
        width: Width of the result.
        features: Number of frequencies, geometric from 1/16 to 4 radians a unit of the log ratio,
            which tells levels 0.1 apart and does not repeat over the range of any schedule.
    """

    def __init__(self, width: int, *, features: int = 32) -> None:
        super().__init__()
        self.features = features
        self.net = nn.Sequential(nn.Linear(2 * features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, level: Tensor) -> Tensor:
        """Embedded levels (B,width)."""
        share = torch.linspace(0.0, 1.0, self.features, device=level.device, dtype=level.dtype)
        angle = level[:, None] * torch.exp(share * math.log(64.0) - math.log(16.0))
        return self.net(torch.cat([angle.sin(), angle.cos()], 1) * math.sqrt(2.0))
