"""A time grid of its own for a trained model, written into the model file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.sample import times_of
from steerable.core.types import Ask
from steerable.recipes import store
from steerable.recipes.assembly import grid
from steerable.recipes.part import Part
from steerable.recipes.recipe import Recipe, checked

from . import durable
from .encode import deterministic
from .grids import NODES, PATHS, SEED, Tables, levels_of, moments, optimised_tables, paths
from .lease import rewriting
from .model import Model
from .steering import answering, steering
from .wish import Wish, conditioned

__all__ = ["compared", "tables_for", "write"]

KNOWN = ("uniform", "log_snr", "karras", "cosine")  # grids to begin the search from


@dataclass(frozen=True)
class _World:
    """A model as it samples: with its guidances, and its classes taking turns."""

    model: Model
    recipe: Recipe

    def fresh(self) -> Ask:
        """The denoiser for one trajectory of `PATHS` items."""
        net, names = self.model.denoiser, self.model.labels
        wanted = [Wish({"label": names[i % len(names)]} if names else {}) for i in range(PATHS)]
        told = conditioned(self.model.spec, wanted, self.device)
        cond = {name: value for name, value in told.items() if name in net.conditions}
        steer = steering(answering(net), net, self.recipe, self.model.spec, wanted)
        return steer.ask(cond)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.denoiser.parameters()).device

    def start(self, t: Tensor, seed: int) -> Tensor:
        """Noise to begin with at time t; equal seeds differ by the scale only."""
        like = torch.empty(PATHS, *self.model.spec.shape, device=self.device)
        return self.model.denoiser.process.start(t, Noise(seed + torch.arange(PATHS)), like)


def _counts(recipe: Recipe, steps: Sequence[int]) -> list[int]:
    """The numbers of steps, with the recipe's own: sampling by default must go on working."""
    for count in steps:
        if not 1 <= count <= NODES:
            raise UserError("E-LIMIT", where="steps", got=str(count), takes=f"1 to {NODES}")
    own = recipe.sampler.steps
    return sorted({*steps, *([own] if own <= NODES else [])})


def tables_for(
    model: Model, recipe: Recipe, steps: Sequence[int], *, refine: bool = True
) -> Tables:
    """Noise levels for some numbers of steps, and for the recipe's own, from the model's paths.

    Args:
        model: From `load`.
        recipe: Its recipe with the sampler and the guidance to use, from `steered`.
        steps: Numbers of steps, from 1 to 64.
        refine: Whether to go on with the sampler itself, if it is not of first order, from the
            optimum or from the best of the present grid and the known ones: some hundred times the
            calls of one batch of samples.

    Raises:
        UserError: E-LIMIT for a number of steps, E-CONFIG for a stochastic sampler, whose paths
            end elsewhere than those of the ODE; E-NUM for broken weights.
    """
    world, schedule = _World(model, recipe), model.denoiser.process.schedule
    counts, own = _counts(recipe, steps), recipe.sampler.grid
    deterministic(recipe.sampler.sampler(), recipe.sampler.kind)
    levels = levels_of(schedule)
    kinds = [*(Part(kind=kind) for kind in KNOWN), *([own] if own.kind != "optimised" else [])]
    return optimised_tables(
        world.fresh,
        schedule,
        counts,
        start=world.start(schedule.time_at(levels[0]), SEED),
        sampler=recipe.sampler.sampler() if refine else None,
        grids=[partial(grid, kind, schedule) for kind in kinds],
    )


def compared(model: Model, recipe: Recipe, tables: Tables) -> list[dict[str, Any]]:
    """How far samples end from where fine paths of the same noise end, on noise not fitted on.

    Root mean square difference on the scale from -1 to 1, for each number of steps: with the new
    levels, and with the grid of the recipe where it can make so many steps.

    Args:
        model: From `load`.
        recipe: Its recipe with the sampler and the guidance to use.
        tables: From `tables_for`.
    """
    world, schedule = _World(model, recipe), model.denoiser.process.schedule
    levels, seed = levels_of(schedule), SEED + PATHS
    first = world.start(schedule.time_at(levels[0]), seed)
    with torch.inference_mode():
        end = paths(world.fresh(), first, schedule=schedule, levels=levels).end

    def off(times: Tensor) -> float:
        start, sampler = world.start(times[0], seed), recipe.sampler.sampler()
        last = moments(world.fresh(), start, schedule, sampler, times)[-1].x
        return float((last - end).square().mean().sqrt())

    rows = []
    for steps, table in tables.items():
        new = off(times_of(schedule, torch.tensor(table, dtype=torch.float64)))
        own = recipe.sampler.grid
        fits = own.kind != "optimised" or steps in own.options["tables"]
        old = off(grid(own, schedule, steps)) if fits else None
        rows.append({"steps": steps, "error": new, "error_before": old, "levels": table})
    return rows


def write(model: Model, recipe: Recipe, tables: Tables) -> Recipe:
    """Put tables into the model file, beside those it has, with the sampler they were fitted to.

    From then on the model samples with them, by default with the recipe's steps if they have a
    table, else with the most that has one. Weights and everything else that the file says of
    itself stay; it gets a new SHA-256. Training on writes a file without tables, since they belong
    to the old weights.

    Returns:
        The recipe that is now in the file.

    Raises:
        UserError: E-CKPT-* if the file has been damaged since, E-DISK if it cannot be written.
    """
    with rewriting(model.path):
        tensors, about = store.open_model(model.path)
        changed, made = _with_tables(about["recipe"], recipe, tables)
        durable.write(model.path, store.pack(tensors, {**about, "recipe": changed}))
    return made


def _with_tables(
    plain: dict[str, Any], recipe: Recipe, tables: Tables
) -> tuple[dict[str, Any], Recipe]:
    """The recipe of a model file with tables beside those it has, as plain data and as a recipe."""
    old = checked(plain, recipe.origin).sampler.grid
    merged = {**(old.options["tables"] if old.kind == "optimised" else {}), **tables}
    told = {str(steps): merged[steps] for steps in sorted(merged)}
    steps = recipe.sampler.steps if recipe.sampler.steps in merged else max(merged)
    own = {"steps": steps, "grid": {"kind": "optimised", "tables": told}}
    changed = {**plain, "sampler": {**recipe.sampler.flat(), **own}}
    return changed, checked(changed, recipe.origin)
