"""What changes while training, and how it goes into a checkpoint and comes back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from steerable.core.errors import UserError
from steerable.nn.uncertainty import Uncertainty
from steerable.recipes.assembly import Network
from steerable.recipes.training import Budget, Training

from . import averaging, checkpoint, durable
from .beside import model_iterations
from .model import fit, pack_model, versions
from .optimisers import Optimiser
from .plan import Plan, by_the_clock, reopened
from .prepare import Prepared

__all__ = ["State", "fresh", "restore", "save", "write_model"]


@dataclass
class State:
    """What changes while training; everything in it is saved with a checkpoint."""

    net: Network
    ema: AveragedModel
    optimiser: Optimiser
    plan: Plan
    narrow: AveragedModel | None = None  # the second track of ema_kind `power`
    uncertainty: Uncertainty | None = None
    iteration: int = 0
    seconds: float = 0.0
    skipped: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    validations: list[dict[str, Any]] = field(default_factory=list)
    bad_in_a_row: int = 0
    checked: bool = False  # whether the model file on disk may be replaced
    over: bool = False  # the plan has come to its end, and the last look has been made


def fresh(job: Prepared) -> State:
    """The state before the first iteration."""
    hyper = job.recipe.training
    net = job.denoiser
    ema, narrow = averaging.averages(net, hyper)
    uncertainty = Uncertainty(hyper.seed) if hyper.uncertainty else None
    optimiser = Optimiser(net, hyper, job.splits.train.batch(torch.arange(1)), uncertainty)
    return State(net, ema, optimiser, job.plan, narrow=narrow, uncertainty=uncertainty)


def save(job: Prepared, state: State) -> dict[str, Any]:
    """A verified checkpoint and the model file of its EMA weights."""
    began = time.perf_counter()
    parts = {
        "model": state.net.state_dict(),
        "ema": state.ema.module.state_dict(),
        "optimiser": state.optimiser.tensors(),
    }
    if state.narrow is not None:
        parts["narrow"] = state.narrow.module.state_dict()
    if state.uncertainty is not None:
        parts["uncertainty"] = state.uncertainty.state_dict()
    plan = state.plan
    plain = {
        "seconds": state.seconds,
        "skipped": state.skipped,
        "loss_sum": state.loss_sum,
        "loss_count": state.loss_count,
        "averaged": int(state.ema.n_averaged),
        "budget": job.recipe.training.budget,
        "plan": asdict(plan),
        "over": state.over,
        "validations": state.validations,
    }
    facts = {
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "reader": job.report.get("reader", 1),
        "data": job.report["fingerprint"],
        "recipe": job.recipe.plain(),
    }
    checkpoint.save(job.run, state.iteration, parts=parts, state=plain, facts=facts)
    write_model(job, state)
    spent = round(time.perf_counter() - began, 3)
    return {"event": "checkpoint", "iteration": state.iteration, "seconds": spent}


def write_model(job: Prepared, state: State) -> None:
    """Write the model file of the EMA weights; one of more iterations is kept beside it."""
    summary = {
        "iterations": state.iteration,
        "images": state.iteration * job.recipe.training.batch,
        "seconds": round(state.seconds, 1),
        "skipped": state.skipped,
        "finished": state.over,
        "validation_loss": state.validations[-1]["validation_loss"] if state.validations else None,
        **{name: job.report[name] for name in ("reader",) if name in job.report},
    }
    if job.facts["warnings"]:
        summary["warnings"] = job.facts["warnings"]
    tensors = state.ema.module.state_dict()
    data = pack_model(tensors, job.recipe, job.splits.train.spec, summary)
    path = job.run / "model.safetensors"
    _keep_longer(path, state)
    durable.write(path, data)


def _keep_longer(path: Path, state: State) -> None:
    """Give the model file of a longer training another name, before it would be replaced.

    That happens where the checkpoints after an older one were lost, so the first save of a session
    is when it can; afterwards the file is this session's own.
    """
    if state.checked:
        return
    state.checked = True
    there = model_iterations(path)
    if there is not None and there > state.iteration:
        aside = path.with_name(f"model-{there}-iterations.safetensors")
        durable.rename(path, durable.free_name(aside))
        durable.tally[f"model file of {there} iterations kept as {aside.name}"] += 1


def restore(state: State, found: checkpoint.Checkpoint, training: Training) -> None:
    """Put a checkpoint back; under another budget the plan opens again, past its warm-up."""
    where = found.path.name
    fit(state.net, found.parts["model"], where)
    fit(state.ema.module, found.parts["ema"], where)
    state.optimiser.load(found.parts["optimiser"])
    for name in ("narrow", "uncertainty"):
        if getattr(state, name) is not None and name not in found.parts:
            got = f"no part '{name}', which its recipe asks for"
            raise UserError("E-CKPT-ARCH", where=where, got=got)
    if state.narrow is not None:
        fit(state.narrow.module, found.parts["narrow"], where)
    if state.uncertainty is not None:
        fit(state.uncertainty, found.parts["uncertainty"], where)
    plain = found.state
    for track in (state.ema, state.narrow):
        if track is not None:
            track.n_averaged.fill_(int(plain["averaged"]))
    state.iteration = found.iteration
    state.seconds, state.skipped = float(plain["seconds"]), int(plain["skipped"])
    state.loss_sum, state.loss_count = float(plain["loss_sum"]), int(plain["loss_count"])
    state.validations = list(plain["validations"])
    state.plan, state.over = _plan(state, plain, training)


def _plan(state: State, plain: Mapping[str, Any], training: Training) -> tuple[Plan, bool]:
    """The plan to go on with, and whether nothing is left to do."""
    before, now = Budget.parse(plain["budget"]), Budget.parse(training.budget)
    saved = Plan(**plain["plan"])
    if before.seconds is not None and saved.total is None and saved.seconds is None:
        # Written when a plan under a budget of time knew no clock. One that had its number of
        # iterations fixed already ends as it was planned.
        saved = by_the_clock(saved, training.model_copy(update={"budget": plain["budget"]}))
    over = bool(plain.get("over", saved.done(state.iteration, state.seconds)))
    if before == now:
        return saved, over
    if over and before.seconds and now.seconds and now.seconds <= before.seconds:
        return saved, True
    again = replace(reopened(saved, state.plan), reserve=0.0)
    return again, again.done(state.iteration, state.seconds)
