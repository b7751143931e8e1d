"""Masks for the condition `mask`: random ones to train with, the given one to sample with.

White (1) means repaint. Every random mask is the share of the pixels that score highest: in a
direction it is a half plane, near a point a box, far from it a frame, near a line a stroke of a
brush, and by coarse noise a set of blocks. So each shape comes in every size, from slivers to all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from steerable.conditions.mask import Mask
from steerable.core.denoise import Denoiser
from steerable.core.noise import Noise
from steerable.core.types import Cond, Denoise, Estimate

__all__ = ["random_masks", "seeing", "shown_part", "training_masks"]

WHOLE = 1 / 16  # share of the masks that hide the whole picture
CORNERS = 4  # of a stroke's line
CELLS = 16  # blocks along the longer side at most


def random_masks(noise: Noise, height: int, width: int) -> Tensor:
    """A mask an item, (B,1,H,W), with one pixel white at least.

    Args:
        noise: Draws the same numbers of it for every shape.
        height: Rows.
        width: Columns.
    """
    n = len(noise.seeds)
    shape, share = noise.integers(n, 5), noise.uniform(n)
    share = torch.where(noise.uniform(n) < WHOLE, torch.ones_like(share), share)
    numbers = torch.stack([noise.uniform(n) for _ in range(2 * CORNERS)], 1)
    cells = noise.normal(torch.empty(n, CELLS * CELLS, dtype=torch.float64))
    y, x = ((torch.arange(side, dtype=torch.float64) + 0.5) / side for side in (height, width))
    place = torch.stack(torch.meshgrid(y, x, indexing="ij"))[None]  # (1,2,H,W)
    score = torch.empty(n, height, width)
    for kind in range(5):
        rows = torch.nonzero(shape == kind)[:, 0]
        u = numbers[rows]
        if kind == 0:
            score[rows] = _direction(u, place).float()
        elif kind in (1, 2):
            score[rows] = _nearness(u, place).float() * (1.0 if kind == 1 else -1.0)
        elif kind == 3:
            score[rows] = _stroke(u, place).float()
        else:
            score[rows] = _blocks(u[:, 0], cells[rows], height, width).float()
    score = score.flatten(1)
    # Pixels of equal score stay together, so blocks are whole and borders straight.
    last = (share * score.shape[1]).ceil().to(torch.int64).clamp(1) - 1
    limit = score.sort(1, descending=True).values.gather(1, last[:, None])
    return (score >= limit).to(torch.float32).reshape(n, 1, height, width)


def _direction(u: Tensor, place: Tensor) -> Tensor:
    """How far along a direction, (B,H,W); every other one is along a side."""
    angle = 2 * math.pi * torch.where(u[:, 0] < 0.5, u[:, 1], (4 * u[:, 1]).floor() / 4)
    cos, sin = (v[:, None, None] for v in (angle.cos(), angle.sin()))
    # Rounded, so that pixels of one row score alike when the direction is along a side.
    return (cos * place[:, 0] + sin * place[:, 1]).mul(2.0**20).round()


def _nearness(u: Tensor, place: Tensor) -> Tensor:
    """How near to a point, (B,H,W), by the larger of the distances along the two sides."""
    aspect = torch.exp2(2.0 * u[:, 2] - 1.0)  # sides up to 4 : 1 either way
    scale = torch.stack([aspect, 1.0 / aspect], 1)[:, :, None, None]
    return -((place - u[:, :2, None, None]).abs() * scale).amax(1)


def _stroke(u: Tensor, place: Tensor) -> Tensor:
    """How near to a line with a few corners, (B,H,W)."""
    near = torch.full((len(u), *place.shape[2:]), math.inf, dtype=u.dtype)
    corners = u.reshape(len(u), CORNERS, 2, 1, 1)
    for start, end in zip(corners[:, :-1].unbind(1), corners[:, 1:].unbind(1), strict=True):
        way, from_start = end - start, place - start
        length = way.square().sum(1).clamp(min=1e-12)
        reached = ((from_start * way).sum(1) / length).clamp(0, 1)
        off = from_start - reached[:, None] * way
        near = torch.minimum(near, off.square().sum(1))
    return -near


def _blocks(u: Tensor, cells: Tensor, height: int, width: int) -> Tensor:
    """Noise in blocks, (B,H,W), from a sixteenth to half of the longer side."""
    longer = max(height, width)
    finest = math.ceil(longer / CELLS)
    size = (finest * torch.exp2(u * math.log2(max(1.0, longer / 2 / finest)))).to(torch.int64)
    row, column = (torch.arange(side) // size[:, None] for side in (height, width))
    place = row[:, :, None] * CELLS + column[:, None, :]
    return cells.gather(1, place.flatten(1)).reshape(len(u), height, width)


def shown_part(image: Tensor, mask: Tensor) -> Tensor:
    """The value (B,C+1,H,W) of the condition: hidden pixels are zero, even where they are NaN."""
    mask = (mask >= 0.5).to(image)
    return torch.cat([torch.where(mask > 0, torch.zeros_like(image), image), mask], 1)


def training_masks(conditions: nn.ModuleDict, x: Tensor, noise: Noise) -> dict[str, Tensor]:
    """A random hole for every picture x (B,C,H,W) of a training batch, for each such condition."""
    found = {}
    for name, owner in conditions.items():
        if isinstance(owner, Mask):
            value = shown_part(x, random_masks(noise, x.shape[-2], x.shape[-1]))
            found[name] = owner.dropped(value, noise)
    return found


def seeing(denoise: Denoise, net: Denoiser, given: Mapping[str, Tensor]) -> Denoise:
    """The denoiser that sees the known part of the pictures that are given.

    It stands below the guidances, which leave conditions out: what is known stays known. A guidance
    may ask in one longer batch, which repeats the items in turn.

    Args:
        denoise: The network; without a condition `mask`, or without a picture and a mask, it is
            returned as it is.
        net: Its conditions.
        given: `image` (B,C,H,W), hidden pixels may be NaN, and `mask` (B,1,H,W).
    """
    names = [name for name, c in net.conditions.items() if isinstance(c, Mask)]
    if not names or "image" not in given or "mask" not in given:
        return denoise
    value = shown_part(given["image"], given["mask"])

    def told(x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
        many = value.repeat(-(-len(x_t) // len(value)), 1, 1, 1)[: len(x_t)]
        return denoise(x_t, t, {**cond, **dict.fromkeys(names, many.to(x_t))})

    return told
