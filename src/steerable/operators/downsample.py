"""Seeing a picture at a lower resolution."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import torch
from torch import Tensor

from steerable.core.steer import Operator
from steerable.core.types import Range
from steerable.nn.resizing import Kernel, check_factor, down, weights

__all__ = ["Downsample"]


@lru_cache(maxsize=64)
def _spectrum(matrix: tuple[int, int, Kernel, float]) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of R R^T for the matrix R of one side, float64."""
    rows = weights(*matrix)
    values, basis = torch.linalg.eigh(rows @ rows.mT)
    return values.clamp(min=0.0), basis


@dataclass(frozen=True, kw_only=True)
class Downsample(Operator):
    """y = down(x): every side is shrunk by a whole factor, with antialiasing.

    A = R (x) C with one small matrix for the rows and one for the columns, so that everything is
    closed: the nearest point is found in the eigenvectors of R R^T and C C^T.
    Source: Zhu et al., arXiv 2305.08995.

    Args:
        factor: Whole number that divides both sides of the picture.
        kernel: `box` (the mean of each block), `bilinear`, `bicubic`, `lanczos2` or `lanczos3`.

    Raises:
        UserError: E-LIMIT or E-CONFIG, at the first picture, for a factor that is not whole or
            does not divide.
    """

    factor: Annotated[int, Range(2, 512)] = 2
    kernel: Kernel = "box"

    def __call__(self, x: Tensor) -> Tensor:
        """Small pictures (B,C,H/N,W/N) of pictures (B,C,H,W)."""
        check_factor(tuple(x.shape), self.factor, "downsample")
        return down(x, self.factor, self.kernel)

    def adjoint(self, y: Tensor) -> Tensor:
        """R^T y C, pictures (B,C,H,W)."""
        rows, columns = (weights(*matrix).to(y) for matrix in self._matrices(y))
        return rows.mT @ y @ columns

    def nearest(self, x: Tensor, y: Tensor, weight: float) -> Tensor:
        """X + A^T (A A^T + weight)^-1 (y - A x), solved in float64."""
        rest = y.to(torch.float64) - self(x.to(torch.float64))
        (a, left), (b, right) = (_spectrum(matrix) for matrix in self._matrices(y))
        a, left, b, right = (v.to(rest) for v in (a, left, b, right))
        inner = (left.mT @ rest @ right) / (a[:, None] * b + weight)
        return x + self.adjoint(left @ inner @ right.mT).to(x)

    def _matrices(self, y: Tensor) -> list[tuple[int, int, Kernel, float]]:
        """Arguments of the matrices of rows and columns for measurements y."""
        return [(n * self.factor, n, self.kernel, 1.0 / self.factor) for n in y.shape[-2:]]
