"""Training as a generator of iterations: the caller prints, streams, stops; nothing calls back."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.types import Batch
from steerable.recipes.training import Budget

from . import averaging, checkpoint, durable
from .feed import Order, drawn
from .lease import Lease
from .objective import objective
from .plan import closing_share
from .prepare import Prepared
from .run import Run
from .state import State, fresh, restore, save
from .watch import RECORD, Watch

__all__ = ["Iteration", "train"]

LOG_EVERY = 10
GIVE_UP_AFTER = 10  # iterations in a row with non-finite numbers


@dataclass(frozen=True)
class Iteration:
    """One training iteration.

    Attributes:
        i: Iterations done.
        total: Iterations planned; None while a budget of time is open.
        loss: Mean loss of the batch.
        lr: Learning rate.
        grad_norm: Norm of the gradient before clipping.
        images: Training images seen.
        seconds: Seconds of training, over all sessions.
        left: Seconds left, estimated.
        share: Share of the budget that is used, 0 to 1.
        events: What happened beside: validation, previews or accuracies, checks, troubles,
            checkpoints, skipped updates.
    """

    i: int
    total: int | None
    loss: float
    lr: float
    grad_norm: float
    images: int
    seconds: float
    left: float
    share: float
    events: tuple[dict[str, Any], ...] = ()


def _step(state: State, job: Prepared, batch: Batch, noise: Noise) -> tuple[float, float, float]:
    """One update, guarded: non-finite numbers reach neither the optimiser nor the EMA."""
    hyper = job.recipe.training
    lr = hyper.lr * state.plan.factor(state.iteration)
    state.optimiser.rate(lr)
    state.optimiser.zero_grad()
    # Layers with dropout draw from torch's own generator: make that a function of the iteration.
    torch.manual_seed(hash((hyper.seed, state.iteration)) & (2**63 - 1))
    goal, loss = objective(state.net, state.uncertainty, batch, noise)
    goal.backward()
    norm = float(nn.utils.clip_grad_norm_(state.net.parameters(), hyper.clip))
    value = float(loss)
    if math.isfinite(value) and math.isfinite(norm) and math.isfinite(float(goal.detach())):
        state.optimiser.step()
        for track in (state.ema, state.narrow):
            if track is not None:
                track.update_parameters(state.net)
        state.bad_in_a_row = 0
    else:
        state.skipped += 1
        state.bad_in_a_row += 1
    state.iteration += 1
    return value, norm, lr


def train(job: Prepared) -> Iterator[Iteration]:
    """Train until the plan is done; closing the generator saves and leaves.

    The same job on the same folder goes on where it stopped. At the end the folder holds
    `model.safetensors`.

    Raises:
        UserError: E-LOCK, E-DISK, E-NUM, or what a damaged checkpoint says.
    """
    run = Run(job.run, job.recipe.trusted)
    # Weights, average and two moments; with two tracks another and 16 snapshots of both in halves.
    bytes_each = 16 + (4 + 32 if job.recipe.training.ema_kind == "power" else 0)
    run.room_for(bytes_each * sum(p.numel() for p in job.denoiser.parameters()) + 1_000_000)
    durable.folder(job.run / "checkpoints")
    with Lease(job.run) as lease:
        durable.sweep(job.run)
        resumes = run.check(job.recipe)
        state = fresh(job)
        found, passed_over = checkpoint.newest(job.run) if resumes else (None, [])
        for reason in passed_over:
            durable.tally["damaged checkpoints passed over"] += 1
            run.append("log.txt", f"damaged checkpoint passed over: {reason}")
        if found is not None:
            restore(state, found, job.recipe.training.budget)
            run.keep(job.recipe)
        else:
            run.create(job.recipe, job.report)
        _rewind(job.run, state.iteration)
        averaging.forget_after(job.run, state.iteration)
        if job.recipe.training.compile == "on":
            state.net.backbone.compile()
        watch = Watch(job, run)
        watch.begin(state.net, state.iteration)
        yield from _loop(job, watch, state, lease)


def _loop(job: Prepared, watch: Watch, state: State, lease: Lease) -> Iterator[Iteration]:
    start = time.monotonic() - state.seconds
    saved = time.monotonic()
    budget = Budget.parse(job.recipe.training.budget)
    hyper = job.recipe.training
    take = Order(len(job.splits.train), hyper.seed)
    window = [(state.iteration, state.seconds)]
    try:
        while not state.plan.done(state.iteration):
            lease.beat()
            positions = torch.arange(hyper.batch) + state.iteration * hyper.batch
            batch, noise = drawn(job, positions, take(positions))
            loss, norm, lr = _step(state, job, batch, noise)
            if state.bad_in_a_row >= GIVE_UP_AFTER:
                raise _diverged(job, state, take(positions))
            state.seconds = time.monotonic() - start
            window = [*window[-63:], (state.iteration, state.seconds)]
            rate = _rate(window)
            if budget.seconds is not None and state.plan.total is None:
                left = budget.seconds - state.seconds
                if left <= closing_share(hyper) * budget.seconds:
                    state.plan = state.plan.closing(state.iteration, max(left, 0.0), rate)
            _snapshot(job, watch.run, state)
            events = _events(watch, state, loss, norm, lr)
            if events:  # looking is no part of the speed
                looked = time.monotonic() - start - state.seconds
                window = [(i, seconds + looked) for i, seconds in window]
            if time.monotonic() - saved > hyper.checkpoint_seconds:
                events.append(save(job, state))
                saved = time.monotonic()
            yield _report(job, state, (loss, lr, norm), rate, events)
    except GeneratorExit:
        save(job, state)
        raise
    save(job, state)


def _snapshot(job: Prepared, run: Run, state: State) -> None:
    """Store both tracks at regular iterations, for averages of other widths afterwards."""
    done = state.plan.done(state.iteration)
    updates = int(state.ema.n_averaged)
    if state.narrow is None or not updates or not averaging.due(state.iteration, last=done):
        return
    tracks = {averaging.NARROW: state.narrow.module, averaging.WIDE: state.ema.module}
    run.tolerate("snapshots", lambda: averaging.keep(job.run, state.iteration, updates, tracks))


def _rate(window: list[tuple[int, float]]) -> float:
    """Iterations a second over the last iterations."""
    (first, begin), (last, end) = window[0], window[-1]
    return (last - first) / (end - begin) if end > begin and last > first else 1.0


def _report(
    job: Prepared,
    state: State,
    step: tuple[float, float, float],
    rate: float,
    events: list[dict[str, Any]],
) -> Iteration:
    budget = Budget.parse(job.recipe.training.budget)
    loss, lr, norm = step
    i, total = state.iteration, state.plan.total
    if total is not None:
        left = (total - i) / rate
        share = state.seconds / (state.seconds + left) if budget.seconds else i / total
    else:
        assert budget.seconds is not None
        left, share = budget.seconds - state.seconds, state.seconds / budget.seconds
    images = i * job.recipe.training.batch
    return Iteration(i, total, loss, lr, norm, images, state.seconds, left, share, tuple(events))


def _diverged(job: Prepared, state: State, items: Tensor) -> UserError:
    names = job.splits.train.names
    files = ", ".join(names[int(k)] if names else f"item {int(k)}" for k in items[:3])
    return UserError(
        "E-NUM",
        where=f"iteration {state.iteration}",
        got=f"{GIVE_UP_AFTER} updates in a row with non-finite loss or gradient ({files}, ...)",
        kept="the checkpoints, whose weights are finite",
        do="start a new run with a lower training.lr, or look at these items",
    )


def _events(
    watch: Watch, state: State, loss: float, norm: float, lr: float
) -> list[dict[str, Any]]:
    """Logs; at milestones what there is to see of the weights."""
    events: list[dict[str, Any]] = []
    if math.isfinite(loss) and math.isfinite(norm):
        state.loss_sum, state.loss_count = state.loss_sum + loss, state.loss_count + 1
    else:
        event = {"event": "skipped", "iteration": state.iteration, "reason": "not finite"}
        events.append(watch.note(event))
    if state.iteration % LOG_EVERY == 0 and state.loss_count:
        mean = state.loss_sum / state.loss_count
        record = {"iteration": state.iteration, "loss": mean, "lr": lr, "grad_norm": norm}
        watch.note(record if math.isfinite(norm) else {**record, "grad_norm": None})
        watch.run.append("times.jsonl", {"iteration": state.iteration, "seconds": state.seconds})
        state.loss_sum, state.loss_count = 0.0, 0
    return events + watch.look(state)


def _rewind(run: Path, iteration: int) -> None:
    """Cut the logs back to the iteration that training goes on from."""

    def keep(line: str) -> bool:
        return int(json.loads(line)["iteration"]) <= iteration

    for name in (RECORD, "times.jsonl"):
        if (run / name).exists():
            durable.cut(run / name, keep)
