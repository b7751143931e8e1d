"""Samplers against the published algorithms: recorded numbers of other libraries, flat formulas.

`published.json` holds what diffusers 0.35.1 and k-diffusion 0.1.1.post1 made of an exact network,
a mixture of three points with a width, from a fixed start with a fixed list of noise. Neither is
needed here. How it was obtained, for each scheduler of diffusers (`ratios` are sigma / alpha):

    scheduler = DPMSolverMultistepScheduler(timestep_spacing="trailing", trained_betas=betas)
    scheduler.set_timesteps(len(ratios))
    scheduler.sigmas = torch.tensor([*ratios, 0.0], dtype=torch.float64)
    alpha = [1 / sqrt(1 + r * r) for r in ratios] + [1.0]
    x = start * ratios[0] * alpha[0]
    for i, t in enumerate(scheduler.timesteps):
        y = x / alpha[i]
        x = scheduler.step((y - x0_hat(y, ratios[i])) / ratios[i], t, x).prev_sample
        samples.append(x / alpha[i + 1])

DDPM and DDIM kept their own levels, 8 of 1000, trailing; those of Karras' family keep x / alpha
themselves; iPNDM was given these alphas and betas, DEIS 0.001 as its last ratio, and its last step
left out. k-diffusion: `sample_heun(lambda x, s: x0_hat(x, s[0]), start * ratios[0], [*ratios, 0])`.

Schedulers of a high order lower it in their last steps, where ours go on and end in Tweedie's:
such cases are compared up to there. Third-order DPM-Solver++ of diffusers, as the authors' code,
lacks a factor of 2 in its last term; ours has it, and has order 3.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from steerable.constraints.keep import Keep
from steerable.core.sample import trajectory
from steerable.core.schedule import VP, Flow, Tabulated
from steerable.core.types import Estimate
from steerable.grids.ddpm import ddpm
from steerable.grids.repaint import repaint
from steerable.oracles.mixture import Mixture
from steerable.recipes.aliases import resolve

from ..conformance.rooms import part
from .worlds import F64

PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text("utf-8"))
CASES = PUBLISHED["cases"]
START = torch.tensor(PUBLISHED["start"], dtype=F64)
NOISE = [torch.tensor(z, dtype=F64) for z in PUBLISHED["noise"]]
SCHEDULES = {"vp": VP(), "flow": Flow()}
# case: our sampler, its options, how many of the steps are the same; None for all
OURS = {
    "dpmpp_2m": ("dpmpp_2m", {}, None),
    "dpmpp_2m_sde": ("dpmpp_2m_sde", {}, None),
    "dpmpp_2m_sde_heun": ("dpmpp_2m_sde", {"solver": "heun"}, None),
    "unipc_2": ("unipc", {"solver_order": 2}, None),
    "unipc_2_bh1": ("unipc", {"solver_order": 2, "variant": "bh1"}, None),
    "unipc_3": ("unipc", {}, 6),
    "unipc_3_bh1": ("unipc", {"variant": "bh1"}, 6),
    "deis_2": ("deis", {"solver_order": 2, "variable": "log_ratio"}, None),
    "deis_3": ("deis", {"solver_order": 3, "variable": "log_ratio"}, 6),
    "euler_ancestral": ("ancestral", {}, None),
    "euler": ("euler", {}, None),
    "lms": ("lms", {}, 7),
    "heun": ("heun", {"variable": "ratio"}, None),
    "kdpm2": ("dpm2", {}, None),
    "ipndm": ("ipndm", {}, 7),
    "k_heun": ("heun", {"variable": "ratio"}, None),
    "k_heun_churn": (
        "heun_churn",
        {
            "churn": 0.15,
            "churn_min": 0.1,
            "churn_max": 10.0,
            "churn_noise": 1.003,
            "variable": "ratio",
        },
        None,
    ),
    "k_dpm_2": ("dpm2", {}, None),
    "k_lms": ("lms", {}, 7),
    "k_euler_ancestral": ("ancestral", {}, None),
    "k_dpmpp_2m": ("dpmpp_2m", {}, None),
    "k_dpmpp_2m_sde_midpoint": ("dpmpp_2m_sde", {"eta": 0.7}, None),
    "k_dpmpp_2m_sde_heun": ("dpmpp_2m_sde", {"eta": 0.7, "solver": "heun"}, None),
}
OF_LEVELS = {
    "ddpm": ("ancestral", {}),
    "ddim": ("ddim", {}),
    "ddim_eta": ("ancestral", {"eta": 0.6}),
}
SKIPPED = {"k_heun_churn": 1}  # noise that theirs draws where there is no churn


class Injected:
    """The recorded noise in its order, in the place of a stream of random numbers."""

    def __init__(self, skipped=0):
        self.left = iter(NOISE[skipped:])

    def normal(self, like):
        """The next of the list, (B,2)."""
        return next(self.left).to(like)


def _world(schedule):
    world = PUBLISHED["world"]
    weights, means = (torch.tensor(world[n], dtype=F64) for n in ("weights", "means"))
    return Mixture(schedule, weights, means, torch.full_like(weights, world["std"]))


def _path(schedule, times, x, sampler, noise, constraints=()):
    """Samples x / alpha after each step."""
    world = _world(schedule)
    moments = trajectory(
        lambda x_t, t: world(x_t, t, {}),
        x,
        schedule=schedule,
        sampler=sampler,
        times=times,
        noise=noise,
        constraints=constraints,
    )
    clean = float(times[-1]) == 0.0
    alphas = [float(schedule(s)[0]) for s in times[1:]]
    if clean:
        alphas[-1] = 1.0
    return [m.x / a for m, a in zip(moments, alphas, strict=True)]


def _of(name, schedule, kind, **options):
    """The path of our sampler over the ratios of a case."""
    ratios = torch.tensor(CASES[name]["ratios"], dtype=F64)
    times = torch.cat([schedule.time_at(ratios.log()), torch.zeros(1, dtype=F64)])
    x = START * ratios[0] * schedule(times[0])[0]
    noise = Injected(SKIPPED.get(name, 0))
    return _path(schedule, times, x, part("samplers", kind)(**options), noise)


def _off(ours, name, count=None):
    """Largest difference from the recorded samples, relative to the largest of them."""
    theirs = torch.tensor(CASES[name]["samples"][:count], dtype=F64)
    return float((torch.stack(ours[: len(theirs)]) - theirs).abs().max() / theirs.abs().max())


def test_every_recorded_case_is_compared():
    assert set(OURS) | set(OF_LEVELS) | {"dpmpp_3m"} == set(CASES)
    assert all(len(case["samples"]) >= 7 for case in CASES.values())


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", OURS)
def test_a_sampler_is_the_published_one(name, schedule):
    """On any schedule: x / alpha over sigma / alpha is the same path."""
    kind, options, count = OURS[name]
    assert _off(_of(name, SCHEDULES[schedule], kind, **options), name, count) < 1e-9


@pytest.mark.parametrize("name", [n for n in OURS if OURS[n][2]])
def test_where_theirs_lowers_its_order_ours_goes_on(name):
    """So the comparison up to there is not an equality that would hold anyway."""
    kind, options, count = OURS[name]
    ours = _of(name, VP(), kind, **options)
    if len(CASES[name]["samples"]) > count:
        assert _off(ours, name) > 1e-4


@pytest.mark.parametrize("name", OF_LEVELS)
def test_the_levels_of_a_ddpm(name):
    """Grid, table and steps at once: 8 of 1000 linear levels."""
    kind, options = OF_LEVELS[name]
    schedule = Tabulated("linear", 1000)
    times = ddpm(schedule, 8)
    assert ((times[:-1] * 1000).round() - 1).tolist() == CASES[name]["ratios"]["levels"]
    x = START * schedule(times[0])[1]
    ours = _path(schedule, times, x, part("samplers", kind)(**options), Injected())
    assert _off(ours, name) < 1e-10


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("HeunDiscreteScheduler", "heun"),
        ("sample_heun", "k_heun"),
        ("KDPM2DiscreteScheduler", "kdpm2"),
        ("sample_dpm_2", "k_dpm_2"),
        ("LMSDiscreteScheduler", "lms"),
        ("sample_lms", "k_lms"),
        ("EulerDiscreteScheduler", "euler"),
        ("EulerAncestralDiscreteScheduler", "euler_ancestral"),
        ("sample_euler_ancestral", "k_euler_ancestral"),
        ("DPMSolverMultistepScheduler", "dpmpp_2m"),
        ("sample_dpmpp_2m", "k_dpmpp_2m"),
        ("UniPCMultistepScheduler", "unipc_2"),
        ("uni_pc", "unipc_3_bh1"),
        ("uni_pc_bh2", "unipc_3"),
        ("DEISMultistepScheduler", "deis_2"),
        ("IPNDMScheduler", "ipndm"),
        ("dpmpp_2m_sde_gpu", "dpmpp_2m_sde"),
        ("DPM++ 2M SDE Heun", "dpmpp_2m_sde_heun"),
    ],
)
def test_a_foreign_name_is_what_it_is_there(alias, name):
    found = resolve(alias)
    assert _off(_of(name, VP(), found.kind, **found.options), name, OURS[name][2]) < 1e-9


@pytest.mark.parametrize(("alias", "name"), [("DDPMScheduler", "ddpm"), ("DDIMScheduler", "ddim")])
def test_a_foreign_name_of_levels_is_what_it_is_there(alias, name):
    found = resolve(alias)
    schedule = Tabulated("linear", 1000)
    times = ddpm(schedule, 8)
    sampler = part("samplers", found.kind)(**found.options)
    assert (
        _off(_path(schedule, times, START * schedule(times[0])[1], sampler, Injected()), name)
        < 1e-10
    )


def _third_order(ratios, factor):
    """DPM-Solver++(3M) as printed, its last term times `factor`, in y = x / alpha.

    As in diffusers the last steps are of a lower order, and in that of order 2 the change of x0 is
    weighed with half of exp(-h) - 1.
    """
    world, schedule = _world(VP()), VP()
    y, seen, path = START * ratios[0], [], []
    for i, r in enumerate(ratios):
        t = schedule.time_at(torch.tensor(r, dtype=F64).log())
        seen = [(math.log(r), world(y * schedule(t)[0], t, {}).x0), *seen]
        x0, order = seen[0][1], min(len(seen), 3, len(ratios) - i)
        if order == 1 and i:
            return [*path, x0]
        h = math.log(r / ratios[i + 1])
        p = math.exp(-h) - 1.0
        y = ratios[i + 1] / r * y - p * x0
        if order > 1:
            r0 = (seen[1][0] - seen[0][0]) / h
            last = (x0 - seen[1][1]) / r0
        if order == 2:
            y = y - p / 2.0 * last
        if order == 3:
            r1 = (seen[2][0] - seen[1][0]) / h
            before = (seen[1][1] - seen[2][1]) / r1
            first, second = last + r0 / (r0 + r1) * (last - before), (last - before) / (r0 + r1)
            y = y + (p / h + 1.0) * first - factor * ((p + h) / h**2 - 0.5) * second
        path.append(y)
    raise AssertionError("no last step")


def test_third_order_of_diffusers_lacks_a_factor_of_two():
    """The recorded samples are the formula with the factor 1."""
    ratios = CASES["dpmpp_3m"]["ratios"]
    assert _off(_third_order(ratios, 1.0), "dpmpp_3m") < 1e-9
    assert _off(_third_order(ratios, 2.0), "dpmpp_3m") > 1e-4


def test_third_order_of_ours_has_the_factor_of_two():
    """One step on a parabola in log(sigma / alpha) is exact; with a factor of 1 it is not."""
    schedule, ratios = VP(), [5.0, 3.0, 2.0, 1.1]
    levels = torch.tensor(ratios, dtype=F64).log()
    times = schedule.time_at(levels)

    def x0(level):
        return 0.3 + 0.5 * level - 0.7 * level**2

    memory = tuple((levels[k], x0(levels[k]) * torch.ones(1, 2, dtype=F64)) for k in (1, 0))
    y = torch.tensor([[1.0, -2.0]], dtype=F64)

    def ask(x_t, t):
        return Estimate(x0(levels[2]) * torch.ones_like(x_t), x_t, *schedule(t))

    sampler = part("samplers", "dpmpp_3m")()
    x_t = y * schedule(times[2])[0]
    x_s, _ = sampler.step(ask, x_t, times[2], times[3], schedule, memory, Injected())
    r_t, r_s = ratios[2:]
    exact = r_s * quad(lambda u: x0(u) * math.exp(-u), math.log(r_s), math.log(r_t))[0]
    want = r_s / r_t * y + exact
    got = x_s / schedule(times[3])[0]
    assert float((got - want).abs().max()) < 1e-9
    h = math.log(r_t / r_s)
    last_term = ((math.exp(-h) - 1.0 + h) / h**2 - 0.5) * -0.7 * h**2
    assert abs(last_term) > 1e-3, "a step that one factor more or less would not change"


def _er_sde(ratios, order, *, parabola):
    """ER-SDE-Solver as printed, algorithms 2 and 3, noise scale 5; D1 as theirs or as ours."""

    def phi(r):
        return r * (math.exp(r**0.3) + 10.0)

    world, schedule, noise = _world(VP()), VP(), Injected()
    y, seen, path = START * ratios[0], [], []
    for i, r in enumerate(ratios):
        t = schedule.time_at(torch.tensor(r, dtype=F64).log())
        seen = [(r, world(y * schedule(t)[0], t, {}).x0), *seen][:order]
        x0 = seen[0][1]
        if i + 1 == len(ratios):
            return [*path, x0]
        s = ratios[i + 1]
        q = phi(s) / phi(r)
        y = q * y + (1.0 - q) * x0
        if len(seen) > 1:
            whole = quad(lambda u: 1.0 / phi(u), s, r, epsabs=1e-14)[0]
            first = (x0 - seen[1][1]) / (r - seen[1][0])
        if len(seen) > 2:
            moment = quad(lambda u, r=r: (u - r) / phi(u), s, r, epsabs=1e-14)[0]
            before = (seen[1][1] - seen[2][1]) / (seen[1][0] - seen[2][0])
            second = (first - before) / ((r - seen[2][0]) / 2.0)
            if parabola:
                first = first + (r - seen[1][0]) / 2.0 * second
            y = y + ((s - r) ** 2 / 2.0 + phi(s) * moment) * second
        if len(seen) > 1:
            y = y + (s - r + phi(s) * whole) * first
        y = y + math.sqrt(s**2 - (q * r) ** 2) * noise.normal(y)
        path.append(y)
    raise AssertionError("no last step")


@pytest.mark.parametrize("order", [1, 2, 3])
def test_er_sde_is_the_published_one_but_for_the_slope_of_its_parabola(order):
    """In the third order the authors take the last difference for the slope at r_t."""
    ours = torch.stack(_of("dpmpp_2m", VP(), "er_sde", solver_order=order))
    ratios = CASES["dpmpp_2m"]["ratios"]
    printed = torch.stack(_er_sde(ratios, order, parabola=False))
    mended = torch.stack(_er_sde(ratios, order, parabola=True))
    assert float((ours - mended).abs().max()) < 1e-7
    assert (float((ours - printed).abs().max()) < 1e-7) == (order < 3)


def test_repaint_is_the_published_algorithm():
    """Lugmayr et al., arXiv 2201.09865, algorithm 1, with jumps of one step, 2 resamplings."""
    schedule, levels, steps, resamplings = Tabulated("linear", 1000), 1000, 5, 2
    betas = np.linspace(1e-4, 0.02, levels)
    abar = np.cumprod(1.0 - betas)[levels // steps - 1 :: levels // steps][::-1]  # from noise
    image, mask = 0.5 * NOISE[-1], torch.tensor([[1.0, 0.0]], dtype=F64).expand(3, 2)
    noise, world = Injected(), _world(schedule)
    x = START.clone()
    for i in range(steps):
        a, last = abar[i], i + 1 == steps
        before = 1.0 if last else abar[i + 1]
        beta = 1.0 - a / before
        for u in range(1 if last else resamplings):
            x0 = world(x, torch.tensor((steps - i) / steps, dtype=F64), {}).x0
            mean = before**0.5 * beta / (1 - a) * x0
            mean = mean + (1 - beta) ** 0.5 * (1 - before) / (1 - a) * x
            unknown = x0
            if not last:
                tilde = beta * (1 - before) / (1 - a)
                unknown = mean + tilde**0.5 * noise.normal(x)
            known = image
            if not last:
                known = before**0.5 * image + (1 - before) ** 0.5 * noise.normal(x)
            x = mask * unknown + (1 - mask) * known
            if u + 1 < (1 if last else resamplings):
                x = (1 - beta) ** 0.5 * x + beta**0.5 * noise.normal(x)
    times = repaint(schedule, steps, jump=1, repeats=resamplings, base="uniform")
    keep = Keep(image=image, mask=mask)
    sampler = part("samplers", "ancestral")()
    ours = _path(schedule, times, START, sampler, Injected(), [keep])[-1]
    assert float((ours - x).abs().max()) < 1e-9
