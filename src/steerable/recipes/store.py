"""One file knows itself: tensors and their JSON as bytes of a safetensors file with a checksum.

The safetensors format cannot run code but has no checksum, and its reader trusts the header. Here
the header is checked first, then a SHA-256 over the whole file, and only then are tensors made.
This module makes and reads bytes; it never writes to disk.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from steerable.core.errors import UserError

__all__ = ["SCHEMA", "open_model", "pack", "plain_json", "strict_json", "unpack"]

SCHEMA = 1
MAX_HEADER = 2_000_000  # bytes
MAX_TENSORS = 20_000
MAX_RANK = 8
MAX_NUMEL = 2**48
SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "F16": 2, "BF16": 2}
SIZES |= {"I32": 4, "F32": 4, "I64": 8, "F64": 8}

_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
_ZEROS = b"0" * 64
_DIGITS = re.compile(rb'"sha256":"([0-9a-f]{64})"')
# An unterminated string matches up to the end, so that no scan ever starts twice at one place.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_IMPORT = "load the weights in a script of your own, build the model from a recipe and save it"
_FETCH = "fetch the file again or use another copy"


def pack(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """A safetensors file that holds `tensors`, `about` and a checksum; equal input, equal bytes.

    Raises:
        UserError: E-NUM when `about` holds a number that is not finite, E-LIMIT when the header
            would be larger than `unpack` takes.
    """
    import safetensors.torch

    assert all(_NAME.fullmatch(name) for name in tensors), "tensor names of A-Za-z0-9._-"
    owned = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    raw = safetensors.torch.save(owned)
    size = int.from_bytes(raw[:8], "little")
    entries = json.loads(raw[8 : 8 + size])
    # The library writes metadata in random order: a header of our own makes the bytes repeatable.
    told = {"schema": str(SCHEMA), "sha256": _ZEROS.decode(), "steerable": plain_json(about)}
    header = json.dumps({"__metadata__": told, **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > MAX_HEADER or len(tensors) > MAX_TENSORS:
        got = f"{len(tensors)} tensors and a header of {len(header)} bytes"
        takes = f"at most {MAX_TENSORS} tensors and {MAX_HEADER} bytes of names and metadata"
        raise UserError("E-LIMIT", where="model file", got=got, takes=takes)
    data = b"".join([len(header).to_bytes(8, "little"), header, memoryview(raw)[8 + size :]])
    found = _DIGITS.search(data)
    assert found is not None, "the placeholder was just written"
    return data[: found.start(1)] + _digest(data, found.start(1)) + data[found.end(1) :]


def unpack(data: bytes, *, where: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, in memory of their own, and the JSON of a file made by `pack`.

    Args:
        data: The whole file.
        where: Name of the file in messages.

    Raises:
        UserError: E-CKPT-PICKLE, E-CKPT-HEADER, E-CKPT-HASH or E-CKPT-NEWER.
    """
    import safetensors.torch

    header = _header(data, where)
    told = _entries(header, len(data) - 8 - len(header), where)
    spots = list(_DIGITS.finditer(header))
    if not {"schema", "sha256", "steerable"} <= set(told) or len(spots) != 1:
        takes = "files that steerable wrote, with recipe and checksum inside"
        raise _refused(where, "safetensors without the metadata of steerable", takes, _IMPORT)
    if _digest(data, 8 + spots[0].start(1)) != spots[0][1]:
        got = "the content does not match its SHA-256: the file is damaged"
        raise UserError("E-CKPT-HASH", where=where, got=got, do=_FETCH)
    if re.fullmatch(r"[1-9][0-9]{0,8}", told["schema"]) is None:
        raise _refused(where, "a format version that is not a number", f"1 to {SCHEMA}")
    if int(told["schema"]) > SCHEMA:
        got, takes = f"format version {told['schema']}", f"format versions up to {SCHEMA}"
        raise UserError("E-CKPT-NEWER", where=where, got=got, takes=takes, do="update steerable")
    about = strict_json(told["steerable"], where)
    tensors = {name: value.clone() for name, value in safetensors.torch.load(data).items()}
    return tensors, about


def open_model(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model file once and unpack it.

    Raises:
        UserError: E-CONFIG when there is no such file, E-DISK when it cannot be read, else what
            `unpack` raises.
    """
    try:
        # Without blocking: a pipe of that name must not hang the program.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise IsADirectoryError
            data = file.read()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        do = "give the path of a .safetensors file that steerable wrote"
        raise UserError("E-CONFIG", where=path.name, got="no such file", do=do) from error
    except OSError as error:
        got = error.strerror or str(error)
        raise UserError("E-DISK", where=path.name, got=got, do="check its permissions") from error
    return unpack(data, where=path.name)


def plain_json(value: Mapping[str, Any]) -> str:
    """JSON with sorted keys, so equal values give equal text.

    Raises:
        UserError: E-NUM for NaN and infinity, which JSON cannot hold.
    """
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        got = "a number that is not finite"
        raise UserError("E-NUM", where="metadata", got=got, takes="finite numbers") from error


def strict_json(text: str | bytes, where: str) -> dict[str, Any]:
    """A JSON object of plain values, without doubled keys, NaN or infinity.

    Raises:
        UserError: E-CKPT-HEADER for anything else.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # a JSON or a UTF-8 error is a ValueError
        raise _refused(where, f"malformed JSON ({type(error).__name__})", "plain JSON") from error
    if not isinstance(value, dict):
        raise _refused(where, "JSON that is not an object", "a JSON object")
    return value


def _header(data: bytes, where: str) -> bytes:
    """The JSON bytes of the header, once the file looks like safetensors at all."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 10 or data[8:9] != b"{" or size > MAX_HEADER:
        kind = _code_container(data)
        if kind:
            got, do = f"{kind}, a format that can run code when it is read", _IMPORT
            takes = "safetensors written by steerable"
            raise UserError("E-CKPT-PICKLE", where=where, got=got, takes=takes, do=do)
        raise _refused(where, "not a safetensors file, or its header is damaged", "safetensors")
    if size > len(data) - 8:
        raise _refused(where, "a header that is longer than the file: it was cut short")
    header = data[8 : 8 + size]
    # Counted before anything is built: small objects would take fifty times the file's memory.
    # An entry has ten quotes; those inside of a string have a backslash and do not count.
    many = header.count(b'"') - header.count(b'\\"') > 12 * MAX_TENSORS
    bare = b"" if many else _STRING.sub(b"", header)
    most = {b"{": MAX_TENSORS + 2, b"[": 2 * MAX_TENSORS, b",": 14 * MAX_TENSORS}
    if many or any(bare.count(mark) > limit for mark, limit in most.items()):
        raise _refused(where, "a header with too many entries", f"{MAX_TENSORS} tensors")
    return header


def _code_container(data: bytes) -> str:
    """Name of the pickle, archive or array format that the bytes begin or end like, or ''."""
    magics = {b"PK": "a zip archive (torch.save, npz)", b"\x93NUMPY": "a NumPy array file"}
    magics |= {b"\x1f\x8b": "a gzip archive", b"BZh": "a bzip2 archive", b"\xfd7zXZ": "an xz file"}
    magics |= {b"7z\xbc\xaf": "a 7z archive", b"\x28\xb5\x2f\xfd": "a zstd file"}
    magics |= {b"\x89HDF": "an HDF5 file"}
    for magic, name in magics.items():
        if data.startswith(magic):
            return name
    if data[257:262] == b"ustar":
        return "a tar archive"
    # A zip is read from its end, so a damaged or foreign beginning does not make it harmless.
    if b"PK\x05\x06" in data[-65_600:] or b"PK\x03\x04" in data[:4096]:
        return "a zip archive (torch.save, npz)"
    if data[:1] == b"\x80" and data[1:2] <= b"\x05":
        return "a pickle"
    # Protocols 0 and 1 have no magic: an opening opcode, and the full stop that ends each pickle.
    if data[:1] and data[:1] in b"(]})lcdiILFSVUXTKMJGNP" and data.rstrip(b"\r\n")[-1:] == b".":
        return "a pickle"
    return ""


def _entries(header: bytes, payload: int, where: str) -> dict[str, str]:
    """Check every tensor entry against a payload of that many bytes; return the metadata."""
    table = strict_json(header, where)
    told = table.pop("__metadata__", {})
    if not isinstance(told, dict) or not all(isinstance(text, str) for text in told.values()):
        raise _refused(where, "metadata that is not text", "text")
    if len(table) > MAX_TENSORS:
        raise _refused(where, f"{len(table)} tensors", f"{MAX_TENSORS} tensors")
    spans = sorted(_span(name, entry, where) for name, entry in table.items())
    at = 0
    for low, high in spans:
        if low != at:
            raise _refused(where, f"an overlap or a hole at byte {min(low, at)} of the data")
        at = high
    if at != payload:
        raise _refused(where, f"{payload} bytes of data where the header names {at}")
    return told


def _span(name: str, entry: Any, where: str) -> tuple[int, int]:
    """Begin and end of a tensor in the data, after all that can be checked of one entry."""
    shown = name[:60].encode("ascii", "backslashreplace").decode()
    if _NAME.fullmatch(name) is None:
        raise _refused(where, f"tensor name {shown!r}", "1 to 200 of A-Z a-z 0-9 . _ -")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _refused(where, f"a malformed entry of tensor {shown}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise _refused(
            where, f"a number format of tensor {shown} that is unknown", ", ".join(SIZES)
        )
    if not _naturals(shape) or len(shape) > MAX_RANK:
        raise _refused(where, f"the shape of tensor {shown}", f"at most {MAX_RANK} sizes")
    # Zeros are left out: sizes whose product overflows must not hide behind one of them.
    if math.prod(max(size, 1) for size in shape) > MAX_NUMEL:
        raise _refused(where, f"the shape of tensor {shown}", f"{MAX_NUMEL} numbers")
    if not _naturals(offsets) or len(offsets) != 2:
        raise _refused(where, f"the offsets of tensor {shown}", "two positions in the data")
    low, high = offsets
    if high - low != math.prod(shape) * SIZES[dtype]:
        raise _refused(where, f"the offsets of tensor {shown} do not fit its shape")
    return low, high


def _naturals(value: Any) -> bool:
    """Whether this is a list of integers >= 0; a bool is not an integer."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _digest(data: bytes, at: int) -> bytes:
    """SHA-256 in 64 digits over the file with the 64 digits at `at` set to zero."""
    view = memoryview(data)
    state = hashlib.sha256(view[:at])
    state.update(_ZEROS)
    state.update(view[at + 64 :])
    return state.hexdigest().encode()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key appears twice")
    return table


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _refused(where: str, got: str, takes: str = "", do: str = _FETCH) -> UserError:
    return UserError("E-CKPT-HEADER", where=where, got=got, takes=takes, do=do)
