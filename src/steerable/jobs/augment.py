"""Augmentation that does not leak: what was done to a picture is told to the network.

A picture that was turned is trained as "this picture, turned by so much"; sampling never says that
something was turned, so samples are not. The eight numbers are the whole truth: the map that they
describe can be built from them alone (`motion`). Flips, quarter turns and shifts only move pixels;
rotation and scale are resampled once, with bicubic weights and mirrored borders.
Source: Karras et al., arXiv 2206.00364, appendix F.2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.types import Spec
from steerable.recipes.training import Training

__all__ = ["augmented", "check_augmentation", "motion"]

SCALE = 0.2 * math.log(2.0)  # std of the log scale. Source: arXiv 2206.00364, table 6
SHIFT = 1 / 8  # largest shift as a share of the side. Source: the same
MIRRORING = ("flip", "flip_y", "turn", "rotate")  # they may change what a picture means

_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "hundred thousand"
)


def check_augmentation(training: Training, spec: Spec) -> None:
    """Refuse what would teach the network wrong labels, or cannot be done to the data.

    Raises:
        UserError: E-CONFIG.
    """
    asked = set(training.augmentations) if training.augment > 0 else set()
    if asked and len(spec.shape) != 3:
        got = f"items of shape {spec.shape}"
        raise UserError("E-CONFIG", where="training.augment", got=got, takes="pictures (C,H,W)")
    risky = [name for name in MIRRORING if name in asked]
    if not risky and not training.flip:
        return
    where = "training.augmentations" if risky else "training.flip"
    what = ", ".join(risky) if risky else "flips"
    written = [key for key, names in spec.labels.items() if _characters(names)]
    if (spec.flip and not written) or training.force:
        return
    if written:
        why = f"the classes are digits or letters ({', '.join(spec.labels[written[0]][:4])}, ...)"
    else:
        why = f"the data '{spec.name}' does not say that a flip keeps the meaning"
    raise UserError(
        "E-CONFIG",
        where=where,
        got=f"{what}, but {why}: a 6 turned is a 9, a mirrored 2 is no digit",
        takes="translate and scale, which keep every meaning",
        do="leave them out; or, if a mirrored picture means the same, --set training.force=true",
    )


def _characters(names: Sequence[str]) -> bool:
    """Whether class names are digits, letters or numbers, all of them."""
    known = set(_NUMBER_WORDS.split())

    def written(name: str) -> bool:
        plain = name.strip().casefold()
        words = re.split(r"[\s_-]+", plain)
        number = re.fullmatch(r"[+-]?\d+([.,]\d+)?", plain) is not None
        return len(plain) == 1 or number or all(w in known for w in words)

    return bool(names) and all(written(name) for name in names)


def augmented(x: Tensor, training: Training, noise: Noise) -> tuple[Tensor, Tensor]:
    """Pictures (B,C,H,W) with each augmentation done to a share of them, and what was done (B,8).

    Flips first, then turns, then rotation and scale about the centre, then the shift. A picture
    to which nothing was done is the same bit by bit, with zeros.

    Args:
        x: The pictures.
        training: Which augmentations, and the chance of each.
        noise: Draws the same numbers of it whichever augmentations are on.
    """
    n, (height, width) = len(x), x.shape[-2:]

    def chosen(name: str, value: Tensor) -> Tensor:
        on = noise.uniform(n) < training.augment
        return torch.where(on & (name in training.augmentations), value, torch.zeros_like(value))

    flip = chosen("flip", noise.integers(n, 2))
    flip_y = chosen("flip_y", noise.integers(n, 2))
    quarters = noise.integers(n, 4)
    # A quarter turn would change the shape of a picture that is not square.
    quarters = chosen("turn", quarters if height == width else quarters // 2 * 2)
    angle = chosen("rotate", (2.0 * noise.uniform(n) - 1.0) * math.pi)
    scale = chosen("scale", SCALE * noise.normal(torch.zeros(n, 1, dtype=torch.float64))[:, 0])
    sides = torch.tensor([width, height])
    reach = (sides * SHIFT).to(torch.int64)
    steps = torch.stack([noise.uniform(n), noise.uniform(n)], 1) * (2 * reach + 1)
    on = chosen("translate", torch.ones(n, dtype=torch.int64))
    shift = (steps.floor().to(torch.int64) - reach) * on[:, None]

    x = _picked(x, flip == 1, lambda part: part.flip(-1))
    x = _picked(x, flip_y == 1, lambda part: part.flip(-2))
    for k in (1, 2, 3):
        x = _picked(x, quarters == k, lambda part, k=k: part.rot90(-k, (-2, -1)))
    x = _warped(x, angle, scale)
    x = _shifted(x, shift)
    turned = angle + quarters.to(torch.float64) * (math.pi / 2)
    told = [flip, flip_y, turned.cos() - 1.0, turned.sin(), scale, scale]
    value = torch.stack([*(v.to(torch.float64) for v in told), *(2.0 * shift / sides).T], 1)
    return x, value.to(x.dtype)


def _picked(x: Tensor, which: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Some items of x (B,C,H,W) changed; the others are not touched."""
    if not bool(which.any()):
        return x
    x = x.clone()
    x[which] = change(x[which])
    return x


def motion(value: Tensor, shape: tuple[int, int]) -> Tensor:
    """The map (B,2,3) of points that numbers (B,8) describe, from the picture before to after.

    Points are (x, y), x to the right and y downwards, each from -1 to 1 over the picture; a
    positive angle turns clockwise.

    Args:
        value: Flip x, flip y, cos of the angle less one, sin, log scales x y, shifts x y.
        shape: Rows and columns, since an angle is one between pixels.
    """
    aspect = shape[1] / shape[0]
    flips = 1.0 - 2.0 * value[:, :2]
    size = value[:, 4:6].exp() * flips
    cos, sin = value[:, 2] + 1.0, value[:, 3]
    rows = [
        torch.stack([cos * size[:, 0], -sin * size[:, 1] / aspect, value[:, 6]], 1),
        torch.stack([sin * size[:, 0] * aspect, cos * size[:, 1], value[:, 7]], 1),
    ]
    return torch.stack(rows, 1)


def _warped(x: Tensor, angle: Tensor, scale: Tensor) -> Tensor:
    """Pictures rotated clockwise and enlarged about their centre."""
    height, width = x.shape[-2:]

    def change(part: Tensor) -> Tensor:
        # The grid says where each new pixel comes from: the inverse map, angle and scale negated.
        back = torch.zeros(len(part), 8, dtype=torch.float64)
        back[:, 2], back[:, 3] = angle[moved].cos() - 1.0, -angle[moved].sin()
        back[:, 4] = back[:, 5] = -scale[moved]
        place = F.affine_grid(motion(back, (height, width)).to(part), list(part.shape), False)
        got = F.grid_sample(
            part, place, mode="bicubic", padding_mode="reflection", align_corners=False
        )
        return got.clamp_(-1.0, 1.0)  # bicubic weights overshoot

    moved = (angle != 0) | (scale != 0)
    return _picked(x, moved, change)


def _shifted(x: Tensor, shift: Tensor) -> Tensor:
    """Pictures moved by whole pixels (B,2) to the right and down, mirrored at the borders."""
    if not bool(shift.any()):
        return x

    def source(side: int, by: Tensor) -> Tensor:
        place = (torch.arange(side) - by[:, None]) % (2 * side)
        return torch.minimum(place, 2 * side - 1 - place)

    items = torch.arange(len(x))[:, None, None]
    rows, columns = source(x.shape[-2], shift[:, 1]), source(x.shape[-1], shift[:, 0])
    return x[items, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
