"""`steerable sample`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .console import Stop, result, say_alias, whole_grid
from .drawing import GOES_ON, watched
from .options import (
    AllowCode,
    Cond,
    Count,
    Flag,
    Force,
    Guiding,
    Json,
    Out,
    Run,
    Whole,
    Words,
    place,
)

if TYPE_CHECKING:
    from steerable.jobs.model import Model
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
    out: Out = None,
    force: Force = False,
    film: Flag = False,
    allow_code: AllowCode = None,
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
    from steerable.jobs.sample_files import claim_samples, write_samples
    from steerable.jobs.steering import with_classifier

    how = how or Guiding()
    model = api.load(run, allow_code=allow_code or ())
    own = with_classifier(model, how.classifier, how.classifier_scale)
    recipe = job.steered(own, **how.sampling.chosen(), settings=how.set_ or ())
    check_classifier(recipe, how.classifier, how.classifier_scale)
    say_alias(how.sampling.sampler)
    wanted = _wanted(model, recipe, label or [], cond or [], n=n, seed=seed)
    where = place(out, run, how.classifier, force=force)
    with claim_samples(model, recipe, wanted, where, films=film) as folder, Stop() as stop:
        steps = write_samples(folder, model, recipe, wanted, films=film)
        made = watched(steps, folder, len(wanted), stop)
    n = made.resumed + made.pictures
    plain = {
        "out": str(folder.path),
        "n": n,
        "seconds": made.seconds,
        "calls": made.calls,
        "sampler": recipe.sampler.flat(),
        "guidance": [part.flat() for part in recipe.guidance],
        "grid_left_out": made.left_out,
        "resumed": made.resumed,
        "stopped": bool(stop.code),
    }
    done = f"{n} pictures in {folder.path}, {made.calls} calls of the network each"
    grid = [str(folder.path / "grid.png"), *whole_grid(made.left_out)]
    result(plain, as_json=json, lines=[done, *([GOES_ON] if stop.code else grid)])
    return stop.code


def _wanted(
    model: Model, recipe: Recipe, label: list[str], cond: list[str], *, n: int, seed: int
) -> list[Wish]:
    """What is asked for, of the model and of the classifiers that guide it."""
    from steerable.jobs.steering import askable
    from steerable.jobs.wish import parsed, wishes

    return wishes(askable(model, recipe), label, n, seed, parsed(cond))
