"""The convolutional U-Nets: what reaches what, which map goes where, and how large they are."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steerable.backbones.adm import Adm
from steerable.backbones.conditional_unet import ConditionalUnet
from steerable.backbones.convnext_unet import ConvnextUnet
from steerable.core.errors import UserError
from steerable.core.types import Slots
from steerable.nn.attention import SelfAttention2d
from steerable.nn.blocks import ResidualBlock, SkipGate

from ..mutants import altered
from ..truth.worlds import randomised

F64 = torch.float64
BUILDS = {
    "conditional_unet": (ConditionalUnet, {"channels": (8, 12, 16), "width": 24}),
    "conditional_unet, 2 blocks": (
        ConditionalUnet,
        {"channels": (8, 12, 16), "width": 24, "blocks": 2},
    ),
    "convnext_unet": (ConvnextUnet, {"channels": (8, 12, 16), "width": 24}),
    "convnext_unet, 1 residual": (
        ConvnextUnet,
        {"channels": (8, 12, 16), "width": 24, "residuals": 1},
    ),
    "convnext_unet, gates": (ConvnextUnet, {"channels": (8, 12, 16), "width": 24, "gates": True}),
    "convnext_unet, dense": (
        ConvnextUnet,
        {"channels": (8, 12, 16), "width": 24, "pointwise": False},
    ),
    "adm": (Adm, {"channels": (8, 12, 16), "width": 24}),
    "adm, 1 block": (Adm, {"channels": (8, 12, 16), "width": 24, "blocks": 1}),
}
KINDS = (ConditionalUnet, ConvnextUnet, Adm)
each_build = pytest.mark.parametrize("build", BUILDS)
each_kind = pytest.mark.parametrize("kind", KINDS)


def _built(build, shape=(2, 16, 16), planes=0):
    cls, options = BUILDS[build]
    return randomised(cls(shape, planes, **options)).to(F64).eval()


def _draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def _scene(backbone, shape=(2, 16, 16), n=2):
    x = _draw(n, *shape)
    return x, Slots(_draw(n, seed=1), vector=_draw(n, backbone.width, seed=2))


def _watched(module):
    """Inputs and output of every call of a module, filled as it runs."""
    calls = []
    module.register_forward_hook(lambda m, inputs, out: calls.append((inputs, out)))
    return calls


# what reaches what


def _convolutions_only(module):
    """A copy without what mixes a whole map at once: norms and attention."""
    module = copy.deepcopy(module)
    for parent in [*module.modules()]:
        for name, child in [*parent.named_children()]:
            if isinstance(child, nn.GroupNorm | SelfAttention2d):
                setattr(parent, name, nn.Identity())
    return module


def _corner_to_corner(backbone, shape, *, convolutions=True):
    """|d (last pixel of the answer) / d (first pixel of the picture)|."""
    backbone = (_convolutions_only if convolutions else copy.deepcopy)(backbone).to(F64)
    x = _draw(1, *shape).requires_grad_()
    backbone(x, Slots(torch.zeros(1, dtype=F64)))[..., -1, -1].sum().backward()
    return float(x.grad[..., 0, 0].abs().max())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 31, 64), (1, 96, 40)])
@each_kind
def test_the_convolutions_alone_see_from_corner_to_corner(kind, shape):
    backbone = randomised(kind(shape, 0, **kind.sized(shape, 8)))
    assert _corner_to_corner(backbone, shape) > 0


@pytest.mark.parametrize("kind", [ConditionalUnet, ConvnextUnet])
def test_without_a_change_of_scale_they_do_not(kind):
    """The mistake that the check above is there to see: one scale, a reach of a few pixels."""
    shape = (1, 64, 64)
    assert _corner_to_corner(randomised(kind(shape, 0, channels=(8,))), shape) == 0


@pytest.mark.parametrize("kind", [ConditionalUnet, Adm])
def test_the_middle_sees_all_of_a_picture_of_any_size(kind):
    """Two levels on 64 pixels: too far for the convolutions, not for the attention."""
    shape = (1, 64, 64)
    backbone = randomised(kind(shape, 0, channels=(8, 8), blocks=1, attention=0))
    for module in backbone.modules():  # the norms look at whole maps too: take them out
        for name, child in [*module.named_children()]:
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    assert _corner_to_corner(backbone, shape) == 0
    assert _corner_to_corner(backbone, shape, convolutions=False) > 0


@pytest.mark.parametrize(("pointwise", "radius"), [(True, 3), (False, 5)])
def test_a_convnext_block_looks_through_its_wide_kernel(pointwise, radius):
    """Reach 7x7 with pointwise mixing, 7 + 2 + 2 with dense 3x3."""
    backbone = ConvnextUnet((1, 16, 16), 0, channels=(8, 8), width=16, pointwise=pointwise)
    block = _convolutions_only(backbone).down[0][0].to(F64)
    x = _draw(1, 8, 15, 15).requires_grad_()
    block(x, _draw(1, 16))[..., 7, 7].sum().backward()
    seen = x.grad[0].abs().sum(0) > 0
    want = torch.zeros(15, 15, dtype=torch.bool)
    want[7 - radius : 8 + radius, 7 - radius : 8 + radius] = True
    assert torch.equal(seen, want)


# which map goes where


def _skips(backbone):
    """(maps that leave the way down, calls of the blocks that should take them), in order."""
    if type(backbone).__name__ == "ConditionalUnet":  # or a mutant of it
        left = [_watched(stage[-1]) for stage in backbone.down]
        taken = [_watched(stage[0]) for stage in backbone.up]
        blocks = [stage[0] for stage in backbone.up]
        return left, taken, blocks
    if isinstance(backbone, ConvnextUnet):
        left = [_watched(backbone.stem), *(_watched(b) for s in backbone.down for b in s)]
        blocks = [backbone.last, *(b for stage in backbone.up for b in reversed(stage))]
        return left, [_watched(b) for b in blocks], blocks
    left = [_watched(backbone.enter), *(_watched(block) for block in backbone.down)]
    blocks = [block for block in backbone.up if block.resize == 1.0][::-1]
    return left, [_watched(b) for b in blocks], blocks


def _check_skips(backbone):
    """Every map that leaves the way down enters the right block of the way up, and matters."""
    x, slots = _scene(backbone)
    left, taken, blocks = _skips(backbone)
    answer = backbone(x, slots)
    sizes = set()
    for out, entered in zip(left, taken, strict=True):
        skip = out[0][1]
        assert torch.equal(entered[0][0][0][:, -skip.shape[1] :], skip)
        sizes.add(skip.shape[-1])
    assert sizes == {16, 8, 4}, "a skip at every level"
    widths = [out[0][1].shape[1] for out in left]
    for block, width in zip(blocks, widths, strict=True):

        def blind(module, inputs, width=width):
            h = inputs[0].clone()
            h[:, -width:] = 0
            return h, inputs[1]

        hook = block.register_forward_pre_hook(blind)
        change = float((backbone(x, slots) - answer).abs().max())
        hook.remove()
        assert change > 1e-6 * float(answer.abs().max()), "a skip that nobody looks at"


@pytest.mark.parametrize("build", [b for b in BUILDS if "gates" not in b])
@torch.no_grad()
def test_every_skip_arrives_and_is_used_the_first_one_included(build):
    _check_skips(_built(build))


FORGOTTEN = {
    "the first skip": "skips[i] if i else torch.zeros_like(h)",
    "the last skip": "skips[i] if i < 2 else h",
    "a skip of the wrong items": "skips[i].flip(0)",
}


@pytest.mark.parametrize("mistake", FORGOTTEN)
@torch.no_grad()
def test_a_forgotten_skip_is_noticed(mistake):
    edit = ("h, skips[i]]", f"h, {FORGOTTEN[mistake]}]")
    cls = altered("backbones.conditional_unet", *edit).ConditionalUnet
    backbone = randomised(cls((2, 16, 16), 0, channels=(8, 12, 16), width=24)).to(F64)
    with pytest.raises(AssertionError):
        _check_skips(backbone)


@torch.no_grad()
def test_gates_stand_on_every_skip_and_ask_the_way_up():
    """What a block takes is [h, gate(h, skip)], for every skip of every level."""
    backbone = _built("convnext_unet, gates")
    left = [[_watched(b) for b in stage] for stage in backbone.down]
    taken = [[_watched(b) for b in stage] for stage in backbone.up]
    backbone(*_scene(backbone))
    for level, c in enumerate((8, 12, 16)):
        assert all(isinstance(g, SkipGate) for g in backbone.gates[level])
        for i in range(2):
            (entered, _), _ = taken[level][i][0]
            skip = left[level][1 - i][0][1]
            gated = backbone.gates[level][i](entered[:, :c], skip)
            assert torch.allclose(entered[:, c:], gated, atol=1e-12)
            share = (entered[:, c:] / skip).flatten()
            assert float(share.min()) > 0 and float(share.max()) < 1


def _blocks(backbone):
    kinds = ResidualBlock if not isinstance(backbone, ConvnextUnet) else type(backbone.last)
    return [m for m in backbone.modules() if isinstance(m, kinds)]


@each_build
def test_level_and_label_enter_every_block_behind_a_nonlinearity(build):
    """Every block gets act(embedded level + label), one act for both, and learns from it."""
    backbone = _built(build)
    x, slots = _scene(backbone)
    blocks = _blocks(backbone)
    calls = [_watched(block) for block in blocks]
    backbone(x, slots).square().sum().backward()
    act = F.gelu if isinstance(backbone, ConvnextUnet) else F.silu
    want = act(backbone.level(slots.level) + slots.vector)
    for block, call in zip(blocks, calls, strict=True):
        assert len(call) == 1 and torch.equal(call[0][0][1], want)
        weight = (block.add if isinstance(backbone, ConvnextUnet) else block.film).weight
        assert bool(weight.grad.any(0).all()), "a number of the vector that a block ignores"


@each_build
@torch.no_grad()
def test_levels_and_labels_are_told_apart(build):
    backbone = _built(build)
    x = _draw(1, 2, 16, 16).expand(9, -1, -1, -1)
    level = torch.linspace(-6.0, 6.0, 9, dtype=F64)
    vector = _draw(9, backbone.width, seed=2)
    for slots in (Slots(level), Slots(0 * level, vector=vector)):
        rows = backbone(x, slots).flatten(1)
        apart = torch.cdist(rows, rows) + 1e9 * torch.eye(9)
        assert float(apart.min()) > 1e-3 * float(rows.norm(dim=1).mean())


@each_build
@torch.no_grad()
def test_planes_are_channels_and_zero_when_absent(build):
    backbone = _built(build, planes=3)
    x, slots = _scene(backbone)
    planes = _draw(2, 3, 16, 16, seed=3)

    def asked(planes):
        return backbone(x, Slots(slots.level, vector=slots.vector, planes=planes))

    assert asked(planes).shape == x.shape
    assert torch.equal(asked(None), asked(0 * planes))
    for i in range(3):
        one = torch.zeros_like(planes)
        one[:, i] = planes[:, i]
        assert float((asked(one) - asked(None)).abs().max()) > 1e-6, f"plane {i} is not looked at"


# options


def _attentions(backbone):
    return sum(isinstance(m, SelfAttention2d) for m in backbone.modules())


@pytest.mark.parametrize(
    ("attention", "conditional", "adm"),
    [(0, 1, 1), (7, 5, 6), (13, 5, 6), (14, 9, 11), (28, 13, 16)],
)
def test_attention_behind_every_block_of_the_chosen_maps(attention, conditional, adm):
    """Maps of 28, 14 and 7, two blocks a level: 4 (adm 5) attentions each, 1 in the middle."""
    options = {"channels": (8, 12, 16), "width": 16, "blocks": 2, "attention": attention}
    assert _attentions(ConditionalUnet((1, 28, 28), 0, **options)) == conditional
    assert _attentions(Adm((1, 28, 28), 0, **options)) == adm


@pytest.mark.parametrize("kind", [ConditionalUnet, Adm])
@torch.no_grad()
def test_dropout_is_for_training_only(kind):
    shape = (1, 8, 8)
    backbone = randomised(kind(shape, 0, channels=(8, 8), width=16, dropout=0.5))
    x, slots = torch.ones(2, *shape), Slots(torch.zeros(2))
    assert not torch.equal(backbone(x, slots), backbone(x, slots))
    backbone.eval()
    assert torch.equal(backbone(x, slots), backbone(x, slots))


@each_kind
def test_widths_that_cannot_work_are_refused(kind):
    with pytest.raises(UserError, match="channels"):
        kind((1, 8, 8), 0, channels=())


@pytest.mark.parametrize("base", [32, 48, 64, 96, 128])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 28, 28), (3, 32, 32), (4, 31, 33), (3, 64, 48)])
@each_kind
def test_a_size_and_a_shape_give_options_that_fit(kind, shape, base):
    options = kind.sized(shape, base)
    levels = len(options["channels"])
    assert options["channels"][0] == base and options["width"] == 4 * base
    assert list(options["channels"]) == sorted(options["channels"])
    assert -(-max(shape[1:]) // 2 ** (levels - 1)) <= 8
    with torch.device("meta"):
        backbone = kind(shape, 2, **options)
        x = torch.zeros(1, *shape)
        assert backbone(x, Slots(torch.zeros(1))).shape == x.shape


# how large they are


def _conv(a, b, k):
    return a * b * k * k + b


def _linear(a, b):
    return a * b + b


def _residual(a, b, width, *, films=1, attention=False):
    """Two norms, two 3x3, the linear layer, a 1x1 where widths differ, the attention."""
    count = 2 * a + _conv(a, b, 3) + _linear(width, films * b) + 2 * b + _conv(b, b, 3)
    count += _conv(a, b, 1) if a != b else 0
    return count + (2 * b + _linear(b, 3 * b) + _linear(b, b) if attention else 0)


def _level(width):
    return _linear(64, width) + _linear(width, width)


def _size(backbone):
    return sum(p.numel() for p in backbone.parameters())


def test_the_default_conditional_unet_is_as_large_as_counted_by_hand():
    """28 x 28 grey: attention at 14, 7 and in the middle; 8.5 million."""
    want = _level(256) + _conv(1, 64, 3) + 2 * 64 + _conv(64, 1, 3)
    want += _residual(64, 64, 256) + _residual(128, 64, 256)
    want += _residual(128, 128, 256, attention=True) + _residual(256, 128, 256, attention=True)
    want += _residual(256, 256, 256, attention=True) + _residual(512, 256, 256, attention=True)
    want += _residual(256, 256, 256, attention=True) + _residual(256, 256, 256)
    want += _conv(64, 128, 3) + _conv(128, 256, 3) + _conv(256, 128, 3) + _conv(128, 64, 3)
    assert want == 8_518_977
    assert _size(ConditionalUnet((1, 28, 28), 0)) == want


@pytest.mark.parametrize(("pointwise", "millions"), [(True, 15.0), (False, 87.7)])
@pytest.mark.parametrize("residuals", [1, 2])
def test_the_default_convnext_unet_is_as_large_as_counted_by_hand(pointwise, millions, residuals):
    kernel = 1 if pointwise else 3

    def block(a, b):
        count = 49 * a + a + _linear(256, a) + 2 * a + _conv(a, 2 * b, kernel) + 4 * b
        return count + _conv(2 * b, b, kernel) + b + (_conv(a, b, 1) if a != b else 0)

    want = _level(256) + _conv(3, 64, 7) + _conv(64, 3, 1) + block(128, 64) + 2 * block(512, 512)
    want += sum(residuals * (block(c, c) + block(2 * c, c)) for c in (64, 128, 256, 512))
    want += sum(_conv(4 * c, 2 * c, 1) + _conv(2 * c, c, 3) for c in (64, 128, 256))
    with torch.device("meta"):
        backbone = ConvnextUnet((3, 32, 32), 0, residuals=residuals, pointwise=pointwise)
    assert _size(backbone) == want
    assert residuals == 1 or round(want / 1e6, 1) == millions


def test_adm_at_the_published_settings_has_the_published_size():
    """ImageNet 64 x 64, 296 million in appendix I of arXiv 2105.05233.

    The original counts three things that stand elsewhere here or do not exist: the table of 1000
    classes (a condition), 3 channels for a learned variance, sines as wide as its first level.
    """
    channels = (192, 384, 576, 768)
    with torch.device("meta"):
        backbone = Adm(
            (3, 64, 64), 0, channels=channels, blocks=3, width=768, attention=32, head=64
        )
    ours = _size(backbone) - _level(768)
    theirs = ours + 1000 * 768 + _conv(192, 3, 3) + _linear(192, 768) + _linear(768, 768)
    assert round(theirs / 1e6) == 296
    heads = Counter(m.heads for m in backbone.modules() if isinstance(m, SelfAttention2d))
    assert heads == {6: 3 + 4, 9: 3 + 4, 12: 3 + 4 + 1}, "heads of 64, on 32, 16, 8 and in between"
