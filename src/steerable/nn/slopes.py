"""What guidances by a measurement share that take gradients through the network."""

from __future__ import annotations

from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.types import Estimate

__all__ = ["check_numbers", "check_slope", "freed"]


def check_numbers(measured: Tensor, kind: str) -> None:
    """Check a measurement before a gradient spreads what is not a number over the picture.

    Raises:
        UserError: E-DATA for one that is not finite, given to the guidance of this kind.
    """
    if not bool(measured.isfinite().all()):
        do = "put 0 where nothing was measured"
        got = "values that are not finite"
        raise UserError("E-DATA", where=f"{kind}, measured", got=got, do=do)


def check_slope(estimate: Estimate, kind: str) -> None:
    """Check that a gradient of the estimate can be taken.

    Raises:
        UserError: E-CONFIG if a guidance before the one of this kind has cut it off.
    """
    if not estimate.x0.requires_grad:
        got, takes = "after a guidance that takes gradients itself", f"{kind} before it"
        raise UserError("E-CONFIG", where=f"guidance '{kind}'", got=got, takes=takes)


def freed(terms: tuple[tuple[float, Tensor], ...]) -> tuple[tuple[float, Tensor], ...]:
    """The terms of a product without their graph."""
    return tuple((exponent, x0.detach()) for exponent, x0 in terms)
