"""The checks of samplers, schedules and grids, as plain functions of a kit of modules.

The truth tests run them on the library, the mutant tests run them on altered copies of it.
"""

from __future__ import annotations

import importlib
import math
import pkgutil

import torch
from scipy import stats

from steerable.core.noise import Noise
from steerable.oracles.gaussian import Gaussian

from .worlds import (
    F64,
    Exact,
    Kit,
    one_point,
    random_mixture,
    reference_abar,
    spread_of,
)

# Every sampler of the room but the adaptive `ode`, whose calls depend on the data, with the calls
# of a step. A step of `restart` that passes its interval makes more.
CALLS = {
    "ancestral": 1,
    "ddim": 1,
    "deis": 1,
    "dpm2": 2,
    "dpmpp_2m": 1,
    "dpmpp_2m_sde": 1,
    "dpmpp_3m": 1,
    "er_sde": 1,
    "euler": 1,
    "euler_maruyama": 1,
    "heun": 2,
    "heun_churn": 2,
    "ipndm": 1,
    "lms": 1,
    "predictor_corrector": 2,
    "restart": 2,
    "smc": 1,
    "unipc": 1,
}
ORDERS = {
    "ddim": 1,
    "deis": 4,
    "dpm2": 2,
    "dpmpp_2m": 2,
    "dpmpp_3m": 3,
    "euler": 1,
    "heun": 2,
    "ipndm": 2,
    "lms": 4,
    "unipc": 4,
}
DETERMINISTIC = tuple(ORDERS)
# Options with which a sampler asks at the times of its steps only.
QUIET = {"heun_churn": {"churn": 0.0}, "restart": {"low": 0.001, "high": 0.002}}
GRIDS = "steerable.grids"
ONE_STEP = 64  # items of a coefficient test


def _readings(kit, sampler, schedule, t, s, answers, memory=None):
    """Coefficients of (x0 of every answer, x_t, fresh noise) in one step, and what does not fit."""
    g = torch.Generator().manual_seed(5)
    x_t = torch.randn(ONE_STEP, 1, generator=g, dtype=F64)
    x0 = [torch.randn(ONE_STEP, 1, generator=g, dtype=F64) for _ in range(answers)]
    left = iter(x0)

    def ask(x, time):
        return kit("core.types").Estimate(next(left), x, *schedule(time))

    seeds = torch.arange(ONE_STEP)
    before = None if memory is None else (x0[-1], memory)
    if before is not None:
        left = iter(x0[:-1])
    x_s, _ = sampler.step(ask, x_t, t, s, schedule, before, Noise(seeds))
    columns = torch.cat([*x0, x_t, Noise(seeds).normal(x_t)], 1)
    solution = torch.linalg.lstsq(columns, x_s).solution
    assert float((columns @ solution - x_s).abs().max()) < 1e-9, "the step is not linear"
    return [float(c) for c in solution[:, 0]]


def _near(got, want, tolerance=1e-6):
    off = max(abs(a - b) for a, b in zip(got, want, strict=True))
    assert off < tolerance, f"coefficients {got} instead of {want}"


def level_steps(levels):
    """Steps i -> i-1 of a DDPM with that many levels: all of them, or a selection."""
    return [i for i in (1, 2, 3, 10, 19, 250, 500, 900, 998, 999) if i < levels]


def check_posterior(kit: Kit) -> None:
    """One ancestral step is the closed-form posterior of DDPM, read off in float64."""
    for levels in (4, 20, 1000):
        for kind in ("linear", "cosine"):
            schedule = kit("core.schedule").Tabulated(kind, levels)
            abar = reference_abar(kind, levels)
            for i in level_steps(levels):
                a, before = abar[i], abar[i - 1]
                beta = 1 - a / before
                tilde = beta * (1 - before) / (1 - a)
                want = [
                    float(before.sqrt() * beta / (1 - a)),
                    float((1 - beta).sqrt() * (1 - before) / (1 - a)),
                    float(tilde.sqrt()),
                ]
                t, s = (torch.tensor((j + 1) / levels, dtype=F64) for j in (i, i - 1))
                _near(_readings(kit, kit.sampler("ancestral")(), schedule, t, s, 1), want)


def check_eta(kit: Kit) -> None:
    """Eta between 0 and 1 gives the variance of the paper, and leaves sigma_s in total."""
    for eta in (0.0, 0.3, 0.7):
        for levels in (4, 20, 1000):
            schedule = kit("core.schedule").Tabulated("linear", levels)
            abar = reference_abar("linear", levels)
            sampler = kit.sampler("ancestral")(eta)
            for i in level_steps(levels):
                a, b = abar[i], abar[i - 1]
                tau = eta * ((1 - b) / (1 - a)).sqrt() * (1 - a / b).sqrt()
                z = (1 - b - tau**2).sqrt() / (1 - a).sqrt()
                want = [float(b.sqrt() - z * a.sqrt()), float(z), float(tau)]
                t, s = (torch.tensor((j + 1) / levels, dtype=F64) for j in (i, i - 1))
                _near(_readings(kit, sampler, schedule, t, s, 1), want)


def check_exact_on_constant_answers(kit: Kit) -> None:
    """With one answer x0, every ODE solver makes the step of DDIM: the path is a straight line."""
    for kind in DETERMINISTIC:
        for levels in (4, 20, 1000):
            for table in ("linear", "cosine"):
                schedule = kit("core.schedule").Tabulated(table, levels)
                abar = reference_abar(table, levels)
                for i in level_steps(levels):
                    a, b = abar[i], abar[i - 1]
                    z = ((1 - b) / (1 - a)).sqrt()
                    want = [float(b.sqrt() - z * a.sqrt()), float(z), 0.0]
                    t, s = (torch.tensor((j + 1) / levels, dtype=F64) for j in (i, i - 1))
                    answers = CALLS[kind]
                    got = _readings(kit, kit.sampler(kind)(), schedule, t, s, answers)
                    _near([sum(got[:answers]), *got[answers:]], want)


def check_heun_coefficients(kit: Kit) -> None:
    """The two slopes of Heun's method count half each."""
    for schedule in (kit("core.schedule").VP(), kit("core.schedule").Flow()):
        t, s = torch.tensor(0.6, dtype=F64), torch.tensor(0.4, dtype=F64)
        (a_t, g_t), (a_s, g_s) = schedule(t), schedule(s)
        scale, rise = float(a_s / a_t), float(g_s - a_s / a_t * g_t)
        at_t, at_s = rise / (2 * float(g_t)), rise / (2 * float(g_s))
        # slope_s = (guess - alpha_s x0') / sigma_s with guess = scale x_t + rise slope_t
        through = at_s * rise / float(g_t)
        want = [
            -float(a_t) * (at_t + through),
            -float(a_s) * at_s,
            scale + at_t + at_s * scale + through,
            0.0,
        ]
        _near(_readings(kit, kit.sampler("heun")("ratio"), schedule, t, s, 2), want)
        # On the line x_t -> scale x_t + rise (v + v') / 2 with v = (x_t - (a + g) x0) / g.
        w_t, w_s = float(a_t + g_t), float(a_s + g_s)
        scale, rise = w_s / w_t, float(g_s) - w_s / w_t * float(g_t)
        at_t, at_s = rise / (2 * float(g_t)), rise / (2 * float(g_s))
        through = at_s * rise / float(g_t)
        want = [
            -w_t * (at_t + through),
            -w_s * at_s,
            scale + at_t + at_s * scale + through,
            0.0,
        ]
        _near(_readings(kit, kit.sampler("heun")(), schedule, t, s, 2), want)


def check_heun_from_afar(kit: Kit) -> None:
    """Five Heun steps from sigma / alpha = 10^4, where a grid in t begins, do not end in noise."""
    schedule = kit("core.schedule").Flow()
    mean = torch.tensor([0.7, -0.4], dtype=F64)
    world = Gaussian(schedule, mean, 0.09 * torch.eye(2, dtype=F64))
    times = kit.part("grids.uniform")(schedule, 5)
    x = Noise(torch.arange(500)).normal(torch.zeros(500, 2, dtype=F64))
    for kind in ("heun", "heun_churn", "restart"):
        got = kit.run(
            lambda x_t, u: world(x_t, u, {}),
            x,
            schedule=schedule,
            sampler=kit.sampler(kind)(),
            times=times,
        )
        std = float((got - mean).square().mean().sqrt())
        assert 0.2 < std < 0.4, f"{kind}: std {std:.2f} instead of 0.30"


def check_multistep_coefficients(kit: Kit) -> None:
    """DPM-Solver++(2M) weighs the last two answers as algorithm 2 of the paper."""
    for schedule in (kit("core.schedule").VP(), kit("core.schedule").VeGeometric()):
        t, s, last_h = torch.tensor(0.6, dtype=F64), torch.tensor(0.45, dtype=F64), 0.7
        (a_t, g_t), (a_s, g_s) = ([float(v) for v in schedule(u)] for u in (t, s))
        h = math.log(a_s / g_s) - math.log(a_t / g_t)
        r = last_h / h
        base = -a_s * (math.exp(-h) - 1)
        want = [base * (1 + 1 / (2 * r)), -base / (2 * r), g_s / g_t, 0.0]
        memory = torch.tensor(last_h, dtype=F64)
        got = _readings(kit, kit.sampler("dpmpp_2m")(), schedule, t, s, 2, memory)
        _near(got, want)


def measured_order(kit: Kit, sampler, schedule, *, exact_steps=None, up=False) -> float:
    """Slope of log error against log step on Gaussian data, inside the path, by regression.

    A multistep method is published with first steps of lower order, whose error would hide the
    order of the method; on a grid that begins at pure noise, where the path is straight, they cost
    next to nothing. So the history is started on exact values: the first order - 1 samples are put
    where the exact path is, as a constraint. That helps no method of a lower order than declared:
    all but three of its steps are its own.
    """
    if exact_steps is None:
        exact_steps = sampler.order - 1
    basis = torch.tensor([[1.0, 0.4], [-0.3, 0.8]], dtype=F64)
    world = Gaussian(schedule, torch.tensor([0.7, -0.4], dtype=F64), 0.5 * basis @ basis.mT)
    ends = torch.tensor([0.1, 6.0] if up else [6.0, 0.1], dtype=F64).log()
    t, s = schedule.time_at(ends)
    g = torch.Generator().manual_seed(3)
    x = float(schedule(t)[1]) * torch.randn(16, 2, generator=g, dtype=F64)
    exact = world.flow(x, t, s)
    errors = []
    counts = (24, 48, 96, 192)
    for steps in counts:
        share = torch.linspace(0, 1, steps + 1, dtype=F64)
        times = schedule.time_at(ends[0] + share * (ends[1] - ends[0]))
        begun = set(times[1 : 1 + exact_steps].tolist())

        def on_path(y, u, *_, begun=begun):
            return world.flow(x, t, u) if float(u) in begun else y

        moments = kit("core.sample").trajectory(
            lambda x_t, u: world(x_t, u, {}),
            x,
            schedule=schedule,
            sampler=sampler,
            times=times,
            noise=Noise(torch.arange(16)),
            constraints=[on_path],
        )
        got = list(moments)[-1].x
        errors.append(float((got - exact).square().mean().sqrt()))
    steps, errors = (torch.tensor(v, dtype=F64).log() for v in (counts, errors))
    steps, errors = steps - steps.mean(), errors - errors.mean()
    return -float((steps * errors).sum() / steps.square().sum())


def interior_schedules(kit: Kit):
    """One schedule of each family, for the order of a solver."""
    module = kit("core.schedule")
    return {"vp": module.VP(), "ve": module.VeGeometric(), "flow": module.Flow()}


def check_order(kit: Kit, kind: str) -> None:
    """A solver has the order that it declares, on every family of schedules."""
    sampler = kit.sampler(kind)()
    room = 0.15 if sampler.order == 1 else 0.2 if kind == "heun" else 0.1 + 0.1 * sampler.order
    for name, schedule in interior_schedules(kit).items():
        slope = measured_order(kit, sampler, schedule)
        assert abs(slope - sampler.order) < room, f"{kind} on {name}: {slope:.2f}"


def check_orders(kit: Kit) -> None:
    """The declared order; measured for four, whose coefficients `solvers` does not derive again."""
    for kind, order in ORDERS.items():
        assert kit.sampler(kind).order == order
    for kind in ("ddim", "euler", "heun", "dpmpp_2m"):
        check_order(kit, kind)


def check_one_point(kit: Kit) -> None:
    """Fifty steps onto one point from sigma 9.8 leave nothing, with any sampler."""
    schedule = kit("core.schedule").VePower(25.0)
    point = torch.tensor([0.3, -0.7], dtype=F64)
    world = one_point(schedule, point)
    times = kit.part("grids.log_snr")(schedule, 50)
    x = float(schedule(times[0])[1]) * Noise(torch.arange(200)).normal(point.expand(200, 2))
    for kind in CALLS:
        seeds = Noise(torch.arange(200) + 7)
        got = kit.run(
            lambda x_t, t: world(x_t, t, {}),
            x,
            schedule=schedule,
            sampler=kit.sampler(kind)(),
            times=times,
            noise=seeds,
        )
        assert float((got - point).abs().max()) < 1e-6, f"{kind} leaves noise"


def check_ancestral_law(kit: Kit, seed: int = 11, per_class: int = 2000) -> None:
    """A thousand ancestral steps give the weights, the spread and the class of a mixture."""
    schedule = kit("core.schedule").Tabulated("linear", 1000)
    world = random_mixture(seed, schedule)
    label = torch.arange(2).repeat_interleave(per_class)
    process = kit("core.process").Process(schedule, kit("core.target").Target("noise", 1.0))
    times = kit.part("grids.ddpm")(schedule, 1000)
    like = torch.zeros(2 * per_class, 2, dtype=F64)
    cond = {"label": label}

    def ask(x_t, t):
        exact = world(x_t, t, cond)
        return kit("core.types").Estimate(exact.x0, x_t, exact.alpha, exact.sigma)

    noise = Noise(torch.arange(len(label)) + 1000 * seed)
    x = process.start(times[0], noise, like)
    sampler = kit.sampler("ancestral")()
    x = kit.run(ask, x, schedule=schedule, sampler=sampler, times=times, noise=noise)
    nearest = (x[:, None] - world.means[None]).square().sum(-1).argmin(1)
    accuracy = (world.labels[nearest] == label).to(F64).mean()
    assert accuracy >= 0.99, f"class accuracy {accuracy:.3f}"
    for k in range(2):
        mine, weights = label == k, world.weights * (world.labels == k)
        weights = weights / weights.sum()
        got = torch.bincount(nearest[mine], minlength=len(weights)) / per_class
        error = (weights * (1 - weights) / per_class).sqrt()
        off = ((got - weights).abs() - 4 * error).max()
        assert off <= 0, f"mode weights {got.tolist()} instead of {weights.tolist()}"
        centre = (weights[:, None] * world.means).sum(0)
        variance = (
            weights[:, None] * ((world.means - centre) ** 2 + world.stds[:, None] ** 2)
        ).sum(0)
        ratio = float(x[mine].var(0).sum().sqrt() / variance.sum().sqrt())
        assert abs(ratio - 1) < 0.03, f"overall std {ratio:.3f} of the exact one"


def check_tables(kit: Kit) -> None:
    """T = 1000 is the published table in float64; T = 20 and 4 read the same curve."""
    for kind in ("linear", "cosine"):
        for levels in (4, 20, 1000):
            schedule = kit("core.schedule").Tabulated(kind, levels)
            t = torch.arange(1, levels + 1, dtype=F64) / levels
            alpha, sigma = schedule(t)
            abar = reference_abar(kind, levels)
            off = max(
                float((alpha**2 - abar).abs().max()), float((sigma**2 - 1 + abar).abs().max())
            )
            assert off < 1e-12, f"{kind} T={levels}: abar is off by {off:.1e}"


def check_grids(kit: Kit) -> None:
    """Every grid starts at noise, ends at the data exactly, falls, and has N steps.

    `repaint` is what it is only by climbing; without repeats it is held to the same.
    """
    kinds = [m.name for m in pkgutil.iter_modules(importlib.import_module(GRIDS).__path__)]
    assert len(kinds) >= 4
    schedules = kit("core.schedule")
    for schedule in (schedules.VP(), schedules.VePower(), schedules.Tabulated("cosine", 1000)):
        for name in kinds:
            make = kit.part(f"grids.{name}")
            for steps in (1, 2, 7, 50):
                levels = schedule.level(torch.linspace(1, 1 / steps, steps, dtype=F64))
                own = {"optimised": {"tables": {steps: levels.tolist()}}, "repaint": {"repeats": 1}}
                options = own.get(name, {})
                times = make(schedule, steps, **options)
                assert times.shape == (steps + 1,) and times.dtype == F64
                assert times[-1] == 0 and times[0] <= 1 and bool((times.diff() < 0).all()), name
    for schedule in (schedules.VP(), schedules.VeGeometric(), schedules.Flow()):
        high, low = (float(v) for v in schedule.level(torch.tensor([1.0, 0.0], dtype=F64)))
        high, low = min(high, math.log(160)), max(low, math.log(0.004))
        levels = schedule.level(kit.part("grids.log_snr")(schedule, 12)[:-1])
        want = torch.linspace(high, low, 12, dtype=F64)
        assert float((levels - want).abs().max()) < 1e-7, "log_snr steps are not equal"
        levels = schedule.level(kit.part("grids.karras")(schedule, 12)[:-1])
        i = torch.arange(12, dtype=F64) / 11
        a, b = math.exp(high) ** (1 / 7), math.exp(low) ** (1 / 7)
        want = 7 * torch.log(a + i * (b - a))
        assert float((levels - want).abs().max()) < 1e-7, "not the formula of EDM"


def check_ddpm_grid(kit: Kit) -> None:
    """Integer levels as published: arXiv 2305.08891, table 2, counted from 1."""
    schedule = kit("core.schedule").Tabulated("linear", 1000)
    table = {
        "leading": [901, 801, 701, 601, 501, 401, 301, 201, 101, 1],
        "linspace": [1000, 889, 778, 667, 556, 445, 334, 223, 112, 1],
        "trailing": [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100],
    }
    for spacing, want in table.items():
        times = kit.part("grids.ddpm")(schedule, 10, spacing=spacing)
        assert (times[:-1] * 1000).round().tolist() == want, spacing
        assert float(((times * 1000) - (times * 1000).round()).abs().max()) < 1e-9
    for steps in (3, 7, 30, 333, 600, 999, 1000):
        times = kit.part("grids.ddpm")(schedule, steps) * 1000
        want = torch.round(1000 - torch.arange(steps, dtype=F64) * (1000 / steps))
        assert float((times[:-1] - want).abs().max()) < 1e-9, f"trailing, {steps} steps"


def check_calls(kit: Kit) -> None:
    """N steps ask as often as CALLS says, the last step once, and yield N moments.

    One call is at the time of the step; of two, the second is at its end (Heun), in the middle in
    log(sigma / alpha) (DPM-Solver-2), or at the same time (the corrector)."""
    schedule = kit("core.schedule").VP()
    world = one_point(schedule, torch.zeros(1, dtype=F64))
    for kind, calls in CALLS.items():
        asked = []

        def ask(x_t, t, asked=asked):
            asked.append(float(t))
            return world(x_t, t, {})

        times = kit.part("grids.log_snr")(schedule, 9)
        moments = list(
            kit("core.sample").trajectory(
                ask,
                torch.ones(3, 1, dtype=F64),
                schedule=schedule,
                sampler=kit.sampler(kind)(**QUIET.get(kind, {})),
                times=times,
                noise=Noise(torch.arange(3)),
            )
        )
        assert [m.i for m in moments] == list(range(1, 10))
        assert [m.t for m in moments] == times[1:].tolist()
        first = times[:-1].tolist()
        second = list(first[1:])
        if kind == "dpm2":
            levels = schedule.level(times[:-1])
            second = schedule.time_at((levels[1:] + levels[:-1]) / 2).tolist()
        elif kind == "predictor_corrector":
            second = first[:-1]
        want = [t for pair in zip(first, second, strict=False) for t in pair] + first[-1:]
        want = want if calls == 2 else first
        assert len(asked) == len(want), f"{kind} asked {len(asked)} times"
        off = max(abs(a - b) for a, b in zip(asked, want, strict=True))
        assert off < 1e-12, f"{kind} asked at other times"


def check_climb(kit: Kit) -> None:
    """A climb renoises: mean scale * x_t and the variance that is missing, also from the data."""
    for name, schedule in interior_schedules(kit).items():
        world = one_point(schedule, torch.zeros(1, dtype=F64))
        for low, high in ((0.2, 0.5), (0.5, 0.8), (0.0, 0.3)):
            t, s = (torch.tensor(v, dtype=F64) for v in (low, high))
            (a_t, g_t), (a_s, g_s) = ([float(v) for v in schedule(u)] for u in (t, s))
            if low == 0:  # a sample that has arrived is data: Tweedie left no noise in it
                a_t, g_t = 1.0, 0.0
            x = torch.full((20_000, 1), 2.0, dtype=F64)
            got = kit.run(
                lambda x_t, u, world=world: world(x_t, u, {}),
                x,
                schedule=schedule,
                sampler=kit.sampler("ancestral")(),
                times=torch.stack([t, s]),
            )
            mean, variance = 2.0 * a_s / a_t, g_s**2 - (a_s / a_t * g_t) ** 2
            error = math.sqrt(variance / 20_000)
            assert abs(float(got.mean()) - mean) < 4 * error, f"{name}: mean of a climb"
            ratio = float((got - mean).square().mean()) / variance
            assert abs(ratio - 1) < 4 * math.sqrt(2 / 20_000), f"{name}: variance of a climb"


def check_estimate(kit: Kit) -> None:
    """noise, score and velocity agree with x0 and with autograd of the exact log density."""
    schedule = kit("core.schedule").VP()
    world = random_mixture(4, schedule)
    g = torch.Generator().manual_seed(8)
    t = torch.tensor(0.35, dtype=F64)
    alpha, sigma = schedule(t)
    x = world.draw(50, g) * alpha + sigma * torch.randn(50, 2, generator=g, dtype=F64)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(world.log_joint(x, t, {}).logsumexp(1).sum(), x)
    x = x.detach()
    estimate = kit("core.types").Estimate(world(x, t, {}).x0, x, alpha, sigma)
    assert float((estimate.score - grad).abs().max()) < 1e-9, "the score is not grad log p"
    again = alpha * estimate.x0 + sigma * estimate.noise
    assert float((again - x).abs().max()) < 1e-12
    assert float((estimate.velocity - (estimate.noise - estimate.x0)).abs().max()) < 1e-12
    tweedie = (x + sigma**2 * estimate.score) / alpha
    assert float((tweedie - estimate.x0).abs().max()) < 1e-12


def check_fresh_noise(kit: Kit) -> None:
    """The numbers are standard normal, in every item and over the items."""
    noise = kit("core.noise").Noise(torch.arange(400) + 17)
    z = noise.normal(torch.zeros(400, 501, dtype=F64))
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    assert float(z.mean(1).abs().max()) < 4.5 / math.sqrt(501)


def exact_denoiser(kit: Kit, process, world):
    """The denoiser whose backbone is never wrong, as (x_t, t) -> Estimate."""
    denoiser = kit("core.denoise").Denoiser(process, Exact(process, world), {})
    return lambda x_t, t: denoiser(x_t, t, {})


def check_level_told(kit: Kit) -> None:
    """Through the whole denoiser on a respaced grid the oracle's x0 comes back: same level."""
    for kind in ("linear", "cosine"):
        schedule = kit("core.schedule").Tabulated(kind, 1000)
        world = random_mixture(2, schedule)
        process = kit("core.process").Process(
            schedule, kit("core.target").Target("noise", spread_of(world))
        )
        ask = exact_denoiser(kit, process, world)
        for t in kit.part("grids.ddpm")(schedule, 17)[:-1]:
            x_t = process.noised(
                world.draw(9, torch.Generator().manual_seed(1)), t, torch.ones(9, 2, dtype=F64)
            )
            off = float((ask(x_t, t).x0 - world(x_t, t, {}).x0).abs().max())
            assert off < 1e-6, f"the network is told another level at t={float(t):.3f}"


def check_closed_forms(kit: Kit) -> None:
    """The continuous schedules are those of their papers, and `time_at` undoes `level`."""
    module = kit("core.schedule")
    t = torch.linspace(0, 1, 101, dtype=F64)
    late = 1e-5 + (1 - 1e-5) * t
    integral = torch.stack(  # of beta(u) = 0.1 + 19.9 u up to t, by Simpson's rule
        [u / 6 * (0.1 + 4 * (0.1 + 19.9 * u / 2) + 0.1 + 19.9 * u) for u in late]
    )
    power = ((25.0 ** (2 * late) - 1) / (2 * math.log(25.0))).sqrt()
    rho = (0.002 ** (1 / 7) + t * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7
    line = 1e-4 + (1 - 2e-4) * t
    want = {
        module.VP(): ((-integral / 2).exp(), (1 - (-integral).exp()).sqrt()),
        module.VePower(): (torch.ones_like(t), power),
        module.VeGeometric(): (torch.ones_like(t), 0.01 * 5000.0**t),
        module.Edm(): (torch.ones_like(t), rho),
        module.Flow(): (1 - line, line),
    }
    for schedule, pair in want.items():
        for got, exact in zip(schedule(t), pair, strict=True):
            off = float((got / exact - 1).abs().max())
            assert off < 1e-9, f"{schedule}: off by {off:.1e}"
        back = schedule.time_at(schedule.level(t))
        assert float((back - t).abs().max()) < 1e-10, f"{schedule}: time_at"
        assert float(schedule.time_at(torch.tensor(1e3))) == 1
        assert float(schedule.time_at(torch.tensor(-1e3))) == 0


def check_targets(kit: Kit) -> None:
    """Every target asks what its paper asks, and x0 comes back from the answer."""
    module = kit("core.schedule")
    g = torch.Generator().manual_seed(1)
    x0, z = torch.randn(2, 40, generator=g, dtype=F64)
    d = 0.6
    t = torch.linspace(0.02, 0.98, 40, dtype=F64)
    for schedule in (module.VP(), module.VePower(), module.Flow(), module.Tabulated("cosine", 50)):
        a, s = schedule(t)
        x_t = a * x0 + s * z
        rho = (a**2 + s**2).sqrt()
        sigma = s / a  # EDM knows alpha = 1 only: x = x_t / alpha has the noise s / alpha
        skip, out = d**2 / (sigma**2 + d**2), sigma * d / (sigma**2 + d**2).sqrt()
        asked = {
            "x0": x0,
            "noise": z,
            "v": (a * z - s * x0) / rho,
            "flow": z - x0,
            "edm": (x0 - skip * x_t / a) / out,
        }
        for kind, want in asked.items():
            c_in, c_skip, c_out = kit("core.target").Target(kind, d)(a, s)
            got = (x0 - c_skip * x_t) / c_out
            assert float((got - want).abs().max()) < 1e-8, f"{kind} asks something else"
            assert float((c_skip * x_t + c_out * got - x0).abs().max()) < 1e-10
            assert float((c_in * (s**2 + (a * d) ** 2).sqrt() - 1).abs().max()) < 1e-12
