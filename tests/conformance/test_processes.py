"""Every process: its form, its law of t, and a loss that an exact denoiser minimises."""

from __future__ import annotations

import inspect
import typing

import pytest
import torch

from steerable.core.noise import Noise
from steerable.core.process import Process
from steerable.core.schedule import Edm, Flow
from steerable.core.types import Batch

from ..truth.worlds import random_mixture
from .rooms import assert_well_formed, files, part

KINDS = files("processes")
F64 = torch.float64


def _choices(kind):
    """Every value of every option that is a choice, one at a time."""
    make = part("processes", kind)
    hints = typing.get_type_hints(make)
    yield {}
    for option in inspect.signature(make).parameters.values():
        values = typing.get_args(hints[option.name])
        if values and typing.get_origin(hints[option.name]) is typing.Literal:
            yield from ({option.name: value} for value in values)


CASES = [(kind, options) for kind in KINDS for options in _choices(kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_form(kind):
    assert_well_formed("processes", kind)
    make = part("processes", kind)
    first, *rest = inspect.signature(make).parameters.values()
    assert first.name == "data_std"
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in rest)
    assert all(p.default is not inspect.Parameter.empty for p in rest), "every option has a default"
    assert isinstance(make(0.5), Process) and make(0.5) == make(0.5)
    assert "arXiv" in make.__doc__, "the paper"


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_times_and_losses_are_finite_and_per_item(kind, options):
    process = part("processes", kind)(0.4, **options)
    t = process.draw(64, Noise(torch.arange(64)))
    assert t.shape == (64,) and t.dtype == F64 and len(t.unique()) > 40
    assert float(t.min()) >= 0 and float(t.max()) <= 1
    level = process.schedule.level(torch.linspace(0, 1, 500, dtype=F64))
    assert bool((level.diff() > 0).all())
    world = random_mixture(2, process.schedule)
    x = world.draw(64, torch.Generator().manual_seed(0))
    loss = process.loss(world, Batch(x), Noise(torch.arange(64)))
    assert loss.shape == (64,) and bool(torch.isfinite(loss).all()) and float(loss.min()) >= 0


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_the_exact_answer_has_the_least_loss(kind, options):
    """The posterior mean beats itself made bolder, more timid and shifted, under every weight."""
    process = part("processes", kind)(0.4, **options)
    world = random_mixture(2, process.schedule)
    n = 3000
    x = world.draw(n, torch.Generator().manual_seed(0))
    centre = x.mean(0)

    def bent(factor, shift):
        def denoise(x_t, t, cond):
            exact = world(x_t, t, cond)
            return exact.with_x0(centre + factor * (exact.x0 - centre) + shift)

        return process.loss(denoise, Batch(x), Noise(torch.arange(n)))

    best = bent(1.0, 0.0)
    for factor, shift in ((1.1, 0.0), (0.9, 0.0), (1.0, 0.1)):
        worse = bent(factor, shift) - best
        assert float(worse.mean()) > 0, f"x {factor} + {shift} has less loss"


@pytest.mark.parametrize("kind", KINDS)
def test_the_scale_of_the_data_cancels(kind):
    """Twice the data with twice the std: the network sees the same and is asked the same."""
    one, two = (part("processes", kind)(d, target="edm") for d in (0.5, 1.0))
    if isinstance(one.schedule, Edm | Flow):  # these two follow the data by themselves
        t = [p.draw(16, Noise(torch.arange(16))) for p in (one, two)]
        ratios = [p.schedule.level(u) for p, u in zip((one, two), t, strict=True)]
        assert torch.allclose(ratios[1] - ratios[0], torch.tensor(2.0, dtype=F64).log(), atol=1e-6)
    x = torch.linspace(-1, 1, 16, dtype=F64)
    level = torch.linspace(0.2, 0.8, 16, dtype=F64)
    alpha, sigma = one.schedule(level)
    first = one.target(alpha, sigma)
    second = two.target(alpha, 2 * sigma)
    assert torch.allclose(first[0] * x, second[0] * 2 * x, rtol=1e-9)
    assert torch.allclose(2 * first[2], second[2], rtol=1e-9)
