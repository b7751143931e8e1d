"""Checkpoints of a run: complete folders that appear at once, and are read with suspicion.

A manifest holds the size and the SHA-256 of every file, a second file that of the manifest, and
the set of names is closed: no bit of a checkpoint can change unseen. What is hashed is the very
bytes that are parsed, read once, through a descriptor of the folder, without following links.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import warnings
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from steerable.core.errors import UserError
from steerable.jobs import durable
from steerable.recipes.store import pack, plain_json, strict_json, unpack

__all__ = ["Checkpoint", "any_left", "facts", "load", "newest", "reached", "save"]

SCHEMA = 1
PARTS = ("model", "ema", "optimiser", "narrow", "uncertainty")
MANIFEST, SEAL, STATE = "manifest.json", "manifest.sha256", "state.json"

_FILES = {STATE, *(f"{part}.safetensors" for part in PARTS)}
_FOLDER = re.compile(r"iter-(\d{8,18})")
_PLAIN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_RESUME = "start the run again: it resumes from the newest checkpoint that is whole"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that passed every check.

    Attributes:
        iteration: Number of finished training updates.
        parts: Tensors by part (`model`, and where present the others of PARTS) and name.
        state: Counters and settings of the training loop, plain JSON.
        facts: What the run was made with: recipe hash, data fingerprint, labels, versions.
        path: The folder.
    """

    iteration: int
    parts: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    facts: dict[str, Any]
    path: Path


def save(
    run: Path,
    iteration: int,
    *,
    parts: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    facts: Mapping[str, Any],
    keep: int = 2,
    pinned: Container[int] = (),
) -> Path:
    """Write a checkpoint, read it back in full, and only then delete what is too old.

    Args:
        run: Run folder.
        iteration: Number of finished training updates.
        parts: Tensors of `model` and optionally of the others of PARTS.
        state: What the training loop needs to go on, plain JSON.
        facts: What to compare at resume, plain JSON.
        keep: Number of verified checkpoints that stay, the new one among them.
        pinned: Iterations that are never deleted.

    Returns:
        The folder of the checkpoint.

    Raises:
        UserError: E-LIMIT for keep < 2, E-DISK with the last good checkpoint as what is kept,
            E-CKPT-HASH when the disk gives back other bytes than were written.
    """
    if keep < 2:
        got, takes = f"keep={keep}", "2 or more: while one is replaced the other must be safe"
        raise UserError("E-LIMIT", where="checkpoints", got=got, takes=takes, do="set keep=2")
    assert "model" in parts and set(parts) <= set(PARTS), f"parts are of {PARTS}"
    older = [path for path in _named(run) if _number(path) < iteration]
    kept = f"checkpoint {older[0].name}" if older else "no checkpoint yet"
    files = _files(iteration, parts, state)
    manifest = {
        "schema": SCHEMA,
        "iteration": iteration,
        "parent": _number(older[0]) if older else None,
        "files": {name: {"bytes": len(d), "sha256": _sha(d)} for name, d in files.items()},
        "facts": dict(facts),
    }
    files[MANIFEST] = plain_json(manifest).encode()
    files[SEAL] = _seal(files[MANIFEST])
    path = run / "checkpoints" / f"iter-{iteration:08d}"
    durable.folder(path.parent)
    durable.publish(path, files, kept=kept)
    manifest, back = _read(path)
    if back != files:
        raise _damaged(path, "the disk gave back other bytes than were written")
    _parse(path, manifest, back)
    _retire(older, keep - 1, pinned)
    return path


def load(path: Path) -> Checkpoint:
    """Read the named checkpoint, and no other in its place.

    Raises:
        UserError: E-CONFIG when there is none, E-CKPT-HASH, -HEADER, -NEWER or -PICKLE when it is
            not to be trusted, E-DISK when it cannot be read.
    """
    return _parse(path, *_read(path))


def newest(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that passes every check.

    Returns:
        The checkpoint, None when the run has none yet, and a line for every newer one that was
        skipped: its name and the reason.

    Raises:
        UserError: E-CKPT-HASH when there are checkpoints but none can be trusted.
    """
    skipped: list[str] = []
    for path in _named(run):
        try:
            return load(path), skipped
        except UserError as error:
            skipped.append(f"{path.name}: {error.code}: {error.got}")
    if skipped:
        got, kept = "no checkpoint is whole: " + "; ".join(skipped), "the files as they are"
        do = "copy the checkpoints from a backup, or start in a new run folder"
        if (run / "model.safetensors").exists():
            do += f"; a new run from the model's weights: --from {run} --run NEW"
        raise UserError("E-CKPT-HASH", where=f"run {run.name}", got=got, kept=kept, do=do)
    return None, skipped


def reached(run: Path) -> int | None:
    """Iterations of the newest checkpoint by its name; None without one."""
    return next((_number(path) for path in _named(run)), None)


def any_left(run: Path) -> bool:
    """Whether there is a checkpoint, whole or not, or one whose replacement was cut short."""
    folder = run / "checkpoints"
    if not folder.is_dir():
        return os.path.lexists(folder)
    return bool(_named(run)) or any(".old-" in path.name for path in folder.glob(".iter-*"))


def facts(run: Path) -> dict[str, Any]:
    """The facts of the newest checkpoint whose manifest can be trusted; none without one.

    The weights are not read.
    """
    for path in _named(run):
        try:
            at = os.open(path, _PLAIN | os.O_DIRECTORY)
        except OSError:
            continue  # `newest` says what is wrong with it
        try:
            names = set(os.listdir(at))  # noqa: PTH208  (a descriptor)
            return dict(_manifest(_sealed(at, path, names), path)["facts"])
        except UserError:
            continue
        finally:
            os.close(at)
    return {}


def _parse(path: Path, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> Checkpoint:
    """The content of files whose hashes were checked."""
    where = f"checkpoint {path.name}"
    state = strict_json(files[STATE], f"{where}, {STATE}")
    if state.get("iteration") != manifest["iteration"] or not isinstance(state.get("state"), dict):
        raise _damaged(path, f"{STATE} is of another iteration")
    parts = {}
    for part in PARTS:
        name = f"{part}.safetensors"
        if name in files:
            parts[part], about = unpack(files[name], where=f"{where}, {name}")
            if about != {"part": part, "iteration": manifest["iteration"]}:
                raise _damaged(path, f"{name} is of another checkpoint")
    return Checkpoint(manifest["iteration"], parts, state["state"], dict(manifest["facts"]), path)


def _named(run: Path) -> list[Path]:
    """Folders with the name of a checkpoint, newest first."""
    folder = run / "checkpoints"
    try:
        found = [path for path in folder.iterdir() if _number(path) >= 0]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(folder, "", error) from error
    return sorted(found, key=_number, reverse=True)


def _number(path: Path) -> int:
    """Iteration in the name of a checkpoint folder, -1 for other names."""
    match = _FOLDER.fullmatch(path.name)
    return int(match[1]) if match and path.name == f"iter-{int(match[1]):08d}" else -1


def _files(
    iteration: int, parts: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> dict[str, bytes]:
    """The payload files of a checkpoint as bytes."""
    files = {
        f"{part}.safetensors": pack(tensors, {"part": part, "iteration": iteration})
        for part, tensors in parts.items()
    }
    files[STATE] = plain_json({"iteration": iteration, "state": dict(state)}).encode()
    return files


def _retire(older: list[Path], spare: int, pinned: Container[int]) -> None:
    """Delete the checkpoints that are older than `spare` whole ones."""
    whole = 0
    for path in older:
        if whole < spare:
            whole += _is_whole(path)
        elif _number(path) not in pinned:
            try:
                durable.remove(path)
            except UserError as error:  # more is kept than asked for: no reason to stop training
                durable.tally["undeleted"] += 1
                warnings.warn(f"old checkpoint not deleted: {error}", RuntimeWarning, stacklevel=3)


def _is_whole(path: Path) -> bool:
    try:
        _read(path)
    except UserError:
        return False
    return True


def _read(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and all files of a checkpoint folder, sizes and hashes checked."""
    try:
        at = os.open(path, _PLAIN | os.O_DIRECTORY)
    except OSError as error:
        raise _unreadable(path, "", error) from error
    try:
        names = set(os.listdir(at))  # noqa: PTH208  (a descriptor)
        sealed = _sealed(at, path, names)
        manifest = _manifest(sealed, path)
        expected = {*manifest["files"], MANIFEST, SEAL}
        if names != expected:
            odd = ", ".join(sorted(ascii(name) for name in names ^ expected)[:5])
            raise _damaged(path, f"files that are missing or do not belong here: {odd}")
        files = {MANIFEST: sealed, SEAL: _seal(sealed)}
        for name, told in manifest["files"].items():
            files[name] = _bytes(at, path, name, names, size=told["bytes"])
            if _sha(files[name]) != told["sha256"]:
                raise _damaged(path, f"{name} does not match its SHA-256")
        return manifest, files
    finally:
        os.close(at)


def _sealed(at: int, path: Path, names: set[str]) -> bytes:
    """The manifest, once its own hash was checked."""
    sealed = _bytes(at, path, MANIFEST, names)
    if _bytes(at, path, SEAL, names) != _seal(sealed):
        raise _damaged(path, f"{MANIFEST} and {SEAL} do not match")
    return sealed


def _bytes(at: int, path: Path, name: str, names: set[str], *, size: int | None = None) -> bytes:
    """Content of one regular file of the folder, read once."""
    if name not in names:
        raise _damaged(path, f"{name} is missing")
    try:
        with os.fdopen(os.open(name, _PLAIN, dir_fd=at), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise _damaged(path, f"{name} is not a regular file")
            if size is not None and about.st_size != size:
                raise _damaged(path, f"{name} has {about.st_size} bytes instead of {size}")
            return file.read()
    except OSError as error:
        raise _unreadable(path, name, error) from error


def _manifest(sealed: bytes, path: Path) -> dict[str, Any]:
    """A manifest whose every field has the form that the readers count on."""
    manifest = strict_json(sealed, f"checkpoint {path.name}, {MANIFEST}")
    schema, files = manifest.get("schema"), manifest.get("files")
    if type(schema) is int and schema > SCHEMA:
        got, takes = f"format version {schema}", f"format versions up to {SCHEMA}"
        where = f"checkpoint {path.name}"
        raise UserError("E-CKPT-NEWER", where=where, got=got, takes=takes, do="update steerable")
    known = {"model.safetensors", STATE}
    good = schema == SCHEMA and type(manifest.get("iteration")) is int
    good = good and isinstance(manifest.get("facts"), dict) and isinstance(files, dict)
    good = good and known <= set(files) <= _FILES
    if not good or not all(
        isinstance(told, dict) and set(told) == {"bytes", "sha256"} for told in files.values()
    ):
        raise _damaged(path, f"{MANIFEST} is not of the form of a checkpoint")
    if _number(path) >= 0 and _number(path) != manifest["iteration"]:
        raise _damaged(path, f"the folder holds iteration {manifest['iteration']}")
    return manifest


def _seal(manifest: bytes) -> bytes:
    return f"{_sha(manifest)}  {MANIFEST}\n".encode()


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _unreadable(path: Path, name: str, error: OSError) -> UserError:
    where = f"checkpoint {path.name}" + (f", {name}" if name else "")
    text = error.strerror or str(error)
    if error.errno in {errno.ELOOP, errno.ENOTDIR}:
        return _damaged(path, f"{name or 'the folder'} is a link or of a wrong kind ({text})")
    if error.errno == errno.ENOENT:
        return UserError("E-CONFIG", where=where, got="no such checkpoint", do=_RESUME)
    return UserError("E-DISK", where=where, got=text, do="check the disk and the permissions")


def _damaged(path: Path, got: str) -> UserError:
    where, kept = f"checkpoint {path.name}", "the other checkpoints"
    return UserError("E-CKPT-HASH", where=where, got=got, kept=kept, do=_RESUME)
