"""Likelihoods against closed forms, probes against exact traces, bits against counting."""

from __future__ import annotations

import math

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.sample import level_range
from steerable.core.schedule import VP, Edm, Flow, VeGeometric
from steerable.core.types import Estimate
from steerable.jobs import density, likelihood
from steerable.oracles.gaussian import Gaussian
from steerable.oracles.mixture import Mixture

from ..mutants import altered
from .worlds import F64, random_mixture, spread_of

SCHEDULES = {"vp": VP(), "ve": VeGeometric(), "flow": Flow(), "edm": Edm()}
LOG2 = math.log(2.0)


def bound(world):
    return lambda x_t, t: world(x_t, t, {})


def gaussian(schedule, dims):
    g = torch.Generator().manual_seed(dims)
    basis = torch.randn(dims, dims, generator=g, dtype=F64) / math.sqrt(dims)
    covariance = 0.3 * basis @ basis.mT + 0.05 * torch.eye(dims, dtype=F64)
    mean = 0.5 * torch.randn(dims, generator=g, dtype=F64)
    law = torch.distributions.MultivariateNormal(mean, covariance)
    z = torch.randn(60, dims, generator=g, dtype=F64)
    x = mean + z @ torch.linalg.cholesky(covariance).mT
    return Gaussian(schedule, mean, covariance), law, x


def check_gaussian(module, name, dims):
    schedule = SCHEDULES[name]
    world, law, x = gaussian(schedule, dims)
    std = float(law.covariance_matrix.diagonal().mean().sqrt())
    got = module.log_p(bound(world), x, schedule=schedule, data_std=std, integral=module.Integral())
    bits = (got.log_p - law.log_prob(x)) / (dims * LOG2)
    assert got.calls > 20
    assert float(bits.mean().abs()) < 0.02, "mean, bits per dimension"
    assert float(bits.abs().max()) < 0.04, "every item"


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("dims", [1, 4, 16])
def test_gaussians_have_their_closed_form(name, dims):
    check_gaussian(density, name, dims)


@pytest.mark.parametrize("name", SCHEDULES)
def test_mixtures_have_their_log_density(name):
    schedule = SCHEDULES[name]
    world = random_mixture(1, schedule)
    x = world.draw(120, torch.Generator().manual_seed(6))
    how = density.Integral()
    got = density.log_p(
        bound(world), x, schedule=schedule, data_std=spread_of(world), integral=how
    ).log_p
    square = (x[:, None] - world.means).square().sum(-1) / (2 * world.stds**2)
    exact = (world.weights.log() - square - torch.log(2 * math.pi * world.stds**2)).logsumexp(1)
    assert abs(float((got - exact).mean())) < 0.05, "nats"
    t = schedule.time_at(level_range(schedule, how.high, how.low)[1])
    alpha = schedule(t)[0]
    smooth = world.log_joint(alpha * x, t, {}).logsumexp(1) + 2 * alpha.log()
    assert float((got - smooth).abs().max()) < 0.03, "the density at the documented start"


def test_probes_average_to_the_exact_trace():
    world = random_mixture(2, VP())
    x = world.draw(20, torch.Generator().manual_seed(1))
    g = torch.Generator().manual_seed(2)
    mixing = torch.randn(2, 8, generator=g, dtype=F64)

    def answer(y):
        return torch.tanh(y @ mixing.mT @ mixing) * y

    y = (x @ mixing).requires_grad_()
    exact = density.divergence(answer(y), y, None)
    jacobian = torch.func.vmap(torch.func.jacrev(answer))(y.detach())
    assert torch.allclose(exact, jacobian.diagonal(dim1=1, dim2=2).sum(1))
    signs = density._probes(density.Integral("hutchinson", probes=64), y, Noise(torch.arange(20)))
    assert signs.shape == (64, 20, 8) and set(signs.unique().tolist()) == {-1.0, 1.0}
    each = torch.stack([density.divergence(answer(y), y, e[None]) for e in signs])
    mean = density.divergence(answer(y), y, signs)
    assert torch.allclose(mean, each.mean(0))
    error = each.std(0) / 8
    assert float(((mean - exact).abs() / error).max()) < 4
    assert float((((mean - exact) / error) ** 2).mean()) < 2.5


@pytest.mark.slow
def test_the_probes_of_an_item_do_not_depend_on_its_batch():
    world, _, x = gaussian(VP(), 4)
    how = density.Integral("hutchinson", probes=2, tolerance=1e-6)

    def run(index):
        noise, index = Noise(100 + index), index % 50
        options = {"schedule": VP(), "data_std": 0.6, "integral": how, "noise": noise}
        return density.log_p(bound(world), x[index], **options).log_p

    whole = run(torch.arange(3))
    alone = torch.cat([run(torch.tensor([i])) for i in range(3)])
    assert float((whole - alone).abs().max()) < 1e-3
    others = run(torch.arange(3) + 50)  # other seeds, other signs
    assert float((whole - others).abs().min()) > 1e-2


def lattice(schedule, points, std=1e-6):
    """Bytes as a model sees them: points on the grey levels, at b / 127.5 - 1."""
    places = (torch.tensor(points, dtype=F64) / 127.5 - 1.0)[:, None]
    one = torch.ones(len(points), dtype=F64)
    return Mixture(schedule, one / len(points), places, std * one)


def bpd(module, points, low=0.004, dequantise=True):
    schedule = Edm()
    world = lattice(schedule, points)
    b = torch.tensor(points, dtype=torch.uint8)[:, None].repeat(max(1, 256 // len(points)), 1)
    x = module.dequantised(b, Noise(torch.arange(len(b)))).to(F64)
    x = x if dequantise else b.to(F64) / 127.5 - 1.0
    options = {"schedule": schedule, "data_std": spread_of(world)}
    got = density.log_p(bound(world), x, integral=density.Integral(low=low), **options)
    return float(module.bits(got.log_p, 1).mean())


def check_uniform_bytes(module):
    found = bpd(module, list(range(256)))
    assert abs(found - 8) < 0.05, f"{found} bits"


def test_uniform_bytes_have_eight_bits():
    check_uniform_bytes(likelihood)


def test_bits_are_positive_and_diverge_without_dequantisation():
    two = [40, 210]  # one bit
    assert bpd(likelihood, two) > 1.0 - 0.05
    without = [bpd(likelihood, two, low=low, dequantise=False) for low in (0.01, 0.003, 0.002)]
    assert without[0] > without[1] > without[2]
    # the density at a point grows without limit: one bit less for every halving of the noise
    assert abs(without[0] - without[1] - math.log2(10 / 3)) < 0.05
    flat = bpd(likelihood, [128], low=0.0021, dequantise=False)
    assert flat < 0, "the control: a likelihood of more than one"
    assert bpd(likelihood, [128], low=0.0021) > 0


def test_dequantised_bytes_fill_their_bins_evenly():
    b = torch.arange(256, dtype=torch.uint8).repeat(40)[:, None]
    x = likelihood.dequantised(b, Noise(torch.arange(len(b)))).to(F64)
    u = (x + 1.0) * 127.5 - b.to(F64) + 0.5
    assert float(u.min()) > -1e-4 and float(u.max()) < 1 + 1e-4
    assert abs(float(u.mean()) - 0.5) < 4 / math.sqrt(12 * len(b))
    assert abs(float(u.var()) - 1 / 12) < 0.005
    whole = likelihood.dequantised(b[:8], Noise(torch.arange(8)))
    assert torch.equal(whole[3:5], likelihood.dequantised(b[3:5], Noise(torch.arange(3, 5))))


def test_what_cannot_be_integrated_is_refused():
    wide = torch.zeros(1, 65)

    def ask(x_t, t):
        return Estimate(0.0 * x_t, x_t, *VP()(t))

    with pytest.raises(UserError, match="hutchinson"):
        how = density.Integral()
        density.log_p(ask, wide, schedule=VP(), data_std=1.0, integral=how)
    for wrong in ({"trace": "guess"}, {"probes": 0}, {"low": 2.0, "high": 1.0}, {"tolerance": 1.0}):
        with pytest.raises(UserError):
            density.Integral(**wrong)


MUTANTS = {
    "no alpha": ("jobs.density", "(spread(alpha, y) * y).to(x)", "y.to(x)"),
    "sign of the divergence": ("jobs.density", "prior + gained", "prior - gained"),
    "divergence of the estimate only": ("jobs.density", "div = dims - ", "div = 0 - "),
    "prior without its constant": ("jobs.density", "math.log(2.0 * math.pi * variance)", "0.0"),
    "down instead of up": ("jobs.density", "torch.stack([low, high])", "torch.stack([high, low])"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_of_the_integral_is_noticed(name):
    module, *edit = MUTANTS[name]
    with pytest.raises(AssertionError):
        check_gaussian(altered(module, *edit), "vp", 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "edit",
    [
        ("(log_p + dims * math.log(WIDTH))", "log_p"),
        ("-(log_p + dims * math.log(WIDTH)) / (dims * math.log(2.0))",
         "-(log_p + dims * math.log(WIDTH)) / dims"),
        ("u - 0.5) / 127.5", "3.0 * u - 1.5) / 127.5"),
    ],
    ids=["no constant", "nats", "noise over three bins"],
)  # fmt: skip
def test_mutant_of_the_bits_is_noticed(edit):
    module = altered("jobs.likelihood", *edit)
    with pytest.raises(AssertionError):
        check_uniform_bytes(module)
        assert abs(bpd(module, [20, 128, 230]) - bpd(likelihood, [20, 128, 230])) < 0.3
