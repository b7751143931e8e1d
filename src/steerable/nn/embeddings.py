"""Embeddings of numbers: noise levels as Fourier features, places as sines and cosines."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["LevelEmbedding", "RandomLevelEmbedding", "grid_code", "line_code"]


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


class RandomLevelEmbedding(nn.Module):
    """log(sigma / alpha) (B,) -> (B,width): Gaussian Fourier features, then a two-layer network.

    The frequencies are drawn once and never trained; they are stored with the weights. Features of
    two levels that lie d apart have the correlation exp(-(2 pi scale d)^2 / 2) on average.
    Source: arXiv 2006.10739, equation 5.

    Args:
        width: Width of the result.
        features: Number of features, half of them sines and half cosines.
        scale: Standard deviation of the frequencies in turns a unit of the log ratio. The 30 of
            score tutorials is for t in [0, 1] and the 16 of NCSN++ for log sigma, both with 2 pi:
            levels 0.1 apart would have nothing in common. EDM2 amounts to 0.25. At 0.5 the
            correlation is 0.95 for levels 0.1 apart and 0.007 for levels 1 apart.
    """

    def __init__(self, width: int, *, features: int = 256, scale: float = 0.5) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(features // 2))
        self.net = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

    def features(self, level: Tensor) -> Tensor:
        """Features of levels (B,), each row of mean square 1."""
        angle = 2.0 * math.pi * level[:, None] * self.get_buffer("frequencies").to(level)
        return torch.cat([angle.sin(), angle.cos()], 1) * math.sqrt(2.0)

    def forward(self, level: Tensor) -> Tensor:
        """Embedded levels (B,width)."""
        return self.net(self.features(level))


def line_code(length: int, channels: int) -> Tensor:
    """Code (length,channels) of the places 0, 1, ...: sines and cosines of falling frequencies.

    The frequencies fall from 1 to 1/100 radian a place, so neighbours differ clearly and no code
    repeats within 600 places; the 1/10000 of arXiv 1706.03762 is for sentences longer than that.
    """
    count = -(-channels // 2)
    share = torch.linspace(0.0, 1.0, count, dtype=torch.float32)
    angle = torch.arange(length, dtype=torch.float32)[:, None] * torch.exp(-math.log(100.0) * share)
    # In pairs, so that a number of channels that does not divide loses the slowest ones.
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)[:, :channels]


def grid_code(height: int, width: int, channels: int) -> Tensor:
    """Code (height * width, channels) of a map, row by row: half of it is y's and half x's."""
    half = -(-channels // 2)
    down = line_code(height, half)[:, None].expand(height, width, half)
    along = line_code(width, half)[None].expand(height, width, half)
    return torch.cat([down, along], -1).flatten(0, 1)[:, :channels]
