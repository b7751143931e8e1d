"""DPM-Solver++(3M): third order from the last three estimates, one call a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, spread
from steerable.nn.multistep import extended

__all__ = ["Dpmpp3M"]


@dataclass(frozen=True)
class Dpmpp3M(Sampler):
    """Extrapolate x0-hat in lambda = log(alpha / sigma) by a parabola, integrate the rest exactly.

    h = lambda_s - lambda_t, r0 = h_0 / h, r1 = h_1 / h with the last two steps h_0, h_1;
    E0 = (x0 - x0_1) / r0, E1 = (x0_1 - x0_2) / r1, D2 = (E0 - E1) / (r0 + r1), D1 = E0 + r0 D2;
    x_s = (sigma_s / sigma_t) x_t - alpha_s (p1 x0 - p2 D1 + 2 p3 D2), p1 = exp(-h) - 1,
    p2 = p1 / h + 1, p3 = p2 / h - 1/2. The second step is a line, the first a constant: the order 3
    is that of an exact history. From its own start it measures as 1.8 where the path is bent, at
    sigma / alpha = 6, and above 3 from noise, where samples are made.
    D2 is half the second derivative, hence the 2, which the authors' code and its descendants
    leave out: theirs measures as order 2, with an error up to 30 % smaller than ours in 6 to 20
    calls on mixtures; in 40 calls on the grid `log_snr` ours is level or smaller.
    Source: Lu et al., arXiv 2211.01095, appendix B; the authors' multistep update of order 3.
    """

    order: ClassVar[int | None] = 3
    stochastic: ClassVar[bool] = False

    def step(
        self,
        ask: Ask,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        schedule: Schedule,
        memory: Any,
        noise: Noise,
    ) -> tuple[Tensor, Any]:
        """One step; one call of the denoiser. Memory: the last three estimates, their levels."""
        (_, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        start, end = schedule.level(t), schedule.level(s)
        history = extended(memory, start, ask(x_t, t).x0, ahead=end, most=3)
        h = start - end
        p1 = torch.expm1(-h)
        p2 = p1 / h + 1.0
        change = p1.to(x_t) * history[0][1]
        if len(history) > 1:
            r0 = (history[1][0] - start) / h
            first = (history[0][1] - history[1][1]) / spread(r0, x_t)
            if len(history) > 2:
                r1 = (history[2][0] - history[1][0]) / h
                earlier = (history[1][1] - history[2][1]) / spread(r1, x_t)
                second = (first - earlier) / spread(r0 + r1, x_t)  # half the second derivative
                first = first + spread(r0, x_t) * second
                change = change + spread(2.0 * p2 / h - 1.0, x_t) * second
            change = change - spread(p2, x_t) * first
        return spread(sigma_s / sigma_t, x_t) * x_t - spread(alpha_s, x_t) * change, history
