"""Laws of the training time, weights of the loss, and what the loss is."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.process import WEIGHTS, Law, Process, Weight
from steerable.core.schedule import VP, Edm, Flow, Tabulated, VePower
from steerable.core.target import TARGETS, Target
from steerable.core.types import Batch, Estimate

F64 = torch.float64


@pytest.mark.parametrize("schedule", [Flow(), VP(), Edm()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("stratified", [True, False])
def test_logit_normal_is_normal_in_the_noise_ratio(schedule, stratified):
    law = Law("logit_normal", mean=-0.7, std=0.9, stratified=stratified)
    t = law.draw(4000, Noise(torch.arange(4000)), schedule)
    test = stats.kstest(schedule.level(t).numpy(), "norm", args=(-0.7, 0.9))
    assert test.pvalue > 1e-3
    assert not stratified or test.statistic < 1 / 2000, "strata leave no room for chance"


def test_logit_normal_on_the_straight_line_is_the_logit_normal_law_of_t():
    t = Law("logit_normal", mean=0.3, std=1.1).draw(4000, Noise(torch.arange(4000)), Flow(eps=1e-9))
    assert stats.kstest(torch.logit(t).numpy(), "norm", args=(0.3, 1.1)).pvalue > 1e-3


@pytest.mark.parametrize("kind", ["uniform", "logit_normal", "levels"])
def test_stratified_draws_cover_the_strata(kind):
    law = Law(kind, levels=64)
    t = law.draw(64, Noise(torch.arange(64)), VP())
    assert bool((t.diff() > 0).all()), "one draw in each share, in the order of the places"
    if kind == "levels":
        assert (t * 64).round().tolist() == list(range(1, 65))
    if kind == "logit_normal":
        share = torch.special.ndtr(VP().level(t))
        assert (share * 64).floor().tolist() == list(range(64))


def test_levels_are_met_equally_often_and_are_knots():
    t = Law("levels", levels=10, stratified=False).draw(20_000, Noise(torch.arange(20_000)), VP())
    counts = torch.bincount((t * 10).round().to(torch.int64), minlength=11)
    assert int(counts[0]) == 0 and stats.chisquare(counts[1:].numpy()).pvalue > 1e-3
    assert float((t * 10 - (t * 10).round()).abs().max()) < 1e-12


def test_an_item_keeps_its_time_in_every_batch():
    law = Law("uniform", stratified=False)
    whole = law.draw(8, Noise(torch.arange(8)), VP())
    part = law.draw(3, Noise(torch.arange(5, 8)), VP())
    assert torch.equal(whole[5:], part)


def _loss_terms(process, dtype=F64):
    g = torch.Generator().manual_seed(2)
    x0, z, guess = torch.randn(3, 60, 5, generator=g, dtype=dtype)
    t = torch.linspace(0.02, 0.98, 60, dtype=F64)
    alpha, sigma = (v[:, None].to(dtype) for v in process.schedule(t))

    def denoise(x_t, time, cond):
        return Estimate(guess, x_t, *process.schedule(time))

    got = process.loss_at(denoise, Batch(x0), t, z)
    return got, x0, z, guess, alpha, sigma


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize(
    "schedule", [VP(), VePower(), Flow(), Tabulated()], ids=lambda s: repr(s)[:9]
)
def test_unit_weight_is_the_squared_error_of_the_answer(schedule, kind):
    process = Process(schedule, Target(kind, 0.5))
    got, x0, z, guess, alpha, sigma = _loss_terms(process)
    _, c_skip, c_out = process.target(alpha, sigma)
    x_t = alpha * x0 + sigma * z
    error = (guess - c_skip * x_t) / c_out - (x0 - c_skip * x_t) / c_out
    assert torch.allclose(got, error.square().mean(1), rtol=1e-8)


def test_edm_weight_is_that_of_the_paper():
    process = Process(Edm(), Target("edm", 0.5), weight=Weight("edm"))
    got, x0, _, guess, _, sigma = _loss_terms(process)
    want = (sigma**2 + 0.25) / (sigma * 0.5) ** 2 * (guess - x0) ** 2
    assert torch.allclose(got, want.mean(1), rtol=1e-12)
    unit = Weight("unit")(torch.ones(5), torch.linspace(0.1, 9, 5), Target("edm", 0.5))
    edm = Weight("edm")(torch.ones(5), torch.linspace(0.1, 9, 5), Target("edm", 0.5))
    assert torch.allclose(unit, edm), "on the EDM target the two are one"


def test_min_snr_is_the_ratio_of_signal_and_noise_with_a_ceiling():
    alpha, sigma = VP()(torch.linspace(0, 1, 200, dtype=F64))
    got = Weight("min_snr", gamma=5.0)(alpha, sigma, Target("x0"))
    want = torch.minimum((alpha / sigma) ** 2, torch.tensor(5.0, dtype=F64))
    assert torch.allclose(got, want, rtol=1e-12)
    assert float(got.max()) == 5.0 and float(got.min()) < 1e-3


def test_p2_is_the_published_weight_on_the_error_of_the_noise():
    """1 / (1 + SNR) times |z - z-hat|^2, whatever the target; and it peaks where it should."""
    for target in TARGETS:
        process = Process(VP(), Target(target, 0.5), weight=Weight("p2"))
        got, x0, z, guess, alpha, sigma = _loss_terms(process)
        z_hat = (alpha * x0 + sigma * z - alpha * guess) / sigma
        want = (z - z_hat) ** 2 / (1 + (alpha / sigma) ** 2)
        assert torch.allclose(got, want.mean(1), rtol=1e-8)
    level = torch.ones(3, dtype=F64), torch.tensor([1e-3, 1.0, 1e3], dtype=F64)
    assert Weight("p2")(*level, Target("noise")).tolist() == pytest.approx(
        [1.0, 0.5, 0.0], abs=1e-5
    )


def test_noised_has_the_mean_and_variance_of_the_process():
    for process in (Process(Tabulated(), Target("noise")), Process(VePower(), Target("noise"))):
        for time in (0.01, 0.1, 0.3, 0.5, 0.7, 1.0):
            t = torch.tensor(time, dtype=F64)
            alpha, sigma = (float(v) for v in process.schedule(t))
            z = Noise(torch.arange(200)).normal(torch.zeros(200, 100, dtype=F64))
            x_t = process.noised(torch.full_like(z, 0.8), t, z)
            assert abs(float(x_t.mean()) - 0.8 * alpha) < 4 * sigma / math.sqrt(20_000)
            ratio = float((x_t - 0.8 * alpha).square().mean()) / sigma**2
            assert abs(ratio - 1) < 4 * math.sqrt(2 / 20_000)


def test_the_loss_is_a_function_of_the_noise_alone():
    process = Process(VP(), Target("v", 0.5))
    x = Noise(torch.arange(16)).normal(torch.zeros(16, 2, 3))

    def denoise(x_t, t, cond):
        return Estimate(x_t.tanh(), x_t, *process.schedule(t))

    first, again = (process.loss(denoise, Batch(x), Noise(torch.arange(16))) for _ in range(2))
    other = process.loss(denoise, Batch(x), Noise(torch.arange(16) + 1))
    assert first.shape == (16,) and torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("shape", [(7,), (3, 4), (1, 5, 5)])
def test_start_has_the_std_of_noised_data(shape):
    process = Process(Flow(), Target("flow", 0.4))
    x = process.start(torch.tensor(0.6), Noise(torch.arange(3000)), torch.zeros(3000, *shape))
    alpha, sigma = process.schedule(torch.tensor(0.6))
    want = float(sigma**2 + (0.4 * alpha) ** 2)
    assert abs(float(x.square().mean()) / want - 1) < 4 * math.sqrt(2 / x.numel())


def test_unknown_kinds_are_refused_with_the_list():
    with pytest.raises(UserError, match="uniform, logit_normal or levels"):
        Law("cosmap").draw(2, Noise(torch.arange(2)), VP())
    with pytest.raises(UserError, match=", ".join(WEIGHTS)):
        Weight("snr")(torch.ones(1), torch.ones(1), Target("x0"))
