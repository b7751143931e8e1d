"""What was done to a training picture, told to the network so that samples stay free of it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor, nn

from steerable.core.condition import Condition
from steerable.core.types import Range

__all__ = ["Augmentation"]

NUMBERS = 8  # flip x, flip y, cos and sin of the turn (cos less one), log scales x y, shifts x y


class Augmentation(Condition):
    """Parameters (B,8) of a geometric augmentation to a vector; zeros are the untouched picture.

    The map is linear without a constant and the null is a fixed zero, so an absent value, all that
    sampling ever gives, is the untouched picture.
    Source: Karras et al., arXiv 2006.06676; as a condition: arXiv 2206.00364, appendix F.2.

    Args:
        width: Width of the vector, set by the backbone.
        dropout: Share of the training items that are not told; 0 keeps samples free of leaks.
    """

    slot: ClassVar[str] = "vector"

    def __init__(self, width: int, *, dropout: Annotated[float, Range(0, 1)] = 0.0) -> None:
        super().__init__((width,), dropout=dropout)
        self.null.requires_grad_(False)
        self.net = nn.Linear(NUMBERS, width, bias=False)

    def encode(self, value: Tensor) -> Tensor:
        """Embedded parameters (B,width)."""
        return self.net(value)
