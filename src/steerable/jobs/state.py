"""What changes while training, and how it goes into a checkpoint and comes back."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from steerable.core.errors import UserError
from steerable.nn.uncertainty import Uncertainty
from steerable.recipes.assembly import Network
from steerable.recipes.training import Budget

from . import averaging, checkpoint, durable
from .model import fit, pack_model, versions
from .optimisers import Optimiser
from .plan import Plan, reopened
from .prepare import Prepared

__all__ = ["State", "fresh", "restore", "save"]


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
        "validations": state.validations,
    }
    facts = {"versions": versions(), "threads": torch.get_num_threads()}
    checkpoint.save(job.run, state.iteration, parts=parts, state=plain, facts=facts)
    summary = {
        "iterations": state.iteration,
        "images": state.iteration * job.recipe.training.batch,
        "seconds": round(state.seconds, 1),
        "skipped": state.skipped,
        "finished": plan.done(state.iteration),
        "validation_loss": state.validations[-1]["validation_loss"] if state.validations else None,
        **{name: job.report[name] for name in ("reader",) if name in job.report},
    }
    data = pack_model(parts["ema"], job.recipe, job.splits.train.spec, summary)
    durable.write(job.run / "model.safetensors", data)
    spent = round(time.perf_counter() - began, 3)
    return {"event": "checkpoint", "iteration": state.iteration, "seconds": spent}


def restore(state: State, found: checkpoint.Checkpoint, budget: str) -> None:
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
    saved = Plan(**plain["plan"])
    before, now = Budget.parse(plain["budget"]), Budget.parse(budget)
    over = now.seconds is not None and saved.done(state.iteration) and now.seconds <= state.seconds
    keep = before == now or over
    used = state.seconds / now.seconds if now.seconds else 0.0
    again = reopened(saved, state.plan, iteration=state.iteration, used=used)
    state.plan = saved if keep else again
