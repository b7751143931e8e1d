"""What is given with the wishes, stacked, and what the parts of a recipe need: all is checked."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.types import Spec
from steerable.recipes.part import find
from steerable.recipes.recipe import Recipe

from .wish import Wish

__all__ = ["GIVEN", "check_measured", "check_needs", "check_weighed", "given"]

GIVEN = ("image", "mask", "reference", "measured", "start")  # what may be given with a wish
# What a part may need that no other setting brings, and where it comes from.
_WAYS = {
    "image": "steerable edit MODEL --image PICTURE",
    "mask": "steerable edit MODEL --image PICTURE --mask MASK",
    "reference": "steerable edit MODEL --reference PICTURE",
    "operator": "--set 'operator={kind: ...}', beside what it measured",
    "measured": "steerable edit MODEL --image PICTURE --upscale, --colourise or --mask",
    "score": "in Python: steerable.sample(model, guide=[steerable.guide(score)])",
}


def given(wanted: Sequence[Wish], spec: Spec, device: Any = "cpu") -> dict[str, Tensor]:
    """What was given with the wishes, stacked by name, (n,...).

    Args:
        wanted: The wishes of a batch.
        spec: What is known of the model's items.
        device: Where the tensors are put.

    Raises:
        UserError: E-CONFIG for an unknown name, or if only some wishes have it; E-SHAPE for an
            image, a reference or a start that is not of the model's shape, a mask that is not of
            its height and width, or measurements that are not alike.
    """
    shapes = dict.fromkeys(("image", "reference", "start"), spec.shape)
    shapes["mask"] = (1, *spec.shape[1:])
    found = {}
    for name in dict.fromkeys(name for wish in wanted for name in wish.given):
        if name not in GIVEN:
            near = difflib.get_close_matches(name, GIVEN, 1)
            do = f"Did you mean '{near[0]}'?" if near else ""
            takes = ", ".join(GIVEN)
            raise UserError("E-CONFIG", where="given", got=f"'{name[:80]}'", takes=takes, do=do)
        rows = [wish.given[name] for wish in wanted if name in wish.given]
        if len(rows) < len(wanted):
            got = f"for {len(rows)} of {len(wanted)} pictures"
            raise UserError("E-CONFIG", where=name, got=got, takes="one for each picture")
        takes = shapes.get(name, tuple(rows[0].shape))
        for row in rows:
            _check_shape(name, tuple(row.shape), takes)
        found[name] = torch.stack(rows).to(device)
    return found


def _check_shape(name: str, shape: tuple[int, ...], takes: tuple[int, ...], why: str = "") -> None:
    """Refuse one of another shape.

    Raises:
        UserError: E-SHAPE.
    """
    if shape != takes:
        raise UserError("E-SHAPE", where=name, got=f"shape {shape}", takes=f"{takes}{why}")


def check_measured(context: Mapping[str, Any], spec: Spec, kind: str) -> None:
    """Refuse measurements of another shape than the operator answers for the model's items.

    Args:
        context: With the operator; without measurements there is nothing to check.
        spec: What is known of the model's items.
        kind: Of the operator.

    Raises:
        UserError: E-SHAPE, and what the operator says of such items.
    """
    measured = context.get("measured")
    if measured is not None:
        item = torch.zeros(len(measured), *spec.shape, device=measured.device)
        takes = tuple(context["operator"](item).shape[1:])
        why = f", what '{kind}' makes of {spec.shape}"
        _check_shape("measured", tuple(measured.shape[1:]), takes, why)


def _needs(room: str, kind: str) -> list[str]:
    """What a part takes beside its options, by name."""
    parameters = inspect.signature(find(room, kind)).parameters.values()
    return [p.name for p in parameters if p.default is inspect.Parameter.empty]


def check_needs(recipe: Recipe, context: Mapping[str, Any]) -> None:
    """Refuse a part that needs what was not given, with the way to give it.

    Raises:
        UserError: E-CONFIG.
    """
    operators = () if recipe.operator is None else (recipe.operator,)
    rooms = {"operator": operators, "guidance": recipe.guidance, "constraint": recipe.constraints}
    # An operator is built after this, for the guidances.
    there = context.keys() | ({"operator"} if operators else set())
    for room, parts in rooms.items():
        for part in parts:
            wants = [name for name in _needs(room, part.kind) if name in _WAYS]
            for name in wants:
                if name not in there:
                    where, takes = f"{room} '{part.kind}'", " and ".join(wants)
                    got, do = f"no {name}", _WAYS[name]
                    raise UserError("E-CONFIG", where=where, got=got, takes=takes, do=do)


def check_weighed(recipe: Recipe) -> None:
    """Refuse guidances of a model without a condition that only have a condition to weigh.

    Raises:
        UserError: E-CONFIG.
    """
    for part in recipe.guidance:
        found = [(n, part.options[n]) for n in ("weight", "scale") if n in part.options]
        alone = set(_needs("guidance", part.kind)) <= {"schedule", "times"}
        if alone and found and found[0][1] != 1.0:
            where, got = f"guidance '{part.kind}'", f"{found[0][0]} {found[0][1]:g}"
            takes = "one such as autoguidance: this model was trained without a condition"
            raise UserError("E-CONFIG", where=where, got=got, takes=takes)
