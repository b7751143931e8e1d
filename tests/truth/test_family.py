"""The family of classifier-free guidance: each formula by hand, its laws, and mutants that fail."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.types import Estimate

from ..conformance.rooms import blurrier
from ..mutants import noticed
from .steering import guided_world
from .worlds import F64, Kit, floor_w2, kit_with, random_mixture, sliced_w2, spread_of

KIT = Kit()
SCHEDULES = {
    "vp": lambda s: s.VP(),
    "ve": lambda s: s.VeGeometric(),
    "edm": lambda s: s.Edm(),
    "flow": lambda s: s.Flow(),
}


def _both(world, x, t, cond):
    return world(x, t, cond).x0, world(x, t, {}).x0


# cfg: the rescaled estimate and the terms of the product


def check_rescale(kit):
    """With f = 1 the std of an item is that of c, between it mixes, at 0 every bit is as before."""
    world, _, t, _ = guided_world(kit)
    g = torch.Generator().manual_seed(4)
    x = torch.randn(5, 2, 8, generator=g, dtype=F64)
    cond = {"label": torch.tensor([0, 1, 0, 1, -1])}

    def denoise(x_t, time, given):  # items (2,8) whose answers have any std
        label = given.get("label", torch.full((len(x_t),), -1))
        offset = (label + 2.0)[: len(x_t), None, None] * torch.linspace(-1, 1, 8, dtype=F64)
        return Estimate(x_t.tanh() + offset, x_t, *world.schedule(time))

    c, u = _both(denoise, x, t, cond)
    for together in (0, 64):

        def answer(share, together=together):
            cfg = kit.part("guidance.cfg")(weight=3.0, rescale=share, together=together)
            return cfg(denoise)(x, t, cond).x0

        plain = answer(0.0)
        assert torch.equal(plain, c + 2.0 * (c - u)), "not bit-identical without rescaling"
        ratio = c.flatten(1).std(1) / plain.flatten(1).std(1)
        assert float((ratio[:4] - 1).abs().min()) > 0.1, "the case must tell"
        for share in (0.7, 1.0):
            want = share * plain * ratio[:, None, None] + (1 - share) * plain
            assert float((answer(share) - want).abs().max()) < 1e-12, f"rescale {share}"
        assert torch.equal(answer(0.7)[4], c[4]), "an item without a condition is scaled"


def check_flat_items(kit):
    """An item whose guided estimate has no std at all stays as it is."""
    t = torch.tensor(0.5, dtype=F64)
    x = torch.zeros(2, 1, dtype=F64)

    def denoise(x_t, time, given):
        x0 = torch.full_like(x_t, 1.0 if given else 0.5)
        return Estimate(x0, x_t, *kit("core.schedule").VP()(time))

    cfg = kit.part("guidance.cfg")(weight=3.0, rescale=1.0, together=0)
    got = cfg(denoise)(x, t, {"label": torch.tensor([0, 1])}).x0
    assert torch.equal(got, torch.full_like(x, 2.0))


def check_terms(kit):
    """The exponents are those of the guided score and sum to 1; the sum of the terms is x0."""
    world, x, t, cond = guided_world(kit)
    cond = {**cond, "other": torch.arange(len(x))}  # the mixture does not know it: u is c
    for weights, exponents in (({}, [2.5, -1.5]), ({"other": 4.0}, [5.5, -3.0, -1.5])):
        cfg = kit.part("guidance.cfg")(weight=2.5, weights=weights, together=0)
        got = cfg(world)(x, t, cond)
        assert [w for w, _ in got.terms] == pytest.approx(exponents)
        total = sum(w * x0 for w, x0 in got.terms)
        assert float((total - got.x0).abs().max()) < 1e-12
    weak = kit.part("guidance.autoguidance")(
        weaker=lambda path: blurrier(world), model="a", weight=3.0
    )
    got = weak(world)(x, t, cond)
    assert [w for w, _ in got.terms] == [3.0, -2.0]
    nested = weak(kit.part("guidance.cfg")(weight=2.0)(world))(x, t, {"label": cond["label"]})
    assert [w for w, _ in nested.terms] == [6.0, -3.0, -2.0]
    for answer in (got, nested):
        total = sum(w * x0 for w, x0 in answer.terms)
        assert float((total - answer.x0).abs().max()) < 1e-12


# autoguidance


def check_autoguidance(kit):
    """B + w (D - b) by hand; weight 1 never asks for the weaker model; the file must be named."""
    world, x, t, cond = guided_world(kit)
    weak = blurrier(world, 6.0)
    loaded = []

    def weaker(path):
        loaded.append(path)
        return weak

    for given in (cond, {}):
        d, b = world(x, t, given).x0, weak(x, t, given).x0
        assert float((d - b).abs().max()) > 0.05, "the case must tell"
        for weight in (0.0, 0.5, 2.0, 3.5):
            made = kit.part("guidance.autoguidance")(weaker=weaker, model="early", weight=weight)
            off = float((made(world)(x, t, given).x0 - (b + weight * (d - b))).abs().max())
            assert off < 1e-12, f"weight {weight}: off by {off:.1e}"
    assert set(loaded) == {"early"}
    loaded.clear()
    made = kit.part("guidance.autoguidance")(weaker=weaker, weight=1.0)
    assert made(world) is world and not loaded
    with pytest.raises(UserError, match="steerable average") as caught:
        kit.part("guidance.autoguidance")(weaker=weaker)(world)
    assert caught.value.code == "E-CONFIG"


# adaptive projected guidance


def _apg(kit, world, **options):
    return kit.part("guidance.apg")(**options)(world)


def check_apg(kit):
    """The split is orthogonal, the norm holds, and all of the difference kept is plain guidance."""
    world, x, t, cond = guided_world(kit)
    c, u = _both(world, x, t, cond)
    d = c - u
    plain = kit.part("guidance.cfg")(weight=4.0)(world)(x, t, cond).x0
    got = _apg(kit, world, weight=4.0, eta=1.0, momentum=0.0)(x, t, cond).x0
    assert float((got - plain).abs().max()) < 1e-12, "all of it kept is not plain guidance"
    moved = _apg(kit, world, weight=4.0)(x, t, cond).x0 - c
    assert float((moved * c).sum(1).abs().max()) < 1e-12, "a part along c is left"
    unit = c / c.norm(dim=1, keepdim=True)
    want = 3.0 * (d - (d * unit).sum(1, keepdim=True) * unit)
    assert float((moved - want).abs().max()) < 1e-12 and float(want.abs().max()) > 0.05
    half = _apg(kit, world, weight=4.0, eta=0.4)(x, t, cond).x0 - c
    assert float((half - (0.6 * want + 0.4 * 3.0 * d)).abs().max()) < 1e-12
    limit = float(d.norm(dim=1).median())
    capped = _apg(kit, world, weight=4.0, eta=1.0, norm=limit)(x, t, cond).x0 - c
    want = 3.0 * d * (limit / d.norm(dim=1, keepdim=True)).clamp(max=1.0)
    assert float((capped - want).abs().max()) < 1e-12


def check_apg_momentum(kit):
    """The d of each call is c - u and the last d times the momentum; another trajectory is anew."""
    world, x, _, cond = guided_world(kit)
    guidance = kit.part("guidance.apg")(weight=2.0, eta=1.0, momentum=-0.7)
    for _ in range(2):
        ask, running = guidance(world), torch.zeros_like(x)
        for time in (0.6, 0.5, 0.45):
            t = torch.tensor(time, dtype=F64)
            c, u = _both(world, x, t, cond)
            running = (c - u) - 0.7 * running
            off = float((ask(x, t, cond).x0 - (c + running)).abs().max())
            assert off < 1e-12, f"t={time}: off by {off:.1e}"


# CFG-Zero*


def check_cfg_zero(kit):
    """v = k v_u + w (v_c - k v_u) for the k that brings k v_u nearest to v_c, on every process."""
    for name, make in SCHEDULES.items():
        schedule = make(kit("core.schedule"))
        world = random_mixture(21, schedule)
        t = torch.tensor(0.5, dtype=F64)
        alpha, sigma = schedule(t)
        g = torch.Generator().manual_seed(1)
        x = alpha * world.draw(30, g) + sigma * torch.randn(30, 2, generator=g, dtype=F64)
        cond = {"label": torch.arange(30) % 2}
        times = kit.part("grids.log_snr")(schedule, 12)
        v_c, v_u = (world(x, t, given).velocity for given in (cond, {}))
        k = torch.stack([torch.linalg.lstsq(b[:, None], a[:, None]).solution[0]
                         for a, b in zip(v_c, v_u, strict=True)])  # fmt: skip
        assert float((k - 1).abs().max()) > 0.01, "the case must tell"
        for weight in (0.0, 0.5, 3.0):
            make_zero = kit.part("guidance.cfg_zero")
            ask = make_zero(schedule=schedule, times=times, weight=weight)(world)
            got = ask(x, t, cond)
            want = k * v_u + weight * (v_c - k * v_u)
            off = float((got.velocity - want).abs().max() / want.abs().max())
            assert off < 1e-8, f"{name}, weight {weight}: off by {off:.1e}"


def check_cfg_zero_start(kit):
    """In the first steps y = x / (alpha + sigma) stands still, for free, and then no longer."""
    for make in SCHEDULES.values():
        schedule = make(kit("core.schedule"))
        world = random_mixture(3, schedule)
        times = kit.part("grids.log_snr")(schedule, 8)
        cond = {"label": torch.zeros(5, dtype=torch.int64)}
        asked = []

        def denoise(x_t, t, given, asked=asked, world=world):
            asked.append(float(t))
            return world(x_t, t, given)

        ask = kit.part("guidance.cfg_zero")(schedule=schedule, times=times, zero=3)(denoise)
        x = float(schedule(times[0])[1]) * Noise(torch.arange(5)).normal(torch.zeros(5, 2).double())
        path = [x, *_path(kit, lambda x_t, t, a=ask, c=cond: a(x_t, t, c), x, schedule, times)]
        still = [row / sum(schedule(t)) for row, t in zip(path, times, strict=True)]
        scale = float(still[0].abs().max())
        for row in still[1:4]:
            assert float((row - still[0]).abs().max()) < 1e-12 * scale
        assert float((still[4] - still[3]).abs().max()) > 1e-6 * scale
        assert asked[0] == float(times[3]), "the first steps ask nobody"


def _path(kit, ask, x, schedule, times, sampler="ddim"):
    moments = kit("core.sample").trajectory(
        ask,
        x,
        schedule=schedule,
        sampler=kit.sampler(sampler)(),
        times=times,
        noise=Noise(torch.arange(len(x))),
    )
    return [moment.x for moment in moments]


def test_a_start_that_leaves_no_step_is_refused():
    schedule = KIT("core.schedule").Flow()
    times = KIT.part("grids.uniform")(schedule, 4)
    zero = KIT.part("guidance.cfg_zero")
    zero(schedule=schedule, times=times, zero=3)
    with pytest.raises(UserError, match="0 to 3") as caught:
        zero(schedule=schedule, times=times, zero=4)
    assert caught.value.code == "E-LIMIT"


# CFG++


def published_cfg_pp(world, cond, x, schedule, times, scale):
    """Algorithm 2 of the paper, word for word: denoise with the guided noise, renoise without."""
    path = []
    for t, s in pairwise(times):
        alpha, sigma = schedule(t)
        noise_c, noise_u = world(x, t, cond).noise, world(x, t, {}).noise
        x0 = (x - sigma * (noise_u + scale * (noise_c - noise_u))) / alpha
        alpha_s, sigma_s = schedule(s) if s > 0 else (1.0, 0.0)
        x = alpha_s * x0 + sigma_s * noise_u
        path.append(x)
    return path


def check_cfg_pp(kit):
    """The whole path is that of the published algorithm, with both samplers it is exact for."""
    for name, make in SCHEDULES.items():
        schedule = make(kit("core.schedule"))
        world = random_mixture(9, schedule)
        times = kit.part("grids.log_snr")(schedule, 12)
        cond = {"label": torch.arange(20) % 2}
        scale_x = float(schedule(times[0])[1])
        x = scale_x * Noise(torch.arange(20)).normal(torch.zeros(20, 2, dtype=F64))
        for scale in (0.0, 0.6, 1.0):
            want = published_cfg_pp(world, cond, x, schedule, times, scale)
            guidance = kit.part("guidance.cfg_pp")(schedule=schedule, times=times, scale=scale)
            ask = guidance(world)
            for sampler in ("ddim", "euler"):
                got = _path(
                    kit, lambda x_t, t, a=ask, c=cond: a(x_t, t, c), x, schedule, times, sampler
                )
                # Relative to the sample: the scale of x falls from 50 or more to 1 on the way.
                off = max(
                    float((a - b).abs().max() / b.abs().max())
                    for a, b in zip(got, want, strict=True)
                )
                assert off < 1e-10, f"{name}, {sampler}, lambda {scale}: off by {off:.1e}"


def check_cfg_pp_between(kit):
    """At t in (times[i + 1], times[i]] the weight aims at times[i + 1], for each item's own t."""
    schedule = kit("core.schedule").VP()
    world, x, _, cond = guided_world(kit)
    times = kit.part("grids.log_snr")(schedule, 6)
    guidance = kit.part("guidance.cfg_pp")(schedule=schedule, times=times, scale=0.5)
    rows, wanted = [], []
    for i in range(6):
        for share in (0.0, 0.3, 0.9):
            t = times[i] + share * (times[i + 1] - times[i])
            down = float(schedule.level(times[i + 1]) - schedule.level(t))
            rows.append(t)
            wanted.append(0.5 / (1 - math.exp(down)) if i < 5 else 0.5)
    t = torch.stack(rows)
    n = len(t)
    x, cond = x[:n], {"label": cond["label"][:n]}
    c, u = _both(world, x, t, cond)
    want = u + torch.tensor(wanted, dtype=F64)[:, None] * (c - u)
    assert float((guidance(world)(x, t, cond).x0 - want).abs().max()) < 1e-9
    for i in range(0, n, 4):
        one = {"label": cond["label"][i : i + 1]}
        got = guidance(world)(x[i : i + 1], t[i], one).x0
        assert float((got - want[i : i + 1]).abs().max()) < 1e-9


CHECKS = {
    "guidance.cfg": (check_rescale, check_flat_items, check_terms),
    "guidance.autoguidance": (check_autoguidance, check_terms),
    "guidance.apg": (check_apg, check_apg_momentum),
    "guidance.cfg_zero": (check_cfg_zero, check_cfg_zero_start),
    "guidance.cfg_pp": (check_cfg_pp, check_cfg_pp_between),
}


@pytest.mark.parametrize("check", {c: 0 for checks in CHECKS.values() for c in checks})
def test_formula(check):
    check(KIT)


CFG, AUTO, APG, ZERO, PP = CHECKS
MUTANTS = {
    "rescaled with the std of the whole batch": (
        CFG,
        "(v.flatten(1).std(1, correction=0) for v in (c, x0))",
        "(v.std(correction=0).expand(len(v)) for v in (c, x0))",
    ),
    "rescaled the wrong way": (CFG, "wanted / std", "std / wanted"),
    "share of the rescaling squared": (CFG, "1.0 + share * (", "1.0 + share**2 * ("),
    "flat items divided by zero": (CFG, "torch.where(std > 0, wanted / std, torch.ones_like(std))", "wanted / std"),  # noqa: E501
    "exponent of c forgets a group": (CFG, "own = 1.0 + sum(", "own = 2.0 + 0 * sum("),
    "exponent of u wrong": (CFG, "(1.0 - w, u) for", "(-w, u) for"),
    "autoguidance sign": (AUTO, "b + self.weight * (own.x0 - b)", "b - self.weight * (own.x0 - b)"),
    "autoguidance off by one": (
        AUTO,
        "b + self.weight * (own.x0 - b)",
        "own.x0 + self.weight * (own.x0 - b)",
    ),
    "autoguidance asks when off": (AUTO, "if self.weight == 1.0:", "if self.weight == 7.0:"),
    "autoguidance's weak model without the condition": (
        AUTO,
        "weak(x_t, t, cond).x0",
        "weak(x_t, t, {}).x0",
    ),
    "autoguidance forgets the factors below it": (
        AUTO,
        "own.terms or ((1.0, own.x0),)",
        "((1.0, own.x0),)",
    ),
    "APG keeps the wrong part": (APG, "(d - (1.0 - self.eta) * parallel)", "self.eta * d + (1.0 - self.eta) * parallel"),  # noqa: E501
    "APG weight off by one": (APG, "(self.weight - 1.0) *", "self.weight *"),
    "APG projects on u": (APG, "self._projected(difference, c.x0)", "self._projected(difference, c.x0 - difference)"),  # noqa: E501
    "APG caps every item": (APG, "length.clamp(min=self.norm)", "length"),
    "APG momentum sign": (APG, "+ self.momentum * last", "- self.momentum * last"),
    "APG forgets": (APG, "last = difference.detach()", "last = None"),
    "APG remembers only the difference before": (
        APG,
        "difference = difference + self.momentum * last\n            last = difference.detach()",
        "difference, last = difference + self.momentum * last, difference\n"
        "            last = difference.detach() if last is None else last",
    ),
    "CFG-Zero without its scale": (ZERO, "scaled = spread((v_c * v_u).flatten(1).sum(1) / size, v_u) * v_u", "scaled = v_u"),  # noqa: E501
    "CFG-Zero over the length of v_c": (ZERO, "size = v_u.square()", "size = v_c.square()"),
    "CFG-Zero of the noise": (ZERO, "self._velocity(c.velocity, denoise(x_t, t, {}).velocity)", "self._velocity(c.noise, denoise(x_t, t, {}).noise) - c.x0"),  # noqa: E501
    "CFG-Zero without alpha": (ZERO, "spread(alpha + sigma, x_t)", "spread(1.0 + 0 * sigma, x_t)"),
    "CFG-Zero sign": (ZERO, "(x_t - spread(sigma", "(x_t + spread(sigma"),
    "CFG-Zero's start a step too long": (ZERO, "t > self.times[self.zero]", "t >= self.times[self.zero]"),  # noqa: E501
    "CFG-Zero's start a step short": (ZERO, "self.times[self.zero]", "self.times[self.zero - 1]"),
    "CFG++ is CFG": (PP, "self.scale / (1.0 - ratio.where(s > 0, 0.0))", "self.scale + 0 * ratio"),
    "CFG++ upside down": (PP, "self.schedule.level(s) - self.schedule.level(t)", "self.schedule.level(t) - self.schedule.level(s)"),  # noqa: E501
    "CFG++ with the end of the schedule for data": (PP, "ratio.where(s > 0, 0.0)", "ratio"),
    "CFG++ one step off": (PP, "times < t[..., None]", "times < 0.9 * t[..., None]"),
    "CFG++ weight from c": (PP, "u + spread(self._weight(t), x_t)", "c.x0 + spread(self._weight(t), x_t)"),  # noqa: E501
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name):
    checks, kit = CHECKS[MUTANTS[name][0]], kit_with(*MUTANTS[name])
    assert noticed(checks, kit, UserError, pytest.fail.Exception), f"'{name}' survives"


# laws


def _sampled(guidance, world, label, n, steps=24):
    schedule = world.schedule
    times = KIT.part("grids.log_snr")(schedule, steps)
    noise = Noise(torch.arange(n) + 5)
    (alpha, sigma), cond = schedule(times[0]), {"label": torch.full((n,), label)}
    start = math.hypot(float(sigma), float(alpha) * spread_of(world))
    ask = guidance(world) if guidance else world
    return KIT.run(
        lambda x_t, t: ask(x_t, t, cond),
        start * noise.normal(torch.zeros(n, 2, dtype=F64)),
        schedule=schedule,
        sampler=KIT.sampler("heun")(),
        times=times,
    )


def _member(kind, world, **options):
    times = KIT.part("grids.log_snr")(world.schedule, 24)
    context = {
        "cfg_zero": {"schedule": world.schedule, "times": times},
        "cfg_pp": {"schedule": world.schedule, "times": times},
        "autoguidance": {"weaker": lambda path: blurrier(world, 3.0), "model": "early"},
        "compose": {"written": lambda cond: {}},
    }
    return KIT.part(f"guidance.{kind}")(**context.get(kind, {}), **options)


@pytest.mark.parametrize("kind", ["cfg", "apg", "cfg_zero", "autoguidance", "compose"])
def test_weight_one_samples_the_conditional_law_bit_by_bit(kind):
    world = random_mixture(5, KIT("core.schedule").VP())
    plain = _sampled(None, world, 0, 200)
    assert torch.equal(_sampled(_member(kind, world, weight=1.0), world, 0, 200), plain)


NOTHING = {  # what takes the condition away, where the theory says that something does
    "cfg": {"weight": 0.0},
    "cfg_pp": {"scale": 0.0},
    "apg": {"weight": 0.0, "eta": 1.0, "momentum": 0.0},
    "compose": {"weight": 0.0},
}


@pytest.mark.parametrize("kind", NOTHING)
def test_weight_zero_samples_the_unconditional_law(kind):
    world = random_mixture(5, KIT("core.schedule").VP())
    n = 2000
    x = _sampled(_member(kind, world, **NOTHING[kind]), world, 0, n)
    exact = world.draw(n, torch.Generator().manual_seed(6))
    assert sliced_w2(x, exact) < 3 * floor_w2(world, n)
    plain = sliced_w2(_sampled(None, world, 0, n), exact)
    assert plain > 5 * floor_w2(world, n), "the conditional law is another"


def test_autoguidance_of_weight_zero_samples_the_weaker_law():
    """The weaker model's modes are three times as wide; the condition stays."""
    world = random_mixture(5, KIT("core.schedule").VP())
    n, weak = 2000, blurrier(world, 3.0)
    x = _sampled(_member("autoguidance", world, weight=0.0), world, 1, n)
    exact = weak.draw(n, torch.Generator().manual_seed(6), 1)
    assert sliced_w2(x, exact) < 3 * floor_w2(weak, n, label=1)


def test_autoguidance_sharpens_what_the_weaker_model_blurs():
    """A Gaussian of std 0.5, a weaker one of 1: p^w / b^(w - 1) is Gaussian, and narrower."""
    schedule = KIT("core.schedule").VP()
    one = torch.ones(1, dtype=F64)
    world = random_mixture(5, schedule)
    strong = type(world)(schedule, one, torch.zeros(1, 2, dtype=F64), 0.5 * one)
    weak = type(world)(schedule, one, torch.zeros(1, 2, dtype=F64), one)
    made = KIT.part("guidance.autoguidance")(weaker=lambda path: weak, model="b", weight=2.0)
    got = float(_sampled(made, strong, 0, 2000, steps=40).std())
    plain = float(_sampled(None, strong, 0, 2000, steps=40).std())
    # The ODE scales x by exp of the integral of (1 - w) / v_weak + w / v_strong over sigma dsigma;
    # with v = s^2 + sigma^2 / alpha^2 that is v_strong^(w / 2) v_weak^((1 - w) / 2), closed form.
    assert abs(plain - 0.5) < 4 * 0.5 / math.sqrt(2 * 4000)
    assert abs(got - 0.25) < 0.01
