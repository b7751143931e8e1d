"""Samplers: their options, the loop over the steps, and what is remembered when a grid climbs."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from .. import solvers

F64 = torch.float64
ITEMS = 6


class Curve:
    """A denoiser whose answer depends on place and level in a smooth way, and its calls."""

    def __init__(self, kit, schedule):
        self.kit, self.schedule, self.calls = kit, schedule, []

    def x0(self, x_t, alpha, sigma):
        return torch.tanh(0.8 * x_t / torch.hypot(alpha, sigma)) + 0.3 * torch.cos(3.0 * sigma)

    def __call__(self, x_t, t):
        self.calls.append(float(t))
        alpha, sigma = self.schedule(t)
        return self.kit("core.types").Estimate(self.x0(x_t, alpha, sigma), x_t, alpha, sigma)


def noise_of(kit, n=ITEMS):
    return kit("core.noise").Noise(torch.arange(n) + 11)


def scene(kit, ratios=(30.0, 11.0, 5.0, 1.7, 0.9, 0.35)):
    """A schedule whose alpha and sigma both vary, times on it, and a start."""
    schedule = kit("core.schedule").Flow()
    times = schedule.time_at(torch.tensor(ratios, dtype=F64).log())
    g = torch.Generator().manual_seed(2)
    return schedule, times, torch.randn(ITEMS, 2, generator=g, dtype=F64)


def close(got, want, what, room=1e-8):
    off = float((got - want).abs().max())
    assert off < room, f"{what}: off by {off:.1e}"


def one_step(kit, sampler, t, s, schedule, x):
    """x_s of one step without memory, and a denoiser to write the step down with."""
    ask = Curve(kit, schedule)
    x_s, _ = sampler.step(ask, x, t, s, schedule, None, noise_of(kit))
    return x_s, ask


def check_ancestral(kit) -> None:
    """Each eta against the variance of the forward process, in y = x / alpha."""
    schedule, times, x = scene(kit)
    z = noise_of(kit).normal(x)
    for eta in (0.0, 0.3, 1.0):
        for t, s in pairwise(times):
            got, ask = one_step(kit, kit.part("samplers.ancestral")(eta), t, s, schedule, x)
            (a_t, g_t), (a_s, g_s) = schedule(t), schedule(s)
            v_t, v_s = (g_t / a_t) ** 2, (g_s / a_s) ** 2
            x0 = ask.x0(x, a_t, g_t)
            fresh = eta**2 * v_s * (v_t - v_s) / v_t
            y = x0 + torch.sqrt((v_s - fresh) / v_t) * (x / a_t - x0) + torch.sqrt(fresh) * z
            close(got, a_s * y, f"ancestral {eta}")
    assert kit.part("samplers.ancestral")().eta == 1.0


def check_first_order(kit) -> None:
    """`ddim`, `euler` and the first step of every multistep solver of an ODE are straight."""
    schedule, times, x = scene(kit)
    for kind in ("ddim", "euler", "dpmpp_2m", "dpmpp_3m", "unipc", "lms", "deis", "ipndm"):
        for t, s in pairwise(times):
            got, ask = one_step(kit, kit.part(f"samplers.{kind}")(), t, s, schedule, x)
            (a_t, g_t), (a_s, g_s) = schedule(t), schedule(s)
            x0 = ask.x0(x, a_t, g_t)
            close(got, a_s * x0 + g_s * (x - a_t * x0) / g_t, kind)
            assert ask.calls == [float(t)]


def check_two_estimates(kit) -> None:
    """`dpmpp_2m` integrates the line through the last two x0, of half the slope as published."""
    schedule, times, x = scene(kit)
    sampler, memory, want, before = kit.part("samplers.dpmpp_2m")(), None, x, None
    for t, s in pairwise(times):
        (a_t, g_t), (a_s, g_s) = schedule(t), schedule(s)
        ask = Curve(kit, schedule)
        x, memory = sampler.step(ask, x, t, s, schedule, memory, noise_of(kit))
        level, h = (g_t / a_t).log(), (g_t / a_t).log() - (g_s / a_s).log()
        x0 = ask.x0(want, a_t, g_t)
        slope = (x0 - before[1]) / (before[0] - level) if before else 0.0 * x0
        want = g_s / g_t * want - a_s * torch.expm1(-h) * (x0 + h / 2 * slope)
        before = (level, x0)
        close(x, want, "dpmpp_2m")


def heun(ask, x, t, s, schedule, line):
    """Heun's method in y over u, both of which depend on the variable."""
    (a_t, g_t), (a_s, g_s) = schedule(t), schedule(s)
    n_t, n_s = (a_t + g_t, a_s + g_s) if line else (a_t, a_s)

    def slope(y, alpha, sigma):
        x0 = ask.x0(y, alpha, sigma)
        z = (y - alpha * x0) / sigma
        return z - x0 if line else z

    h = g_s / n_s - g_t / n_t
    first = slope(x, a_t, g_t)
    second = slope(n_s * (x / n_t + h * first), a_s, g_s)
    return n_s * (x / n_t + h * (first + second) / 2)


def check_heun(kit) -> None:
    """Both variables of `heun`."""
    schedule, times, x = scene(kit)
    for variable in ("line", "ratio"):
        for t, s in pairwise(times):
            got, ask = one_step(kit, kit.part("samplers.heun")(variable), t, s, schedule, x)
            close(got, heun(ask, x, t, s, schedule, variable == "line"), variable)
            assert ask.calls == [float(t), float(s)]
    assert kit.part("samplers.heun")().variable == "line"


def check_churn(kit) -> None:
    """Each option of `heun_churn` by itself, against algorithm 2 on the line."""
    schedule, times, x = scene(kit)
    z = noise_of(kit).normal(x)
    known = {"churn": 0.15625, "churn_min": 0.05, "churn_max": 50.0, "churn_noise": 1.003}
    cases = [{}, {"churn": 0.4}, {"churn": 0.0}, {"churn_min": 2.0}, {"churn_max": 2.0}]
    for options in [*cases, {"churn_noise": 0.9}]:
        o = known | options
        sampler = kit.part("samplers.heun_churn")(**options)
        for t, s in pairwise(times):
            got, ask = one_step(kit, sampler, t, s, schedule, x)
            a_t, g_t = schedule(t)
            r = float(g_t / a_t)
            y, u = x, t
            if o["churn"] and o["churn_min"] <= r <= o["churn_max"]:
                higher = torch.tensor(math.log(r * (1 + o["churn"])), dtype=F64)
                u = schedule.time_at(higher)
                a_u, _ = schedule(u)
                std = o["churn_noise"] * r * math.sqrt((1 + o["churn"]) ** 2 - 1)
                y = a_u * (x / a_t + std * z)
            close(got, heun(ask, y, u, s, schedule, True), f"heun_churn {options} {r}", 1e-8)


def check_restart(kit) -> None:
    """Each option of `restart` by itself: Heun down, up with the missing noise, down again."""
    schedule, times, x = scene(kit, (9.0, 4.0, 1.0, 0.4, 0.1, 0.05))
    known = {"low": 0.12, "high": 0.6, "repeats": 2, "inner": 3}
    cases = [{}, {"low": 0.5}, {"high": 3.0}, {"repeats": 1}, {"repeats": 4}, {"inner": 1}]
    for options in [*cases, {"inner": 5}, {"low": 0.45, "high": 0.9}]:
        o = known | options
        sampler = kit.part("samplers.restart")(**options)
        passed = 0
        for t, s in pairwise(times):
            got, ask = one_step(kit, sampler, t, s, schedule, x)
            want, noise = heun(ask, x, t, s, schedule, True), noise_of(kit)
            r_t, r_s = (math.exp(float(schedule.level(v))) for v in (t, s))
            if r_t > o["low"] >= r_s - 1e-12:
                passed += 1
                levels = torch.linspace(math.log(o["high"]), math.log(r_s), o["inner"] + 1)
                ladder = [*schedule.time_at(levels.double())[:-1], s]
                exact = np.geomspace(o["high"], r_s, o["inner"] + 1)
                ladder[:-1] = schedule.time_at(torch.tensor(exact).log())[:-1]
                for _ in range(o["repeats"]):
                    (a_s, _), (a_u, _) = schedule(s), schedule(ladder[0])
                    fresh = math.sqrt(exact[0] ** 2 - r_s**2) * noise.normal(x)
                    want = a_u * (want / a_s + fresh)
                    for u, v in pairwise(ladder):
                        want = heun(ask, want, u, v, schedule, True)
            close(got, want, f"restart {options} {r_t:.2f} -> {r_s:.2f}", 1e-7)
        assert passed == 1, f"the interval is passed once: {options}"
    with pytest.raises(kit("core.errors").UserError, match=r"above low = 0\.5"):
        kit.part("samplers.restart")(0.5, 0.5)


def check_langevin(kit) -> None:
    """The corrector's number of steps, its length, and the length that it does not go below."""
    schedule, times, x = scene(kit)
    known = {"corrector_steps": 1, "snr": 0.16, "detail": 0.0}
    cases = [{}, {"corrector_steps": 0}, {"corrector_steps": 3}, {"snr": 0.4}, {"detail": 0.7}]
    for options in [*cases, {"detail": 0.3, "snr": 0.3, "corrector_steps": 2}]:
        o = known | options
        sampler = kit.part("samplers.predictor_corrector")(**options)
        for t, s in pairwise(times):
            got, ask = one_step(kit, sampler, t, s, schedule, x)
            noise, want = noise_of(kit), x
            (a_t, g_t), a_s = schedule(t), schedule(s)[0]
            long = 2 * float(a_t / a_s) ** 2 * (o["snr"] * float(g_t)) ** 2
            eps = max(long, 2 * (o["snr"] * o["detail"]) ** 2)
            for _ in range(o["corrector_steps"]):
                z = noise.normal(x)
                score = -(want - a_t * ask.x0(want, a_t, g_t)) / g_t**2
                want = want + eps * score + math.sqrt(2 * eps) * z
            want = maruyama(ask, want, schedule, t, s, noise.normal(x))
            close(got, want, f"predictor_corrector {options}")
            assert len(ask.calls) == o["corrector_steps"] + 1
    for t, s in pairwise(times):
        got, ask = one_step(kit, kit.part("samplers.euler_maruyama")(), t, s, schedule, x)
        close(got, maruyama(ask, x, schedule, t, s, noise_of(kit).normal(x)), "euler_maruyama")


def maruyama(ask, x, schedule, t, s, z):
    """Euler-Maruyama in y = x / alpha over v = (sigma / alpha)^2."""
    (a_t, g_t), (a_s, g_s) = schedule(t), schedule(s)
    v_t, v_s = (g_t / a_t) ** 2, (g_s / a_s) ** 2
    y = x / a_t
    score = -(y - ask.x0(x, a_t, g_t)) / v_t
    return a_s * (y + (v_t - v_s) * score + torch.sqrt(v_t - v_s) * z)


def check_midpoint(kit) -> None:
    """`dpm2` takes the slope at the geometric middle."""
    schedule, times, x = scene(kit)
    for t, s in pairwise(times):
        got, ask = one_step(kit, kit.part("samplers.dpm2")(), t, s, schedule, x)
        (a_t, g_t), (a_s, g_s) = schedule(t), schedule(s)
        r_t, r_s = g_t / a_t, g_s / a_s
        a_m, g_m = schedule(schedule.time_at(torch.sqrt(r_t * r_s).log()))
        y = x / a_t
        guess = y + (torch.sqrt(r_t * r_s) - r_t) * (y - ask.x0(x, a_t, g_t)) / r_t
        slope = (guess - ask.x0(a_m * guess, a_m, g_m)) / (g_m / a_m)
        close(got, a_s * (y + (r_s - r_t) * slope), "dpm2")


def check_ode(kit) -> None:
    """The exact path of a Gaussian to the tolerance, and more calls for a smaller one of either."""
    pytest.importorskip("torchdiffeq")
    schedule, times, x = scene(kit, (9.0, 0.35))
    c = 0.49  # variance of the data, of mean 0

    class Gauss(Curve):
        def x0(self, x_t, alpha, sigma):
            return alpha * c / (alpha**2 * c + sigma**2) * x_t

    (a_t, g_t), (a_s, g_s) = (schedule(t) for t in times)
    exact = x * torch.sqrt((a_s**2 * c + g_s**2) / (a_t**2 * c + g_t**2))
    calls = {}
    for options in ({}, {"rtol": 1e-8, "atol": 1e-8}, {"rtol": 1e-8, "atol": 1e-2},
                    {"rtol": 1e-2, "atol": 1e-8}):  # fmt: skip
        ask = Gauss(kit, schedule)
        sampler = kit.part("samplers.ode")(**options)
        got, _ = sampler.step(ask, x, *times, schedule, None, noise_of(kit))
        o = {"rtol": 1e-5, "atol": 1e-5} | options
        close(got, exact, f"ode {options}", 3 * max(o.values()) * float(x.abs().max()))
        calls[o["rtol"], o["atol"]] = len(ask.calls)
    assert calls[1e-8, 1e-8] > 3 * calls[1e-2, 1e-8], f"rtol: {calls}"
    assert calls[1e-8, 1e-8] > 3 * calls[1e-8, 1e-2], f"atol: {calls}"
    assert calls[1e-8, 1e-8] > calls[1e-5, 1e-5] > calls[1e-2, 1e-8], f"defaults: {calls}"


def history(kit, kind, options, orders):
    """What two values of an option do: the first steps agree, from `orders` on they differ."""
    schedule, times, x = scene(kit)
    paths = []
    for value in options:
        sampler, memory, y = kit.part(f"samplers.{kind}")(**value), None, x
        ask, noise, path = Curve(kit, schedule), noise_of(kit), []
        for t, s in pairwise(times):
            y, memory = sampler.step(ask, y, t, s, schedule, memory, noise)
            path.append(y)
        paths.append(path)
    for i, (a, b) in enumerate(zip(*paths, strict=True)):
        same = float((a - b).abs().max()) < 1e-12
        assert same == (i < orders), f"{kind} {options}: step {i}"


def stepped(kit, sampler, count):
    """x after some steps of the scene, and the noise z-hat and level of every call."""
    schedule, times, x = scene(kit)
    ask, memory, seen = Curve(kit, schedule), None, []

    def heard(x_t, t):
        answer = ask(x_t, t)
        seen.append((answer.x0, answer.noise, float(schedule.level(t))))
        return answer

    noise = noise_of(kit)
    for t, s in list(pairwise(times))[:count]:
        x, memory = sampler.step(heard, x, t, s, schedule, memory, noise)
    return x, seen, [float(schedule.level(t)) for t in times]


def check_variables(kit) -> None:
    """Polynomials and Heun's step in the variable that is named, flat, in y = x / alpha."""
    schedule, times, x = scene(kit)
    scales = [schedule(t) for t in times]

    def sloped(low, high, own, other):  # integral of (l - other) / (own - other) over exp(l)
        return ((high - other - 1) * math.exp(high) - (low - other - 1) * math.exp(low)) / (
            own - other
        )

    deis = kit.part("samplers.deis")
    for options, count in (({"solver_order": 2}, 2), ({}, 2), ({"solver_order": 1}, 1)):
        got, seen, levels = stepped(kit, deis(variable="log_ratio", **options), 2)
        y, ratio = x / scales[0][0], [math.exp(level) for level in levels]
        y = y + (ratio[1] - ratio[0]) * seen[0][1]
        if count == 2:
            for mine, other in ((1, 0), (0, 1)):
                weight = sloped(levels[1], levels[2], seen[mine][2], seen[other][2])
                y = y + weight * seen[mine][1]
        else:
            y = y + (ratio[2] - ratio[1]) * seen[1][1]
        close(got, scales[2][0] * y, f"deis over log ratio {options}")
    for few, many in ((1, 2), (2, 3), (3, 4)):
        history(kit, "deis", ({"solver_order": few}, {"solver_order": many}), few)
    history(kit, "deis", ({"variable": "log_ratio"}, {}), 1)
    assert (deis().solver_order, deis().variable) == (4, "time")
    churn = kit.part("samplers.heun_churn")
    got, seen, levels = stepped(kit, churn(churn=0.0, variable="ratio"), 1)
    rise = math.exp(levels[1]) - math.exp(levels[0])
    y = x / scales[0][0] + 0.5 * rise * (seen[0][1] + seen[1][1])
    close(got, scales[1][0] * y, "heun over the ratio")
    history(kit, "heun_churn", ({"variable": "ratio"}, {}), 0)
    assert churn().variable == "line"


def check_variants(kit) -> None:
    """UniPC of order 2 with B = exp(-h) - 1 or -h, two steps flat (arXiv 2302.04867)."""
    schedule, times, x = scene(kit)
    scales = [schedule(t) for t in times]
    for variant, scale in (("bh1", lambda h: -h), ("bh2", lambda h: math.expm1(-h))):
        sampler = kit.part("samplers.unipc")(solver_order=2, variant=variant)
        got, seen, levels = stepped(kit, sampler, 2)
        (m0, _, _), (m1, _, _) = seen
        (_, g0), (a1, g1), (a2, g2) = scales[:3]
        h1, h2 = levels[0] - levels[1], levels[1] - levels[2]
        y = g1 / g0 * x - a1 * (math.expm1(-h1) * m0 + 0.5 * scale(h1) * (m1 - m0))
        bend = (m0 - m1) / ((levels[1] - levels[0]) / h2)
        y = g2 / g1 * y - a2 * (math.expm1(-h2) * m1 + 0.5 * scale(h2) * bend)
        close(got, y, f"unipc {variant}")
    assert kit.part("samplers.unipc")().variant == "bh2"


def check_orders_differ(kit) -> None:
    """`solver_order`, `solver` and `fresh` make a difference from the step on where they must."""
    history(kit, "unipc", ({"solver_order": 2}, {"solver_order": 3}), 2)
    for fresh in ("extended", "full", "none"):
        first, second = ({"solver_order": n, "fresh": fresh} for n in (1, 2))
        history(kit, "er_sde", (first, second), 1)
        history(kit, "er_sde", (second, {"solver_order": 3, "fresh": fresh}), 2)
    history(kit, "er_sde", ({"fresh": "full"}, {"fresh": "none"}), 0)
    history(kit, "er_sde", ({"fresh": "full"}, {}), 0)
    history(kit, "dpmpp_2m_sde", ({"solver": "midpoint"}, {"solver": "heun"}), 1)
    history(kit, "dpmpp_2m_sde", ({"eta": 0.5}, {}), 0)
    er, sde = kit.part("samplers.er_sde")(), kit.part("samplers.dpmpp_2m_sde")()
    assert (er.solver_order, er.fresh) == (3, "extended")
    assert (sde.eta, sde.solver) == (1.0, "midpoint")
    assert kit.part("samplers.unipc")().solver_order == 3


# ---- the loop -------------------------------------------------------------------------------


def walked(kit, sampler, times, x, constraint=None):
    """The samples of a trajectory by a loop of the test's own, and the first x0 of each moment."""
    schedule = kit("core.schedule").Flow()
    ask, noise, memory, found = Curve(kit, schedule), noise_of(kit), None, []
    for t, s in pairwise(times):
        first = []

        def heard(y, v, first=first):
            first.append(ask(y, v))
            return first[-1]

        if s > t and sampler.stochastic:
            a_t, g_t = (torch.ones_like(t), torch.zeros_like(t)) if t == 0 else schedule(t)
            a_s, g_s = schedule(s)
            std = torch.sqrt((g_s / a_s) ** 2 - (g_t / a_t) ** 2)
            x = a_s * (x / a_t + std * noise.normal(x))
            memory = None  # what was remembered belongs to another path
        elif s == 0:
            x = heard(x, t).x0
        else:
            x, memory = sampler.step(heard, x, t, s, schedule, memory, noise)
        if constraint is not None and not (s > t and sampler.stochastic):
            x = constraint(x, s, schedule, noise)
        found.append((x, first[0].x0 if first else x))
    return found


def moved(y, s, *_):
    return y + 0.01 * s


def check_loop(kit) -> None:
    """Every sampler down, up and down again, to the data and up from it: the loop step by step.

    A stochastic sampler renoises on a climb and then begins without memory.
    """
    schedule = kit("core.schedule").Flow()
    x = torch.randn(ITEMS, 2, generator=torch.Generator().manual_seed(4), dtype=F64)
    repaint = kit.part("grids.repaint")(schedule, 7, jump=3, repeats=2)
    levels = [3.0, 2.0, 1.2, 0.7, 0.2, 1.1, 0.6, 0.1, -0.3]
    own = torch.cat([schedule.time_at(torch.tensor(levels, dtype=F64)), torch.zeros(1, dtype=F64)])
    again = torch.cat([own, own[5:]])  # from the data up again
    for kind in kit("recipes.part").kinds("sampler"):
        if kind == "ode":
            continue
        sampler = kit.part(f"samplers.{kind}")()
        for times in (repaint, own) if not sampler.stochastic else (repaint, own, again):
            # A constraint moves the sample after every step that is no climb.
            for constraint in (None, moved) if times is own else (None,):
                got = list(
                    kit("core.sample").trajectory(
                        Curve(kit, schedule),
                        x,
                        schedule=schedule,
                        sampler=sampler,
                        times=times,
                        noise=noise_of(kit),
                        constraints=[constraint] if constraint else (),
                    )
                )
                want = walked(kit, sampler, times, x, constraint)
                assert len(got) == len(want)
                for moment, (y, x0) in zip(got, want, strict=True):
                    close(moment.x, y, f"{kind} after step {moment.i}", 1e-7)
                    close(moment.x0, x0, f"{kind}: x0 of step {moment.i}", 1e-7)


def check_turns(kit) -> None:
    """A history is dropped exactly where the path of a deterministic sampler turns round."""
    extended = kit("nn.multistep").extended

    def number(v):
        return torch.tensor(float(v), dtype=F64)

    path, memory, lengths = [5, 4, 3, 2, 3, 4, 5, 6, 5, 4, 3], None, []
    for here, ahead in pairwise(path):
        memory = extended(memory, number(here), number(here), ahead=number(ahead), most=3)
        assert float(memory[0][0]) == here, "the newest comes first"
        lengths.append(len(memory))
    assert lengths == [1, 2, 3, 1, 2, 3, 3, 1, 2, 3]


def check_not_finite(kit) -> None:
    """The first step whose sample is not finite ends the trajectory and is named."""
    schedule, times, x = scene(kit)
    x[2, 0] = math.inf
    with pytest.raises(kit("core.errors").UserError, match="step 1 of 5"):
        list(
            kit("core.sample").trajectory(
                Curve(kit, schedule),
                x,
                schedule=schedule,
                sampler=kit.part("samplers.ddim")(),
                times=times,
                noise=noise_of(kit),
            )
        )


def check_particles(kit) -> None:
    """The weights of `smc` in one step, written with normal densities, and who survives."""
    schedule, times, x = scene(kit)
    g = torch.Generator().manual_seed(5)
    c, u = torch.randn(2, ITEMS, 2, generator=g, dtype=F64)
    for w in (1.0, 2.5):
        for t, s in pairwise(times[2:]):
            for memory in (None, True):
                (a_t, g_t), (a_s, g_s) = ([float(v) for v in schedule(v)] for v in (t, s))
                terms = ((w, c), (1.5 - w, u))
                x0 = u + w * (c - u)
                estimate = kit("core.types").Estimate(x0, x, *schedule(t), terms)
                noise = noise_of(kit)
                sampler = kit.part("samplers.smc")()
                got, _ = sampler.step(lambda *_, e=estimate: e, x, t, s, schedule, memory, noise)
                drawn = noise_of(kit)
                scale = a_t / a_s
                v = g_t**2 - (scale * g_s) ** 2
                tau = g_s / g_t * math.sqrt(v)

                def mean(x0, a=(a_t, g_t, a_s, g_s), scale=scale):
                    return a[2] * x0 + scale * (a[3] / a[1]) ** 2 * (x - a[0] * x0)

                x_s = mean(x0) + tau * drawn.normal(x)

                def log(y, m, var):
                    law = torch.distributions.Normal(m, math.sqrt(var))
                    return law.log_prob(y).sum(1)

                weight = w * log(x_s, mean(c), tau**2) + (1.5 - w) * log(x_s, mean(u), tau**2)
                weight = weight - log(x_s, mean(x0), tau**2) - 0.5 * log(x, scale * x_s, v)
                if memory is None:
                    weight = weight + 0.5 * log(x, torch.zeros_like(x), g_t**2)
                share = torch.softmax(weight, 0).cumsum(0)
                start = float(drawn.uniform(ITEMS)[0])
                chosen = [int((share < (i + start) / ITEMS).sum()) for i in range(ITEMS)]
                want = {i: chosen.count(i) for i in range(ITEMS) if i in chosen}
                rows = [int((got[i] - x_s).abs().sum(1).argmin()) for i in range(ITEMS)]
                found = {i: rows.count(i) for i in range(ITEMS) if i in rows}
                close(got, x_s[rows], "the survivors are of the proposal")
                assert found == want, f"smc {w}: {found} instead of {want}"
                assert all(rows[i] == i for i in found), "survivors keep their place"


CHECKS = (
    check_ancestral,
    check_first_order,
    check_two_estimates,
    check_heun,
    check_churn,
    check_restart,
    check_langevin,
    check_midpoint,
    check_ode,
    check_orders_differ,
    check_variables,
    check_variants,
    check_loop,
    check_turns,
    check_not_finite,
    check_particles,
)

CORE, STEPS = "core.sample", "nn.multistep"
ANC, SDE2M, ERSDE = "samplers.ancestral", "samplers.dpmpp_2m_sde", "samplers.er_sde"
CHURN, RESTART, PC = "samplers.heun_churn", "samplers.restart", "samplers.predictor_corrector"
MUTANTS = {
    ("sampler", "", "memory across a climb"): [
        (check_loop, CORE, "schedule, noise), None\n", "schedule, noise), memory\n"),
        (check_loop, CORE, "x, memory = renoised", "memory, x = memory, renoised",
         "schedule, noise), None\n", "schedule, noise)\n"),
        (check_turns, STEPS, "* (level - ahead) <= 0", "* (level - ahead) < -1e9"),
        (check_turns, STEPS, "* (level - ahead) <= 0", "* (level - ahead) >= 0"),
        (check_turns, STEPS, "*before)[:most]", "*before)[: most - 1]"),
    ],
    ("sampler", "", "loop"): [
        (check_loop, CORE, "and sampler.stochastic", "and not sampler.stochastic"),
        (check_loop, CORE, "() if renoises else constraints", "constraints"),
        (check_loop, CORE, "x = constraint(x, s, schedule", "x = constraint(x, t, schedule"),
        (check_loop, CORE, "elif s == 0:", "elif i < 0:"),
        (check_loop, CORE, "schedule(t) if t > 0 else (t + 1, t)", "schedule(t)"),
        (check_loop, CORE, "estimate.x0 if first is None else first", "estimate.x0"),
        (check_not_finite, CORE, "if not bool(torch.isfinite(x.to(dtype)).all()):", "if False:"),
        (check_not_finite, CORE, "isfinite(x.to(dtype)).all()", "isfinite(x.to(dtype)).any()"),
    ],
    ("sampler", "ancestral", "eta"): [
        (check_ancestral, ANC, "tau = self.eta * ", "tau = "),
        (check_ancestral, ANC, "tau = self.eta * ", "tau = self.eta**0.5 * "),
        (check_ancestral, ANC, "- tau**2).clamp", "- tau**2 / 2).clamp"),
        (check_ancestral, ANC, "Range(0, 1)] = 1.0", "Range(0, 1)] = 0.0"),
    ],
    ("sampler", "ddim", ""): [
        (check_first_order, "samplers.ddim", "spread(sigma_s, x_t)", "0.99 * spread(sigma_s, x_t)"),
    ],
    ("sampler", "euler", ""): [
        (check_first_order, "samplers.euler", "spread(alpha_s, x_t) * estimate.x0",
         "estimate.x0"),
    ],
    ("sampler", "dpmpp_2m", ""): [
        (check_first_order, "samplers.dpmpp_2m", "torch.expm1(-h)", "torch.expm1(-h / 2)"),
        (check_two_estimates, "samplers.dpmpp_2m", "extrapolated, (x0, h)",
         "extrapolated, (extrapolated, h)"),
        (check_two_estimates, "samplers.dpmpp_2m", "h / (2.0 * last_h)", "h / (h + last_h)"),
    ],
    ("sampler", "dpmpp_3m", ""): [
        (solvers.check_exponential, "samplers.dpmpp_3m", "p2 = p1 / h + 1.0", "p2 = p1 / h - 1.0"),
        (solvers.check_exponential, "samplers.dpmpp_3m", "most=3", "most=2"),
    ],
    ("sampler", "lms", ""): [
        (solvers.check_adams, "samplers.lms", "most=4", "most=3"),
        (solvers.check_adams, STEPS, "* (end - start).cpu()\n", "* (start - end).cpu()\n"),
    ],
    ("sampler", "deis", "solver_order"): [
        (solvers.check_adams, "samplers.deis", "0.1**2 + 4", "0.2**2 + 4"),
        (check_variables, "samplers.deis", "most=self.solver_order", "most=4"),
    ],
    ("sampler", "deis", "variable"): [
        (check_variables, "samplers.deis", "_VARIABLES[self.variable]", "_time"),
        (check_variables, "samplers.deis", "_VARIABLES[self.variable]", '_VARIABLES["log_ratio"]'),
    ],
    ("sampler", "ipndm", ""): [
        (solvers.check_adams, "samplers.ipndm", "-16 / 12, 5 / 12", "-16 / 12, 6 / 12"),
    ],
    ("sampler", "dpm2", ""): [
        (check_midpoint, "samplers.dpm2", "schedule.level(s)) / 2)", "schedule.level(s)) * 0.4)"),
    ],
    ("sampler", "heun", "variable"): [
        (check_heun, "samplers.heun", 'self.variable == "line"', "True"),
        (check_heun, "samplers.heun", 'self.variable == "line"', 'self.variable == "ratio"'),
        (check_heun, "nn.trapezium", "if line else alpha_s / alpha_t", "if True else alpha_s"),
    ],
    ("sampler", "heun_churn", "churn"): [
        (check_churn, CHURN, "math.log1p(self.churn)", "math.log1p(0.15625)"),
        (check_churn, CHURN, "math.log1p(self.churn)", "self.churn"),
        (check_churn, CHURN, "if self.churn > 0 and", "if self.churn > 0.2 and"),
    ],
    ("sampler", "heun_churn", "churn_min"): [
        (check_churn, CHURN, "self.churn_min <= math", "0.05 <= math"),
    ],
    ("sampler", "heun_churn", "churn_max"): [
        (check_churn, CHURN, "<= self.churn_max", "<= 50.0"),
        (check_churn, CHURN, "math.exp(level) <= self", "level <= self"),
    ],
    ("sampler", "heun_churn", "churn_noise"): [
        (check_churn, CHURN, "self.churn_noise * missing", "missing"),
        (check_churn, CHURN, "self.churn_noise * missing", "self.churn_noise**2 * missing"),
    ],
    ("sampler", "heun_churn", "variable"): [
        (check_variables, CHURN, 'self.variable == "line"', "True"),
        (check_variables, CHURN, 'self.variable == "line"', "False"),
    ],
    ("sampler", "unipc", "variant"): [
        (check_variants, "samplers.unipc", 'self.variant == "bh2"', "True"),
        (check_variants, "samplers.unipc", 'self.variant == "bh2"', "False"),
    ],
    ("sampler", "restart", "low"): [
        (check_restart, RESTART, "> math.log(self.low) >=", "> math.log(0.12) >="),
        (check_restart, RESTART, "> math.log(self.low) >=", "> self.low >="),
    ],
    ("sampler", "restart", "high"): [
        (check_restart, RESTART, "math.log(self.high)))", "math.log(0.6)))"),
        (check_restart, RESTART, "if self.high <= self.low:", "if self.high < self.low:"),
        (check_restart, RESTART, "[*times, s]", "times"),
    ],
    ("sampler", "restart", "repeats"): [
        (check_restart, RESTART, "range(self.repeats)", "range(2)"),
        (check_restart, RESTART, "                x_s = x\n", ""),
    ],
    ("sampler", "restart", "inner"): [
        (check_restart, RESTART, "self.inner + 1", "4"),
        (check_restart, RESTART, "self.inner + 1", "self.inner + 2"),
    ],
    ("sampler", "predictor_corrector", "corrector_steps"): [
        (check_langevin, PC, "range(self.corrector_steps)", "range(1)"),
    ],
    ("sampler", "predictor_corrector", "snr"): [
        (check_langevin, PC, "alpha_s * self.snr * sigma_t", "alpha_s * 0.16 * sigma_t"),
        (check_langevin, PC, "alpha_t / alpha_s * self.snr", "self.snr"),
    ],
    ("sampler", "predictor_corrector", "detail"): [
        (check_langevin, PC, "min=2.0 * (self.snr * self.detail) ** 2", "min=0.0"),
        (check_langevin, PC, "(self.snr * self.detail) ** 2", "self.detail**2"),
        (check_langevin, PC, "(self.snr * self.detail) ** 2", "self.snr * self.detail"),
    ],
    ("sampler", "euler_maruyama", ""): [
        (check_langevin, "samplers.euler_maruyama", "fall.clamp(min=0.0)", "0.9 * fall"),
    ],
    ("sampler", "dpmpp_2m_sde", "eta"): [
        (solvers.check_dpmpp_sde, SDE2M, "(1.0 + self.eta) * h", "2.0 * h"),
        (solvers.check_dpmpp_sde, SDE2M, "-2.0 * self.eta * h", "-2.0 * h"),
        (check_orders_differ, SDE2M, "Range(0, 1)] = 1.0", "Range(0, 1)] = 0.5"),
    ],
    ("sampler", "dpmpp_2m_sde", "solver"): [
        (solvers.check_dpmpp_sde, SDE2M, '1.0 - weight / g\n', "1.0 - weight\n"),
        (check_orders_differ, SDE2M, 'self.solver == "midpoint"', "True"),
    ],
    ("sampler", "er_sde", "solver_order"): [
        (check_orders_differ, ERSDE, "most=self.solver_order", "most=3"),
        (solvers.check_er_sde, ERSDE, "c**2 / 2.0 + i1", "c**2 + i1"),
    ],
    ("sampler", "er_sde", "fresh"): [
        (solvers.check_er_sde, ERSDE, 'if self.fresh == "none":', "if False:"),
        (solvers.check_er_sde, ERSDE, 'if self.fresh == "full"', "if False"),
        (solvers.check_er_sde, ERSDE, "torch.exp(r**0.3) + 10.0", "torch.exp(r**0.3) + 1.0"),
    ],
    ("sampler", "unipc", "solver_order"): [
        (check_orders_differ, "samplers.unipc", "most=self.solver_order", "most=3"),
        (solvers.check_unipc, "samplers.unipc", "bend = self._bend(memory, start, x0) -",
         "bend = 0.5 * self._bend(memory, start, x0) -"),
    ],
    ("sampler", "ode", "rtol"): [
        (check_ode, "samplers.ode", '"rtol": self.rtol', '"rtol": 1e-5'),
        (check_ode, "samplers.ode", "return y - ask(x_u, u)", "return 0.9 * y - ask(x_u, u)"),
    ],
    ("sampler", "ode", "atol"): [
        (check_ode, "samplers.ode", '"atol": self.atol', '"atol": 1e-5'),
        (check_ode, "samplers.ode", "(spread(schedule(u)[0], y) * y).to", "y.to"),
    ],
    ("sampler", "smc", ""): [
        (check_particles, "samplers.smc", "if memory is None:", "if False:"),
        (check_particles, "samplers.smc", "if memory is None:", "if True:"),
        (check_particles, "samplers.smc", "excess * _log_normal(x_t, spread",
         "_log_normal(x_t, spread"),
        (check_particles, "samplers.smc", "x_t, spread(scale, x_s) * x_s,", "x_t, x_s,"),
        (check_particles, "samplers.smc", "count == 0, spare", "count != 0, spare"),
    ],
}  # fmt: skip
