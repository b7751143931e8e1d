"""Every picture backbone: any size, quiet at the start, whole in its gradients, blind sideways."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch

from steerable.core.denoise import Backbone
from steerable.core.errors import UserError
from steerable.core.types import Slots

from ..truth.worlds import randomised
from .rooms import assert_well_formed, files, part

KINDS = files("backbones")
SLOTS = {"vector", "tokens", "planes"}


def built(kind, shape, planes=0, base=0):
    """A backbone of its default size, or of a base width."""
    cls = part("backbones", kind)
    options = cls.sized(shape, base) if base else {}
    return cls(shape, planes, **options) if "planes" in cls.accepts else cls(shape, **options)


def _scene(backbone, shape, n=3, seed=0):
    """Items and every slot that the backbone reads; the last items have shorter prompts."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=g)
    level = torch.randn(n, generator=g) * 2
    vector = torch.randn(n, backbone.width, generator=g) if "vector" in backbone.accepts else None
    tokens = mask = None
    if "tokens" in backbone.accepts:
        tokens = torch.randn(n, 4, backbone.width, generator=g)
        mask = torch.arange(4) < 4 - torch.arange(n)[:, None] % 4
    return x, Slots(level, vector=vector, tokens=tokens, mask=mask)


def _of(slots, index):
    """The slots of some items."""
    found = {f.name: getattr(slots, f.name) for f in dataclasses.fields(slots)}
    return Slots(**{name: None if v is None else v[index] for name, v in found.items()})


@pytest.mark.parametrize("kind", KINDS)
def test_form(kind):
    assert_well_formed("backbones", kind)
    cls = part("backbones", kind)
    assert issubclass(cls, Backbone) and not inspect.isabstract(cls)
    assert set(cls.accepts) <= SLOTS and cls.accepts
    backbone = built(kind, (1, 8, 8))
    assert isinstance(backbone.width, int) and backbone.width > 0


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_channels_and_zero_at_the_start(kind, channels):
    shape = (channels, 12, 12)
    backbone = built(kind, shape)
    x, slots = _scene(backbone, shape)
    got = backbone(x, slots)
    assert got.shape == x.shape and got.dtype == torch.float32
    assert not bool(got.any()), "the first answer is the preconditioner's alone"


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 5), (2, 2), (3, 3), (2, 3), (5, 7), (9, 16), (28, 28), (31, 33), (48, 64)]
)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_any_height_and_width(kind, size):
    """Built for a size or for another one: every pixel is answered and used, or E-SHAPE raised."""
    for made_for in (size, (16, 16)):
        backbone = randomised(built(kind, (2, *made_for)))
        x, slots = _scene(backbone, (2, *size), n=2)
        try:
            got = backbone(x, slots)
        except UserError as error:
            assert error.code == "E-SHAPE" and made_for != size, "its own size is never refused"
            continue
        assert got.shape == x.shape and bool(torch.isfinite(got).all())
        if min(size) > 1:
            moved = x.clone()
            moved[..., -1, -1] += 3.0
            change = (backbone(moved, slots) - got)[..., -1, -1]
            assert float(change.abs().max()) > 0, "the last pixel is not looked at"


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind):
    shape = (3, 16, 16)
    backbone = randomised(built(kind, shape))
    x, slots = _scene(backbone, shape)
    backbone(x, slots).square().sum().backward()
    silent = [
        name
        for name, parameter in backbone.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.any())
    ]
    assert not silent, f"no gradient: {silent}"


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_an_item_does_not_depend_on_its_batch(kind):
    shape = (3, 16, 16)
    backbone = randomised(built(kind, shape)).eval()
    x, slots = _scene(backbone, shape, n=5)
    whole = backbone(x, slots)
    size = float(whole.abs().max())
    for i in range(5):
        alone = backbone(x[i : i + 1], _of(slots, slice(i, i + 1)))
        assert float((alone - whole[i : i + 1]).abs().max()) < 1e-5 * max(1.0, size)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_level_and_vector_matter(kind):
    shape = (1, 16, 16)
    backbone = randomised(built(kind, shape)).eval()
    x, slots = _scene(backbone, shape, n=2)
    got = backbone(x, slots)
    other = backbone(x, dataclasses.replace(slots, level=slots.level + 1.0))
    assert float((other - got).abs().max()) > 1e-4, "the noise level is not read"
    if "vector" in backbone.accepts:
        other = backbone(x, dataclasses.replace(slots, vector=-slots.vector))
        assert float((other - got).abs().max()) > 1e-4, "the vector is not read"
        none = backbone(x, dataclasses.replace(slots, vector=None))
        zero = backbone(x, dataclasses.replace(slots, vector=0 * slots.vector))
        assert torch.allclose(none, zero, atol=1e-6), "no vector is the zero vector"


@pytest.mark.parametrize("kind", [k for k in KINDS if "planes" in part("backbones", k).accepts])
@torch.no_grad()
def test_planes_matter_and_none_are_zeros(kind):
    shape = (2, 12, 12)
    backbone = randomised(built(kind, shape, 3)).eval()
    x, slots = _scene(backbone, shape)
    planes = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    got = backbone(x, dataclasses.replace(slots, planes=planes))
    assert got.shape == x.shape
    none = backbone(x, slots)
    assert torch.equal(none, backbone(x, dataclasses.replace(slots, planes=0 * planes)))
    for i in range(3):
        moved = planes.clone()
        moved[:, i] += 1.0
        other = backbone(x, dataclasses.replace(slots, planes=moved))
        assert float((other - got).abs().max()) > 1e-4, f"plane {i} is not read"


@pytest.mark.parametrize("kind", [k for k in KINDS if "tokens" in part("backbones", k).accepts])
@torch.no_grad()
def test_tokens_matter_and_padding_does_not(kind):
    shape = (1, 16, 16)
    backbone = randomised(built(kind, shape)).eval()
    x, slots = _scene(backbone, shape)
    got = backbone(x, slots)
    size = max(1.0, float(got.abs().max()))
    other = backbone(x, dataclasses.replace(slots, tokens=slots.tokens.flip(0)))
    assert float((other - got).abs().max()) > 1e-4, "the tokens are not read"
    junk = torch.where(slots.mask[..., None], slots.tokens, 9.0)
    longer = torch.cat([junk, torch.full_like(junk[:, :3], -7.0)], 1)
    mask = torch.cat([slots.mask, torch.zeros(3, 3, dtype=torch.bool)], 1)
    padded = backbone(x, dataclasses.replace(slots, tokens=longer, mask=mask))
    assert float((padded - got).abs().max()) < 1e-6 * size, "padding changes the answer"
    without = backbone(x, dataclasses.replace(slots, tokens=None, mask=None))
    assert float((without - got).abs().max()) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_every_size_is_a_valid_and_larger_network(kind):
    """The options that the backbone itself proposes for five widths build, in rising size."""
    cls = part("backbones", kind)
    for shape in ((1, 8, 8), (3, 32, 32)):
        counts = []
        for base in (32, 48, 64, 96, 128):
            with torch.device("meta"):
                context = (shape, 0) if "planes" in cls.accepts else (shape,)
                backbone = cls(*context, **cls.sized(shape, base))
            counts.append(sum(p.numel() for p in backbone.parameters()))
        assert counts == sorted(set(counts)), counts


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_memory_format_does_not_change_the_answer(kind):
    shape = (3, 16, 20)
    backbone = randomised(built(kind, shape)).eval()
    x, slots = _scene(backbone, shape)
    last = x.contiguous(memory_format=torch.channels_last)
    first, second = backbone(x, slots), backbone(last, slots)
    assert first.dtype == torch.float32
    assert float((first - second).abs().max()) < 1e-5 * max(1.0, float(first.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss_and_leaves_no_buffer_behind(kind):
    """A backbone has no hidden state: the same input gives the same answer before and after."""
    shape = (1, 8, 8)
    backbone = randomised(built(kind, shape, base=16))
    x, slots = _scene(backbone, shape, n=8)
    first, again = backbone(x, slots), backbone(x, slots)
    assert torch.equal(first, again)
    target = x.sin()
    optimiser = torch.optim.Adam(backbone.parameters(), lr=2e-3)
    losses = []
    for _ in range(25):
        loss = (backbone(x, slots) - target).square().mean()
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.6 * losses[0]
