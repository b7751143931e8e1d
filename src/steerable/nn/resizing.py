"""Resizing pictures, written once: two small dense matrices, one for the rows, one for the columns.

A matrix is made in float64 from the kernel alone. The centre of the picture stays the centre,
whether a size or a factor is asked for; a kernel is stretched by the factor when a picture shrinks,
so that nothing aliases; and every row sums to one. The operation is linear and its adjoint is the
product with the transposed matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

from steerable.core.errors import UserError

__all__ = ["Kernel", "check_factor", "down", "lowpass", "resized", "up", "weights"]

Kernel = Literal["box", "bilinear", "bicubic", "lanczos2", "lanczos3"]


def _box(u: Tensor) -> Tensor:
    # Half the weight on both edges, so that the kernel is symmetric where a pixel lies on one.
    return (u.abs() < 0.5).to(u) + 0.5 * (u.abs() == 0.5).to(u)


def _bilinear(u: Tensor) -> Tensor:
    return (1.0 - u.abs()).clamp(min=0.0)


def _bicubic(u: Tensor) -> Tensor:
    """Source: Keys, 1981, "Cubic convolution interpolation for digital image processing"."""
    a, u = -0.5, u.abs()
    inner = ((a + 2.0) * u - (a + 3.0)) * u**2 + 1.0
    outer = a * (((u - 5.0) * u + 8.0) * u - 4.0)
    return torch.where(u <= 1.0, inner, torch.where(u < 2.0, outer, 0.0))


def _lanczos(u: Tensor, lobes: int) -> Tensor:
    return torch.where(u.abs() < lobes, torch.sinc(u) * torch.sinc(u / lobes), 0.0)


_KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "box": _box,
    "bilinear": _bilinear,
    "bicubic": _bicubic,
    "lanczos2": lambda u: _lanczos(u, 2),
    "lanczos3": lambda u: _lanczos(u, 3),
}
assert set(_KERNELS) == set(get_args(Kernel))


def check_factor(shape: tuple[int, ...], factor: int, where: str) -> None:
    """Check that a factor divides both sides of pictures of a shape (..., H, W).

    Raises:
        UserError: E-LIMIT for a factor that is no whole number from 2 on, E-CONFIG for one that
            does not divide, with those that do.
    """
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 2:
        takes = "a whole number from 2 on"
        raise UserError("E-LIMIT", where=f"{where}, factor", got=str(factor), takes=takes)
    height, width = shape[-2:]
    if height % factor or width % factor:
        both = math.gcd(height, width)
        dividing = [str(n) for n in range(2, both + 1) if both % n == 0]
        got = f"{factor} does not divide {height} x {width}"
        takes = ", ".join(dividing) or f"none: {height} and {width} have no common divisor"
        raise UserError("E-CONFIG", where=f"{where}, factor", got=got, takes=takes)


@lru_cache(maxsize=256)
def weights(before: int, after: int, kernel: Kernel, scale: float) -> Tensor:
    """The matrix (after, before) that resizes a line of pixels, float64; do not write into it.

    Pixel i of the new line stands at c + (i - (after - 1) / 2) / scale with c = (before - 1) / 2:
    both lines have the same centre. Beyond the border there is nothing, and the weights that are
    left sum to one again.

    Args:
        before: Pixels of the line.
        after: Pixels of the new line.
        kernel: `box`, `bilinear`, `bicubic` (a = -1/2), `lanczos2` or `lanczos3`.
        scale: New pixels for one old pixel; below 1 the kernel is stretched by 1 / scale.
    """
    assert before >= 1 and after >= 1 and scale > 0
    new = torch.arange(after, dtype=torch.float64) - (after - 1) / 2
    old = torch.arange(before, dtype=torch.float64) - (before - 1) / 2
    raw = _KERNELS[kernel]((new[:, None] / scale - old) * min(scale, 1.0))
    total = raw.sum(1, keepdim=True)
    assert bool((total > 1e-3).all()), "a new pixel lies outside of the old picture"
    return raw / total


def _applied(
    x: Tensor, size: tuple[int, int], kernel: Kernel, scale: tuple[float, float]
) -> Tensor:
    rows, columns = (
        weights(before, after, kernel, s).to(x)
        for before, after, s in zip(x.shape[-2:], size, scale, strict=True)
    )
    return rows @ x @ columns.mT


def resized(x: Tensor, size: tuple[int, int], kernel: Kernel = "bicubic") -> Tensor:
    """Pictures x (B,C,H,W) in another size (H', W'), each side by its own ratio.

    Constants are exact everywhere. Away from the border linear ramps are exact when a side shrinks
    by a whole factor, and when it grows with `bilinear` or `bicubic`; when it grows with Lanczos
    they are off by up to 0.03 of the step from pixel to pixel. Differentiable.
    """
    height, width = x.shape[-2:]
    return _applied(x, size, kernel, (size[0] / height, size[1] / width))


def down(x: Tensor, factor: int, kernel: Kernel = "bicubic") -> Tensor:
    """Pictures x (B,C,H,W) shrunk by a whole factor; a side that it does not divide is rounded up.

    Then the outermost new pixels reach over the border by the same amount on both sides.
    """
    size = (math.ceil(x.shape[-2] / factor), math.ceil(x.shape[-1] / factor))
    return _applied(x, size, kernel, (1.0 / factor, 1.0 / factor))


def up(
    x: Tensor, factor: int, kernel: Kernel = "bicubic", *, size: tuple[int, int] | None = None
) -> Tensor:
    """Pictures x (B,C,H,W) enlarged by a whole factor, or to what `down` has made them of.

    Args:
        x: The pictures.
        factor: New pixels a side for one old pixel.
        kernel: As in `weights`.
        size: The sides (H', W') to cut to, about the centre; (factor H, factor W) by default.
    """
    whole = (x.shape[-2] * factor, x.shape[-1] * factor)
    return _applied(x, size or whole, kernel, (float(factor), float(factor)))


def lowpass(x: Tensor, factor: int, kernel: Kernel = "bicubic") -> Tensor:
    """phi(x) = up(down(x)), of pictures (B,C,H,W): what is left of them at a lower resolution.

    With `box` and a factor that divides both sides this is the mean of each block, a projection:
    phi(phi(x)) = phi(x). The other kernels are none: with `bicubic` |phi phi - phi| / |phi| is 0.18
    for the matrix of one side and 0.27 on a picture of white noise (less on smooth ones), so that
    phi(x) = phi(y) can then be reached only approximately.
    """
    size = (x.shape[-2], x.shape[-1])
    return up(down(x, factor, kernel), factor, kernel, size=size)
