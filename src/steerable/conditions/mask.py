"""A picture with a hole: what is known of it, and where, as further channels."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from steerable.core.condition import Condition
from steerable.core.errors import UserError
from steerable.core.types import Range

__all__ = ["Mask"]


class Mask(Condition):
    """The known part of a picture and its mask (B,C+1,H,W), so that the network fills the rest in.

    The value is the picture, hidden pixels any number, and as last channel the mask: 1 is white and
    means repaint. Hidden pixels are set to zero here, whatever they hold. The planes are the known
    pixels, and 1 where a pixel is known. So the null, a fixed zero, says the same as a mask that is
    white all over: nothing is known.
    Source: the input channels of inpainting models, arXiv 2112.10752, section 4.5.

    Args:
        shape: Shape (C,H,W) of the pictures, set by the data.
        dropout: Share of the training items of which nothing is known.

    Raises:
        UserError: E-CONFIG for items that are no pictures.
    """

    slot: ClassVar[str] = "planes"

    def __init__(
        self, shape: tuple[int, ...], *, dropout: Annotated[float, Range(0, 1)] = 0.1
    ) -> None:
        if len(shape) != 3:
            got = f"items of shape {shape}"
            raise UserError("E-CONFIG", where="condition 'mask'", got=got, takes="pictures (C,H,W)")
        super().__init__((shape[0] + 1, 1, 1), dropout=dropout)
        self.null.requires_grad_(False)

    def encode(self, value: Tensor) -> Tensor:
        """Known pixels, zero where hidden, and 1 where known, (B,C+1,H,W)."""
        known = value[:, -1:] < 0.5
        picture = torch.where(known, value[:, :-1], torch.zeros_like(value[:, :-1]))
        return torch.cat([picture, known.to(value.dtype)], 1)
