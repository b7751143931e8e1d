"""The pieces of the convolutional U-Nets against the same formulae written out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from steerable.core.errors import UserError
from steerable.nn.attention import heads_by_width
from steerable.nn.blocks import (
    Grow,
    Halve,
    ResidualBlock,
    SkipGate,
    attended,
    checked,
    groups_for,
    levels_for,
)
from steerable.nn.embeddings import LevelEmbedding

from ..truth.worlds import randomised

F64 = torch.float64


def _draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def _normed(x, groups, weight, bias):
    """Group normalisation from its definition."""
    rows = x.unflatten(1, (groups, -1)).flatten(2)
    rows = (rows - rows.mean(2, keepdim=True)) / (
        rows.var(2, keepdim=True, correction=0) + 1e-5
    ) ** 0.5
    return rows.view_as(x) * weight[:, None, None] + bias[:, None, None]


def _silu(x):
    return x / (1 + torch.exp(-x))


def test_space_to_depth_keeps_every_pixel_in_a_fixed_order():
    """Channel 4c + 2dy + dx of place (i, j) is channel c of pixel (2i + dy, 2j + dx)."""
    c, y, x = torch.meshgrid(torch.arange(3), torch.arange(4), torch.arange(6), indexing="ij")
    picture = (100 * c + 10 * y + x).to(F64)[None]
    halve = Halve(3, 12).to(F64)
    with torch.no_grad():
        halve.mix.weight.copy_(torch.eye(12)[:, :, None, None])
        halve.mix.bias.zero_()
        got = halve(picture)
    for channel in range(3):
        for dy in range(2):
            for dx in range(2):
                want = picture[:, channel, dy::2, dx::2]
                assert torch.equal(got[:, 4 * channel + 2 * dy + dx], want)


@torch.no_grad()
def test_halving_is_a_strided_convolution():
    halve, x = Halve(3, 5).to(F64), _draw(2, 3, 6, 8)
    kernel = halve.mix.weight.reshape(5, 3, 2, 2)
    want = nn.functional.conv2d(x, kernel, halve.mix.bias, stride=2)
    assert torch.allclose(halve(x), want, atol=1e-12)


@torch.no_grad()
def test_growing_repeats_pixels_before_it_mixes():
    """With the centre tap alone every pixel becomes a 2x2 square of itself."""
    grow, x = Grow(3, 3).to(F64), _draw(2, 3, 4, 5)
    grow.mix.weight.zero_()
    grow.mix.weight[:, :, 1, 1] = torch.eye(3)
    grow.mix.bias.zero_()
    assert torch.equal(grow(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


@torch.no_grad()
def test_gate_is_the_formula_and_lies_between_zero_and_one():
    gate, g, x = SkipGate(6).to(F64), _draw(2, 6, 4, 5), _draw(2, 6, 4, 5, seed=1)
    of_g = torch.einsum("oc,bchw->bohw", gate.of_g.weight[..., 0, 0], g)
    of_x = torch.einsum("oc,bchw->bohw", gate.of_x.weight[..., 0, 0], x)
    inner = (of_g + of_x + gate.of_g.bias[:, None, None]).clamp(min=0)
    score = torch.einsum("oc,bchw->bohw", gate.weight.weight[..., 0, 0], inner) + gate.weight.bias
    share = 1 / (1 + torch.exp(-score))
    got = gate(g, x)
    assert torch.allclose(got, share * x, atol=1e-12)
    ratio = got / x
    assert float(ratio.min()) > 0 and float(ratio.max()) < 1
    assert torch.allclose(ratio, ratio[:, :1], atol=1e-9), "one number for all channels of a place"
    assert float(ratio[:, 0].std()) > 0.01, "the gate does not look at its input"
    assert not torch.allclose(gate(-g, x), got), "the way up has no say"


@pytest.mark.parametrize("gain", [-30.0, 30.0])
@torch.no_grad()
def test_gate_shuts_and_opens(gain):
    gate, x = SkipGate(4).to(F64), _draw(1, 4, 3, 3)
    gate.weight.weight.zero_()
    gate.weight.bias.fill_(gain)
    want = x if gain > 0 else torch.zeros_like(x)
    assert torch.allclose(gate(x, x), want, atol=1e-11)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("enter", "leave"), [(8, 8), (12, 8)])
@torch.no_grad()
def test_residual_block_is_the_formula(enter, leave, scaled):
    block = randomised(ResidualBlock(enter, leave, 5, scaled=scaled), scale=0.5).to(F64)
    x, vector = _draw(2, enter, 6, 7), _draw(2, 5, seed=1)
    p = dict(block.named_parameters())

    def convolved(name, h):
        return nn.functional.conv2d(h, p[f"{name}.weight"], p[f"{name}.bias"], padding=1)

    def normed(name, h, channels):
        return _normed(h, groups_for(channels), p[f"{name}.weight"], p[f"{name}.bias"])

    h = convolved("first", _silu(normed("first_norm", x, enter)))
    film = (vector @ p["film.weight"].T + p["film.bias"])[:, :, None, None]
    if scaled:
        h = normed("second_norm", h, leave) * (1 + film[:, :leave]) + film[:, leave:]
    else:
        h = normed("second_norm", h + film, leave)
    want = convolved("second", _silu(h))
    if enter == leave:
        want = want + x
    else:
        mixed = torch.einsum("oc,bchw->bohw", p["shortcut.weight"][..., 0, 0], x)
        want = want + mixed + p["shortcut.bias"][:, None, None]
    assert torch.allclose(block(x, vector), want, atol=1e-10)


@pytest.mark.parametrize("heads", [0, 2])
@torch.no_grad()
def test_a_new_block_is_its_shortcut_at_every_scale(heads):
    """Means of 2x2 on the way down, copies on the way up, nothing else before training."""
    x, vector = _draw(2, 8, 6, 4), _draw(2, 5)
    same, down, up = (
        ResidualBlock(8, 8, 5, heads=heads, resize=r).to(F64)(x, vector) for r in (1.0, 0.5, 2.0)
    )
    assert torch.equal(same, x)
    means = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    assert torch.allclose(down, means, atol=1e-12)
    assert torch.equal(up, x.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize("scaled", [False, True])
@torch.no_grad()
def test_a_block_that_halves_does_so_before_its_first_convolution(scaled):
    block = randomised(ResidualBlock(8, 8, 5, scaled=scaled, resize=0.5), scale=0.5).to(F64)
    seen = []
    block.first.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0]))
    x = _draw(1, 8, 6, 4)
    block(x, _draw(1, 5))
    normed = _normed(x, groups_for(8), block.first_norm.weight, block.first_norm.bias)
    assert torch.allclose(seen[0], nn.functional.avg_pool2d(_silu(normed), 2), atol=1e-12)


@pytest.mark.parametrize("channels", [2, 3, 4, 6, 7, 8, 12, 32, 48, 64, 96, 128, 192, 256])
@torch.no_grad()
def test_no_width_makes_the_norm_forget_the_vector(channels):
    """Added before a norm of one channel a group, the vector would be subtracted again."""
    groups = groups_for(channels)
    assert channels % groups == 0 and channels // groups >= 2 and groups <= 32
    block = randomised(ResidualBlock(channels, channels, 5)).to(F64)
    x = _draw(1, channels, 4, 4)
    change = block(x, _draw(1, 5, seed=1)) - block(x, _draw(1, 5, seed=2))
    assert float(change.abs().max()) > 1e-3


def test_published_groups_and_heads():
    """32 groups from 128 channels on; heads of 64 channels as in arXiv 2105.05233."""
    assert [groups_for(c) for c in (128, 192, 256, 384, 576, 768)] == [32] * 6
    assert [heads_by_width(c, 64) for c in (192, 384, 576, 768)] == [3, 6, 9, 12]
    assert [heads_by_width(c, 64) for c in (2, 48, 65, 96, 128, 144)] == [1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("shape", "largest", "want"),
    [
        ((1, 28, 28), 14, [0, 1, 2]),
        ((1, 28, 28), 13, [0, 0, 2]),
        ((1, 28, 28), 28, [1, 1, 2]),
        ((3, 20, 30), 16, [0, 1, 2]),  # padded to 20 x 32
        ((3, 30, 20), 15, [0, 0, 2]),
        ((3, 64, 64), 0, [0, 0, 0]),
    ],
)
def test_attention_stands_on_maps_up_to_a_size(shape, largest, want):
    levels = attended((32, 64, 128), shape, largest=largest, head=64)
    assert [heads for _, heads in levels] == want
    assert [width for width, _ in levels] == [32, 64, 128]


@pytest.mark.parametrize("side", [1, 2, 7, 8, 9, 16, 17, 28, 32, 33, 48, 64, 65, 100, 128])
def test_levels_are_the_fewest_that_reach_a_small_map(side):
    for shape in ((1, side, 1), (3, 1, side)):
        levels = levels_for(shape)
        assert math.ceil(side / 2 ** (levels - 1)) <= 8
        assert levels == 2 or math.ceil(side / 2 ** (levels - 2)) > 8


@pytest.mark.parametrize("channels", [(), (0,), (32, 1), (-4, 8)])
def test_widths_that_cannot_be_normalised_are_refused(channels):
    with pytest.raises(UserError, match="channels"):
        checked(channels)


@torch.no_grad()
def test_levels_lie_apart_by_the_sum_of_their_beats():
    """Squared distance of two embedded levels: 4 sum_k (1 - cos(w_k d)), of their gap d alone."""
    embedding, seen = LevelEmbedding(16).to(F64), []
    embedding.net[0].register_forward_hook(lambda m, inputs, out: seen.append(inputs[0]))
    level = torch.linspace(-9.0, 9.0, 181, dtype=F64)
    embedding(level)
    k = torch.arange(32, dtype=F64)
    rates = 2.0 ** (-4 + 6 * k / 31)
    gap = (level[:, None] - level).abs()
    want = 4 * (1 - torch.cos(rates * gap[..., None])).sum(-1)
    got = torch.cdist(seen[0], seen[0], compute_mode="donot_use_mm_for_euclid_dist").square()
    assert torch.allclose(got, want, atol=1e-9)
    assert float(want[gap > 0.05].sqrt().min()) > 0.5, "levels 0.1 apart are told apart"
    apart = want[gap > 2].sqrt()
    assert float(apart.min()) > 0.5 * float(apart.max()), "no two distant levels look alike"
