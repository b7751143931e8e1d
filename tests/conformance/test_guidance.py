"""Every guidance: its form, its interval, and that items do not see each other."""

from __future__ import annotations

import dataclasses
import inspect
import json

import pytest
import torch

from steerable.core.schedule import VP
from steerable.core.steer import Guidance
from steerable.grids.log_snr import log_snr
from steerable.recipes.part import Part, check, describe

from ..truth.worlds import random_mixture
from .rooms import (
    assert_well_formed,
    built,
    files,
    needs,
    options_at_work,
    part,
    sliced,
    world_context,
)

KINDS = files("guidance")
F64 = torch.float64
N = 6
# What steers without a condition: another model, a measurement, a picture, a score.
OTHERWISE = {"weaker", "score", "operator", "measured", "image", "mask", "reference"}
OWN = {"threshold": "keeps the clean item in the range of the data, conditional or not"}


def _scene():
    world = random_mixture(21, VP())
    g = torch.Generator().manual_seed(2)
    x = 9.0 * torch.randn(N, 2, generator=g, dtype=F64)  # far enough out for every guidance to act
    context = world_context(world, log_snr(world.schedule, 12), N)
    return world, x, {"label": torch.tensor([0, 1, 0, 1, 0, 1])}, context


def _at_work(kind, context, **options):
    return built("guidance", kind, context, **options_at_work("guidance", kind), **options)


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
def test_what_it_needs_is_in_the_context_and_described(kind):
    *_, context = _scene()
    assert needs("guidance", kind) <= set(context), "no such name of the context"
    for name in needs("guidance", kind):
        assert f"        {name}: " in part("guidance", kind).__doc__, f"'{name}' has no help"


@pytest.mark.parametrize("kind", KINDS)
def test_its_options_survive_json(kind):
    known = describe("guidance", kind)["options"]
    options = {option["name"]: option["default"] for option in known}
    options |= options_at_work("guidance", kind)
    again = check("guidance", Part(kind=kind, options=json.loads(json.dumps(options)))).options
    assert again == options


@pytest.mark.parametrize("kind", KINDS)
def test_outside_its_interval_it_is_silent(kind):
    world, x, cond, context = _scene()
    guided = _at_work(kind, context, start=0.7, stop=0.3)(world)
    for time, silent in ((0.9, True), (0.5, False), (0.1, True)):
        t = torch.tensor(time, dtype=F64)
        same = torch.equal(guided(x, t, cond).x0, world(x, t, cond).x0)
        assert same == silent, f"t={time}"


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_does_not_depend_on_its_batch(kind):
    """Over two steps, as a guidance may remember the step before."""
    world, x, cond, context = _scene()
    times = [torch.tensor(time, dtype=F64) for time in (0.5, 0.4)]

    def answers(rows, inner):
        guided = _at_work(kind, inner)(world)
        own = {name: value[rows] for name, value in cond.items()}
        return torch.stack([guided(x[rows], t, own).x0 for t in times])

    whole = answers(slice(None), context)
    assert bool(whole.isfinite().all())
    for i in range(N):
        alone = answers(slice(i, i + 1), sliced(context, i))
        assert float((alone[:, 0] - whole[:, i]).abs().max()) < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_every_trajectory_begins_anew(kind):
    """A second trajectory of one guidance remembers nothing of the first."""
    world, x, cond, context = _scene()
    guidance = _at_work(kind, context)
    t = torch.tensor(0.5, dtype=F64)
    first, other = guidance(world), guidance(world)
    before = first(x, t, cond).x0
    first(x, torch.tensor(0.4, dtype=F64), cond)
    assert torch.equal(other(x, t, cond).x0, before)


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_about_the_same_question(kind):
    world, x, cond, context = _scene()
    for t in (torch.tensor(0.5, dtype=F64), torch.linspace(0.2, 0.8, N, dtype=F64)):
        plain, guided = world(x, t, cond), _at_work(kind, context)(world)(x, t, cond)
        assert torch.equal(guided.x_t, x) and guided.x0.dtype == x.dtype
        assert not guided.x0.requires_grad, "what is answered carries no graph"
        assert torch.equal(guided.alpha, plain.alpha) and torch.equal(guided.sigma, plain.sigma)


@pytest.mark.parametrize("kind", KINDS)
def test_absent_conditions_guide_only_where_something_else_does(kind):
    """With defaults; all that is steered by a condition alone leaves an item without one."""
    world, x, cond, context = _scene()
    t = torch.tensor(0.5, dtype=F64)
    nobody = {"label": torch.full_like(cond["label"], -1)}
    files_named = {
        n: v for n, v in options_at_work("guidance", kind).items() if v == "a.safetensors"
    }
    plain = world(x, t, {}).x0
    for missing in (nobody, {}):
        got = built("guidance", kind, context, **files_named)(world)(x, t, missing).x0
        silent = float((got - plain).abs().max()) < 1e-12
        steered = bool(needs("guidance", kind) & OTHERWISE) or kind in OWN
        assert silent != steered, "guided by nothing" if not silent else "not at work"


@pytest.mark.parametrize("kind", KINDS)
def test_a_time_for_each_item_is_as_good_as_one_for_all(kind):
    world, x, cond, context = _scene()
    t = torch.tensor(0.5, dtype=F64)
    one = _at_work(kind, context)(world)(x, t, cond).x0
    each = _at_work(kind, context)(world)(x, t.expand(N), cond).x0
    assert float((one - each).abs().max()) < 1e-10
