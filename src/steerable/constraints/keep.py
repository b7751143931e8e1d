"""Keeping the known part of a picture: replacement after every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.schedule import Schedule
from steerable.core.steer import Constraint
from steerable.core.types import Range, spread
from steerable.nn.precision import at_least_float32

__all__ = ["Keep"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Keep(Constraint):
    """x_s <- mask x_s + (1 - mask)(alpha_s image + sigma_s z), and the image itself at the end.

    White (1) means repaint. The known part is noised at the level of the sample that it is put
    into, and comes back bit-exact. The hidden part of the image is never read, it may be NaN. In
    one pass the hidden part is biased even with an exact score: the known part of x_s is drawn
    without regard to it. The grid `repaint` goes back and forth and repairs most of it.

    Beside a guidance by the measurement `inpaint`, start = 0 is enough: the guidance steers, and
    what is known is put back bit-exact at the end. At every step `keep` takes from `dps` what it
    has gained, changes nothing of `posterior`, and all of `diffpir`: the known part of its x0-hat
    is replaced before anything hears of it, so that with a sampler that asks once a step `diffpir`
    and no guidance give the same picture to the bit.
    Source: Song et al., arXiv 2011.13456, appendix I.2; Lugmayr et al., arXiv 2201.09865, eq. 8.

    Args:
        image: The picture, floats (B,*S).
        mask: 1 where to repaint, 0 where to keep; (B,*S) or broadcast over the channels.
        start: At work from this time on (1 is pure noise); 0 only puts the image back at the end.

    Raises:
        UserError: E-SHAPE for a mask that does not fit the image, or an image that is not of the
            shape of the sample; E-DATA if the image is not finite where it is kept.
    """

    image: Tensor
    mask: Tensor
    start: Annotated[float, Range(0, 1)] = 1.0

    def __post_init__(self) -> None:
        image, mask = tuple(self.image.shape), tuple(self.mask.shape)
        pairs = zip(image, mask, strict=False)
        if len(mask) != len(image) or any(m not in (1, n) for n, m in pairs):
            takes = f"that of the image, {image}, or 1 channel"
            raise UserError("E-SHAPE", where="keep, mask", got=f"shape {mask}", takes=takes)
        if not bool((self.image.isfinite() | (self.mask >= 0.5)).all()):
            got = "values that are not finite where the mask keeps them"
            do = "is the mask inverted? White (1) means repaint"
            raise UserError("E-DATA", where="keep, image", got=got, do=do)

    def __call__(self, x_s: Tensor, s: Tensor, schedule: Schedule, noise: Noise) -> Tensor:
        if x_s.shape != self.image.shape:
            got, takes = f"shape {tuple(self.image.shape)}", f"that of x, {tuple(x_s.shape)}"
            raise UserError("E-SHAPE", where="keep, image", got=got, takes=takes)
        if not bool(torch.all(s <= self.start)):
            return x_s
        dtype, x_s = x_s.dtype, x_s.to(at_least_float32(x_s))
        known = self.image.to(x_s)
        if s > 0:
            alpha, sigma = (spread(a, x_s) for a in schedule(s))
            known = alpha * known + sigma * noise.normal(x_s)
        return torch.where(self.mask.to(x_s.device) >= 0.5, x_s, known).to(dtype)
