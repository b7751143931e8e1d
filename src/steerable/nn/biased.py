"""The layer of score networks: a convolution that is told the condition by a bias a channel."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import groups_for

__all__ = ["BiasedConvolution"]


class BiasedConvolution(nn.Module):
    """silu(norm(convolution(x)) + bias(vector)).

    The bias is added after the norm, which would take from it whatever the channels of a group
    have in common.

    Args:
        inside: Channels of the input.
        outside: Channels of the output.
        width: Width of the vector.
        size: `same` keeps the map's sides; `half` rounds half of them up; `double` doubles them.
    """

    def __init__(
        self,
        inside: int,
        outside: int,
        width: int,
        *,
        size: Literal["same", "half", "double"] = "same",
    ) -> None:
        super().__init__()
        if size == "double":
            # Four taps for a stride of two: every new position hears the same number of old ones.
            self.convolution: nn.Module = nn.ConvTranspose2d(
                inside, outside, 4, stride=2, padding=1, bias=False
            )
        else:
            stride = 2 if size == "half" else 1
            self.convolution = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.GroupNorm(groups_for(outside), outside)
        self.bias = nn.Linear(width, outside)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """Map x (B,inside,H,W), vector (B,width) -> (B,outside,H',W')."""
        return F.silu(self.norm(self.convolution(x)) + self.bias(vector)[:, :, None, None])
