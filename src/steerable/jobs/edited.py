"""Edited pictures on disk, each with what it was made of, so that it can be made again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.recipes.recipe import checked

from . import durable
from .canvas import Pictures
from .edit import Edit, Edited, lifted, made_of
from .edit_given import Piece, pieces
from .model import Model
from .pictures import png, settings_text, sheet
from .sample import BATCH, sample, settings_of
from .steering import askable
from .wish import batches

__all__ = ["laid_out", "replayed", "settings_in", "write"]

_ASKED = ("factor", "strength", "from_label", "to_label", "upscale", "colourise", "outpaint")


def _settings(made: Edited, model: Model, index: int) -> dict[str, Any]:
    """Everything that is needed to make a result again, as plain data."""
    wanted, wishes = made.wanted, made.sample.wishes
    alike = getattr(made.sample.recipe.sampler.sampler(), "one_wish", False)
    (group,) = (g for g in batches(wishes, BATCH, alike=alike) if index in g)
    asked = {name: getattr(wanted, name) for name in _ASKED}
    record = {
        **made.pieces[index // wanted.n].record,
        **asked,
        "method": made.method,
        # Libraries round by the size of a batch: the same size gives the same bytes.
        "batch": len(group),
        "place": group.index(index),
    }
    return {**settings_of(made.sample, model, wishes[index]), "edit": record}


def _png(x: Tensor, settings: Mapping[str, Any]) -> bytes:
    text = {"steerable": json.dumps(settings, sort_keys=True), **settings_text(settings)}
    return png(x, text)


def write(made: Edited, model: Model, out: Path) -> list[Path]:
    """Write `<index>.png`, `edits.jsonl` and `grid.png`: before, masked, reference, after.

    Raises:
        UserError: E-DISK if it cannot be written.
    """
    durable.folder(out)
    lines, paths = [], []
    for index, x in enumerate(made.x):
        settings = _settings(made, model, index)
        path = out / f"{index}.png"
        durable.write(path, _png(x, settings))
        paths.append(path)
        record = {"index": index, "file": path.name, **settings}
        lines.append(json.dumps(record, sort_keys=True, ensure_ascii=False))
    durable.write(out / "edits.jsonl", ("\n".join(lines) + "\n").encode())
    durable.write(out / "grid.png", png(sheet(*laid_out(made)).image))
    return paths


def laid_out(made: Edited) -> tuple[list[Tensor], list[str], list[str]]:
    """What was given beside what was made, a row a picture: rows, their names, the columns'."""
    n, found = made.wanted.n, made.pieces
    rows = [
        torch.cat([torch.stack(list(piece.shown.values())), made.x[i * n : (i + 1) * n]])
        for i, piece in enumerate(found)
    ]
    after = ["after", *[""] * (n - 1)]
    columns = [*found[0].shown, *after]
    names = [piece.name if len(found) > 1 else "" for piece in found]
    return rows, names, columns


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
        recipe = checked({**model.recipe.plain(), **parts})
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
    now = {**settings_of(last.sample, model, wishes[place]), "edit": record}
    return _png(last.sample.x[place], now), last.sample.x[place]


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
