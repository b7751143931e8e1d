"""`steerable grid`."""

from __future__ import annotations

from typing import Any

from steerable.core.errors import UserError

from .console import Bar, result
from .options import AllowCode, Flag, Json, Real, Run

__all__ = ["counts_of", "grid"]


def counts_of(text: str) -> list[int]:
    """`4,6,8` as numbers.

    Raises:
        UserError: E-CONFIG if it is not a list of whole numbers.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        takes = "whole numbers: 4,6,8"
        raise UserError("E-CONFIG", where="steps", got=repr(text)[:80], takes=takes) from error


def grid(
    run: Run,
    /,
    *,
    steps: str = "4,6,8,10",
    sampler: str | None = None,
    guidance: Real | None = None,
    refine: bool = True,
    dry_run: Flag = False,
    allow_code: AllowCode = None,
    json: Json = False,
) -> int:
    """Fit the time grid to the model, and write it into the model file.

    Parameters
    ----------
    steps
        Numbers of steps, as 4,6,8; the model's own number is always added.
    sampler
        Kind of a deterministic sampler; the model's own by default.
    guidance
        Weight of classifier-free guidance; the model's own by default.
    refine
        Search on with the sampler itself from the optimum of first order; takes minutes.
    dry_run
        Print what was found and leave the file as it is.
    """
    from steerable import api
    from steerable.jobs import regrid as job
    from steerable.jobs.sample import steered

    counts = counts_of(steps)
    bar = Bar()
    ways = ", then searches with the sampler, which takes minutes" if refine else ""
    bar.say(f"plan     grids of {steps} steps: follows fine paths of the model{ways}")
    model = api.load(run, allow_code=allow_code or ())
    recipe = steered(model.recipe, guidance=guidance, sampler=sampler)
    bar.say("fits the levels")
    tables = job.tables_for(model, recipe, counts, refine=refine)
    bar.say("compares with the present grid, on noise that was not fitted on")
    rows = job.compared(model, recipe, tables)
    made = recipe if dry_run else job.write(model, recipe, tables)
    plain = {
        "file": None if dry_run else str(model.path),
        "sampler": recipe.sampler.kind,
        "default_steps": made.sampler.steps,
        "tables": rows,
    }
    where = "nothing written" if dry_run else f"written to {model.path}"
    result(plain, as_json=json, lines=[*map(_line, rows), where])
    return 0


def _line(row: dict[str, Any]) -> str:
    before = row["error_before"]
    old = "" if before is None else f", {before:.4f} with the grid before"
    return f"{row['steps']:3d} steps: off by {row['error']:.4f} of 2{old}"
