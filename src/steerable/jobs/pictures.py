"""Pictures as bytes: grids with names, PNG with its settings inside, films of the denoising."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from .lettering import LONGEST, Lettering, shortened

__all__ = [
    "Sheet", "bytes_of", "film", "labelled_grid", "png", "rows_left_out", "settings_text", "sheet",
]  # fmt: skip

INK, PAPER = 40, 255
RED = (160, 40, 40)
GAP = 2  # pixels between pictures
HEAD = 22  # pixels of a line of names
NAMES = 240  # pixels of the names before the rows, at most
SIDE, PIXELS = 10_000, 16_000_000  # of a sheet, at most: what viewers and memory stand


def bytes_of(x: Tensor) -> Tensor:
    """Floats in [-1, 1] as uint8, rounded to the nearest and clipped."""
    return x.clamp(-1, 1).add(1.0).mul(127.5).round().to(torch.uint8).cpu()


def _image(x: Tensor) -> Any:
    """A (C,H,W) uint8 tensor as a Pillow image; two channels are grey and alpha."""
    from PIL import Image

    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[len(x)]
    array = x.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if mode == "L" else array, mode=None)


def png(x: Tensor | Any, text: Mapping[str, str] | None = None) -> bytes:
    """PNG bytes of a (C,H,W) uint8 tensor or a Pillow image, with text chunks inside."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    image = _image(x) if isinstance(x, Tensor) else x
    image.save(buffer, format="PNG", pnginfo=info, optimize=False)
    return buffer.getvalue()


def settings_text(settings: Mapping[str, Any]) -> dict[str, str]:
    """The one-line `parameters` chunk that picture browsers read."""
    sampler, size = settings["sampler"], settings["size"]
    weights = [part["weight"] for part in settings["guidance"] if "weight" in part]
    line = ", ".join(
        [
            f"Steps: {sampler['steps']}",
            f"Sampler: {sampler['kind']}",
            f"Schedule type: {sampler['grid']['kind']}",
            f"CFG scale: {weights[0] if weights else 1}",
            f"Seed: {settings['seed']}",
            f"Size: {size[2]}x{size[1]}",
            f"Model: {settings['model']}",
        ]
    )
    return {"parameters": f"{settings['label'] or ''}\n{line}"}


def _scale(height: int, width: int) -> int:
    """Whole-number enlargement, so that small pictures can be seen."""
    return max(1, 64 // max(height, width))


def _mosaic(rows: Sequence[Tensor], scale: int, gap: int) -> Any:
    """A Pillow image of rows of equal-sized (n,C,H,W) uint8 pictures."""
    from PIL import Image

    _, _, height, width = rows[0].shape
    across = max(len(row) for row in rows)
    size = (across * (width * scale + gap) + gap, len(rows) * (height * scale + gap) + gap)
    sheet = Image.new("RGB", size, (PAPER,) * 3)
    for r, row in enumerate(rows):
        for c, x in enumerate(row):
            image = _image(x)
            tile = image.resize((width * scale, height * scale), Image.Resampling.NEAREST)
            place = (gap + c * (width * scale + gap), gap + r * (height * scale + gap))
            alpha = tile if "A" in tile.mode else None
            sheet.paste(tile.convert("RGB") if alpha is None else tile, place, alpha)
    return sheet


@dataclass(frozen=True)
class Sheet:
    """A picture of many pictures.

    Attributes:
        image: The Pillow image.
        shown: How many of the pictures are on it.
        of: How many there are.
    """

    image: Any
    shown: int
    of: int

    @property
    def left_out(self) -> int:
        """How many pictures did not fit."""
        return self.of - self.shown


@dataclass(frozen=True)
class _Plan:
    """What stands where on a sheet.

    Attributes:
        rows: The pictures of each line, folded and cut.
        names: The name of each line, "" for a line that goes on.
        columns: The names above.
        lines: Lines below each other; further ones stand in another block beside them.
        left: Pixels for the names.
        step: Height and width of a picture with its gap.
        of: Pictures that there are.
    """

    rows: list[Tensor]
    names: list[str]
    columns: list[str]
    lines: int
    left: int
    step: tuple[int, int]
    of: int

    @property
    def shown(self) -> int:
        """Pictures on the sheet."""
        return sum(map(len, self.rows))


def _planned(rows: Sequence[Tensor], titles: Sequence[str], columns: Sequence[str]) -> _Plan:
    """Lay rows out, those of more than 20 pictures folded, within the limits of a sheet."""
    height, width = rows[0].shape[-2:]
    scale = _scale(height, width)
    step = (height * scale + GAP, width * scale + GAP)
    heads = 2 * HEAD + GAP
    most = max(1, PIXELS // (step[0] * step[1]))  # lines of one picture each
    left = _width(titles[:most])
    across = max(1, (min(SIDE, PIXELS // (step[0] + heads)) - left - GAP) // step[1])
    found: list[Tensor] = []
    names: list[str] = []
    for row, title in zip(rows[:most], titles[:most], strict=True):
        if len(found) >= most:
            break
        if columns:
            pieces = [row[:across]]
        else:
            many = 20 if len(rows) > 1 else max(4, round(len(row) ** 0.5))
            pieces = list(row.split(max(1, min(many, across, len(row)))))
        found += pieces
        names += [title] + [""] * (len(pieces) - 1)
    block = left + max(map(len, found)) * step[1] + GAP
    lines = max(1, min(len(found), (min(SIDE, PIXELS // block) - heads) // step[0]))
    blocks = max(1, min(SIDE // block, PIXELS // (block * (lines * step[0] + heads))))
    return _Plan(
        found[: lines * blocks],
        names[: lines * blocks],
        list(columns[:across]),
        lines,
        left,
        step,
        sum(map(len, rows)),
    )


def _width(titles: Sequence[str]) -> int:
    """Pixels for the names before the rows, none where all are empty."""
    pen, widest = Lettering(), 0
    for name in titles:
        widest = max(widest, ceil(pen.length(shortened(name, LONGEST))))
        if widest >= NAMES:
            break
    return min(NAMES, widest) + 12 if widest else 0


def rows_left_out(
    rows: Sequence[Tensor], titles: Sequence[str], columns: Sequence[str] = ()
) -> int:
    """How many pictures `sheet` leaves out, without drawing them."""
    plan = _planned(rows, titles, columns)
    return plan.of - plan.shown


def labelled_grid(
    rows: Sequence[Tensor], titles: Sequence[str], columns: Sequence[str] = ()
) -> Any:
    """The Pillow image of `sheet`."""
    return sheet(rows, titles, columns).image


def sheet(rows: Sequence[Tensor], titles: Sequence[str], columns: Sequence[str] = ()) -> Sheet:
    """Rows of pictures (n,C,H,W) uint8 with a name before each row.

    Names are drawn as they are written, long ones without their middle. A sheet has at most 10,000
    pixels a side and 16 million in all, or one picture if that is larger; rows that do not fit
    below each other stand in further blocks beside, and those that do not fit at all are left out,
    which a line above says.

    Args:
        rows: Pictures of each row.
        titles: Name of each row.
        columns: Names above the columns; rows are then not folded.
    """
    from PIL import Image, ImageDraw

    plan = _planned(rows, titles, columns)
    cut = plan.shown < plan.of
    top = HEAD * cut
    blocks = [
        _block(plan, at)
        for at in (slice(i, i + plan.lines) for i in range(0, len(plan.rows), plan.lines))
    ]
    size = (sum(block.width for block in blocks), blocks[0].height + top)
    page = Image.new("RGB", size, (PAPER,) * 3)
    x = 0
    for block in blocks:
        page.paste(block, (x, top))
        x += block.width
    if cut:
        pen = Lettering()
        text = f"{plan.shown:,} of {plan.of:,} pictures; {plan.of - plan.shown:,} left out"
        pen.draw(ImageDraw.Draw(page), (6, HEAD / 2), pen.fitted(text, size[0] - 12), RED)
    return Sheet(page, plan.shown, plan.of)


def _block(plan: _Plan, at: slice) -> Any:
    """Some lines of a sheet below each other, as a Pillow image."""
    from PIL import Image, ImageDraw

    step_y, step_x = plan.step
    rows = plan.rows[at]
    tiles = _mosaic(rows, _scale(*rows[0].shape[-2:]), GAP)
    top = HEAD if any(plan.columns) else 0
    page = Image.new("RGB", (tiles.width + plan.left, tiles.height + top), (PAPER,) * 3)
    page.paste(tiles, (plan.left, top))
    brush, pen, ink = ImageDraw.Draw(page), Lettering(), (INK,) * 3
    for r, name in enumerate(plan.names[at]):
        if name:
            place = (6, top + r * step_y + step_y // 2)
            pen.draw(brush, place, pen.fitted(name, plan.left - 12), ink)
    for c, name in enumerate(plan.columns):
        place = (plan.left + GAP + c * step_x, HEAD // 2)
        pen.draw(brush, place, pen.fitted(name, step_x - 2 * GAP), ink)
    return page


def film(frames: Sequence[Tensor]) -> bytes:
    """Animated WebP of the estimates (n,C,H,W) uint8 after every step; the last one stays.

    Of large pictures the first ones, as many as fit into a sheet.
    """
    height, width = frames[0].shape[-2:]
    scale = _scale(height, width)
    step = (height * scale + GAP, width * scale + GAP)
    most = min(SIDE, PIXELS // (step[0] + GAP))
    across = max(1, min(round(len(frames[0]) ** 0.5), (most - GAP) // step[1]))
    tall = min(SIDE, PIXELS // (across * step[1] + GAP))
    lines = max(1, (tall - GAP) // step[0])
    images = [_mosaic(list(f[: across * lines].split(across)), scale, GAP) for f in frames]
    durations = [120] * (len(images) - 1) + [1500]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=images[1:],
        duration=durations,
        loop=0,
        lossless=True,
    )
    return buffer.getvalue()
