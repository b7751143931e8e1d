"""What a batch is sampled with: the guided denoiser, the constraints and the times.

Guidances and constraints are parts of the recipe. What they need beside their options (the times,
pictures that were given, another model) is gathered here, once a batch, by the name of the
constructor's parameter.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerable.core.denoise import Denoiser
from steerable.core.errors import UserError
from steerable.core.steer import Constraint, Guidance
from steerable.core.types import Ask, Cond, Denoise, Estimate, Spec
from steerable.nn.noisy_classifier import NoisyClassifier
from steerable.recipes.assembly import constraints, grid, guidances
from steerable.recipes.part import build
from steerable.recipes.recipe import Recipe, checked

from .given import check_measured, check_needs, given
from .masks import seeing
from .model import Model, find_model
from .self_conditioning import names_of, remembering
from .wish import Wish, all_asked, conditioned

__all__ = [
    "Steering", "answering", "askable", "other", "steering", "times_of", "with_classifier",
]  # fmt: skip

LAST = ("classifier", "threshold")  # guidances that others should stand before


@dataclass(frozen=True)
class Steering:
    """The guided denoiser for one trajectory, the constraints, the times (N+1,)."""

    denoise: Denoise
    constraints: Sequence[Constraint]
    times: Tensor

    def ask(self, cond: Cond) -> Ask:
        """The guided denoiser with its conditions bound."""
        return lambda x_t, t: self.denoise(x_t, t, cond)


def answering(net: Denoiser, known: Mapping[str, Tensor] | None = None) -> Denoise:
    """The network as a denoiser that is told only the conditions it was built with.

    A wish may name more: the label that a classifier guides an unconditional model to.

    Args:
        net: The network.
        known: What was given with the wishes; one that was trained with masks sees it.
    """
    names = names_of(net)

    def answer(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
        return net(x_t, t, {k: v for k, v in cond.items() if k in net.conditions})

    return remembering(seeing(answer, net, known or {}), names)


def times_of(net: Denoiser, recipe: Recipe) -> Tensor:
    """The times of sampling; below strength 1 only those under it, beginning with it."""
    times = grid(recipe.sampler.grid, net.process.schedule, recipe.sampler.steps)
    first = recipe.sampler.strength
    if first == 1.0:
        return times
    times = torch.cat([torch.tensor([first], dtype=times.dtype), times[times < first]])
    # Where a grid that climbs is cut off, it would stand still.
    return torch.cat([times[:1], times[1:][times.diff() != 0]])


@functools.lru_cache(maxsize=8)
def _loaded(path: str, changed: int, device: str, allow_code: frozenset[str]) -> Model:
    """A model, once as long as its file stays as it is."""
    return Model.load(path, device=device, allow_code=allow_code)


def _found(path: str, device: Any, recipe: Recipe) -> Model:
    """Another model, that may name the code which the recipe that asks for it may name."""
    file = find_model(path)
    return _loaded(str(file), file.stat().st_mtime_ns, str(device), recipe.trusted)


def other(path: str, net: Denoiser, recipe: Recipe) -> Model:
    """Another model that answers about the same x_t as `net`, asked for by a recipe.

    Raises:
        UserError: E-CONFIG if there is none or its process noises otherwise, E-CKPT-*.
    """
    model = _found(path, next(net.parameters()).device, recipe)
    mine, its = net.process.schedule, model.network.process.schedule
    if mine != its:
        got, takes = f"noised by {its}", f"a model noised by {mine}"
        do = "train it with the same process and its options"
        raise UserError("E-CONFIG", where=Path(path).name, got=got, takes=takes, do=do)
    return model


def _same_shape(where: str, its: Spec, mine: Spec) -> None:
    """Refuse another model whose items are others.

    Raises:
        UserError: E-SHAPE.
    """
    if its.shape != mine.shape:
        got, takes = f"items {its.shape}", f"items {mine.shape}"
        raise UserError("E-SHAPE", where=where, got=got, takes=takes)


def _weaker(path: str, net: Denoiser, recipe: Recipe, spec: Spec) -> Denoiser:
    """The network of another model that may be asked the same questions as `net`.

    It is not told a condition that it was trained without; the others must mean the same to both.

    Raises:
        UserError: E-CONFIG if there is none, it names, is noised otherwise, or has other names than
            the model for the values of the same condition; E-SHAPE for other items; E-CKPT-*.
    """
    model = other(path, net, recipe)
    found, where = model.denoiser, Path(path).name
    _same_shape(where, model.spec, spec)
    for name in found.conditions:
        its, mine = _told(model.spec, name), _told(spec, name)
        if mine and its != mine:
            got, do = f"'{name}' is {its}", f"train it on the same data, or without '{name}'"
            raise UserError("E-CONFIG", where=where, got=got, takes=mine, do=do)
    return found


def _told(spec: Spec, name: str) -> str:
    """What a condition tells, with the names of its values; nothing if a spec does not have it."""
    known = {"one of": spec.labels, "the numbers": spec.vectors, "words of": spec.tokens}
    found = [f"{what} {', '.join(names[name])}" for what, names in known.items() if name in names]
    return "".join(found)


def _classifier(
    path: str, net: Denoiser, recipe: Recipe, spec: Spec
) -> tuple[NoisyClassifier, tuple[str, ...]]:
    """The classifier of a run that sees the same x_t as `net`, and the names of its classes.

    Raises:
        UserError: E-CONFIG if there is none, it cleans, is noised otherwise, or has other classes
            than the model for the same label; E-SHAPE for other items; E-CKPT-*.
    """
    do = "steerable train DATA --preset noisy-classifier, with the process of the model"
    takes = "the run of a classifier"
    if not path:
        raise UserError("E-CONFIG", where="guidance.classifier.run", got="none", takes=takes, do=do)
    device, where = next(net.parameters()).device, Path(path).name
    if not isinstance(_found(path, device, recipe).network, NoisyClassifier):
        raise UserError("E-CONFIG", where=where, got="a model that cleans", takes=takes, do=do)
    model = other(path, net, recipe)
    found = model.network
    assert isinstance(found, NoisyClassifier)
    _same_shape(where, model.spec, spec)
    its = model.spec.labels[found.classifies]
    mine = spec.labels.get(found.classifies, its)
    if mine != its:
        got, takes = f"'{found.classifies}' is one of {', '.join(its)}", ", ".join(mine)
        do = "train it on the same data"
        raise UserError("E-CONFIG", where=where, got=got, takes=takes, do=do)
    return found, its


def askable(model: Model, recipe: Recipe) -> Spec:
    """What may be asked for: the model's own conditions, and the labels of classifiers that guide.

    Raises:
        UserError: What speaks against a classifier.
    """
    net, spec = model.denoiser, model.spec
    for part in recipe.guidance:
        if part.kind == "classifier":
            found, names = _classifier(part.options["run"], net, recipe, spec)
            spec = replace(spec, labels={**spec.labels, found.classifies: names})
    return spec


def with_classifier(model: Model, run: str | Path | None, scale: float | None) -> Recipe:
    """The model's recipe, guided by the classifier of a run as well; what is None stays.

    It comes before what clips, so that this clips what it has moved.

    Raises:
        UserError: E-CONFIG for a scale without a classifier, and what speaks against that one.
    """
    net, recipe = model.denoiser, model.recipe
    if run is None and scale is None:
        return recipe
    tree = recipe.plain()
    parts = tree["guidance"]
    place = [part["kind"] for part in parts]
    if "classifier" not in place:
        if run is None:
            where, takes = "classifier_scale", "a scale beside the run of a classifier"
            raise UserError("E-CONFIG", where=where, got="no classifier", takes=takes)
        before = place.index("threshold") if "threshold" in place else len(place)
        parts.insert(before, {"kind": "classifier"})
        place.insert(before, "classifier")
    part = parts[place.index("classifier")]
    part |= {} if run is None else {"run": str(run)}
    part |= {} if scale is None else {"scale": scale}
    _classifier(part["run"], net, recipe, model.spec)
    return checked(tree, recipe.origin)


def _context(
    net: Denoiser, recipe: Recipe, spec: Spec, wanted: Sequence[Wish], times: Tensor
) -> dict[str, Any]:
    """Everything that a guidance or a constraint may ask for, by name."""
    device = next(net.parameters()).device

    def written(cond: Mapping[str, Any]) -> dict[str, Tensor]:
        wish = Wish(all_asked(spec, cond))
        return conditioned(spec, [wish] * len(wanted), device)

    def weaker(path: str) -> Denoise:
        return answering(_weaker(path, net, recipe, spec), made)

    def classifier(path: str) -> NoisyClassifier:
        return _classifier(path, net, recipe, spec)[0]

    made: dict[str, Any] = {"schedule": net.process.schedule, "times": times}
    made |= {"written": written, "weaker": weaker, "classifier": classifier}
    made |= given(wanted, spec, device)
    check_needs(recipe, made)
    if recipe.operator is not None:
        made["operator"] = build("operator", recipe.operator, **made)
        check_measured(made, spec, recipe.operator.kind)
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
        guide: Further guidances. They come after those of the recipe, but before what keeps no
            gradient and before what clips.

    Raises:
        UserError: E-CONFIG for a part that needs what was not given, or another model that does
            not fit; E-SHAPE for what was given in another shape than the model's.
    """
    times = times_of(net, recipe)
    context = _context(net, recipe, spec, wanted, times)
    made = guidances(recipe.guidance, **context)
    kinds = [part.kind for part in recipe.guidance]
    place = next((i for i, kind in enumerate(kinds) if kind in LAST), len(kinds))
    for guidance in (*made[:place], *guide, *made[place:]):
        ask = guidance(ask)
    return Steering(ask, constraints(recipe.constraints, **context), times)
