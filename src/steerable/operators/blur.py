"""Seeing a picture out of focus."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import torch
from torch import Tensor

from steerable.core.steer import Operator
from steerable.core.types import Range

__all__ = ["Blur"]


@lru_cache(maxsize=64)
def _cosines(n: int) -> Tensor:
    """The orthonormal cosine basis of a line (DCT-II), rows by frequency, (n,n) float64."""
    k = torch.arange(n, dtype=torch.float64)
    basis = torch.cos(math.pi / n * k[:, None] * (k + 0.5)) * math.sqrt(2.0 / n)
    basis[0] /= math.sqrt(2.0)
    return basis


@dataclass(frozen=True, kw_only=True)
class Blur(Operator):
    """y = x convolved with a Gaussian, with the border reflected (d c b a | a b c d).

    Such a blur is diagonal in the cosine basis: frequency w is multiplied by exp(-std^2 w^2 / 2)
    on each side. So it is its own adjoint, constants stay, and the nearest point is closed.
    Source: Chung et al., arXiv 2209.14687 (Gaussian deblurring).

    Args:
        std: Standard deviation of the Gaussian in pixels.
    """

    std: Annotated[float, Range(0.05, 100)] = 1.5

    def __call__(self, x: Tensor) -> Tensor:
        """Blurred pictures (B,C,H,W)."""
        return self._scaled(x, self._gains(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """The same blur again."""
        return self(y)

    def nearest(self, x: Tensor, y: Tensor, weight: float) -> Tensor:
        """(A^2 + weight)^-1 (A y + weight x), solved in float64 frequency by frequency."""
        rest = y.to(torch.float64) - self(x.to(torch.float64))
        gains = self._gains(rest)
        return x + self._scaled(rest, gains / (gains**2 + weight)).to(x)

    def _gains(self, like: Tensor) -> Tensor:
        """The factor of each frequency, (H,W)."""
        lines = []
        for n in like.shape[-2:]:
            w = math.pi / n * torch.arange(n, dtype=torch.float64)
            lines.append(torch.exp(-0.5 * (self.std * w) ** 2))
        return (lines[0][:, None] * lines[1]).to(like)

    @staticmethod
    def _scaled(x: Tensor, gains: Tensor) -> Tensor:
        rows, columns = (_cosines(n).to(x) for n in x.shape[-2:])
        return rows.mT @ (gains * (rows @ x @ columns.mT)) @ columns
