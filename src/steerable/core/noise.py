"""Random numbers as a pure function of (key of the item, number of the draw, place in the item).

Nothing is saved and nothing advances but a draw counter, so item i never depends on the batch, the
device or its neighbours, and a resumed run draws what the unbroken one would have drawn.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Noise", "mix"]


def _signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word


# SplitMix64. Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
_GAMMA = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shifted(word: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 words (torch shifts the sign in)."""
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def mix(word: Tensor) -> Tensor:
    """Scramble int64 words; a bijection in which every input bit reaches every output bit."""
    word = (word ^ _shifted(word, 30)) * _FIRST
    word = (word ^ _shifted(word, 27)) * _SECOND
    return word ^ _shifted(word, 31)


class Noise:
    """A stream of random numbers for every item of a batch.

    Args:
        seeds: One integer per item, (B,) int64; equal seeds give equal numbers.
        place: Position of each item in the global batch, (B,); its own index by default.
        total: Size of the global batch; B by default.
    """

    def __init__(
        self, seeds: Tensor, *, place: Tensor | None = None, total: int | None = None
    ) -> None:
        assert seeds.ndim == 1 and not seeds.is_floating_point(), "one integer seed per item"
        self.seeds = seeds.to("cpu", torch.int64)
        self.place = torch.arange(len(seeds)) if place is None else place.cpu()
        self.total = len(seeds) if total is None else total
        self._keys = mix(self.seeds + _GAMMA)
        self._draws = 0

    @staticmethod
    def of(seed: int, *, iteration: int, items: Tensor) -> Noise:
        """The noise of (seed, iteration, item) for the items (B,)."""
        key = mix(torch.tensor([_signed(seed % (1 << 64))]) + _GAMMA)
        key = mix(key ^ (torch.tensor([iteration]) * _GAMMA))
        return Noise(mix(key + items.to(torch.int64) * _GAMMA))

    def _words(self, count: int) -> Tensor:
        """(B, count) fresh 64-bit words."""
        self._draws += 1
        keys = mix(self._keys + mix(torch.tensor(self._draws * 2 + 1) * _GAMMA))
        return mix(keys[:, None] + torch.arange(1, count + 1) * _GAMMA)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal (B,*S): shape, dtype, device of `like`. Source: Box and Muller, 1958."""
        assert len(like) == len(self.seeds), "one seed per item"
        count = math.prod(like.shape[1:])
        words = self._words((count + 1) // 2)
        high = (_shifted(words, 32).to(torch.float64) + 1.0).mul_(2.0**-32)
        low = (words & 0xFFFFFFFF).to(torch.float64).mul_(2.0**-32 * 2.0 * math.pi)
        radius = high.log_().mul_(-2.0).sqrt_()
        pairs = torch.stack((radius * low.cos(), radius * low.sin()), dim=-1)
        return pairs.flatten(1)[:, :count].reshape(like.shape).to(like.dtype).to(like.device)

    def uniform(self, n: int) -> Tensor:
        """Numbers in (0, 1), (n,) float64, one per item."""
        assert n == len(self.seeds), "one seed per item"
        return (_shifted(self._words(1)[:, 0], 12).to(torch.float64) + 0.5) * 2.0**-52

    def stratified(self, n: int) -> Tensor:
        """Numbers in (0, 1), (n,), even over the global batch; the one draw of its size."""
        return (self.place.to(torch.float64) + self.uniform(n)) / self.total

    def integers(self, n: int, high: int) -> Tensor:
        """Integers in [0, high), (n,) int64, one per item."""
        return (self.uniform(n) * high).to(torch.int64).clamp_(max=high - 1)
