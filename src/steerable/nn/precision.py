"""Guidance in float32 at least, whatever precision the network answers in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from steerable.core.types import Cond, Denoise, Estimate

__all__ = ["at_least_float32", "in_float32"]


def at_least_float32(x: Tensor) -> torch.dtype:
    """float32 for half precision, else the precision of x."""
    return torch.promote_types(x.dtype, torch.float32)


def in_float32(call: Callable[[Any, Denoise], Denoise]) -> Callable[[Any, Denoise], Denoise]:
    """A guidance's `__call__` whose arithmetic is done in float32 for questions in half precision.

    The network still gets the precision that the question came in, and so does the answer. Squares
    that are summed over an item pass 65504, where float16 ends, and a difference of two answers of
    half precision that is multiplied by a weight has lost the digits that the weight shows.
    """

    @functools.wraps(call)
    def wrapped(self: Any, denoise: Denoise) -> Denoise:
        asked = torch.float32

        def answered(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
            answer = denoise(x_t.to(asked), t, cond)
            return answer if asked == x_t.dtype else answer.to(x_t.dtype)

        guided = call(self, answered)
        if guided is answered:  # a guidance that is off costs nothing
            return denoise

        def rounded(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
            nonlocal asked
            asked, wide = x_t.dtype, at_least_float32(x_t)
            answer = guided(x_t.to(wide), t, cond)
            return answer if asked == wide else answer.to(asked)

        return rounded

    return wrapped
