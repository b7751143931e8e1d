"""Flat shapes with smooth edges on black, drawn and read back.

Every shape has area 1 and its centroid at (0, 0), so scale and place mean the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from steerable.core.errors import UserError

__all__ = ["SHAPES", "Seen", "checked_seed", "colour", "covered", "seen"]

Floats = NDArray[np.float32]
Inside = Callable[[Floats, Floats], NDArray[np.bool_]]

_SAMPLES = 4  # per pixel and side, so 17 levels of an edge
_CHUNK = 2**22  # samples in memory at a time
_HAZE = 0.1  # what a generated picture may be off black or off full
_LEAST = 0.01  # share of a picture below which nothing is in it


def _star(u: Floats, v: Floats) -> NDArray[np.bool_]:
    """Five tips at radius 1, five notches at 0.42, straight edges between them."""
    fifth = math.pi / 5
    angle = np.abs(np.mod(np.arctan2(u, -v) + fifth, 2 * fifth) - fifth)
    rise, run = 0.42 * math.sin(fifth), 1 - 0.42 * math.cos(fifth)
    return np.hypot(u, v) * (rise * np.cos(angle) + run * np.sin(angle)) <= rise


# Inside or not, in coordinates of about [-1.2, 1.2], u to the right and v down.
SHAPES: dict[str, Inside] = {
    "disc": lambda u, v: u**2 + v**2 <= 1,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) <= 1,
    "triangle": lambda u, v: (v <= 0.5) & (np.abs(u) * math.sqrt(3) <= v + 1),
    "cross": lambda u, v: (
        (np.minimum(np.abs(u), np.abs(v)) <= 1 / 3) & (np.maximum(np.abs(u), np.abs(v)) <= 1)
    ),
    "ring": lambda u, v: np.abs(u**2 + v**2 - 0.68) <= 0.32,
    "star": _star,
    "diamond": lambda u, v: np.abs(u) / 0.65 + np.abs(v) <= 1,
    "bar": lambda u, v: (np.abs(u) <= 1) & (np.abs(v) <= 0.3),
    "crescent": lambda u, v: (u**2 + v**2 <= 1) & ((u - 0.5) ** 2 + v**2 > 0.64),
    "heart": lambda u, v: (u**2 + v**2 - 1) ** 3 + u**2 * v**3 <= 0,
}


@lru_cache(maxsize=len(SHAPES))
def _measures(shape: str) -> tuple[float, float, float]:
    """Root of the area and centroid (u, v) of a shape as it is written above."""
    line = ((np.arange(1024) + 0.5) / 1024 * 2.6 - 1.3).astype(np.float32)
    inside = SHAPES[shape](line[None, :], line[:, None])
    area = float(inside.mean()) * 2.6**2
    rows, columns = inside.sum(1), inside.sum(0)
    return math.sqrt(area), float(columns @ line / columns.sum()), float(rows @ line / rows.sum())


def covered(
    shape: str, centre: NDArray[np.floating], scale: NDArray[np.floating], *, size: tuple[int, int]
) -> Floats:
    """Which share of every pixel a shape covers, (N,H,W) from 0 to 1.

    Args:
        shape: Key of `SHAPES`.
        centre: Centroids (N,2) in pixels, to the right and down from the upper left corner.
        scale: Roots of the areas (N,) in pixels.
        size: Rows and columns.
    """
    unit, middle_u, middle_v = _measures(shape)
    height, width = size
    zoom = (unit / scale).astype(np.float32)[:, None]
    place = (np.arange(max(size) * _SAMPLES, dtype=np.float32) + 0.5) / _SAMPLES
    across = (place[: width * _SAMPLES] - centre[:, :1].astype(np.float32)) * zoom + middle_u
    down = (place[: height * _SAMPLES] - centre[:, 1:].astype(np.float32)) * zoom + middle_v
    found = np.empty((len(centre), height, width), np.float32)
    step = max(1, _CHUNK // (height * width * _SAMPLES**2))
    for start in range(0, len(centre), step):
        part = slice(start, start + step)
        inside = SHAPES[shape](across[part, None, :], down[part, :, None])
        blocks = inside.reshape(len(inside), height, _SAMPLES, width, _SAMPLES)
        found[part] = blocks.mean((2, 4), dtype=np.float32)
    return found


def checked_seed(seed: int, where: str) -> int:
    """A seed that a generator takes.

    Raises:
        UserError: E-LIMIT for one below 0.
    """
    if seed < 0:
        raise UserError("E-LIMIT", where=f"{where} seed", got=str(seed), takes="0 or more")
    return seed


def colour(hue: NDArray[np.floating]) -> Floats:
    """Red, green and blue (N,3) of full colours; the hue (N,) goes once round from 0 to 1."""
    sixths = np.mod(hue, 1.0)[:, None] * 6
    ramps = [np.abs(sixths - 3) - 1, 2 - np.abs(sixths - 2), 2 - np.abs(sixths - 4)]
    return np.clip(np.concatenate(ramps, 1), 0, 1).astype(np.float32)


@dataclass(frozen=True)
class Seen:
    """What is read from pictures of one shape each, on black.

    Attributes:
        cover: Share of every pixel that the shape covers, (N,H,W).
        centre: Centroids (N,2) in pixels, NaN for a picture with nothing in it; so are the others.
        scale: Roots of the areas (N,) in pixels.
        paint: Mean colours (N,3), the largest part 1.
    """

    cover: Floats
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    paint: NDArray[np.float64]


def seen(pictures: NDArray[np.uint8]) -> Seen:
    """Read pictures (N,3,H,W) by their moments.

    The cover of a full colour is its largest part. Noise near black and near full is cut off, the
    same at both ends, so that the area of a smooth edge stays what it is.
    """
    height, width = pictures.shape[2:]
    cover = (pictures.max(1).astype(np.float32) / 255 - _HAZE) / (1 - 2 * _HAZE)
    cover = np.clip(cover, 0, 1)
    area = cover.sum((1, 2), dtype=np.float64)
    area = np.where(area >= _LEAST * height * width, area, np.nan)
    across = cover.sum(1) @ (np.arange(width) + 0.5)
    down = cover.sum(2) @ (np.arange(height) + 0.5)
    paint = np.einsum("nchw,nhw->nc", pictures, cover, dtype=np.float64) / area[:, None]
    centre = np.stack([across, down], 1) / area[:, None]
    return Seen(cover, centre, np.sqrt(area), paint / paint.max(1, keepdims=True))
