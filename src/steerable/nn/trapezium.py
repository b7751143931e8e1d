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

    The Euler step is alpha_s x0 + sigma_s z-hat in both. So the second slope is the first and
    (x0 - x0_s) (1 + alpha_s / sigma_s), in the ratio (x0 - x0_s) alpha_s / sigma_s, where x0_s is
    the second estimate. The slopes themselves, of which float32 keeps few digits, are not needed.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    scale = (alpha_s + sigma_s) / (alpha_t + sigma_t) if line else alpha_s / alpha_t
    bend = (1.0 if line else 0.0) + alpha_s / sigma_s
    first = ask(x_t, t)
    guess = spread(alpha_s, x_t) * first.x0 + spread(sigma_s, x_t) * first.noise
    second = ask(guess, s)
    rise = spread((sigma_s - scale * sigma_t) * bend / 2.0, x_t)
    return guess + rise * (first.x0 - second.x0)
