"""What changes while training, and how it goes into a checkpoint and comes back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from steerable.core.denoise import Denoiser
from steerable.recipes.recipe import Budget

from . import checkpoint, durable
from .model import fit, pack_model, versions
from .plan import Plan
from .prepare import Prepared

__all__ = ["State", "fresh", "restore", "save"]


@dataclass
class State:
    """What changes while training; everything in it is saved with a checkpoint."""

    net: Denoiser
    ema: AveragedModel
    optimiser: torch.optim.AdamW
    plan: Plan
    iteration: int = 0
    seconds: float = 0.0
    skipped: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    validations: list[dict[str, Any]] = field(default_factory=list)
    bad_in_a_row: int = 0


def _groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only; not on norms, biases, tables or nulls."""
    tables = {id(p) for m in net.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    decayed = [p for p in net.parameters() if p.ndim >= 2 and id(p) not in tables]
    chosen = {id(p) for p in decayed}
    rest = [p for p in net.parameters() if id(p) not in chosen]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]


def _averaging(limit: float) -> Any:
    """EMA whose decay warms up as (1 + k) / (10 + k), so that short runs are not averaged away."""

    @torch.no_grad()
    def update(ema: list[Tensor], current: list[Tensor], k: Tensor | int) -> None:
        decay = min(limit, (1.0 + int(k)) / (10.0 + int(k)))
        torch._foreach_lerp_(ema, current, 1.0 - decay)

    return update


def fresh(job: Prepared) -> State:
    """The state before the first iteration."""
    hyper = job.recipe.training
    net = job.denoiser
    ema = AveragedModel(net, multi_avg_fn=_averaging(hyper.ema), use_buffers=False)
    optimiser = torch.optim.AdamW(
        _groups(net, hyper.weight_decay),
        lr=hyper.lr,
        betas=(hyper.beta1, hyper.beta2),
        fused=True,
    )
    return State(net, ema, optimiser, job.plan)


def _optimiser_tensors(state: State) -> dict[str, Tensor]:
    """Moments of AdamW by parameter name."""
    names = {id(p): name for name, p in state.net.named_parameters()}
    return {
        f"{names[id(p)]}.{key}": value
        for p, moments in state.optimiser.state.items()
        for key, value in moments.items()
    }


def save(job: Prepared, state: State) -> dict[str, Any]:
    """A verified checkpoint and the model file of its EMA weights."""
    began = time.perf_counter()
    parts = {
        "model": state.net.state_dict(),
        "ema": state.ema.module.state_dict(),
        "optimiser": _optimiser_tensors(state),
    }
    plan = state.plan
    plain = {
        "seconds": state.seconds,
        "skipped": state.skipped,
        "loss_sum": state.loss_sum,
        "loss_count": state.loss_count,
        "averaged": int(state.ema.n_averaged),
        "budget": job.recipe.training.budget,
        "plan": {"warmup": plan.warmup, "cooldown": plan.cooldown, "total": plan.total},
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
    parameters = dict(state.net.named_parameters())
    for name, value in found.parts["optimiser"].items():
        owner, _, key = name.rpartition(".")
        parameter = parameters[owner]
        # The fused step walks raw memory: a moment must lie in memory as its parameter does.
        like = torch.empty_like(parameter) if value.shape == parameter.shape else value.clone()
        state.optimiser.state[parameter][key] = like.copy_(value).detach()
    plain = found.state
    state.ema.n_averaged.fill_(int(plain["averaged"]))
    state.iteration = found.iteration
    state.seconds, state.skipped = float(plain["seconds"]), int(plain["skipped"])
    state.loss_sum, state.loss_count = float(plain["loss_sum"]), int(plain["loss_count"])
    state.validations = list(plain["validations"])
    saved = Plan(**plain["plan"])
    before, now = Budget.parse(plain["budget"]), Budget.parse(budget)
    over = now.seconds is not None and saved.done(state.iteration) and now.seconds <= state.seconds
    keep = before == now or over
    state.plan = saved if keep else replace(state.plan, warmup=saved.warmup)
