"""Where results may be written: never over a file that is not a result of the same kind.

A folder of results carries a record, `.steerable.jsonl`: what was asked for, and every file that
was made with its SHA-256. By it a command knows its own files from all others, goes on where it was
stopped, and replaces what it has made before. Pages and other single files say in themselves what
made them. Everything is checked before the work begins, the place's lock and free space included.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steerable.core.errors import UserError

from . import durable
from .disk import fault

__all__ = ["Folder", "Place", "check_file", "claim"]

RECORD, LOCK = ".steerable.jsonl", ".steerable.lock"
# In every page that was ever written, at its top.
PAGE = (
    b'name="generator" content="steerable',
    b"<title>steerable: ",
    b"<title>A tour of diffusion",
)
MODELS = (".safetensors", ".onnx", ".pt", ".pth", ".ckpt", ".bin")  # never replaced by results
HEAD = 2_000_000  # bytes of a file in which a mark must stand
NAMED = 3  # files that a message names
LARGE = 20_000_000  # bytes kept free beside what is expected

_held: set[tuple[int, Path]] = set()  # a record lock does not exclude its own process


@dataclass(frozen=True)
class Place:
    """Where a user wants results.

    Args:
        out: The folder, or None for the next free `samples/NAME-NNN` of `base`.
        base: The run folder, or the current one.
        force: Whether other files may lie in `out`, and be replaced by results of the same name.
        inputs: Files and folders that the command reads, of which it replaces nothing.
        data: Folders of the data, in which nothing is ever written.
    """

    out: Path | None
    base: Path = Path()
    force: bool = False
    inputs: tuple[Path, ...] = ()
    data: tuple[Path, ...] = ()


@dataclass
class Folder:
    """A folder of results that this process holds, with the record of what it has made there.

    Use it as a context: at its end the place is free for others.

    Attributes:
        path: The folder.
        command: What makes the results.
        place: Where the user wanted them.
        request: SHA-256 of all that the results depend on.
        done: Files of this very request that are whole on disk, with their SHA-256, in order; that
            of a log, which grows, is empty.
        facts: What was recorded beside the files, such as calls of the network, in order.
    """

    path: Path
    command: str
    place: Place
    request: str
    done: dict[str, str] = field(default_factory=dict)
    facts: list[dict[str, Any]] = field(default_factory=list)
    _before: dict[str, str] = field(default_factory=dict)  # of an earlier request, to be replaced
    _fresh: bool = False  # whether the folder was made, or empty
    _lock: int | None = None
    _key: tuple[int, Path] = (0, Path())

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def write(self, files: Mapping[str, bytes], **facts: Any) -> None:
        """Record results, then write them durably: what is killed between is made again.

        Raises:
            UserError: E-DISK, or E-CONFIG if a file that is not ours has got that name meanwhile.
        """
        self._check(files)
        told = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        self._note({"files": told, **facts})
        durable.write_many(self.path, files)
        self.done |= told
        self.facts.append(facts)

    def append(self, name: str, lines: Sequence[str]) -> None:
        """Add lines to a log of the folder; one of an earlier request gives way to it.

        Raises:
            UserError: As `write`.
        """
        if name not in self.done:
            self._check([name])
            self._note({"files": {name: ""}})
            if _there(self.path / name):
                durable.disk.unlink(self.path / name)
            self.done[name] = ""
        durable.append(self.path / name, *lines)

    def finish(self) -> None:
        """Record that the request is done; what an earlier one has left over goes."""
        for name in self._before.keys() - self.done.keys():
            if _there(self.path / name):
                durable.disk.unlink(self.path / name)
        self._note({"finished": True})

    def release(self) -> None:
        """Free the place for others."""
        if self._lock is None:
            return
        if self._fresh and not self.done:  # nothing came of it: leave no trace
            (self.path / RECORD).unlink(missing_ok=True)
        (self.path / LOCK).unlink(missing_ok=True)
        if self._fresh and not self.done and not any(self.path.iterdir()):
            self.path.rmdir()
        _held.discard(self._key)
        durable.unlock(self._lock)
        self._lock = None

    def _note(self, line: Mapping[str, Any]) -> None:
        plain = json.dumps(line, sort_keys=True, ensure_ascii=False)
        durable.append(self.path / RECORD, plain)

    def _check(self, names: Iterable[str]) -> None:
        """Refuse to replace what is not ours."""
        ours = self._before.keys() | self.done.keys()
        others = [name for name in names if name not in ours and _there(self.path / name)]
        for name in others:
            _spare(self.path / name, self.place)
        if others and not self.place.force:
            raise _foreign(self.path, others)

    def _open(self, names: Iterable[str]) -> None:
        """Read the record: go on, or begin anew and replace what was made before.

        Raises:
            UserError: E-CONFIG for files that are not ours, or that were changed since.
        """
        head, *rest = _record(self.path) or [{}]
        made: dict[str, set[str]] = {}  # a name may have its old content still
        for line in rest:
            for name, digest in (*line.get("before", {}).items(), *line.get("files", {}).items()):
                made.setdefault(name, set()).add(digest)
        now = {n: "" if made[n] == {""} else _digest(self.path / n) for n in made}
        there = {name: digest for name, digest in now.items() if _there(self.path / name)}
        foreign = [n for n, digest in there.items() if digest not in made[n]]
        foreign += _others(self.path, made)
        if head and head.get("made_by") != f"steerable {self.command}":
            foreign += there
        if foreign and not self.place.force:
            raise _foreign(self.path, foreign)
        ours = {name: digest for name, digest in there.items() if name not in foreign}
        if _begun(self.path, self.request):
            durable.cut(self.path / RECORD, _sound)  # a torn line would spoil the next one
            new = {n: d for line in rest for n, d in line.get("files", {}).items()}
            self.done = {n: d for n, d in new.items() if ours.get(n) == d}
            self._before = {n: d for n, d in ours.items() if n not in self.done}
            self.facts = [{k: v for k, v in line.items() if k != "files"} for line in rest]
        else:
            self._before = ours
            lines = [{"made_by": f"steerable {self.command}", "request": self.request}]
            lines += [{"before": ours}] if ours else []
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            durable.write(self.path / RECORD, text.encode())
        self._check(names)


def claim(
    place: Place,
    command: str,
    name: str,
    request: Mapping[str, Any],
    *,
    names: Iterable[str] = (),
    need: int = 0,
) -> Folder:
    """Take the folder for the results of a command, before any work.

    Without `place.out` it is one that a stopped command of the same request has left, else a new
    one.

    Args:
        place: Where the user wants them.
        command: Such as `sample`.
        name: Of a default folder, such as `set`.
        request: All that the results depend on, as plain data.
        names: Files that will be written.
        need: Bytes that they will take, about.

    Raises:
        UserError: E-CONFIG for a place with other files, E-LOCK for one that another process writes
            to, E-DISK for one that cannot be written to or is too small.
    """
    text = json.dumps(request, sort_keys=True, ensure_ascii=False, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    if place.out is None:
        folder = _next(place, command, name, digest)
    else:
        folder = Folder(place.out, command, place, digest)
        _outside_data(place.out, place)
        _take(folder)
    try:
        durable.require(folder.path / RECORD, need + LARGE)
        folder._open(names)
    except BaseException:
        folder.release()
        raise
    return folder


def check_file(path: Path, place: Place, *, marks: Sequence[bytes] = PAGE, need: int = 0) -> None:
    """Check, before any work, that a single result may be written, and make its folder.

    Args:
        path: The file.
        place: What else is known of the command; its `out` is not looked at.
        marks: What stands in a file of that kind that we have written, which may be replaced.
        need: Bytes that it will take, about.

    Raises:
        UserError: E-CONFIG for a file that is not ours, E-DISK for a folder that cannot be written
            to or is full.
    """
    if not path.name or path.is_dir():
        raise UserError("E-CONFIG", where="out", got=f"{path}, a folder", takes="a file")
    if marks is PAGE and path.suffix.lower() not in (".html", ".htm"):
        raise UserError("E-CONFIG", where="out", got=path.name, takes="a page: NAME.html")
    _outside_data(path, place)
    if _there(path):
        ours = _marked(path, marks)
        _spare(path, place, ours=ours)
        if not ours and not place.force:
            raise _foreign(path.parent, [path.name])
    durable.folder(path.parent)
    durable.probe(path)
    durable.require(path, need + LARGE)


def _marked(path: Path, marks: Sequence[bytes]) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(HEAD)
    return any(mark in head for mark in marks)


def _there(path: Path) -> bool:
    return os.path.lexists(path)


def _spare(path: Path, place: Place, *, ours: bool = False) -> None:
    """Refuse to replace an input of the command, a model or a file of a run, whatever is forced.

    Raises:
        UserError: E-CONFIG.
    """
    got = ""
    if any(_read_by(path, given) for given in place.inputs):
        got = "an input of this command"
    elif path.is_symlink() or not path.is_file():
        got = "no regular file"
    elif not ours and path.suffix.lower() in MODELS:
        got = "a model file"
    elif not ours and (path.parent / "recipe.yaml").is_file():
        got = "a file of a run"
    if got:
        do = "choose another place"
        raise UserError("E-CONFIG", where=f"--out {path}", got=got, kept="the file", do=do)


def _read_by(path: Path, given: Path) -> bool:
    """Whether a file is an input, by whatever name, or lies in a folder of inputs."""
    if not path.exists() or not given.exists():
        return False
    return path.samefile(given) or (
        given.is_dir() and path.resolve().is_relative_to(given.resolve())
    )


def _foreign(folder: Path, names: Sequence[str]) -> UserError:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return UserError(
        "E-CONFIG",
        where=f"--out {folder}",
        got=f"holds what this command has not made: {', '.join(names[:NAMED])}{more}",
        takes="a new or an empty folder, or one with its own results",
        kept="every file there",
        do="choose another place, or --force to write there all the same",
    )


def _outside_data(path: Path, place: Place) -> None:
    """Refuse a place among the pictures of the data: what is written there would become data.

    Raises:
        UserError: E-CONFIG.
    """
    for data in place.data:
        if data.is_dir() and path.resolve().is_relative_to(data.resolve()):
            got, do = "a place inside the data", "choose one outside of it"
            raise UserError("E-CONFIG", where=f"--out {path}", got=got, kept="the data", do=do)


def _next(place: Place, command: str, name: str, digest: str) -> Folder:
    """The default folder: one that was begun for the same request, else the next free one."""
    base, number = place.base / "samples", 1
    durable.folder(base)
    while True:
        path = base / f"{name}-{number:03d}"
        folder = Folder(path, command, place, digest)
        try:
            durable.disk.mkdir(path)  # of two commands one makes it
        except FileExistsError:
            if path.is_dir() and _begun(path, digest):
                try:
                    _take(folder)
                except UserError as error:
                    if error.code != "E-LOCK":
                        raise
                else:
                    return folder
            number += 1
            continue
        except OSError as error:
            raise fault(error, path, need=0, free=0, kept="") from error
        _take(folder)
        return folder


def _begun(path: Path, digest: str) -> bool:
    """Whether a folder was begun for that request and not finished."""
    head, *rest = _record(path) or [{}]
    return head.get("request") == digest and not any("finished" in line for line in rest)


def _take(folder: Folder) -> None:
    """Make the folder and take its lock.

    Raises:
        UserError: E-CONFIG where something else is in the way, E-LOCK, E-DISK.
    """
    path = folder.path
    if _there(path) and not path.is_dir():
        takes = "a folder, or a name that is free"
        raise UserError("E-CONFIG", where="out", got=f"{path.name}, a file", takes=takes)
    if path.is_dir() and not _record(path) and not folder.place.force:
        foreign = _others(path, ())
        if foreign:  # before even a lock is put there
            raise _foreign(path, foreign)
    durable.folder(path)
    folder._fresh = not any(path.iterdir())
    key = (os.getpid(), path.resolve())
    lock = None if key in _held else _locked(path / LOCK)
    if lock is None:
        do = "wait until it ends, or choose another place"
        got = "another command writes its results there"
        raise UserError("E-LOCK", where=str(path), got=got, kept="its results", do=do)
    folder._lock, folder._key = lock, key
    _held.add(key)
    durable.sweep(path)


def _locked(path: Path) -> int | None:
    """The lock of a file that its last holder may be about to remove; None while it is held."""
    while True:
        lock = durable.lock(path)
        if lock is None:
            return None
        if path.exists() and os.path.samestat(path.stat(), os.fstat(lock)):
            return lock
        durable.unlock(lock)  # of a file that has lost its name meanwhile


def _others(path: Path, made: Iterable[str]) -> list[str]:
    """Names in a folder that are not in the record, sorted."""
    own = {RECORD, LOCK, *made}
    names = sorted(entry.name for entry in os.scandir(path))
    return [name for name in names if name not in own and not durable.is_temporary(name)]


def _digest(path: Path) -> str:
    if not path.is_file() or path.is_symlink():
        return "not a file"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record(path: Path) -> list[dict[str, Any]]:
    """The lines of the record; a torn last one, or what is no record of ours, does not count."""
    file = path / RECORD
    if not file.is_file() or file.is_symlink():
        return []
    lines = [json.loads(line) for line in file.read_bytes().splitlines() if _sound(line)]
    return lines if lines and "made_by" in lines[0] else []


def _sound(line: str | bytes) -> bool:
    """Whether a line of a record is whole."""
    try:
        plain = json.loads(line)
    except (ValueError, RecursionError):
        return False
    tables = ("files", "before")
    return isinstance(plain, dict) and all(isinstance(plain.get(k, {}), dict) for k in tables)
