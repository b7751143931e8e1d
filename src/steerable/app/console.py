"""What the user sees: errors in one line, progress on stderr, results on stdout."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from steerable.core.errors import UserError, visible

__all__ = ["Bar", "Stop", "duration", "fail", "plain_json", "result", "say_alias", "whole_grid"]


def fail(error: UserError, *, as_json: bool) -> int:
    """Print a fault and return its exit code."""
    line = " ".join(str(error).split())
    print(f"error[{error.code}] {line}", file=sys.stderr)
    if as_json:
        print(plain_json(error.record()))
    return error.exit_code


def result(value: Any, *, as_json: bool, lines: list[str]) -> None:
    """Print a result: one JSON object, or lines for people."""
    if as_json:
        print(plain_json(value))
    else:
        print("\n".join(map(visible, lines)))


def plain_json(value: Any) -> str:
    """One JSON object in a line, true to every name; what could steer a terminal is escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if visible(text) == text:
        return text
    return "".join(c if visible(c) == c else json.dumps(c)[1:-1] for c in text)


def whole_grid(left_out: int) -> list[str]:
    """The line that says how many pictures a grid does not show, none if it shows all."""
    return [f"the grid leaves out {left_out:,} pictures, which are files"] if left_out else []


def say_alias(sampler: str | None) -> None:
    """Say on stderr what another program's name of a sampler is here."""
    from steerable.recipes.aliases import resolve

    alias = resolve(sampler) if sampler is not None else None
    if alias is not None:
        print(visible(f"sampler  '{sampler}' is {alias} here"), file=sys.stderr)


def duration(seconds: float) -> str:
    """A time in words: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Bar:
    """Progress on stderr: a line redrawn on a terminal, a plain line now and then elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self._last = 0.0
        self._width = 0

    def show(self, share: float, text: str, *, last: bool = False) -> None:
        """Show the share done, 0 to 1, with a text."""
        text = visible(text)
        now = time.monotonic()
        if not last and now - self._last < (0.2 if self.live else 10.0):
            return
        self._last = now
        if not self.live:
            print(f"{share:4.0%} {text}", file=sys.stderr, flush=True)
            return
        filled = round(24 * min(1.0, share))
        line = f"{'━' * filled}{'─' * (24 - filled)} {share:4.0%} {text}"
        print("\r" + line.ljust(self._width), end="\n" if last else "", file=sys.stderr, flush=True)
        self._width = 0 if last else len(line)

    def say(self, text: str) -> None:
        """A line of its own."""
        text = visible(text)
        if self.live and self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr)
            self._width = 0
        print(text, file=sys.stderr, flush=True)


STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # where the system has them


class Stop:
    """The signals that end a program as a flag, so that an iteration is finished and saved first.

    A second signal leaves at once; what was saved before stays consistent. A signal that whoever
    started the program had ignored, as nohup does with SIGHUP, stays ignored.
    """

    def __init__(self) -> None:
        self.code = 0
        self._old: dict[int, Any] = {}
        self._at_once = False

    def __enter__(self) -> Stop:
        for name in STOPPING:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While nothing is there to be saved, the first signal leaves at once."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.code or self._at_once:
            raise SystemExit(128 + number)
        self.code = 128 + number
