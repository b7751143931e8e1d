"""A recipe: the frozen tree of parts that says what to train and how to sample it.

On disk it is YAML, in a weights file JSON. `with_set("sampler.steps=12")` changes one path.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from steerable.core.errors import UserError
from steerable.core.sample import Sampler
from steerable.intake.plain import plain_bytes

from .booleans import no_boolean
from .conditioning import INNER
from .origin import FOREIGN, OWN, Origin, artefact
from .part import Part, build, check, explained
from .training import Budget, Training

__all__ = ["Budget", "Recipe", "Sampling", "Training", "checked", "from_yaml"]


MAX_BYTES = 1_000_000  # of a recipe file
MAX_VALUES = 50_000  # in a recipe file, references written out
_KEPT = ("kind", "steps", "grid", "strength")  # what every sampler has


class Sampling(BaseModel):
    """How to sample, written flat: {kind: dpmpp_2m, steps: 12, grid: {kind: log_snr}, ...}."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = "dpmpp_2m"
    steps: int = Field(12, ge=1, le=1000)
    grid: Part = Part(kind="log_snr")
    strength: float = Field(1.0, gt=0, le=1)  # time to begin at; below 1 from a noised picture
    options: dict[str, Any] = Field(default_factory=dict)

    _numbers = no_boolean

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": value}
        if isinstance(value, Mapping) and "options" not in value:
            own = {k: v for k, v in value.items() if k in _KEPT}
            return {**own, "options": {k: v for k, v in value.items() if k not in own}}
        return value

    def flat(self) -> dict[str, Any]:
        """The form on disk."""
        own = {"kind": self.kind, "steps": self.steps, "grid": self.grid.flat()}
        return {**own, "strength": self.strength, **self.options}

    def sampler(self) -> Sampler:
        """The sampler itself."""
        return build("sampler", Part(kind=self.kind, options=self.options))


class Recipe(BaseModel):
    """Everything that is needed to repeat a run, but the data.

    Attributes:
        schema_version: Format of the recipe.
        preset: Name of the preset that it came from.
        data: Part of the room `datasets`.
        process: How data is noised, what the network answers, what an error costs.
        backbone: The network.
        classifies: Name of the label that the network names; empty for one that cleans.
        conditions: One part a condition, by the name that the data has for it.
        training: Budget, optimiser, seed.
        sampler: Sampler, steps and time grid to draw with by default.
        guidance: Guidances to draw with by default, in this order.
        constraints: Constraints to draw with, in this order.
        operator: What guidances of inverse problems take as measured.
        notes: How the preset differs from what was published.
        origin: Where it was read, and so whose code it may name; no part of what is written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    preset: str = "flow"
    data: Part
    process: Part
    backbone: Part
    classifies: str = ""
    conditions: dict[str, Part] = Field(default_factory=dict, max_length=64)
    training: Training = Training()
    sampler: Sampling = Sampling()
    guidance: tuple[Part, ...] = Field((), max_length=16)
    constraints: tuple[Part, ...] = Field((), max_length=16)
    operator: Part | None = None
    notes: tuple[str, ...] = Field((), max_length=64)
    _origin: Origin = PrivateAttr(OWN)

    def __eq__(self, other: object) -> bool:
        """Whether both say the same, wherever they were read."""
        return isinstance(other, Recipe) and self.plain() == other.plain()

    __hash__ = None

    @property
    def origin(self) -> Origin:
        """Where it was read, and so whose code it may name."""
        return self._origin

    @property
    def code(self) -> frozenset[str]:
        """Modules of the user's own that its parts are made of."""
        return frozenset(kind.partition(":")[0] for kind in self.kinds() if ":" in kind)

    @property
    def trusted(self) -> frozenset[str]:
        """Modules that artefacts which belong to this recipe may name: its own, or the allowed."""
        return self.code if self.origin.modules is None else self.origin.modules

    def kinds(self) -> list[str]:
        """The kind of every part: each place from which code is looked up."""
        parts = [self.data, self.process, self.backbone, *self.conditions.values()]
        parts += [self.sampler.grid, *self.guidance, *self.constraints]
        parts += [self.operator] if self.operator else []
        return [self.sampler.kind, *(part.kind for part in parts)]

    @property
    def room(self) -> str:
        """The room that the backbone comes from."""
        return "classifier" if self.classifies else "backbone"

    def plain(self) -> dict[str, Any]:
        """The recipe as plain data, in the form on disk."""
        return {
            "schema_version": self.schema_version,
            "preset": self.preset,
            "data": self.data.flat(),
            "process": self.process.flat(),
            "backbone": self.backbone.flat(),
            "classifies": self.classifies,
            "conditions": {name: part.flat() for name, part in self.conditions.items()},
            "training": self.training.model_dump(),
            "sampler": self.sampler.flat(),
            "guidance": [part.flat() for part in self.guidance],
            "constraints": [part.flat() for part in self.constraints],
            "operator": self.operator.flat() if self.operator else None,
            "notes": list(self.notes),
        }

    def yaml(self) -> str:
        """The recipe as YAML text."""
        plain = json.loads(json.dumps(self.plain()))
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)

    def with_set(self, assignments: Sequence[str]) -> Recipe:
        """The recipe with some paths changed: `backbone.channels=[64, 128]`, `training.lr=1e-3`.

        A change of a part's `kind` drops the options of the old kind. `guidance.weight` means the
        first guidance, `guidance.threshold.limit` the one of that kind; `guidance.kind` adds one
        where there is none, and `guidance=[{kind: cfg, weight: 3}]` sets them all.

        Raises:
            UserError: E-CONFIG for an assignment without `=` or a path that does not exist.
        """
        tree, origin = self.plain(), self.origin
        for assignment in assignments:
            path, equals, text = assignment.partition("=")
            if not equals or not path:
                raise UserError(
                    "E-CONFIG", where="--set", got=repr(assignment)[:80], takes="path=value"
                )
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise UserError("E-CONFIG", where=f"--set {path}", got=repr(text)[:80]) from error
            _assign(tree, path.strip().split("."), value, path)
            origin = origin.naming(text)  # what is typed here is the user's own word
        return checked(tree, origin)


def _assign(tree: dict[str, Any], steps: list[str], value: Any, path: str) -> None:
    node: Any = tree
    if steps[0] == "conditions" and len(steps) == 3 and steps[2] == "kind":
        tree["conditions"].setdefault(steps[1], {})  # a new one begins with its kind
    if steps[0] in ("guidance", "constraints") and len(steps) == 3:  # guidance.threshold.limit
        for part in tree[steps[0]]:
            if part["kind"] == steps[1]:
                part[steps[2]] = value
                return
    if steps[0] in ("guidance", "constraints") and steps[1:] == ["kind"] and not tree[steps[0]]:
        tree[steps[0]].append({})  # the first one, of a model that has none
    for step in steps[:-1]:
        if step == "grid" and isinstance(node, dict) and isinstance(node.get(step), str):
            node[step] = {"kind": node[step]}  # set to a bare kind just before
        node = node.get(step) if isinstance(node, Mapping) else None
        if isinstance(node, list):
            node = node[0] if node else None
        if not isinstance(node, dict):
            near = difflib.get_close_matches(steps[0], list(tree), 1)
            do = f"Did you mean '{near[0]}'?" if near and near[0] != steps[0] else ""
            takes = ", ".join(f"{name}.…" for name in tree if isinstance(tree[name], (dict, list)))
            raise UserError(
                "E-CONFIG", where=f"--set {path}", got="no such path", takes=takes, do=do
            )
    if steps[-1] == "kind" and node.get("kind") != value:
        keep = {k: node[k] for k in _KEPT[1:] if k in node}
        node.clear()
        node.update(keep)
    if len(steps) == 1 and steps[0] not in tree:
        raise UserError(
            "E-CONFIG", where=f"--set {path}", got="no such path", takes=", ".join(tree)
        )
    node[steps[-1]] = value


def _told(recipe: Recipe) -> dict[str, Part]:
    """The conditions, with the one that tells the network of augmentations where there are any.

    A classifier is told nothing: a moved picture has the class that it had.

    Raises:
        UserError: E-CONFIG if another condition has its name, or a classifier has any.
    """
    name = "augmentation"
    if recipe.classifies:
        if recipe.conditions:
            got, takes = ", ".join(recipe.conditions), "none where classifies is set"
            raise UserError("E-CONFIG", where="conditions", got=got, takes=takes)
        return {}
    if recipe.training.augment == 0:
        return recipe.conditions
    part = recipe.conditions.get(name, Part(kind=name))
    if part.kind != name:
        got, takes = f"kind '{part.kind}'", f"kind '{name}' while training.augment is above 0"
        raise UserError("E-CONFIG", where=f"conditions.{name}", got=got, takes=takes)
    return {**recipe.conditions, name: part}


def _weighed(recipe: Recipe) -> None:
    """Refuse a guidance weight of a condition that there is not, which would do nothing.

    Raises:
        UserError: E-CONFIG with the nearest name.
    """
    known = [name for name, part in recipe.conditions.items() if part.kind not in INNER]
    for part in recipe.guidance:
        weights = part.options.get("weights")
        for name in weights if isinstance(weights, Mapping) else ():
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                do = f"Did you mean '{near[0]}'?" if near else ""
                takes = ", ".join(known) or "no condition"
                where, got = "guidance.weights", f"'{name}'"
                raise UserError("E-CONFIG", where=where, got=got, takes=takes, do=do)


def checked(tree: Mapping[str, Any], origin: Origin = FOREIGN) -> Recipe:
    """A recipe from plain data, with every part validated and every default written out.

    The only way from plain data to a recipe: here it is decided whose code it may name, before
    any part is looked up.

    Args:
        tree: Plain data, in the form on disk.
        origin: Where it was read; by default from a place that may name no code.

    Raises:
        UserError: E-CONFIG naming the path that is wrong, E-CKPT-PICKLE if it names code that its
            origin may not.
    """
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        loc = error.errors()[0]["loc"]
        owner = Training if loc and loc[0] == "training" else Recipe
        raise explained(error, "", list(owner.model_fields)) from None
    for kind in recipe.kinds():
        origin.check(kind)
    recipe._origin = origin
    sampler = check(
        "sampler", Part(kind=recipe.sampler.kind, options=recipe.sampler.options), "sampler"
    )
    grid = check("grid", recipe.sampler.grid, "sampler.grid")
    _weighed(recipe)
    return recipe.model_copy(
        update={
            "data": check("data", recipe.data, "data"),
            "process": check("process", recipe.process, "process"),
            "backbone": check(recipe.room, recipe.backbone, "backbone"),
            "conditions": {
                name: check("condition", part, f"conditions.{name}")
                for name, part in _told(recipe).items()
            },
            "sampler": recipe.sampler.model_copy(update={"options": sampler.options, "grid": grid}),
            "guidance": tuple(check("guidance", part, "guidance") for part in recipe.guidance),
            "constraints": tuple(
                check("constraint", part, "constraints") for part in recipe.constraints
            ),
            "operator": recipe.operator and check("operator", recipe.operator, "operator"),
        }
    )


def from_yaml(path: Path, origin: Origin | None = None) -> Recipe:
    """Read a recipe file.

    Args:
        path: The file.
        origin: `OWN` if the user has named it to start from; else it may name no code.

    Raises:
        UserError: E-CONFIG if it is missing, not YAML or not a recipe, E-CKPT-PICKLE if it names
            code that its origin may not.
    """
    takes = "a recipe in YAML"
    try:
        text = plain_bytes(path)
        tree = yaml.safe_load(text.decode("utf-8")) if len(text) <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        # An impossible date is a ValueError, as is a text that is not UTF-8.
        told = str(getattr(error, "strerror", None) or error).splitlines()
        got = told[0] if told else type(error).__name__
        raise UserError("E-CONFIG", where=path.name, got=got, takes=takes) from error
    if len(text) > MAX_BYTES:
        got, takes = f"{len(text):,} bytes", f"up to {MAX_BYTES:,}"
        raise UserError("E-CONFIG", where=path.name, got=got, takes=takes)
    if not isinstance(tree, Mapping):
        raise UserError("E-CONFIG", where=path.name, got="no recipe", takes=takes)
    if _values(tree) > MAX_VALUES:  # references to references can mean more than a file is long
        got = f"more than {MAX_VALUES:,} values"
        raise UserError("E-CONFIG", where=path.name, got=got, takes=takes)
    return checked(tree, origin or artefact(path.name))


def _values(tree: Any) -> int:
    """Number of values of a tree when every reference is written out, or any above `MAX_VALUES`."""
    waiting, count = [tree], 0
    while waiting and count <= MAX_VALUES:
        node = waiting.pop()
        count += 1
        if isinstance(node, Mapping):
            waiting += node.values()
        elif isinstance(node, list | tuple | set):
            waiting += node
    return count
