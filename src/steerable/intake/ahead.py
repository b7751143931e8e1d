"""Work on many things by a few threads, with the results in their order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

__all__ = ["in_order", "processors"]

MOST = 8  # threads; beyond it the interpreter's lock takes what they gain
AHEAD = 4  # things a thread that may be under work or waiting to be fetched
PATIENCE = 0.2  # seconds; a wait without an end could not be interrupted on every system

_T = TypeVar("_T")
_R = TypeVar("_R")
_Tasks = SimpleQueue[tuple[Future[_R], _T] | None]


def processors() -> int:
    """How many threads can run at once, at most `MOST`."""
    allowed = getattr(os, "sched_getaffinity", None)
    count = len(allowed(0)) if allowed is not None else os.cpu_count() or 1
    return max(1, min(MOST, count))


def in_order(work: Callable[[_T], _R], things: Iterable[_T], threads: int) -> Iterator[_R]:
    """`work` of every thing, in order, by so many threads; one works here, without a thread.

    Things are fetched a little ahead only, so what is in memory stays bounded. The threads do not
    outlive the program: whoever leaves does not wait for the thing that is under work.

    Raises:
        Exception: What `work` raised, at the place of its thing.
    """
    if threads <= 1:
        yield from map(work, things)
        return
    tasks: _Tasks[_R, _T] = SimpleQueue()
    waiting: deque[Future[_R]] = deque()
    for _ in range(threads):
        Thread(target=_serve, args=(work, tasks), daemon=True).start()
    try:
        for thing in things:
            future: Future[_R] = Future()
            waiting.append(future)
            tasks.put((future, thing))
            if len(waiting) >= AHEAD * threads:
                yield _awaited(waiting.popleft())
        while waiting:
            yield _awaited(waiting.popleft())
    finally:
        for future in waiting:
            future.cancel()
        for _ in range(threads):
            tasks.put(None)


def _serve(work: Callable[[_T], _R], tasks: _Tasks[_R, _T]) -> None:
    """A thread: do what comes until there is nothing more."""
    while (task := tasks.get()) is not None:
        future, thing = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(work(thing))
        except BaseException as error:
            future.set_exception(error)


def _awaited(future: Future[_R]) -> _R:
    while not future.done():
        wait((future,), PATIENCE)
    return future.result()
