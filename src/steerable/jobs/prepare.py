"""Before a run: read the data, build the network, measure its speed, plan; nothing is written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steerable.core.errors import UserError
from steerable.core.types import Splits
from steerable.recipes.assembly import Network, network
from steerable.recipes.recipe import Budget, Recipe

from . import checkpoint
from .augment import check_augmentation
from .classified import labelled
from .data import data_report, items_of, known_to, reader_of
from .model import fit
from .plan import Plan, compile_pays, count, first_plan, forward_flops, measure
from .reading import READER, finished, reading
from .resume import check_resumable, same_data
from .run import Run
from .short import too_short
from .start import Start

__all__ = ["Prepared", "known_of", "prepare"]


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
    start: Start | None = None  # the weights that a new run begins with, if not from a seed
    spent: float = 0.0  # seconds that preparing took, reading the data among it


COMPILE_AFTER = 1200.0  # seconds of training that repay trying it
MEASURING = (0.05, 0.25, 1.0)  # share of the budget for measuring the speed, least and most seconds
FEW = 0.05  # share of a budget of iterations that is enough to measure the speed with


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


def known_of(run: Run) -> dict[str, Any]:
    """What a run that was begun says of its data: its report, or its checkpoints if that is lost.

    Of these the fingerprint and the version of the reader are there for sure.
    """
    report = run.data_report()
    return checkpoint.facts(run.path) if report is None else report


def prepare(
    recipe: Recipe,
    run: str | Path,
    *,
    splits: Splits | None = None,
    start: Start | None = None,
    began: float | None = None,
) -> Prepared:
    """Read the data, build the network, measure its speed and plan the run.

    Args:
        recipe: What to train.
        run: The run folder, new or of the same recipe.
        splits: The data, if it is in memory already.
        start: The weights that a new run begins with.
        began: When preparing began, by the monotonic clock, if it began before this call.

    Raises:
        UserError: What the data, the recipe or the run folder say against it.
    """
    began = time.monotonic() if began is None else began
    folder = Run(Path(run), recipe.trusted)
    recipe = _as_compiled_before(recipe, folder.recipe())
    _outside(Path(run), recipe)
    resumes = folder.check(recipe)
    if resumes:
        check_resumable(folder, recipe, given=start is not None)
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)
    known = known_of(folder) if resumes else {"reader": READER}
    splits = splits or finished(reading(recipe.data, reader=reader_of(known)))
    report = {**data_report(splits), "items": items_of(splits)}
    if resumes:
        same_data(folder, report)
    else:  # a run that was begun goes on as it was
        check_augmentation(recipe.training, splits.train.spec)
    splits = known_to(splits, {*recipe.conditions, recipe.classifies})
    torch.manual_seed(recipe.training.seed)  # the initial weights
    net = network(recipe, splits.train.spec)
    if start is not None:
        fit(net, start.weights, f"--from {start.about['model']}")
    if recipe.classifies:
        splits = labelled(splits, recipe.classifies)
    recipe, plan, facts = _planned(recipe, splits, net)
    spent = time.monotonic() - began
    return Prepared(recipe, Path(run), splits, report, net, facts, plan, resumes, start, spent)


def _planned(recipe: Recipe, splits: Splits, net: Network) -> tuple[Recipe, Plan, dict[str, Any]]:
    """The recipe with the choice to compile, the plan by the measured speed, and what it costs."""
    hyper, spec = recipe.training, splits.train.spec
    budget = Budget.parse(hyper.budget)
    batch = splits.train.batch(torch.arange(hyper.batch) % len(splits.train))
    share, least, most = MEASURING
    # A count has no end to miss, and ends the measuring itself.
    allowed = min(most, max(least, share * budget.seconds)) if budget.seconds else 4 * most
    enough = 0 if budget.seconds else max(3, int(FEW * count(budget, hyper.batch, 1.0)))
    rate = measure(net, batch, hyper, seconds=allowed, most=enough)
    plan = first_plan(hyper, rate, items=len(splits.train))
    seconds = budget.seconds if budget.seconds is not None else (plan.total or 0) / rate
    if hyper.compile == "auto":
        pays = seconds > COMPILE_AFTER and compile_pays(net, batch, hyper, rate, seconds=allowed)
        recipe = _compiling(recipe, "on" if pays else "off")
    flops = forward_flops(net, batch)
    warning = too_short(recipe, spec, rate, flops)
    facts = {
        "parameters": sum(p.numel() for p in net.parameters()),
        "forward_mflop": round(flops / 1e6, 1),
        "training_gflops": round(3 * flops * hyper.batch * rate / 1e9, 1),
        "images_per_second": round(hyper.batch * rate, 1),
        "seconds": round(seconds, 1),
        "iterations": plan.total or int(seconds * rate),
        "compiled": recipe.training.compile == "on",
        "train_items": len(splits.train),
        "held_out_items": len(splits.held_out),
        "warnings": [warning] if warning else [],
    }
    return recipe, plan, facts
