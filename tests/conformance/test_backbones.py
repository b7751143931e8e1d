"""Every picture backbone: any size, quiet at the start, whole in its gradients, blind sideways."""

from __future__ import annotations

import inspect

import pytest
import torch

from steerable.core.denoise import Backbone
from steerable.core.types import Slots

from ..truth.worlds import randomised
from .rooms import assert_well_formed, files, part

KINDS = files("backbones")
SLOTS = {"vector", "tokens", "planes"}


def _scene(backbone, shape, n=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=g)
    level = torch.randn(n, generator=g) * 2
    vector = torch.randn(n, backbone.width, generator=g) if "vector" in backbone.accepts else None
    return x, Slots(level, vector=vector)


@pytest.mark.parametrize("kind", KINDS)
def test_form(kind):
    assert_well_formed("backbones", kind)
    cls = part("backbones", kind)
    assert issubclass(cls, Backbone) and not inspect.isabstract(cls)
    assert set(cls.accepts) <= SLOTS and cls.accepts
    backbone = cls((1, 8, 8))
    assert isinstance(backbone.width, int) and backbone.width > 0


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_channels_and_zero_at_the_start(kind, channels):
    shape = (channels, 12, 12)
    backbone = part("backbones", kind)(shape)
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
    """Built for a size or for another one: the answer covers every pixel and uses the input."""
    for built in (size, (16, 16)):
        backbone = randomised(part("backbones", kind)((2, *built)))
        x, slots = _scene(backbone, (2, *size), n=2)
        got = backbone(x, slots)
        assert got.shape == x.shape and bool(torch.isfinite(got).all())
        if min(size) > 1:
            moved = x.clone()
            moved[..., -1, -1] += 3.0
            change = (backbone(moved, slots) - got)[..., -1, -1]
            assert float(change.abs().max()) > 0, "the last pixel is not looked at"


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind):
    shape = (3, 16, 16)
    backbone = randomised(part("backbones", kind)(shape))
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
    backbone = randomised(part("backbones", kind)(shape)).eval()
    x, slots = _scene(backbone, shape, n=5)
    whole = backbone(x, slots)
    size = float(whole.abs().max())
    for i in range(5):
        vector = None if slots.vector is None else slots.vector[i : i + 1]
        alone = backbone(x[i : i + 1], Slots(slots.level[i : i + 1], vector=vector))
        assert float((alone - whole[i : i + 1]).abs().max()) < 1e-5 * max(1.0, size)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_level_and_vector_matter(kind):
    shape = (1, 16, 16)
    backbone = randomised(part("backbones", kind)(shape)).eval()
    x, slots = _scene(backbone, shape, n=2)
    got = backbone(x, slots)
    other = backbone(x, Slots(slots.level + 1.0, vector=slots.vector))
    assert float((other - got).abs().max()) > 1e-4, "the noise level is not read"
    if "vector" in backbone.accepts:
        other = backbone(x, Slots(slots.level, vector=-slots.vector))
        assert float((other - got).abs().max()) > 1e-4, "the vector is not read"
        none = backbone(x, Slots(slots.level))
        zero = backbone(x, Slots(slots.level, vector=0 * slots.vector))
        assert torch.allclose(none, zero, atol=1e-6), "no vector is the zero vector"


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_memory_format_does_not_change_the_answer(kind):
    shape = (3, 16, 20)
    backbone = randomised(part("backbones", kind)(shape)).eval()
    x, slots = _scene(backbone, shape)
    last = x.contiguous(memory_format=torch.channels_last)
    first, second = backbone(x, slots), backbone(last, slots)
    assert first.dtype == torch.float32
    assert float((first - second).abs().max()) < 1e-5 * max(1.0, float(first.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_two_steps_of_training_lower_the_loss_and_leave_no_buffer_behind(kind):
    """A backbone has no hidden state: the same input gives the same answer before and after."""
    shape = (1, 8, 8)
    backbone = randomised(part("backbones", kind)(shape))
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
