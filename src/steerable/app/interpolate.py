"""`steerable interpolate`."""

from __future__ import annotations

from pathlib import Path

from .console import result, whole_grid
from .options import AllowCode, Force, Json, Out, Run, Walk, Whole, place, told

__all__ = ["interpolate"]


def interpolate(
    run: Run,
    a: Path,
    b: Path,
    /,
    *,
    count: Whole = 9,
    walk: Walk | None = None,
    out: Out = None,
    force: Force = False,
    allow_code: AllowCode = None,
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
    from steerable.jobs.interpolate import claim_strip, write

    walk = walk or Walk()
    model = api.load(run, allow_code=allow_code or ())
    recipe = api.walking(model.recipe, guidance=walk.guidance, steps=walk.steps)
    cond = told(walk.label, walk.cond)
    first, last = (picture_of(path, model.spec) for path in (a, b))
    row = rows(model.spec, cond, 1)
    plain = {"pictures": [a.name, b.name], "count": count, "cond": cond}
    about = {**plain, "sampler": recipe.sampler.flat()}
    with claim_strip(model, about, place(out, run, a, b, force=force)) as folder:
        strip = api.interpolated(model, first, last, count, cond=row, recipe=recipe)
        path = write(strip, folder, about)
    hidden = max(int(told.get("grid_left_out", 0)) for told in folder.facts)
    told_of = {"out": str(folder.path), **plain, "grid_left_out": hidden}
    result(told_of, as_json=json, lines=[str(path), *whole_grid(hidden)])
    return 0
