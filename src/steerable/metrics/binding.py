"""Whether each object of a two-object scene has the colour and the shape that its words ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.intake.drawing import covered, seen

__all__ = ["Binding"]

_COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}
_FORMS = {"circle": "disc", "square": "square", "triangle": "triangle", "cross": "cross"}
_PLACES = ("left colour", "left shape", "right colour", "right shape")


class Binding:
    """Counts of the attributes that are right, for every prompt.

    A half picture is read without any learning: the colour is the nearest of the four, the shape
    is the one that fits best when it is drawn with the same area at the same place.

    Args:
        words: The vocabulary of the prompts by index, `spec.tokens["prompt"]`.

    Raises:
        UserError: E-EVAL when the vocabulary lacks one of the eight words.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        missing = [word for word in (*_COLOURS, *_FORMS) if word not in self.words]
        if missing:
            takes = "prompts with the words " + ", ".join([*_COLOURS, *_FORMS])
            raise UserError("E-EVAL", where="binding", got=f"no word '{missing[0]}'", takes=takes)
        # prompt -> n, the four that are right, all four right, the four right when exchanged
        self.counts: dict[tuple[int, ...], Tensor] = {}

    def read(self, x: Tensor) -> Tensor:
        """Word indices (B,4) of pictures (B,3,H,W) uint8; -1 where a half holds nothing."""
        assert x.dtype == torch.uint8 and x.ndim == 4 and x.shape[1] == 3, "(B,3,H,W) uint8"
        middle = x.shape[3] // 2
        halves = [_half(part.cpu().numpy()) for part in (x[..., :middle], x[..., -middle:])]
        index = [[self.words.index(w) for w in kind] for kind in (_COLOURS, _FORMS)] * 2
        places = [
            np.array([*own, -1])[row] for own, row in zip(index, sum(halves, ()), strict=True)
        ]
        return torch.from_numpy(np.stack(places, 1))

    def update(self, x: Tensor, prompts: Tensor) -> None:
        """Add pictures (B,3,H,W) uint8 and their prompts (B,4) int64."""
        assert prompts.shape == (len(x), len(_PLACES)), "prompts (B,4)"
        prompts = prompts.to("cpu", torch.int64)
        found = self.read(x)
        right, swapped = found == prompts, found == prompts[:, [2, 3, 0, 1]]
        one = torch.ones(len(x), 1, dtype=torch.bool)
        rows = torch.cat([one, right, right.all(1, keepdim=True), swapped], 1).to(torch.int64)
        for prompt, row in zip(prompts.tolist(), rows, strict=True):
            key = tuple(prompt)
            self.counts[key] = self.counts.get(key, torch.zeros_like(row)) + row

    def merge(self, other: Binding) -> None:
        """Add all that another one has seen."""
        assert self.words == other.words, "the same words"
        for key, row in other.counts.items():
            self.counts[key] = self.counts.get(key, torch.zeros_like(row)) + row

    def value(self) -> dict[str, Any]:
        """Plain JSON; `accuracy` is the share of the attributes that are as asked for.

        `whole` is the share of pictures with all four right, `attributes` the accuracy of each.
        `swapped` is the accuracy against the prompt with its two objects exchanged; pictures that
        obey every word reach `swapped_floor`, since both objects may share a word. `per_prompt`
        holds n, accuracy and whole of every prompt. The standard errors are those of a share of n,
        as if the four attributes of a picture were one draw.

        Raises:
            UserError: E-EVAL when nothing was counted.
        """
        if not self.counts:
            raise UserError("E-EVAL", where="binding", got="0 pictures", takes="1 or more")
        total = torch.stack(list(self.counts.values())).sum(0).to(torch.float64)
        n, share = int(total[0]), float(total[1:5].sum() / (4 * total[0]))
        whole, swapped = float(total[5] / n), float(total[6:].sum() / (4 * n))
        shared = sum(
            2 * int(row[0]) * ((key[0] == key[2]) + (key[1] == key[3]))
            for key, row in self.counts.items()
        )
        return {
            "accuracy": share,
            "accuracy_error": _error(share, n),
            "whole": whole,
            "whole_error": _error(whole, n),
            "swapped": swapped,
            "swapped_error": _error(swapped, n),
            "swapped_floor": shared / (4 * n),
            "n": n,
            "attributes": dict(zip(_PLACES, (total[1:5] / n).tolist(), strict=True)),
            "per_prompt": {
                self._text(key): {
                    "n": int(row[0]),
                    "accuracy": float(row[1:5].sum()) / (4 * int(row[0])),
                    "whole": float(row[5]) / int(row[0]),
                }
                for key, row in sorted(self.counts.items())
            },
        }

    def _text(self, prompt: tuple[int, ...]) -> str:
        words = [self.words[i] if i >= 0 else "-" for i in prompt]
        return f"{' '.join(words[:2])}, {' '.join(words[2:])}"


def _error(share: float, n: int) -> float:
    return (share * (1.0 - share) / n) ** 0.5


def _half(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of colour and form in their lists, (B,) each, of pictures of one object; 4 is none."""
    found = seen(x)
    there = np.flatnonzero(~np.isnan(found.scale))
    answers = np.full((2, len(x)), len(_FORMS))
    paints = np.array(list(_COLOURS.values()), np.float64)
    gaps = ((found.paint[there, None] - paints) ** 2).sum(2)
    misfits = [
        (
            covered(form, found.centre[there], found.scale[there], size=x.shape[2:])
            - found.cover[there]
        )
        ** 2
        for form in _FORMS.values()
    ]
    answers[0, there] = gaps.argmin(1)
    answers[1, there] = np.stack([misfit.sum((1, 2)) for misfit in misfits], 1).argmin(1)
    return answers[0], answers[1]
