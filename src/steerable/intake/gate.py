"""Opening a hostile picture file: plain files only, limits before decoding, one kind of error."""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError

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
        with warnings.catch_warnings(), _regular(path) as file:
            warnings.simplefilter("ignore")
            image = Image.open(file, formats=FORMATS)
            _limited(image, os.fstat(file.fileno()).st_size)
            yield image, file
    except FAULTS as fault:
        raise PictureError(_reason(fault)) from fault


@contextmanager
def _regular(path: Path) -> Iterator[BinaryIO]:
    """Open a plain file only: a pipe would wait for ever, a device may act on being opened."""
    try:
        status = path.stat()
    except FileNotFoundError:
        broken = path.is_symlink()
        raise PictureError("a link to nothing" if broken else "the file does not exist") from None
    _plain(status.st_mode)
    # The file may have been swapped since; NONBLOCK keeps even then a pipe from waiting.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        _plain(status.st_mode)
        if status.st_size == 0:
            raise PictureError("an empty file")
        if status.st_size > MAX_BYTES:
            raise PictureError(f"too large: {status.st_size} bytes, the limit is {MAX_BYTES}")
        yield file


def _plain(mode: int) -> None:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    for test, name in kinds:
        if test(mode):
            raise PictureError(f"{name}, not a file")
    if not stat.S_ISREG(mode):
        raise PictureError("a device, not a file")


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
