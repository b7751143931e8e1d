"""Multi-head attention among the positions of a feature map, and from positions to tokens."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from steerable.core.errors import UserError

from .embeddings import grid_code

__all__ = [
    "Attention", "SelfAttention2d", "SpatialTransformer", "Weighing", "heads_by_width", "heads_for",
    "maps",
]  # fmt: skip


def heads_by_width(channels: int, head: int) -> int:
    """Heads of an attention over `channels`: as many as leave each at least `head` wide, or one."""
    return max(h for h in range(1, max(1, channels // head) + 1) if channels % h == 0)


def heads_for(channels: int, heads: int = 0) -> int:
    """The number of heads asked for, or for 0 about one head for 32 channels.

    Raises:
        UserError: E-LIMIT if the channels cannot be shared out evenly.
    """
    if not heads:
        return heads_by_width(channels, 32)
    if channels % heads:
        takes = f"a divisor of the {channels} channels, or 0"
        raise UserError("E-LIMIT", where="heads", got=str(heads), takes=takes)
    return heads


class Weighing(nn.Module):
    """softmax(Q K^T / sqrt(d) + mask) V for every head; it has no parameters.

    Args:
        eager: Step by step with the softmax as a module, whose hooks see the attention maps and
            which tools that prune or export can take apart; else in one fused call.
    """

    def __init__(self, *, eager: bool = False) -> None:
        super().__init__()
        self.eager = eager
        self.softmax = nn.Softmax(-1)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Query (B,heads,N,d), key and value (B,heads,L,d), mask (B,L) -> (B,heads,N,d).

        The mask is true where a key counts, at least once for each item.
        """
        counts = None if mask is None else mask[:, None, None, :]
        if not self.eager:
            return F.scaled_dot_product_attention(query, key, value, attn_mask=counts)
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        if counts is not None:
            scores = scores.masked_fill(~counts, -math.inf)
        return self.softmax(scores) @ value


class Attention(nn.Module):
    """projection(attention(rows)), of rows among themselves or from rows to a context.

    Args:
        width: Width of the rows, a multiple of `heads`.
        heads: Number of attention heads.
        context: Width of the context that keys and values are made of; None: the rows.
        eager: See `Weighing`.
        normed: Whether queries and keys are brought to unit size before they meet, with a learned
            gain, which bounds the scores. Source: arXiv 2302.05442, section 2.
        zero: Whether the projection starts at zero, so that a residual branch is silent. It must
            not where a gate that starts at zero follows: neither of two zeros gets a gradient.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        context: int | None = None,
        eager: bool = False,
        normed: bool = False,
        zero: bool = True,
    ) -> None:
        super().__init__()
        assert width % heads == 0, "the heads share the width evenly"
        source = width if context is None else context
        self.heads = heads
        self.query = nn.Linear(width, width)
        # A bias here would add the same number to every score of a query, which a softmax ignores.
        self.key = nn.Linear(source, width, bias=False)
        self.value = nn.Linear(source, width)
        self.query_norm = nn.RMSNorm(width // heads, eps=1e-6) if normed else nn.Identity()
        self.key_norm = nn.RMSNorm(width // heads, eps=1e-6) if normed else nn.Identity()
        self.weighing = Weighing(eager=eager)
        self.out = nn.Linear(width, width)
        if zero:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(
        self, rows: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Rows (B,N,width), context (B,L,D), mask (B,L) of the keys -> (B,N,width)."""
        source = rows if context is None else context
        query = self.query_norm(self._split(self.query(rows)))
        key = self.key_norm(self._split(self.key(source)))
        mixed = self.weighing(query, key, self._split(self.value(source)), mask)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class SelfAttention2d(nn.Module):
    """x + projection(attention(norm(x))) over the H*W positions of x (B,C,H,W).

    The projection starts at zero, so a new block is the identity.

    Args:
        channels: C, a multiple of `heads` and of the norm's groups.
        heads: Number of attention heads.
        eager: See `Weighing`.
    """

    def __init__(self, channels: int, *, heads: int, eager: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(1, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.weighing = Weighing(eager=eager)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map of the same shape."""
        b, c, h, w = x.shape
        rows = self.norm(x).permute(0, 2, 3, 1).reshape(b, h * w, c)
        qkv = self.qkv(rows).reshape(b, h * w, 3, self.heads, c // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = self.weighing(query, key, value)
        rows = self.out(mixed.transpose(1, 2).reshape(b, h * w, c))
        return x + rows.reshape(b, h, w, c).permute(0, 3, 1, 2)


class SpatialTransformer(nn.Module):
    """Positions attend to each other, then to the tokens, then a feed-forward network.

    Each of the three is one residual branch, rows + branch(norm(rows)), whose last projection
    starts at zero, so a new block is the identity. Without tokens the second one is left out.

    Args:
        channels: Width of the feature map, a multiple of `heads`.
        context: Width of the tokens.
        heads: Number of attention heads.
        eager: See `Weighing`.
        position: Whether the attentions are told where a position lies.
    """

    def __init__(
        self, channels: int, *, context: int, heads: int, eager: bool = False, position: bool = True
    ) -> None:
        super().__init__()
        self.position = position
        self.self_norm = nn.LayerNorm(channels)
        self.self_attention = Attention(channels, heads=heads, eager=eager)
        self.cross_norm = nn.LayerNorm(channels)
        self.cross_attention = Attention(channels, heads=heads, context=context, eager=eager)
        self.feed_norm = nn.LayerNorm(channels)
        # Three times the width. Source: the transformer blocks of tutorial score networks.
        self.feed = nn.Sequential(
            nn.Linear(channels, 3 * channels), nn.GELU(), nn.Linear(3 * channels, channels)
        )
        nn.init.zeros_(self.feed[2].weight)
        nn.init.zeros_(self.feed[2].bias)

    def forward(
        self, x: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Map x (B,C,H,W), tokens (B,L,context), mask (B,L) -> (B,C,H,W)."""
        height, width = x.shape[-2:]
        rows = x.flatten(2).mT
        # The code goes into the branches only: the stream itself stays the feature map's.
        code = grid_code(height, width, x.shape[1]).to(x) if self.position else 0.0
        rows = rows + self.self_attention(self.self_norm(rows) + code)
        if tokens is not None:
            rows = rows + self.cross_attention(self.cross_norm(rows) + code, tokens, mask)
        rows = rows + self.feed(self.feed_norm(rows))
        return rows.mT.unflatten(2, (height, width))


@contextlib.contextmanager
def maps(net: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Attention maps of every call of `net` inside the `with` block.

    The value is filled during the calls: the name of an attention -> one map (B,heads,N,L) for
    each time it ran, in order, whose rows sum to 1. Positions are numbered row by row of the
    feature map. The attentions run eagerly meanwhile and as they were before afterwards, also
    after an error. Not for a network that another thread uses at the same time.
    """
    owners = {n: m for n, m in net.named_modules() if isinstance(m, Weighing)}
    before = {name: weighing.eager for name, weighing in owners.items()}
    recorded: dict[str, list[Tensor]] = {}
    handles = []
    try:
        for name, weighing in owners.items():
            weighing.eager = True
            keep = functools.partial(_keep, recorded, name.rpartition(".")[0])
            handles.append(weighing.softmax.register_forward_hook(keep))
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
        for name, weighing in owners.items():
            weighing.eager = before[name]


def _keep(
    recorded: dict[str, list[Tensor]], name: str, _: nn.Module, __: tuple[Tensor], weights: Tensor
) -> None:
    recorded.setdefault(name, []).append(weights.detach())
