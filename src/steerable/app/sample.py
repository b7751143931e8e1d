"""`steerable sample`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from steerable.core.errors import UserError

from .console import Bar, duration, result

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
    n: Annotated[int, Parameter(name=["-n", "--n"])] = 16,
    guidance: float | None = None,
    interval: str | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    grid: str | None = None,
    seed: int = 0,
    out: Path | None = None,
    film: Annotated[bool, Parameter(negative=())] = False,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Make pictures of the classes asked for.

    Parameters
    ----------
    run
        A run folder or a model file.
    label
        Name of a class, in any case; may be repeated; every class by default.
    n
        Pictures a label.
    guidance
        Weight of classifier-free guidance: 1 is off, above 1 exaggerates the label.
    interval
        Times LOW:HIGH between which guidance is at work; 0 is data, 1 is noise.
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
    json
        Print the result as one JSON object.
    """
    from steerable import api
    from steerable.jobs import sample as job

    model = api.load(run)
    recipe = job.steered(
        model.recipe,
        guidance=guidance,
        interval=interval_of(interval),
        steps=steps,
        sampler=sampler,
        grid_kind=grid,
        settings=set_ or (),
    )
    wanted = job.wishes(model.spec, label or [], n, seed)
    frames: list[Any] = []
    bar, made, start = Bar(), None, time.monotonic()
    for progress in job.sample(model, recipe, wanted, frames=frames if film else None):
        made = progress.sample
        share = progress.done / progress.of
        left = (time.monotonic() - start) * (1 / share - 1)
        bar.show(share, f"{len(wanted)} pictures  {duration(left)} left", last=made is not None)
    assert made is not None
    where = out or _free(Path(run) if Path(run).is_dir() else Path())
    job.write(made, model, where, frames)
    plain = {
        "out": str(where),
        "n": len(wanted),
        "seconds": round(time.monotonic() - start, 2),
        "calls": made.calls,
        "sampler": recipe.sampler.flat(),
        "guidance": [part.flat() for part in recipe.guidance],
    }
    result(
        plain, as_json=json, lines=[f"{len(wanted)} pictures in {where}", str(where / "grid.png")]
    )
    return 0


def _free(base: Path) -> Path:
    """The next free folder samples/set-NNN."""
    number = 1
    while (base / "samples" / f"set-{number:03d}").exists():
        number += 1
    return base / "samples" / f"set-{number:03d}"
