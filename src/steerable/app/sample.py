"""`steerable sample`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from steerable.core.errors import UserError

from .console import Bar, duration, result, say_alias

if TYPE_CHECKING:
    from steerable.jobs.model import Model
    from steerable.jobs.sample import Sample
    from steerable.jobs.wish import Wish
    from steerable.recipes.recipe import Recipe

__all__ = ["interval_of", "sample"]


def interval_of(text: str | None) -> tuple[float, float] | None:
    """`0.2:0.8` as (low, high).

    Raises:
        UserError: E-CONFIG if it is not two times in order.
    """
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0.0 <= low < high <= 1.0:
        takes = "LOW:HIGH with 0 <= LOW < HIGH <= 1, 0 is data"
        raise UserError("E-CONFIG", where="interval", got=repr(text), takes=takes)
    return low, high


def sample(
    run: str,
    /,
    *,
    label: Annotated[list[str] | None, Parameter(negative=())] = None,
    cond: Annotated[list[str] | None, Parameter(negative=())] = None,
    n: Annotated[int, Parameter(name=["-n", "--n"])] = 16,
    guidance: float | None = None,
    interval: str | None = None,
    classifier: str | None = None,
    classifier_scale: float | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    grid: str | None = None,
    seed: int = 0,
    out: Path | None = None,
    film: Annotated[bool, Parameter(negative=())] = False,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    allow_code: str = "",
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Make pictures of the classes asked for.

    Parameters
    ----------
    run
        A run folder or a model file.
    label
        Name of a class, in any case; may be repeated; every class by default.
    cond
        Another condition as NAME=VALUE: a class name, numbers or words; may be repeated.
    n
        Pictures a label.
    guidance
        Weight of classifier-free guidance: 1 is off, above 1 exaggerates the label.
    interval
        Times LOW:HIGH between which guidance is at work; 0 is data, 1 is noise.
    classifier
        A run of the preset noisy-classifier that guides; its labels may be asked for as well.
    classifier_scale
        Scale of its guidance: 1 is the law of the class, 0 is off.
    steps
        Sampling steps.
    sampler
        Kind of sampler; see steerable parts samplers.
    grid
        Kind of time grid; see steerable parts grids.
    seed
        Seed of the first picture; picture i has seed + i.
    out
        Folder for the pictures, grid.png and samples.jsonl.
    film
        Write the denoising as an animated film.webp.
    set_
        Change another setting: --set sampler.eta=0.5. May be repeated.
    allow_code
        Module of your own whose parts the model file may name.
    json
        Print the result as one JSON object.
    """
    from steerable import api
    from steerable.jobs import sample as job
    from steerable.jobs.steering import with_classifier

    model = api.load(run, allow_code=allow_code)
    recipe = job.steered(
        with_classifier(model, classifier, classifier_scale),
        guidance=guidance,
        interval=interval_of(interval),
        steps=steps,
        sampler=sampler,
        grid_kind=grid,
        settings=set_ or (),
    )
    say_alias(sampler)
    wanted = _wanted(model, recipe, label or [], cond or [], n=n, seed=seed)
    where = out or _free(Path(run) if Path(run).is_dir() else Path())
    made, seconds = _written(model, recipe, wanted, where, film=film)
    return _tell(made, where, seconds, as_json=json)


def _wanted(
    model: Model, recipe: Recipe, label: list[str], cond: list[str], *, n: int, seed: int
) -> list[Wish]:
    """What is asked for, of the model and of the classifiers that guide it."""
    from steerable.jobs.steering import askable
    from steerable.jobs.wish import parsed, wishes

    return wishes(askable(model, recipe), label, n, seed, parsed(cond))


def _tell(made: Sample, where: Path, seconds: float, *, as_json: bool) -> int:
    """Say what was made, and leave with success."""
    recipe, n = made.recipe, len(made.wishes)
    plain = {
        "out": str(where),
        "n": n,
        "seconds": round(seconds, 2),
        "calls": made.calls,
        "sampler": recipe.sampler.flat(),
        "guidance": [part.flat() for part in recipe.guidance],
    }
    done = f"{n} pictures in {where}, {made.calls} calls of the network each"
    result(plain, as_json=as_json, lines=[done, str(where / "grid.png")])
    return 0


def _written(
    model: Model, recipe: Recipe, wanted: list[Wish], where: Path, *, film: bool
) -> tuple[Sample, float]:
    """The pictures, made with progress on stderr and written, a film if wanted, and the seconds."""
    from steerable.jobs import sample as job

    frames: list[Any] = []
    bar, made, start = Bar(), None, time.monotonic()
    for progress in job.sample(model, recipe, wanted, frames=frames if film else None):
        made = progress.sample
        share = progress.done / progress.of
        left = (time.monotonic() - start) * (1 / share - 1)
        bar.show(share, f"{len(wanted)} pictures  {duration(left)} left", last=made is not None)
    assert made is not None
    job.write(made, model, where, frames)
    return made, time.monotonic() - start


def _free(base: Path) -> Path:
    """The next free folder samples/set-NNN."""
    number = 1
    while (base / "samples" / f"set-{number:03d}").exists():
        number += 1
    return base / "samples" / f"set-{number:03d}"
