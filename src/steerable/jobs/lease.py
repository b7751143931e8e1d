"""One process trains in a run folder: a lease that dies with its owner.

Two things stand together. The kernel's record lock on `lease.lock` decides who is first: it is
exclusive, ends with the process however that dies, and is not inherited by forked loader workers
that may outlive it. `lease.json` says who the owner is, for people and for disks whose locks lie.
It is read and written only under the lock, so of many takers of a stale lease one wins.

What this relies on: POSIX record locks that work between all processes that use the folder (local
disks; network disks with a lock service). Where they do not, two takers at the same moment may
both pass; then `beat` notices, at most one heartbeat later, that the lease names another owner.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from steerable.core.errors import UserError
from steerable.jobs import durable
from steerable.jobs.disk import fault, started

__all__ = ["Lease", "rewriting"]

WAIT = 5.0  # seconds for another command that rewrites the same model file
BEAT = 15.0  # seconds between two heartbeats on disk
STALE = 60.0  # seconds of silence after which a lease of another machine counts as dead
PATIENCE = 2.0  # seconds in which the winner of the lock must have written its name

_held: set[tuple[int, Path]] = set()  # a record lock does not exclude its own process


class Lease:
    """The right to write into a run folder, for the time of a `with` block.

    Args:
        run: Run folder.

    Attributes:
        previous: Pid of the dead owner whose lease was taken over, else None.

    Raises:
        UserError: E-LOCK on entering when another process holds it, and from `beat` when it was
            lost; E-DISK when the folder cannot be written.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.previous: int | None = None
        self._key = (0, run)
        self._lock: int | None = None
        self._card: dict[str, Any] = {}
        self._last = 0.0

    def __enter__(self) -> Lease:
        key = (os.getpid(), self.run.resolve())
        if key in _held:
            raise self._busy(key[0])
        lock = self.run / "lease.lock"
        if lock.is_dir() or lock.is_symlink():  # nobody can hold the lock of these
            durable.set_aside(lock)
        self._lock = self._wait_for_lock()
        try:
            card = self.run / "lease.json"
            if card.exists() and not card.is_file():
                durable.set_aside(card)
            owner = self._read()
            if owner is not None and _lives(owner):
                raise self._busy(owner["pid"])
            self.previous = None if owner is None else owner["pid"]
            self._card = {"pid": key[0], "started": started(key[0]), **_place()}
            self._write()
        except BaseException:
            durable.unlock(self._lock)
            raise
        self._key = key
        _held.add(key)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._key[0] != os.getpid():  # a forked child that unwinds: the lease is not its own
            return
        _held.discard(self._key)
        assert self._lock is not None, "entered"
        try:
            if self._is_ours():
                durable.disk.unlink(self.run / "lease.json")
        except OSError as failed:
            raise fault(failed, self.run / "lease.json", need=0, free=0, kept="") from failed
        finally:
            durable.unlock(self._lock)

    def beat(self) -> None:
        """Say that the owner lives; cheap, so call it once an iteration.

        Raises:
            UserError: E-LOCK when another process has taken the lease.
        """
        if time.monotonic() - self._last < BEAT:
            return
        if not self._is_ours():
            owner = self._read()
            raise self._busy(None if owner is None else owner["pid"])
        self._write()

    def _is_ours(self) -> bool:
        owner = self._read() or {}
        return {**owner, "heartbeat": 0} == {**self._card, "heartbeat": 0}

    def _write(self) -> None:
        self._last = time.monotonic()
        self._card["heartbeat"] = round(time.time(), 3)
        text = json.dumps(self._card, sort_keys=True)
        durable.write(self.run / "lease.json", f"{text}\n".encode())

    def _wait_for_lock(self) -> int:
        """The lock; while it is busy, wait only until its holder has written its name."""
        end = time.monotonic() + PATIENCE
        while True:
            lock = durable.lock(self.run / "lease.lock")
            if lock is not None:
                return lock
            owner = self._read()
            if owner is not None and _lives(owner):
                raise self._busy(owner["pid"])
            if time.monotonic() > end:
                raise self._busy(None if owner is None else owner["pid"])
            time.sleep(0.01)

    def _read(self) -> dict[str, Any] | None:
        """The lease on disk; None when there is none or a power cut left a torso."""
        try:
            card = json.loads((self.run / "lease.json").read_bytes())
        except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
            return None
        except OSError as error:
            raise fault(error, self.run / "lease.json", need=0, free=0, kept="") from error
        kinds = {"pid": int, "started": int, "boot": str, "space": str, "heartbeat": (int, float)}
        if not isinstance(card, dict):
            return None
        whole = all(isinstance(card.get(k), kind) for k, kind in kinds.items())
        # Numbers that no process and no clock ever had are a torso too.
        return card if whole and 0 < card["pid"] < 2**31 and abs(card["heartbeat"]) < 1e12 else None

    def _busy(self, pid: int | None) -> UserError:
        who = "another process" if pid is None else f"process {pid}"
        return UserError(
            "E-LOCK",
            where=f"run {self.run.name}",
            got=f"in use by {who}",
            takes="one process at a time",
            kept="everything, nothing was changed",
            do=f"wait until {who} ends or stop it, then start the same command again",
        )


@contextmanager
def rewriting(model: Path) -> Iterator[None]:
    """Hold a model file while it is read, changed and written: no one else's change is lost.

    In a run folder that is the lease of the run, so a training run that goes on is not disturbed.

    Raises:
        UserError: E-LOCK if another process holds it for longer than a rewrite takes.
    """
    run = model.parent
    in_run = model.name == "model.safetensors" and (run / "recipe.yaml").is_file()
    held = Lease(run) if in_run else _FileLock(model)
    end = time.monotonic() + WAIT
    while True:
        try:
            held.__enter__()
            break
        except UserError as error:
            if error.code != "E-LOCK" or time.monotonic() > end:
                raise
            time.sleep(0.05)
    try:
        yield
    finally:
        held.__exit__(None, None, None)


class _FileLock:
    """The kernel's lock beside a model file that lies in no run folder."""

    def __init__(self, model: Path) -> None:
        self.path = model.with_name(f".{model.name}.lock")
        self._key, self._lock = (os.getpid(), self.path.resolve()), None

    def __enter__(self) -> None:
        self._lock = None if self._key in _held else durable.lock(self.path)
        if self._lock is None:
            got, do = "another command rewrites it", "start the same command again"
            raise UserError("E-LOCK", where=self.path.name[1:-5], got=got, do=do)
        _held.add(self._key)

    def __exit__(self, *_: object) -> None:
        assert self._lock is not None, "entered"
        _held.discard(self._key)
        durable.unlock(self._lock)


def _place() -> dict[str, str]:
    """Where a pid has its meaning: this boot of this machine, and the pid namespace in it."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return {
        "boot": boot.read_text().strip() if boot.exists() else "",
        "space": str(space.readlink()) if space.is_symlink() else "",
    }


def _lives(owner: dict[str, Any]) -> bool:
    """Whether the owner of a lease may still be at work."""
    here = _place()
    if {key: owner[key] for key in here} == here:
        return started(owner["pid"]) == owner["started"]
    if owner["boot"] == here["boot"]:
        return False  # another container: one kernel holds both locks, and ours was granted
    # Another machine, or this one before its restart: only the heartbeat can tell.
    return abs(time.time() - owner["heartbeat"]) < STALE
