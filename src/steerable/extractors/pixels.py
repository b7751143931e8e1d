"""The picture itself, made small: no network, no training data, no opinion."""

from __future__ import annotations

from typing import Annotated, final

import torch
from torch import Tensor

from steerable.core.types import Range
from steerable.nn.extraction import check_pictures, digest

__all__ = ["Pixels"]

CHUNK = 256  # pictures in float64 at a time


@final
class Pixels:
    """The means of the areas of a grid over the picture, in [-1, 1]; needs no network.

    A feature is one area of one channel: colours and coarse shape, not what is shown. It is the
    fallback for data without labels, where no judge can be trained. A side of at most `side` pixels
    is taken as it is.

    Args:
        side: Most rows and columns of the grid.
    """

    def __init__(self, *, side: Annotated[int, Range(1, 64)] = 16) -> None:
        self.side = side
        self.name = f"pixels (means of at most {side} x {side} areas)"
        self.sha256 = digest({}, {"extractor": "pixels", "side": side})

    def features(self, x: Tensor) -> Tensor:
        """Features (N,C*h*w) float64 of pictures (N,C,H,W) uint8 with h = min(H, side), likewise w.

        Raises:
            UserError: E-SHAPE for anything else.
        """
        check_pictures(x, "pixels")
        height, width = (min(self.side, side) for side in x.shape[2:])
        rows, columns = _areas(x.shape[2], height), _areas(x.shape[3], width)
        features = torch.empty(len(x), x.shape[1] * height * width, dtype=torch.float64)
        for start in range(0, len(x), CHUNK):
            part = x[start : start + CHUNK].to("cpu", torch.float64)
            means = rows @ part @ columns.T
            features[start : start + CHUNK] = means.flatten(1) / 127.5 - 1.0
        return features


def _areas(before: int, after: int) -> Tensor:
    """The matrix (after, before) of means over equal parts of a line; shared pixels are split."""
    step = before / after
    start = torch.arange(after, dtype=torch.float64)[:, None] * step
    pixel = torch.arange(before, dtype=torch.float64)
    shared = torch.minimum(start + step, pixel + 1.0) - torch.maximum(start, pixel)
    return shared.clamp(min=0.0) / step
