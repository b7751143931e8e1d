"""From a recipe to the objects that it names: the network, and what it is sampled with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from steerable.core.condition import Condition
from steerable.core.denoise import Denoiser
from steerable.core.errors import UserError
from steerable.core.process import Process
from steerable.core.steer import Constraint, Guidance
from steerable.core.types import Spec
from steerable.nn.noisy_classifier import NoisyClassifier

from .part import Part, build, find
from .recipe import Recipe

__all__ = ["Network", "constraints", "grid", "guidances", "network"]

Network = Denoiser | NoisyClassifier  # what a recipe trains: one cleans, the other names

_NAMED = {"label": "labels", "vector": "vectors", "tokens": "tokens"}  # where a spec names them


def network(recipe: Recipe, spec: Spec, *, outline: bool = False) -> Network:
    """Build what the recipe trains, for the data that `spec` describes.

    Args:
        recipe: The recipe.
        spec: What is known of the data.
        outline: Build it without memory, on the device `meta`: names and shapes, no numbers.

    Raises:
        UserError: E-CONFIG for a condition or a label that the data does not have.
    """
    # A process has no weights, and what it remembers of its schedule must be numbers.
    process = build("process", recipe.process, data_std=spec.std)
    with torch.device("meta") if outline else nullcontext():
        make = _classifier if recipe.classifies else _denoiser
        return make(recipe, spec, process)


def _classifier(recipe: Recipe, spec: Spec, process: Process) -> NoisyClassifier:
    """Build the network for the classes of one label, behind a process.

    Raises:
        UserError: E-CONFIG if the data has no such label, E-DATA if it has less than two classes.
    """
    name = recipe.classifies
    if name not in spec.labels:
        got, takes = f"'{name}', which the data does not have", ", ".join(spec.labels) or "no label"
        raise UserError("E-CONFIG", where="classifies", got=got, takes=takes)
    classes = len(spec.labels[name])
    if classes < 2:
        got, takes = f"{classes} class of '{name}'", "2 or more to tell apart"
        raise UserError("E-DATA", where=spec.name, got=got, takes=takes)
    backbone = build("classifier", recipe.backbone, shape=spec.shape, classes=classes)
    return NoisyClassifier(process, backbone, name, classes)


def _denoiser(recipe: Recipe, spec: Spec, process: Process) -> Denoiser:
    """Build backbone and conditions for the data that `spec` describes, behind a process.

    Raises:
        UserError: E-CONFIG for a condition that the data does not have.
    """
    slots = {name: find("condition", p.kind).slot for name, p in recipe.conditions.items()}

    for name, part in recipe.conditions.items():
        known = getattr(spec, _NAMED[part.kind]) if part.kind in _NAMED else {name: ()}
        if name not in known:
            got, takes = f"a {part.kind} that the data does not have", ", ".join(known) or "none"
            raise UserError("E-CONFIG", where=f"conditions.{name}", got=got, takes=takes)

    def condition(name: str, width: int = 0) -> Condition:
        return build(
            "condition",
            recipe.conditions[name],
            width=width,
            shape=spec.shape,
            classes=len(spec.labels.get(name, ())),
            numbers=len(spec.vectors.get(name, ())),
            words=len(spec.tokens.get(name, ())),
        )

    planes = {name: condition(name) for name, slot in slots.items() if slot == "planes"}
    count = sum(c.null.shape[0] for c in planes.values())
    backbone = build("backbone", recipe.backbone, shape=spec.shape, planes=count)
    conditions = {name: planes.get(name) or condition(name, backbone.width) for name in slots}
    return Denoiser(process, backbone, conditions)


def guidances(parts: Sequence[Part], **context: Any) -> list[Guidance]:
    """The guidances of a recipe, to be applied in this order, with what each of them needs.

    Raises:
        UserError: E-CONFIG for one that needs what is not in the context.
    """
    return [build("guidance", part, **context) for part in parts]


def constraints(parts: Sequence[Part], **context: Any) -> list[Constraint]:
    """The constraints of a recipe, to be applied in this order, with what each of them needs.

    Raises:
        UserError: E-CONFIG for one that needs what is not in the context.
    """
    return [build("constraint", part, **context) for part in parts]


def grid(part: Part, schedule: Any, steps: int) -> Any:
    """The times of a grid part, (steps+1,)."""
    return build("grid", part, schedule=schedule, steps=steps)
