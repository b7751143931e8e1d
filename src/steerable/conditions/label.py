"""A class label, looked up in a learned table."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor, nn

from steerable.core.condition import Condition
from steerable.core.types import Range

__all__ = ["Label"]


class Label(Condition):
    """One of `classes` names: an index (B,) to a vector (B,width); -1 means no label.

    Args:
        width: Width of the vector, set by the backbone.
        classes: Number of classes, set by the data.
        dropout: Share of the training items whose label is hidden, for guidance.
    """

    slot: ClassVar[str] = "vector"

    def __init__(
        self, width: int, classes: int, *, dropout: Annotated[float, Range(0, 1)] = 0.1
    ) -> None:
        super().__init__((width,), dropout=dropout)
        self.table = nn.Embedding(classes, width)
        nn.init.normal_(self.table.weight, std=0.5)

    def encode(self, value: Tensor) -> Tensor:
        """Rows of the table, (B,width)."""
        return self.table(value)
