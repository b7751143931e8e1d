"""Reading data step by step, from its files or from what an earlier command has kept of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator

from steerable.core.types import Splits
from steerable.intake.reading import Reading
from steerable.intake.scanning import READER
from steerable.recipes.part import Part, build, check, find

from . import kept
from .caches import cache_place

__all__ = ["READER", "Reading", "finished", "reading"]

Stepwise = Callable[..., Iterator[Reading]]


def reading(part: Part, *, reader: int = READER) -> Iterator[Reading]:
    """Read the data of a part; the last step holds it.

    Nothing happens between two steps that an interruption would have to wait for. The data and
    its report are the same from the files and from what was kept.

    Args:
        part: A data part.
        reader: Version of what is made of the same files; a run stays with the one it began with.

    Raises:
        UserError: What is wrong with the part or with the data; E-MEM if it does not fit.
    """
    part = check("data", part)
    steps = _stepwise(part.kind)
    if steps is None:
        yield Reading("sets", 0, 1)
        yield Reading("sets", 1, 1, build("data", part))
        return
    folder, key = cache_place("pictures"), None
    if folder is not None:
        key = yield from kept.key_of(part, reader)
        known = None if key is None else (yield from kept.recalled(folder, key))
        if known is not None:
            yield _last(known)
            return
    for step in steps(part.options, reader=reader):
        if step.splits is None:
            yield step
            continue
        if folder is not None and key is not None:
            yield from kept.keep(folder, key, step.splits)
        yield step


def finished(steps: Iterable[Reading]) -> Splits:
    """The data of the last step."""
    splits = None
    for step in steps:
        splits = step.splits
    assert splits is not None, "the last step holds the data"
    return splits


def _last(splits: Splits) -> Reading:
    n = len(splits.train) + len(splits.held_out)
    return Reading("pictures", n, n, splits)


def _stepwise(kind: str) -> Stepwise | None:
    """The generator `reading` beside the constructor of a built-in kind, where it has one."""
    if ":" in kind:
        return None
    return getattr(inspect.getmodule(find("data", kind)), "reading", None)
