"""The exact denoiser of a finite set of items: the optimum of every loss, and the memoriser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from steerable.core.condition import absent
from steerable.core.errors import UserError
from steerable.core.schedule import Schedule
from steerable.core.types import Cond, Estimate, Range, spread

__all__ = ["Points"]


@dataclass(frozen=True)
class Points:
    """E[x0 | x_t] for p(x0) = 1/N sum_n delta(x0 - x_n) under a schedule.

    x0 = sum_n w_n x_n, w = softmax(-|x_t - alpha x_n|^2 / (2 sigma^2)), whatever target and weight
    a loss has. The square is multiplied out, so that distances are one matrix product, and |x_t|^2
    drops out of the softmax; in float64, since the powers are large at low noise. The sum runs over
    chunks with a running maximum, so memory does not grow with N.
    Source: arXiv 2506.13763, section 3.

    Args:
        schedule: The process whose x_t is asked about.
        x: The items, (N,*S) of any shape.
        cond: Conditions of the items, (N,...) by name. Where the question names one of them, only
            items of exactly that value count; an absent value means all.
        chunk: Items whose distances are computed together.

    Raises:
        UserError: E-LABEL when asked for values that no item has.
    """

    schedule: Schedule
    x: Tensor
    cond: Mapping[str, Tensor] = field(default_factory=dict)
    chunk: Annotated[int, Range(1, 1 << 24)] = 4096

    def __call__(self, x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
        """The exact estimate for x_t (B,*S) at times t () or (B,)."""
        alpha, sigma = self.schedule(t)
        flat = x_t.flatten(1).to(torch.float64)
        a, s = (spread(v.to(torch.float64), flat) for v in (alpha, sigma))
        top = torch.full((len(flat), 1), -torch.inf, dtype=flat.dtype, device=flat.device)
        total, mean = torch.zeros_like(top), torch.zeros_like(flat)
        for x, wrong in self._chunks(cond, flat):
            log = (a * (flat @ x.mT) - a**2 * x.square().sum(1) / 2) / s**2
            log = log.masked_fill(wrong, -torch.inf)
            high = torch.maximum(top, log.amax(1, keepdim=True))
            safe = high.where(high.isfinite(), 0.0)  # while no item has counted yet
            share, shrink = torch.exp(log - safe), torch.exp(top - safe)
            total = total * shrink + share.sum(1, keepdim=True)
            mean, top = mean * shrink + share @ x, high
        if not bool((total > 0).all()):
            got = "values that no item has"
            raise UserError("E-LABEL", where=", ".join(self.cond), got=got, takes="those of items")
        return Estimate((mean / total).reshape(x_t.shape).to(x_t.dtype), x_t, alpha, sigma)

    def _chunks(self, cond: Cond, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Items (n,D) that count for anybody, and for whom each does not, (B,n)."""
        for i in range(0, len(self.x), self.chunk):
            rows = slice(i, i + self.chunk)
            wrong = torch.zeros(len(like), len(self.x[rows]), dtype=torch.bool, device=like.device)
            for name in self.cond.keys() & cond.keys():
                wrong |= _differs(cond[name], self.cond[name][rows])
            some = ~wrong.all(0)
            if bool(some.any()):
                yield self.x[rows].flatten(1).to(like)[some], wrong[:, some]


def _differs(asked: Tensor, own: Tensor) -> Tensor:
    """Whether present values (B,...) differ from those of items (n,...), (B,n); -1 pads words."""
    asked, own = asked.reshape(len(asked), -1), own.reshape(len(own), -1)
    length = max(asked.shape[1], own.shape[1])
    a, b = (F.pad(v, (0, length - v.shape[1]), value=-1) for v in (asked, own))
    return (a[:, None] != b[None]).any(2) & ~absent(asked)[:, None]
