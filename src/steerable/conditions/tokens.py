"""A short sequence of words from a small vocabulary, such as "red circle, blue square"."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from steerable.core.condition import Condition
from steerable.core.errors import UserError
from steerable.core.types import Range

__all__ = ["Tokens"]


class Tokens(Condition):
    """Word indices (B,L) padded with -1, to tokens (B,L,width); -1 everywhere means no prompt.

    A word and its place are looked up in two learned tables and added, so that attention can tell
    which word stands beside which.

    Args:
        width: Width of a token, set by the backbone.
        words: Size of the vocabulary, set by the data.
        dropout: Share of the training items whose prompt is hidden, for guidance.
        length: Longest sequence.

    Raises:
        UserError: E-LIMIT when called with a longer one.
    """

    slot: ClassVar[str] = "tokens"

    def __init__(
        self,
        width: int,
        words: int,
        *,
        dropout: Annotated[float, Range(0, 1)] = 0.1,
        length: Annotated[int, Range(1, 512)] = 64,
    ) -> None:
        super().__init__((1, width), dropout=dropout)
        self.table = nn.Embedding(words, width)
        self.places = nn.Parameter(0.5 * torch.randn(length, width))
        nn.init.normal_(self.table.weight, std=0.5)

    def encode(self, value: Tensor) -> Tensor:
        """Rows of both tables, (B,L,width); padding is masked out by the caller."""
        longest = len(self.places)
        if value.shape[1] > longest:
            got, takes = f"{value.shape[1]} words", f"at most {longest}"
            raise UserError("E-LIMIT", where="prompt", got=got, takes=takes)
        return self.table(value.clamp(min=0)) + self.places[: value.shape[1]]
