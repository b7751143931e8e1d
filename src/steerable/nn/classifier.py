"""A small classifier of pictures, whose last hidden layer is the feature space of evaluation."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.core.errors import UserError

__all__ = ["Classifier"]

SMALLEST = 4  # least side of a picture: it is halved, and quarters of it are looked at


def _convolution(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    )


def _halved(x: Tensor) -> Tensor:
    """Half the height and width, unless a side would fall below 2.

    A batch norm that trains needs more than one number a channel, so with maps of at least 2 x 2
    even a batch of one picture can be learned from.
    """
    return F.max_pool2d(x, 2) if min(x.shape[-2:]) >= 4 else x


class Classifier(nn.Module):
    """Pictures (B,C,H,W) in [-1, 1], H and W at least 4, to logits (B,classes).

    Args:
        channels: C.
        classes: Number of classes.
        width: Channels of the first layer; the last has eight times as many.
    """

    feature_width: ClassVar[int] = 128

    def __init__(self, channels: int, classes: int, *, width: int = 16) -> None:
        super().__init__()
        self.first = _convolution(channels, width)
        self.second = _convolution(width, 4 * width)
        self.third = nn.Sequential(
            _convolution(4 * width, 8 * width), _convolution(8 * width, 8 * width)
        )
        self.hidden = nn.Linear(8 * width * 4, self.feature_width)
        self.out = nn.Linear(self.feature_width, classes)
        self.to(memory_format=torch.channels_last)

    def features(self, x: Tensor) -> Tensor:
        """Activations of the last hidden layer after its ReLU, (B,128).

        Raises:
            UserError: E-EVAL for pictures that cannot be halved twice.
        """
        if min(x.shape[-2:]) < SMALLEST:
            got, takes = "pictures of {} x {}".format(*x.shape[-2:]), "4 x 4 or larger"
            raise UserError("E-EVAL", where="judge", got=got, takes=takes)
        x = _halved(self.first(x.contiguous(memory_format=torch.channels_last)))
        x = self.third(_halved(self.second(x)))
        # Four quarters rather than one mean: where a shape sits is part of what it is.
        return F.relu(self.hidden(F.adaptive_avg_pool2d(x, 2).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B,classes)."""
        return self.out(self.features(x))
