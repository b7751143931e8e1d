"""Pictures as bytes: grids with names, PNG with its settings inside, films of the denoising."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["bytes_of", "film", "labelled_grid", "png", "settings_text"]

INK, PAPER = 40, 255


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


def _wrapped(rows: Sequence[Tensor], titles: Sequence[str]) -> tuple[list[Tensor], list[str]]:
    """Rows of more than 20 pictures, folded."""
    folded, names = [], []
    for row, title in zip(rows, titles, strict=True):
        width = (
            min(20, len(row)) if len(rows) > 1 else min(len(row), max(4, round(len(row) ** 0.5)))
        )
        pieces = list(row.split(width))
        folded += pieces
        names += [title] + [""] * (len(pieces) - 1)
    return folded, names


def labelled_grid(
    rows: Sequence[Tensor], titles: Sequence[str], columns: Sequence[str] = ()
) -> Any:
    """A Pillow image of rows of pictures (n,C,H,W) uint8 with a name before each row.

    Args:
        rows: Pictures of each row.
        titles: Name of each row.
        columns: Names above the columns; rows are then not folded.
    """
    from PIL import Image, ImageDraw, ImageFont

    names = list(titles)
    if not columns:
        rows, names = _wrapped(rows, titles)
    scale = _scale(*rows[0].shape[-2:])
    gap = 2
    sheet = _mosaic(rows, scale, gap)
    font = ImageFont.load_default(size=13)
    left = max((int(font.getlength(name)) for name in names), default=0)
    left = left + 12 if left else 0
    top = 20 if any(columns) else 0
    page = Image.new("RGB", (sheet.width + left, sheet.height + top), (PAPER,) * 3)
    page.paste(sheet, (left, top))
    pen = ImageDraw.Draw(page)
    step_y, step_x = rows[0].shape[-2] * scale + gap, rows[0].shape[-1] * scale + gap
    for r, name in enumerate(names):
        pen.text((6, top + r * step_y + step_y // 2), name, fill=(INK,) * 3, font=font, anchor="lm")
    for c, name in enumerate(columns):
        short = name if font.getlength(name) < step_x else f"{name[: max(1, step_x // 9)]}."
        pen.text((left + gap + c * step_x, 3), short, fill=(INK,) * 3, font=font)
    return page


def film(frames: Sequence[Tensor]) -> bytes:
    """Animated WebP of the estimates (n,C,H,W) uint8 after every step; the last one stays."""
    height, width = frames[0].shape[-2:]
    across = max(1, round(len(frames[0]) ** 0.5))
    images = [_mosaic(list(f.split(across)), _scale(height, width), 2) for f in frames]
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
