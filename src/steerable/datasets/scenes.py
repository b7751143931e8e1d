"""Two coloured objects side by side and the words for them: does a prompt reach the right one?"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray

from steerable.core.types import Dataset, Range, Spec, Splits
from steerable.intake.drawing import checked_seed, covered

__all__ = ["scenes"]

_COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}
_FORMS = {"circle": "disc", "square": "square", "triangle": "triangle", "cross": "cross"}
_SCALE, _JITTER = (0.38, 0.46), 0.08  # in heights of the picture: 7 to 11 of 16 pixels wide
_EVERY = 5


def scenes(
    *,
    size: Annotated[int, Range(12, 64)] = 16,
    count: Annotated[int, Range(100, 100_000)] = 6000,
    seed: Annotated[int, Range(0, 2**31)] = 0,
    held_pairs: Annotated[int, Range(0, 4)] = 4,
) -> Splits:
    """A left and a right object on black, each of 4 colours and 4 shapes; a fifth is held out.

    The condition `prompt` holds four words: colour and shape of the left object, colour and shape
    of the right one. Place and size vary on their own, so a prompt has many pictures.

    Some pairs of a colour and a shape never occur in training, on neither side. They are the first
    `held_pairs` of red, green, blue and yellow, each with another shape as the seed shuffles them,
    so every word is still learned. Every second held-out picture, from the second on, has such a
    pair on one side at least, the others have none; the report names the pairs.

    Args:
        size: Rows; there are twice as many columns.
        count: Pictures in both parts together.
        seed: Seed of everything.
        held_pairs: How many of the 16 pairs are kept out of training.
    """
    rng = np.random.default_rng(checked_seed(seed, "scenes"))
    held = np.arange(held_pairs) * len(_FORMS) + rng.permutation(len(_FORMS))[:held_pairs]
    out = np.arange(count) % _EVERY == 0
    unseen = (np.cumsum(out) % 2 == 0) & out & (held_pairs > 0)
    pairs = _pairs(rng, held, unseen)
    x = torch.from_numpy(_drawn(rng, pairs, size))
    words = (*_COLOURS, *_FORMS)
    places = np.stack([pairs // len(_FORMS), pairs % len(_FORMS) + len(_COLOURS)], -1)
    prompt = torch.from_numpy(places.reshape(count, 4))
    train, rest = (torch.from_numpy(np.flatnonzero(part)) for part in (~out, out))
    std = float((x[train].to(torch.float64) / 127.5).std(correction=0))
    spec = Spec("scenes", (3, size, 2 * size), tokens={"prompt": words}, std=std)
    every = Dataset(spec, x, {"prompt": prompt})
    report: dict[str, Any] = {
        "source": f"drawn, seed {seed}",
        "split": f"held out: every {_EVERY}th item; every second of them has an unseen pair"
        if held_pairs
        else f"held out: every {_EVERY}th item",
        "unseen_pairs": [f"{words[i // 4]} {words[4 + i % 4]}" for i in held.tolist()],
        "held_out_with_unseen_pairs": int(unseen.sum()),
    }
    return Splits(every.take(train), every.take(rest), report)


def _pairs(
    rng: np.random.Generator, held: NDArray[np.int64], unseen: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Pairs (N,2) of the left and the right object, colour * 4 + shape."""
    every = np.arange(len(_COLOURS) * len(_FORMS))
    pairs = rng.choice(np.setdiff1d(every, held), (len(unseen), 2))
    n, side = int(unseen.sum()), rng.integers(0, 2, len(unseen))[unseen]
    if n:
        rows = np.flatnonzero(unseen)
        pairs[rows, side] = rng.choice(held, n)
        pairs[rows, 1 - side] = rng.choice(every, n)
    return pairs


def _drawn(rng: np.random.Generator, pairs: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """Pictures (N,3,size,2 size) of pairs (N,2)."""
    draws = rng.random((*pairs.shape, 3))
    centre = 0.5 + _JITTER * (2 * draws[..., :2] - 1)
    scale = _SCALE[0] + draws[..., 2] * (_SCALE[1] - _SCALE[0])
    paints = np.array(list(_COLOURS.values()), np.float32)[pairs // len(_FORMS)]
    x = np.empty((len(pairs), 3, size, 2, size), np.uint8)
    for i, form in enumerate(_FORMS.values()):
        item, side = np.nonzero(pairs % len(_FORMS) == i)
        cover = covered(
            form, centre[item, side] * size, scale[item, side] * size, size=(size, size)
        )
        paint = paints[item, side][:, :, None, None] * cover[:, None]
        x[item, :, :, side] = (paint * 255 + 0.5).astype(np.uint8)
    return x.reshape(len(pairs), 3, size, 2 * size)
