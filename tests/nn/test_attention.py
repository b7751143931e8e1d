"""Attention against its formula, written down a second time; masks, maps and gradients."""

from __future__ import annotations

import math

import pytest
import torch

from steerable.backbones.dit import Dit
from steerable.backbones.transformer_unet import TransformerUnet
from steerable.backbones.unet import Unet
from steerable.core.errors import UserError
from steerable.core.types import Slots
from steerable.nn.attention import (
    Attention,
    SelfAttention2d,
    SpatialTransformer,
    Weighing,
    heads_for,
    maps,
)

from ..truth.worlds import randomised

B, N, L, D, WIDTH = 3, 7, 5, 6, 16


def _rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _mask():
    """The first 5, 3 and 1 tokens of three prompts count."""
    return torch.arange(L) < torch.tensor([5, 3, 1])[:, None]


def by_hand(attention, rows, context, mask=None):
    """Item by item, head by head, query by query, in float64; also the weights."""
    state = {name: value.double() for name, value in attention.state_dict().items()}
    size = WIDTH // attention.heads
    outs, weights = [], torch.zeros(len(rows), attention.heads, rows.shape[1], context.shape[1])
    for b in range(len(rows)):
        keys = [j for j in range(context.shape[1]) if mask is None or mask[b, j]]
        query = rows[b].double() @ state["query.weight"].T + state["query.bias"]
        key = context[b].double() @ state["key.weight"].T
        value = context[b].double() @ state["value.weight"].T + state["value.bias"]
        mixed = torch.zeros(rows.shape[1], WIDTH, dtype=torch.float64)
        for head in range(attention.heads):
            part = slice(head * size, (head + 1) * size)
            for i in range(rows.shape[1]):
                scores = [float(query[i, part] @ key[j, part]) / math.sqrt(size) for j in keys]
                powers = [math.exp(score - max(scores)) for score in scores]
                for j, power in zip(keys, powers, strict=True):
                    weights[b, head, i, j] = power / sum(powers)
                    mixed[i, part] += power / sum(powers) * value[j, part]
        outs.append(mixed @ state["out.weight"].T + state["out.bias"])
    return torch.stack(outs), weights


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("heads", [1, 4])
@torch.no_grad()
def test_fused_equals_eager_equals_the_formula(heads, masked):
    attention = Attention(WIDTH, heads=heads, context=D, zero=False)
    rows, context = _rows(B, N, WIDTH), _rows(B, L, D, seed=1)
    mask = _mask() if masked else None
    want, weights = by_hand(attention, rows, context, mask)
    fused = attention(rows, context, mask)
    with maps(attention) as seen:
        eager = attention(rows, context, mask)
    assert float((fused - want).abs().max()) < 1e-5
    assert float((eager - want).abs().max()) < 1e-5
    assert float((seen[""][0] - weights).abs().max()) < 1e-5
    assert float(want.abs().max()) > 0.1, "the comparison is not one of zeros"


@pytest.mark.parametrize("heads", [1, 4])
@torch.no_grad()
def test_self_attention_is_attention_to_the_rows_themselves(heads):
    attention = Attention(WIDTH, heads=heads, zero=False)
    rows = _rows(B, N, WIDTH)
    want, _ = by_hand(attention, rows, rows)
    assert float((attention(rows) - want).abs().max()) < 1e-5


@pytest.mark.parametrize("heads", [1, 4])
@torch.no_grad()
def test_the_block_of_stored_models_is_the_same_attention(heads):
    """x + attention(norm(x)) with the three projections stacked in one matrix, eager or not."""
    block = randomised(SelfAttention2d(WIDTH, heads=heads))
    other = Attention(WIDTH, heads=heads, zero=False)
    with torch.no_grad():
        block.qkv.bias[WIDTH : 2 * WIDTH] = 0.0
    state = block.state_dict()
    assert set(state) == {
        f"{layer}.{kind}" for layer in ("norm", "qkv", "out") for kind in ("weight", "bias")
    }
    query, key, value = state["qkv.weight"].chunk(3)
    bias = state["qkv.bias"].chunk(3)
    other.load_state_dict(
        {
            **{"query.weight": query, "key.weight": key, "value.weight": value},
            **{"query.bias": bias[0], "value.bias": bias[2]},
            **{"out.weight": state["out.weight"], "out.bias": state["out.bias"]},
        }
    )
    x = _rows(B, WIDTH, 3, 4)
    rows = block.norm(x).flatten(2).mT
    want, _ = by_hand(other, rows, rows)
    want = x + want.mT.reshape(x.shape)
    eager = SelfAttention2d(WIDTH, heads=heads, eager=True)
    eager.load_state_dict(state)
    assert float((block(x) - want).abs().max()) < 1e-5
    assert float((eager(x) - want).abs().max()) < 1e-5


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("normed", [False, True])
@torch.no_grad()
def test_padding_tokens_change_nothing(eager, normed):
    attention = Attention(WIDTH, heads=4, context=D, eager=eager, normed=normed, zero=False)
    rows, context, mask = _rows(B, N, WIDTH), _rows(B, L, D, seed=1), _mask()
    junk = torch.cat([context, 50.0 * _rows(B, 4, D, seed=2)], 1)
    more = torch.cat([mask, torch.zeros(B, 4, dtype=torch.bool)], 1)
    assert float((attention(rows, junk, more) - attention(rows, context, mask)).abs().max()) < 1e-6
    alone = attention(rows[1:2], context[1:2, :3])
    assert float((attention(rows, context, mask)[1:2] - alone).abs().max()) < 1e-6


@pytest.mark.parametrize("eager", [False, True])
def test_queries_and_keys_learn_from_two_tokens_and_not_from_one(eager):
    """A softmax over one key is 1, whatever the query: that is a bias, not attention."""

    def gradients(tokens):
        torch.manual_seed(0)
        attention = Attention(WIDTH, heads=4, context=D, eager=eager, zero=False)
        attention(_rows(B, N, WIDTH), _rows(B, tokens, D, seed=1)).square().sum().backward()
        return [float(layer.weight.grad.norm()) for layer in (attention.query, attention.key)]

    assert min(gradients(2)) > 1e-6
    # The fused kernel forms (dO . V) and (dO . O) separately: equal but for their rounding.
    assert max(gradients(1)) <= (0.0 if eager else 1e-5)


@torch.no_grad()
def test_unit_queries_and_keys_bound_the_scores():
    """With unit gains |q . k| / sqrt(d) <= sqrt(d), however large the rows are."""
    attention = Attention(WIDTH, heads=4, context=D, normed=True)
    context = 1e3 * _rows(B, L, D, seed=1)
    with maps(attention) as seen:
        attention(1e3 * _rows(B, N, WIDTH), context)
    ratio = seen[""][0].amax(-1) / seen[""][0].amin(-1)
    assert float(ratio.max()) <= math.exp(2 * math.sqrt(WIDTH / 4)) * (1 + 1e-4)


@pytest.mark.parametrize("position", [False, True])
@torch.no_grad()
def test_positions_are_a_set_unless_they_are_told_their_place(position):
    block = SpatialTransformer(WIDTH, context=D, heads=4, position=position)
    randomised(block, scale=0.5)
    x, tokens = _rows(B, WIDTH, 3, 4), _rows(B, L, D, seed=1)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    moved = x.flatten(2)[..., order].reshape(x.shape)
    first = block(x, tokens).flatten(2)[..., order]
    second = block(moved, tokens).flatten(2)
    assert (float((first - second).abs().max()) < 1e-5) == (not position)


def test_a_new_block_is_the_identity_and_no_tokens_leave_the_cross_attention_out():
    block = SpatialTransformer(WIDTH, context=D, heads=4)
    x, tokens = _rows(B, WIDTH, 3, 4), _rows(B, L, D, seed=1)
    assert torch.equal(block(x, tokens), x)
    randomised(block)
    without = block(x)
    with torch.no_grad():
        block.cross_attention.out.weight.zero_()
        block.cross_attention.out.bias.zero_()
    assert torch.equal(block(x, tokens), without)


def test_heads():
    assert [heads_for(c) for c in (1, 16, 32, 48, 64, 96, 192)] == [1, 1, 1, 1, 2, 3, 6]
    assert heads_for(48, 4) == 4
    with pytest.raises(UserError) as caught:
        heads_for(48, 5)
    assert caught.value.code == "E-LIMIT"


def _backbones():
    """Backbone, and for each of its attentions the number of queries and keys at 12 x 12 pixels."""
    unet = TransformerUnet((1, 12, 12), 0, channels=(8, 16, 16), attention=6, width=16)
    yield unet, {(36, 36), (36, L), (9, 9), (9, L)}
    yield Dit((1, 12, 12), 0, width=32, depth=2, heads=4), {(36 + L, 36 + L)}


@pytest.mark.parametrize("backbone, sizes", list(_backbones()), ids=["transformer_unet", "dit"])
@torch.no_grad()
def test_maps_of_a_backbone(backbone, sizes):
    randomised(backbone, scale=0.3)
    slots = Slots(_rows(B), tokens=_rows(B, L, backbone.width, seed=1), mask=_mask())
    x = _rows(B, 1, 12, 12)
    before = backbone(x, slots)
    with maps(backbone) as seen:
        during = backbone(x, slots)
        backbone(x, slots)
    assert torch.equal(backbone(x, slots), before) and torch.allclose(during, before, atol=1e-5)
    assert len(seen) == sum(isinstance(m, Weighing) for m in backbone.modules())
    assert {tuple(weights[0].shape[2:]) for weights in seen.values()} == sizes
    for name, (weights, again) in seen.items():
        assert backbone.get_submodule(name).heads == weights.shape[1]
        assert torch.equal(weights, again) and not weights.requires_grad
        assert float((weights.sum(-1) - 1).abs().max()) < 1e-5
        if weights.shape[-1] != weights.shape[-2] or isinstance(backbone, Dit):  # reads tokens
            of_tokens = weights[..., -L:]
            assert float(of_tokens[0].std(-1).max()) > 1e-4, "the same for every token"
            assert float(of_tokens[0].std(-2).max()) > 1e-4, "the same at every position"
            hidden = ~_mask()[:, None, None].expand_as(of_tokens)
            assert not bool(of_tokens[hidden].any()), "padding is looked at"


def test_maps_end_with_an_error_too():
    net = Unet((1, 8, 8), 0)
    with pytest.raises(RuntimeError, match="ours"), maps(net) as seen:
        net(_rows(2, 1, 8, 8), Slots(_rows(2)))
        raise RuntimeError("ours")
    assert [weights[0].shape[2:] for weights in seen.values()] == [(16, 16)]
    (weighing,) = (m for m in net.modules() if isinstance(m, Weighing))
    assert not weighing.eager
    weighing.eager = True
    net(_rows(2, 1, 8, 8), Slots(_rows(2)))
    assert [len(weights) for weights in seen.values()] == [1], "the hook is still there"
