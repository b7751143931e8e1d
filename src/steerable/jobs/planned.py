"""From what a user says of data, preset, budget and size to a recipe and a run that can begin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steerable.core.errors import UserError
from steerable.core.types import Spec
from steerable.recipes.part import Part, build, find
from steerable.recipes.presets import find_preset
from steerable.recipes.recipe import Budget, Recipe, checked, from_yaml
from steerable.recipes.sizing import size_of

from .data import data_part, part_again
from .prepare import Prepared, prepare
from .run import Run

__all__ = ["prepared", "recipe", "with_own_settings"]


def recipe(
    data: str,
    *,
    preset: str = "flow",
    budget: str = "10m",
    size: str = "auto",
    settings: Sequence[str] = (),
) -> Recipe:
    """A recipe for some data, with every size computed.

    Args:
        data: A folder, a file, or the name of a built-in data set.
        preset: Name of a preset.
        budget: `10m`, `5000 iterations` or `200000 images`.
        size: `xs`, `s`, `m`, `l`, `xl` or `auto`.
        settings: `path=value` changes.

    Raises:
        UserError: What is wrong with the data or a setting.
    """
    part, rest = with_own_settings(data, settings)
    return _recipe(part, build("data", part).train.spec, preset, budget, size, rest)


def with_own_settings(data: str, settings: Sequence[str]) -> tuple[Part, list[str]]:
    """The data part with the settings `data.…` in it, and the other settings.

    The data is read before a preset can size anything, so its own settings come first.
    """
    part, own = data_part(data), [s for s in settings if s.strip().startswith("data.")]
    bare = Recipe(data=part, process=Part(kind="flow"), backbone=Part(kind="unet"))
    return bare.with_set(own).data, [s for s in settings if s not in own]


def _recipe(
    part: Part, spec: Spec, preset: str, budget: str, size: str, settings: Sequence[str]
) -> Recipe:
    made = checked(find_preset(preset)(spec, data=part, budget=budget, size=size).plain())
    kind = made.with_set(settings).backbone.kind
    if kind != made.backbone.kind:  # another network has another meaning of the size
        options = find(made.room, kind).sized(spec.shape, size_of("s" if size == "auto" else size))
        made = checked({**made.plain(), "backbone": {"kind": kind, **options}})
    return made.with_set(settings)


def prepared(
    data: str | None,
    run: str | Path,
    *,
    preset: str | None = None,
    budget: str | None = None,
    size: str | None = None,
    settings: Sequence[str] = (),
    config: str | Path | None = None,
) -> Prepared:
    """Everything for a training run, with its plan; nothing is written yet.

    A run folder that exists already gives the recipe: only the budget and `settings` are changed.

    Args:
        data: A folder, a file, or a built-in data set; optional with `config`.
        run: The run folder.
        preset: Name of a preset, `flow` by default.
        budget: How long, `10m` by default.
        size: Size of the network, `auto` by default.
        settings: `path=value` changes.
        config: A recipe file to start from.

    Raises:
        UserError: What is wrong with the data, a setting or the folder.
    """
    if budget is not None:
        Budget.parse(budget)  # before the data is read
    old = Run(Path(run)).recipe()
    if config is not None and (preset is not None or size is not None):
        got = "a recipe file with a preset or a size"
        raise UserError("E-CONFIG", where="config", got=got, takes="one of them")
    base = from_yaml(Path(config)) if config else old
    if base is None:
        if data is None:
            raise UserError("E-CONFIG", where="data", got="nothing", takes="DATA or a recipe file")
        part, rest = with_own_settings(data, settings)
        splits = build("data", part)
        spec = splits.train.spec
        made = _recipe(part, spec, preset or "flow", budget or "10m", size or "auto", rest)
        return prepare(made, run, splits=splits)
    changes = [f"training.budget={budget}"] if budget else []
    if data is not None:
        base = base.model_copy(update={"data": part_again(base.data, data)})
    made = base.with_set([*changes, *settings])
    splits = build("data", made.data)
    _asked_again(made, splits.train.spec, preset, size, settings, str(run))
    return prepare(made, run, splits=splits)


def _asked_again(
    made: Recipe,
    spec: Spec,
    preset: str | None,
    size: str | None,
    settings: Sequence[str],
    run: str,
) -> None:
    """Check a preset or size that is typed again for a run that has them already."""
    wanted = {"preset": (made.preset, preset or made.preset)}
    if size is not None and size != "auto":
        own = [s for s in settings if not s.strip().startswith("data.")]
        fresh = _recipe(made.data, spec, made.preset, "10m", size, own).backbone
        wanted["backbone"] = (made.backbone.kind, fresh.kind)
        sized = find(made.room, fresh.kind).sized(spec.shape, size_of(size))
        for name in sized if made.backbone.kind == fresh.kind else ():
            now, new = made.backbone.options[name], fresh.options[name]
            wanted[name] = (repr(now), repr(new))
    for name, (now, new) in wanted.items():
        if now != new:
            do = "choose another --run folder, or repeat the first command"
            got = f"{name}: {now} -> {new}"
            raise UserError("E-CONFIG-DIFF", where=run, got=got, kept="the run as it is", do=do)
