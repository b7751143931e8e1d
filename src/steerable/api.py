"""The door: about a dozen names, which the command line calls too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from steerable.core.errors import UserError
from steerable.core.types import Spec, Splits
from steerable.jobs.data import data_part, data_report
from steerable.jobs.evaluate import Evaluation
from steerable.jobs.evaluate import evaluate as _evaluate
from steerable.jobs.model import Model
from steerable.jobs.prepare import Prepared, prepare
from steerable.jobs.run import Run
from steerable.jobs.sample import Sample, steered, wishes
from steerable.jobs.sample import sample as _sample
from steerable.jobs.train import Iteration
from steerable.jobs.train import train as _train
from steerable.recipes.part import ROOMS, Part, build, describe, kinds
from steerable.recipes.presets import find_preset
from steerable.recipes.recipe import Recipe, checked, from_yaml

__all__ = [
    "Model",
    "Recipe",
    "UserError",
    "evaluate",
    "inspect_data",
    "load",
    "parts",
    "prepared",
    "recipe",
    "sample",
    "train",
]


def _splits(part: Part) -> Splits:
    return build("data", part)


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
    part, rest = _data(data, settings)
    return _recipe(part, _splits(part).train.spec, preset, budget, size, rest)


def _data(data: str, settings: Sequence[str]) -> tuple[Part, list[str]]:
    """The data part with the settings `data.…` in it, and the other settings.

    The data is read before a preset can size anything, so its own settings come first.
    """
    part, own = data_part(data), [s for s in settings if s.strip().startswith("data.")]
    bare = Recipe(data=part, process=Part(kind="flow"), backbone=Part(kind="unet"))
    return bare.with_set(own).data, [s for s in settings if s not in own]


def _recipe(
    part: Part, spec: Spec, preset: str, budget: str, size: str, settings: Sequence[str]
) -> Recipe:
    made = find_preset(preset)(spec, data=part, budget=budget, size=size)
    return checked(made.plain()).with_set(settings)


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
        data: A folder, a file, or a built-in data set; may be left out with `config`.
        run: The run folder.
        preset: Name of a preset, `flow` by default.
        budget: How long, `10m` by default.
        size: Size of the network, `auto` by default.
        settings: `path=value` changes.
        config: A recipe file to start from.

    Raises:
        UserError: What is wrong with the data, a setting or the folder.
    """
    old = Run(Path(run)).recipe()
    base = from_yaml(Path(config)) if config else old
    if base is None:
        if data is None:
            raise UserError("E-CONFIG", where="data", got="nothing", takes="DATA or a recipe file")
        part, rest = _data(data, settings)
        splits = _splits(part)
        spec = splits.train.spec
        made = _recipe(part, spec, preset or "flow", budget or "10m", size or "auto", rest)
        return prepare(made, run, splits=splits)
    changes = [f"training.budget={budget}"] if budget else []
    made = base.with_set([*changes, *settings])
    if data is not None and data_part(data).kind != made.data.kind:
        made = made.with_set([f"data.kind={data_part(data).kind}"])
    if data is not None and made.data.kind == "images":
        made = made.with_set([f"data.path={json.dumps(data)}"])
    if preset is not None or size is not None:  # asked for again: the run's recipe must agree
        splits, rest = _splits(made.data), [s for s in settings if not s.startswith("data.")]
        wanted = (preset or made.preset, made.training.budget, size or "auto", rest)
        return prepare(_recipe(made.data, splits.train.spec, *wanted), run, splits=splits)
    return prepare(made, run)


def train(recipe: Recipe, run: str | Path) -> Iterator[Iteration]:
    """Train until the budget is used; the same call on the same folder goes on where it stopped.

    Closing the iterator saves a checkpoint. At the end the folder holds `model.safetensors`.

    Args:
        recipe: What to train.
        run: The run folder.

    Raises:
        UserError: What is wrong with the data, the recipe or the folder.
    """
    yield from _train(prepare(recipe, run))


def load(path: str | Path, *, device: str = "cpu", allow_code: str = "") -> Model:
    """Load a model from a run folder or a model file, which needs no constructor.

    Args:
        path: Run folder or model file.
        device: Where the network is put.
        allow_code: Module of your own whose parts the file may name.

    Raises:
        UserError: E-CONFIG if there is none, E-CKPT-* if it cannot be trusted or does not fit.
    """
    return Model.load(path, device=device, allow_code=allow_code)


def sample(
    model: Model,
    label: str | Sequence[str] = (),
    *,
    n: int = 16,
    seed: int = 0,
    guidance: float | None = None,
    steps: int | None = None,
    sampler: str | None = None,
) -> Sample:
    """Pictures of the classes asked for; `.x` is (n,C,H,W) uint8, one seed a picture.

    Args:
        model: From `load`.
        label: A class name or several; none means every class.
        n: Pictures a label.
        seed: Seed of the first picture; picture i has seed + i.
        guidance: Weight of classifier-free guidance; 1 is off.
        steps: Sampling steps.
        sampler: Kind of sampler.

    Raises:
        UserError: E-LABEL, E-LIMIT or E-CONFIG for what cannot be taken, E-NUM for broken weights.
    """
    labels = [label] if isinstance(label, str) else list(label)
    settings = steered(model.recipe, guidance=guidance, steps=steps, sampler=sampler)
    made = None
    for progress in _sample(model, settings, wishes(model.spec, labels, n, seed)):
        made = progress.sample
    assert made is not None
    return made


def evaluate(
    model: Model, data: str | None = None, *, n: int = 2000, guidance: float | None = None
) -> Evaluation:
    """Measure whether the labels are obeyed: accuracy, confusion, feature Frechet distance.

    Args:
        model: From `load`.
        data: The data; the one that the model was trained on by default.
        n: Number of samples.
        guidance: Weight of classifier-free guidance; the model's own by default.

    Raises:
        UserError: E-EVAL or E-DATA for what cannot be measured.
    """
    splits = _splits(data_part(data) if data else model_data(model))
    found = None
    recipe = steered(model.recipe, guidance=guidance)
    for looking in _evaluate(model, splits, recipe=recipe, n=n):
        found = looking.evaluation
    assert found is not None
    return found


def model_data(model: Model) -> Part:
    """The data part of the run that a model lies in, else the one that its file names."""
    beside = Run(model.path.parent).recipe()
    return beside.data if beside is not None else model.recipe.data


def inspect_data(data: str) -> dict[str, Any]:
    """The scan report of a data set as plain data: classes, sizes, duplicates, bad files.

    Raises:
        UserError: E-DATA if it cannot be used.
    """
    return data_report(_splits(data_part(data)))


def parts(room: str = "") -> dict[str, list[dict[str, Any]]]:
    """Every kind of a room, or of all rooms, with its docstring and options.

    Raises:
        UserError: E-CONFIG if there is no such room.
    """
    names = {plural: single for single, plural in ROOMS.items()} | {"grids": "grid"}
    if room and room not in names:
        takes = ", ".join(names)
        raise UserError("E-CONFIG", where="parts", got=f"'{room}'", takes=takes)
    chosen = [room] if room else list(names)
    return {r: [describe(names[r], kind) for kind in kinds(names[r])] for r in chosen}
