"""Progress of commands that write pictures batch by batch, and what they say when stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .console import Bar, Stop, duration

if TYPE_CHECKING:
    from steerable.jobs.edit import Editing
    from steerable.jobs.output import Folder
    from steerable.jobs.sample import Progress

__all__ = ["GOES_ON", "Drawn", "watched"]

GOES_ON = "stopped: what is finished is kept, and the same command goes on from there"


@dataclass(frozen=True)
class Drawn:
    """What was made.

    Attributes:
        pictures: Pictures that were made now.
        resumed: Pictures that were there already.
        calls: Most calls of the network for one picture.
        seconds: The time it took.
        left_out: Pictures that the grid does not show.
    """

    pictures: int
    resumed: int
    calls: int
    seconds: float
    left_out: int


def watched(steps: Iterator[Progress | Editing], folder: Folder, n: int, stop: Stop) -> Drawn:
    """Write pictures with progress on stderr, until they are done or a signal stops it.

    Args:
        steps: What writes `n` pictures into `folder`.
        folder: The folder.
        n: All pictures.
        stop: Whether to stop.
    """
    bar, start, began, made = Bar(), time.monotonic(), None, 0
    there = sum(name[:-4].isdigit() for name in folder.done if name.endswith(".png"))
    for at in steps:
        began = at.done - 1 if began is None else began  # steps of what was there already
        made += len(at.places)
        spent, share = time.monotonic() - start, (at.done - began) / max(1, at.of - began)
        rate = made / spent if made else n * (at.done - began) / at.of / max(spent, 1e-9)
        left = duration(spent * (1 / share - 1))
        last = at.done == at.of
        bar.show(at.done / at.of, f"{n:,} pictures  {rate:.3g}/s  {left} left", last=last)
        if stop.code and not last:
            break
    calls, left_out = (
        max((int(told.get(key, 0)) for told in folder.facts), default=0)
        for key in ("calls", "grid_left_out")
    )
    resumed = min(there, n - made)
    return Drawn(made, resumed, calls, round(time.monotonic() - start, 2), left_out)
