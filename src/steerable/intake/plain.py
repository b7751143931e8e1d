"""Opening what is a plain file, and nothing that would wait for ever or act on being opened."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["OddFileError", "plain_bytes", "plain_file"]


class OddFileError(OSError):
    """Something that has the name of a file and is none."""


def _plain(mode: int) -> None:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    for test, name in kinds:
        if test(mode):
            raise OddFileError(errno.EINVAL, f"{name}, not a file")
    if not stat.S_ISREG(mode):
        raise OddFileError(errno.EINVAL, "a device, not a file")


@contextmanager
def plain_file(path: Path) -> Iterator[BinaryIO]:
    """Open a plain file only: a pipe would wait for ever, a device may act on being opened.

    Raises:
        OSError: There is no such file, or it is something else; `strerror` says what in words.
    """
    _plain(path.stat().st_mode)
    # The file may have been swapped since; NONBLOCK keeps even then a pipe from waiting.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        _plain(os.fstat(handle).st_mode)
        yield file


def plain_bytes(path: Path) -> bytes:
    """The content of a plain file.

    Raises:
        OSError: As `plain_file`.
    """
    with plain_file(path) as file:
        return file.read()
