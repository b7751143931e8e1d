"""The plan of a run: what it will cost, printed before it starts, and the learning rate.

With a budget of iterations or images the whole plan is fixed at the start. With a budget of time
the learning rate stays constant until the share of the time that is left for the cooldown begins;
only then is the length of the cooldown fixed, by the speed of that moment. So a machine that slows
down costs iterations, not minutes, and the rate is a function of the iteration and of three
integers that are saved with every checkpoint.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from steerable.core.denoise import Denoiser
from steerable.core.noise import Noise
from steerable.core.types import Batch
from steerable.recipes.recipe import Budget, Training

__all__ = ["Plan", "count", "first_plan", "forward_flops", "measure"]


@dataclass(frozen=True)
class Plan:
    """Three integers: warm-up length, first iteration of the cooldown and last iteration.

    `cooldown` and `total` are None while a budget of time is still in its constant phase.
    """

    warmup: int
    cooldown: int | None
    total: int | None

    def factor(self, iteration: int) -> float:
        """Share of the full learning rate at an iteration, counted from 0."""
        rise = min(1.0, (iteration + 1) / self.warmup) if self.warmup else 1.0
        if self.cooldown is None or self.total is None or iteration < self.cooldown:
            return rise
        return rise * (self.total - iteration) / max(1, self.total - self.cooldown)

    def done(self, iteration: int) -> bool:
        """Whether `iteration` iterations are all of them."""
        return self.total is not None and iteration >= self.total

    def closing(self, iteration: int, left_seconds: float, rate: float) -> Plan:
        """The plan with its cooldown fixed to `left_seconds` at `rate` iterations a second."""
        return replace(self, cooldown=iteration, total=iteration + max(1, int(left_seconds * rate)))


def count(budget: Budget, batch: int, rate: float) -> int:
    """Iterations of a budget, at `rate` iterations a second where it is a time."""
    if budget.iterations is not None:
        return budget.iterations
    if budget.images is not None:
        return max(1, -(-budget.images // batch))
    assert budget.seconds is not None
    return max(1, int(budget.seconds * rate))


def first_plan(training: Training, rate: float) -> Plan:
    """The plan at the start, with `rate` the measured iterations a second."""
    budget = Budget.parse(training.budget)
    total = count(budget, training.batch, rate)
    warmup = min(training.warmup, max(1, total // 20))
    if budget.seconds is not None:
        return Plan(warmup, None, None)
    return Plan(warmup, total - round(total * training.cooldown), total)


def forward_flops(denoiser: Denoiser, batch: Batch) -> int:
    """FLOP of one forward pass for one item, counted by torch."""
    item = Batch(batch.x[:1], {k: v[:1] for k, v in batch.cond.items()})
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        denoiser(item.x, torch.full((1,), 0.5, dtype=torch.float64), item.cond)
    return int(counter.get_total_flops())


def measure(denoiser: Denoiser, batch: Batch, seconds: float = 1.0) -> float:
    """Training iterations a second of a scratch copy, after two that warm the caches up."""
    scratch = copy.deepcopy(denoiser)
    optimiser = torch.optim.AdamW(scratch.parameters(), lr=1e-6, fused=True)
    noise = Noise.of(0, iteration=0, items=torch.arange(len(batch.x)))
    iterations, start = -2, 0.0
    while True:
        if iterations == 0:
            start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        scratch.process.loss(scratch, batch, noise).mean().backward()
        nn.utils.clip_grad_norm_(scratch.parameters(), 1.0)
        optimiser.step()
        iterations += 1
        if iterations > 0 and time.perf_counter() - start > seconds:
            return iterations / (time.perf_counter() - start)


def compile_pays(denoiser: Denoiser, batch: Batch, eager: float) -> bool:
    """Whether the compiled network trains measurably faster than `eager` iterations a second."""
    trial = copy.deepcopy(denoiser)
    compile_in_place: Callable[[], Any] = trial.backbone.compile
    compile_in_place()
    return measure(trial, batch) > 1.05 * eager
