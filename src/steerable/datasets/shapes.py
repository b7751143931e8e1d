"""Ten shapes in colour whose hue, place and size are known exactly: a world to measure against."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray

from steerable.core.types import Dataset, Range, Spec, Splits
from steerable.intake.drawing import SHAPES, checked_seed, colour, covered

__all__ = ["shapes"]

# The hue stops at violet: at red again, equal colours would have numbers far apart. Places and
# sizes are such that no shape is ever cut.
_FACTORS = {"hue": (0.0, 0.75), "x": (-0.1, 0.1), "y": (-0.1, 0.1), "scale": (0.28, 0.42)}
_EVERY = 5  # block of the ten classes that is held out


def shapes(
    *,
    size: Annotated[int, Range(16, 64)] = 32,
    count: Annotated[int, Range(100, 100_000)] = 6000,
    seed: Annotated[int, Range(0, 2**31)] = 0,
    attributes: bool = False,
) -> Splits:
    """One shape a picture, in a full colour on black; classes take turns, a fifth is held out.

    Four factors are drawn evenly and independently, of each other and of the class: the hue from 0
    (red) to 0.75 (violet) of a turn; x and y of the centroid, from -0.1 to 0.1 of the side off the
    middle, right and down; the scale, which is the root of the area, from 0.28 to 0.42 of the side.
    A larger count begins with the same pictures.

    Args:
        size: Rows and columns.
        count: Pictures in both parts together.
        seed: Seed of the factors.
        attributes: Whether the four factors are a condition too, `attributes`, each in [-1, 1].
    """
    share = np.random.default_rng(checked_seed(seed, "shapes")).random((count, len(_FACTORS)))
    low, high = np.array(list(_FACTORS.values())).T
    label = np.arange(count) % len(SHAPES)
    x = torch.from_numpy(_drawn(low + share * (high - low), label, size))
    cond = {"label": torch.from_numpy(label)}
    if attributes:
        cond["attributes"] = torch.from_numpy((share * 2 - 1).astype(np.float32))
    out = torch.arange(count) // len(SHAPES) % _EVERY == 0
    std = float((x[~out].to(torch.float64) / 127.5).std(correction=0))
    vectors = {"attributes": tuple(_FACTORS)} if attributes else {}
    spec = Spec("shapes", (3, size, size), {"label": tuple(SHAPES)}, vectors, std=std)
    every = Dataset(spec, x, cond)
    report: dict[str, Any] = {
        "source": f"drawn, seed {seed}",
        "split": f"held out: the classes in turn, every {_EVERY}th round",
        "factors": {name: list(ends) for name, ends in _FACTORS.items()},
    }
    return Splits(every.take((~out).nonzero()[:, 0]), every.take(out.nonzero()[:, 0]), report)


def _drawn(factors: NDArray[np.float64], label: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """Pictures (N,3,size,size) of factors (N,4) in their own units."""
    x = np.empty((len(label), 3, size, size), np.uint8)
    for i, shape in enumerate(SHAPES):
        these = label == i
        hue, place, scale = factors[these, 0], factors[these, 1:3], factors[these, 3]
        cover = covered(shape, (place + 0.5) * size, scale * size, size=(size, size))
        paint = colour(hue)[:, :, None, None] * cover[:, None]
        x[these] = (paint * 255 + 0.5).astype(np.uint8)
    return x
