"""What convolutional U-Nets are made of: residual blocks, changes of scale, gates on skips."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.core.errors import UserError

from .attention import SelfAttention2d, heads_by_width
from .resampling import folded

__all__ = [
    "Grow", "Halve", "ResidualBlock", "SkipGate", "attended", "checked", "groups_for", "levels_for",
    "silent",
]  # fmt: skip


def checked(channels: tuple[int, ...]) -> tuple[int, ...]:
    """The widths of the levels, if a normalisation can work on each of them.

    Raises:
        UserError: E-LIMIT when there is no level or one of fewer than 2 channels.
    """
    if not channels or min(channels) < 2:
        raise UserError("E-LIMIT", where="channels", got=str(channels), takes="2 or more each")
    return tuple(channels)


def groups_for(channels: int) -> int:
    """Groups of a norm: 32 as published where that leaves 4 channels each, else fewer.

    One channel a group would forget the mean of every channel, and with it what the bias and the
    vector before it have added.
    """
    fits = [g for g in (2, 4, 8, 16, 32) if channels % g == 0 and channels >= 4 * g]
    return max(fits, default=1)


def levels_for(shape: tuple[int, ...], smallest: int = 8) -> int:
    """Levels, each half the size of the one before, until a map is at most `smallest`; 2 or more.

    Args:
        shape: Shape (C,H,W) of the items.
        smallest: Height or width, whichever is larger, that the last map may have.
    """
    return max(2, 1 + math.ceil(math.log2(max(shape[1:]) / smallest)))


def attended(
    channels: tuple[int, ...], shape: tuple[int, ...], *, largest: int, head: int
) -> list[tuple[int, int]]:
    """Width and attention heads of every level: no head where the map is larger than `largest`.

    Args:
        channels: Width of each level; a level has half the height and width of the one before.
        shape: Shape (C,H,W) of the items, which are padded to what the last level needs.
        largest: Largest height or width of a map that gets self-attention.
        head: Channels of a head, at least.
    """
    smallest = -(-max(shape[1:]) // 2 ** (len(channels) - 1))
    sides = [smallest * 2**i for i in reversed(range(len(channels)))]
    return [
        (c, heads_by_width(c, head) if side <= largest else 0)
        for c, side in zip(channels, sides, strict=True)
    ]


def silent(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with all its weights at zero, so that it answers zero until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ResidualBlock(nn.Module):
    """shortcut(x) + conv(dropout(silu(film(norm(conv(silu(norm(x)))))))), then attention if asked.

    The last convolution and the attention's projection start at zero, so a new block is its
    shortcut. A block that resizes does so after the first nonlinearity and in the shortcut alike.

    Args:
        enter: Channels of the input.
        leave: Channels of the output; where they differ, the shortcut is a 1x1 convolution.
        width: Width of the vector, which comes in after its nonlinearity.
        dropout: Share of the activations that are dropped before the last convolution.
        scaled: Whether the vector scales and shifts the normalised map (AdaGN, arXiv 2105.05233)
            or is added to it before the norm (arXiv 2006.11239).
        heads: Heads of the self-attention behind the block, 0 for none.
        resize: 0.5 halves height and width by averaging, 2.0 repeats every pixel, 1.0 keeps them.
    """

    def __init__(
        self,
        enter: int,
        leave: int,
        width: int,
        *,
        dropout: float = 0.0,
        scaled: bool = False,
        heads: int = 0,
        resize: float = 1.0,
    ) -> None:
        super().__init__()
        assert resize in {0.5, 1.0, 2.0}
        self.scaled, self.resize = scaled, resize
        self.first_norm = nn.GroupNorm(groups_for(enter), enter)
        self.first = nn.Conv2d(enter, leave, 3, padding=1)
        self.film = nn.Linear(width, 2 * leave if scaled else leave)
        self.second_norm = nn.GroupNorm(groups_for(leave), leave)
        self.dropout = nn.Dropout(dropout)
        self.second = silent(nn.Conv2d(leave, leave, 3, padding=1))
        self.shortcut = nn.Identity() if enter == leave else nn.Conv2d(enter, leave, 1)
        self.attention = SelfAttention2d(leave, heads=heads) if heads else nn.Identity()

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """Maps (B,enter,H,W) and vectors (B,width) to maps (B,leave,resize*H,resize*W)."""
        h = self.first(self._resized(F.silu(self.first_norm(x))))
        film = self.film(vector)[:, :, None, None]
        if self.scaled:
            scale, shift = film.chunk(2, 1)
            h = torch.addcmul(shift, self.second_norm(h), 1.0 + scale)
        else:
            h = self.second_norm(h + film)
        h = self.second(self.dropout(F.silu(h)))
        return self.attention(self.shortcut(self._resized(x)) + h)

    def _resized(self, x: Tensor) -> Tensor:
        if self.resize == 1.0:
            return x
        half = self.resize == 0.5
        return F.avg_pool2d(x, 2) if half else F.interpolate(x, scale_factor=2.0, mode="nearest")


class Halve(nn.Module):
    """Space-to-depth 2 and a 1x1 convolution: a 2x2 convolution of stride 2, nothing thrown away.

    Args:
        enter: Channels of the input.
        leave: Channels of the output, whose height and width are half of the input's.
    """

    def __init__(self, enter: int, leave: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4 * enter, leave, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B,enter,H,W) of even H and W to (B,leave,H/2,W/2)."""
        return self.mix(folded(x, 2))


class Grow(nn.Module):
    """Every pixel repeated 2x2 and a 3x3 convolution: no checkerboard of a transposed one.

    Args:
        enter: Channels of the input.
        leave: Channels of the output, whose height and width are twice those of the input.
    """

    def __init__(self, enter: int, leave: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(enter, leave, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B,enter,H,W) to (B,leave,2H,2W)."""
        return self.mix(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class SkipGate(nn.Module):
    """sigmoid(1x1(relu(W_g g + W_x x))) * x: the way up decides which places of a skip it sees.

    Source: Oktay et al., Attention U-Net, arXiv 1804.03999.

    Args:
        channels: Channels of the skip x and of the map g that asks for it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.of_g = nn.Conv2d(channels, inner, 1)
        self.of_x = nn.Conv2d(channels, inner, 1, bias=False)  # one bias for the sum is enough
        self.weight = nn.Conv2d(inner, 1, 1)

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        """The skip (B,C,H,W), every position of it multiplied by a number in (0, 1)."""
        return torch.sigmoid(self.weight(F.relu(self.of_g(g) + self.of_x(x)))) * x
