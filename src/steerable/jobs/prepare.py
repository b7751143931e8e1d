"""Before a run: read the data, build the network, measure its speed, plan; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steerable.core.errors import UserError
from steerable.core.types import Splits
from steerable.recipes.assembly import Network, network
from steerable.recipes.recipe import Budget, Recipe

from .augment import check_augmentation
from .classified import labelled
from .data import compare, data_report, items_of, known_to, reader_of
from .plan import Plan, compile_pays, first_plan, forward_flops, measure
from .reading import READER, finished, reading
from .run import Run

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """All that a run needs, and what it will cost; nothing is written yet."""

    recipe: Recipe
    run: Path
    splits: Splits
    report: dict[str, Any]
    denoiser: Network
    facts: dict[str, Any]
    plan: Plan
    resumes: bool


COMPILE_AFTER = 1200.0  # seconds of training that repay trying it


def _compiling(recipe: Recipe, choice: str) -> Recipe:
    return recipe.with_set([f"training.compile='{choice}'"])


def _as_compiled_before(recipe: Recipe, old: Recipe | None) -> Recipe:
    """The choice of the first session holds for a run: compiled code rounds otherwise."""
    if old is None or recipe.training.compile != "auto":
        return recipe
    return _compiling(recipe, old.training.compile)


def _outside(run: Path, recipe: Recipe) -> None:
    """Refuse a run folder among the pictures: its previews would become one of their classes."""
    data = recipe.data.options.get("path")
    if data is not None and run.resolve().is_relative_to(Path(data).resolve()):
        got, do = "a folder inside the data", "choose a --run folder outside of it"
        raise UserError("E-CONFIG", where=str(run), got=got, do=do)


def prepare(recipe: Recipe, run: str | Path, *, splits: Splits | None = None) -> Prepared:
    """Read the data, build the network, measure its speed and plan the run.

    Args:
        recipe: What to train.
        run: The run folder, new or of the same recipe.
        splits: The data, if it is in memory already.

    Raises:
        UserError: What the data, the recipe or the run folder say against it.
    """
    folder = Run(Path(run), recipe.trusted)
    recipe = _as_compiled_before(recipe, folder.recipe())
    _outside(Path(run), recipe)
    resumes = folder.check(recipe)
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)
    known = folder.data_report() if resumes else {"reader": READER}
    splits = splits or finished(reading(recipe.data, reader=reader_of(known)))
    report = {**data_report(splits), "items": items_of(splits)}
    if resumes:
        compare({**known, "items": folder.data_items()}, report, str(run))
    else:  # a run that was begun goes on as it was
        check_augmentation(recipe.training, splits.train.spec)
    splits = known_to(splits, {*recipe.conditions, recipe.classifies})
    torch.manual_seed(recipe.training.seed)  # the initial weights
    net = network(recipe, splits.train.spec)
    if recipe.classifies:
        splits = labelled(splits, recipe.classifies)
    batch_size = recipe.training.batch
    batch = splits.train.batch(torch.arange(batch_size) % len(splits.train))
    rate = measure(net, batch, recipe.training)
    plan = first_plan(recipe.training, rate, items=len(splits.train))
    budget = Budget.parse(recipe.training.budget)
    seconds = budget.seconds if budget.seconds is not None else (plan.total or 0) / rate
    if recipe.training.compile == "auto":
        pays = seconds > COMPILE_AFTER and compile_pays(net, batch, recipe.training, rate)
        recipe = _compiling(recipe, "on" if pays else "off")
    flops = forward_flops(net, batch)
    facts = {
        "parameters": sum(p.numel() for p in net.parameters()),
        "forward_mflop": round(flops / 1e6, 1),
        "training_gflops": round(3 * flops * batch_size * rate / 1e9, 1),
        "images_per_second": round(batch_size * rate, 1),
        "seconds": round(seconds, 1),
        "iterations": plan.total or int(seconds * rate),
        "compiled": recipe.training.compile == "on",
        "train_items": len(splits.train),
        "held_out_items": len(splits.held_out),
    }
    return Prepared(recipe, Path(run), splits, report, net, facts, plan, resumes)
