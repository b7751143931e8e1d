"""ER-SDE-Solver: a reverse SDE with little noise where there is little noise left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, spread
from steerable.nn.multistep import extended

__all__ = ["ErSde"]


@dataclass(frozen=True)
class ErSde(Sampler):
    """Solve the reverse SDE of the noise scale phi exactly but for x0-hat, a polynomial in r.

    With r = sigma / alpha, q = phi(r_s) / phi(r_t) and c = r_s - r_t,
    x_s / alpha_s = q x_t / alpha_t + (1 - q) x0 + (c + I0) D1 + (c^2 / 2 + I1) D2
    + sqrt(r_s^2 - q^2 r_t^2) z, where I0 and I1 are phi(r_s) times the integrals over [r_s, r_t]
    of 1 / phi and (r - r_t) / phi, D1 and D2 the derivatives at r_t of the parabola (the line, in
    the second step) through the last estimates. The authors take the last difference for D1,
    which measures as order 2 where ours has order 3. phi(r) is r (exp(r^0.3) + 10) for
    `extended`, r^2 for `full`, r for `none`.
    Source: Cui et al., arXiv 2309.06169, algorithms 2 and 3, noise scale ER SDE 5.

    Args:
        solver_order: Number of estimates that are used: 1, 2 or 3.
        fresh: Fresh noise: `extended` is the authors' choice, `full` the reverse SDE,
            `none` the ODE.
    """

    solver_order: Literal[1, 2, 3] = 3
    fresh: Literal["extended", "full", "none"] = "extended"

    order: ClassVar[int | None] = None
    stochastic: ClassVar[bool] = True

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
        """One step; one call of the denoiser. Memory: the last three estimates and their levels."""
        (alpha_t, _), (alpha_s, _) = schedule(t), schedule(s)
        start, end = schedule.level(t), schedule.level(s)
        x0 = ask(x_t, t).x0
        history = extended(memory, start, x0, ahead=end, most=self.solver_order)
        r_t, r_s = start.exp(), end.exp()
        q = self._phi(r_s) / self._phi(r_t)
        y_s = spread(q / alpha_t, x_t) * x_t + spread(1.0 - q, x_t) * x0
        if len(history) > 1:
            c, (i0, i1) = r_s - r_t, self._integrals(start, end)
            ratios = [level.exp() for level, _ in history]
            slope = _divided(history[0][1], history[1][1], ratios[0] - ratios[1])
            if len(history) > 2:
                earlier = _divided(history[1][1], history[2][1], ratios[1] - ratios[2])
                bend = _divided(slope, earlier, (ratios[0] - ratios[2]) / 2.0)
                slope = slope + spread((ratios[0] - ratios[1]) / 2.0, x_t) * bend
                y_s = y_s + spread(c**2 / 2.0 + i1, x_t) * bend
            y_s = y_s + spread(c + i0, x_t) * slope
        variance = (r_s**2 - (q * r_t) ** 2).clamp(min=0.0)
        y_s = y_s + spread(torch.sqrt(variance), x_t) * noise.normal(x_t)
        return spread(alpha_s, x_t) * y_s, history

    def _phi(self, r: Tensor) -> Tensor:
        """The noise scale at the ratio r, up to a constant factor."""
        if self.fresh == "none":
            return r
        return r**2 if self.fresh == "full" else r * (torch.exp(r**0.3) + 10.0)

    def _integrals(self, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        """phi_s times the integrals of 1 / phi and of (r - r_t) / phi over [r_s, r_t]."""
        # Simpson's rule in log r, whose error is below 1e-8 of the step up to steps of 3.
        level = torch.lerp(end, start, torch.linspace(0.0, 1.0, 129).to(start))
        weights = torch.full_like(level, 2.0)
        weights[1::2], weights[0], weights[-1] = 4.0, 1.0, 1.0
        r = level.exp()
        density = weights * (start - end) / 384.0 * r * self._phi(end.exp()) / self._phi(r)
        return density.sum(), (density * (r - start.exp())).sum()


def _divided(new: Tensor, old: Tensor, width: Tensor) -> Tensor:
    return (new - old) / spread(width, new)
