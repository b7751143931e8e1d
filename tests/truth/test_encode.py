"""Encoding against exact answers: there and back, the closed form, the law of noise, the arc."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from steerable.core.errors import UserError
from steerable.core.schedule import VP, Edm, Flow, VeGeometric
from steerable.grids.log_snr import log_snr
from steerable.jobs import encode as job
from steerable.jobs import interpolate
from steerable.oracles.gaussian import Gaussian
from steerable.samplers.ancestral import Ancestral
from steerable.samplers.heun import Heun

from ..mutants import altered
from .worlds import F64, random_mixture

SCHEDULES = {"vp": VP(), "ve": VeGeometric(), "flow": Flow(), "edm": Edm()}
each_schedule = pytest.mark.parametrize("name", SCHEDULES)


def settings(schedule, steps=job.STEPS):
    """The documented defaults."""
    assert (job.SAMPLER, job.GRID) == ("heun", "log_snr")
    return {"schedule": schedule, "sampler": Heun(), "times": log_snr(schedule, steps)}


def bound(world):
    return lambda x_t, t: world(x_t, t, {})


@each_schedule
@pytest.mark.parametrize("seed", [1, 2])
def test_there_and_back_at_the_defaults(name, seed):
    schedule = SCHEDULES[name]
    world = random_mixture(seed, schedule)
    x = world.draw(250, torch.Generator().manual_seed(seed))
    how = settings(schedule)
    noise = job.encode(bound(world), x, **how)
    back = job.decode(bound(world), noise, **how)
    assert float((back - x).square().mean().sqrt()) < 1e-2
    again = job.encode(bound(world), x, **how)
    assert float((again - noise).abs().max()) < 1e-5


def gaussian(schedule):
    basis = torch.tensor([[0.8, 0.3], [-0.2, 0.5]], dtype=F64)
    return Gaussian(schedule, torch.tensor([0.4, -0.3], dtype=F64), basis @ basis.mT)


def check_closed_form(module):
    for schedule in SCHEDULES.values():
        world, how = gaussian(schedule), settings(schedule)
        x = torch.linspace(-1, 1, 20, dtype=F64)[:, None] * torch.tensor([[1.0, -0.7]], dtype=F64)
        times = how["times"]
        got = module.encode(bound(world), x, **how)
        want = world.flow(schedule(times[-2])[0] * x, times[-2], times[0])
        scale = float(schedule(times[0])[1])
        assert float((got - want).abs().max()) < 0.01 * scale, type(schedule).__name__


def test_encoded_gaussian_data_is_the_closed_form():
    check_closed_form(job)


def test_encoded_mixture_data_is_standard_normal():
    schedule, n = VP(), 2000
    world = random_mixture(3, schedule)
    x = world.draw(n, torch.Generator().manual_seed(4))
    how = settings(schedule)
    alpha, sigma = schedule(how["times"][0])
    flat = job.encode(bound(world), x, **how)
    z = flat / torch.sqrt(sigma**2 + alpha**2 * x.var(0))
    # 4 standard errors of what as many exact normal numbers show, with 1 % for the steps taken
    assert float(z.mean(0).abs().max()) < 4 / math.sqrt(n) + 0.01
    assert float((z.var(0) - 1).abs().max()) < 4 * math.sqrt(2 / n) + 0.02
    kurtosis = (z - z.mean(0)).pow(4).mean(0) / z.var(0) ** 2 - 3
    assert float(kurtosis.abs().max()) < 4 * math.sqrt(24 / n) + 0.03
    assert min(stats.kstest(z[:, i].numpy(), "norm").pvalue for i in range(2)) > 1e-3
    data = (x - x.mean(0)) / x.std(0)  # control: the data itself is far from normal
    assert min(stats.kstest(data[:, i].numpy(), "norm").pvalue for i in range(2)) < 1e-6


def test_a_stochastic_sampler_is_refused():
    world = gaussian(VP())
    for walk in (job.encode, job.decode):
        with pytest.raises(UserError, match="heun") as caught:
            walk(bound(world), torch.zeros(1, 2), **{**settings(VP()), "sampler": Ancestral()})
        assert caught.value.code == "E-CONFIG"


def check_slerp(module):
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 6, 3, 4, 4, generator=g, dtype=F64)
    size = a.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    b = b / b.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1) * size
    assert torch.allclose(module.slerp(a, b, 0.0), a, atol=1e-12)
    assert torch.allclose(module.slerp(a, b, 1.0), b, atol=1e-12)
    for share in (0.1, 0.5, 0.8):
        c = module.slerp(a, b, share)
        norms = c.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        assert torch.allclose(norms, size), "the norm is kept"

        def angle(u, v):
            cosine = (u * v).flatten(1).sum(1) / (
                u.flatten(1).norm(dim=1) * v.flatten(1).norm(dim=1)
            )
            return torch.arccos(cosine)

        assert torch.allclose(angle(a, c), share * angle(a, b)), "not that share of the angle"


def test_slerp_keeps_norms_and_divides_angles():
    check_slerp(interpolate)
    a, b = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(2), dtype=F64)
    shares = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0], dtype=F64)
    rows = [interpolate.slerp(a[i : i + 1], b[i : i + 1], float(s)) for i, s in enumerate(shares)]
    assert torch.allclose(interpolate.slerp(a, b, shares), torch.cat(rows)), "per item"


def test_slerp_of_near_parallel_ends_is_exact_and_smooth():
    a = torch.randn(4, 9, generator=torch.Generator().manual_seed(3), dtype=F64)
    across = torch.randn(4, 9, generator=torch.Generator().manual_seed(4), dtype=F64)
    assert torch.allclose(interpolate.slerp(a, a, 0.3), a, atol=1e-15)
    for size in (1e-3, 1e-5, 1e-7, 1e-9, 1e-12):
        b = a + size * across
        chord = torch.lerp(a, b, 0.3)
        off = float((interpolate.slerp(a, b, 0.3) - chord).abs().max())
        assert off <= 20 * size**2 + 1e-14, f"{off} at a distance of {size}"
    with pytest.raises(UserError):
        interpolate.slerp(a, -a, 0.5)


@pytest.mark.parametrize(
    ("check", "name", "edit"),
    [
        (check_slerp, "jobs.interpolate", ("torch.lerp(*norms, part) * (first * u + second * v)",
                                           "torch.lerp(a, b, part)")),
        (check_slerp, "jobs.interpolate", ("2.0 * torch.atan2(chord, mid)",
                                           "torch.atan2(chord, mid)")),
        (check_closed_form, "jobs.encode", ("spread(schedule(up[0])[0], x0) * x0",
                                            "x0 / spread(schedule(up[0])[0], x0) ** 9 * 1.02")),
        (check_closed_form, "jobs.encode", ("times[:-1].flip(0)", "times[1:-1].flip(0)")),
    ],
    ids=["lerp", "half the angle", "start off the data", "stops a step early"],
)  # fmt: skip
def test_mutant_is_noticed(check, name, edit):
    with pytest.raises(AssertionError):
        check(altered(name, *edit))
