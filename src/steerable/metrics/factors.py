"""Hue, place and size of what is in a picture, and how they vary within every class."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.intake.drawing import seen

__all__ = ["Factors"]

NAMES = ("hue", "x", "y", "scale")
_SEAM = 0.875  # hues above count as below 0: between violet and red, where few colours are


class Factors:
    """Running sums of the factors of one shape a picture on black, by wanted class.

    Generated pictures that are copies of one prototype have the right class and no spread, so
    compare the standard deviations with those of real pictures.

    Args:
        classes: Number of classes.
    """

    def __init__(self, classes: int) -> None:
        assert classes >= 1, "at least one class"
        self.blank = torch.zeros(classes, dtype=torch.int64)
        self.counts = torch.zeros(classes, dtype=torch.int64)
        self.powers = torch.zeros(4, classes, len(NAMES), dtype=torch.float64)  # sums f .. f^4

    @staticmethod
    def recovered(x: Tensor) -> Tensor:
        """Factors (B,4) float64 of pictures (B,3,H,W) uint8, NaN where nothing is drawn.

        The hue goes once round from 0 (red), with 0.875 to 1 counted as -0.125 to 0; x and y are
        those of the centroid off the middle, in widths and heights, right and down; the scale is
        the root of the area's share of the picture.
        """
        assert x.dtype == torch.uint8 and x.ndim == 4 and x.shape[1] == 3, "(B,3,H,W) uint8"
        height, width = x.shape[2:]
        found = seen(x.cpu().numpy())
        place = found.centre / (width, height) - 0.5
        scale = found.scale / np.sqrt(height * width)
        columns = np.concatenate([_hue(found.paint)[:, None], place, scale[:, None]], 1)
        return torch.from_numpy(columns)

    def update(self, x: Tensor, wanted: Tensor) -> None:
        """Add pictures (B,3,H,W) uint8 and their wanted classes (B,) int64."""
        classes = len(self.counts)
        wanted = wanted.to("cpu", torch.int64)
        assert wanted.shape == x.shape[:1] and bool(((wanted >= 0) & (wanted < classes)).all())
        rows = self.recovered(x)
        blank = rows.isnan().any(1)
        self.blank += torch.bincount(wanted[blank], minlength=classes)
        self.counts += torch.bincount(wanted[~blank], minlength=classes)
        for power, sums in enumerate(self.powers, start=1):
            sums.index_add_(0, wanted[~blank], rows[~blank] ** power)

    def merge(self, other: Factors) -> None:
        """Add all that another one has seen."""
        assert self.counts.shape == other.counts.shape, "the same classes"
        self.blank += other.blank
        self.counts += other.counts
        self.powers += other.powers

    def value(self) -> dict[str, Any]:
        """Plain JSON: `n`, `blank` pictures, and `per_class` with the four factors by name.

        A factor has its `mean` and unbiased `std`, each with its standard error; None stands for a
        class with less than two pictures.

        Raises:
            UserError: E-EVAL when no picture shows anything.
        """
        n = int(self.counts.sum())
        if n == 0:
            got = f"{int(self.blank.sum())} pictures, none with anything in it"
            raise UserError("E-EVAL", where="factors", got=got, takes="1 or more")
        rows = [
            {"n": count, "blank": blank, **self._spread(i, count)} if count > 1 else None
            for i, (count, blank) in enumerate(
                zip(self.counts.tolist(), self.blank.tolist(), strict=True)
            )
        ]
        return {"n": n, "blank": int(self.blank.sum()), "per_class": rows}

    def _spread(self, i: int, n: int) -> dict[str, dict[str, float]]:
        m1, m2, m3, m4 = self.powers[:, i] / n
        variance = (m2 - m1**2).clamp(min=0)
        fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
        std = (variance * n / (n - 1)).sqrt()
        # The delta method: var(s^2) = (m4 - s^4) / n, and ds = ds^2 / 2s.
        shake = ((fourth - variance**2).clamp(min=0) / n).sqrt() / (2 * std.clamp(min=1e-12))
        parts = {"mean": m1, "mean_error": std / n**0.5, "std": std, "std_error": shake}
        return {
            name: {key: float(value[k]) for key, value in parts.items()}
            for k, name in enumerate(NAMES)
        }


def _hue(paint: np.ndarray) -> np.ndarray:
    """Hue (N,) of colours (N,3), the inverse of the colour wheel of six straight ramps."""
    red, green, blue = paint.T
    high, chroma = paint.max(1), np.maximum(np.ptp(paint, axis=1), 1e-12)
    sixths = np.select(
        [red == high, green == high],
        [(green - blue) / chroma, 2 + (blue - red) / chroma],
        4 + (red - green) / chroma,
    )
    turns = np.mod(sixths / 6, 1.0)
    return np.where(np.isnan(high), np.nan, np.where(turns > _SEAM, turns - 1, turns))
