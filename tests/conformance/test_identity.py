"""What is silent at the start of training: blocks that say so are the identity, to the bit."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from steerable.core.types import Slots
from steerable.nn.attention import SelfAttention2d, SpatialTransformer
from steerable.nn.blocks import ResidualBlock

from .rooms import files, part

SHAPE = (3, 16, 16)
WIDTH, CHANNELS = 24, 16


def _block(backbone, *options):
    return importlib.import_module(f"steerable.backbones.{backbone}")._Block(*options)


def _map(seed=0):
    return torch.randn(2, CHANNELS, 8, 8, generator=torch.Generator().manual_seed(seed))


def _rows():
    return torch.randn(2, CHANNELS, generator=torch.Generator().manual_seed(1))


def _vector(width=WIDTH):
    return torch.randn(2, width, generator=torch.Generator().manual_seed(2))


IDENTITIES = {
    "unet": lambda: (_block("unet", CHANNELS, WIDTH, 0.0), _map(), _vector()),
    "mlp": lambda: (_block("mlp", CHANNELS, WIDTH, 0.0), _rows(), _vector()),
    "dit": lambda: (
        _block("dit", CHANNELS, 2, True),
        _map().flatten(2).mT.contiguous(),
        _vector(CHANNELS),
        None,
    ),
    "residual": lambda: (ResidualBlock(CHANNELS, CHANNELS, WIDTH), _map(), _vector()),
    "residual, scaled, with attention": lambda: (
        ResidualBlock(CHANNELS, CHANNELS, WIDTH, scaled=True, heads=2),
        _map(),
        _vector(),
    ),
    "attention": lambda: (SelfAttention2d(CHANNELS, heads=2), _map()),
    "transformer": lambda: (
        SpatialTransformer(CHANNELS, context=WIDTH, heads=2),
        _map(),
        _vector()[:, None],
    ),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_a_new_block_is_the_identity(name):
    block, x, *rest = IDENTITIES[name]()
    assert torch.equal(block(x, *rest), x)


def _silenced(net):
    """The layers whose weights are all zero, by name."""
    return {
        name: layer
        for name, layer in net.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and not bool(layer.weight.any())
    }


def _built(kind):
    """A backbone for small pictures, as it sizes itself."""
    cls = part("backbones", kind)
    options = cls.sized(SHAPE, 16)
    return cls(SHAPE, **options) if kind == "mlp" else cls(SHAPE, 0, **options)


@pytest.mark.parametrize("kind", files("backbones"))
def test_a_layer_that_starts_at_zero_has_no_bias_either(kind):
    """Else the branch is not silent: it adds noise of its own that no input explains."""
    layers = _silenced(_built(kind))
    assert layers, "no layer of this network starts at zero"
    loud = [n for n, layer in layers.items() if layer.bias is not None and layer.bias.any()]
    assert not loud, f"silent but for their bias: {loud[:3]}"


@pytest.mark.parametrize("kind", files("backbones"))
def test_a_new_backbone_answers_zero(kind):
    net = _built(kind)
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3))
    assert not bool(net(x, Slots(torch.zeros(2))).any())
