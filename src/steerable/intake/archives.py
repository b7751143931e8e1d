"""Pictures in an .npz file, read one at a time after its headers were held against its size."""

from __future__ import annotations

import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from steerable.core.errors import UserError
from steerable.intake import memory
from steerable.intake.columns import ColumnError, Value, parsed
from steerable.intake.folders import Entry
from steerable.intake.names import Names
from steerable.intake.plain import plain_file

__all__ = ["Archive", "archive"]

# As for single pictures: deflate reaches 1032:1 on constant data only; a small flat set is fine.
_RATIO_BYTES, _MAX_RATIO = 2**26, 500
_TAKES = (
    "images (N,H,W) or (N,H,W,C) uint8 with C = 1, 3 or 4; labels (N,) of whole numbers or text; "
    "names (N,) of text"
)
_FAULTS = (OSError, EOFError, ValueError, RuntimeError, SyntaxError, struct.error, zlib.error)


@dataclass(frozen=True)
class Archive:
    """The pictures of an .npz file, not read yet.

    Attributes:
        path: The file.
        shape: (N,H,W,C).
        entries: The pictures in the order of the file.
    """

    path: Path
    shape: tuple[int, int, int, int]
    entries: list[Entry]

    def pictures(self) -> Iterator[NDArray[np.uint8]]:
        """Every picture (H,W,C) in turn, with one in memory at a time.

        Raises:
            UserError: E-DATA if the file is damaged.
        """
        size = math.prod(self.shape[1:])
        try:
            with _opened(self.path) as file, file.open("images.npy") as stream:
                _header(stream)
                for _ in range(self.shape[0]):
                    data = stream.read(size)
                    if len(data) != size:
                        raise EOFError("fewer bytes than its header says")
                    yield np.frombuffer(data, np.uint8).reshape(self.shape[1:])
        except (*_FAULTS, zipfile.BadZipFile) as fault:
            raise _refused(self.path, f"damaged: {_reason(fault)}") from fault


def archive(path: Path, columns: Mapping[str, str]) -> Archive:
    """Check the headers of an .npz file and read its labels and names; never a pickle.

    Arrays that nobody asks for are left alone.

    Args:
        path: The file.
        columns: Further arrays that are conditions, and their kinds; `label` may be in `labels`.

    Raises:
        UserError: E-DATA if the file is damaged or its arrays are not `images` and `labels`.
    """
    try:
        with _opened(path) as file:
            sizes = {info.filename: info for info in file.infolist()}
            for name in ("images", *(_array(column, sizes, columns) for column in columns)):
                if f"{name}.npy" not in sizes:
                    held = ", ".join(key.removesuffix(".npy") for key in list(sizes)[:5])
                    raise _refused(path, f"no array `{name}`, but {held or 'nothing'}")
            shape, dtype = _checked(file, sizes["images.npy"], path)
            full = _picture_shape(path, shape, dtype)
            names = _column(file, sizes, "names", full[0], path)
            labels = _column(file, sizes, _array("label", sizes, columns), full[0], path)
            further = [
                _values(file, sizes[f"{_array(name, sizes, columns)}.npy"], kind, full[0], path)
                for name, kind in columns.items()
            ]
    except (*_FAULTS, zipfile.BadZipFile) as fault:
        if isinstance(fault, UserError):
            raise
        raise _refused(path, f"damaged: {_reason(fault)}") from fault
    names = names or [f"images[{i}]" for i in range(full[0])]
    if columns.get("label", "label") != "label" or labels is None:
        labels = [None] * full[0]
    elif "label" in columns:  # then a picture may be without one
        labels = [label or None for label in labels]
    rows = zip(*further, strict=True) if further else [()] * full[0]
    return Archive(path, full, list(map(Entry, names, labels, rows)))


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    with plain_file(path) as stream, zipfile.ZipFile(stream) as file:
        yield file


def _reason(fault: BaseException) -> str:
    """What is wrong, without the advice to load what is not to be trusted that numpy adds."""
    text = " ".join(str(getattr(fault, "strerror", None) or fault).split())
    if "allow_pickle" in text or "max_header_size" in text:
        return "the header of an array is too long, or holds more than a plain type and a shape"
    return text[:200] or type(fault).__name__


def _array(name: str, sizes: Mapping[str, zipfile.ZipInfo], columns: Mapping[str, str]) -> str:
    """The array that holds a column; that of the labels is in the plural, unless asked for."""
    if name != "label" or "labels.npy" in sizes or name not in columns:
        plain = "labels" if name == "label" else name
        held = Names(key.removesuffix(".npy") for key in sizes)
        return held.find(plain) or plain if name in columns else plain
    return name


def _refused(path: Path, got: str, *, do: str = "write it with numpy.savez") -> UserError:
    return UserError("E-DATA", where=str(path), got=got, takes=_TAKES, do=do)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    with warnings.catch_warnings():  # files of Python 2 are fine
        warnings.simplefilter("ignore")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        return read(stream)


def _checked(
    file: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of one array, whose claims must fit the bytes that are really there."""
    with file.open(info) as stream:
        shape, fortran, dtype = _header(stream)
        start = stream.tell()
    name = info.filename.removesuffix(".npy")
    if dtype.hasobject:
        raise _refused(path, f"`{name}` holds Python objects", do="save plain numbers or text")
    if math.prod(shape) * dtype.itemsize != info.file_size - start:
        raise _refused(path, f"damaged: `{name}` is not as long as its header says")
    if info.compress_size > path.stat().st_size:
        raise _refused(path, f"damaged: `{name}` is longer than the file")
    if info.file_size > max(_RATIO_BYTES, _MAX_RATIO * info.compress_size):
        raise _refused(path, f"`{name}` unpacks to {info.file_size} bytes, over {_MAX_RATIO}:1")
    if fortran and len(shape) > 1:
        raise _refused(
            path, f"`{name}` runs in Fortran order", do="save numpy.ascontiguousarray(images)"
        )
    return shape, dtype


def _picture_shape(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[int, int, int, int]:
    if dtype != np.uint8:
        do = "scale to 0..255, round, and save as uint8"
        raise _refused(path, f"`images` of the type {dtype}", do=do)
    full = (*shape, 1) if len(shape) == 3 else shape
    if len(full) != 4 or full[3] not in (1, 3, 4) or min(full[1:3]) < 1:
        first = len(full) == 4 and full[1] in (1, 3, 4)
        do = "put the channels last: images.transpose(0, 2, 3, 1)" if first else ""
        raise _refused(path, f"`images` of the shape {shape}", do=do)
    return full[0], full[1], full[2], full[3]


def _column(
    file: zipfile.ZipFile, sizes: dict[str, zipfile.ZipInfo], name: str, n: int, path: Path
) -> list[str] | None:
    """The array `name` as text, None if the file has none."""
    info = sizes.get(f"{name}.npy")
    if info is None:
        return None
    shape, dtype = _checked(file, info, path)
    # i and u whole numbers, b truth values, U text
    if shape not in {(n,), (n, 1)} or dtype.kind not in "iubU":
        raise _refused(path, f"`{name}` of the shape {shape} and the type {dtype}", do="see takes")
    _fits(info, name, path)
    with file.open(info) as stream:
        values = npy.read_array(stream, allow_pickle=False).reshape(n)
    text = [str(value) for value in values.tolist()]
    return [word.lower() for word in text] if dtype.kind == "b" else text


def _fits(info: zipfile.ZipInfo, name: str, path: Path) -> None:
    """Refuse an array of labels or other values that there is no memory for.

    Raises:
        UserError: E-MEM.
    """
    # The array, and as much again for its values one by one.
    what, do = f"the values of `{name}`", "fewer pictures, or shorter texts"
    memory.require(2 * info.file_size, where=str(path), what=what, do=do)


def _values(
    file: zipfile.ZipFile, info: zipfile.ZipInfo, kind: str, n: int, path: Path
) -> list[Value]:
    """The array of a column, one value a picture."""
    name = info.filename.removesuffix(".npy")
    shape, dtype = _checked(file, info, path)
    flat = shape in {(n,), (n, 1)}
    numbers = kind == "vector" and dtype.kind in "iubf" and shape[:1] == (n,) and len(shape) < 3
    if not (numbers or (flat and (dtype.kind == "U" or (kind == "label" and dtype.kind in "iub")))):
        takes = {"vector": "numbers (N,) or (N,K), or text (N,)", "tokens": "text (N,)"}
        do = f"save {takes.get(kind, 'whole numbers or text (N,)')}, N = {n}"
        raise _refused(path, f"`{name}` of the shape {shape} and the type {dtype}", do=do)
    _fits(info, name, path)
    with file.open(info) as stream:
        rows = npy.read_array(stream, allow_pickle=False)
    try:
        return [parsed(kind, row.tolist()) for row in (rows.reshape(n) if flat else rows)]
    except ColumnError as fault:
        raise _refused(path, f"`{name}`: {fault.reason}", do="mend the array") from fault
