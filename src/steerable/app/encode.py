"""`steerable encode`."""

from __future__ import annotations

from pathlib import Path

from .console import result
from .options import AllowCode, Force, Grid, Json, Out, Run, Walk, place, told

__all__ = ["encode"]


def encode(
    run: Run,
    /,
    *pictures: Path,
    walk: Walk | None = None,
    sampler: str | None = None,
    grid: Grid = None,
    out: Out = None,
    force: Force = False,
    allow_code: AllowCode = None,
    json: Json = False,
) -> int:
    """Walk pictures up to their noise and back, and say how much is lost.

    Parameters
    ----------
    pictures
        Picture files; they are brought to the size and channels of the model.
    sampler
        Kind of a deterministic sampler.
    out
        Folder for noise.safetensors and the decoded pictures.
    """
    from steerable import api
    from steerable.jobs import encode as job

    walk = walk or Walk()
    job.check_count(len(pictures))
    model = api.load(run, allow_code=allow_code or ())
    recipe = api.walking(
        model.recipe, guidance=walk.guidance, steps=walk.steps, sampler=sampler, grid_kind=grid
    )
    cond = told(walk.label, walk.cond)
    rows = job.rows(model.spec, cond, len(pictures))
    where = place(out, run, *pictures, force=force)
    with job.claim_codes(model, pictures, where, cond=rows, recipe=recipe) as folder:
        rmse = job.write(model, pictures, folder, cond=rows, recipe=recipe).tolist()
    plain = {
        "out": str(folder.path),
        "pictures": [path.name for path in pictures],
        "rmse": rmse,
        "cond": cond,
        "sampler": recipe.sampler.flat(),
        "guidance": [part.flat() for part in recipe.guidance],
    }
    lines = [f"{p.name}  RMSE {r:.4f} of 2" for p, r in zip(pictures, rmse, strict=True)]
    result(plain, as_json=json, lines=[*lines, str(folder.path / job.NOISE)])
    return 0
