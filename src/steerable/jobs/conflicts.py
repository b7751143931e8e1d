"""Options that contradict each other: said at once, instead of one of them winning in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from steerable.core.errors import UserError
from steerable.recipes.recipe import Recipe

__all__ = ["check_classifier", "check_sampling", "check_settings"]


def _refuse(option: str, value: Any, other: Any, what: str = "--set says") -> UserError:
    got, takes = f"{value!r}, but {what} {other!r}"[:200], "one of them, or twice the same"
    return UserError("E-CONFIG", where=option, got=got, takes=takes)


def check_sampling(made: Recipe, **typed: Any) -> None:
    """Check that the settings that were typed beside options have left what the options say.

    Args:
        made: The recipe with options and settings.
        typed: What the options say, by `steps`, `sampler`, `grid`, `guidance`, `interval` and
            `factor`; None is not typed.

    Raises:
        UserError: E-CONFIG for the first option that a setting contradicts.
    """
    tree = made.sampler
    grid = tree.grid.options.get("base", tree.grid.kind)  # `repaint` goes over another grid
    found: dict[str, Any] = {"steps": tree.steps, "sampler": tree.kind, "grid": grid}
    weighed = [p.options for p in made.guidance if p.kind == "cfg" or "weight" in p.options]
    timed = weighed or [p.options for p in made.guidance if p.kind == "classifier"]
    weights = [options.get("weight") for options in weighed]
    asked = typed.get("guidance")
    found["guidance"] = asked if asked in weights else next(iter(weights), None)
    found["interval"] = (timed[0].get("stop"), timed[0].get("start")) if timed else None
    low = [part.options["factor"] for part in made.constraints if part.kind == "ilvr"]
    found["factor"] = low[0] if low else None
    for option, value in typed.items():
        if value is not None and value != found[option]:
            raise _refuse(option, value, found[option])


def check_classifier(made: Recipe, run: Any, scale: float | None) -> None:
    """Check that the settings have left the classifier and the scale that the options name.

    Raises:
        UserError: E-CONFIG.
    """
    found = [part.options for part in made.guidance if part.kind == "classifier"]
    typed = {"run": None if run is None else str(run), "scale": scale}
    names = {"run": "classifier", "scale": "classifier_scale"}
    for option, value in typed.items():
        now = found[0].get(option) if found else None
        if value is not None and value != now:
            raise _refuse(names[option], value, now)


def check_settings(settings: Sequence[str], typed: Mapping[str, Any]) -> None:
    """Check that no `path=value` says something else than an option of its own does.

    Args:
        settings: As they were typed.
        typed: What the options say, by the path that each stands for, such as `training.seed`; None
            is not typed.

    Raises:
        UserError: E-CONFIG for the first contradiction.
    """
    for text in settings:
        path, _, written = text.partition("=")
        try:
            value = yaml.safe_load(written)
        except (yaml.YAMLError, RecursionError, ValueError):
            continue  # whoever reads the setting refuses it
        for whole, wanted in typed.items():
            room, _, leaf = whole.rpartition(".")
            said = value if path.strip() == whole else wanted
            if room and path.strip() == room and isinstance(value, Mapping):
                said = value.get(leaf, wanted)
            if wanted is not None and said != wanted and str(said) != str(wanted):
                raise _refuse(leaf, wanted, said)
