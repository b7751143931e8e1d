"""One preset a file: a function from a data spec and a budget to a recipe."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable

from steerable.core.errors import UserError
from steerable.recipes.recipe import Recipe

__all__ = ["find_preset", "presets"]


def presets() -> list[str]:
    """The presets' names, as typed on the command line."""
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__))


def find_preset(name: str) -> Callable[..., Recipe]:
    """The preset of that name.

    Raises:
        UserError: E-CONFIG if there is none.
    """
    if name not in presets():
        near = difflib.get_close_matches(name, presets(), 1)
        do = f"Did you mean '{near[0]}'?" if near else ""
        takes = ", ".join(presets())
        raise UserError("E-CONFIG", where="preset", got=f"'{name}'", takes=takes, do=do)
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    return getattr(module, module.__all__[0])
