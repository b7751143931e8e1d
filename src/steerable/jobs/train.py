"""Training as a generator of iterations: the caller prints, streams, stops; nothing calls back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.types import Batch
from steerable.recipes.training import Budget

from . import averaging, durable
from .feed import Order, drawn
from .lease import Lease
from .objective import objective
from .pace import Pace
from .prepare import Prepared
from .resume import found_in, mend
from .run import Run
from .state import State, fresh, restore, save, write_model
from .watch import Watch, look_cost

__all__ = ["Iteration", "train"]

LOG_EVERY = 10
PREPARING = 0.25  # share of a budget of time that reading and measuring before it count for
GIVE_UP_AFTER = 10  # iterations in a row with non-finite numbers


@dataclass(frozen=True)
class Iteration:
    """One training iteration.

    Attributes:
        i: Iterations done.
        total: Iterations planned; under a budget of time None until the last one.
        loss: Mean loss of the batch.
        lr: Learning rate.
        grad_norm: Norm of the gradient before clipping.
        images: Training images seen.
        seconds: Seconds of training, over all sessions.
        left: Seconds left, estimated.
        share: Share of the budget that is used, 0 to 1; it never falls.
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
    lr = hyper.lr * state.plan.factor(state.iteration, state.seconds)
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


def train(job: Prepared, *, clock: Callable[[], float] = time.monotonic) -> Iterator[Iteration]:
    """Train until the plan is done; closing the generator saves and leaves.

    The same job on the same folder goes on where it stopped. At the end the folder holds
    `model.safetensors`. A run whose budget is used yields nothing and stays as it is.

    Args:
        job: The run.
        clock: Seconds that only grow; what a budget of time is measured with.

    Raises:
        UserError: E-LOCK, E-DISK, E-NUM, or what a damaged checkpoint says.
    """
    budget = Budget.parse(job.recipe.training.budget)
    speed = job.facts["images_per_second"] / job.recipe.training.batch
    pace = Pace(clock, budget=budget.seconds, look=look_cost(job), rate=speed)
    run = Run(job.run, job.recipe.trusted)
    # Weights, average and two moments; with two tracks another and 16 snapshots of both in halves.
    bytes_each = 16 + (4 + 32 if job.recipe.training.ema_kind == "power" else 0)
    run.room_for(bytes_each * sum(p.numel() for p in job.denoiser.parameters()) + 1_000_000)
    durable.folder(job.run)
    with Lease(job.run) as lease:
        durable.sweep(job.run)
        found = found_in(run, job.recipe, given=job.start is not None)
        state = fresh(job)
        if found is not None:
            restore(state, found, job.recipe.training)
            pace.go_on(state.seconds)
            pace.budget = state.plan.seconds
        elif budget.seconds is not None:
            pace.go_on(min(job.spent, PREPARING * budget.seconds))
        if state.over:
            if not (job.run / "model.safetensors").exists():
                write_model(job, state)
            return
        source = job.start.about if job.start is not None else None
        mend(run, job.recipe, job.report, state.iteration, source=source)
        if found is None and job.start is not None:
            save(job, state)  # a run that is stopped at once still begins with these weights
        if job.recipe.training.compile == "on":
            state.net.backbone.compile()
        watch = Watch(job, run)
        if pace.pays(last=False):
            watch.begin(state.net, state.iteration)
        state.seconds = pace.now() if found is None else state.seconds
        yield from _loop(job, watch, state, (lease, pace))


def _loop(
    job: Prepared, watch: Watch, state: State, held: tuple[Lease, Pace]
) -> Iterator[Iteration]:
    lease, pace = held
    saved = pace.now()
    hyper = job.recipe.training
    take = Order(len(job.splits.train), hyper.seed)
    try:
        while not state.over:
            lease.beat()
            began = pace.now()
            positions = torch.arange(hyper.batch) + state.iteration * hyper.batch
            batch, noise = drawn(job, positions, take(positions))
            loss, norm, lr = _step(state, job, batch, noise)
            if state.bad_in_a_row >= GIVE_UP_AFTER:
                raise _diverged(job, state, take(positions))
            state.seconds = pace.now()
            pace.stepped(state.seconds - began)
            if state.plan.seconds is not None:
                state.plan = replace(state.plan, reserve=pace.reserve)
            state.over = state.plan.done(state.iteration, state.seconds)
            _snapshot(job, watch.run, state)
            events = _events(watch, state, pace, (loss, norm, lr))
            if pace.now() - saved > hyper.checkpoint_seconds and not state.over:
                state.seconds = pace.now()
                events.append(save(job, state))
                saved = pace.now()
                pace.saved(saved - state.seconds)
            # The next rate is a function of this, which a checkpoint made now has too.
            yield _report(job, state, (loss, lr, norm), pace, events)
    except GeneratorExit:
        save(job, state)
        raise
    save(job, state)


def _snapshot(job: Prepared, run: Run, state: State) -> None:
    """Store both tracks at regular iterations, for averages of other widths afterwards."""
    updates = int(state.ema.n_averaged)
    if state.narrow is None or not updates or not averaging.due(state.iteration, last=state.over):
        return
    tracks = {averaging.NARROW: state.narrow.module, averaging.WIDE: state.ema.module}
    run.tolerate("snapshots", lambda: averaging.keep(job.run, state.iteration, updates, tracks))


def _report(
    job: Prepared,
    state: State,
    step: tuple[float, float, float],
    pace: Pace,
    events: list[dict[str, Any]],
) -> Iteration:
    loss, lr, norm = step
    i, total, budget = state.iteration, state.plan.total, state.plan.seconds
    if budget is not None:
        left = max(0.0, budget - state.seconds)
        share = 1.0 if state.over else min(1.0, state.seconds / budget)
        total = i if state.over else None
    else:
        assert total is not None
        left, share = (total - i) / pace.rate, i / total
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
    watch: Watch, state: State, pace: Pace, step: tuple[float, float, float]
) -> list[dict[str, Any]]:
    """Logs; at milestones what there is to see of the weights."""
    events: list[dict[str, Any]] = []
    loss, norm, lr = step
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
    seen = watch.look(state, lambda: pace.pays(last=state.over))
    now = pace.now()
    if any(event["event"] == "validation" for event in seen):
        pace.looked(now - state.seconds)
    state.seconds = now
    return events + seen
