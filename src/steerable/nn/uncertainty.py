"""A learned weight for each noise level: the logarithm of the loss that is to be expected there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .embeddings import LevelEmbedding

__all__ = ["Uncertainty"]


class Uncertainty(nn.Module):
    """u(log(sigma / alpha)), trained by e^-u loss + u; zero everywhere at the start.

    The least value is reached at e^u = E[loss | level]: every level then weighs the same, one.
    Source: Karras et al., arXiv 2312.02696, equation 14, after Kendall et al., arXiv 1705.07115.

    Args:
        seed: Seed of the initial features, apart from torch's own generator.
        width: Width of the hidden layer.
    """

    def __init__(self, seed: int, *, width: int = 32) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.level = LevelEmbedding(width)
            self.leave = nn.Linear(width, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, level: Tensor) -> Tensor:
        """The logarithm u (B,) of the losses to be expected at levels (B,)."""
        return self.leave(F.silu(self.level(level)))[:, 0]

    def weighed(self, loss: Tensor, level: Tensor) -> Tensor:
        """e^-u loss + u, (B,), of losses (B,) at levels (B,)."""
        u = self(level.to(loss))
        return loss * torch.exp(-u) + u
