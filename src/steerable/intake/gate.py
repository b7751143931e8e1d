"""Opening a hostile picture file: plain files only, limits before decoding, one kind of error."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from steerable.intake.plain import OddFileError, plain_file

__all__ = ["FAULTS", "FORMATS", "PictureError", "opened"]

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 64_000_000
# The most that 64 megapixels of 8 bytes (16-bit RGBA) take without any compression.
MAX_BYTES = 8 * MAX_PIXELS
# Deflate cannot do better than 1032:1 and gets there on constant data only; a page of text scanned
# at 600 dpi and one bit a pixel measures 110:1. Flat pictures of a normal size are welcome, so the
# ratio counts only where a picture would take more memory than a camera's.
RATIO_PIXELS = 16_000_000
MAX_RATIO = 500

# What Pillow's readers raise on damaged files, beside their own classes, which are OSErrors.
FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    MemoryError,
    Image.DecompressionBombError,
)


class PictureError(Exception):
    """A file that gives no picture; `reason` says why, without the path of the file."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, BinaryIO]]:
    """An undecoded picture within the limits; whatever Pillow raises becomes a PictureError."""
    try:
        with _hush, _picture_file(path) as file:
            image = Image.open(file, formats=FORMATS)
            _limited(image, os.fstat(file.fileno()).st_size)
            yield image, file
    except FAULTS as fault:
        raise PictureError(_reason(fault)) from fault


@contextmanager
def _picture_file(path: Path) -> Iterator[BinaryIO]:
    """A plain file that is as long as a picture may be."""
    try:
        with plain_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise PictureError("an empty file")
            if size > MAX_BYTES:
                raise PictureError(f"too large: {size} bytes, the limit is {MAX_BYTES}")
            yield file
    except FileNotFoundError:
        broken = path.is_symlink()
        raise PictureError("a link to nothing" if broken else "the file does not exist") from None
    except OddFileError as fault:
        raise PictureError(str(fault.strerror)) from None


class _Hush:
    """Pillow's warnings are ignored while any thread is inside.

    Python keeps one list of filters for all threads, so the first one in changes it and the last
    one out puts it back.
    """

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._kept = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._kept = warnings.catch_warnings()
                self._kept.__enter__()
                warnings.filterwarnings("ignore", module=r"(PIL|steerable\.intake)\.")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._kept.__exit__(None, None, None)


_hush = _Hush()


def _limited(image: Image.Image, size: int) -> None:
    count = image.width * image.height
    if count > MAX_PIXELS:
        limit = f"the limit is {MAX_PIXELS // 10**6} megapixels"
        raise PictureError(f"too large: {image.width} x {image.height} pixels, {limit}")
    if count > RATIO_PIXELS and count * len(image.getbands()) > MAX_RATIO * size:
        what = f"{size} bytes that unpack to {image.width} x {image.height} pixels"
        raise PictureError(f"too large: {what}, more than {MAX_RATIO}:1")


def _reason(fault: BaseException) -> str:
    if isinstance(fault, UnidentifiedImageError):
        return "not a PNG, JPEG or WebP picture, or damaged at its start"
    if isinstance(fault, Image.DecompressionBombError):
        return f"too large: the limit is {MAX_PIXELS // 10**6} megapixels"
    if isinstance(fault, MemoryError):
        return "too large for the memory"
    if isinstance(fault, OSError) and fault.errno is not None:
        return f"cannot be opened: {fault.strerror}"  # str(fault) would show the path
    text = str(fault)[:160] or type(fault).__name__
    cut = any(word in text.lower() for word in ("truncat", "incomplete"))
    return f"cut short: {text}" if cut else f"damaged: {text}"
