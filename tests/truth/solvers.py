"""The steps of the solvers against a second derivation: integrals by quadrature, history by hand.

The answers x0 of the denoiser are fixed numbers here, so that every sampler is a known linear map
of them, of its start and of its noise; all in y = x / alpha over r = sigma / alpha.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.integrate import quad

from steerable.core.noise import Noise
from steerable.oracles.gaussian import Gaussian

from .worlds import F64, Kit

RATIOS = (30.0, 11.0, 5.0, 1.7, 0.9, 0.35)  # of unequal steps
ITEMS = 6


@dataclass
class Case:
    """A run on fixed answers: levels, answers, start and noise as numpy, and where it ended."""

    r: list[float]
    x0: list[np.ndarray]
    y: np.ndarray
    z: list[np.ndarray]
    end: np.ndarray
    alpha: list[float]

    def noise(self, y, i):
        """z-hat of the answer i at y, the sample of step i."""
        return (y - self.x0[i]) / self.r[i]


def case(kit: Kit, sampler, *, ratios=RATIOS, calls=1) -> Case:
    """Run a sampler over `ratios` on a schedule whose alpha and sigma both vary."""
    schedule = kit("core.schedule").Flow()
    times = schedule.time_at(torch.tensor(ratios, dtype=F64).log())
    g = torch.Generator().manual_seed(2)
    shape = (ITEMS, 2)
    count = 100
    answers = [torch.randn(*shape, generator=g, dtype=F64) for _ in range(count)]
    x = 3.0 * torch.randn(*shape, generator=g, dtype=F64)
    asked = []

    def ask(x_t, t):
        asked.append(float(t))
        return kit("core.types").Estimate(answers[len(asked) - 1], x_t, *schedule(t))

    start, memory, noise = x / schedule(times[0])[0], None, Noise(torch.arange(ITEMS))
    for t, s in pairwise(times):
        x, memory = sampler.step(ask, x, t, s, schedule, memory, noise)
    if calls:
        assert len(asked) == calls * (len(ratios) - 1), "another number of calls"
    again = Noise(torch.arange(ITEMS))
    z = [again.normal(x).numpy() for _ in range(count)]
    levels = [math.exp(float(schedule.level(t))) for t in times]
    alpha = [float(schedule(t)[0]) for t in times]
    end = (x / alpha[-1]).numpy()
    return Case(levels, [a.numpy() for a in answers], start.numpy(), z, end, alpha)


def same(got, want, what):
    """Equal up to rounding and the quadrature."""
    off = float(np.abs(got - want).max() / np.abs(want).max())
    assert off < 1e-7, f"{what}: off by {off:.1e}"


def lagrange(nodes, j, u):
    """The j-th Lagrange polynomial of the nodes at u."""
    return math.prod((u - n) / (nodes[j] - n) for k, n in enumerate(nodes) if k != j)


def curve_integral(nodes, at, start, end, weight):
    """Integrals over r from start to end of weight(r) L_j(at(r)), one for each node."""

    def one(j):
        def inner(level):
            r = math.exp(level)
            return r * weight(r) * lagrange([at(n) for n in nodes], j, at(r))

        return quad(inner, math.log(start), math.log(end), epsabs=1e-13, epsrel=1e-12)[0]

    return [one(j) for j in range(len(nodes))]


def vp_time(r):
    """Time of the VP process of linear beta at sigma / alpha = r, by solving the quadratic."""
    roots = np.roots([9.95, 0.1, -math.log1p(r * r)])
    return float(max(roots.real))


def check_adams(kit: Kit) -> None:
    """LMS and DEIS integrate the cubic through the last four z-hat, iPNDM has fixed weights."""
    for kind, at in (("lms", lambda r: r), ("deis", vp_time)):
        run = case(kit, kit.sampler(kind)())
        y, past = run.y, []
        for i in range(len(run.r) - 1):
            past = [(run.r[i], run.noise(y, i)), *past][:4]
            nodes = [r for r, _ in past]
            weights = curve_integral(nodes, at, run.r[i], run.r[i + 1], lambda r: 1.0)
            y = y + sum(w * v for w, (_, v) in zip(weights, past, strict=True))
        same(run.end, y, kind)
    run = case(kit, kit.sampler("ipndm")())
    y, past = run.y, []
    for i in range(len(run.r) - 1):
        past = [run.noise(y, i), *past][:4]
        nodes = [-float(k) for k in range(len(past))]
        weights = [
            quad(lambda u, j=j, n=nodes: lagrange(n, j, u), 0, 1)[0] for j in range(len(nodes))
        ]
        slope = sum(w * v for w, v in zip(weights, past, strict=True))
        y = y + (run.r[i + 1] - run.r[i]) * slope
    same(run.end, y, "ipndm")


def exponential(nodes, r_t, r_s):
    """Weights of x0 at the nodes: r_s times the integral of L_j(log r) / r^2 over [r_s, r_t]."""
    return [r_s * w for w in curve_integral(nodes, math.log, r_s, r_t, lambda r: r**-2)]


def check_exponential(kit: Kit) -> None:
    """DPM-Solver++(3M) is exact for x0-hat that is a parabola in log(sigma / alpha)."""
    run = case(kit, kit.sampler("dpmpp_3m")())
    y = run.y
    for i in range(len(run.r) - 1):
        seen = list(range(i, max(i - 3, -1), -1))
        weights = exponential([run.r[k] for k in seen], run.r[i], run.r[i + 1])
        x0 = sum(w * run.x0[k] for w, k in zip(weights, seen, strict=True))
        y = run.r[i + 1] / run.r[i] * y + x0
    same(run.end, y, "dpmpp_3m")


def check_unipc(kit: Kit) -> None:
    """UniPC: exact polynomials, but bh2's 1/2 where there is one difference, then the corrector."""
    for order in (2, 3):
        run = case(kit, kit.sampler("unipc")(solver_order=order))
        y, before = run.y, None
        for i in range(len(run.r) - 1):
            if i > 0:  # the corrector of the last step, now that its estimate is known
                seen = [*range(i - 1, max(i - 1 - order, -1), -1), i]
                y = _uni(run, seen, before, i - 1)
            before = y
            y = _uni(run, list(range(i, max(i - order, -1), -1)), before, i)
        same(run.end, y, f"unipc {order}")


def _uni(run, seen, y, i):
    """One step from i to i + 1 with the estimates `seen`, that of i first."""
    r_t, r_s = run.r[i], run.r[i + 1]
    if len(seen) == 2:
        steps = math.log(r_t / run.r[seen[1]]) / math.log(r_t / r_s)
        slope = (run.x0[seen[1]] - run.x0[i]) / steps
        return r_s / r_t * y + (1 - r_s / r_t) * (run.x0[i] + slope / 2)
    weights = exponential([run.r[k] for k in seen], r_t, r_s)
    return r_s / r_t * y + sum(w * run.x0[k] for w, k in zip(weights, seen, strict=True))


PHI = {
    "none": (lambda r: r, lambda r: 1.0),
    "full": (lambda r: r**2, lambda r: 2 * r),
    "extended": (
        lambda r: r * (math.exp(r**0.3) + 10),
        lambda r: math.exp(r**0.3) + 10 + 0.3 * r**0.3 * math.exp(r**0.3),
    ),
}


def check_er_sde(kit: Kit) -> None:
    """d(y / phi) = -(phi' / phi^2) x0 dr between the levels, and the variance that is missing."""
    for fresh, (phi, slope) in PHI.items():
        for order in (1, 2, 3):
            run = case(kit, kit.sampler("er_sde")(solver_order=order, fresh=fresh))
            y = run.y
            for i in range(len(run.r) - 1):
                r_t, r_s = run.r[i], run.r[i + 1]
                seen = list(range(i, max(i - order, -1), -1))
                q = phi(r_s) / phi(r_t)
                nodes = [run.r[k] for k in seen]
                parts = curve_integral(
                    nodes, lambda r: r, r_s, r_t, lambda r, f=phi, d=slope: d(r) / f(r) ** 2
                )
                mean = sum(phi(r_s) * w * run.x0[k] for w, k in zip(parts, seen, strict=True))
                std = math.sqrt(max(r_s**2 - (q * r_t) ** 2, 0.0))
                y = q * y + mean + std * run.z[i]
            same(run.end, y, f"er_sde {fresh} {order}")


def check_dpmpp_sde(kit: Kit) -> None:
    """DPM-Solver++(2M) SDE as printed by its authors, for several shares of the noise."""
    for eta in (0.0, 0.4, 1.0):
        for solver in ("midpoint", "heun"):
            run = case(kit, kit.sampler("dpmpp_2m_sde")(eta, solver))
            y, last = run.y, None
            for i in range(len(run.r) - 1):
                h = math.log(run.r[i] / run.r[i + 1])
                g = h + eta * h
                mean = (1 - math.exp(-g)) * run.x0[i]
                if last:
                    slope = (run.x0[i] - run.x0[i - 1]) / (last / h)
                    one = (1 - math.exp(-g)) / 2 if solver == "midpoint" else None
                    mean = mean + (one or (math.exp(-g) - 1) / g + 1) * slope
                fresh = run.r[i + 1] * math.sqrt(1 - math.exp(-2 * eta * h))
                y = run.r[i + 1] / run.r[i] * math.exp(-eta * h) * y + mean + fresh * run.z[i]
                last = h
            same(run.end, y, f"dpmpp_2m_sde {eta} {solver}")


def check_langevin(kit: Kit) -> None:
    """Euler-Maruyama, and the Langevin steps before it: eps = 2 a (snr sigma)^2."""
    for steps, snr in ((None, 0.0), (1, 0.16), (3, 0.3)):
        made = kit.sampler("predictor_corrector") if steps else kit.sampler("euler_maruyama")
        run = case(kit, made(steps, snr) if steps else made(), calls=1 + (steps or 0))
        y, j, k = run.y, 0, 0
        for i in range(len(run.r) - 1):
            r, v = run.r[i], run.r[i] ** 2 - run.r[i + 1] ** 2
            for _ in range(steps or 0):
                eps = 2 * (run.alpha[i] / run.alpha[i + 1]) ** 2 * snr**2 * r**2
                y = y - eps * (y - run.x0[j]) / r**2 + math.sqrt(2 * eps) * run.z[k]
                j, k = j + 1, k + 1
            y = y - v * (y - run.x0[j]) / r**2 + math.sqrt(v) * run.z[k]
            j, k = j + 1, k + 1
        same(run.end, y, f"corrector steps {steps}")


def _trapezium(run, y, r, s, j):
    """Heun's step from r to s with the answers j and j + 1, in y / (1 + r) over r / (1 + r)."""
    line, rise = y / (1 + r), s / (1 + s) - r / (1 + r)
    slope = (y - run.x0[j]) / r - run.x0[j]
    guess = (line + rise * slope) * (1 + s)
    other = (guess - run.x0[j + 1]) / s - run.x0[j + 1]
    return (line + rise * (slope + other) / 2) * (1 + s)


def check_midpoint(kit: Kit) -> None:
    """DPM-Solver-2 goes the whole step with the slope at the geometric middle."""
    run = case(kit, kit.sampler("dpm2")(), calls=2)
    y = run.y
    for i in range(len(run.r) - 1):
        r, s = run.r[i], run.r[i + 1]
        middle = math.sqrt(r * s)
        guess = y + (middle - r) * (y - run.x0[2 * i]) / r
        y = y + (s - r) * (guess - run.x0[2 * i + 1]) / middle
    same(run.end, y, "dpm2")


def check_churn(kit: Kit) -> None:
    """Algorithm 2 of EDM: noise up to (1 + gamma) r within the interval only, then Heun's step."""
    run = case(kit, kit.sampler("heun_churn")(0.3, 0.8, 12.0, 1.05), calls=2)
    y, k = run.y, 0
    for i in range(len(run.r) - 1):
        r = run.r[i]
        if 0.8 <= r <= 12.0:
            y = y + 1.05 * math.sqrt((1.3 * r) ** 2 - r**2) * run.z[k]
            r, k = 1.3 * r, k + 1
        y = _trapezium(run, y, r, run.r[i + 1], 2 * i)
    assert k == 4
    same(run.end, y, "heun_churn")


def check_restart(kit: Kit) -> None:
    """Below `low` the sample goes up to `high` with the missing noise and comes down again."""
    run = case(kit, kit.sampler("restart")(1.0, 4.0, 2, 3), calls=0)
    y, j, k = run.y, 0, 0
    for i in range(len(run.r) - 1):
        y, j = _trapezium(run, y, run.r[i], run.r[i + 1], j), j + 2
        if run.r[i] > 1.0 >= run.r[i + 1]:
            ladder = np.exp(np.linspace(math.log(4.0), math.log(run.r[i + 1]), 4))
            for _ in range(2):
                y, k = y + math.sqrt(16.0 - run.r[i + 1] ** 2) * run.z[k], k + 1
                for r, s in pairwise(ladder):
                    y, j = _trapezium(run, y, r, s, j), j + 2
    assert k == 2
    same(run.end, y, "restart")


def check_turn(kit: Kit) -> None:
    """Down, up over the same levels, down again: a level twice in a history divides by 0."""
    schedule = kit("core.schedule").VP()
    world = Gaussian(schedule, torch.tensor([0.7], dtype=F64), torch.tensor([[0.4]], dtype=F64))
    x = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    down = torch.linspace(math.log(3.0), math.log(0.3), 21, dtype=F64)
    times = schedule.time_at(torch.cat([down, down.flip(0)[1:11], down[11:]]))
    exact = world.flow(x, times[0], times[-1])
    for kind in ("deis", "dpmpp_3m", "ipndm", "lms", "unipc"):
        got = kit.run(
            lambda x_t, u: world(x_t, u, {}),
            x,
            schedule=schedule,
            sampler=kit.sampler(kind)(),
            times=times,
        )
        off = float((got - exact).abs().max())
        assert off < 0.02, f"{kind}: off by {off:.1e} after a turn"


SOLVERS = (
    check_adams,
    check_exponential,
    check_unipc,
    check_er_sde,
    check_dpmpp_sde,
    check_langevin,
    check_midpoint,
    check_churn,
    check_restart,
    check_turn,
)
