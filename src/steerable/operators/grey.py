"""Seeing a picture without its colours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.steer import Operator

__all__ = ["Grey"]

_SHARES = (0.299, 0.587, 0.114)  # red, green, blue. Source: ITU-R BT.601, section 2.5.1


@dataclass(frozen=True, kw_only=True)
class Grey(Operator):
    """y = 0.299 red + 0.587 green + 0.114 blue, the luminance: colourisation is its inverse.

    Source: ITU-R BT.601; as an inverse problem: Song et al., arXiv 2011.13456.

    Raises:
        UserError: E-SHAPE for pictures without three channels.
    """

    def __call__(self, x: Tensor) -> Tensor:
        """Luminance (B,1,H,W) of pictures (B,3,H,W)."""
        if x.ndim != 4 or x.shape[1] != 3:
            got, takes = f"shape {tuple(x.shape)}", "colour pictures (B,3,H,W)"
            raise UserError("E-SHAPE", where="grey", got=got, takes=takes)
        return (self._shares(x) * x).sum(1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        """The luminance spread over the channels by the same shares, (B,3,H,W)."""
        return self._shares(y) * y

    def nearest(self, x: Tensor, y: Tensor, weight: float) -> Tensor:
        """X plus the same amount of grey in each pixel: A A^T is one number, the sum of squares."""
        square = sum(share**2 for share in _SHARES)
        return x + self.adjoint((y.to(x) - self(x)) / (square + weight))

    @staticmethod
    def _shares(like: Tensor) -> Tensor:
        return torch.tensor(_SHARES, dtype=like.dtype, device=like.device)[:, None, None]
