"""`steerable edit`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from steerable.core.errors import UserError

from .console import Bar, duration, result, say, say_alias
from .options import AllowCode, Cond, Count, Flag, Guiding, Json, Real, Run, Whole, place, told

if TYPE_CHECKING:
    from steerable.jobs.edit import Edit, Edited
    from steerable.jobs.model import Model
    from steerable.recipes.recipe import Recipe

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
    out: Path | None = None,
    replay: Path | None = None,
    allow_code: AllowCode = "",
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

    what, how = what or What(), how or Guiding()
    model = api.load(run, allow_code=allow_code)
    if replay is not None:
        inputs = replace(What(), image=what.image, mask=what.mask, reference=what.reference)
        if what != inputs or how != Guiding():
            got, takes = "with other settings", "the inputs alone: the picture holds its settings"
            raise UserError("E-CONFIG", where="replay", got=got, takes=takes)
        return _replay(replay, model, what, place(out, run, "replay"), as_json=json)
    wanted = what.wanted()
    guiding = {"classifier": how.classifier, "classifier_scale": how.classifier_scale}
    chosen = {**how.sampling.chosen(), **guiding, "settings": how.set_ or ()}
    recipe = job.planned(model, wanted, **chosen)
    say_alias(how.sampling.sampler)
    where, start = place(out, run, "edit"), time.monotonic()
    made = _edited(model, recipe, wanted)
    _tell(made, model, where, start, as_json=json)
    return 0


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


def _edited(model: Model, recipe: Recipe, wanted: Edit) -> Edited:
    """The results, with progress on stderr."""
    from steerable.jobs import edit as job

    bar, made, start = Bar(), None, time.monotonic()
    for progress in job.edit(model, recipe, wanted):
        made, share = progress.edited, progress.done / progress.of
        left = (time.monotonic() - start) * (1 / share - 1)
        bar.show(share, f"edit  {duration(left)} left", last=made is not None)
    assert made is not None
    return made


def _tell(made: Edited, model: Model, where: Path, start: float, *, as_json: bool) -> None:
    from steerable.jobs.edited import write

    write(made, model, where)
    notes = list(dict.fromkeys(note for piece in made.pieces for note in piece.notes))
    for note in notes:
        say(f"note  {note}")
    recipe, n = made.sample.recipe, len(made.x)
    plain: dict[str, Any] = {
        "out": str(where),
        "n": n,
        "pictures": [piece.name for piece in made.pieces],
        "method": made.method,
        "seconds": round(time.monotonic() - start, 2),
        "calls": made.sample.calls,
        "sampler": recipe.sampler.flat(),
        "guidance": [part.flat() for part in recipe.guidance],
        "constraints": [part.flat() for part in recipe.constraints],
        "notes": notes,
    }
    how = f" by {made.method}" if made.method else ""
    done = f"{n} pictures{how} in {where}, {made.sample.calls} calls of the network each"
    result(plain, as_json=as_json, lines=[done, str(where / "grid.png")])


def _replay(png: Path, model: Model, what: What, out: Path, *, as_json: bool) -> int:
    from steerable.jobs import durable
    from steerable.jobs.edited import replayed

    given = {"image": what.image, "mask": what.mask, "reference": what.reference}
    data, _ = replayed(png, model, **given)
    same = data == png.read_bytes()
    durable.folder(out)
    durable.write(out / png.name, data)
    path = str(out / png.name)
    said = "the same bytes" if same else "other bytes: see its versions, or the number of threads"
    result({"out": path, "same": same}, as_json=as_json, lines=[path, said])
    return 0
