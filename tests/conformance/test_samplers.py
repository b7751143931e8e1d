"""Every sampler: its form, its declared order or law, and that items do not see each other."""

from __future__ import annotations

import dataclasses
import inspect
import sys

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.sample import Sampler, trajectory
from steerable.core.schedule import VP, Flow, VePower
from steerable.core.types import Estimate
from steerable.grids.log_snr import log_snr
from steerable.oracles.mixture import Mixture

from ..truth.checks import interior_schedules, measured_order
from ..truth.worlds import Kit, floor_w2, random_mixture, sliced_w2, spread_of
from .rooms import assert_well_formed, files, part

KINDS = files("samplers")
F64 = torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_form(kind):
    assert_well_formed("samplers", kind)
    cls = part("samplers", kind)
    assert issubclass(cls, Sampler) and not inspect.isabstract(cls)
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    assert "Source:" in cls.__doc__, "where the method comes from"
    assert cls.order is None or cls.order in (1, 2, 3, 4)
    assert isinstance(cls.stochastic, bool)
    sampler = cls()
    assert sampler == cls() and hash(sampler) == hash(cls())
    assert vars(sampler) == dataclasses.asdict(sampler), "no hidden state"


def _run(kind, seeds, *, schedule=None, steps=12):
    schedule = schedule or VP()
    world = random_mixture(3, schedule)
    times = log_snr(schedule, steps)
    noise = Noise(torch.tensor(seeds))
    x = float(schedule(times[0])[1]) * noise.normal(torch.zeros(len(seeds), 2, dtype=F64))
    moments = list(
        trajectory(
            lambda x_t, t: world(x_t, t, {}),
            x,
            schedule=schedule,
            sampler=part("samplers", kind)(),
            times=times,
            noise=noise,
        )
    )
    return torch.stack([moment.x for moment in moments])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seeds_give_the_same_bits(kind):
    assert torch.equal(_run(kind, [5, 6, 7]), _run(kind, [5, 6, 7]))
    assert not torch.equal(_run(kind, [5, 6, 7]), _run(kind, [5, 6, 8]))


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_does_not_depend_on_its_batch(kind):
    """To rounding; the adaptive solver chooses its steps for the batch: to 10 tolerances."""
    room = 10 * part("samplers", kind)().rtol if kind == "ode" else 1e-9
    whole = _run(kind, [11, 12, 13, 14, 15])
    for i in range(5):
        alone = _run(kind, [11 + i])
        assert float((alone[:, 0] - whole[:, i]).abs().max()) < room


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_noise_is_drawn_if_and_only_if_declared(kind):
    """From one start, other seeds of the steps change the sample of a stochastic sampler only."""
    schedule = VP()
    world = random_mixture(3, schedule)
    times = log_snr(schedule, 8)
    x = torch.full((4, 2), 0.5, dtype=F64) * float(schedule(times[0])[1])
    ends = [
        Kit().run(
            lambda x_t, t: world(x_t, t, {}),
            x,
            schedule=schedule,
            sampler=part("samplers", kind)(),
            times=times,
            noise=Noise(torch.arange(4) + start),
        )
        for start in (0, 100)
    ]
    assert torch.equal(*ends) != part("samplers", kind).stochastic


@pytest.mark.parametrize("family", ["vp", "ve", "flow"])
@pytest.mark.parametrize("kind", [k for k in KINDS if part("samplers", k).order is not None])
def test_the_declared_order_is_the_measured_one(kind, family):
    sampler = part("samplers", kind)()
    slope = measured_order(Kit(), sampler, interior_schedules(Kit())[family])
    assert abs(slope - sampler.order) < 0.15 + 0.075 * sampler.order, f"measured {slope:.2f}"


@pytest.mark.parametrize("schedule", [VP(), VePower(), Flow()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_the_law_of_unequal_modes_is_reached(kind, schedule):
    n = 2000
    world = random_mixture(17, schedule)
    times = log_snr(schedule, 6 if kind == "ode" else 60)  # it chooses its own steps between
    noise = Noise(torch.arange(n))
    start = (schedule(times[0])[1] ** 2 + spread_of(world) ** 2 * schedule(times[0])[0] ** 2).sqrt()
    x = Kit().run(
        lambda x_t, t: world(x_t, t, {}),
        float(start) * noise.normal(torch.zeros(n, 2, dtype=F64)),
        schedule=schedule,
        sampler=part("samplers", kind)(),
        times=times,
        noise=noise,
    )
    real = world.draw(n, torch.Generator().manual_seed(4))
    assert sliced_w2(x, real) <= 3 * floor_w2(world, n)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3,), (2, 5), (1, 4, 4)])
def test_items_may_have_any_shape(kind, shape):
    """A sampler never looks past dimension 0: an item of another shape is the same numbers."""
    schedule = VP()
    size = int(torch.tensor(shape).prod())
    one = torch.ones(1, dtype=F64)
    world = Mixture(schedule, one, torch.linspace(-1, 1, size, dtype=F64)[None], 0.3 * one)
    times = log_snr(schedule, 3 if kind == "ode" else 6)

    def run(form):
        def ask(x_t, t):
            flat = world(x_t.flatten(1), t, {})
            return type(flat)(flat.x0.reshape(x_t.shape), x_t, flat.alpha, flat.sigma)

        noise = Noise(torch.arange(2))
        x = float(schedule(times[0])[1]) * noise.normal(torch.zeros(2, *form, dtype=F64))
        sampler = part("samplers", kind)()
        return Kit().run(ask, x, schedule=schedule, sampler=sampler, times=times, noise=noise)

    assert torch.equal(run(shape).flatten(1), run((size,)))


def _one_step_of_ode(answer):
    schedule = VP()
    t, s = torch.tensor([0.6, 0.3], dtype=F64)

    def ask(x_t, u):
        return Estimate(answer(x_t), x_t, *schedule(u))

    x = torch.ones(2, 3, dtype=F64)
    return part("samplers", "ode")().step(ask, x, t, s, schedule, None, Noise(torch.arange(2)))


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(UserError, match=r"pip install 'steerable\[ode\]'") as caught:
        _one_step_of_ode(torch.zeros_like)
    assert caught.value.code == "E-EXTRA"


def test_an_adaptive_step_over_answers_that_are_not_finite_says_so():
    with pytest.raises(UserError) as caught:
        _one_step_of_ode(lambda x_t: x_t * float("nan"))
    assert caught.value.code == "E-NUM"


def test_a_restart_interval_upside_down_is_refused():
    with pytest.raises(UserError, match="above low") as caught:
        part("samplers", "restart")(low=0.5, high=0.2)
    assert caught.value.code == "E-CONFIG"
