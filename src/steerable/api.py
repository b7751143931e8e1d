"""The door: about a dozen names, which the command line calls too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from steerable.core.errors import UserError
from steerable.jobs.averaging import write_averaged as averaged
from steerable.jobs.data import data_report, splits_for
from steerable.jobs.encode import decoded, encoded, walking
from steerable.jobs.evaluate import SEED, Evaluation, Looking
from steerable.jobs.evaluate import evaluate as _evaluate
from steerable.jobs.inside import look
from steerable.jobs.interpolate import interpolated
from steerable.jobs.likelihood import likelihood
from steerable.jobs.model import Model
from steerable.jobs.planned import prepared, recipe, with_own_settings
from steerable.jobs.prepare import prepare
from steerable.jobs.sample import Sample, steered
from steerable.jobs.sample import sample as _sample
from steerable.jobs.tour import tour
from steerable.jobs.train import Iteration
from steerable.jobs.train import train as _train
from steerable.jobs.wish import wishes
from steerable.recipes.part import ROOMS, build, describe, kinds
from steerable.recipes.recipe import Recipe
from steerable.recipes.sizing import cost, size_of

__all__ = [
    "Model", "Recipe", "UserError", "averaged", "decoded", "encoded", "evaluate", "evaluation",
    "inspect_data", "interpolated", "likelihood", "load", "look", "parts", "prepared", "recipe",
    "sample", "tour", "train", "walking",
]  # fmt: skip


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
    label: str | Sequence[str] | Mapping[str, Any] = (),
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
        label: A class name or several, none means every class; or every condition by its name: a
            class name, numbers, or a text of words.
        n: Pictures a label.
        seed: Seed of the first picture; picture i has seed + i.
        guidance: Weight of classifier-free guidance; 1 is off.
        steps: Sampling steps.
        sampler: Kind of sampler.

    Raises:
        UserError: E-LABEL, E-LIMIT or E-CONFIG for what cannot be taken, E-NUM for broken weights.
    """
    cond = label if isinstance(label, Mapping) else {}
    labels = [label] if isinstance(label, str) else [] if cond else list(label)
    settings = steered(model.recipe, guidance=guidance, steps=steps, sampler=sampler)
    made = None
    for progress in _sample(model, settings, wishes(model.spec, labels, n, seed, cond)):
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
    found = None
    for looking in evaluation(model, data, steered(model.recipe, guidance=guidance), n=n):
        found = looking.evaluation
    assert found is not None
    return found


def evaluation(
    model: Model, data: str | None, recipe: Recipe, *, n: int = 2000, seed: int = SEED
) -> Iterator[Looking]:
    """`evaluate` step by step, with other sampling settings; the last item holds the result.

    Args:
        model: From `load`.
        data: The data; the one that the model was trained on by default.
        recipe: The model's recipe with the sampling settings to use.
        n: Number of samples.
        seed: Seed of the first sample.

    Raises:
        UserError: E-EVAL or E-DATA for what cannot be measured.
    """
    splits = splits_for(model, data)
    yield from _evaluate(model, splits, recipe=recipe, n=n, seed=seed)


def inspect_data(data: str, *, settings: Sequence[str] = ()) -> dict[str, Any]:
    """The scan report of data, read with `settings` such as `data.flip=true`, as plain data.

    Raises:
        UserError: E-DATA if it cannot be used, E-CONFIG for a setting of something else.
    """
    part, rest = with_own_settings(data, settings)
    if rest:
        raise UserError("E-CONFIG", where="--set", got=repr(rest[0]), takes="data.option=value")
    return data_report(build("data", part))


def parts(
    room: str = "", *, size: str = "", shape: tuple[int, ...] = (3, 32, 32)
) -> dict[str, list[dict[str, Any]]]:
    """Every kind of a room, or of all rooms, with its docstring and options.

    Args:
        room: Such as `samplers`; all by default.
        size: With `backbones`, `xs` to `xl`: adds parameters and FLOP of one forward pass.
        shape: Shape of the items that the size is for.

    Raises:
        UserError: E-CONFIG if there is no such room or size.
    """
    names = {plural: single for single, plural in ROOMS.items()}
    if (room and room not in names) or (size and room != "backbones"):
        takes = "backbones with --size" if size else ", ".join(names)
        raise UserError("E-CONFIG", where="parts", got=f"'{room}'", takes=takes)
    chosen = [room] if room else list(names)
    found = {r: [describe(names[r], kind) for kind in kinds(names[r])] for r in chosen}
    for kind in found["backbones"] if size else ():
        facts = cost(kind["kind"], shape, size_of(size))
        kind |= {"size": size, "shape": shape, "sized": facts["options"]}
        kind |= {"parameters": facts["parameters"], "mflop": facts["flop"] / 1e6}
    return found
