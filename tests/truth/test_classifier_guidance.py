"""Classifier and universal guidance on mixtures whose every answer is known, and their mutants."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.schedule import VP, Flow, VePower
from steerable.core.types import Estimate
from steerable.grids.log_snr import log_snr
from steerable.guidance.cfg import Cfg
from steerable.oracles.gaussian import Gaussian
from steerable.oracles.mixture import Mixture

from ..mutants import noticed
from .worlds import F64, Kit, kit_with, random_mixture

KIT = Kit()
CLASSIFIER, UNIVERSAL = "guidance.classifier", "guidance.universal"


def log_class(world):
    """The exact log p(y | x_t) of a mixture; 0 for an absent label."""

    def log_p(x_t, t, cond):
        joint = world.log_joint(x_t, t, cond).logsumexp(1)
        return joint - world.log_joint(x_t, t, {}).logsumexp(1)

    return log_p


def prior(world):
    """The mixture as a model that was trained without labels."""
    return lambda x_t, t, cond: world(x_t, t, {})


def guided(kit, world, **options):
    """The mixture without labels, guided by its exact classifier."""
    made = kit.part(CLASSIFIER)(classifier=lambda run: log_class(world), run="run", **options)
    return made(prior(world))


def scene(schedule, *, n=40, dtype=F64, seed=21):
    """A mixture, noised items at a time each, and labels."""
    world = random_mixture(seed, schedule, dtype=dtype)
    g = torch.Generator().manual_seed(seed)
    t = torch.linspace(0.05, 0.95, n, dtype=F64)
    alpha, sigma = (v.to(dtype)[:, None] for v in schedule(t))
    x = alpha * world.draw(n, g) + sigma * torch.randn(n, 2, generator=g, dtype=dtype)
    return world, x, t, {"label": torch.randint(0, 2, (n,), generator=g)}


def slope_of(world, x, t, cond):
    """The gradient of log p(y | x_t) at x_t by hand."""
    with torch.enable_grad():
        asked = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(log_class(world)(asked, t, cond).sum(), asked)
    return slope


def check_posterior_mean(kit):
    """Scale 1 is E[x0 | x_t, y] itself, and scale k is u + k (c - u), under every schedule."""
    for schedule in (VP(), Flow(), VePower()):
        world, x, t, cond = scene(schedule)
        c, u = world(x, t, cond).x0, world(x, t, {}).x0
        assert float((c - u).abs().max()) > 0.1, "the label must matter"
        for scale in (-1.0, 0.0, 0.5, 1.0, 3.0):
            got = guided(kit, world, scale=scale)(x, t, cond).x0
            off = float((got - (u + scale * (c - u))).abs().max())
            assert off < 1e-9, f"scale {scale}: off by {off:.1e}"


def check_off(kit):
    """Scale 0 hands on the very answer of the model, as do items without a label, bit by bit."""
    world, x, t, cond = scene(VP())
    answers = []

    def denoise(x_t, time, given):
        answers.append(world(x_t, time, {}))
        return answers[-1]

    for scale, given in ((0.0, cond), (2.0, {})):
        made = kit.part(CLASSIFIER)(
            classifier=lambda run: (
                lambda x_t, t, c: log_class(world)(x_t, t, c) if c else torch.zeros(len(x_t))
            ),
            scale=scale,
        )
        assert made(denoise)(x, t, given) is answers[-1]
    label = torch.where(torch.arange(40) % 2 == 0, cond["label"], -1)
    for clip in (0.0, 0.05):
        got = guided(kit, world, scale=3.0, clip=clip)(x, t, {"label": label}).x0
        plain = world(x, t, {}).x0
        assert torch.equal(got[1::2], plain[1::2]), "an item without a label was moved"
        assert float((got[::2] - plain[::2]).abs().max()) > 0.1


def check_clip(kit):
    """The clip comes after guidance, and nothing else is clipped."""
    world, x, t, cond = scene(VP())
    free = guided(kit, world, scale=6.0)(x, t, cond).x0
    assert float(free.abs().max()) > 1.0
    got = guided(kit, world, scale=6.0, clip=0.8)(x, t, cond).x0
    assert torch.equal(got, free.clamp(-0.8, 0.8))


def check_interval(kit):
    """Between stop and start it guides, outside it does not."""
    world, x, _, cond = scene(VP())
    made = guided(kit, world, scale=2.0, start=0.7, stop=0.3)
    for time, inside in ((0.9, False), (0.7, True), (0.5, True), (0.3, True), (0.1, False)):
        t = torch.tensor(time, dtype=F64)
        c, u = world(x, t, cond).x0, world(x, t, {}).x0
        want = u + 2.0 * (c - u) if inside else u
        off = float((made(x, t, cond).x0 - want).abs().max())
        assert off < 1e-9, f"t={time}: guidance {'missing' if inside else 'at work'}"


def check_ddim_form(kit):
    """The same as z-hat - k sigma grad log p with x0-hat made of it. Source: algorithm 2."""
    world, x, t, cond = scene(VP())
    plain, slope = prior(world)(x, t, cond), slope_of(world, x, t, cond)
    alpha, sigma = (v[:, None] for v in VP()(t))
    for scale in (0.5, 4.0):
        z = plain.noise - scale * sigma * slope
        got = guided(kit, world, scale=scale)(x, t, cond)
        assert float((got.noise - z).abs().max()) < 1e-9
        assert float((got.x0 - (x - sigma * z) / alpha).abs().max()) < 1e-9


def check_ddpm_form(kit):
    """The DDPM form, mean + k variance grad log p, is the limit of small steps, to first order."""
    schedule = VP()
    world, x, _, cond = scene(schedule)
    t = torch.tensor(0.5, dtype=F64)
    slope, step = slope_of(world, x, t, cond), kit.sampler("ancestral")(eta=1.0).step
    ask = guided(kit, world, scale=3.0)
    gaps = []
    for size in (0.08, 0.04, 0.02, 0.01):
        s = t - size
        made = [
            step(f, x, t, s, schedule, None, Noise(torch.arange(len(x))))[0]
            for f in (lambda a, b: ask(a, b, cond), lambda a, b: world(a, b, {}))
        ]
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        variance = (sigma_s / sigma_t) ** 2 * (sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2)
        want = 3.0 * variance * slope
        gaps.append(float((made[0] - made[1] - want).norm() / want.norm()))
    ratios = [a / b for a, b in itertools.pairwise(gaps)]
    assert gaps[-1] < 0.1 and all(1.8 < r < 2.6 for r in ratios), f"{gaps}: not first order"


def modes_of(x, world):
    """The mode nearest to each item."""
    return (x[:, None] - world.means).square().sum(-1).argmin(1)


def sampled(kit, ask, cond, schedule=None):
    """Samples (n,2) of the ODE in 40 steps of Heun's method, one a label."""
    schedule = schedule or VP()
    n, times = len(cond["label"]), log_snr(schedule, 40)
    x = schedule(times[0])[1] * Noise(torch.arange(n)).normal(torch.zeros(n, 2, dtype=F64))
    ask_now = lambda x_t, t: ask(x_t, t, cond)  # noqa: E731
    return kit.run(ask_now, x, schedule=schedule, sampler=kit.sampler("heun")(), times=times)


def check_law(kit, *, n=4000):
    """Scale 1 samples p(x | y) with the model of p(x), scale 0 p(x): every mode's share."""
    world = random_mixture(5, VP())
    cond = {"label": torch.arange(n) % 2}
    for scale in (1.0, 0.0):
        found = modes_of(sampled(kit, guided(kit, world, scale=scale), cond), world)
        for label in range(2):
            law = world.weights * (world.labels == label) if scale else world.weights
            law = law / law.sum()
            share = torch.bincount(found[label::2], minlength=10).to(F64) / (n // 2)
            room = 4 * torch.sqrt(law * (1 - law) / (n // 2))
            off = (share - law).abs() - room
            assert float(off.max()) <= 1e-12, f"label {label}, scale {scale}: mode weights"


def gaussian():
    mean = torch.tensor([0.3, -0.2, 0.5], dtype=F64)
    root = torch.tensor([[0.5, 0.0, 0.0], [0.3, 0.4, 0.0], [-0.2, 0.1, 0.3]], dtype=F64)
    return mean, root @ root.mT


def check_universal(kit):
    """Against the closed form on a Gaussian: x0-hat is linear in x_t, the score a quadratic."""
    mean, covariance = gaussian()
    centre, v = torch.tensor([1.0, -1.0, 0.0], dtype=F64), 0.2

    def score(x0):
        return -(x0 - centre).square().sum(1) / (2 * v)

    x = Noise(torch.arange(20)).normal(torch.zeros(20, 3, dtype=F64))
    for schedule in (VP(), Flow()):
        world = Gaussian(schedule, mean, covariance)
        for time in (0.1, 0.5, 0.9):
            t = torch.tensor(time, dtype=F64)
            alpha, sigma = schedule(t)
            eye = torch.eye(3, dtype=F64)
            jacobian = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * eye)
            x0 = mean + (x - alpha * mean) @ jacobian.mT
            for scale in (-1.0, 0.0, 0.7, 2.0):
                want = x0 - scale * sigma**2 / alpha * ((x0 - centre) / v) @ jacobian
                made = kit.part(UNIVERSAL)(score=score, scale=scale)(world)
                got = made(x, t, {})
                assert float((got.x0 - want).abs().max()) < 1e-9, f"scale {scale} at {time}"
                assert torch.equal(got.x_t, x) and not got.x0.requires_grad


def check_universal_interval(kit):
    """Between stop and start it guides, outside it hands on the model's answer."""
    mean, covariance = gaussian()
    world = Gaussian(VP(), mean, covariance)
    x = Noise(torch.arange(4)).normal(torch.zeros(4, 3, dtype=F64))
    made = kit.part(UNIVERSAL)(score=lambda x0: x0.sum(1), start=0.7, stop=0.3)(world)
    for time, inside in ((0.9, False), (0.7, True), (0.5, True), (0.3, True), (0.1, False)):
        t = torch.tensor(time, dtype=F64)
        same = torch.equal(made(x, t, {}).x0, world(x, t, {}).x0)
        assert same != inside, f"t={time}"


CHECKS = (
    check_posterior_mean,
    check_off,
    check_clip,
    check_interval,
    check_ddim_form,
    check_ddpm_form,
    check_universal,
    check_universal_interval,
)
FACTOR = "self.scale * estimate.sigma**2 / estimate.alpha"
MUTANTS = {
    "sigma missing": (CLASSIFIER, FACTOR, "self.scale / estimate.alpha"),
    "sigma not squared": (CLASSIFIER, FACTOR, "self.scale * estimate.sigma / estimate.alpha"),
    "alpha missing": (CLASSIFIER, FACTOR, "self.scale * estimate.sigma**2"),
    "sign": (CLASSIFIER, "estimate.x0.detach() + shift", "estimate.x0.detach() - shift"),
    "scale squared": (CLASSIFIER, FACTOR, f"self.scale * {FACTOR}"),
    "scale ignored": (CLASSIFIER, FACTOR, "estimate.sigma**2 / estimate.alpha"),
    "start and stop ignored": (CLASSIFIER, " or not self.active(t)", ""),
    "scale 0 is not off": (CLASSIFIER, "self.scale == 0 or ", ""),
    "gradient through x0-hat": (
        CLASSIFIER,
        "log_p(asked, t, cond)",
        "log_p(denoise(asked, t, cond).x0, t, cond)",
    ),
    "gradient of the clean classifier": (
        CLASSIFIER,
        "log_p(asked, t, cond)",
        "log_p(asked, 0 * t, cond)",
    ),
    "y shuffled": (
        CLASSIFIER,
        "log_p(asked, t, cond)",
        "log_p(asked, t, {k: v.flip(0) for k, v in cond.items()})",
    ),
    "gradient of the batch's mean": (CLASSIFIER, "value.sum()", "value.mean()"),
    "probability for its logarithm": (CLASSIFIER, "value.sum()", "value.exp().sum()"),
    "clipped before guidance": (
        CLASSIFIER,
        "x0.clamp(-self.clip, self.clip), x0)",
        "estimate.x0.clamp(-self.clip, self.clip) + shift, x0)",
    ),
    "clips what it does not guide": (
        CLASSIFIER,
        "torch.where(moved, ",
        "torch.where(moved | True, ",
    ),
    "universal: sigma missing": (UNIVERSAL, FACTOR, "self.scale / estimate.alpha"),
    "universal: alpha missing": (UNIVERSAL, FACTOR, "self.scale * estimate.sigma**2"),
    "universal: sign": (UNIVERSAL, "estimate.x0.detach() + ", "estimate.x0.detach() - "),
    "universal: scale squared": (UNIVERSAL, FACTOR, f"self.scale * {FACTOR}"),
    "universal: start and stop ignored": (UNIVERSAL, " or not self.active(t)", ""),
    "universal: gradient at x0-hat": (
        UNIVERSAL,
        "torch.autograd.grad(value.sum(), asked)",
        "torch.autograd.grad(value.sum(), estimate.x0)",
    ),
    "universal: gradient of the batch's mean": (UNIVERSAL, "value.sum()", "value.mean()"),
    "universal: score of x_t": (
        UNIVERSAL,
        "self._scored(estimate.x0)",
        "self._scored(asked)",
    ),
}


@pytest.mark.parametrize("check", [*CHECKS, check_law], ids=lambda check: check.__name__)
def test_the_library_passes(check):
    check(KIT)


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name):
    kit = kit_with(*MUTANTS[name])
    assert noticed(CHECKS, kit, UserError, RuntimeError), f"'{name}' survives"


@pytest.mark.parametrize("name", ["sign", "y shuffled", "gradient through x0-hat"])
def test_the_law_alone_notices_a_broken_guidance(name):
    with pytest.raises((AssertionError, UserError)):
        check_law(kit_with(*MUTANTS[name]), n=1000)


def test_it_equals_classifier_free_guidance_where_both_are_exact():
    world, x, t, cond = scene(VP())
    free = Cfg(weight=3.0)(world)(x, t, cond).x0
    assert float((guided(KIT, world, scale=3.0)(x, t, cond).x0 - free).abs().max()) < 1e-9


@pytest.mark.parametrize("schedule", [Flow(), VP(), VePower()])
def test_in_float32_no_digit_of_the_noise_is_lost_at_any_level(schedule):
    """sigma^2 / alpha is 10^4 at t = 1 of a flow, and the gradient as small.

    The error of x0-hat is that of z-hat times sigma / alpha, as without guidance.
    """
    world, x, _, cond = scene(schedule)
    small = replace(
        world, weights=world.weights.float(), means=world.means.float(), stds=world.stds.float()
    )
    for time in (1.0, 0.999, 0.9, 0.5, 0.2):
        t = torch.tensor(time, dtype=F64)
        alpha, sigma = schedule(t)
        noisy = alpha * x + sigma * Noise(torch.arange(40)).normal(x)
        want = world(noisy, t, cond).noise
        got = guided(KIT, small, scale=1.0)(noisy.float(), t, cond)
        assert got.x0.dtype == torch.float32
        assert float((got.noise - want).abs().max()) < 1e-4, f"t={time}"


# One coordinate, five unequal modes a class that overlap, so that Langevin steps can go round.
LINE = Mixture(
    VP(),
    torch.tensor([0.06, 0.14, 0.10, 0.16, 0.08, 0.12, 0.06, 0.10, 0.08, 0.10], dtype=F64),
    torch.tensor([-2.2, -1.6, -1.0, -0.1, 0.5, -0.6, 1.0, 1.5, 2.0, 2.4], dtype=F64)[:, None],
    torch.full((10,), 0.5, dtype=F64),
    torch.arange(2).repeat_interleave(5),
)
PLACES = torch.linspace(-6, 6, 6001, dtype=F64)[:, None]
EDGES = torch.linspace(-3, 3, 25, dtype=F64)
N = 3000


def tilted(scale):
    """The law p(x) p(y=0 | x)^scale / Z of clean items on `PLACES`, by quadrature."""
    clean = Mixture(VePower(), LINE.weights, LINE.means, LINE.stds, LINE.labels)
    t = torch.zeros((), dtype=F64)  # sigma 0.003, nothing beside modes of width 0.5
    label = {"label": torch.zeros(len(PLACES), dtype=torch.int64)}
    log = clean.log_joint(PLACES, t, {}).logsumexp(1) + scale * log_class(clean)(PLACES, t, label)
    return torch.softmax(log, 0)


def total_variation(x, law):
    """Half the sum of the differences of the shares in 26 bins."""
    want = torch.zeros(26, dtype=F64).index_add_(0, torch.bucketize(PLACES[:, 0], EDGES), law)
    found = torch.bincount(torch.bucketize(x[:, 0], EDGES), minlength=26).to(F64) / len(x)
    return float((want - found).abs().sum() / 2)


def floor_of(law):
    """The distance of as many exact draws."""
    g = torch.Generator().manual_seed(1)
    rows = [torch.multinomial(law, N, replacement=True, generator=g) for _ in range(5)]
    return sorted(total_variation(PLACES[row], law) for row in rows)[2]


def on_the_line(scale, sampler, steps):
    """Samples of class 0 with guidance at a scale."""
    ask, cond = guided(KIT, LINE, scale=scale), {"label": torch.zeros(N, dtype=torch.int64)}
    times = log_snr(VP(), steps)
    noise = Noise(torch.arange(N))
    x = noise.normal(torch.zeros(N, 1, dtype=F64))
    run = lambda x_t, t: ask(x_t, t, cond)  # noqa: E731
    return KIT.run(run, x, schedule=VP(), sampler=sampler, times=times, noise=noise)


def test_at_scale_one_the_law_is_the_posterior_in_one_coordinate():
    law = tilted(1.0)
    assert total_variation(on_the_line(1.0, KIT.sampler("heun")(), 40), law) < 0.05


@pytest.mark.parametrize(
    "scale",
    [pytest.param(2.0, marks=pytest.mark.slow), 5.0, pytest.param(10.0, marks=pytest.mark.slow)],
)
def test_above_one_the_tilted_law_needs_langevin_steps(scale):
    """Guidance alone samples something else; its score at t near 0 is right, so Langevin repairs.

    `detail` is the width of the modes: below it the Langevin steps stay as long.
    """
    law = tilted(scale)
    floor = floor_of(law)
    assert floor < 0.04, "as many draws must tell 0.05 from 0.1"
    alone = total_variation(on_the_line(scale, KIT.sampler("ancestral")(), 80), law)
    assert alone > 0.1, f"{alone:.3f}: guidance alone should be biased"
    sampler = KIT.sampler("predictor_corrector")(corrector_steps=15, snr=0.2, detail=0.5)
    repaired = total_variation(on_the_line(scale, sampler, 30), law)
    assert repaired < 0.05, f"{repaired:.3f} after Langevin steps, {alone:.3f} before"


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2.0, 5.0, 10.0])
def test_above_one_finer_steps_change_nothing(scale):
    """The bias is that of the guided process, not of its discretisation: the same noise is used."""
    coarse, fine = (on_the_line(scale, KIT.sampler("heun")(), steps) for steps in (40, 400))
    shares = [
        torch.bincount(torch.bucketize(x[:, 0], EDGES), minlength=26).to(F64) / N
        for x in (coarse, fine)
    ]
    assert float((shares[0] - shares[1]).abs().sum() / 2) < 0.05
    assert total_variation(fine, tilted(scale)) > 0.1


def test_a_score_that_cannot_guide_is_refused():
    universal = KIT.part(UNIVERSAL)
    world, x, t, cond = scene(VP())
    x0 = torch.ones(40, 2, dtype=F64)

    def severed(x_t, time, given):
        return Estimate(x0, x_t, *VP()(time))

    for score, denoise, code in (
        (lambda x0: x0.sum(), world, "E-SHAPE"),
        (lambda x0: x0, world, "E-SHAPE"),
        (lambda x0: torch.zeros(len(x0)), world, "E-CONFIG"),
        (lambda x0: x0.sum(1), severed, "E-CONFIG"),
    ):
        with pytest.raises(UserError) as caught:
            universal(score=score)(denoise)(x, t, cond)
        assert caught.value.code == code


def test_universal_keeps_the_terms_of_a_product_without_their_graph():
    world, x, t, cond = scene(VP())

    def denoise(x_t, time, given):
        answer = world(x_t, time, given)
        return Estimate(answer.x0, x_t, answer.alpha, answer.sigma, ((0.5, answer.x0),))

    got = KIT.part(UNIVERSAL)(score=lambda x0: x0.sum(1))(denoise)(x, t, cond)
    assert got.terms[0][0] == 0.5 and torch.equal(got.terms[0][1], world(x, t, cond).x0)
    assert not got.terms[0][1].requires_grad


def test_a_clean_classifier_through_universal_guidance_is_worse_than_the_noisy_one():
    """log p(y | x0-hat) hears nothing of the spread of x0 given x_t: another law at scale 1."""
    n = 2000
    world = random_mixture(5, VP())
    zero, cond = torch.zeros((), dtype=F64), {"label": torch.zeros(n, dtype=torch.int64)}
    clean = KIT.part(UNIVERSAL)(score=lambda x0: log_class(world)(x0, zero, cond))
    law = world.weights * (world.labels == 0)
    law = law / law.sum()
    off = []
    for ask in (clean(prior(world)), guided(KIT, world, scale=1.0)):
        found = torch.bincount(modes_of(sampled(KIT, ask, cond), world), minlength=10).to(F64) / n
        off.append(float((found - law).abs().sum() / 2))
    floor = float((0.5 * torch.sqrt(2 * law * (1 - law) / (math.pi * n))).sum())
    assert off[1] < 3 * floor < off[0], f"clean {off[0]:.3f}, noisy {off[1]:.3f}, floor {floor:.3f}"
