"""Pictures as they were read, kept from one command to the next.

An entry is a folder that is named after all that it was made from: the version of the reader, the
settings, and every file with its size and its times. So no entry is ever out of date; it can only
be damaged, which is noticed, counted and put right. A cache never stops a command: what cannot be
read or kept is read from the files themselves, with a RuntimeWarning.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import time
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.types import Dataset, Splits
from steerable.intake import memory
from steerable.intake.plain import plain_bytes, plain_file
from steerable.intake.reading import Reading
from steerable.recipes.part import Part

from . import durable
from .model import spec_of, spec_plain

__all__ = ["BOUND", "Key", "keep", "key_of", "recalled"]

BOUND = 4 * 2**30  # bytes of the cache; beyond it, what was longest not used goes
SHARE = 4  # an entry takes at most this part of it
PIECE = 2**25  # bytes of a file; between two of them an interruption takes effect
CHUNK = 2**22  # bytes that are read and hashed at a time
TICK = 20_000_000  # ns between two times that a disk tells apart
SECOND = 1_000_000_000
# Such faults may be gone the next time, though no file has changed.
PASSING = ("cannot be opened", "too large for the memory", "a folder, ")
KINDS = {"uint8": torch.uint8, "int64": torch.int64, "float32": torch.float32}
_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Key:
    """What an entry is made from.

    Attributes:
        path: The folder, or the one file of many pictures.
        name: Of the entry: SHA-256 over everything but the content of files.
        files: SHA-256 over the names, sizes and times of the files alone.
        newest: When a file was last changed, in ns.
        whole: Whether all times are whole seconds, as some disks have them.
    """

    path: Path
    name: str
    files: str
    newest: int
    whole: bool


def key_of(part: Part, reader: int) -> Generator[Reading, None, Key | None]:
    """The key of a data part with the option `path`; None if its files cannot be listed.

    Args:
        part: The data part with all of its options.
        reader: Version of what is made of the files.
    """
    import PIL

    root = Path(str(part.options["path"])).expanduser()
    listed = yield from _listed(root)
    if listed is None:
        return None
    told = {**part.flat(), "path": str(root.resolve())}
    facts = [reader, PIL.__version__, np.__version__, json.dumps(told), listed.files]
    return replace(listed, name=hashlib.sha256(json.dumps(facts).encode()).hexdigest())


def _listed(root: Path) -> Generator[Reading, None, Key | None]:
    """A key without its name."""
    digest, newest, whole, count, now = hashlib.sha256(), 0, True, 0, time.time_ns()
    try:
        for name, status in _walk(root):
            facts: list[Any] = [name]
            if isinstance(status, os.stat_result):
                times = (status.st_mtime_ns, status.st_ctime_ns)
                facts += [status.st_mode, status.st_size, *times]
                newest = max(newest, *(t for t in (*times, 0) if t <= now))
                whole = whole and all(t % SECOND == 0 for t in times)
            else:
                facts.append(status)
            digest.update(json.dumps(facts).encode() + b"\n")
            count += 1
            if count % 1000 == 0:
                yield Reading("files", count, 0)
    except OSError:
        return None
    return Key(root, "", digest.hexdigest(), newest, whole)


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result | str]]:
    """Everything at and below a path, with links followed, each folder once."""
    status = root.stat()
    yield "", status
    seen, waiting = {(status.st_dev, status.st_ino)}, [""] if root.is_dir() else []
    while waiting:
        prefix = waiting.pop()
        try:
            with os.scandir(root / prefix) as content:
                entries = sorted(content, key=lambda entry: entry.name)
        except OSError as error:
            yield prefix, str(error.errno)
            continue
        for entry in entries:
            name = f"{prefix}/{entry.name}" if prefix else entry.name
            try:
                status = entry.stat()
            except OSError as error:  # a link to nothing, or round in a circle
                yield name, str(error.errno)
                continue
            if not stat.S_ISDIR(status.st_mode):
                yield name, status
                continue
            # The times of a folder change with files that the reader passes over.
            yield name, "folder"
            identity = (status.st_dev, status.st_ino)
            if identity not in seen:
                seen.add(identity)
                waiting.append(name)


def _content(path: Path) -> Generator[Reading, None, str]:
    """SHA-256 of one file of many pictures; empty for a folder, whose files tell by their times."""
    total = hashlib.sha256()
    if not path.is_file():
        return ""
    size, done = path.stat().st_size, 0
    with plain_file(path) as file:
        while data := file.read(CHUNK):
            total.update(data)
            done += len(data)
            yield Reading("MB of the file", done // 10**6, size // 10**6)
    return total.hexdigest()


def recalled(folder: Path, key: Key) -> Generator[Reading, None, Splits | None]:
    """The data of an entry; None without the entry, and with a warning where it is damaged.

    Raises:
        UserError: E-MEM if the data does not fit.
    """
    entry = folder / key.name
    if not (entry / "about.json").exists():
        return None
    try:
        about = _about(entry)
        if about["content"] != (yield from _content(key.path)):
            return None  # another file of the same size and times
        splits = yield from _opened(key, entry, about)
        os.utime(entry / "about.json")  # so that what is used stays
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        if not (entry / "about.json").exists():
            return None  # another process has just removed it, or puts a new one there
        durable.tally["damaged kept pictures"] += 1
        text = getattr(error, "strerror", None) or str(error)
        _warn(f"kept pictures {key.name[:12]}… are damaged, read anew: {text}")
        return None
    return splits


def _about(entry: Path) -> dict[str, Any]:
    """What an entry says of itself.

    Raises:
        ValueError: It is not what was written.
    """
    told, _, text = plain_bytes(entry / "about.json").partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != told:
        raise ValueError("about.json is not what was written")
    return json.loads(text)


def _opened(key: Key, entry: Path, about: Mapping[str, Any]) -> Generator[Reading, None, Splits]:
    """The data of an entry, whose every byte is held against its hash."""
    sizes = [math.prod(a["shape"]) * KINDS[a["dtype"]].itemsize for a in about["arrays"]]
    n = len(about["names"]["train"]) + len(about["names"]["held_out"])
    do = "--set data.size=32 or another smaller size, or fewer pictures"
    memory.require(sum(sizes), where=str(key.path), what=f"{n} pictures", do=do)
    arrays, done = {}, 0
    for array, size in zip(about["arrays"], sizes, strict=True):
        data = np.empty(size, np.uint8)
        at = 0
        for piece in array["pieces"]:
            view = memoryview(data)[at : at + piece["size"]]
            _read_piece(entry / piece["file"], view, piece["sha256"])
            at, done = at + piece["size"], done + piece["size"]
            yield Reading("pictures", n * done // max(1, sum(sizes)), n)
        if at != size:
            raise ValueError("an array without all of its pieces")
        whole = torch.from_numpy(data).view(KINDS[array["dtype"]])
        arrays[array["part"], array["name"]] = whole.reshape(array["shape"])
    spec = spec_of(about["spec"])

    def part(name: str) -> Dataset:
        cond = {key: value for (of, key), value in arrays.items() if of == name and key}
        return Dataset(spec, arrays[name, ""], cond, tuple(about["names"][name]))

    return Splits(part("train"), part("held_out"), about["report"])


def _read_piece(path: Path, view: memoryview, sha256: str) -> None:
    """Read a file into memory that waits for it.

    Raises:
        ValueError: It is not what was written.
    """
    with plain_file(path) as file:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if count != len(view) or file.read(1) or hashlib.sha256(view).hexdigest() != sha256:
            raise ValueError(f"{path.name} is not what was written")


def keep(folder: Path, key: Key, splits: Splits) -> Iterator[Reading]:
    """Keep data under its key, unless its files have changed since the key was made.

    One file that is hardly larger than its pictures in memory is not kept: a copy would be read no
    faster.
    """
    size = len(splits.train.x) + len(splits.held_out.x)
    size *= math.prod(splits.train.spec.shape)
    if key.path.is_file() and 2 * size > key.path.stat().st_size:
        return
    try:
        content = yield from _content(key.path)
        now = yield from _listed(key.path)
    except OSError:
        return
    tick = 2 * SECOND if key.whole else TICK
    changed = now is None or now.files != key.files or time.time_ns() - key.newest < tick
    passing = any(row["reason"].startswith(PASSING) for row in splits.report.get("bad", ()))
    if changed or passing:
        return
    arrays, files = _packed(splits)
    about = {
        "content": content,
        "arrays": arrays,
        "names": {"train": splits.train.names, "held_out": splits.held_out.names},
        "spec": spec_plain(splits.train.spec),
        "report": dict(splits.report),
    }
    text = json.dumps(about, allow_nan=False).encode()
    files["about.json"] = hashlib.sha256(text).hexdigest().encode() + b"\n" + text
    need = sum(map(len, files.values()))
    if need * SHARE > BOUND:
        most = memory.written(BOUND // SHARE)
        _warn(f"pictures are not kept: {memory.written(need)}, the cache takes up to {most} each")
        return
    try:
        durable.folder(folder)
        durable.publish(folder / key.name, files)
        _shrink(folder, spared=key.name)
    except (UserError, OSError) as error:
        if not (folder / key.name / "about.json").is_file():  # else another process was first
            text = error.got if isinstance(error, UserError) else str(error.strerror)
            _warn(f"pictures are not kept for the next command, in {folder}: {text}")


def _packed(splits: Splits) -> tuple[list[dict[str, Any]], dict[str, bytes | memoryview]]:
    """What is said of every array, and its bytes in pieces, without a copy."""
    told, files = [], {}
    for name in ("train", "held_out"):
        data: Dataset = getattr(splits, name)
        arrays: Mapping[str, Tensor] = {"": data.x, **data.cond}
        for key, value in arrays.items():
            kind = str(value.dtype).removeprefix("torch.")
            view = memoryview(value.contiguous().numpy().reshape(-1).view(np.uint8))
            pieces = []
            for at in range(0, len(view), PIECE):
                piece, file = view[at : at + PIECE], f"{len(files):06}.bin"
                digest = hashlib.sha256(piece).hexdigest()
                pieces.append({"file": file, "size": len(piece), "sha256": digest})
                files[file] = piece
            row = {"part": name, "name": key, "dtype": kind, "shape": list(value.shape)}
            told.append({**row, "pieces": pieces})
    return told, files


def _shrink(folder: Path, spared: str) -> None:
    """Remove what was longest not used until the folder is within its bound."""
    durable.sweep(folder)
    entries = []
    for path in folder.iterdir():
        if _NAME.fullmatch(path.name):
            with suppress(OSError):  # another process has removed it
                size = sum(file.stat().st_size for file in path.iterdir())
                used = (path / "about.json").stat().st_mtime_ns
                entries.append((path.name == spared, used, size, path))
    total = sum(size for _, _, size, _ in entries)
    for own, _, size, path in sorted(entries):
        if own or total <= BOUND:
            break
        with suppress(UserError):  # another process was first
            durable.remove(path)
        total -= size


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=3)
