"""The plan of a run: what it will cost, printed before it starts, and the learning rate.

With a budget of iterations or images the whole plan is fixed at the start. With a budget of time
every schedule that needs an end follows the clock: its place is the share of the time that is used,
never a number of iterations, so a machine that slows down costs iterations, not minutes, and the
rate is at its end when the time is.

The rate is a function of the iteration, the seconds so far and of plain numbers, which are all
saved with every checkpoint.
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

__all__ = [
    "Plan",
    "by_the_clock",
    "compile_pays",
    "count",
    "first_plan",
    "forward_flops",
    "measure",
    "reopened",
]

RISE = 0.1  # share of a budget of time in which the warm-up ends, however slow the machine is


@dataclass(frozen=True)
class Plan:
    """Length of the warm-up, first iteration of the cooldown, the end, and the curve.

    A plan has one end: `total` iterations, or `seconds` less the `reserve`.

    Args:
        warmup: Iterations of the linear rise.
        cooldown: First iteration of the schedule `cooldown`'s fall; None where time decides.
        total: Number of iterations; None where time decides.
        schedule: The curve after the warm-up.
        floor: Share of the full rate that the curve does not go below.
        decay: Factor an epoch (`exponential`) or a step (`step`).
        every: Epochs between two steps.
        batch: Items an iteration.
        items: Items an epoch.
        seconds: The budget of time; None where iterations decide.
        fall: Share of the time in which the schedule `cooldown` falls.
        reserve: Seconds at the end of the time that the last look and the last save need.
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
    seconds: float | None = None
    fall: float = 0.0
    reserve: float = 0.0

    def factor(self, iteration: int, seconds: float = 0.0) -> float:
        """Share of the full learning rate.

        Args:
            iteration: The iteration, counted from 0.
            seconds: Seconds of training before it.
        """
        rise = min(1.0, (iteration + 1) / self.warmup) if self.warmup else 1.0
        if self.seconds is not None:
            rise = min(1.0, max(rise, seconds / (RISE * self._end())))
        return rise * max(self.floor, self._curve(iteration, seconds))

    def _end(self) -> float:
        """Seconds at which the rate is at its end."""
        assert self.seconds is not None
        return self.seconds - self.reserve

    def _curve(self, iteration: int, seconds: float) -> float:
        epoch = iteration * self.batch // self.items
        if self.schedule == "exponential":
            return self.decay**epoch
        if self.schedule == "step":
            return self.decay ** (epoch // self.every)
        if self.schedule == "constant" or (self.total is None and self.seconds is None):
            return 1.0
        left = self._left(iteration) if self.seconds is None else self._time_left(seconds)
        return 0.5 * (1.0 - math.cos(math.pi * left)) if self.schedule == "cosine" else left

    def _left(self, iteration: int) -> float:
        """Share of the fall that is left, by iterations."""
        assert self.total is not None
        if self.schedule == "cooldown":
            if self.cooldown is None or iteration < self.cooldown:
                return 1.0
            return (self.total - iteration) / max(1, self.total - self.cooldown)
        left = (self.total - iteration) / max(1, self.total - self.warmup)
        return min(1.0, max(0.0, left))

    def _time_left(self, seconds: float) -> float:
        """Share of the fall that is left, by the clock."""
        fall = self._end() * (self.fall if self.schedule == "cooldown" else 1.0)
        left = self._end() - seconds
        return min(1.0, max(0.0, left / fall)) if fall > 0.0 else 1.0

    def done(self, iteration: int, seconds: float = 0.0) -> bool:
        """Whether training has come to its end after so many iterations and seconds."""
        if self.seconds is not None:
            return seconds >= self._end()
        return self.total is not None and iteration >= self.total


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
    if budget.seconds is not None:
        return by_the_clock(plan, training)
    if training.schedule == "cooldown":
        return replace(plan, cooldown=total - round(total * training.cooldown))
    return plan


def by_the_clock(plan: Plan, training: Training) -> Plan:
    """The plan of the same curve that ends with the budget of time of the settings."""
    fall = training.cooldown if training.schedule == "cooldown" else 0.0
    seconds = Budget.parse(training.budget).seconds
    return replace(plan, cooldown=None, total=None, seconds=seconds, fall=fall)


def reopened(before: Plan, now: Plan) -> Plan:
    """The plan of a run that goes on under another budget, past its warm-up.

    Args:
        before: The plan so far.
        now: The plan of the new budget from the start.
    """
    return replace(now, warmup=before.warmup)


def forward_flops(net: Network, batch: Batch) -> int:
    """FLOP of one forward pass for one item, counted by torch."""
    item = Batch(batch.x[:1], {k: v[:1] for k, v in batch.cond.items()})
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(item.x, torch.full((1,), 0.5, dtype=torch.float64), item.cond)
    return int(counter.get_total_flops())


def measure(
    net: Network,
    batch: Batch,
    training: Training,
    *,
    seconds: float = 1.0,
    most: int = 0,
    first: int = 2,
) -> float:
    """Training iterations a second of a scratch copy.

    It begins with a few items and goes on with four times as many, so that a network whose
    iteration takes longer than may be spent is measured on a part of the batch.

    Args:
        net: The network, which stays as it is.
        batch: A whole batch.
        training: The settings.
        seconds: About the most time that this may take; the first items are always tried.
        most: Iterations of the whole batch that are enough, 0 for no limit.
        first: Items to begin with.
    """
    scratch = copy.deepcopy(net)
    optimiser = Optimiser(scratch, training.model_copy(update={"lr": 1e-6}), batch)
    start, size = time.perf_counter(), len(batch.x)

    def spent() -> float:
        return time.perf_counter() - start

    part, known = min(first, size), [(0, 0.0)]
    while True:  # each part twice: the first time makes what is kept for its shape
        took = min(_timed(scratch, batch, optimiser, part) for _ in range(2))
        known.append((part, took))
        # The next part takes four times as long at most, and is run twice.
        if part == size or spent() + 2 * min(4.0, size / part) * took > seconds:
            break
        part = min(size, 4 * part)
    if part < size:  # what each update costs, whatever its size, is not counted for every part
        (few, less), (more, longer) = known[-2:]
        an_item = max(longer - less, 0.0) / (more - few)
        return 1.0 / (longer + an_item * (size - more))
    times = [took]
    while spent() < seconds and len(times) != most:
        times.append(_timed(scratch, batch, optimiser, size))
    return len(times) / sum(times)


def _timed(net: Network, batch: Batch, optimiser: Optimiser, part: int) -> float:
    """Seconds of one update with the first items of a batch."""
    begin = time.perf_counter()
    noise = Noise.of(0, iteration=0, items=torch.arange(part))
    optimiser.zero_grad()
    some = Batch(batch.x[:part], {name: value[:part] for name, value in batch.cond.items()})
    losses(net, some, noise).mean().backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimiser.step()
    return time.perf_counter() - begin


def compile_pays(
    net: Network, batch: Batch, training: Training, eager: float, *, seconds: float = 1.0
) -> bool:
    """Whether the compiled network trains measurably faster than `eager` iterations a second."""
    trial = copy.deepcopy(net)
    compile_in_place: Callable[[], Any] = trial.backbone.compile
    compile_in_place()
    # The whole batch alone: every other shape would be compiled too.
    whole = len(batch.x)
    return measure(trial, batch, training, seconds=seconds, first=whole) > 1.05 * eager
