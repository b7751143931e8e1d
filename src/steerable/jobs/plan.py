"""The plan of a run: what it will cost, printed before it starts, and the learning rate.

With a budget of iterations or images the whole plan is fixed at the start. With a budget of time
the cooldown stays open: the learning rate is constant until the share of the time that is left for
the cooldown begins, and only then is its length fixed, by the speed of that moment. So a machine
that slows down costs iterations, not minutes. The schedules without an end (constant, step,
exponential) stay open until the time is over. Cosine and linear need their end from the first
iteration on: they take it from the speed that was measured before the start.

The rate is a function of the iteration and of plain numbers that are saved with every checkpoint.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from steerable.core.noise import Noise
from steerable.core.types import Batch
from steerable.recipes.assembly import Network
from steerable.recipes.training import Budget, Training

from .objective import losses
from .optimisers import Optimiser

__all__ = ["Plan", "closing_share", "count", "first_plan", "forward_flops", "measure", "reopened"]


@dataclass(frozen=True)
class Plan:
    """Length of the warm-up, first iteration of the cooldown, last iteration, and the curve.

    `total` is None while a budget of time is still open, `cooldown` also where there is none.

    Args:
        warmup: Iterations of the linear rise.
        cooldown: First iteration of the schedule `cooldown`'s fall.
        total: Number of iterations.
        schedule: The curve after the warm-up.
        floor: Share of the full rate that the curve does not go below.
        decay: Factor an epoch (`exponential`) or a step (`step`).
        every: Epochs between two steps.
        batch: Items an iteration.
        items: Items an epoch.
    """

    warmup: int
    cooldown: int | None
    total: int | None
    schedule: str = "cooldown"
    floor: float = 0.0
    decay: float = 1.0
    every: int = 1
    batch: int = 1
    items: int = 1

    def factor(self, iteration: int) -> float:
        """Share of the full learning rate at an iteration, counted from 0."""
        rise = min(1.0, (iteration + 1) / self.warmup) if self.warmup else 1.0
        return rise * max(self.floor, self._curve(iteration))

    def _curve(self, iteration: int) -> float:
        epoch = iteration * self.batch // self.items
        if self.schedule == "exponential":
            return self.decay**epoch
        if self.schedule == "step":
            return self.decay ** (epoch // self.every)
        if self.schedule == "constant" or self.total is None:
            return 1.0
        if self.schedule == "cooldown":
            if self.cooldown is None or iteration < self.cooldown:
                return 1.0
            return (self.total - iteration) / max(1, self.total - self.cooldown)
        left = (self.total - iteration) / max(1, self.total - self.warmup)
        left = min(1.0, max(0.0, left))
        return left if self.schedule == "linear" else 0.5 * (1.0 - math.cos(math.pi * left))

    def done(self, iteration: int) -> bool:
        """Whether `iteration` iterations are all of them."""
        return self.total is not None and iteration >= self.total

    def closing(self, iteration: int, left_seconds: float, rate: float) -> Plan:
        """The plan with its end fixed to `left_seconds` at `rate` iterations a second."""
        total = iteration + max(1, int(left_seconds * rate))
        return replace(self, cooldown=iteration, total=total)


def closing_share(training: Training) -> float:
    """Share of a budget of time that is left when an open plan gets its end."""
    return training.cooldown if training.schedule == "cooldown" else 0.0


def count(budget: Budget, batch: int, rate: float) -> int:
    """Iterations of a budget, at `rate` iterations a second where it is a time."""
    if budget.iterations is not None:
        return budget.iterations
    if budget.images is not None:
        return max(1, -(-budget.images // batch))
    assert budget.seconds is not None
    return max(1, int(budget.seconds * rate))


def first_plan(training: Training, rate: float, *, items: int = 1) -> Plan:
    """The plan at the start.

    Args:
        training: The settings.
        rate: Measured iterations a second.
        items: Number of items an epoch.
    """
    budget = Budget.parse(training.budget)
    total = count(budget, training.batch, rate)
    plan = Plan(
        min(training.warmup, max(1, total // 20)),
        None,
        total,
        schedule=training.schedule,
        floor=training.floor,
        decay=training.decay,
        every=training.every,
        batch=training.batch,
        items=items,
    )
    if budget.seconds is not None and training.schedule not in ("cosine", "linear"):
        return replace(plan, total=None)
    if training.schedule == "cooldown":
        return replace(plan, cooldown=total - round(total * training.cooldown))
    return plan


def reopened(before: Plan, now: Plan, *, iteration: int, used: float) -> Plan:
    """The plan of a run that goes on under another budget, past its warm-up.

    Args:
        before: The plan so far.
        now: The plan of the new budget from the start.
        iteration: Iterations done.
        used: Share of the new budget that is used, where it is a time; else 0.
    """
    plan = replace(now, warmup=before.warmup)
    if not used or plan.total is None:
        return plan
    # The speed of now says nothing of the iterations done: only the time left is counted by it.
    return replace(plan, total=iteration + max(1, round((1.0 - min(1.0, used)) * plan.total)))


def forward_flops(net: Network, batch: Batch) -> int:
    """FLOP of one forward pass for one item, counted by torch."""
    item = Batch(batch.x[:1], {k: v[:1] for k, v in batch.cond.items()})
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(item.x, torch.full((1,), 0.5, dtype=torch.float64), item.cond)
    return int(counter.get_total_flops())


def measure(net: Network, batch: Batch, training: Training, *, seconds: float = 1.0) -> float:
    """Training iterations a second of a scratch copy, after two that warm the caches up."""
    scratch = copy.deepcopy(net)
    optimiser = Optimiser(scratch, training.model_copy(update={"lr": 1e-6}), batch)
    noise = Noise.of(0, iteration=0, items=torch.arange(len(batch.x)))
    iterations, start = -2, 0.0
    while True:
        if iterations == 0:
            start = time.perf_counter()
        optimiser.zero_grad()
        losses(scratch, batch, noise).mean().backward()
        nn.utils.clip_grad_norm_(scratch.parameters(), 1.0)
        optimiser.step()
        iterations += 1
        if iterations > 0 and time.perf_counter() - start > seconds:
            return iterations / (time.perf_counter() - start)


def compile_pays(net: Network, batch: Batch, training: Training, eager: float) -> bool:
    """Whether the compiled network trains measurably faster than `eager` iterations a second."""
    trial = copy.deepcopy(net)
    compile_in_place: Callable[[], Any] = trial.backbone.compile
    compile_in_place()
    return measure(trial, batch, training) > 1.05 * eager
