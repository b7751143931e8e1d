"""Durable writes: the only module that opens a state file for writing.

After a kill or a power cut a name on disk holds the old bytes or the new ones, never a mixture and
never nothing. New bytes go to a temporary name in the same folder, are synced, get their name by
one rename, and the folder is synced. A temporary carries the pid and the start time of its owner,
so that `sweep` can tell the leftovers of dead processes from the work of living ones.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from steerable.jobs.disk import FULL, PASSING, Disk, fault, started

__all__ = [
    "append",
    "counted",
    "cut",
    "disk",
    "folder",
    "free_name",
    "is_temporary",
    "nowhere",
    "lock",
    "probe",
    "publish",
    "remove",
    "rename",
    "require",
    "set_aside",
    "sweep",
    "tally",
    "unlock",
    "write",
    "write_many",
]

SYNCS = 16  # files that are synced at a time: a journal takes them in a few commits
BACKOFF = (0.05, 0.2, 0.8)  # seconds before the retries

_T = TypeVar("_T")
_PLAIN = os.O_CLOEXEC | os.O_NOFOLLOW
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<kind>tmp|old)-(?P<pid>\d+)-(?P<start>\d+)-\d+")
_counter = itertools.count()

tally: Counter[str] = Counter()  # what the summary of a run prints: retried, swept, undeleted


disk = Disk()  # a test puts a recording or failing system here


def write(path: Path, data: bytes, *, kept: str = "") -> None:
    """Give `path` the content `data`, durably; the old content stays until the new is safe.

    Raises:
        UserError: E-DISK, with `kept` or the name of the old file as what is safe.
    """

    def once() -> None:
        fresh = _beside(path, "tmp")
        try:
            _create(fresh, data)
            disk.rename(fresh, path)
        except OSError as error:
            _discard(fresh, error)
            raise
        _sync(path.parent)

    if not kept and path.exists():
        kept = f"the previous {path.name}"
    _attempt(once, path, need=len(data), kept=kept)


def write_many(directory: Path, files: Mapping[str, bytes]) -> None:
    """Give files of one folder their content, durably and together: faster than one by one.

    All are written before any is synced, and they are synced side by side, so that the disk orders
    them; each still gets its name whole or not at all.

    Raises:
        UserError: E-DISK; what had its name before keeps its old content or has the new one.
    """
    assert all(Path(name).name == name for name in files), "files of one flat folder"

    def once() -> None:
        fresh = {name: _beside(directory / name, "tmp") for name in files}
        open_files: list[int] = []
        try:
            for name, data in files.items():
                open_files.append(_filled(fresh[name], data))
            with ThreadPoolExecutor(SYNCS) as pool:
                list(pool.map(disk.fsync, open_files))
            while open_files:
                disk.close(open_files.pop())
            for name, path in fresh.items():
                disk.rename(path, directory / name)
        except OSError as error:
            for fd in open_files:
                disk.close(fd)
            for path in fresh.values():
                _discard(path, error)
            raise
        _sync(directory)

    _attempt(once, directory, need=sum(map(len, files.values())), kept="the files before")


def append(path: Path, *lines: str) -> None:
    """Add lines to a log by one write without a sync: a log may lose its end in a power cut.

    Raises:
        UserError: E-DISK; nothing of them is left in the file. Callers count it and go on.
    """
    assert not any("\n" in line for line in lines), "a log holds one record a line"
    data = memoryview("".join(f"{line}\n" for line in lines).encode())

    def once() -> None:
        fd = disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _PLAIN)
        try:
            before = os.fstat(fd).st_size
            if disk.write(fd, data) != len(data):  # the disk got full in the middle of the line
                disk.truncate(fd, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            disk.close(fd)

    _attempt(once, path, need=len(data), kept="the lines before")


def nowhere() -> int:
    """A descriptor of the device that takes all and gives nothing."""
    return os.open(os.devnull, os.O_RDWR)


def publish(directory: Path, files: Mapping[str, bytes | memoryview], *, kept: str = "") -> None:
    """Make a folder of complete files appear at once; one of the same name is replaced.

    A crash between the two renames of a replacement leaves the old folder under a name from which
    `sweep` restores it.

    Raises:
        UserError: E-DISK; nothing is left of the attempt.
    """
    assert files and all(Path(name).name == name for name in files), "files of one flat folder"

    def once() -> None:
        fresh, old = _beside(directory, "tmp"), None
        try:
            disk.mkdir(fresh)
            for name, data in files.items():
                _create(fresh / name, data)
            _sync(fresh)
            if os.path.lexists(directory):
                old = _beside(directory, "old")
                disk.rename(directory, old)
            disk.rename(fresh, directory)
        except OSError as error:
            if old is not None and os.path.lexists(old) and not os.path.lexists(directory):
                disk.rename(old, directory)
            _discard(fresh, error)
            raise
        _sync(directory.parent)  # before the old files go, or a power cut could bring back a torso
        if old is not None:
            _erase(old)

    _attempt(once, directory, need=sum(map(len, files.values())), kept=kept)


def remove(directory: Path) -> None:
    """Delete a folder: it loses its name first, so that it is never seen half deleted."""
    aside = _beside(directory, "tmp")

    def hide() -> None:
        if not os.path.lexists(aside):  # else only the sync is to be repeated
            disk.rename(directory, aside)
        _sync(directory.parent)

    _attempt(hide, directory, kept="everything else")
    _attempt(lambda: _erase(aside), directory, kept="everything else")


def rename(path: Path, target: Path) -> None:
    """Give a file or a folder another name in the same folder, durably.

    Raises:
        UserError: E-DISK; it has the old name or the new one.
    """

    def once() -> None:
        if os.path.lexists(path):  # else only the sync is to be repeated
            disk.rename(path, target)
        _sync(path.parent)

    _attempt(once, path, kept="the file as it is")


def free_name(path: Path) -> Path:
    """The path, or if something lies there the first of NAME-2, NAME-3, ... that is free."""
    for number in itertools.count(2):
        if not os.path.lexists(path):
            return path
        stem = path.stem if number == 2 else path.stem.rpartition("-")[0]
        path = path.with_name(f"{stem}-{number}{path.suffix}")
    raise AssertionError("unreachable: the numbers do not end")


def set_aside(path: Path) -> Path:
    """Rename what is damaged to NAME.damaged-1, or the next number that is free, and count it.

    Call it under the lease. Returns the new path.

    Raises:
        UserError: E-DISK if the folder cannot be changed.
    """
    numbers = itertools.count(1)
    aside = next(
        other
        for number in numbers
        if not os.path.lexists(other := path.with_name(f"{path.name}.damaged-{number}"))
    )
    rename(path, aside)
    tally[f"damaged {path.name} set aside as {aside.name}"] += 1
    return aside


def folder(path: Path) -> None:
    """Make a folder and its missing parents, durably; one that exists is fine."""

    def once() -> None:
        missing = [part for part in (path, *path.parents) if not part.exists()]
        for part in reversed(missing):
            with suppress(FileExistsError):  # another process was first
                disk.mkdir(part)
        # The parent is synced even if the folder was there: its maker may have died before that.
        for parent in dict.fromkeys(part.parent for part in (*reversed(missing), path)):
            _sync(parent)

    _attempt(once, path)


def sweep(directory: Path) -> int:
    """Remove the temporaries of dead owners below `directory`; call it under the lease.

    Returns:
        Number of leftovers that were removed or, for a replaced folder, restored.
    """
    count = _attempt(lambda: _sweep(directory), directory)
    tally["swept"] += count
    return count


def cut(path: Path, keep: Callable[[str], bool]) -> int:
    """Rewrite a log with only the complete lines that `keep` accepts.

    A torn last line and lines that are not text are dropped: a kill or a power cut made them.

    Returns:
        Number of dropped lines.
    """
    if not os.path.lexists(path):
        return 0
    lines = _attempt(path.read_bytes, path).splitlines(keepends=True)
    kept = [line for line in lines if line.endswith(b"\n") and _accepted(line, keep)]
    if len(kept) < len(lines):
        write(path, b"".join(kept))
    return len(lines) - len(kept)


def counted() -> list[str]:
    """What was counted so far in one line for people; none if there was nothing."""
    odd = [f"{count} {name}" for name, count in tally.items() if count]
    return ["warning  " + ", ".join(odd)] if odd else []


def require(path: Path, need: int) -> None:
    """Refuse to start when fewer than `need` bytes are free beside `path`."""
    free = _attempt(lambda: disk.free(path), path)
    if free < need:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise fault(full, path, need=need, free=free, kept="nothing was started")


def probe(path: Path) -> None:
    """Check that a file could be written at `path`, by writing an empty one beside it.

    Raises:
        UserError: E-DISK.
    """

    def once() -> None:
        fresh = _beside(path, "tmp")
        _create(fresh, b"")
        disk.unlink(fresh)

    _attempt(once, path)


def lock(path: Path) -> int | None:
    """Take the kernel's lock of a file, which ends with the process: a descriptor, None if busy."""

    def once() -> int | None:
        fd = disk.open(path, os.O_RDWR | os.O_CREAT | _PLAIN)
        try:
            disk.lock(fd)
        except OSError as error:
            disk.close(fd)
            if error.errno in {errno.EACCES, errno.EAGAIN}:
                return None
            raise
        return fd

    return _attempt(once, path)


def unlock(fd: int) -> None:
    """Give a lock back."""
    disk.close(fd)


def is_temporary(name: str) -> bool:
    """Whether a file has the name of one that is or was being written."""
    return _TEMPORARY.fullmatch(name) is not None


def _beside(path: Path, kind: str) -> Path:
    pid = os.getpid()
    owner = f"{pid}-{started(pid)}-{next(_counter)}"
    return path.with_name(f".{path.name}.{kind}-{owner}")


def _create(path: Path, data: bytes | memoryview) -> None:
    fd = _filled(path, data)
    try:
        disk.fsync(fd)
    finally:
        disk.close(fd)


def _filled(path: Path, data: bytes | memoryview) -> int:
    """A descriptor of a new file with that content, which is not synced yet."""
    fd = disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[disk.write(fd, rest) :]
    except OSError:
        disk.close(fd)
        raise
    return fd


def _sync(directory: Path) -> None:
    fd = disk.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        disk.fsync(fd)
    finally:
        disk.close(fd)


def _accepted(line: bytes, keep: Callable[[str], bool]) -> bool:
    try:
        return keep(line[:-1].decode())
    except UnicodeDecodeError:
        return False


def _erase(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            _erase(child)
        disk.rmdir(path)
    else:
        disk.unlink(path)


def _discard(path: Path, error: OSError) -> None:
    """Remove a temporary after `error`; if that fails too, the message of `error` says so."""
    try:
        _erase(path)
    except FileNotFoundError:
        return
    except OSError as second:
        error.add_note(f"{path.name} could not be removed: {second.strerror}")


def _sweep(directory: Path) -> int:
    count = 0
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        match = _TEMPORARY.fullmatch(path.name)
        if match is None:
            count += _sweep(path) if path.is_dir() and not path.is_symlink() else 0
        elif started(int(match["pid"])) != int(match["start"]):
            final_name = directory / match["name"]
            if match["kind"] == "old" and not os.path.lexists(final_name):
                disk.rename(path, final_name)
                _sync(directory)
            else:
                _erase(path)
            count += 1
    return count


def _attempt(work: Callable[[], _T], path: Path, *, need: int = 0, kept: str = "") -> _T:
    """Do `work`, again after a pause where the fault may pass; OSError becomes E-DISK."""
    for pause in (*BACKOFF, None):
        try:
            return work()
        except OSError as error:
            if pause is None or error.errno not in PASSING:
                free = disk.free(path) if error.errno in FULL else 0
                raise fault(error, path, need=need, free=free, kept=kept) from error
        tally["retried"] += 1
        disk.sleep(pause)
    raise AssertionError("unreachable: the last attempt returns or raises")
