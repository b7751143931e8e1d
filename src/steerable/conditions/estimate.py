"""Self-conditioning: the network sees its own last estimate of the clean item."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from steerable.core.condition import Condition
from steerable.core.types import Range

__all__ = ["Estimate"]


class Estimate(Condition):
    """x0-hat (B,*S) of the step before, as further channels; NaN means there is none yet.

    The null is a fixed zero. In training `dropout` of the items see no estimate, as in the paper.
    Source: Chen et al., arXiv 2208.04202, section 3.3.

    Args:
        shape: Shape of the items, set by the data.
        dropout: Share of the training items that see no estimate.
    """

    slot: ClassVar[str] = "planes"

    def __init__(
        self, shape: tuple[int, ...], *, dropout: Annotated[float, Range(0, 1)] = 0.5
    ) -> None:
        super().__init__((shape[0], *[1] * (len(shape) - 1)), dropout=dropout)
        self.null.requires_grad_(False)

    def encode(self, value: Tensor) -> Tensor:
        """The estimate itself."""
        return value
