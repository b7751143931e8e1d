"""Which pictures are held out: decided by what is in them, so that no name and no order matters."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["digests", "duplicates", "held_out", "reorder"]


def digests(rows: NDArray[np.uint8]) -> list[bytes]:
    """SHA-256 of every row (N,...)."""
    return [hashlib.sha256(np.ascontiguousarray(row)).digest() for row in rows]


def duplicates(keys: Sequence[bytes]) -> list[list[int]]:
    """Groups of two and more items with equal keys, in order of their first item."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        groups[key].append(i)
    return [group for group in groups.values() if len(group) > 1]


def held_out(keys: Sequence[bytes], classes: Sequence[int], share: float) -> list[bool]:
    """Per class, hold out `share` of the items, at least one of two; equal items stay together.

    In every class the groups of equal items are taken in the order of their keys while they fit
    the quota, so other classes and new names change nothing. Items that two classes share are
    trained on: held out, they would be a question with two answers.

    Args:
        keys: Hash of each item's content.
        classes: Class of each item.
        share: Fraction to hold out.
    """
    homes: dict[bytes, set[int]] = defaultdict(set)
    members: dict[int, dict[bytes, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, (key, home) in enumerate(zip(keys, classes, strict=True)):
        homes[key].add(home)
        members[home][key].append(i)
    out = [False] * len(keys)
    for groups in members.values():
        n = sum(map(len, groups.values()))
        if len(groups) < 2:
            continue  # one picture, or copies of one: a part of it must be trained on
        quota = min(max(1, int(share * n + 0.5)), n - 1)
        own = [groups[key] for key in sorted(groups) if len(homes[key]) == 1]
        # With copies only, none may fit: the smallest group then, so that the class is measured.
        chosen = _fitting(own, quota) or sorted(own, key=len)[:1]
        for i in (i for group in chosen for i in group):
            out[i] = True
    return out


def _fitting(groups: list[list[int]], quota: int) -> list[list[int]]:
    chosen: list[list[int]] = []
    for group in groups:
        if len(group) <= quota:
            chosen.append(group)
            quota -= len(group)
    return chosen


def reorder(rows: NDArray[np.uint8], order: Sequence[int]) -> None:
    """Put old row `order[i]` at place i with one row of extra memory, along the cycles."""
    done = bytearray(len(order))
    for start in range(len(order)):
        if done[start] or order[start] == start:
            continue
        spare, place = rows[start].copy(), start
        while order[place] != start:
            rows[place] = rows[order[place]]
            done[place] = 1
            place = order[place]
        rows[place] = spare
        done[place] = 1
