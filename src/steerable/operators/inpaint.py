"""Seeing a picture through a mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steerable.core.steer import Operator

__all__ = ["Inpaint"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Inpaint(Operator):
    """y = x where the mask is black, 0 where it is white (hidden).

    Its own adjoint, and a projection. What is hidden is never read, neither of x nor of y: it may
    be NaN.
    Source: Lugmayr et al., arXiv 2201.09865, where 1 means known.

    Args:
        mask: 1 where the picture is hidden, 0 where it is known; (B,1,H,W).
    """

    mask: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """What is known of x (B,C,H,W), 0 elsewhere."""
        return x.masked_fill(self._hidden(x), 0.0)

    def adjoint(self, y: Tensor) -> Tensor:
        """The same again."""
        return y.masked_fill(self._hidden(y), 0.0)

    def nearest(self, x: Tensor, y: Tensor, weight: float) -> Tensor:
        """(y + weight x) / (1 + weight) where known, x where hidden."""
        return torch.where(self._hidden(x), x, (y.to(x) + weight * x) / (1.0 + weight))

    def _hidden(self, like: Tensor) -> Tensor:
        return self.mask.to(like.device) >= 0.5
