"""What multistep solvers share: a history of answers, and integrals of the curve through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from steerable.core.schedule import Schedule
from steerable.core.types import Estimate, spread

__all__ = ["History", "adams", "extended", "lagrange_integrals"]

History = tuple[tuple[Tensor, Tensor], ...]  # (level (), answer (B,*S)), the newest first


def extended(
    history: History | None, level: Tensor, answer: Tensor, *, ahead: Tensor, most: int
) -> History:
    """The history with one more answer in front, cut to `most` entries.

    It begins anew where the path turns round on its way to the level `ahead`: a climb comes back
    to levels that are in the history, and no curve goes through one place twice.
    """
    before = history or ()
    if before and bool((before[0][0] - level) * (level - ahead) <= 0):
        before = ()
    return ((level, answer), *before)[:most]


def adams(
    estimate: Estimate, history: History, weights: Sequence[Tensor], schedule: Schedule, s: Tensor
) -> Tensor:
    """x_s (B,*S) with x_s / alpha_s = x_t / alpha_t + sum_j weights_j z_j.

    The weights sum to r_s - r_t, r = sigma / alpha. With x_t = alpha_t x0 + sigma_t z_0 put in the
    right side is x0 + r_s z_0 + sum_j weights_j (z_j - z_0): the large terms x_t / alpha_t and
    r_t z_0, of which float32 would keep few digits, are gone.

    Args:
        estimate: The newest answer, at x_t.
        history: The last noises z-hat, that of `estimate` first.
        weights: One () for each of them, in r.
        schedule: The process.
        s: The time at the end of the step, ().
    """
    alpha_s, sigma_s = schedule(s)
    (_, newest), *past = history
    x_s = spread(alpha_s, newest) * estimate.x0 + spread(sigma_s, newest) * newest
    for weight, (_, z) in zip(weights[1:], past, strict=True):
        x_s = x_s + spread(alpha_s * weight.to(alpha_s), z) * (z - newest)
    return x_s


@lru_cache(maxsize=1)
def _gauss() -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1] of the Gauss-Legendre rule of degree 31."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    return torch.tensor((nodes + 1) / 2), torch.tensor(weights / 2)


def lagrange_integrals(
    levels: Tensor, start: Tensor, end: Tensor, variable: Callable[[Tensor], Tensor]
) -> Tensor:
    """Integrals of the Lagrange polynomials L_j over r = sigma / alpha from `start` to `end`.

    L_j(u) is 1 at the level j and 0 at the others, a polynomial in u = variable(log r); the
    integral of L_j(u(log r)) exp(log r) over log r is that of Gauss and Legendre with 16 nodes,
    exact to rounding for steps below 2 in log r.

    Args:
        levels: log(sigma / alpha) of the answers, (K,) float64.
        start: log(sigma / alpha) at the start of the step, ().
        end: log(sigma / alpha) at its end, ().
        variable: The variable of the polynomials as a function of log(sigma / alpha).

    Returns:
        The weights of the answers, (K,).
    """
    nodes, weights = _gauss()
    at = start.cpu() + (end - start).cpu() * nodes
    u, known = variable(at), variable(levels.cpu())
    basis = torch.ones(len(levels), len(nodes), dtype=torch.float64)
    for j in range(len(levels)):
        for k in range(len(levels)):
            if k != j:
                basis[j] *= (u - known[k]) / (known[j] - known[k])
    return (basis * (at.exp() * weights)).sum(1) * (end - start).cpu()
