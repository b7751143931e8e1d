"""`steerable edit`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from steerable.core.errors import UserError

from .console import Bar, duration, result, say_alias
from .encode import free
from .sample import interval_of

if TYPE_CHECKING:
    from steerable.jobs.edit import Edit, Edited
    from steerable.jobs.model import Model
    from steerable.recipes.recipe import Recipe

__all__ = ["edit"]


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
    cond
        Another condition as NAME=VALUE; may be repeated.
    n
        Results a picture.
    seed
        Seed of the first result; result i has seed + i.
    """

    image: Annotated[list[Path] | None, Parameter(negative=())] = None
    mask: Annotated[list[Path] | None, Parameter(negative=())] = None
    reference: Annotated[list[Path] | None, Parameter(negative=())] = None
    factor: int = 4
    strength: float = 1.0
    from_label: str | None = None
    to_label: str | None = None
    upscale: int | None = None
    colourise: Annotated[bool, Parameter(negative=())] = False
    outpaint: str | None = None
    method: str | None = None
    label: str | None = None
    cond: Annotated[list[str] | None, Parameter(negative=())] = None
    n: Annotated[int, Parameter(name=["-n", "--n"])] = 1
    seed: int = 0

    def wanted(self) -> Edit:
        """The same for the library."""
        from steerable.jobs import edit as job
        from steerable.jobs.wish import parsed

        told = {} if self.label is None else {"label": self.label}
        same = ("image", "factor", "strength", "from_label", "to_label", "upscale", "colourise")
        return job.Edit(
            **{name: getattr(self, name) for name in (*same, "method", "n", "seed")},
            mask=_alone(self.mask),
            reference=_alone(self.reference),
            outpaint=_place(self.outpaint),
            cond={**parsed(self.cond or []), **told},
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class How:
    """How to sample.

    Parameters
    ----------
    guidance
        Weight of classifier-free guidance: 1 is off.
    interval
        Times LOW:HIGH between which guidance is at work; 0 is data, 1 is noise.
    classifier
        A run of the preset noisy-classifier that guides.
    classifier_scale
        Scale of its guidance: 1 is the law of the class, 0 is off.
    steps
        Sampling steps.
    sampler
        Kind of sampler; see steerable parts samplers.
    grid
        Kind of time grid; see steerable parts grids.
    set_
        Change another setting: --set guidance.diffpir.noise=0.1. May be repeated.
    """

    guidance: float | None = None
    interval: str | None = None
    classifier: str | None = None
    classifier_scale: float | None = None
    steps: int | None = None
    sampler: str | None = None
    grid: str | None = None
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None

    def chosen(self) -> dict[str, Any]:
        """The settings by the names that the library has for them."""
        same = ("guidance", "classifier", "classifier_scale", "steps", "sampler")
        found = {name: getattr(self, name) for name in same}
        found |= {"interval": interval_of(self.interval), "grid_kind": self.grid}
        return {**found, "settings": self.set_ or ()}


def edit(
    run: str,
    /,
    *,
    what: What | None = None,
    how: How | None = None,
    out: Path | None = None,
    replay: Path | None = None,
    allow_code: str = "",
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Repaint, translate, upscale or colourise pictures; what is asked for may be combined.

    Parameters
    ----------
    run
        A run folder or a model file.
    what
        What is to be done to which pictures.
    how
        How to sample.
    out
        Folder for the pictures, grid.png and edits.jsonl.
    replay
        Make one picture again from the settings inside it, with the same inputs.
    allow_code
        Module of your own whose parts the model file may name.
    json
        Print the result as one JSON object.
    """
    from steerable import api
    from steerable.jobs import edit as job

    what, how = what or What(), how or How()
    model = api.load(run, allow_code=allow_code)
    if replay is not None:
        return _replay(replay, model, what, out or free(run, "replay"), as_json=json)
    wanted = what.wanted()
    recipe = job.planned(model, wanted, **how.chosen())
    say_alias(how.sampler)
    where, start = out or free(run, "edit"), time.monotonic()
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
        print(f"note  {note}", file=sys.stderr)
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
