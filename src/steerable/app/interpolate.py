"""`steerable interpolate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .console import result
from .encode import free

__all__ = ["interpolate"]


def interpolate(
    run: str,
    a: Path,
    b: Path,
    /,
    *,
    count: int = 9,
    label: str | None = None,
    cond: Annotated[list[str] | None, Parameter(negative=())] = None,
    guidance: float = 1.0,
    steps: int | None = None,
    out: Path | None = None,
    allow_code: str = "",
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Go from one picture to another through their noise.

    Parameters
    ----------
    run
        A run folder or a model file.
    a
        The first picture file.
    b
        The last picture file.
    count
        Number of pictures, both ends included.
    label
        Class of all pictures; none by default.
    cond
        Another condition as NAME=VALUE; may be repeated.
    guidance
        Weight of classifier-free guidance; 1 is off.
    steps
        Steps in each direction.
    out
        Folder for the pictures and strip.png.
    allow_code
        Module of your own whose parts the model file may name.
    json
        Print the result as one JSON object.
    """
    from steerable import api
    from steerable.jobs.encode import picture_of, rows
    from steerable.jobs.interpolate import write
    from steerable.jobs.wish import parsed

    model = api.load(run, allow_code=allow_code)
    recipe = api.walking(model.recipe, guidance=guidance, steps=steps)
    told = {**parsed(cond or []), **({} if label is None else {"label": label})}
    ends = (picture_of(path, model.spec) for path in (a, b))
    row = rows(model.spec, told, 1)
    strip = api.interpolated(model, *ends, count, cond=row, recipe=recipe)
    plain = {"pictures": [a.name, b.name], "count": count, "cond": told}
    where = out or free(run, "between")
    path = write(strip, where, {**plain, "sampler": recipe.sampler.flat()})
    result({"out": str(where), **plain}, as_json=json, lines=[str(path)])
    return 0
