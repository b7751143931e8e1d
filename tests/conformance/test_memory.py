"""What sampling keeps alive: a few answers of the network, however many calls a step makes."""

from __future__ import annotations

import weakref

import pytest
import torch

from steerable.core.noise import Noise
from steerable.core.sample import trajectory
from steerable.core.schedule import VP
from steerable.grids.log_snr import log_snr

from ..truth.worlds import F64, random_mixture
from .rooms import built, files, options_at_work, part, world_context

# Options with which a step makes many calls; the estimates that a step may hold at once are two.
MANY = {
    "ode": {"rtol": 1e-6, "atol": 1e-6},
    "restart": {"repeats": 20, "inner": 5},
    "predictor_corrector": {"corrector_steps": 20},
}
HELD, HISTORY = 2, 4


def _live(references):
    return sum(reference() is not None for reference in references)


@pytest.mark.parametrize("kind", files("samplers"))
def test_a_step_keeps_few_answers_alive(kind):
    schedule = VP()
    world, calls, most = random_mixture(3, schedule), [], {"estimates": 0, "answers": 0}
    estimates, answers = [], []

    def ask(x_t, t):
        most["estimates"] = max(most["estimates"], _live(estimates))
        most["answers"] = max(most["answers"], _live(answers))
        estimate = world(x_t, t, {})
        estimates.append(weakref.ref(estimate))
        answers.append(weakref.ref(estimate.x0))
        calls.append(t)
        return estimate

    times = log_snr(schedule, 4 if kind in MANY else 40)
    path = trajectory(
        ask,
        8.0 * Noise(torch.arange(4)).normal(torch.zeros(4, 2, dtype=F64)),
        schedule=schedule,
        sampler=part("samplers", kind)(**MANY.get(kind, {})),
        times=times,
        noise=Noise(torch.arange(4)),
    )
    for _ in path:
        pass
    assert len(calls) >= 40
    assert most["estimates"] <= HELD, f"{most['estimates']} estimates in {len(calls)} calls"
    # the first of the step for its moment, the moment before, and those that a solver remembers
    assert most["answers"] <= HELD + 2 + HISTORY, f"{most['answers']} answers in {len(calls)} calls"


@pytest.mark.parametrize("kind", files("guidance"))
def test_a_guidance_keeps_few_answers_alive(kind):
    schedule = VP()
    world, live, most = random_mixture(3, schedule), [], 0
    times = log_snr(schedule, 40)
    label = {"label": torch.tensor([0, 1, 0, 1])}

    def denoise(x_t, t, cond):
        nonlocal most
        most = max(most, _live(live))
        estimate = world(x_t, t, cond)
        live.append(weakref.ref(estimate))
        return estimate

    context = {**world_context(world, times, 4), "weaker": lambda path: denoise}
    guided = built("guidance", kind, context, **options_at_work("guidance", kind))(denoise)
    path = trajectory(
        lambda x_t, t: guided(x_t, t, label),
        8.0 * Noise(torch.arange(4)).normal(torch.zeros(4, 2, dtype=F64)),
        schedule=schedule,
        sampler=part("samplers", "dpmpp_2m")(),
        times=times,
        noise=Noise(torch.arange(4)),
    )
    for _ in path:
        pass
    assert len(live) >= 40 and most <= HELD + 1, f"{most} estimates in {len(live)} calls"
