"""Composition: several conditions at once, each with a weight of its own, and some to avoid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from steerable.core.condition import absent, absent_like
from steerable.core.errors import UserError
from steerable.core.steer import Guidance
from steerable.core.types import Cond, Denoise, Estimate, Range
from steerable.nn.precision import in_float32

__all__ = ["Compose"]


@dataclass(frozen=True, kw_only=True)
class Compose(Guidance):
    """x0 = u + sum_i w_i (c_i - u): terms that hold together (AND), or with w_i < 0 do not (NOT).

    u is the estimate without a condition, or with `away`, a negative prompt, the one of what the
    picture should not be. The wish's own conditions are a term of weight `weight`; an item that
    wishes for nothing has the others only. The sum is the score of p_u^(1 - sum w) prod p_i^w_i of
    the noised laws, which is not the noised product: even with exact scores the samples miss the
    product law, in the weights of its modes above all. The sampler `smc` corrects for it, with the
    exponents in `Estimate.terms`. OR needs no guidance: a label "shirt|dress" draws the class
    of each picture. Calls: one for each term and two more, all in one longer batch.
    Source: Liu et al., arXiv 2206.01714; the bias: Du et al., arXiv 2302.11552.

    Args:
        written: The rows of conditions as people write them.
        terms: Further terms, such as [{cond: {label: boot}, weight: 1.5}]; without a weight it is
            1. A term has its own conditions only, none of the wish's.
        away: Conditions that u stands for; none by default.
        weight: Weight of the wish's own conditions.
        start: Guidance is at work from this time on (1 is pure noise) ...
        stop: ... down to this time (0 is data); outside, the wish's own estimate is used.

    Raises:
        UserError: E-CONFIG for a term of another form, E-LIMIT for its weight.
    """

    written: Callable[[Mapping[str, Any]], dict[str, Tensor]]
    terms: list[dict[str, Any]] = field(default_factory=list)
    away: dict[str, Any] = field(default_factory=dict)
    weight: Annotated[float, Range(-100, 100)] = 1.0

    def __post_init__(self) -> None:
        for term in self.terms:
            cond, weight = term.get("cond"), term.get("weight", 1.0)
            good = isinstance(cond, Mapping) and cond and isinstance(weight, int | float)
            if not good or not set(term) <= {"cond", "weight"}:
                got, takes = repr(term)[:80], "{cond: {NAME: VALUE}, weight: 1.5}"
                raise UserError("E-CONFIG", where="compose.terms", got=got, takes=takes)
            if not -100 <= weight <= 100:
                got, takes = f"weight {weight}", "-100 to 100"
                raise UserError("E-LIMIT", where="compose.terms", got=got, takes=takes)

    @in_float32
    def __call__(self, denoise: Denoise) -> Denoise:
        if not self.terms and self.weight == 1.0:
            return denoise
        away = self.written(self.away) if self.away else {}
        rows = [self.written(term["cond"]) for term in self.terms]
        weights = [self.weight, *(float(term.get("weight", 1.0)) for term in self.terms)]

        def guided(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
            if not self.active(t):
                return denoise(x_t, t, cond)
            plain, (own, u, *others) = _answers(denoise, x_t, t, [cond, away, *rows])
            wishes = _present(cond, own)
            if self.terms:
                own = torch.where(wishes, own, u)  # who wishes for nothing has the terms alone
            else:
                u = torch.where(wishes, u, own)  # ... and has nothing to keep away from
            x0 = u
            for weight, c in zip(weights, [own, *others], strict=True):
                x0 = x0 + weight * (c - u)
            factors = zip(weights, [own, *others], strict=True)
            return replace(plain, x0=x0, terms=(*factors, (1.0 - sum(weights), u)))

        return guided


def _present(cond: Cond, like: Tensor) -> Tensor:
    """Which items wish for anything, to be broadcast over `like` (B,*S)."""
    found = torch.zeros(len(like), dtype=torch.bool, device=like.device)
    for value in cond.values():
        found |= ~absent(value).to(like.device)
    return found.reshape(-1, *[1] * (like.ndim - 1))


def _answers(
    denoise: Denoise, x_t: Tensor, t: Tensor, conds: Sequence[Cond]
) -> tuple[Estimate, list[Tensor]]:
    """The question as such, and x0-hat under each of the conditions, from one longer batch."""
    n, copies = len(x_t), len(conds)
    examples = {name: value for cond in conds for name, value in cond.items()}
    longer = {
        name: _joined([cond.get(name, absent_like(example)) for cond in conds])
        for name, example in examples.items()
    }
    times = t if t.ndim == 0 else t.repeat(copies)
    answer = denoise(torch.cat([x_t] * copies), times, longer)
    alpha, sigma = (a if a.ndim == 0 else a[:n] for a in (answer.alpha, answer.sigma))
    parts = list(answer.x0.unflatten(0, (copies, n)))
    return Estimate(parts[0], x_t, alpha, sigma), parts


def _joined(values: Sequence[Tensor]) -> Tensor:
    """Values (B,...) one after the other; sentences (B,L) of different lengths are padded."""
    if values[0].ndim == 2 and not values[0].is_floating_point():
        length = max(value.shape[1] for value in values)
        values = [F.pad(value, (0, length - value.shape[1]), value=-1) for value in values]
    return torch.cat(list(values))
