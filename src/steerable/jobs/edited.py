"""Edited pictures on disk, each with what it was made of, so that it can be made again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.recipes.origin import artefact
from steerable.recipes.recipe import checked

from .canvas import Pictures
from .edit import Edit, Editing, Task, lifted, made_of, perform
from .edit_given import Piece, pieces
from .model import Model
from .output import Folder, Place, claim
from .pictures import Sheet, png, sheet
from .sample import BATCH, sample, settings_of
from .sample_files import SHOWN, PictureLog, picture, read_png
from .steering import askable
from .wish import batches

__all__ = ["claim_edits", "replayed", "settings_in", "write_edits"]

LOG, GRID = "edits.jsonl", "grid.png"
_ASKED = ("factor", "strength", "from_label", "to_label", "upscale", "colourise", "outpaint")


def _settings(job: Task) -> Callable[[int], dict[str, Any]]:
    """Everything that is needed to make a result again, as plain data, by its place."""
    wanted, wishes = job.wanted, job.wishes
    alike = getattr(job.recipe.sampler.sampler(), "one_wish", False)
    places = {i: (g.index(i), len(g)) for g in batches(wishes, BATCH, alike=alike) for i in g}
    asked = {name: getattr(wanted, name) for name in _ASKED}

    def settings(index: int) -> dict[str, Any]:
        place, size = places[index]
        record = {
            **job.pieces[index // wanted.n].record,
            **asked,
            "method": job.method,
            # Libraries round by the size of a batch: the same size gives the same bytes.
            "batch": size,
            "place": place,
        }
        return {**settings_of(job.recipe, job.model, wishes[index]), "edit": record}

    return settings


def claim_edits(job: Task, place: Place) -> Folder:
    """The folder for the results of an edit, before any of them is made.

    Raises:
        UserError: As `output.claim`.
    """
    settings = _settings(job)
    request = {"edits": [settings(i) for i in range(len(job.wishes))]}
    names = [*(f"{i}.png" for i in range(len(job.wishes))), LOG, GRID]
    need = 2 * len(job.wishes) * (math.prod(job.model.spec.shape) + 4000)
    return claim(place, "edit", "edit", request, names=names, need=need)


def write_edits(folder: Folder, job: Task) -> Iterator[Editing]:
    """Edit and write each batch: `<index>.png`, `edits.jsonl`, at last `grid.png`.

    The grid shows the pictures before, their masks and references, and what was made of them.

    Args:
        folder: From `claim_edits`; results that it holds already are not made again.
        job: The edit.

    Raises:
        UserError: E-DISK if it cannot be written, E-NUM if numbers do not stay finite.
    """
    log, settings = PictureLog(folder, LOG), _settings(job)
    for progress in perform(job, keep=False, finished=log.finished):
        if progress.part is not None:
            told = [settings(i) for i in progress.places]
            log.add(progress.part, progress.places, told)
        yield progress
    page = _sheet(job, folder.path)
    log.finish({GRID: png(page.image)}, grid_left_out=page.left_out)


def _sheet(job: Task, path: Path) -> Sheet:
    """What was given beside what was made, a row a picture."""
    n, rows = job.wanted.n, []
    found = job.pieces[: max(1, SHOWN // n)]
    for i, piece in enumerate(found):
        made = [read_png(path / f"{k}.png") for k in range(i * n, (i + 1) * n)]
        rows.append(torch.stack([*piece.shown.values(), *made]))
    after = ["after", *[""] * (n - 1)]
    columns = [*found[0].shown, *after]
    names = [piece.name if len(found) > 1 else "" for piece in found]
    page = sheet(rows, names, columns)
    rest = sum(len(piece.shown) + n for piece in job.pieces[len(found) :])
    return replace(page, of=page.of + rest)


def settings_in(path: Path) -> dict[str, Any]:
    """The settings inside a PNG that `write` has made.

    Raises:
        UserError: E-DATA if it is no picture, or holds no settings of an edit.
    """
    from steerable.intake.gate import PictureError, opened

    takes = "a PNG that was made by editing"
    try:
        with opened(path) as (image, _):
            text = getattr(image, "text", {}).get("steerable", "{}")
        settings = json.loads(text)
    except (PictureError, ValueError) as error:
        raise UserError("E-DATA", where=path.name, got=str(error), takes=takes) from error
    if not isinstance(settings, dict) or not isinstance(settings.get("edit"), dict):
        raise UserError("E-DATA", where=path.name, got="no settings of an edit", takes=takes)
    return settings


def _same(settings: Mapping[str, Any], piece: Piece, model: Model, where: str) -> None:
    """Check that the inputs are those of the settings.

    Raises:
        UserError: E-DATA-CHANGED naming the one that is not.
    """
    told = {name: piece.record[name] for name in ("image", "mask", "reference")}
    told["model"] = {"file": model.path.name, "sha256": model.about.get("sha256")}
    before = {**settings["edit"], "model": {"sha256": settings["model_sha256"]}}
    before["model"]["file"] = settings["model"]
    for name, now in told.items():
        old = before[name]
        if (old and old["sha256"]) == (now and now["sha256"]):
            continue
        got = f"{name}: {now['file']}, SHA-256 {str(now['sha256'])[:12]}…" if now else f"no {name}"
        takes = f"{old['file']}, SHA-256 {str(old['sha256'])[:12]}…" if old else f"no {name}"
        raise UserError("E-DATA-CHANGED", where=where, got=got, takes=takes)


def replayed(
    path: Path,
    model: Model,
    *,
    image: Pictures | None = None,
    mask: Pictures | None = None,
    reference: Pictures | None = None,
) -> tuple[bytes, Tensor]:
    """The bytes of a PNG made again from the settings inside it, and its pixels.

    The inputs may have other names, but must be the same files, byte for byte.

    Args:
        path: A PNG that was made by editing.
        model: The same model.
        image: The one picture that was edited.
        mask: Its mask, if it had one.
        reference: Its reference, if it had one.

    Raises:
        UserError: E-DATA if the PNG holds no settings, E-DATA-CHANGED for another input.
    """
    settings = settings_in(path)
    try:
        record = settings["edit"]
        asked = {name: record[name] for name in _ASKED}
        asked["outpaint"] = _pair(asked["outpaint"])
        cond = {k: v for k, v in settings["cond"].items() if k != "label" or not record["to_label"]}
        given = {"image": image, "mask": mask, "reference": reference}
        batch, place = int(record["batch"]), int(record["place"])
        wanted = Edit(**asked, **given, cond=cond, seed=settings["seed"] - place)
        parts = {k: settings[k] for k in ("sampler", "guidance", "constraints", "operator")}
        tree = {**model.recipe.plain(), **parts}
        recipe = checked(tree, artefact(path.name, model.recipe.trusted))
        missing = [name for name in given if record.get(name) and given[name] is None]
    except (KeyError, TypeError, AttributeError) as error:
        got = f"settings that are not complete: {error}"
        raise UserError("E-DATA", where=path.name, got=got) from error
    if "image" in missing:
        files = ", ".join(f"{name} ({record[name]['file']})" for name in missing)
        do = "give the same files as --" + " and --".join(missing)
        raise UserError("E-CONFIG", where="replay", got=f"no {files}", takes="its inputs", do=do)
    spec = askable(model, recipe)
    (found,) = _one(pieces(wanted, spec))
    _same(settings, found, model, path.name)
    # Its neighbours in the batch were other seeds, or other pictures, which change nothing.
    wishes = made_of([found] * batch, wanted, spec)
    if wanted.to_label is not None:
        wishes = lifted(model, recipe, wanted, wishes)
    *_, last = sample(model, recipe, wishes)
    assert last.sample is not None
    now = {**settings_of(recipe, model, wishes[place]), "edit": record}
    return picture(last.sample.x[place], now), last.sample.x[place]


def _pair(value: Any) -> Any:
    """What JSON makes a list of, as the pair that it was."""
    return tuple(value) if isinstance(value, list) else value


def _one(found: Sequence[Piece]) -> Sequence[Piece]:
    """Check that there is one picture.

    Raises:
        UserError: E-LIMIT.
    """
    if len(found) != 1:
        raise UserError("E-LIMIT", where="image", got=f"{len(found)} pictures", takes="1 to replay")
    return found
