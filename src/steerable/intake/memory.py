"""How much memory a process may still take, so that what will not fit is refused before it is read.

A system that promises more than it has kills the process that believes it, without a word.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from steerable.core.errors import UserError

__all__ = ["available", "require", "written"]

RESERVE = 2**25  # bytes that decoding and bookkeeping take beside what is asked for
# Source: Linux, documentation of cgroup v1: "no limit" is the largest multiple of a page.
_NO_LIMIT = 2**60


def available() -> tuple[int, str] | None:
    """Bytes that may still be taken and what sets that limit; None where the system does not say.

    That is the least of the free memory of the machine, what the control groups of the process
    (containers) leave, and its own limits (`ulimit`).
    """
    found = [*_machine(), *_groups(), *_own_limits()]
    return min(found) if found else None


def require(need: int, *, where: str, what: str, do: str) -> None:
    """Refuse work that needs more memory than there is.

    Args:
        need: Bytes.
        where: The file or folder that is read.
        what: What needs them, for the message.
        do: What would help.

    Raises:
        UserError: E-MEM with both figures.
    """
    free = available()
    if free is None or need + RESERVE <= free[0]:
        return
    got = f"{what} need {written(need + RESERVE)} of memory, {written(free[0])} are free"
    got += f" ({free[1]})"
    raise UserError("E-MEM", where=where, got=got, kept="nothing was read", do=do)


def written(count: int) -> str:
    """A number of bytes for people."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if abs(count) >= size:
            return (
                f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count // size} {unit}"
            )
    return f"{count} bytes"


def _text(path: str | Path) -> str:
    """The content of a small file of the system, empty where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _machine() -> Iterator[tuple[int, str]]:
    """What the machine has left."""
    for line in _text("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield int(value.split()[0]) * 1024, "of the machine"
            return
    if sys.platform == "win32":
        yield _windows(), "of the machine"
        return
    # Elsewhere the free pages, or all of them where the system does not count the free ones.
    known = getattr(os, "sysconf_names", {})
    name = next((n for n in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES") if n in known), None)
    if name is not None:
        yield os.sysconf(name) * os.sysconf("SC_PAGE_SIZE"), "of the machine"


def _windows() -> int:
    """Free physical memory by GlobalMemoryStatusEx."""
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "a", "b", "c", "d", "e")),
        )

    status = Status(length=ctypes.sizeof(Status))
    getattr(ctypes, "windll").kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # noqa: B009
    return int(getattr(status, "free"))  # noqa: B009, fields of a structure are made at run time


def _groups() -> Iterator[tuple[int, str]]:
    """What the control groups of this process, and those above them, leave of their limits."""
    for line in _text("/proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if number == "0":
            root, limit, used, idle = "", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit = "memory", "memory.limit_in_bytes"
            used, idle = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        base = Path("/sys/fs/cgroup") / root
        # Inside a container the path may be that of the host; then the mount itself is the group.
        inner = base / place.strip("/")
        for folder in dict.fromkeys((inner, *inner.parents, base)):
            if folder != base and base not in folder.parents:
                continue
            most, now = _text(folder / limit).strip(), _text(folder / used).strip()
            if most.isdecimal() and now.isdecimal() and int(most) < _NO_LIMIT:
                # Pages of files that nobody maps are given up before anything is killed.
                rows = [row.split() for row in _text(folder / "memory.stat").splitlines()]
                spare = next((int(row[1]) for row in rows if row[:1] == [idle]), 0)
                yield max(0, int(most) - int(now) + spare), "limit of the container"


def _own_limits() -> Iterator[tuple[int, str]]:
    """What the limits of the process itself leave."""
    try:
        import resource
    except ImportError:  # Windows
        return
    pages = _text("/proc/self/statm").split()
    for name, place in (("RLIMIT_AS", 0), ("RLIMIT_DATA", 5)):
        limit = resource.getrlimit(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY:
            used = int(pages[place]) * resource.getpagesize() if len(pages) > place else 0
            yield max(0, limit - used), "limit of the process, see ulimit"
