"""A budget that pays for a handful of iterations: that it is hopeless, and what would do."""

from __future__ import annotations

import math

from steerable.core.types import Spec
from steerable.recipes.recipe import Recipe
from steerable.recipes.sizing import SIZES, cost
from steerable.recipes.training import Budget

from .plan import count
from .trouble import YOUNG

__all__ = ["too_short"]

HANDFUL = 100  # iterations: noise is all that there is to see
ENOUGH = YOUNG  # from which on samples are not poor by nature


def too_short(recipe: Recipe, spec: Spec, rate: float, flop: int) -> str:
    """A warning with a budget and a size that would do; nothing for a budget that pays for more.

    Iterations that were asked for by number are what was asked for.

    Args:
        recipe: What is to be trained.
        spec: What is known of the data.
        rate: Measured iterations a second.
        flop: FLOP of a forward pass for one item.
    """
    budget, batch = Budget.parse(recipe.training.budget), recipe.training.batch
    planned = count(budget, batch, rate)
    if budget.iterations is not None or planned >= HANDFUL:
        return ""
    need = f'--budget "{ENOUGH * batch} images"' if budget.images else _time(ENOUGH / rate)
    text = (
        f"budget {recipe.training.budget} pays for about {planned} iterations, after which a "
        f"network can do nothing yet; about {ENOUGH} are the least that shows something: {need}"
    )
    return text + ("" if budget.images else _smaller(recipe, spec, planned, flop))


def _time(seconds: float) -> str:
    """The option for a time, rounded up to two figures that count."""
    minutes = max(1, math.ceil(seconds / 60))
    unit = 10 ** max(0, len(str(minutes)) - 2)
    minutes = -(-minutes // unit) * unit
    hours, rest = divmod(minutes, 60)
    return "--budget " + (
        f"{hours}h{rest}m" if hours and rest else f"{hours}h" if hours else f"{rest}m"
    )


def _smaller(recipe: Recipe, spec: Spec, planned: int, own: int) -> str:
    """The largest smaller size that would do in the same time, or the smallest and what it does."""
    kind, room = recipe.backbone.kind, recipe.room
    if ":" in kind:
        return ""
    told = ""
    for name in sorted(SIZES, key=lambda name: -SIZES[name]):
        flop = cost(kind, spec.shape, SIZES[name], room=room)["flop"]
        iterations = int(planned * own / flop) if flop else 0
        if iterations < 1.5 * planned:
            continue
        told = f", or --size {name}, for about {iterations} iterations in this time"
        if iterations >= ENOUGH:
            break
    return told
