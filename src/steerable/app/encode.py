"""`steerable encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .console import result

__all__ = ["encode", "free"]


def free(run: str, name: str) -> Path:
    """The next free folder samples/NAME-NNN of a run, or of the current folder."""
    base, number = Path(run) if Path(run).is_dir() else Path(), 1
    while (base / "samples" / f"{name}-{number:03d}").exists():
        number += 1
    return base / "samples" / f"{name}-{number:03d}"


def encode(
    run: str,
    /,
    *pictures: Path,
    label: str | None = None,
    cond: Annotated[list[str] | None, Parameter(negative=())] = None,
    guidance: float = 1.0,
    steps: int | None = None,
    sampler: str | None = None,
    grid: str | None = None,
    out: Path | None = None,
    allow_code: str = "",
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Walk pictures up to their noise and back, and say how much is lost.

    Parameters
    ----------
    run
        A run folder or a model file.
    pictures
        Picture files; they are brought to the size and channels of the model.
    label
        Class of the pictures; none by default.
    cond
        Another condition as NAME=VALUE; may be repeated.
    guidance
        Weight of classifier-free guidance; 1, off, is what gives Gaussian noise.
    steps
        Steps in each direction.
    sampler
        Kind of a deterministic sampler.
    grid
        Kind of time grid.
    out
        Folder for noise.safetensors and the decoded pictures.
    allow_code
        Module of your own whose parts the model file may name.
    json
        Print the result as one JSON object.
    """
    from steerable import api
    from steerable.jobs import encode as job
    from steerable.jobs.wish import parsed

    job.check_count(len(pictures))
    model = api.load(run, allow_code=allow_code)
    recipe = api.walking(
        model.recipe, guidance=guidance, steps=steps, sampler=sampler, grid_kind=grid
    )
    told = {**parsed(cond or []), **({} if label is None else {"label": label})}
    where = out or free(run, "encoded")
    rows = job.rows(model.spec, told, len(pictures))
    rmse = job.write(model, pictures, where, cond=rows, recipe=recipe).tolist()
    plain = {
        "out": str(where),
        "pictures": [path.name for path in pictures],
        "rmse": rmse,
        "cond": told,
        "sampler": recipe.sampler.flat(),
        "guidance": [part.flat() for part in recipe.guidance],
    }
    lines = [f"{p.name}  RMSE {r:.4f} of 2" for p, r in zip(pictures, rmse, strict=True)]
    result(plain, as_json=json, lines=[*lines, str(where / "noise.safetensors")])
    return 0
