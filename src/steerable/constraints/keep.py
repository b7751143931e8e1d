"""Keeping the known part of a picture: replacement after every step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.schedule import Schedule
from steerable.core.steer import Constraint
from steerable.core.types import spread

__all__ = ["Keep"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Keep(Constraint):
    """x_s <- mask x_s + (1 - mask)(alpha_s image + sigma_s z), and the image itself at the end.

    White (1) means repaint. The known part is noised at the level of the sample that it is put
    into, and comes back bit-exact. The hidden part of the image is never read, it may be NaN. In
    one pass the hidden part is biased even with an exact score: the known part of x_s is drawn
    without regard to it. The grid `repaint` goes back and forth and repairs most of it.
    Source: Song et al., arXiv 2011.13456, appendix I.2; Lugmayr et al., arXiv 2201.09865, eq. 8.

    Args:
        image: The picture, floats (B,*S).
        mask: 1 where to repaint, 0 where to keep; (B,*S) or broadcast over the channels.
    """

    image: Tensor
    mask: Tensor

    def __call__(self, x_s: Tensor, s: Tensor, schedule: Schedule, noise: Noise) -> Tensor:
        known = self.image.to(x_s)
        if s > 0:
            alpha, sigma = (spread(a, x_s) for a in schedule(s))
            known = alpha * known + sigma * noise.normal(x_s)
        return torch.where(self.mask >= 0.5, x_s, known)
