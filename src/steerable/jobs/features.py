"""Features of pictures, kept from one evaluation to the next.

A file of the cache is named after what it was made from: the pictures, and the weights and settings
of the extractor. So nothing in it can be out of date; it can only be damaged, which is noticed. A
cache never stops an evaluation: what cannot be read or kept is computed, with a warning.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from steerable.core.errors import UserError
from steerable.nn.extraction import Extractor

from . import durable
from .caches import cache_place

__all__ = ["BOUND", "cache_folder", "features_of"]

BOUND = 1_000_000_000  # bytes of a cache folder; beyond it, what was longest not used goes
# Files of the cache and what a killed process left of one; nothing else is ever removed.
_OURS = re.compile(r"[0-9a-f]{64}\.safetensors|\.[0-9a-f]{64}\.safetensors\.tmp-.*")


def cache_folder() -> Path | None:
    """Where features are kept, or None; see `cache_place`. It holds at most 1 GB."""
    return cache_place("features")


def features_of(extractor: Extractor, x: Tensor, *, cache: Path | None) -> Tensor:
    """Features (N,F) float64 of pictures, computed or read from the cache, the same to the bit.

    Args:
        extractor: An extractor or a judge.
        x: Pictures (N,C,H,W) uint8.
        cache: Folder of kept features, or None to keep none. It is made when it is not there.

    Raises:
        UserError: E-SHAPE for pictures that the extractor does not take; E-NUM when a feature is
            not finite. Never for the cache: RuntimeWarnings say what is wrong with it.
    """
    key = "" if cache is None else _key(extractor, x)
    file = None if cache is None else cache / f"{key}.safetensors"
    kept = None if file is None else _read(file, key, len(x))
    if kept is not None:
        return kept
    features = extractor.features(x)
    broken = int((~features.isfinite().all(1)).sum())
    if broken:
        got = f"{broken} of {len(features)} pictures with features that are not finite"
        raise UserError("E-NUM", where=extractor.name, got=got)
    if file is not None:
        _keep(file, key, features)
    return features


def _key(extractor: Extractor, x: Tensor) -> str:
    """SHA-256 of the pictures with their shape, and of the extractor."""
    total = hashlib.sha256(f"1 {extractor.sha256} {x.dtype} {tuple(x.shape)}\n".encode())
    for part in x.detach().cpu().split(1024):
        total.update(part.contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def _read(file: Path, key: str, count: int) -> Tensor | None:
    """The features of a file; None without the file, and with a warning when it is damaged."""
    try:
        data = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _warn(f"kept features not read: {error.strerror}; computed anew")
        return None
    try:
        features = _checked(data, key, count)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        _warn(f"kept features {file.name[:12]}… are damaged, computed anew: {error}")
        return None
    try:
        os.utime(file)  # so that files that are used stay
    except OSError as error:
        _warn(f"kept features: their use is not noted: {error.strerror}")
    return features


def _checked(data: bytes, key: str, count: int) -> Tensor:
    """The features in the bytes of a file; whatever does not fit is a ValueError or the like."""
    size = int.from_bytes(data[:8], "little")
    features = load(data)["features"]  # which checks the header first
    note = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["features"])
    if note["key"] != key:
        raise ValueError("they belong to other pictures or another extractor")
    if features.dtype != torch.float64 or features.ndim != 2 or len(features) != count:
        raise ValueError(f"{tuple(features.shape)} of {features.dtype}")
    if note["sha256"] != _sum(features) or not bool(features.isfinite().all()):
        raise ValueError("the numbers are not those that were written")
    return features


def _sum(features: Tensor) -> str:
    return hashlib.sha256(features.contiguous().numpy()).hexdigest()


def _keep(file: Path, key: str, features: Tensor) -> None:
    note = {"key": key, "sha256": _sum(features)}
    # One note only: the order of several would differ from file to file.
    data = save({"features": features.contiguous()}, metadata={"features": json.dumps(note)})
    if len(data) > BOUND:
        _warn(f"features not kept: {len(data)} bytes, the cache holds {BOUND}")
        return
    try:
        durable.folder(file.parent)
        durable.write(file, data)
        _shrink(file.parent, spared=file)
    except (UserError, OSError) as error:
        _warn(f"features not kept: {error}")


def _shrink(folder: Path, spared: Path) -> None:
    """Remove what was longest not used until the folder is within its bound."""
    files = []
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name):
            with suppress(FileNotFoundError):  # another process was first
                status = path.stat()
                files.append((path == spared, status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, _, size, _ in files)
    for own, _, size, path in sorted(files):
        if own or total <= BOUND:
            break
        with suppress(FileNotFoundError):
            durable.disk.unlink(path)
        total -= size


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=3)
