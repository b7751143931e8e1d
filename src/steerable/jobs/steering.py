"""What a batch is sampled with: the guided denoiser, the constraints and the times.

Guidances and constraints are parts of the recipe. What they need beside their options (the times,
pictures that were given, another model) is gathered here, once a batch, by the name of the
constructor's parameter.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerable.core.denoise import Denoiser
from steerable.core.errors import UserError
from steerable.core.steer import Constraint, Guidance
from steerable.core.types import Ask, Cond, Denoise, Estimate, Spec
from steerable.recipes.assembly import constraints, grid, guidances
from steerable.recipes.part import build
from steerable.recipes.recipe import Recipe

from .model import Model, find_model
from .self_conditioning import names_of, remembering
from .wish import Wish, asked, conditioned

__all__ = ["GIVEN", "Steering", "answering", "given", "other", "steering", "times_of"]

GIVEN = ("image", "mask", "reference", "measured")  # what may be given with a wish


@dataclass(frozen=True)
class Steering:
    """The guided denoiser for one trajectory, the constraints, the times (N+1,)."""

    denoise: Denoise
    constraints: Sequence[Constraint]
    times: Tensor

    def ask(self, cond: Cond) -> Ask:
        """The guided denoiser with its conditions bound."""
        return lambda x_t, t: self.denoise(x_t, t, cond)


def answering(net: Denoiser) -> Denoise:
    """The network as a denoiser that is told only the conditions it was built with.

    A wish may name more: the label that a classifier guides an unconditional model to.
    """
    names = names_of(net)

    def answer(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
        return net(x_t, t, {k: v for k, v in cond.items() if k in net.conditions})

    return remembering(answer, names)


def times_of(net: Denoiser, recipe: Recipe) -> Tensor:
    """The times of sampling; below strength 1 only those under it, beginning with it."""
    times = grid(recipe.sampler.grid, net.process.schedule, recipe.sampler.steps)
    first = recipe.sampler.strength
    if first == 1.0:
        return times
    return torch.cat([torch.tensor([first], dtype=times.dtype), times[times < first]])


def given(wanted: Sequence[Wish], device: Any = "cpu") -> dict[str, Tensor]:
    """What was given with the wishes, stacked by name, (n,...).

    Raises:
        UserError: E-CONFIG if only some wishes have it.
    """
    names = dict.fromkeys(name for wish in wanted for name in wish.given)
    found = {}
    for name in names:
        values = [wish.given.get(name) for wish in wanted]
        rows = [value for value in values if value is not None]
        if len(rows) < len(values):
            got = f"for {len(rows)} of {len(values)} pictures"
            raise UserError("E-CONFIG", where=name, got=got, takes="one for each picture")
        found[name] = torch.stack(rows).to(device)
    return found


@functools.lru_cache(maxsize=8)
def _loaded(path: str, changed: int, device: str) -> Model:
    """A model, once as long as its file stays as it is."""
    return Model.load(path, device=device)


def other(path: str, net: Denoiser, device: Any) -> Model:
    """Another model that answers about the same x_t as `net`.

    Raises:
        UserError: E-CONFIG if there is none or its process noises otherwise, E-CKPT-*.
    """
    file = find_model(path)
    model = _loaded(str(file), file.stat().st_mtime_ns, str(device))
    mine, its = net.process.schedule, model.denoiser.process.schedule
    if mine != its:
        got, takes = f"noised by {its}", f"a model noised by {mine}"
        do = "train it with the same process and its options"
        raise UserError("E-CONFIG", where=Path(path).name, got=got, takes=takes, do=do)
    return model


def _context(
    net: Denoiser, recipe: Recipe, spec: Spec, wanted: Sequence[Wish], times: Tensor
) -> dict[str, Any]:
    """Everything that a guidance or a constraint may ask for, by name."""
    device = next(net.parameters()).device

    def written(cond: Mapping[str, Any]) -> dict[str, Tensor]:
        wish = Wish({name: asked(spec, name, value) for name, value in cond.items()})
        return conditioned(spec, [wish] * len(wanted), device)

    def weaker(path: str) -> Denoise:
        model = other(path, net, device)
        if model.spec.shape != spec.shape:
            got, takes = f"items {model.spec.shape}", f"items {spec.shape}"
            raise UserError("E-SHAPE", where=Path(path).name, got=got, takes=takes)
        return answering(model.denoiser)

    made: dict[str, Any] = {"schedule": net.process.schedule, "times": times}
    made |= {"written": written, "weaker": weaker, **given(wanted, device)}
    if recipe.operator is not None:
        made["operator"] = build("operator", recipe.operator, **made)
    return made


def steering(
    ask: Denoise,
    net: Denoiser,
    recipe: Recipe,
    spec: Spec,
    wanted: Sequence[Wish],
    *,
    guide: Sequence[Guidance] = (),
) -> Steering:
    """Everything for one batch of wishes; make a new one for every trajectory.

    Args:
        ask: The denoiser below all guidances, from `answering`.
        net: Its network.
        recipe: The sampling settings.
        spec: What may be asked for.
        wanted: The wishes of the batch.
        guide: Further guidances, which come after those of the recipe.

    Raises:
        UserError: E-CONFIG for a part that needs what was not given.
    """
    times = times_of(net, recipe)
    context = _context(net, recipe, spec, wanted, times)
    for guidance in (*guidances(recipe.guidance, **context), *guide):
        ask = guidance(ask)
    return Steering(ask, constraints(recipe.constraints, **context), times)
