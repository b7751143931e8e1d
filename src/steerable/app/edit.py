"""`steerable edit`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from steerable.core.errors import UserError

from .console import Stop, result, say, say_alias, whole_grid
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
    Real,
    Run,
    Whole,
    place,
    told,
)

if TYPE_CHECKING:
    from steerable.jobs.edit import Edit
    from steerable.jobs.model import Model
    from steerable.jobs.output import Place

__all__ = ["edit"]

Files = Annotated[list[Path] | None, Parameter(negative=())]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class What:
    """What is to be done to which pictures.

    Parameters
    ----------
    image
        A picture or a folder of pictures; may be repeated.
    mask
        White where to repaint: one for all pictures, one for each, or a folder of equal names.
    reference
        A picture whose low band the results take; as --mask.
    factor
        Of the low band of the reference: a larger one leaves more freedom.
    strength
        Time to begin at, from the picture: near 0 changes little, 1 begins from noise.
    from_label
        Class of the pictures, for a translation; none by default.
    to_label
        Class to translate the pictures to.
    upscale
        How many times smaller the pictures are than those of the model.
    colourise
        The pictures are grey: find their colours.
    outpaint
        The pictures are smaller than those of the model: centre, or TOP,LEFT; paint the rest.
    method
        keep, repaint, diffpir, dps or posterior; by default what is best for the model.
    label
        Class of the results.
    n
        Results a picture.
    seed
        Seed of the first result; result i has seed + i.
    """

    image: Files = None
    mask: Files = None
    reference: Files = None
    factor: Whole = 4
    strength: Real = 1.0
    from_label: str | None = None
    to_label: str | None = None
    upscale: Whole | None = None
    colourise: Flag = False
    outpaint: str | None = None
    method: str | None = None
    label: str | None = None
    cond: Cond = None
    n: Count = 1
    seed: Whole = 0

    def wanted(self) -> Edit:
        """The same for the library."""
        from steerable.jobs import edit as job

        same = ("image", "factor", "strength", "from_label", "to_label", "upscale", "colourise")
        return job.Edit(
            **{name: getattr(self, name) for name in (*same, "method", "n", "seed")},
            mask=_alone(self.mask),
            reference=_alone(self.reference),
            outpaint=_place(self.outpaint),
            cond=told(self.label, self.cond),
        )


def edit(
    run: Run,
    /,
    *,
    what: What | None = None,
    how: Guiding | None = None,
    out: Out = None,
    force: Force = False,
    replay: Path | None = None,
    allow_code: AllowCode = None,
    json: Json = False,
) -> int:
    """Repaint, translate, upscale or colourise pictures; what is asked for may be combined.

    Parameters
    ----------
    out
        Folder for the pictures, grid.png and edits.jsonl.
    replay
        Make one picture again from the settings inside it, with the same inputs.
    """
    from steerable import api
    from steerable.jobs import edit as job
    from steerable.jobs.edited import claim_edits, write_edits

    what, how = what or What(), how or Guiding()
    model = api.load(run, allow_code=allow_code or ())
    read = (*(what.image or ()), *(what.mask or ()), *(what.reference or ()), replay)
    where = place(out, run, *read, how.classifier, force=force)
    if replay is not None:
        inputs = replace(What(), image=what.image, mask=what.mask, reference=what.reference)
        if what != inputs or how != Guiding():
            got, takes = "with other settings", "the inputs alone: the picture holds its settings"
            raise UserError("E-CONFIG", where="replay", got=got, takes=takes)
        return _replay(replay, model, what, where, as_json=json)
    wanted = what.wanted()
    guiding = {"classifier": how.classifier, "classifier_scale": how.classifier_scale}
    chosen = {**how.sampling.chosen(), **guiding, "settings": how.set_ or ()}
    recipe = job.planned(model, wanted, **chosen)
    say_alias(how.sampling.sampler)
    task = job.task(model, recipe, wanted)
    notes = list(dict.fromkeys(note for piece in task.pieces for note in piece.notes))
    for note in notes:
        say(f"note  {note}")
    with claim_edits(task, where) as folder, Stop() as stop:
        made = watched(write_edits(folder, task), folder, len(task.wishes), stop)
    n = made.resumed + made.pictures
    plain: dict[str, Any] = {
        "out": str(folder.path),
        "n": n,
        "pictures": [piece.name for piece in task.pieces],
        "method": task.method,
        "seconds": made.seconds,
        "calls": made.calls,
        "sampler": recipe.sampler.flat(),
        "guidance": [part.flat() for part in recipe.guidance],
        "constraints": [part.flat() for part in recipe.constraints],
        "notes": notes,
        "grid_left_out": made.left_out,
        "resumed": made.resumed,
        "stopped": bool(stop.code),
    }
    by = f" by {task.method}" if task.method else ""
    done = f"{n} pictures{by} in {folder.path}, {made.calls} calls of the network each"
    grid = [str(folder.path / "grid.png"), *whole_grid(made.left_out)]
    result(plain, as_json=json, lines=[done, *([GOES_ON] if stop.code else grid)])
    return stop.code


def _alone(paths: list[Path] | None) -> Path | list[Path] | None:
    """One path for itself, since a folder of equal names is found by it."""
    return paths[0] if paths is not None and len(paths) == 1 else paths


def _place(text: str | None) -> str | tuple[int, int] | None:
    """`centre` or `TOP,LEFT`.

    Raises:
        UserError: E-CONFIG if it is neither.
    """
    if text is None or text in ("centre", "center"):
        return text and "centre"
    try:
        top, left = (int(part) for part in text.split(","))
    except ValueError as error:
        takes = "centre, or TOP,LEFT in pixels"
        raise UserError("E-CONFIG", where="outpaint", got=repr(text), takes=takes) from error
    return top, left


def _replay(png: Path, model: Model, what: What, where: Place, *, as_json: bool) -> int:
    from steerable.jobs.edited import replayed
    from steerable.jobs.output import claim

    given = {"image": what.image, "mask": what.mask, "reference": what.reference}
    request = {"replay": png.read_bytes().hex(), "model": model.about.get("sha256")}
    with claim(where, "edit --replay", "replay", request, names=[png.name]) as folder:
        data, _ = replayed(png, model, **given)
        folder.write({png.name: data})
        folder.finish()
    same = data == png.read_bytes()
    path = str(folder.path / png.name)
    said = "the same bytes" if same else "other bytes: see its versions, or the number of threads"
    result({"out": path, "same": same}, as_json=as_json, lines=[path, said])
    return 0
