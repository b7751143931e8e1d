"""One step of Heun's method, which several samplers are made of."""

from __future__ import annotations

from torch import Tensor

from steerable.core.schedule import Schedule
from steerable.core.types import Ask, spread

__all__ = ["trapezium"]


def trapezium(
    ask: Ask, x_t: Tensor, t: Tensor, s: Tensor, schedule: Schedule, *, line: bool = True
) -> Tensor:
    """From x_t (B,*S) at t to x_s at s, an Euler step and then the mean of both slopes; two calls.

    On the line, with u = sigma / (alpha + sigma) and y = x / (alpha + sigma), dy/du = z-hat - x0;
    else d(x / alpha) / d(sigma / alpha) = z-hat. The ODE is the same. On the line no step is ever
    long, since u is at most 1; in the ratio a first step from 10^4, where grids in t begin, gives
    half of its length to the slope at its end, and few steps end in noise.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    scale = (alpha_s + sigma_s) / (alpha_t + sigma_t) if line else alpha_s / alpha_t
    kept, rise = spread(scale, x_t) * x_t, spread(sigma_s - scale * sigma_t, x_t)
    first = ask(x_t, t)
    slope = first.velocity if line else first.noise
    second = ask(kept + rise * slope, s)
    return kept + rise * (slope + (second.velocity if line else second.noise)) / 2
