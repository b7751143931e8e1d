"""A batch of no items: every part answers with no items, in the same shapes and precision."""

from __future__ import annotations

import pytest
import torch

from steerable.core.condition import Condition, absent, absent_like
from steerable.core.denoise import Denoiser
from steerable.core.noise import Noise
from steerable.core.process import WEIGHTS, Law, Process, Weight
from steerable.core.sample import trajectory
from steerable.core.schedule import VP, Flow
from steerable.core.target import TARGETS, Target
from steerable.core.types import Batch, Estimate, Slots
from steerable.grids.log_snr import log_snr
from steerable.grids.repaint import repaint
from steerable.recipes.part import Part, build

from ..truth.worlds import F64, random_mixture
from .rooms import built, files, needs, options_at_work, part, world_context

NOBODY = torch.zeros(0, dtype=torch.int64)
SHAPE = (3, 16, 16)
PICTURES = torch.zeros(0, *SHAPE)


def test_noise_for_nobody():
    for noise in (Noise(NOBODY), Noise.of(3, iteration=2, items=NOBODY)):
        assert noise.normal(PICTURES).shape == PICTURES.shape
        for numbers in (noise.uniform(0), noise.stratified(0), noise.integers(0, 7)):
            assert numbers.shape == (0,)


@pytest.mark.parametrize("kind", ["uniform", "logit_normal", "levels"])
@pytest.mark.parametrize("stratified", [True, False])
def test_no_times_are_drawn_for_nobody(kind, stratified):
    law = Law(kind, stratified=stratified)
    assert law.draw(0, Noise(NOBODY), Flow()).shape == (0,)


@pytest.mark.parametrize("kind", files("processes"))
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_loss_of_nobody(kind, target, weight):
    schedule = build("process", Part(kind=kind), data_std=0.5).schedule
    process = Process(schedule, Target(target, 0.5), weight=Weight(weight))

    def denoise(x_t, t, cond):
        return Estimate(x_t, x_t, *schedule(t))

    assert process.loss(denoise, Batch(PICTURES), Noise(NOBODY)).shape == (0,)
    assert process.start(torch.tensor(1.0), Noise(NOBODY), PICTURES).shape == PICTURES.shape


def _context(world, times):
    context = world_context(world, times, 3)
    rows = ("measured", "image", "mask", "reference")
    context |= {name: context[name][:0] for name in rows}
    context["written"] = lambda cond: dict.fromkeys(cond, NOBODY)
    return context


@pytest.mark.parametrize("climbing", [False, True])
@pytest.mark.parametrize("kind", files("samplers"))
def test_a_path_of_nobody(kind, climbing):
    schedule = VP()
    world = random_mixture(3, schedule)
    times = repaint(schedule, 7, jump=3, repeats=2) if climbing else log_snr(schedule, 6)
    path = trajectory(
        lambda x_t, t: world(x_t, t, {}),
        torch.zeros(0, 2, dtype=F64),
        schedule=schedule,
        sampler=part("samplers", kind)(),
        times=times,
        noise=Noise(NOBODY),
    )
    moments = list(path)
    assert len(moments) == len(times) - 1
    assert all(m.x.shape == m.x0.shape == (0, 2) and m.x.dtype == F64 for m in moments)


def test_particles_of_nobody():
    """The one sampler that weighs items against each other, with something to weigh them by."""
    world = random_mixture(3, VP())
    guided = built("guidance", "cfg", {})(world)
    path = trajectory(
        lambda x_t, t: guided(x_t, t, {"label": NOBODY}),
        torch.zeros(0, 2, dtype=F64),
        schedule=VP(),
        sampler=part("samplers", "smc")(),
        times=log_snr(VP(), 4),
        noise=Noise(NOBODY),
    )
    assert all(moment.x.shape == (0, 2) for moment in path)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("kind", files("guidance"))
def test_guidance_of_nobody(kind, each):
    """With one time for all, and with a time for each."""
    world = random_mixture(3, VP())
    context = _context(world, log_snr(VP(), 6))
    guided = built("guidance", kind, context, **options_at_work("guidance", kind))(world)
    for time in (0.5, 0.4):
        t = torch.full((0,), time, dtype=F64) if each else torch.tensor(time, dtype=F64)
        answer = guided(torch.zeros(0, 2, dtype=F64), t, {"label": NOBODY})
        assert answer.x0.shape == answer.x_t.shape == (0, 2) and answer.x0.dtype == F64


@pytest.mark.parametrize("kind", files("constraints"))
@pytest.mark.parametrize("time", [0.5, 0.0])
def test_constraints_of_nobody(kind, time):
    context = {"image": PICTURES, "mask": PICTURES[:, :1], "reference": PICTURES}
    made = built("constraints", kind, {name: context[name] for name in needs("constraints", kind)})
    s = torch.tensor(time, dtype=F64)
    assert made(PICTURES, s, VP(), Noise(NOBODY)).shape == PICTURES.shape


@pytest.mark.parametrize("kind", files("operators"))
def test_measurements_of_nobody(kind):
    given = {"mask": PICTURES[:, :1], "shape": SHAPE}
    made = built("operators", kind, {name: given[name] for name in needs("operators", kind)})
    y = made(PICTURES)
    assert len(y) == 0 and made.adjoint(y).shape == PICTURES.shape
    assert made.nearest(PICTURES, y, 0.1).shape == PICTURES.shape


@pytest.mark.parametrize("shape", [SHAPE, (1, 27, 30)], ids=str)
@pytest.mark.parametrize("kind", files("backbones"))
def test_a_network_asked_by_nobody(kind, shape):
    """Also of sides that are padded, and with a gradient that finds nothing to learn."""
    cls = part("backbones", kind)
    options = cls.sized(shape, 16)
    net = cls(shape, **options) if kind == "mlp" else cls(shape, 0, **options)
    denoiser = Denoiser(Process(Flow(), Target("flow", 0.5)), net, {})
    x = torch.zeros(0, *shape)
    for t in (torch.tensor(0.5), torch.zeros(0)):
        assert denoiser(x, t, {}).x0.shape == x.shape
    net(x, Slots(torch.zeros(0))).sum().backward()
    assert not any(p.grad.any() for p in net.parameters() if p.grad is not None)


class _Plain(Condition):
    """A vector of its own."""

    slot = "vector"

    def encode(self, value):
        return value


def test_conditions_of_nobody():
    made = _Plain((4,), dropout=0.5)
    value = torch.zeros(0, 4)
    assert made(value).shape == (0, 4) and made.dropped(value, Noise(NOBODY)).shape == (0, 4)
    assert absent(value).shape == (0,) and absent_like(value).shape == (0, 4)


@pytest.mark.parametrize("kind", files("classifiers"))
def test_a_classifier_asked_by_nobody(kind):
    cls = part("classifiers", kind)
    net = cls(SHAPE, 4, **cls.sized(SHAPE, 16))
    assert net(PICTURES, torch.zeros(0)).shape == (0, 4)


@pytest.mark.parametrize("kind", files("oracles"))
def test_an_oracle_asked_by_nobody(kind):
    one, x = torch.ones(2, dtype=F64), torch.zeros(0, 2, dtype=F64)
    given = {
        "schedule": VP(),
        "mean": one,
        "covariance": torch.eye(2, dtype=F64),
        "weights": one / 2,
        "means": torch.eye(2, dtype=F64),
        "stds": one / 4,
        "x": torch.eye(2, dtype=F64),
    }
    oracle = part("oracles", kind)(**{name: given[name] for name in needs("oracles", kind)})
    assert oracle(x, torch.tensor(0.5, dtype=F64), {}).x0.shape == (0, 2)
