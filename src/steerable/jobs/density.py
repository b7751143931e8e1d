"""Likelihood: log p(x) by the instantaneous change of variables along the probability-flow ODE.

In y = x_t / alpha over r = sigma / alpha the ODE is dy/dr = z-hat, and over l = log r

    dy/dl = r z-hat = y - x0-hat(alpha y),    d log p/dl = -div (y - x0-hat) = -(D - div_y x0-hat),

so log p(y_0) = log p(y_1) + int (D - div_y x0-hat) dl from l_0 to l_1, without a derivative of the
schedule. Source: Chen et al., arXiv 1806.07366, theorem 1; Song et al., arXiv 2011.13456, D.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.sample import level_range
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, spread

__all__ = ["EXACT", "Density", "Integral", "divergence", "log_p"]

EXACT = 64  # most numbers an item may have for the exact trace, one backward pass for each


@dataclass(frozen=True)
class Integral:
    """How log p is integrated.

    Args:
        trace: `exact` or `hutchinson`.
        probes: Probes of Hutchinson's estimate, the same ones along the whole path.
        high: Largest sigma / alpha, where the item counts as N(0, sigma^2 + alpha^2 d^2); at most
            what the schedule reaches.
        low: The sigma / alpha that counts as data: log p is the density of data with that much
            noise. The default is half a grey level; below it, data of bytes is a lattice of points
            and has no density. At least what the schedule reaches.
        tolerance: Relative and absolute, of one step of the solver.
    """

    trace: str = "exact"
    probes: int = 1
    high: float = 160.0
    low: float = 0.004
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        where = "likelihood"
        if self.trace not in ("exact", "hutchinson"):
            takes = "exact or hutchinson"
            raise UserError("E-CONFIG", where="trace", got=repr(self.trace), takes=takes)
        if not 1 <= self.probes <= 4096:
            takes = "1 to 4096 probes"
            raise UserError("E-LIMIT", where=where, got=str(self.probes), takes=takes)
        if not 0 < self.low < self.high:
            got, takes = f"low {self.low}, high {self.high}", "0 < low < high"
            raise UserError("E-LIMIT", where=where, got=got, takes=takes)
        if not 1e-10 <= self.tolerance <= 0.1:
            takes = "a tolerance from 1e-10 to 0.1"
            raise UserError("E-LIMIT", where=where, got=str(self.tolerance), takes=takes)


@dataclass(frozen=True)
class Density:
    """Log density in nats of each item, (B,) float64, and the calls of the denoiser."""

    log_p: Tensor
    calls: int


def divergence(value: Tensor, y: Tensor, probes: Tensor | None) -> Tensor:
    """Sum over d of d value_d / d y_d for each item, (B,).

    Args:
        value: A function of y, item by item, (B,*S), with its graph.
        y: Where, (B,*S).
        probes: Vectors e (K,B,*S) of independent signs for Hutchinson's estimate, the mean of
            e . (d value / d y) e; None for the exact sum, with D backward passes.
    """
    flat = value.flatten(1)
    many = flat.shape[1] if probes is None else len(probes)
    total = torch.zeros(len(y), dtype=y.dtype, device=y.device)
    for k in range(many):
        # Items do not see each other, so the gradient of a sum over them keeps them apart.
        seed = flat[:, k].sum() if probes is None else (value * probes[k]).sum()
        if not seed.requires_grad:  # a constant answer
            return total
        (row,) = torch.autograd.grad(seed, y, retain_graph=k < many - 1)
        total += row.flatten(1)[:, k] if probes is None else (row * probes[k]).flatten(1).sum(1)
    return total if probes is None else total / many


def _probes(integral: Integral, x: Tensor, noise: Noise | None) -> Tensor | None:
    dims = x[0].numel()
    if integral.trace == "exact":
        if dims > EXACT:
            got = f"the exact trace of {dims} numbers an item"
            takes, do = f"at most {EXACT}", "--trace hutchinson"
            raise UserError("E-LIMIT", where="trace", got=got, takes=takes, do=do)
        return None
    assert noise is not None, "probes are drawn from the noise"
    return torch.stack([torch.sign(noise.normal(x) + 1e-30) for _ in range(integral.probes)])


def _solver() -> Callable[..., Any]:
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        got, do = "torchdiffeq is not installed", "pip install 'steerable[ode]'"
        raise UserError("E-EXTRA", where="likelihood", got=got, do=do) from error
    return odeint


def log_p(
    ask: Ask,
    x: Tensor,
    *,
    schedule: Schedule,
    data_std: float,
    integral: Integral,
    noise: Noise | None = None,
) -> Density:
    """Log density of items x (B,*S), in nats.

    The solver chooses its steps for the batch as a whole, so an item agrees with itself in another
    batch to the tolerance.

    Args:
        ask: The denoiser with its conditions bound, differentiable in x_t.
        x: Items on the scale of the data.
        schedule: Its process.
        data_std: Standard deviation d of the data, for the law of the noised items at the top.
        integral: How to integrate.
        noise: Where the probes come from, one seed an item.

    Raises:
        UserError: E-EXTRA without torchdiffeq; E-LIMIT for an exact trace of large items; E-NUM
            where the solver finds no step.
    """
    odeint, signs, calls = _solver(), _probes(integral, x, noise), 0
    high, low = level_range(schedule, integral.high, integral.low)
    dims = x[0].numel()

    def slope(level: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        with torch.enable_grad():
            y = state[0].detach().requires_grad_()
            t = schedule.time_at(level)
            alpha, _ = schedule(t)
            x0 = ask((spread(alpha, y) * y).to(x), t).x0.to(y)
            div = dims - divergence(x0, y, None if signs is None else signs.to(y))
        return (y - x0).detach(), div.detach()

    # In float64, as the solver's sums end its step control in float32; the network keeps its own.
    start = (x.to(torch.float64), torch.zeros(len(x), dtype=torch.float64, device=x.device))
    levels = torch.stack([low, high]).to(x.device)
    options = {"rtol": integral.tolerance, "atol": integral.tolerance, "method": "dopri5"}
    try:
        with torch.no_grad():
            y, gained = (path[-1] for path in odeint(slope, start, levels, **options))
    except AssertionError as error:  # how the solver says that its steps shrink to nothing
        got = f"no step is short enough ({error})"
        raise UserError("E-NUM", where="likelihood", got=got, do="check the model") from error
    variance = math.exp(2.0 * float(high)) + data_std**2
    inner = y.flatten(1).square().sum(1) / variance
    prior = -0.5 * (inner + dims * math.log(2.0 * math.pi * variance))
    return Density(prior + gained, calls)
