"""From one picture to another through noise: encode both, walk the arc between, decode it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.types import Cond, spread
from steerable.recipes.recipe import Recipe

from .encode import decoded, encoded, floats_of
from .model import Model
from .output import Folder, Place, claim
from .pictures import bytes_of, png, sheet

__all__ = ["interpolated", "laid_out", "slerp", "write"]


def slerp(a: Tensor, b: Tensor, share: float | Tensor) -> Tensor:
    """Noise (B,*S) between a and b on the arc, per item: as likely as its ends, unlike the chord.

    With the angle theta between two items, their directions weigh sin((1 - share) theta) and
    sin(share theta), over sin(theta); the norm goes in a straight line. Written with sinc, which
    is smooth at theta = 0, where the arc becomes the chord. Source: Shoemake, 1985.

    Args:
        a: Noise at share 0, (B,*S).
        b: Noise at share 1, (B,*S).
        share: One number, or one an item (B,).

    Raises:
        UserError: E-CONFIG for opposite items, between which no arc is the shortest.
    """
    part = spread(torch.as_tensor(share, dtype=a.dtype, device=a.device), a)
    dims = tuple(range(1, a.ndim))
    norms = [v.square().sum(dims, keepdim=True).sqrt() for v in (a, b)]
    tiny = torch.finfo(a.dtype).tiny
    u, v = (x / n.clamp(min=tiny) for x, n in zip((a, b), norms, strict=True))
    # By its half and atan2, since acos of a product near 1 loses half of the digits.
    # Source: Kahan, "How futile are mindless assessments of roundoff", 2006, section 12.
    chord, mid = ((w).square().sum(dims, keepdim=True).sqrt() for w in (u - v, u + v))
    angle = 2.0 * torch.atan2(chord, mid)
    if bool((mid < 1e-3).any()):
        do = "go by way of a third noise"
        raise UserError("E-CONFIG", where="slerp", got="opposite ends", takes="others", do=do)
    scale = torch.sinc(angle / torch.pi)
    first = (1.0 - part) * torch.sinc((1.0 - part) * angle / torch.pi) / scale
    second = part * torch.sinc(part * angle / torch.pi) / scale
    return torch.lerp(*norms, part) * (first * u + second * v)


def interpolated(
    model: Model,
    picture_a: Tensor,
    picture_b: Tensor,
    count: int = 9,
    *,
    cond: Cond | None = None,
    recipe: Recipe | None = None,
) -> Tensor:
    """Pictures (count,*S) uint8 from a to b along the arc between their noises, both ends decoded.

    Args:
        model: From `load`.
        picture_a: The first picture (*S), uint8 or floats in [-1, 1].
        picture_b: The last picture (*S).
        count: Number of pictures, from 2 to 1000.
        cond: One row that holds for all of them; none by default.
        recipe: Settings from `walking`.

    Raises:
        UserError: E-LIMIT for the count, E-SHAPE for pictures of another size.
    """
    if not 2 <= count <= 1000:
        raise UserError("E-LIMIT", where="count", got=str(count), takes="2 to 1000")
    rows = {name: value.expand(count, *value.shape[1:]) for name, value in (cond or {}).items()}
    ends = torch.stack([floats_of(picture_a), floats_of(picture_b)])
    both = {name: value[:2] for name, value in rows.items()}
    noise = encoded(model, ends, both, recipe=recipe)
    a, b = (end.expand(count, *end.shape) for end in noise)
    between = slerp(a, b, torch.linspace(0.0, 1.0, count))
    return bytes_of(decoded(model, between, rows, recipe=recipe))


def claim_strip(model: Model, about: Mapping[str, Any], place: Place) -> Folder:
    """The folder for an interpolation, before it is made.

    Args:
        model: The model.
        about: What was asked for, with its `count`.
        place: Where the user wants it.

    Raises:
        UserError: As `output.claim`.
    """
    request = {"model": model.about.get("sha256"), **about}
    names = ["strip.png", *(f"{i}.png" for i in range(int(about["count"])))]
    return claim(place, "interpolate", "between", request, names=names)


def write(strip: Tensor, folder: Folder, about: Mapping[str, Any]) -> Path:
    """Write the pictures (n,C,H,W) uint8 as `<index>.png` and side by side as `strip.png`.

    Raises:
        UserError: E-DISK if it cannot be written.
    """
    text = {"steerable": json.dumps(about, sort_keys=True)}
    folder.write({f"{i}.png": png(picture, text) for i, picture in enumerate(strip)})
    page = sheet(*laid_out(strip))
    folder.write({"strip.png": png(page.image, text)}, grid_left_out=page.left_out)
    folder.finish()
    return folder.path / "strip.png"


def laid_out(strip: Tensor) -> tuple[list[Tensor], list[str], list[str]]:
    """The one row of `strip.png`, its empty name, and the share of the way above each picture."""
    return [strip], [""], [f"{i / (len(strip) - 1):.2f}" for i in range(len(strip))]
