"""Sequential Monte Carlo: guided samples that are weighed, and follow the product law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, Estimate, spread

__all__ = ["Smc"]


@dataclass(frozen=True)
class Smc(Sampler):
    """Ancestral steps of a batch of particles, resampled after each towards prod_i p_i^w_i.

    (w_i, x0_i) are `Estimate.terms`, which `cfg`, `autoguidance` and `compose` fill; without terms
    nothing is resampled and the steps are those of `ancestral`. Derivation: demand that x_t follows
    P_t = prod p_i,t^w_i at every time. If x_t does and x_s is drawn from any proposal, then weights
    P_s(x_s) q(x_t|x_s) / (P_t(x_t) proposal(x_s|x_t)) correct x_s, for the forward kernel
    q(x_t|x_s) = N(a x_s, sigma_t^2 - a^2 sigma_s^2), a = alpha_t / alpha_s, integrates to one. By
    Bayes p_i,s(x_s) q(x_t|x_s) = p_i,t(x_t) p_i(x_s|x_t), so that the weight is

        prod_i p_i(x_s|x_t)^w_i  q(x_t|x_s)^(1 - W) / proposal(x_s|x_t),   W = sum_i w_i.

    Each p_i(x_s|x_t) is taken as the ancestral Gaussian of x0_i, and the proposal is that of the
    guided x0-hat: exact as steps shorten. The start N(0, sigma^2) is weighed to its power W.
    Particles are resampled in every step, so that none has a weight when the trajectory ends; the
    last step, x0-hat itself, is of the order of the last sigma^2. A guidance after those that fill
    the terms changes the proposal, not the law.

    The items of a batch are one set of particles of one wish: this is the one sampler whose items
    depend on their batch, and copies of a picture may appear. More items are nearer to the law, and
    one alone is a plain ancestral sample; W other than 1 is for few dimensions only. Steps must be
    short: on narrow modes 16 gave weights that were worse than none, 32 the law. Not corrected
    for: the end of an interval of guidance, a climbing grid, constraints, a start of less than all
    noise. What guidance with a momentum or a self-conditioned network remembers stays in its place.
    Source: Wu et al., arXiv 2306.17775; Skreta et al., arXiv 2503.02819.
    """

    order: ClassVar[int | None] = None
    stochastic: ClassVar[bool] = True
    one_wish: ClassVar[bool] = True  # for all items of a batch

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
        """One step; one call of the denoiser. The memory tells that the start is past."""
        (_, sigma_t), (_, sigma_s) = schedule(t), schedule(s)
        scale, missing = _forward(schedule, t, s)
        estimate = ask(x_t, t)
        tau = sigma_s / sigma_t * torch.sqrt(missing)
        x_s = _mean(estimate, estimate.x0, schedule, t, s) + spread(tau, x_t) * noise.normal(x_t)
        if not estimate.terms or not len(x_s):
            return x_s, True
        means = [(w, _mean(estimate, x0, schedule, t, s)) for w, x0 in estimate.terms]
        excess = sum(w for w, _ in means) - 1.0
        log = sum(w * _log_normal(x_s, mean, tau**2) for w, mean in means)
        log = log - excess * _log_normal(x_t, spread(scale, x_s) * x_s, missing)
        log = log - _log_normal(x_s, _mean(estimate, estimate.x0, schedule, t, s), tau**2)
        if memory is None:
            log = log + excess * _log_normal(x_t, torch.zeros_like(x_t), sigma_t**2)
        return x_s[_survivors(log, float(noise.uniform(len(x_s))[0]))], True


def _forward(schedule: Schedule, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and variance of the forward kernel from s up to t."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    scale = alpha_t / alpha_s
    return scale, (sigma_t**2 - (scale * sigma_s) ** 2).clamp(min=0.0)


def _mean(estimate: Estimate, x0: Tensor, schedule: Schedule, t: Tensor, s: Tensor) -> Tensor:
    """Mean of the ancestral step with this x0, (B,*S)."""
    (_, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    kept = _forward(schedule, t, s)[0] * (sigma_s / sigma_t) ** 2
    rest = estimate.x_t - spread(estimate.alpha, x0) * x0
    return spread(alpha_s, x0) * x0 + spread(kept, x0) * rest


def _log_normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Log N(x; mean, variance I) of each item but for a number that all items share, (B,)."""
    distance = (x.to(torch.float64) - mean.to(torch.float64)).square().flatten(1).sum(1)
    return -distance / (2.0 * variance.to(distance))


def _survivors(log: Tensor, u: float) -> Tensor:
    """Which item comes to each place after systematic resampling, (B,); survivors keep theirs.

    Weights that are not numbers move nothing, so that the loop finds the items that are none.
    """
    places = torch.arange(len(log), device=log.device)
    if not bool(log.isfinite().all()):
        return places
    total = torch.softmax(log, 0).cumsum(0)
    chosen = torch.searchsorted(total, (places.to(total) + u) / len(log)).clamp(max=len(log) - 1)
    count = torch.bincount(chosen, minlength=len(log))
    spare = places.repeat_interleave((count - 1).clamp(min=0))
    return places.masked_scatter(count == 0, spare)
