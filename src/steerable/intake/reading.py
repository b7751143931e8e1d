"""How far the reading of data is."""

from __future__ import annotations

from dataclasses import dataclass

from steerable.core.types import Splits

__all__ = ["Reading"]


@dataclass(frozen=True)
class Reading:
    """One step of reading; the last one holds the data.

    Attributes:
        stage: What is counted, in the plural: `files`, `headers`, `pictures`.
        done: How many of them are done.
        total: How many there are; 0 where that is not known yet.
        splits: The data, in the last step alone.
    """

    stage: str
    done: int
    total: int
    splits: Splits | None = None

    @property
    def share(self) -> float:
        """The share done, from 0 to 1."""
        return self.done / self.total if self.total else 0.0
