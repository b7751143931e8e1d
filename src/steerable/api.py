"""The door: about a dozen names, which the command line calls too."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.steer import Guidance
from steerable.core.types import Splits
from steerable.jobs.averaging import write_averaged as averaged
from steerable.jobs.classified import classified
from steerable.jobs.data import data_report, own_splits, splits_for
from steerable.jobs.doctor import Checking
from steerable.jobs.doctor import diagnose as _diagnose
from steerable.jobs.edit import Edit, Edited
from steerable.jobs.edit import edit as _edit
from steerable.jobs.edit import planned as _planned_edit
from steerable.jobs.effort import Effort
from steerable.jobs.encode import decoded, encoded, walking
from steerable.jobs.evaluate import Evaluation, Looking
from steerable.jobs.evaluate import evaluate as _evaluate
from steerable.jobs.inside import look
from steerable.jobs.interpolate import interpolated
from steerable.jobs.likelihood import likelihood
from steerable.jobs.model import Model
from steerable.jobs.planned import Request, prepared_with, recipe, with_own_settings
from steerable.jobs.planned import reading_for as reading_for_run
from steerable.jobs.prepare import Prepared, prepare
from steerable.jobs.reading import Reading, finished
from steerable.jobs.reading import reading as _reading
from steerable.jobs.report import FOLDER
from steerable.jobs.sample import Sample, steered
from steerable.jobs.sample import sample as _sample
from steerable.jobs.start import Start
from steerable.jobs.steering import askable, with_classifier
from steerable.jobs.tour import tour
from steerable.jobs.train import Iteration
from steerable.jobs.train import train as _train
from steerable.jobs.wish import wishes
from steerable.recipes.part import ROOMS, Part, build, describe, kinds
from steerable.recipes.recipe import Recipe
from steerable.recipes.sizing import cost, size_of

__all__ = [
    "Edit", "Model", "Recipe", "Request", "UserError", "averaged", "decoded", "diagnose", "edit",
    "encoded", "evaluate", "evaluation", "guide", "inspect_data", "interpolated", "likelihood",
    "load", "look", "parts", "prepared", "prepared_with", "reading", "reading_for_run", "recipe",
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


def prepared(
    data: str | None,
    run: str | Path,
    *,
    preset: str | None = None,
    budget: str | None = None,
    size: str | None = None,
    settings: Sequence[str] = (),
    config: str | Path | None = None,
    allow_code: str | Collection[str] = (),
    start: str | Path | None = None,
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
        allow_code: Modules of your own whose parts the recipe of a run folder may name, beside
            those that `settings` and `config` name.
        start: A run folder or model file whose weights a new run begins with.

    Raises:
        UserError: What is wrong with the data, a setting or the folder.
    """
    weights = None if start is None else Start.of(start, allow_code=allow_code)
    request = Request(data, run, preset, budget, size, settings, config, allow_code, weights)
    return prepared_with(request, finished(reading_for_run(request)))


def load(path: str | Path, *, device: str = "cpu", allow_code: str | Collection[str] = ()) -> Model:
    """Load a model from a run folder or a model file, which needs no constructor.

    Args:
        path: Run folder or model file.
        device: Where the network is put.
        allow_code: Module or modules of your own whose parts the file may name.

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
    classifier: str | Path | None = None,
    classifier_scale: float | None = None,
    guide: Sequence[Guidance] = (),
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
        classifier: Run of a classifier that guides, as the preset `noisy-classifier` trains it; its
            labels may be asked for as well.
        classifier_scale: Its scale; 1 is p(x | label), 0 is off.
        guide: Further guidances, such as from `guide`.

    Raises:
        UserError: E-LABEL, E-LIMIT or E-CONFIG for what cannot be taken, E-NUM for broken weights.
    """
    cond = label if isinstance(label, Mapping) else {}
    labels = [label] if isinstance(label, str) else [] if cond else list(label)
    own = with_classifier(model, classifier, classifier_scale)
    settings = steered(own, guidance=guidance, steps=steps, sampler=sampler)
    wanted = wishes(askable(model, settings), labels, n, seed, cond)
    made = None
    for progress in _sample(model, settings, wanted, guide=guide):
        made = progress.sample
    assert made is not None
    return made


def guide(
    score: Callable[[Tensor], Tensor],
    scale: float = 1.0,
    *,
    start: float = 1.0,
    stop: float = 0.0,
) -> Guidance:
    """A guidance towards clean items with a high score, for `sample(..., guide=[...])`.

    Args:
        score: Any differentiable function of x0-hat (B,C,H,W) in [-1, 1], higher where better, one
            number an item (B,).
        scale: 0 is off; how much is right depends on the score.
        start: At work from this time on (1 is pure noise) ...
        stop: ... down to this time (0 is data).

    Raises:
        UserError: E-CONFIG for a number that cannot be taken.
    """
    options = {"scale": scale, "start": start, "stop": stop}
    return build("guidance", Part(kind="universal", options=options), score=score)


def edit(
    model: Model,
    wanted: Edit,
    *,
    guidance: float | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    grid: str | None = None,
    settings: Sequence[str] = (),
) -> Edited:
    """Edit pictures: repaint, outpaint, translate, upscale, colourise; `.x` is (n,C,H,W) uint8.

    Args:
        model: From `load`.
        wanted: What is to be done: `Edit(image="a.png", mask="m.png", cond={"label": "boot"})`.
        guidance: Weight of classifier-free guidance; 1 is off.
        steps: Sampling steps.
        sampler: Kind of sampler.
        grid: Kind of time grid.
        settings: Further `path=value` settings of sampler, guidance, constraints and operator.

    Raises:
        UserError: E-DATA, E-SHAPE, E-LABEL, E-LIMIT or E-CONFIG for what cannot be taken.
    """
    chosen = {"guidance": guidance, "steps": steps, "sampler": sampler, "grid_kind": grid}
    made = None
    for progress in _edit(model, _planned_edit(model, wanted, **chosen, settings=settings), wanted):
        made = progress.edited
    assert made is not None
    return made


def evaluate(
    model: Model, against: str | None = None, *, n: int = 2000, guidance: float | None = None
) -> Evaluation:
    """Measure whether it listens: obedience, likeness, variety, copies; `.result` is the report.

    Of a classifier of noised items, its accuracy on held-out ones at ten noise levels.

    Args:
        model: From `load`.
        against: Real items to compare with; those that the model was trained on by default.
        n: Number of samples; of held-out items, at most, for a classifier.
        guidance: Weight of classifier-free guidance; the model's own by default.

    Raises:
        UserError: E-EVAL or E-DATA for what cannot be measured.
    """
    found = None
    settings = steered(model.recipe, guidance=guidance)
    for looking in evaluation(model, against, settings, effort=Effort(n=n)):
        found = looking.evaluation
    assert found is not None
    return found


def evaluation(
    model: Model,
    against: str | None,
    recipe: Recipe,
    *,
    effort: Effort | None = None,
    splits: Splits | None = None,
    own: Splits | None = None,
) -> Iterator[Looking]:
    """`evaluate` step by step, with other settings; the last item holds the result.

    A judge that has to learn the classes is kept in the run folder, if the model is in one.

    Args:
        model: From `load`.
        against: Real items to compare with; those that the model was trained on by default.
        recipe: The model's recipe with the sampling settings to use.
        effort: How many samples, from which seed, in which time, with which features.
        splits: The data of `against`, if it is in memory already.
        own: With it, the data that the model was trained on, if it is at hand.

    Raises:
        UserError: E-EVAL or E-DATA for what cannot be measured.
    """
    effort = effort or Effort()
    in_memory = splits is not None
    splits = splits if splits is not None else splits_for(model, against)
    if model.recipe.classifies:
        result = classified(model, splits, n=effort.n)
        yield Looking("done", 1, 1, evaluation=Evaluation(result))
        return
    if not in_memory:
        own = own_splits(model, splits, against is not None)
    folder = model.path.parent / FOLDER if (model.path.parent / "recipe.yaml").is_file() else None
    yield from _evaluate(model, splits, recipe=recipe, effort=effort, own=own, folder=folder)


def inspect_data(data: str, *, settings: Sequence[str] = ()) -> dict[str, Any]:
    """The scan report of data, read with `settings` such as `data.flip=true`, as plain data.

    Raises:
        UserError: E-DATA if it cannot be used, E-CONFIG for a setting of something else.
    """
    return data_report(finished(reading(data, settings=settings)))


def diagnose(
    data: str,
    *,
    settings: Sequence[str] = (),
    seconds: float = 60.0,
    seed: int = 0,
    budget: str = "10m",
    splits: Splits | None = None,
) -> Iterator[Checking]:
    """Look for copies, leaks, doubtful labels and too few pictures; the last item says it all.

    Args:
        data: A folder, a file, or a built-in data set.
        settings: How it is read, such as `data.flip=true`.
        seconds: Most time for the judges that doubt labels; 0 leaves them out.
        seed: Of the judges.
        budget: The run that the verdict on the size is about.
        splits: The data, if it is in memory already.

    Raises:
        UserError: As `inspect_data`; E-LIMIT for a time below 0.
    """
    read = splits if splits is not None else finished(reading(data, settings=settings))
    yield from _diagnose(read, seconds=seconds, seed=seed, budget=budget)


def reading(data: str, *, settings: Sequence[str] = ()) -> Iterator[Reading]:
    """Read data step by step, with settings of its own alone; the last step holds it.

    Args:
        data: A folder, a file, or a built-in data set.
        settings: How it is read, such as `data.flip=true`.

    Raises:
        UserError: As `inspect_data`.
    """
    part, rest = with_own_settings(data, settings)
    if rest:
        raise UserError("E-CONFIG", where="--set", got=repr(rest[0]), takes="data.option=value")
    yield from _reading(part)


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
