"""Grey levels of pictures: are the colours, the tint and the contrast those of real pictures?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.nn.jackknife import GROUPS, group_of, jackknife

__all__ = ["Colours"]

LEAST = 16  # pictures
CONSTANT = 2  # grey levels between the darkest and the brightest pixel of every channel
EDGE = 0.02  # of the range: where nearly black ends, from below, and nearly white, from above
USUAL = 0.001  # share of real pictures; what so many are is not dead
FINE = 4  # steps of a mean brightness to a grey level


class Colours:
    """Sums of pictures: histograms of their channels, contrasts, constant ones, brightnesses.

    A set is told by its sums alone, in 16 groups of items by number; the errors are jackknives over
    the groups of both sets. Copies among the items make them too small.

    A picture is dead when it is constant (no channel has pixels more than 2 grey levels apart), or
    nearly black (a mean below 2 % of the range) or nearly white (above 98 %) and also darker or
    brighter than all but a thousandth of the real pictures that are not constant. So small things
    on black are not dead where the real ones look like that. Means are known to 1/4 level.

    Source: the distance of histograms is that of Rubner et al., "The earth mover's distance as a
    metric for image retrieval", 2000, which on a line is the area between distribution functions.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        assert channels >= 1, "at least one channel"
        self.counts = torch.zeros(GROUPS, dtype=torch.int64)
        self.levels = torch.zeros(GROUPS, channels, 256, dtype=torch.int64)
        self.constant = torch.zeros(GROUPS, dtype=torch.int64)
        # How many of the others have which mean brightness.
        self.brightness = torch.zeros(GROUPS, 255 * FINE + 1, dtype=torch.int64)
        self.contrasts = torch.zeros(GROUPS, dtype=torch.float64)

    def update(self, x: Tensor, items: Tensor | None = None) -> None:
        """Add pictures (B,C,H,W) uint8 of the items (B,) int64; without, those that come next."""
        channels = self.levels.shape[1]
        assert x.dtype == torch.uint8 and x.ndim == 4 and x.shape[1] == channels, "(B,C,H,W) uint8"
        first = int(self.counts.sum())
        group = group_of(torch.arange(first, first + len(x)) if items is None else items)
        assert group.shape == x.shape[:1], "a number for every picture"
        if len(x) == 0:
            return
        pixels = x.detach().cpu().flatten(2)
        constant = (pixels.amax(2).to(torch.int16) - pixels.amin(2) <= CONSTANT).all(1)
        place = (group[:, None] * channels + torch.arange(channels))[..., None] * 256
        bins = (place + pixels).flatten()
        self.levels += torch.bincount(bins, minlength=self.levels.numel()).view_as(self.levels)
        self.counts += torch.bincount(group, minlength=GROUPS)
        self.constant += torch.bincount(group[constant], minlength=GROUPS)
        mean = pixels.flatten(1).sum(1) * FINE // pixels[0].numel()
        self.brightness.index_put_(
            (group[~constant], mean[~constant]), torch.tensor(1), accumulate=True
        )
        variance = pixels.to(torch.float64).var(2, correction=0)
        self.contrasts.index_add_(0, group, variance.mean(1).sqrt())

    def merge(self, other: Colours) -> None:
        """Add all that another one has seen."""
        assert self.levels.shape == other.levels.shape, "the same channels"
        self.counts += other.counts
        self.levels += other.levels
        self.constant += other.constant
        self.brightness += other.brightness
        self.contrasts += other.contrasts

    def value(self, real: Colours) -> dict[str, Any]:
        """Plain JSON: four measures against real pictures, each with its standard error, and `n`.

        `colour` is the earth mover's distance of the histograms of grey levels, in levels, mean
        over the channels; for equal laws it is above 0 too, on average by up to
        128 (1/n + 1/m)^1/2 for n and m pictures. `tint` is the largest difference between the mean
        levels of a channel. `contrast` is the mean standard
        deviation within a picture (root of the mean variance of its channels) over the real one:
        below 1 for pale or blurred pictures. `dead` is the share of dead pictures, `dead_real` that
        of the real ones.

        Raises:
            UserError: E-EVAL for less than 16 pictures a side, and for real ones that are constant.
        """
        assert self.levels.shape[1] == real.levels.shape[1], "the same channels"
        n, m = int(self.counts.sum()), int(real.counts.sum())
        if min(n, m) < LEAST:
            takes = f"{LEAST} or more of both"
            raise UserError("E-EVAL", where="colours", got=f"{n} and {m} pictures", takes=takes)
        if bool((real.contrasts.sum() - real.contrasts <= 0.0).any()):  # what a ratio is taken of
            got = f"{m} real pictures, of one grey level each but for a few"
            raise UserError("E-EVAL", where="colours", got=got, takes="pictures of something")
        mine, theirs = self.counts > 0, real.counts > 0
        measures = _measures(self, mine, real, theirs)
        shakes = (
            jackknife(lambda kept: _measures(self, kept, real, theirs), self.counts),
            jackknife(lambda kept: _measures(self, mine, real, kept), real.counts),
        )
        errors = (shakes[0].square() + shakes[1].square()).sqrt()
        names = ("colour", "tint", "contrast", "dead", "dead_real")
        pairs = zip(names, measures.tolist(), errors.tolist(), strict=True)
        found = {key: x for name, a, e in pairs for key, x in ((name, a), (f"{name}_error", e))}
        return {**found, "n": n}


def _measures(fake: Colours, a: Tensor, real: Colours, b: Tensor) -> Tensor:
    """The measures (5,) of the groups `a` against the real ones of the groups `b`."""
    mine, theirs = (
        levels / levels.sum(1, keepdim=True)
        for levels in (fake.levels[a].sum(0).double(), real.levels[b].sum(0).double())
    )
    colour = (mine.cumsum(1) - theirs.cumsum(1)).abs().sum(1).mean()
    tint = ((mine - theirs) @ torch.arange(256.0, dtype=torch.float64)).abs().max()
    contrasts = [
        metric.contrasts[kept].sum() / metric.counts[kept].sum()
        for metric, kept in ((fake, a), (real, b))
    ]
    low, high = _limits(real.brightness[b].sum(0))
    return torch.stack(
        [
            colour,
            tint,
            contrasts[0] / contrasts[1],
            _dead(fake, a, low, high),
            _dead(real, b, low, high),
        ]
    )


def _limits(brightness: Tensor) -> tuple[int, int]:
    """The darkest and the brightest mean, in places of `brightness`, that is not dead."""
    few, black = int(USUAL * int(brightness.sum())), int(EDGE * len(brightness))
    dark = int((brightness.cumsum(0) <= few).sum())  # the first place that more are not beyond
    bright = int((brightness.flip(0).cumsum(0) <= few).sum())
    return min(black, dark), len(brightness) - 1 - min(black, bright)


def _dead(metric: Colours, kept: Tensor, low: int, high: int) -> Tensor:
    brightness = metric.brightness[kept].sum(0)
    dead = metric.constant[kept].sum() + brightness[:low].sum() + brightness[high + 1 :].sum()
    return dead / metric.counts[kept].sum().double()
