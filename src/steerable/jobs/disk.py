"""The operating system as durable writes see it: calls, their errors, and who is alive."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import final

from steerable.core.errors import UserError

__all__ = ["FULL", "PASSING", "Disk", "fault", "started"]

FULL = {errno.ENOSPC, errno.EDQUOT}
PASSING = {*FULL, errno.EIO}  # faults that may pass by themselves


@final
class Disk:
    """The calls to the operating system that change a disk, one method each."""

    def open(self, path: Path, flags: int) -> int:
        """A descriptor; a new file gets mode 0666 less the umask of the process, by the kernel."""
        return os.open(path, flags, 0o666)

    def write(self, fd: int, data: memoryview) -> int:
        return os.write(fd, data)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def mkdir(self, path: Path) -> None:
        path.mkdir()

    def unlink(self, path: Path) -> None:
        path.unlink()

    def rmdir(self, path: Path) -> None:
        path.rmdir()

    def lock(self, fd: int) -> None:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def free(self, path: Path) -> int:
        """Bytes that this user may still write beside `path`."""
        space = os.statvfs(path.parent)
        return space.f_bavail * space.f_frsize

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def fault(error: OSError, path: Path, *, need: int, free: int, kept: str) -> UserError:
    """E-DISK in plain words: no absolute path, the sizes when the disk is full, what to do."""
    got = "; ".join([error.strerror or str(error), *getattr(error, "__notes__", [])])
    do = "check that the folder exists and may be written, then start the same command again"
    if error.errno in PASSING:
        do = "check the disk, then start the same command again"
    if error.errno in FULL:
        got += f": needs {need} bytes, free {free}"
        do = "free space, then start the same command again"
    return UserError("E-DISK", where=path.name, got=got, kept=kept, do=do)


def started(pid: int) -> int | None:
    """Start of a living process in ticks since boot, which tells a reused pid; None if dead."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _answers(pid)
    fields = text.rpartition(b")")[2].split()  # the name in brackets may hold anything
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def _answers(pid: int) -> int | None:
    """`started` where there is no /proc: all living processes count as the same."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0
    return 0
