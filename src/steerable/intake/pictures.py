"""The image gate: a hostile file in, a clean uint8 array or a plain reason out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from steerable.intake.gate import FAULTS, FORMATS, PictureError, opened

__all__ = ["SUFFIXES", "Facts", "Header", "PictureError", "fitted", "peek", "read", "with_channels"]

Pixels = NDArray[np.uint8]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp"})
_RESERVE = 3.0  # how many times larger than its result a picture may be made by averaging blocks
_ORIENTATION = 0x0112
_EXIF_KEYS = ("exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp")
# Source: EXIF 2.3, tag Orientation; what brings the stored picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Header:
    """What a file says about its picture before a pixel is decoded.

    Attributes:
        height: Rows, after the turn that EXIF asks for.
        width: Columns, after the same turn.
        mode: Pillow's name of the pixel layout, "1 L LA P RGB RGBA CMYK I;16".
        bits: Bits per channel in the file.
        alpha: Whether the file can hold transparency.
    """

    height: int
    width: int
    mode: str
    bits: int
    alpha: bool


@dataclass(frozen=True)
class Facts:
    """What happened to a picture on its way to an array.

    Attributes:
        header: What the file said.
        conversions: Every change beyond plain decoding, in words that a report can count.
        transparent: Whether any pixel lets something shine through.
    """

    header: Header
    conversions: tuple[str, ...]
    transparent: bool


def peek(path: Path) -> Header:
    """Read the header of a picture and hold it to the limits.

    Raises:
        PictureError: The file is no picture that can be taken.
    """
    with opened(path) as (image, _):
        # PNG may put EXIF behind the pixels; asking for it here would decode them.
        known = any(key in image.info for key in _EXIF_KEYS)
        return _header(image, _orientation(image)[0] if known else 1)


def read(path: Path, *, least: tuple[int, int] | None = None) -> tuple[Pixels, Facts]:
    """Decode the first frame of a PNG, JPEG or WebP picture.

    EXIF turns are applied; palettes become colours; 16-bit grey is scaled, not clipped; CMYK goes
    through its own colour profile where it has one; transparency stays as a fourth channel. Other
    colour profiles are not applied, and named in the conversions.

    Args:
        path: The file.
        least: Rows and columns that the picture will be scaled down to. A JPEG picture that is far
            larger is then decoded at a half, a quarter or an eighth of its size, which takes a
            fraction of the time.

    Returns:
        The pixels (H,W,C) with C = 1 grey, 3 RGB or 4 RGBA, and the facts for the report.

    Raises:
        PictureError: The file is no picture that can be taken.
    """
    with opened(path) as (first, file):
        image = _verified(first, file)
        frames = getattr(image, "n_frames", 1)
        bits = _bits(image)  # the layout of the file is forgotten by the decoder
        small = least is not None and image.format in {"JPEG", "MPO"}
        if not small:  # in a PNG, EXIF may stand behind the pixels; in a JPEG it does not
            image.load()
        turn, notes = _orientation(image)
        header = _header(image, turn, bits)
        if small and least is not None:
            notes += _reduced(image, least, turn)
            image.load()
    if frames > 1:
        notes.append("first frame only")
    pixels, more = _pixels(image, bits)
    if turn != 1:
        notes.append("exif turn")
        pixels = _turned(pixels, turn)
    transparent = pixels.shape[2] == 4 and bool(pixels[..., 3].min() < 255)
    return pixels, Facts(header, (*notes, *more), transparent)


def fitted(pixels: Pixels, height: int, width: int) -> Pixels:
    """Scale (H,W,C) until it covers (height, width), then cut the centre out.

    Lanczos with the support of the reduction, so that large pictures do not alias; colours are
    weighted with alpha, so that hidden ones do not bleed.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    rows, columns = pixels.shape[:2]
    scale = max(height / rows, width / columns)
    high, wide = min(rows, height / scale), min(columns, width / scale)
    top, left = (rows - high) / 2, (columns - wide) / 2
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    # Pillow multiplies RGBA by alpha before and divides after; box is cut and scaled in one go.
    image = image.resize(
        (width, height),
        Image.Resampling.LANCZOS,
        box=(left, top, left + wide, top + high),
        reducing_gap=_RESERVE,
    )
    return np.asarray(image).reshape(height, width, pixels.shape[2])


def with_channels(pixels: Pixels, channels: int, background: tuple[int, int, int]) -> Pixels:
    """Bring (H,W,C) to 1, 3 or 4 channels.

    Where alpha goes, the picture is laid over `background`; where it stays, fully transparent
    pixels take that colour, so that no network learns colours that nobody sees.
    """
    have = pixels.shape[2]
    if have == 4:
        alpha = pixels[..., 3:].astype(np.uint32)
        ground = np.asarray(background, np.uint32)
        if channels == 4:
            colour = np.where(alpha == 0, ground, pixels[..., :3]).astype(np.uint8)
            return np.concatenate((colour, pixels[..., 3:]), axis=2)
        mixed = (pixels[..., :3] * alpha + ground * (255 - alpha) + 127) // 255
        pixels, have = mixed.astype(np.uint8), 3
    if have == 1 and channels > 1:
        pixels, have = np.repeat(pixels, 3, axis=2), 3
    if channels == 4 and have == 3:
        return np.concatenate((pixels, np.full_like(pixels[..., :1], 255)), axis=2)
    if channels == 1 and have == 3:
        # Source: ITU-R BT.601 luma, in 1/65536.
        luma = pixels @ np.array([19595, 38470, 7471], np.uint32)
        return ((luma + 32768) >> 16).astype(np.uint8)[..., None]
    return pixels


def _reduced(image: Any, least: tuple[int, int], turn: int) -> list[str]:
    """Ask the JPEG decoder for a smaller picture; returns what is to be said of that.

    What is left is scaled with Lanczos, for which it must be several times larger than the result:
    `fitted` takes the same reserve where it averages blocks itself.
    """
    height, width = least if turn < 5 else least[::-1]
    before = image.width
    scale = max(height / image.height, width / image.width) * _RESERVE
    image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
    divided = round(before / image.width)
    return [f"jpeg decoded at 1/{divided}"] if divided > 1 else []


def _verified(image: Any, file: BinaryIO) -> Any:
    """The same picture with its check sums read, past whose errors Pillow decodes in silence."""
    if image.format != "PNG":
        return image
    image.verify()  # uses the reader up
    file.seek(0)
    return Image.open(file, formats=FORMATS)


def _bits(image: Any) -> int:
    """Bits per channel in the file; Pillow widens or cuts all of them to 8 but 16-bit grey."""
    layout = image.tile[0][3] if image.tile else ""
    layout = layout if isinstance(layout, str) else ""
    if image.mode == "1":
        return 1
    if image.mode.startswith("I") or layout.endswith(";16B"):
        return 16
    return int(layout[-1]) if layout[-2:] in {";2", ";4"} else 8


def _header(image: Image.Image, turn: int, bits: int = 0) -> Header:
    height, width = image.height, image.width
    if turn >= 5:
        height, width = width, height
    alpha = image.mode in {"LA", "RGBA", "PA"} or "transparency" in image.info
    return Header(height, width, image.mode, bits or _bits(image), alpha)


def _orientation(image: Image.Image) -> tuple[int, list[str]]:
    """The EXIF orientation, 1 if there is none; broken EXIF does not spoil a good picture."""
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except FAULTS:
        return 1, ["unreadable exif ignored"]
    return (turn, []) if isinstance(turn, int) and turn in _TURNS else (1, [])


def _turned(pixels: Pixels, turn: int) -> Pixels:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    turned = np.asarray(image.transpose(_TURNS[turn]))
    return turned.reshape(*turned.shape[:2], pixels.shape[2])


def _pixels(image: Image.Image, bits: int) -> tuple[Pixels, list[str]]:
    """The decoded image as (H,W,1), (H,W,3) or (H,W,4), and the conversions that it took."""
    mode, key = image.mode, image.info.get("transparency")
    notes = ["16-bit to 8-bit"] if bits == 16 else []
    if mode == "CMYK":
        return _from_cmyk(image)
    if "icc_profile" in image.info:
        notes.append("colour profile not applied")
    if mode in {"P", "PA"}:
        notes.append("palette")
        image, key = image.convert("RGBA" if key is not None or mode == "PA" else "RGB"), None
    elif mode == "LA":
        image = image.convert("RGBA")
    elif mode == "1":
        notes.append("1-bit")
        image = image.convert("L")
    elif mode not in {"L", "RGB", "RGBA"} and not mode.startswith("I"):
        raise PictureError(f"pixels of the kind {mode} are not read")
    raw = np.asarray(image)
    raw = raw[..., None] if raw.ndim == 2 else raw
    hidden = None if key is None else np.all(raw == _key(key, bits, raw.dtype), axis=2)
    if raw.dtype != np.uint8:
        # round(x * 255 / 65535) in whole numbers; Pillow's own conversion clips to white.
        raw = (np.clip(raw, 0, 65535).astype(np.uint32) * 2 + 257) // 514
    pixels = raw.astype(np.uint8, copy=False)
    if hidden is not None:
        notes.append("transparent colour")
        alpha = np.where(hidden, 0, 255).astype(np.uint8)[..., None]
        pixels = np.concatenate((with_channels(pixels, 3, (0, 0, 0)), alpha), axis=2)
    return pixels, notes


def _key(key: Any, bits: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The one transparent colour of a PNG on the scale of the decoded pixels."""
    value = np.atleast_1d(np.asarray(key, np.int64))
    if bits == 1:  # versions of Pillow differ: 1 or 255
        return np.where(value > 0, 255, 0)
    if bits == 16:
        return value if dtype != np.uint8 else value >> 8
    return value * (255 // (2**bits - 1))


def _from_cmyk(image: Image.Image) -> tuple[Pixels, list[str]]:
    profile = image.info.get("icc_profile")
    if not profile:
        return np.asarray(image.convert("RGB")), ["cmyk"]
    try:
        source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return np.asarray(image.convert("RGB")), ["cmyk, unreadable colour profile ignored"]
    assert converted is not None
    return np.asarray(converted), ["cmyk through its colour profile"]
