"""What the user sees: errors in one line, progress on stderr, results on stdout.

Every line of a command goes through `say`, `result` or `fail`, and all of it through two `Outlet`s:
whatever the encoding of the terminal, whoever reads, the work goes on and nothing is raised.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType
from typing import Any, TextIO, final

from steerable.core.errors import UserError, visible

__all__ = [
    "Bar", "Outlet", "Stop", "duration", "fail", "holding", "outlets", "print_object", "result",
    "say", "say_alias", "whole_grid",
]  # fmt: skip

_GONE = {errno.EPIPE, errno.ESHUTDOWN, errno.EIO}  # the reader or the terminal has left

_held: ContextVar[list[Any] | None] = ContextVar("held", default=None)


def _lines(text: str) -> str:
    r"""The text with what would act on a terminal written out, as `\x1b`; newline and tab stay."""
    return re.sub(r"[^\n\t]+", lambda found: visible(found.group()), text)


@final
class Outlet(io.TextIOBase):
    """Standard output or error, made safe: takes any text, and outlives its reader.

    What the encoding lacks is written as an escape. Once nobody reads, or the stream was closed
    from the start, text is dropped and the command goes on. Any other fault is kept in `fault`.
    """

    def __init__(self, under: TextIO | None) -> None:
        self._under = under
        self.fault: OSError | None = None

    @property
    def encoding(self) -> str:
        return getattr(self._under, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._under is not None and self._under.isatty()

    def fileno(self) -> int:
        if self._under is None:
            raise io.UnsupportedOperation("closed")
        return self._under.fileno()

    def takes(self, text: str) -> bool:
        """Whether the encoding has all of these characters."""
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return False
        return True

    def write(self, text: str) -> int:
        if self._under is not None:
            known = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
            try:
                self._under.write(known)
            except (OSError, ValueError) as error:  # ValueError: closed
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if self._under is not None:
            try:
                self._under.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: OSError | ValueError) -> None:
        """Write no more, and give what waits in the buffer a place where it does no harm."""
        if isinstance(error, OSError) and error.errno not in _GONE:
            self.fault = error
        with suppress(OSError, ValueError):  # a stream without a descriptor keeps its buffer
            from steerable.jobs.durable import nowhere

            number, empty = self.fileno(), nowhere()
            os.dup2(empty, number)
            os.close(empty)
        self._under = None


def _fill_descriptors() -> None:
    """Open what was closed from the start, or the next file would get the number of stderr."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            from steerable.jobs.durable import nowhere

            nowhere()  # gets the lowest free number, which is this one


@contextmanager
def outlets() -> Iterator[tuple[Outlet, Outlet]]:
    """Standard output and error as outlets; they are flushed and put back at the end."""
    _fill_descriptors()
    before, made = (sys.stdout, sys.stderr), (Outlet(sys.stdout), Outlet(sys.stderr))
    sys.stdout, sys.stderr = made
    try:
        yield made
    finally:
        for outlet in made:
            outlet.flush()
        sys.stdout, sys.stderr = before


@contextmanager
def holding() -> Iterator[list[Any]]:
    """Results that are to be printed as JSON are held back, so that an error can join them."""
    held: list[Any] = []
    token = _held.set(held)
    try:
        yield held
    finally:
        _held.reset(token)


def say(text: str, *, end: str = "\n", start: str = "", to: TextIO | None = None) -> None:
    """Print text for people, on stderr by default; only `start` and `end` act on the terminal."""
    print(start + _lines(text), end=end, file=to or sys.stderr, flush=True)


def _finite(value: Any) -> Any:
    """Plain data with null for figures that are not finite, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def print_object(value: Any) -> None:
    """Print plain data as JSON in one line, which is JSON in every encoding."""
    stream = sys.stdout
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)
    if not (isinstance(stream, Outlet) and stream.takes(text)):
        text = json.dumps(_finite(value), allow_nan=False)
    if visible(text) != text:  # true to every name, but nothing in it steers a terminal
        text = "".join(c if visible(c) == c else json.dumps(c)[1:-1] for c in text)
    print(text, flush=True)


def fail(error: UserError, *, as_json: bool, found: Any = None) -> int:
    """Print a fault and return its exit code.

    Args:
        error: The fault.
        as_json: Whether to print an object too.
        found: A result that there is all the same; the object holds both.
    """
    say(f"error[{error.code}] " + " ".join(str(error).split()))
    if as_json:
        print_object({**(found if isinstance(found, dict) else {}), **error.record()})
    return error.exit_code


def result(value: Any, *, as_json: bool, lines: list[str]) -> None:
    """Print a result: one JSON object, at the end of the command, or lines for people."""
    held = _held.get()
    if not as_json:
        say("\n".join(lines), to=sys.stdout)
    elif held is None:
        print_object(value)
    else:
        held.append(value)


def whole_grid(left_out: int) -> list[str]:
    """The line that says how many pictures a grid does not show, none if it shows all."""
    return [f"the grid leaves out {left_out:,} pictures, which are files"] if left_out else []


def say_alias(sampler: str | None) -> None:
    """Say on stderr what another program's name of a sampler is here."""
    from steerable.recipes.aliases import resolve

    alias = resolve(sampler) if sampler is not None else None
    if alias is not None:
        say(f"sampler  '{sampler}' is {alias} here")


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
        plain = isinstance(sys.stderr, Outlet) and not sys.stderr.takes("━─")
        self._marks = "#-" if plain else "━─"
        self._last = -math.inf
        self._width = 0

    def show(self, share: float, text: str, *, last: bool = False) -> None:
        """Show the share done, 0 to 1, with a text."""
        now = time.monotonic()
        if not last and now - self._last < (0.2 if self.live else 10.0):
            return
        self._last = now
        if not self.live:
            say(f"{share:4.0%} {text}")
            return
        text = visible(" ".join(text.split("\n")))
        filled, (done, open_) = round(24 * min(1.0, share)), self._marks
        line = f"{done * filled}{open_ * (24 - filled)} {share:4.0%} {text}"
        line = line[: max(30, shutil.get_terminal_size().columns - 1)]  # one row, to draw over it
        say(line.ljust(self._width), start="\r", end="\n" if last else "")
        self._width = 0 if last else len(line)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.live and self._width:
            say(" " * self._width, start="\r", end="\r")
            self._width = 0
        say(text)


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
