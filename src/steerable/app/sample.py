"""`steerable sample`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import Bar, duration, result, say_alias
from .options import AllowCode, Cond, Count, Flag, Guiding, Json, Run, Whole, Words, place

if TYPE_CHECKING:
    from steerable.jobs.model import Model
    from steerable.jobs.sample import Sample
    from steerable.jobs.wish import Wish
    from steerable.recipes.recipe import Recipe

__all__ = ["sample"]


def sample(
    run: Run,
    /,
    *,
    label: Words = None,
    cond: Cond = None,
    n: Count = 16,
    how: Guiding | None = None,
    seed: Whole = 0,
    out: Path | None = None,
    film: Flag = False,
    allow_code: AllowCode = "",
    json: Json = False,
) -> int:
    """Make pictures of the classes asked for.

    Parameters
    ----------
    label
        Name of a class, in any case; may be repeated; every class by default.
    n
        Pictures a label.
    seed
        Seed of the first picture; picture i has seed + i.
    out
        Folder for the pictures, grid.png and samples.jsonl.
    film
        Write the denoising as an animated film.webp.
    """
    from steerable import api
    from steerable.jobs import sample as job
    from steerable.jobs.conflicts import check_classifier
    from steerable.jobs.steering import with_classifier

    how = how or Guiding()
    model = api.load(run, allow_code=allow_code)
    own = with_classifier(model, how.classifier, how.classifier_scale)
    recipe = job.steered(own, **how.sampling.chosen(), settings=how.set_ or ())
    check_classifier(recipe, how.classifier, how.classifier_scale)
    say_alias(how.sampling.sampler)
    wanted = _wanted(model, recipe, label or [], cond or [], n=n, seed=seed)
    where = place(out, run, "set")
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
