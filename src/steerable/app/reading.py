"""Reading data with progress on stderr: how much of it, how fast, and how long it will take."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

from .console import Bar, duration

if TYPE_CHECKING:
    from steerable.core.types import Splits
    from steerable.intake.reading import Reading
    from steerable.jobs.model import Model

__all__ = ["data_of", "read", "shown"]

QUIET = 0.5  # seconds that need no word


def shown(steps: Iterable[Reading]) -> Splits | None:
    """The data of the last step, with progress; an interruption leaves at once and says so."""
    bar, began = Bar(), time.monotonic()
    stage, start, spoken, last = "", began, False, None
    try:
        for step in steps:
            last, now = step.splits, time.monotonic()
            if step.stage != stage:
                stage, start = step.stage, now
            if now - began > QUIET:
                spoken = True
                bar.show(step.share, _text(step, now - start), last=last is not None)
    except (KeyboardInterrupt, SystemExit) as stop:
        bar.say("stopped while the data was read; nothing was written")
        _leave(stop.code if isinstance(stop, SystemExit) else 128 + signal.SIGINT)
    if spoken and last is None:
        bar.say("")
    return last


def _leave(code: object) -> NoReturn:
    """End the process here.

    Nothing is open that could be lost, and to take large libraries apart in good order takes a busy
    machine seconds.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def read(steps: Iterable[Reading]) -> Splits:
    """`shown`, where the data is there in the end."""
    splits = shown(steps)
    assert splits is not None, "the last step holds the data"
    return splits


def data_of(model: Model, data: str | None) -> Splits:
    """The data of a model, or DATA read with its options."""
    from steerable.jobs.data import reading_for

    return read(reading_for(model, data))


def _text(step: Reading, seconds: float) -> str:
    """`120 of 200 pictures, 85/s, 1 s left`."""
    count = (
        f"{step.done} of {step.total} {step.stage}" if step.total else f"{step.done} {step.stage}"
    )
    if not step.done or seconds <= 0:
        return count
    rate = step.done / seconds
    written = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
    if not step.total:
        return f"{count}, {written}/s"
    return f"{count}, {written}/s, {duration((step.total - step.done) / rate)} left"
