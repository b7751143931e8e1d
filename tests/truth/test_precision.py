"""What is left of float32, float16 and bfloat16 in every sampler, guidance and constraint."""

from __future__ import annotations

import pytest
import torch

from steerable.core.noise import Noise
from steerable.core.sample import trajectory
from steerable.core.schedule import VP, Edm, Flow, Tabulated, VeGeometric, VePower
from steerable.core.types import Estimate
from steerable.grids.karras import karras
from steerable.grids.log_snr import log_snr
from steerable.grids.uniform import uniform
from steerable.oracles.gaussian import Gaussian

from ..conformance.rooms import built, files, options_at_work, part, world_context
from .worlds import F64, random_mixture

SAMPLERS, GUIDANCES, CONSTRAINTS = (files(r) for r in ("samplers", "guidance", "constraints"))
HALVES = (torch.float16, torch.bfloat16)
PROCESSES = {
    "flow": Flow(),
    "vp": VP(),
    "edm": Edm(),
    "geometric": VeGeometric(),
    "power": VePower(),
    "linear": Tabulated(),
    "cosine": Tabulated("cosine"),
}
GRIDS = (uniform, log_snr, karras)
ITEMS = 16
SEEDS = torch.arange(ITEMS)


def _as(x, dtype):
    """The numbers of x as that precision holds them, in float64."""
    return x.to(dtype).to(F64)


def _end(kind, schedule, times, *, dtype, network=None, state=F64, **options):
    """The sample before the last step, computed in `dtype`, and the largest number on the way.

    The exact network gets and gives numbers of the precision `network`; the sample is cut to the
    precision `state` after each step.
    """
    mean = torch.tensor([0.3, -0.2], dtype=F64)
    world = Gaussian(schedule, mean, torch.tensor([[0.3, 0.1], [0.1, 0.2]], dtype=F64))
    network = network or dtype

    def ask(x_t, t):
        x0 = world(_as(x_t, network), t, {}).x0
        return Estimate(_as(x0, network).to(x_t.dtype), x_t, *schedule(t))

    def cut(x_s, s, schedule, noise):
        return x_s if dtype != F64 else _as(x_s, state)

    start = Noise(SEEDS).normal(torch.zeros(ITEMS, 2, dtype=F64)) * float(schedule(times[0])[1])
    moments = trajectory(
        ask,
        _as(start, torch.bfloat16).to(dtype),
        schedule=schedule,
        sampler=part("samplers", kind)(**options),
        times=times[:-1],
        noise=Noise(SEEDS + 9),
        constraints=[cut],
    )
    return list(moments)[-1].x.to(F64)


def _apart(a, b):
    """Largest difference, relative to the largest number."""
    return float((a - b).abs().max() / b.abs().max())


OPTIONS = {
    "ancestral": ({}, {"eta": 0.5}),
    "deis": ({}, {"variable": "log_ratio", "solver_order": 2}),
    "dpmpp_2m_sde": ({}, {"solver": "heun"}, {"eta": 0.0}),
    "er_sde": ({}, {"fresh": "none"}, {"fresh": "full"}),
    "heun": ({}, {"variable": "ratio"}),
    "ode": ({"rtol": 0.03, "atol": 0.03},),  # a tolerance below the network's rounding has no end
    "unipc": ({}, {"solver_order": 2}, {"variant": "bh1"}),
}


def most(names, quick):
    """All of them; those that are not `quick` among the slow tests."""
    return [n if n == quick else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("process", most(PROCESSES, "flow"))
@pytest.mark.parametrize("kind", SAMPLERS)
def test_float32_keeps_what_its_network_and_its_state_leave(kind, process):
    """A few steps against float64, no farther off than 4 times what cannot be helped.

    That is what the exact arithmetic loses when the network's numbers and the sample after each
    step are those of float32: near epsilon, and more where a long step of a solver of high order
    weighs the difference of two answers heavily. The last step is Tweedie's for all and left out.
    """
    schedule, eps = PROCESSES[process], torch.finfo(torch.float32).eps
    for options in OPTIONS.get(kind, ({},)):
        for grid in GRIDS[1:2] if kind == "ode" else GRIDS:
            for steps in (2,) if kind == "ode" else (2, 3, 5):
                times = grid(schedule, steps)
                run = {"dtype": F64, **options}
                exact = _end(kind, schedule, times, **run)
                cut = _end(kind, schedule, times, network=torch.float32, state=torch.float32, **run)
                single = _end(kind, schedule, times, **{**run, "dtype": torch.float32})
                bound = 4.0 * (_apart(cut, exact) + eps)
                off = _apart(single, exact)
                assert off < bound, f"{options} {grid.__name__} {steps}: {off / eps:.1f} eps"
                assert off < 256 * eps


@pytest.mark.parametrize("kind", ["deis", "euler", "ipndm", "lms"])
def test_two_steps_of_a_flow_keep_the_digits_of_ddim(kind):
    """At t = 1 the ratio is 10^4, and x / alpha in float32 had no more than three digits."""
    times = uniform(Flow(), 2)
    exact = _end("ddim", Flow(), times, dtype=F64)
    ddim = _apart(_end("ddim", Flow(), times, dtype=torch.float32), exact)
    assert _apart(_end(kind, Flow(), times, dtype=torch.float32), exact) <= 2.0 * ddim < 1e-6


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("process", most(["flow", "vp", "edm", "cosine"], "flow"))
@pytest.mark.parametrize("kind", SAMPLERS)
def test_half_precision_is_rounded_once(kind, process, dtype):
    """Against float64 with a network of half precision: the sampler itself adds one rounding.

    A question that comes to lie on the other side of a rounding changes its answer by one unit, as
    much as cutting the sample to float32 after each step does in float64.
    """
    schedule, eps = PROCESSES[process], torch.finfo(dtype).eps
    for options in OPTIONS.get(kind, ({},)):
        for grid in GRIDS[1:2] if kind == "ode" else GRIDS:
            times = grid(schedule, 2 if kind == "ode" else 3)
            exact = _end(kind, schedule, times, dtype=F64, network=dtype, **options)
            cut = _end(
                kind, schedule, times, dtype=F64, network=dtype, state=torch.float32, **options
            )
            half = _end(kind, schedule, times, dtype=dtype, **options)
            off, flips = _apart(half, exact), _apart(cut, exact)
            assert off < eps + 4.0 * flips, f"{options} {grid.__name__}: {off / eps:.1f} eps"


def _scene():
    world = random_mixture(21, VP())
    x = 9.0 * torch.randn(6, 2, generator=torch.Generator().manual_seed(2), dtype=F64)
    context = world_context(world, log_snr(world.schedule, 12), 6)
    return world, x, {"label": torch.tensor([0, 1, 0, 1, 0, 1])}, context


def _rounding(world, network, answers):
    """The mixture as a network whose questions and answers are of the precision `network`."""

    def denoise(x_t, t, cond):
        estimate = world(x_t.to(network).to(F64), t, cond)
        return Estimate(estimate.x0.to(network).to(answers), x_t, estimate.alpha, estimate.sigma)

    return denoise


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kind", GUIDANCES)
def test_guidance_of_half_precision_rounds_its_answer_only(kind, dtype):
    """Against the same guidance of the same half-precision network in float64, over two steps."""
    world, x, cond, context = _scene()
    x = _as(x, dtype)
    answers = []
    for precision in (F64, dtype):
        network = _rounding(world, dtype, precision)
        inner = {**context, "weaker": lambda path, n=network: n, **_classified(world, precision)}
        guided = built("guidance", kind, inner, **options_at_work("guidance", kind))(network)
        ends = [guided(x.to(precision), torch.tensor(t, dtype=F64), cond) for t in (0.5, 0.4)]
        assert all(e.x0.dtype == e.x_t.dtype == precision for e in ends)
        answers.append(torch.stack([e.x0.to(F64) for e in ends]))
    exact, half = answers
    off = ((half - exact).abs() / exact.abs().amax(-1, keepdim=True)).max()
    assert float(off) < 4 * torch.finfo(dtype).eps, f"{float(off) / torch.finfo(dtype).eps:.1f}"


def _classified(world, precision):
    """A classifier that has learned in float64, whatever it is asked in."""
    log_p = world_context(world, log_snr(world.schedule, 12), 6)["classifier"]("")
    return {"classifier": lambda path: lambda x_t, t, cond: log_p(x_t.to(F64), t, cond)}


# Pictures so large that sums of squares over them pass 65504, where float16 ends.
LARGE, CONTRAST = (3, 128, 128), 8.0


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kind", GUIDANCES)
def test_guidance_of_large_pictures_does_not_overflow(kind, dtype):
    """A linear network of two conditions, whose answers are exact in every precision."""
    schedule = VP()
    g = torch.Generator().manual_seed(3)
    x = CONTRAST * torch.randn(2, *LARGE, generator=g, dtype=F64).to(torch.bfloat16).to(F64)
    picture = torch.randn(2, *LARGE, generator=g, dtype=F64).to(torch.bfloat16).to(F64)

    def network(x_t, t, cond):
        x0 = (0.5 if cond else 0.25) * x_t
        return Estimate(x0, x_t, *schedule(t))

    answers = []
    for precision in (F64, dtype):
        context = {
            "schedule": schedule,
            "times": log_snr(schedule, 12),
            "written": lambda cond: {"label": torch.ones(2, dtype=torch.int64)},
            "weaker": lambda path: lambda x_t, at, cond: network(x_t, at, {}),
            "classifier": lambda path: lambda x_t, t, cond: 0.1 * x_t.flatten(1).mean(1),
            "score": lambda x0: -x0.square().flatten(1).mean(1),
            "operator": built("operators", "inpaint", {"mask": torch.zeros(2, *LARGE, dtype=F64)}),
            "measured": picture,
        }
        guidance = built("guidance", kind, context, **options_at_work("guidance", kind))
        t = torch.tensor(0.5, dtype=F64)
        end = guidance(network)(x.to(precision), t, {"label": torch.zeros(2, dtype=torch.int64)})
        answers.append(end.x0.to(F64))
    exact, half = answers
    assert bool(half.isfinite().all())
    off = float((half - exact).abs().max() / exact.abs().max()) / torch.finfo(dtype).eps
    assert off < 4.0, f"{off:.1f} units"


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("quantile", [0.9, 0.995, 1.0])
def test_threshold_works_in_half_precision(quantile, dtype):
    """The dynamic one too, whose quantile torch has in float32 and float64 only."""
    made = part("guidance", "threshold")(quantile=quantile)
    x = 3.0 * torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=F64)
    x, one = _as(x, dtype), torch.ones(())
    ends = [
        made(lambda x_t, t, cond: Estimate(x_t, x_t, one, one))(v, torch.tensor(0.5), {}).x0
        for v in (x, x.to(dtype))
    ]
    assert float((ends[1].to(F64) - ends[0]).abs().max()) < torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("time", [0.5, 0.0])
@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_a_constraint_of_half_precision_rounds_once(kind, time, dtype):
    g = torch.Generator().manual_seed(5)
    x, picture = (torch.randn(3, 2, 8, 8, generator=g, dtype=F64) for _ in range(2))
    x, picture = _as(x, dtype), _as(picture, dtype)
    mask = torch.zeros(3, 1, 8, 8, dtype=F64)
    mask[..., 4:] = 1.0
    made = built("constraints", kind, {"image": picture, "mask": mask, "reference": picture})
    s = torch.tensor(time, dtype=F64)
    exact, half = (made(v, s, VP(), Noise(torch.arange(3))) for v in (x, x.to(dtype)))
    assert half.dtype == dtype
    assert float((half.to(F64) - exact).abs().max()) < 4 * torch.finfo(dtype).eps
