"""The right law comes out: every process, every target, every sampler."""

from __future__ import annotations

import math
import pkgutil
from functools import lru_cache

import pytest
import torch

import steerable.samplers
from steerable.core.noise import Noise
from steerable.core.schedule import VePower
from steerable.core.target import TARGETS
from steerable.grids.log_snr import log_snr
from steerable.processes.ddpm import ddpm
from steerable.processes.edm import edm
from steerable.processes.flow import flow
from steerable.processes.score import score

from .checks import check_ancestral_law, exact_denoiser
from .worlds import F64, Kit, floor_w2, one_point, random_mixture, sliced_w2, spread_of

KIT = Kit()
SAMPLERS = sorted(module.name for module in pkgutil.iter_modules(steerable.samplers.__path__))
N = 4000
PROCESSES = {
    "ddpm linear": lambda d, **o: ddpm(d, **o),
    "ddpm cosine": lambda d, **o: ddpm(d, schedule="cosine", **o),
    "ddpm sigmoid": lambda d, **o: ddpm(d, schedule="sigmoid", **o),
    "score ve_power": lambda d, **o: score(d, **o),
    "score ve": lambda d, **o: score(d, sde="ve", sigma_max=50.0, **o),
    "score vp": lambda d, **o: score(d, sde="vp", **o),
    "edm": lambda d, **o: edm(d, **o),
    "flow": lambda d, **o: flow(d, **o),
}


@lru_cache(maxsize=1)
def _floor():
    """Real draws and the distance of two sets of them; the mixture does not ask for a schedule."""
    world = random_mixture(31, VePower(), dtype=torch.float32)
    return world.draw(N, torch.Generator().manual_seed(3)), floor_w2(world, N), spread_of(world)


def _distance(make, kind, options):
    real, floor, std = _floor()
    process = make(std, **options)
    world = random_mixture(31, process.schedule, dtype=torch.float32)
    times = log_snr(process.schedule, 6 if kind == "ode" else 50)  # it chooses its own between
    noise = Noise(torch.arange(N))
    x = process.start(times[0], noise, torch.zeros(N, 2))
    got = KIT.run(
        exact_denoiser(KIT, process, world),
        x,
        schedule=process.schedule,
        sampler=KIT.sampler(kind)(),
        times=times,
        noise=noise,
    )
    assert got.dtype == torch.float32
    return sliced_w2(got, real) / floor


FIRST = (
    "ancestral",
    "ddim",
    "euler",
    "heun",
    "dpmpp_2m",
)  # the others meet one process by default
PAIRS = [
    pytest.param(
        name,
        kind,
        marks=[] if kind in FIRST or (name == "flow" and kind != "ode") else pytest.mark.slow,
    )
    for name in PROCESSES
    for kind in SAMPLERS
]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_every_process_with_every_sampler_reaches_the_law(name, kind):
    """In float32 through the real denoiser, with the target that the process asks by itself."""
    ratio = _distance(PROCESSES[name], kind, {})
    assert ratio <= 3, f"sliced W2 is {ratio:.1f} x that of two real samples"


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", FIRST)
@pytest.mark.parametrize("name", PROCESSES)
def test_every_target_reaches_the_law(name, kind, target):
    ratio = _distance(PROCESSES[name], kind, {"target": target})
    assert ratio <= 3, f"sliced W2 is {ratio:.1f} x that of two real samples"


def test_a_zero_and_a_flipped_score_fail_the_same_measure():
    """The measure is not blind: broken answers are far outside of its room."""
    real, floor, std = _floor()
    process = flow(std)
    world = random_mixture(31, process.schedule, dtype=torch.float32)
    times = log_snr(process.schedule, 50)
    for broken in ("zero", "flipped"):

        def ask(x_t, t, broken=broken):
            exact = world(x_t, t, {})
            noise = 0 * exact.noise if broken == "zero" else -exact.noise
            return exact.with_x0((x_t - exact.sigma.to(x_t) * noise) / exact.alpha.to(x_t))

        x = process.start(times[0], Noise(torch.arange(N)), torch.zeros(N, 2))
        run = KIT.run(ask, x, schedule=process.schedule, sampler=KIT.sampler("ddim")(), times=times)
        assert sliced_w2(run, real) > 20 * floor


@pytest.mark.slow
@pytest.mark.parametrize("seed", [12, 13, 14])
def test_a_thousand_ancestral_steps_reproduce_unequal_modes(seed):
    """More items and other mixtures than in the shared check."""
    check_ancestral_law(KIT, seed, per_class=4000)


def _euler_maruyama(schedule, world, x, steps, noise):
    """As it is often written: equal steps in t, the last at t = 0, no Tweedie."""
    times = torch.linspace(1, 1e-3, steps, dtype=F64)
    dt = float(times[0] - times[1])
    for t in times:
        rate = 25.0 ** (2 * t)
        x = x + rate * world(x, t, {}).score * dt + rate.sqrt() * dt**0.5 * noise.normal(x)
    return x


def test_one_point_is_met_exactly_and_uniform_euler_maruyama_leaves_noise():
    schedule = VePower(25.0)
    point = torch.tensor([0.3, -0.7], dtype=F64)
    world = one_point(schedule, point)
    n = 500
    noise = Noise(torch.arange(n))
    x = 9.845 * noise.normal(torch.zeros(n, 2, dtype=F64))
    left = {
        steps: float((_euler_maruyama(schedule, world, x, steps, noise) - point).std())
        for steps in (50, 100, 250, 500)
    }
    assert min(left.values()) > 0.01, left
    times = log_snr(schedule, 50)
    start = float(schedule(times[0])[1]) * noise.normal(x)
    for kind in SAMPLERS:
        got = KIT.run(
            lambda x_t, t: world(x_t, t, {}),
            start,
            schedule=schedule,
            sampler=KIT.sampler(kind)(),
            times=times[::10] if kind == "ode" else times,
        )
        assert float((got - point).abs().max()) < 1e-6, kind


def test_tweedie_matters_for_a_narrow_mode_too():
    """A mode of std 0.001 keeps its std although the last level is sigma = 0.004."""
    schedule = VePower(25.0)
    world = one_point(schedule, torch.zeros(2, dtype=F64))
    narrow = type(world)(schedule, world.weights, world.means, world.stds + 1e-3)
    times = log_snr(schedule, 100)
    noise = Noise(torch.arange(4000))
    x = float(schedule(times[0])[1]) * noise.normal(torch.zeros(4000, 2, dtype=F64))
    got = KIT.run(
        lambda x_t, t: narrow(x_t, t, {}),
        x,
        schedule=schedule,
        sampler=KIT.sampler("heun")(),
        times=times,
    )
    assert float(got.std()) < 1e-3 * math.sqrt(1.1)


def _distances(schedule, seed, calls):
    """Distance to the law after as many calls, of Euler-Maruyama and with Langevin steps of 0.4."""
    world = random_mixture(seed, schedule)
    n = 10_000
    real = world.draw(n, torch.Generator().manual_seed(4))
    found = []
    for kind, options, steps in (
        ("euler_maruyama", {}, calls),
        ("predictor_corrector", {"snr": 0.4}, calls // 2),
    ):
        times = log_snr(schedule, steps)
        alpha, sigma = schedule(times[0])
        noise = Noise(torch.arange(n) + 1000 * seed)
        x = math.hypot(float(sigma), float(alpha) * spread_of(world)) * noise.normal(real)
        sampler = KIT.sampler(kind)(**options)
        x = KIT.run(
            lambda x_t, t: world(x_t, t, {}),
            x,
            schedule=schedule,
            sampler=sampler,
            times=times,
            noise=noise,
        )
        found.append(sliced_w2(x, real))
    return found


@pytest.mark.slow
def test_the_corrector_beats_its_predictor_at_equal_calls():
    """In 4 of 5 mixtures at least, at 60 calls and snr 0.4; not at 0.16, as the docstring says."""
    pairs = [_distances(VePower(), seed, 60) for seed in range(5)]
    assert sum(corrected < alone for alone, corrected in pairs) >= 4, pairs
