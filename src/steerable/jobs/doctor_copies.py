"""Copies among pictures: exact ones by their bytes, near ones by how near is near in this set.

A near copy is the same picture saved again: compressed, resized, a little brighter. What is near
is not a constant: drawn shapes lie closer to each other than photographs. So a pair counts only
if it is far nearer than the neighbourhood of both, by a factor that chance reaches in one picture
of two thousand where items lie evenly, given the number of dimensions that the set itself shows.
Real sets are less even: of 1,000 independent shapes of 32 x 32, 0.2 to 0.8 % count as near copies
(three seeds), and 96 to 100 % of copies are found that are brighter by 5 %, resized, or in JPEG of
quality 75 or 90; of quality 60, 64 to 84 %. The denser a set, the less of this is possible.

A 64-bit perceptual hash was tried for this and left out. On pictures this small its few
frequencies do not tell pictures apart: 90 % of independently drawn shapes of 32 x 32 and 6 % of
Fashion-MNIST had a stranger within 4 bits, and it is blind to colour.
"""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Generator, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from steerable.intake.splitting import digests, duplicates
from steerable.nn.neighbours import nearest

__all__ = ["LEAST", "Copies", "search", "sketches"]

FINE, COARSE = 16, 4  # sides of a sketch in brightness and in colour, which JPEG stores coarsely
NEIGHBOURS = 10  # which make the neighbourhood of a picture
CHANCE = 5e-4  # share of independent pictures that may count as near copies
NEAREST = 1 / 3  # of the neighbourhood; no law of chance makes more than that a copy
LEAST = 20  # different pictures below which there is no neighbourhood to speak of
QUALITY = 75  # of the JPEG that pictures are compared as: Pillow's own default
CHUNK = 1024
FLAT = 1e-9  # norm of a picture without any contrast


@dataclass(frozen=True)
class Copies:
    """Items that show the same, by their numbers.

    Attributes:
        exact: Groups of items with equal bytes.
        near: Groups of items that are near copies, in which exact ones are joined too; groups that
            are exact alone are not repeated here.
        searched: Whether near copies could be looked for.
        dimension: Dimensions that the set shows around its items; 0 if not searched.
        factor: Share of the neighbourhood below which a pair is a near copy; 0 if not searched.
    """

    exact: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, ...], ...]
    searched: bool
    dimension: float = 0.0
    factor: float = 0.0

    def same(self) -> tuple[tuple[int, ...], ...]:
        """All groups, each item in one at most."""
        inside = {i for group in self.near for i in group}
        return self.near + tuple(group for group in self.exact if group[0] not in inside)


def sketches(x: Tensor) -> Tensor:
    """Small views (N,D) float64 of pictures (N,C,H,W) uint8, each of length 1, or 0 if flat.

    Brightness and contrast are taken out, colour is kept at a quarter of the resolution, and all
    are looked at as JPEG would save them, for a saturated edge changes by more than a neighbour
    does: what is left changes little when a picture is compressed, resized or brightened.
    """
    rows = torch.cat([_sketch(_saved(part).to(torch.float64)) for part in x.split(CHUNK)])
    size = rows.norm(dim=1, keepdim=True)
    return torch.where(size > FLAT, rows / size.clamp_min(FLAT), 0.0)


def _saved(x: Tensor) -> Tensor:
    """The pictures after JPEG; of two channels the first, of four the first three."""
    from PIL import Image

    colours = 3 if x.shape[1] >= 3 else 1
    saved = x.clone()
    for i, planes in enumerate(x[:, :colours]):
        array = planes.permute(1, 2, 0).numpy() if colours == 3 else planes[0].numpy()
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "JPEG", quality=QUALITY)
        with Image.open(buffer) as image:
            back = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        saved[i, :colours] = back.reshape(*planes.shape[1:], colours).permute(2, 0, 1)
    return saved


def _sketch(x: Tensor) -> Tensor:
    fine = x
    pieces = []
    if x.shape[1] >= 3:
        red, green, blue = x[:, :1], x[:, 1:2], x[:, 2:3]
        grey = 0.299 * red + 0.587 * green + 0.114 * blue  # luma of JPEG, ITU-R BT.601
        colour = torch.cat([0.713 * (red - grey), 0.564 * (blue - grey)], 1)
        fine = torch.cat([grey, x[:, 3:]], 1)
        pieces.append(_reduced(colour, COARSE))
    return torch.cat([_reduced(fine, FINE), *pieces], 1)


def _reduced(x: Tensor, side: int) -> Tensor:
    """Planes (B,C,H,W) softened and averaged to at most `side`, less their means, as rows."""
    channels, height, width = x.shape[1:]
    line = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype)
    kernel = (line[:, None] * line).expand(channels, 1, 3, 3)
    soft = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)
    size = min(height, side), min(width, side)
    small = F.adaptive_avg_pool2d(soft, size)
    area = height * width / (size[0] * size[1])
    return (small - small.mean((2, 3), keepdim=True)).flatten(1) * math.sqrt(area)


def search(x: Tensor) -> Generator[float, None, Copies]:
    """Find the copies among pictures (N,C,H,W) uint8; yields the share that is done.

    Groups of up to ten near copies are found whole; where most pictures of a set have five
    copies or more, the set looks like a denser one and only the nearest of them count.
    """
    exact = tuple(tuple(group) for group in duplicates(digests(x.numpy())))
    again = {i for group in exact for i in group[1:]}
    rows = sketches(x)
    chosen = torch.tensor(
        [i for i in range(len(x)) if i not in again and float(rows[i].norm()) > 0.5],
        dtype=torch.int64,
    )
    if len(chosen) < LEAST:
        return Copies(exact, (), searched=False)
    distances, places = [], []
    table = rows[chosen]
    for start in range(0, len(table), CHUNK):
        asking = torch.arange(start, min(start + CHUNK, len(table)))
        near, place = nearest(table[asking], table, NEIGHBOURS + 1)
        # Itself goes last, wherever it stood among others at distance 0.
        near = torch.where(place == asking[:, None], torch.inf, near)
        order = near.argsort(dim=1, stable=True)[:, :NEIGHBOURS]
        distances.append(near.gather(1, order))
        places.append(place.gather(1, order))
        yield int(asking[-1] + 1) / len(table)
    return _judged(torch.cat(distances), torch.cat(places), chosen, exact)


def _judged(
    distance: Tensor, place: Tensor, chosen: Tensor, exact: tuple[tuple[int, ...], ...]
) -> Copies:
    """Copies by the distances (M,10) of the chosen items to their neighbours."""
    dimension = _dimension(distance)
    # The nearest of ten at u times the distance of the tenth: chance is 1 - (1 - u^d)^9, about
    # 9 u^d where the items lie evenly.
    factor = min(NEAREST, (CHANCE / (NEIGHBOURS - 1)) ** (1 / dimension))
    reach = distance[:, -1]
    # A group of eleven copies is its own neighbourhood; it is not let count as one.
    reach = reach.clamp_min(0.5 * float(reach.median()))
    close = distance <= factor * torch.minimum(reach[:, None], reach[place])
    rows, columns = torch.nonzero(close, as_tuple=True)
    pairs = list(zip(chosen[rows].tolist(), chosen[place[rows, columns]].tolist(), strict=True))
    linked = [*pairs, *((group[0], i) for group in exact for i in group[1:])]
    alone = set(exact)
    near = tuple(group for group in _joined(linked) if group not in alone)
    return Copies(exact, near, True, dimension, factor)


def _dimension(distance: Tensor) -> float:
    """Dimensions around the items, by how distances grow from the fifth neighbour to the tenth.

    (d5 / d10)^dimension follows Beta(5, 5) where items lie evenly, whose median is a half.
    The nearest four are left out of it, for they may be copies.
    Source: Levina and Bickel, Maximum likelihood estimation of intrinsic dimension, 2004.
    """
    fifth, tenth = distance[:, NEIGHBOURS // 2 - 1], distance[:, -1]
    ratio = (fifth.clamp_min(1e-12) / tenth.clamp_min(1e-12)).clamp(1e-6, 1 - 1e-6)
    return min(64.0, max(1.0, math.log(0.5) / float(ratio.log().median())))


def _joined(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, ...]]:
    """The connected groups of pairs, each in order, by their first item."""
    parent: dict[int, int] = {}

    def root(i: int) -> int:
        parent.setdefault(i, i)
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    groups: dict[int, list[int]] = defaultdict(list)
    for i in sorted(parent):
        groups[root(i)].append(i)
    return [tuple(group) for group in groups.values()]
