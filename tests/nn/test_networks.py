"""What is particular to each network: its skips, its gates, its patches, its one-block formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from steerable.backbones.dit import Dit
from steerable.backbones.mlp import Mlp
from steerable.backbones.score_unet import ScoreUnet
from steerable.backbones.transformer_unet import TransformerUnet
from steerable.core.errors import UserError
from steerable.core.types import Slots
from steerable.nn.biased import BiasedConvolution

from ..truth.worlds import randomised

CHANNELS = (6, 10, 14)


def _draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _inputs_of(layers):
    """Channels that each layer was given, filled in by a call."""
    got = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, inputs: got.append(inputs[0].detach()))
    return got


def _outputs_of(layers):
    got = []
    for layer in layers:
        layer.register_forward_hook(lambda _, __, output: got.append(output.detach()))
    return got


@pytest.mark.parametrize("skips", ["concat", "add"])
@torch.no_grad()
def test_every_level_hands_its_map_over_once(skips):
    """On the way up each layer reads its own map beside (or plus) that of its level going down."""
    net = randomised(ScoreUnet((1, 9, 11), 0, channels=CHANNELS, width=16, skips=skips))
    down = _outputs_of([net.enter, *net.down])
    up = _outputs_of(net.up)
    read = _inputs_of([*net.up, net.leave])
    net(_draw(2, 1, 9, 11), Slots(_draw(2)))
    assert [h.shape[1] for h in down] == list(CHANNELS)
    assert torch.equal(read[0], down[-1]), "the deepest map has no skip"
    for i, (given, own) in enumerate(zip(read[1:], up, strict=True)):
        skip = down[-2 - i]
        own = own[..., : skip.shape[-2], : skip.shape[-1]]
        both = torch.cat([own, skip], 1) if skips == "concat" else own + skip
        assert torch.equal(given, both) and bool(skip.any())


@torch.no_grad()
@pytest.mark.parametrize("side", [8, 14, 16, 28, 32])
def test_the_score_network_sized_for_a_picture_ends_at_maps_that_one_layer_overlooks(side):
    net = ScoreUnet((1, side, side), 0, **ScoreUnet.sized((1, side, side), 12))
    seen = []
    net.down[-1].register_forward_hook(lambda _, __, h: seen.append(h.shape[-1]))
    net(torch.zeros(1, 1, side, side), Slots(torch.zeros(1)))
    assert seen == [2]


def test_the_transformer_network_adds_its_skips_after_reading():
    net = randomised(TransformerUnet((1, 9, 11), 0, channels=CHANNELS, width=16, attention=16))
    assert list(net.read_down) == ["0", "1", "2"] and list(net.read_up) == ["0", "1"]
    down = _outputs_of(net.read_down.values())
    up, read = _outputs_of(net.up), _inputs_of([net.read_up["1"], net.read_up["0"]])
    net(_draw(2, 1, 9, 11), Slots(_draw(2), tokens=_draw(2, 3, 16)))
    for i, given in enumerate(read):
        skip = down[-2 - i]
        own = up[i][..., : skip.shape[-2], : skip.shape[-1]]
        assert torch.allclose(given, skip + own, atol=1e-6)


def test_transformers_sit_on_small_maps_and_always_on_the_smallest():
    def levels(side, attention):
        net = TransformerUnet((1, side, side), 0, channels=(8, 8, 8), width=16, attention=attention)
        return sorted(net.read_down)

    assert levels(28, 7) == ["2"] and levels(28, 14) == ["1", "2"] and levels(28, 0) == ["2"]


@pytest.mark.parametrize("size, side", [("same", 7), ("half", 4), ("double", 14)])
@torch.no_grad()
def test_a_biased_convolution_is_what_it_says(size, side):
    """Convolution, norm over groups of four channels, then the bias, so that it arrives whole."""
    layer = BiasedConvolution(3, 8, 5, size=size)
    x, vector = _draw(2, 3, 7, 7), _draw(2, 5, seed=1)
    got = layer(x, vector)
    assert got.shape == (2, 8, side, side)
    h = layer.convolution(x).reshape(2, 2, 4 * side**2)
    mean, var = h.mean(2, keepdim=True), h.var(2, keepdim=True, unbiased=False)
    h = ((h - mean) / torch.sqrt(var + 1e-5)).reshape(got.shape)
    h = h + (vector @ layer.bias.weight.T + layer.bias.bias)[:, :, None, None]
    assert float((got - h / (1 + torch.exp(-h))).abs().max()) < 1e-5


@torch.no_grad()
def test_gates_that_start_at_zero_make_every_block_the_identity():
    net = Dit((2, 12, 12), 0, width=32, depth=3)
    rows, vector = _draw(2, 9, 32), _draw(2, 32, seed=1)
    for block in net.blocks:
        assert torch.equal(block(rows, vector, None), rows)
    with torch.no_grad():
        net.blocks[0].modulation.bias[2 * 32 : 3 * 32] = 1.0
    assert not torch.equal(net.blocks[0](rows, vector, None), rows), "the attention is not zero"


@torch.no_grad()
def test_a_block_of_the_transformer_by_hand():
    net = randomised(Dit((1, 8, 8), 0, width=32, depth=1, heads=2), scale=0.3)
    block, rows, vector = net.blocks[0], _draw(2, 9, 32), _draw(2, 32, seed=1)
    told = vector @ block.modulation.weight.T + block.modulation.bias
    shift, scale, gate, shift2, scale2, gate2 = told[:, None].split(32, -1)

    def normal(v):
        return (v - v.mean(-1, keepdim=True)) / torch.sqrt(
            v.var(-1, keepdim=True, unbiased=False) + 1e-6
        )

    want = rows + gate * block.attention(normal(rows) * (1 + scale) + shift)
    want = want + gate2 * block.feed(normal(want) * (1 + scale2) + shift2)
    assert float((block(rows, vector, None) - want).abs().max()) < 1e-4


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 1), (9, 16)])
@pytest.mark.parametrize("patch", [1, 2, 4])
@torch.no_grad()
def test_patches_are_cut_and_put_back_in_place(patch, size):
    """With blocks that do nothing and inverse layers at both ends the network is the identity.

    Only the last norm stands in the way, so rows of mean 0 and variance 1 are made to meet it.
    """
    channels = 2
    numbers = channels * patch**2
    net = Dit((channels, *size), 0, patch=patch, width=64, depth=1, heads=1)
    net.enter.bias.zero_()
    cut = []
    net.enter.register_forward_hook(lambda _, inputs, __: cut.append(inputs[0]))
    x = _draw(2, channels, *size)
    net(x, Slots(_draw(2)))
    across = -(-size[1] // patch)
    want = torch.zeros_like(x)
    for c in range(channels):
        for y in range(size[0]):
            for z in range(size[1]):
                row = (y // patch) * across + z // patch
                place = c * patch**2 + (y % patch) * patch + z % patch
                want[:, c, y, z] = cut[0][:, row, place]
    assert cut[0].shape[-1] == numbers and torch.equal(want, x)
    # The way back: the answer of the last layer is laid out as the patches were cut.
    net.leave = nn.Identity()
    net.leave.register_forward_hook(lambda *_: cut[0])
    assert torch.equal(net(x, Slots(_draw(2))), x)


@torch.no_grad()
def test_tokens_stand_behind_the_patches_and_hide_nothing():
    """The answer is read from the patches, and a mask of tokens leaves all patches in view."""
    net = Dit((1, 8, 8), 0, width=32, depth=2)
    x, level, tokens = _draw(3, 1, 8, 8), _draw(3), _draw(3, 4, 32, seed=1)
    net.leave.weight.normal_()
    still = net(x, Slots(level, tokens=tokens))
    assert torch.equal(still, net(x, Slots(level))), "with silent blocks the tokens are not heard"
    randomised(net)
    heard = net(x, Slots(level, tokens=tokens))
    whole = net(x, Slots(level, tokens=tokens, mask=torch.ones(3, 4, dtype=torch.bool)))
    assert float((whole - heard).abs().max()) < 1e-5 * float(heard.abs().max())
    moved = x.clone()
    moved[..., 0, 0] += 2.0
    slots = Slots(level, tokens=tokens, mask=torch.arange(4).expand(3, 4) < 2)
    assert float((net(moved, slots) - net(x, slots))[..., -1, -1].abs().min()) > 1e-5


def test_patch_of_a_size():
    sides = {8: 2, 16: 2, 28: 4, 64: 4, 128: 8, 256: 16}
    assert {side: Dit((1, side, side), 0, width=16, depth=1).patch for side in sides} == sides


def test_without_tokens_the_transformer_has_no_idle_parameter():
    net = randomised(Dit((1, 8, 8), 0, width=32, depth=2))
    net(_draw(2, 1, 8, 8), Slots(_draw(2))).square().sum().backward()
    assert all(bool(p.grad.any()) for p in net.parameters())


@torch.no_grad()
def test_one_block_of_the_mlp_by_hand():
    net = randomised(Mlp((2, 3), hidden=8, blocks=1, width=16))
    x, vector = _draw(3, 2, 3), _draw(3, 16, seed=1)
    level = torch.tensor([-1.0, 0.0, 2.0])

    def silu(v):
        return v / (1 + torch.exp(-v))

    def normal(v, norm):
        centred = v - v.mean(-1, keepdim=True)
        unit = centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
        return unit * norm.weight + norm.bias

    def linear(v, layer):
        return v @ layer.weight.T + layer.bias

    block, flat = net.blocks[0], x.reshape(3, 6)
    c = silu(net.level(level) + vector)
    h = linear(flat, net.enter)
    film = linear(c, block.film)
    inner = linear(normal(h, block.norm), block.first) * (1 + film[:, :8]) + film[:, 8:]
    h = h + linear(silu(inner), block.second)
    want = linear(silu(normal(h, net.last_norm)), net.leave) + linear(c, net.gain) * flat
    got = net(x, Slots(level, vector=vector))
    assert float((got - want.reshape(x.shape)).abs().max()) < 1e-5
    assert float(want.abs().max()) > 0.05


@pytest.mark.parametrize("shape", [(2,), (64, 3), (1, 8, 8), (2, 3, 4, 5)])
def test_the_mlp_takes_items_of_any_kind_but_of_one_shape(shape):
    net = randomised(Mlp(shape, hidden=16, blocks=2, width=16))
    x = _draw(3, *shape)
    got = net(x, Slots(_draw(3)))
    assert got.shape == x.shape and bool((got != 0).all())
    with pytest.raises(UserError) as caught:
        net(_draw(3, *shape, 2), Slots(_draw(3)))
    assert caught.value.code == "E-SHAPE"


def test_the_gain_passes_on_what_the_hidden_layer_cannot_hold():
    """White noise of 64 numbers through 8 hidden ones: the answer x is learned only by the gain."""
    net = Mlp((64,), hidden=8, blocks=1, width=16)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for i in range(150):
        x = _draw(64, 64, seed=i)
        loss = (net(x, Slots(torch.zeros(64))) - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    # A linear map of rank 8 leaves 56 / 64 of the variance.
    assert float(loss.detach()) < 0.1 * 56 / 64


SMALL = {
    "score_unet": lambda: ScoreUnet((1, 16, 16), 1, channels=(8, 16, 16), width=16),
    "transformer_unet": lambda: TransformerUnet((1, 16, 16), 1, channels=(8, 16, 16), width=16),
    "mlp": lambda: Mlp((1, 16, 16), hidden=32, blocks=2, width=16),
    "dit": lambda: Dit((1, 16, 16), 1, width=32, depth=2),
}


@pytest.mark.parametrize("kind", SMALL)
def test_from_its_own_start_every_parameter_learns_within_four_steps(kind):
    """Two zeros in a row would keep each other at zero; random weights do not show it."""
    net = SMALL[kind]()
    reads = "tokens" in net.accepts
    slots = Slots(
        _draw(4),
        vector=_draw(4, net.width, seed=1),
        tokens=_draw(4, 3, net.width, seed=2) if reads else None,
        planes=_draw(4, 1, 16, 16, seed=3) if "planes" in net.accepts else None,
    )
    x = _draw(4, 1, 16, 16, seed=4)
    idle = {name for name, _ in net.named_parameters()}
    optimiser = torch.optim.SGD(net.parameters(), lr=0.3)
    for _ in range(4):
        optimiser.zero_grad()
        (net(x, slots) - x.sin()).square().mean().backward()
        optimiser.step()
        idle -= {name for name, p in net.named_parameters() if bool(p.grad.any())}
    assert not idle and math.isfinite(float(net(x, slots).detach().sum()))
