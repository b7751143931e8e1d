"""Samples on disk: each picture as it is made, with its settings inside, and a log that grows.

Memory holds one batch, however many pictures there are. What is stopped goes on with the batches
that are not finished, and the bytes of every file are the same as if it had never been stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerable.core.steer import Guidance
from steerable.recipes.recipe import Recipe

from . import durable
from .model import Model, versions
from .output import Folder, Place, claim
from .pictures import Sheet, film, png, settings_text, sheet
from .sample import Progress, Sample, sample, settings_of
from .wish import Wish

__all__ = ["LOG", "SHOWN", "PictureLog", "claim_samples", "picture", "read_png", "write_samples"]

LOG, GRID, FILM = "samples.jsonl", "grid.png", "film.webp"
SHOWN = 2000  # most pictures in grid.png


def picture(x: Tensor, settings: Mapping[str, Any]) -> bytes:
    """A PNG (C,H,W) uint8 that holds its settings."""
    text = {"steerable": json.dumps(settings, sort_keys=True), **settings_text(settings)}
    return png(x, text)


def read_png(path: Path) -> Tensor:
    """The pixels (C,H,W) uint8 of a picture that `picture` has made."""
    from PIL import Image

    with Image.open(path) as image:
        flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        channels = len(image.getbands())
        return flat.reshape(image.height, image.width, channels).permute(2, 0, 1).contiguous()


class PictureLog:
    """Numbered pictures of a folder and a log with a line for each, in step with each other.

    Args:
        folder: The folder, which this process holds.
        name: Of the log.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self.folder, self.name = folder, name
        path = folder.path / name
        if name in folder.done and path.is_file():
            durable.cut(path, self._whole)
        lines = path.read_text(encoding="utf-8").splitlines() if name in folder.done else []
        self._lines = {int(json.loads(line)["index"]): line for line in lines}

    @property
    def finished(self) -> frozenset[int]:
        """The numbers of the pictures that are whole on disk and in the log."""
        return frozenset(self._lines)

    def add(self, part: Sample, places: Sequence[int], settings: Sequence[dict[str, Any]]) -> None:
        """Write the pictures of a batch, then their lines.

        Raises:
            UserError: E-DISK; the pictures before are safe.
        """
        rows = list(zip(places, part.x, settings, strict=True))
        files = {f"{i}.png": picture(x, told) for i, x, told in rows}
        self.folder.write(files, calls=part.calls)
        fresh = {}
        for i, _, told in rows:
            record = {"index": i, "file": f"{i}.png", **told}
            fresh[i] = json.dumps(record, sort_keys=True, ensure_ascii=False)
        lines = [line for i, line in fresh.items() if i not in self._lines]
        self._lines |= fresh
        self.folder.append(self.name, lines)

    def finish(self, others: Mapping[str, bytes], *, grid_left_out: int) -> None:
        """Put the log in order, write the other files, and say that all is done."""
        if list(self._lines) != sorted(self._lines):
            ordered = "".join(f"{self._lines[i]}\n" for i in sorted(self._lines))
            durable.write(self.folder.path / self.name, ordered.encode())
        self.folder.write(others, grid_left_out=grid_left_out)
        self.folder.finish()

    def _whole(self, line: str) -> bool:
        try:
            record = json.loads(line)
            return record["file"] == f"{record['index']}.png" and record["file"] in self.folder.done
        except (ValueError, KeyError, TypeError):
            return False


def claim_samples(
    model: Model, recipe: Recipe, wanted: Sequence[Wish], place: Place, *, films: bool = False
) -> Folder:
    """The folder for some samples, before any of them is made.

    Args:
        model: The model.
        recipe: Its recipe with the sampling settings to use.
        wanted: The pictures.
        place: Where the user wants them.
        films: Whether a film of the denoising is wanted.

    Raises:
        UserError: As `output.claim`.
    """
    request = {
        "model": model.about.get("sha256"),
        "recipe": {k: v for k, v in recipe.plain().items() if k not in ("data", "notes")},
        "wishes": [[dict(wish.cond), wish.seed] for wish in wanted],
        "film": films,
        "versions": versions(),
    }
    names = [*(f"{i}.png" for i in range(len(wanted))), LOG, GRID, *([FILM] if films else [])]
    need = 2 * len(wanted) * (torch.Size(model.spec.shape).numel() + 2000)
    return claim(place, "sample", "set", request, names=names, need=need)


def write_samples(
    folder: Folder,
    model: Model,
    recipe: Recipe,
    wanted: Sequence[Wish],
    *,
    films: bool = False,
    guide: Sequence[Guidance] = (),
) -> Iterator[Progress]:
    """Make pictures and write each batch of them: `<index>.png`, `samples.jsonl`, `grid.png`.

    Args:
        folder: From `claim_samples`; pictures that it holds already are not made again.
        model: The model.
        recipe: Its recipe with the sampling settings to use.
        wanted: The pictures.
        films: Whether to write `film.webp` of the first batch too.
        guide: Further guidances, beside those of the recipe.

    Raises:
        UserError: E-DISK if it cannot be written, and what `sample` raises.
    """
    log, frames = PictureLog(folder, LOG), list[Tensor]()
    finished = log.finished if not films or FILM in folder.done else frozenset[int]()
    steps = sample(
        model,
        recipe,
        wanted,
        frames=frames if films else None,
        guide=guide,
        keep=False,
        finished=finished,
    )
    for progress in steps:
        if progress.part is not None:
            told = [settings_of(recipe, model, wish) for wish in progress.part.wishes]
            log.add(progress.part, progress.places, told)
        yield progress
    page = _sheet(folder.path, [wish.title for wish in wanted])
    others = {GRID: png(page.image), **({FILM: film(frames)} if frames else {})}
    log.finish(others, grid_left_out=page.left_out)


def _sheet(path: Path, titles: Sequence[str]) -> Sheet:
    """The first pictures of each title, at most `SHOWN` of all, read from their files."""
    places: dict[str, list[int]] = {}
    for i, title in enumerate(titles):
        places.setdefault(title, []).append(i)
    most = max(1, SHOWN // len(places))
    rows = [
        torch.stack([read_png(path / f"{i}.png") for i in found[:most]])
        for found in list(places.values())[:SHOWN]
    ]
    return replace(sheet(rows, list(places)[:SHOWN]), of=len(titles))
