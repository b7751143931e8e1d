"""Classifier-free guidance on a mixture, and the interval, through whole trajectories."""

from __future__ import annotations

import torch

from steerable.core.noise import Noise
from steerable.core.schedule import VP
from steerable.core.types import Estimate
from steerable.grids.log_snr import log_snr
from steerable.guidance.cfg import Cfg
from steerable.guidance.threshold import Threshold

from .worlds import F64, Kit, random_mixture, spread_of

KIT = Kit()
N = 1500


def _sampled(guidance, label):
    schedule = VP()
    world = random_mixture(9, schedule)
    cond = {"label": torch.full((N,), label)}
    times = log_snr(schedule, 20)
    noise = Noise(torch.arange(N))
    scale = float(schedule(times[0])[1])
    ask = guidance(world) if guidance else world
    return KIT.run(
        lambda x_t, t: ask(x_t, t, cond),
        scale * noise.normal(torch.zeros(N, 2, dtype=F64)),
        schedule=schedule,
        sampler=KIT.sampler("heun")(),
        times=times,
    )


def test_weight_one_samples_exactly_what_no_guidance_samples():
    plain = _sampled(None, 1)
    assert torch.equal(_sampled(Cfg(weight=1.0), 1), plain)
    assert torch.equal(_sampled(Cfg(weight=1.0, together=65536), 1), plain)
    assert not torch.equal(_sampled(Cfg(weight=2.0), 1), plain)


def test_an_empty_interval_is_no_guidance_and_a_part_of_it_lies_between():
    plain, full = _sampled(None, 0), _sampled(Cfg(weight=3.0), 0)
    assert torch.equal(_sampled(Cfg(weight=3.0, start=0.0, stop=0.0), 0), plain)
    part = _sampled(Cfg(weight=3.0, start=0.6, stop=0.2), 0)
    off = [float((part - other).abs().mean()) for other in (plain, full)]
    assert min(off) > 1e-3


def test_two_calls_and_one_doubled_batch_sample_the_same():
    apart, both = (
        _sampled(Cfg(weight=2.5, together=0), 1),
        _sampled(Cfg(weight=2.5, together=65536), 1),
    )
    assert float((apart - both).abs().max()) < 1e-6


def test_a_greater_weight_goes_further_from_the_other_class():
    """The label decides the sign of the second coordinate in this world."""
    heights = [float(_sampled(Cfg(weight=w), 1)[:, 1].mean()) for w in (0.0, 1.0, 2.0, 4.0)]
    assert heights == sorted(heights)
    world = random_mixture(9, VP())
    share = world.weights * (world.labels == 1)
    exact = float((share / share.sum() * world.means[:, 1]).sum())
    assert abs(heights[1] - exact) < 4 * spread_of(world) / N**0.5


def test_a_threshold_is_the_clip_and_dynamically_the_scaled_clip_of_each_item():
    x0 = torch.tensor([[0.2, -0.4, 0.6, -0.9], [0.5, -3.0, 1.0, 4.0]], dtype=F64)
    t = torch.tensor(0.5, dtype=F64)

    def denoise(x_t, time, cond):
        return Estimate(x0, x_t, torch.tensor(0.6), torch.tensor(0.8))

    def answer(**options):
        return Threshold(**options)(denoise)(torch.zeros(2, 4, dtype=F64), t, {}).x0

    assert torch.equal(answer(), x0.clamp(-1, 1))
    assert torch.equal(answer(limit=0.5), x0.clamp(-0.5, 0.5))
    got = answer(quantile=0.75)
    assert torch.equal(got[0], x0[0]), "an item inside the range is left alone"
    reach = 3.25  # 0.75 of the way through 0.5, 1, 3, 4
    want = torch.tensor([0.5, -3.0, 1.0, 3.25], dtype=F64) / reach
    assert float((got[1] - want).abs().max()) < 1e-12
    assert torch.equal(answer(start=0.4), x0) and torch.equal(answer(stop=0.6), x0)
