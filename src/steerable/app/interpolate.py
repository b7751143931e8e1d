"""`steerable interpolate`."""

from __future__ import annotations

from pathlib import Path

from .console import result, whole_grid
from .options import AllowCode, Json, Run, Walk, Whole, place, told

__all__ = ["interpolate"]


def interpolate(
    run: Run,
    a: Path,
    b: Path,
    /,
    *,
    count: Whole = 9,
    walk: Walk | None = None,
    out: Path | None = None,
    allow_code: AllowCode = "",
    json: Json = False,
) -> int:
    """Go from one picture to another through their noise.

    Parameters
    ----------
    a
        The first picture file.
    b
        The last picture file.
    count
        Number of pictures, both ends included.
    out
        Folder for the pictures and strip.png.
    """
    from steerable import api
    from steerable.jobs.encode import picture_of, rows
    from steerable.jobs.interpolate import laid_out, write
    from steerable.jobs.pictures import rows_left_out

    walk = walk or Walk()
    model = api.load(run, allow_code=allow_code)
    recipe = api.walking(model.recipe, guidance=walk.guidance, steps=walk.steps)
    cond = told(walk.label, walk.cond)
    first, last = (picture_of(path, model.spec) for path in (a, b))
    row = rows(model.spec, cond, 1)
    strip = api.interpolated(model, first, last, count, cond=row, recipe=recipe)
    plain = {"pictures": [a.name, b.name], "count": count, "cond": cond}
    where = place(out, run, "between")
    path = write(strip, where, {**plain, "sampler": recipe.sampler.flat()})
    hidden = rows_left_out(*laid_out(strip))
    told_of = {"out": str(where), **plain, "grid_left_out": hidden}
    result(told_of, as_json=json, lines=[str(path), *whole_grid(hidden)])
    return 0
