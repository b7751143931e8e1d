"""Starting a new run from the weights of a model that is there already."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from steerable.core.errors import UserError
from steerable.recipes.recipe import Recipe

from .model import Model
from .run import Run

__all__ = ["LINEAGE", "Start"]

LINEAGE = "weights: "  # what the note of a recipe begins with that names where they come from


@dataclass(frozen=True)
class Start:
    """The weights that a run begins with, and where they come from.

    Attributes:
        weights: Tensors by name, EMA weights of a model file.
        recipe: The recipe of the model; with the data of its run where it lies in one.
        own_data: Whether that data can be found again.
        about: Name, SHA-256 and iterations of the model file, plain data.
    """

    weights: dict[str, Tensor]
    recipe: Recipe
    own_data: bool
    about: dict[str, Any]

    @staticmethod
    def of(path: str | Path, *, allow_code: str | Collection[str] = ()) -> Start:
        """The weights of a run folder or a model file.

        Raises:
            UserError: E-CONFIG if there is none, E-CKPT-* if it cannot be trusted.
        """
        model = Model.load(path, allow_code=allow_code)
        beside = Run(model.path.parent, model.recipe.trusted).recipe()
        recipe = model.recipe
        if beside is not None:
            recipe = recipe.model_copy(update={"data": beside.data})
        training = model.about.get("training")
        count = training.get("iterations") if isinstance(training, dict) else None
        about = {"model": model.path.name, "sha256": model.about["sha256"], "iterations": count}
        own = beside is not None or "path" not in recipe.data.options
        return Start(dict(model.network.state_dict()), recipe, own, about)

    @property
    def note(self) -> str:
        """The note of the new run's recipe."""
        about = self.about
        return f"{LINEAGE}{about['model']}, {about['iterations']} iterations, {about['sha256']}"

    def base(self, data: str | None, budget: str | None) -> Recipe:
        """The recipe of the new run, before its data and its settings are changed.

        Raises:
            UserError: E-CONFIG if the model does not say where its data is, and no other is given.
        """
        if data is None and not self.own_data:
            got = "a model file away from its run, which does not say where its pictures are"
            raise UserError("E-CONFIG", where="--from", got=got, do="name the data: train DATA")
        notes = (*self.recipe.notes, self.note)
        training = self.recipe.training.model_copy(update={"budget": budget or "10m"})
        return self.recipe.model_copy(update={"notes": notes, "training": training})

    def check_same(self, old: Recipe, run: Path) -> None:
        """Check that a run that is there already began with these weights.

        Raises:
            UserError: E-CONFIG-DIFF if it did not.
        """
        if self.note not in old.notes:
            before = next((n for n in old.notes if n.startswith(LINEAGE)), "no weights of a model")
            got = f"a run that began with {before.removeprefix(LINEAGE)}"
            do = "choose another --run folder; without --from, the run there goes on"
            raise UserError(
                "E-CONFIG-DIFF", where=str(run), got=got, kept="the run as it is", do=do
            )
