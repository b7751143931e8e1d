"""Every classifier of noised items: any size, even odds at the start, whole in its gradients."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
import torch.nn.functional as F

from steerable.core.process import Process
from steerable.core.schedule import Flow
from steerable.core.target import Target
from steerable.core.types import Batch
from steerable.nn.noisy_classifier import NoisyClassifier

from ..truth.worlds import randomised
from .rooms import assert_well_formed, files, part

KINDS = files("classifiers")
CLASSES = 5


def _scene(shape, n=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=g), torch.randn(n, generator=g) * 2


def _built(kind, shape):
    return part("classifiers", kind)(shape, CLASSES)


@pytest.mark.parametrize("kind", KINDS)
def test_form(kind):
    assert_well_formed("classifiers", kind)
    cls = part("classifiers", kind)
    assert issubclass(cls, torch.nn.Module) and not inspect.isabstract(cls)
    assert "Source:" in cls.__doc__


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_channels_and_even_odds_at_the_start(kind, channels):
    x, level = _scene((channels, 12, 12))
    got = _built(kind, (channels, 12, 12))(x, level)
    assert got.shape == (3, CLASSES) and not bool(got.any())


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 3), (5, 7), (9, 16), (28, 28), (31, 33)])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_any_height_and_width_and_every_corner_counts(kind, size):
    for made_for in (size, (16, 16)):
        net = randomised(_built(kind, (2, *made_for)))
        x, level = _scene((2, *size))
        got = net(x, level)
        assert bool(torch.isfinite(got).all())
        if min(size) > 1:
            moved = x.clone()
            moved[..., -1, -1] += 3.0
            assert float((net(moved, level) - got).abs().min()) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter_and_the_picture(kind):
    net = randomised(_built(kind, (3, 16, 16)))
    x, level = _scene((3, 16, 16))
    x.requires_grad_()
    net(x, level).square().sum().backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert not silent, f"no gradient: {silent}"
    assert bool((x.grad != 0).flatten(1).float().mean(1).gt(0.99).all()), "some pixels do not count"


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_an_item_does_not_depend_on_its_batch_and_the_level_matters(kind):
    net = randomised(_built(kind, (3, 16, 16))).eval()
    x, level = _scene((3, 16, 16), n=5)
    whole = net(x, level)
    for i in range(5):
        assert float((net(x[i : i + 1], level[i : i + 1]) - whole[i]).abs().max()) < 1e-5
    assert float((net(x, level + 1.0) - whole).abs().max()) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_where_a_thing_lies_can_matter(kind):
    """The pool is told the places: a shuffle of the last map's positions changes the answer."""
    net = randomised(_built(kind, (1, 32, 32))).eval()
    x, level = _scene((1, 32, 32))
    assert float((net(x, level) - net(x.flip(-1), level)).abs().max()) > 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_every_size_is_a_valid_and_larger_network(kind):
    cls = part("classifiers", kind)
    for shape in ((1, 8, 8), (3, 32, 32)):
        counts = []
        for base in (16, 32, 48, 64, 96, 128):
            with torch.device("meta"):
                net = cls(shape, CLASSES, **cls.sized(shape, base))
            counts.append(sum(p.numel() for p in net.parameters()))
        assert counts == sorted(set(counts)), counts


class _Recording(torch.nn.Module):
    """Logits that are a fixed function of what it is fed, which it keeps."""

    def forward(self, x, level):
        self.seen = (x, level)
        return torch.stack([x.flatten(1).sum(1), level, x.flatten(1)[:, 0]], 1)


def test_it_is_fed_as_a_denoiser_is_and_answers_log_probabilities():
    process = Process(Flow(), Target("flow", 0.4))
    inner = _Recording()
    net = NoisyClassifier(process, inner, "label", 3)
    x, _ = _scene((1, 4, 4), n=4)
    net.requires_grad_(False)
    for t in (torch.tensor(0.3, dtype=torch.float64), torch.tensor([0.1, 0.4, 0.7, 1.0])):
        alpha, sigma = (v.expand(4).float() for v in process.schedule(t))
        got = net.log_probs(x, t)
        scale = 1.0 / torch.sqrt(sigma**2 + (0.4 * alpha) ** 2)
        assert torch.allclose(inner.seen[0], scale[:, None, None, None] * x, rtol=1e-5)
        assert torch.allclose(inner.seen[1], torch.log(sigma / alpha), atol=1e-4)
        assert torch.allclose(got.exp().sum(1), torch.ones(4), atol=1e-5)
        label = torch.tensor([2, 0, -1, 1])
        named = net(x, t, {"label": label})
        assert torch.equal(named[:2], torch.stack([got[0, 2], got[1, 0]]))
        assert float(named[2]) == 0.0 and not bool(net(x, t, {}).any())
        assert not bool(net(x, t, {"colour": label}).any())


def _shift(net, z, t):
    """Root mean square of what guidance of scale 1 moves x0-hat by, where x_t is noise alone."""
    alpha, sigma = net.process.schedule(torch.tensor(t, dtype=torch.float64))
    x = (sigma * z).float().requires_grad_()
    label = torch.zeros(len(z), dtype=torch.int64)
    (slope,) = torch.autograd.grad(net(x, torch.tensor(t), {"label": label}).sum(), x)
    return float((sigma**2 / alpha * slope).square().mean().sqrt())


def test_what_guidance_moves_does_not_grow_with_the_noise():
    """sigma^2 / alpha is 99 times as large at t = 0.999 as at 0.9; a gradient must fall as fast."""
    process = Process(Flow(), Target("flow", 0.5))
    backbone = randomised(_built("half_unet", (1, 8, 8)))
    net, z = NoisyClassifier(process, backbone, "label", CLASSES), _scene((1, 8, 8), n=16)[0]
    assert 0.2 < _shift(net, z, 0.999) / _shift(net, z, 0.9) < 5

    class Plain(torch.nn.Module):  # the mutant: logits that noise does not silence
        def forward(self, x, level):
            return backbone(x, level) * torch.sqrt(1 + torch.exp(2 * level))[:, None]

    plain = NoisyClassifier(process, Plain(), "label", CLASSES)
    assert _shift(plain, z, 0.999) / _shift(plain, z, 0.9) > 20


def test_the_loss_is_the_cross_entropy_and_nothing_without_a_label():
    process = Process(Flow(), Target("flow", 0.5))
    net = randomised(NoisyClassifier(process, _built("half_unet", (1, 8, 8)), "label", CLASSES))
    x, _ = _scene((1, 8, 8), n=6)
    z = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    label = torch.tensor([0, 1, 2, 3, 4, -1])
    loss = net.loss_at(Batch(x, {"label": label}), t, z)
    alpha, sigma = (v.float()[:, None, None, None] for v in process.schedule(t))
    logits = net.log_probs(alpha * x + sigma * z, t)
    want = F.cross_entropy(logits[:5], label[:5], reduction="none")
    assert torch.allclose(loss[:5], want, atol=1e-5) and not bool(loss[5])
    (whole,) = torch.autograd.grad(loss.sum(), net.backbone.pool.out.weight, retain_graph=True)
    (part_,) = torch.autograd.grad(loss[:5].sum(), net.backbone.pool.out.weight)
    assert torch.allclose(whole, part_, atol=1e-6)
    fresh = NoisyClassifier(process, _built("half_unet", (1, 8, 8)), "label", CLASSES)
    first = fresh.loss_at(Batch(x, {"label": label}), t, z)[:5]
    assert torch.allclose(first, torch.full((5,), math.log(CLASSES)), atol=1e-6)
