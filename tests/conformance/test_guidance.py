"""Every guidance: its form, its interval, and that items do not see each other."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch

from steerable.core.schedule import VP
from steerable.core.steer import Guidance

from ..truth.worlds import random_mixture
from .rooms import assert_well_formed, files, part

KINDS = files("guidance")
F64 = torch.float64


def _scene():
    world = random_mixture(21, VP())
    g = torch.Generator().manual_seed(2)
    x = 9.0 * torch.randn(6, 2, generator=g, dtype=F64)  # far enough out for every guidance to act
    return world, x, {"label": torch.tensor([0, 1, 0, 1, 0, 1])}


@pytest.mark.parametrize("kind", KINDS)
def test_form(kind):
    assert_well_formed("guidance", kind)
    cls = part("guidance", kind)
    assert issubclass(cls, Guidance) and not inspect.isabstract(cls)
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    assert "Source:" in cls.__doc__
    keyword = [p.kind is inspect.Parameter.KEYWORD_ONLY for p in _parameters(cls)]
    assert all(keyword), "guidance is set by keyword only"


def _parameters(cls):
    return inspect.signature(cls).parameters.values()


@pytest.mark.parametrize("kind", KINDS)
def test_outside_its_interval_it_is_silent(kind):
    world, x, cond = _scene()
    guided = part("guidance", kind)(start=0.7, stop=0.3)(world)
    for time, silent in ((0.9, True), (0.5, False), (0.1, True)):
        t = torch.tensor(time, dtype=F64)
        same = torch.equal(guided(x, t, cond).x0, world(x, t, cond).x0)
        assert same == silent, f"t={time}"


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_does_not_depend_on_its_batch(kind):
    world, x, cond = _scene()
    t = torch.tensor(0.5, dtype=F64)
    guided = part("guidance", kind)()(world)
    whole = guided(x, t, cond).x0
    for i in range(6):
        alone = guided(x[i : i + 1], t, {"label": cond["label"][i : i + 1]}).x0
        assert float((alone - whole[i : i + 1]).abs().max()) < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_about_the_same_question(kind):
    world, x, cond = _scene()
    for t in (torch.tensor(0.5, dtype=F64), torch.linspace(0.2, 0.8, 6, dtype=F64)):
        plain, guided = world(x, t, cond), part("guidance", kind)()(world)(x, t, cond)
        assert torch.equal(guided.x_t, x) and guided.x0.dtype == x.dtype
        assert torch.equal(guided.alpha, plain.alpha) and torch.equal(guided.sigma, plain.sigma)


@pytest.mark.parametrize("kind", [k for k in KINDS if hasattr(part("guidance", k), "weight")])
def test_absent_conditions_do_not_guide(kind):
    world, x, cond = _scene()
    t = torch.tensor(0.5, dtype=F64)
    nobody = {"label": torch.full_like(cond["label"], -1)}
    got = part("guidance", kind)()(world)(x, t, nobody).x0
    assert float((got - world(x, t, {}).x0).abs().max()) < 1e-12
