"""What is minimised: the process's loss, self-conditioning, learned weights of the noise levels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from steerable.conditions.estimate import Estimate as EstimateCondition
from steerable.core.condition import absent
from steerable.core.denoise import Backbone, Denoiser
from steerable.core.noise import Noise
from steerable.core.types import Batch, Estimate
from steerable.guidance.cfg import Cfg
from steerable.jobs.feed import Order, drawn
from steerable.jobs.objective import losses, objective
from steerable.jobs.prepare import prepare
from steerable.jobs.sample import drawn as sampled
from steerable.jobs.self_conditioning import estimated, names_of, remembering
from steerable.jobs.train import train
from steerable.jobs.wish import Wish
from steerable.nn.uncertainty import Uncertainty
from steerable.processes.flow import flow
from steerable.recipes.recipe import checked
from steerable.recipes.store import open_model

from .tiny import finish, tiny

ITEMS = torch.arange(64)
LABEL = {"label": torch.tensor([0, 1, 2, -1])}  # the last item has none


def test_twenty_iterations_are_those_of_a_flat_loop(tmp_path):
    """The loss trace, bit by bit, against the training loop written out in one piece."""
    job = prepare(tiny(20, "backbone.dropout=0.2"), tmp_path / "run")
    reference = prepare(tiny(20, "backbone.dropout=0.2"), tmp_path / "other")
    got = [step.loss for step in train(job)]
    net, take = reference.denoiser, Order(len(reference.splits.train), 0)
    tables = {id(m.weight) for m in net.modules() if isinstance(m, nn.Embedding)}
    wide = [p for p in net.parameters() if p.ndim >= 2 and id(p) not in tables]
    rest = [p for p in net.parameters() if p.ndim < 2 or id(p) in tables]
    groups = [{"params": wide, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)
    want = []
    for i in range(20):
        # 5 % of 20 iterations of warm-up is 1; the cooldown begins after 14
        share = 1.0 if i < 14 else (20 - i) / 6
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * share
        positions = torch.arange(16) + 16 * i
        batch, noise = drawn(reference, positions, take(positions))
        torch.manual_seed(hash((0, i)) & (2**63 - 1))
        optimiser.zero_grad(set_to_none=True)
        loss = net.process.loss(net, batch, noise).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        want.append(float(loss.detach()))
    assert got == want


class _Copy(Backbone):
    """Answers so that x0-hat is `gain` times the estimate it is told, plus a learned constant."""

    accepts = frozenset({"planes", "vector"})

    def __init__(self, start=0.0):
        super().__init__()
        self.width, self.start = 4, nn.Parameter(torch.tensor(start))
        self.seen = []

    @staticmethod
    def sized(shape, base):
        return {}

    def forward(self, x, slots):
        self.seen.append(slots.planes.detach().clone())
        return slots.planes + self.start


def _copying(start, dropout=0.5):
    """With the target x0 the answer of the network is x0-hat itself."""
    process = flow(0.5, target="x0")
    condition = EstimateCondition((2, 4, 4), dropout=dropout)
    return Denoiser(process, _Copy(start), {"before": condition})


def test_training_tells_half_of_the_items_what_the_first_pass_said():
    """The first pass is told nothing and says 0.25; the second is told 0.25, or nothing."""
    net, n = _copying(0.25), 4000
    x = torch.randn(n, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    per_item = losses(net, Batch(x), Noise(torch.arange(n)))
    first, second = net.backbone.seen
    assert not bool(first.any()), "the first pass is told nothing"
    told = (second == 0.25).flatten(1).all(1)
    assert bool((told | (second == 0).flatten(1).all(1)).all()), "whole items"
    assert abs(float(told.double().mean()) - 0.5) < 4 * (0.25 / n) ** 0.5
    t = net.process.draw(n, Noise(torch.arange(n)))
    weight = net.process.weight(*net.process.schedule(t), net.process.target).to(x)
    answer = torch.where(told, 0.5, 0.25)[:, None, None, None]
    torch.testing.assert_close(per_item, weight * (answer - x).square().flatten(1).mean(1))
    # No gradient flows through what was told: each answer moves with the constant once.
    per_item.sum().backward()
    want = (2 * weight * (answer - x).flatten(1).mean(1)).sum()
    torch.testing.assert_close(net.backbone.start.grad, want, rtol=1e-4, atol=1e-3)


def test_the_draws_of_a_network_without_an_estimate_are_untouched(tmp_path):
    job = prepare(tiny(2), tmp_path / "run")
    batch, noise = drawn(job, ITEMS, ITEMS)
    _, again = drawn(job, ITEMS, ITEMS)
    net = job.denoiser
    assert names_of(net) == [] and torch.equal(
        losses(net, batch, noise), net.process.loss(net, batch, again)
    )
    assert estimated(net, batch, torch.zeros(64), batch.x, noise) is batch


def test_which_items_are_told_is_a_function_of_the_item():
    net = _copying(0.25)
    x, t, z = torch.zeros(64, 2, 4, 4), torch.full((64,), 0.5), torch.zeros(64, 2, 4, 4)
    whole = estimated(net, Batch(x), t, z, Noise(ITEMS)).cond["before"]
    part = estimated(net, Batch(x[40:]), t[40:], z[40:], Noise(ITEMS[40:])).cond["before"]
    assert torch.equal(absent(whole)[40:], absent(part)) and 0 < int(absent(part).sum()) < 24


def test_sampling_tells_the_network_its_last_answer():
    """A network that answers what it is told plus one counts its own calls."""
    net = _copying(1.0)
    ask, x = remembering(net, names_of(net)), torch.zeros(3, 2, 4, 4)
    t = torch.tensor(0.5, dtype=torch.float64)
    for call in (1.0, 2.0, 3.0):
        assert torch.equal(ask(x, t, {}).x0, torch.full_like(x, call))
    fresh = remembering(net, names_of(net))
    assert torch.equal(fresh(x, t, {}).x0, torch.ones_like(x)), "a new trajectory knows nothing"


def test_each_way_of_asking_has_a_memory_of_its_own():
    seen = []

    def denoise(x_t, t, cond):
        seen.append(float(cond["mine"].mean()) if "mine" in cond else None)
        offset = 10.0 if "label" in cond else 0.0
        return Estimate(torch.full_like(x_t, offset + len(seen)), x_t, t, t)

    ask, t = remembering(denoise, ["mine"]), torch.tensor(0.5)
    x, label = torch.zeros(2, 1), {"label": torch.zeros(2)}
    for cond in (label, {}, label, {}):
        ask(x, t, cond)
    assert seen == [None, None, 11.0, 2.0]
    assert remembering(denoise, []) is denoise


def test_what_an_item_is_told_does_not_depend_on_the_size_of_its_batch():
    """Guidance asks small batches at once and large ones apart, here from t = 0.7 down to 0.3."""

    def denoise(x_t, t, cond):
        told = cond.get("mine", torch.full_like(x_t, torch.nan)).nan_to_num(nan=0.25)
        label = cond.get("label", torch.full((len(x_t),), -1))[:, None]
        return Estimate(0.5 * x_t + told.sin() + label * t.to(x_t), x_t, t, t)

    def walked(together, label=LABEL):
        ask = remembering(denoise, ["mine"])
        ask = Cfg(weight=3.0, start=0.7, stop=0.3, together=together)(ask)
        x = torch.linspace(-1, 1, 4, dtype=torch.float64)[:, None]
        for t in torch.linspace(1, 0.1, 10, dtype=torch.float64):
            x = ask(x, t, label).x0
        return x

    torch.testing.assert_close(walked(4), walked(3), rtol=0, atol=0)
    torch.testing.assert_close(walked(4)[3:], walked(4, {})[3:], rtol=0, atol=1e-12)


@pytest.mark.slow
def test_a_self_conditioned_run_trains_resumes_and_samples(tmp_path):
    recipe = tiny(8)
    tree = recipe.plain()
    tree["conditions"]["estimate"] = {"kind": "estimate"}
    recipe = checked(tree)
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    job = prepare(recipe, whole)
    trace = [s.loss for s in finish(job)]
    steps = train(prepare(recipe, parted))
    begin = [next(steps).loss for _ in range(5)]
    steps.close()
    assert begin + [s.loss for s in finish(prepare(recipe, parted))] == trace
    net, spec = job.denoiser.eval(), job.splits.train.spec
    weight = net.backbone.enter.weight
    with torch.no_grad():  # the planes of the estimate, after those of the picture
        weight[:, weight.shape[1] // 2 :] += 0.5
    wishes = [Wish({"label": "3"}, 1), Wish({"label": "4"}, 2)]
    with_memory = sampled(net, recipe, spec, wishes)
    assert torch.equal(with_memory, sampled(net, recipe, spec, wishes)), "fresh each time"
    with torch.no_grad():
        weight[:, weight.shape[1] // 2 :] = 0
    assert not torch.equal(with_memory, sampled(net, recipe, spec, wishes)), "it is listened to"


# Learned weights


def test_uncertainty_starts_at_nothing_and_leaves_the_reported_loss(tmp_path):
    job = prepare(tiny(2), tmp_path / "run")
    batch, noise = drawn(job, ITEMS, ITEMS)
    _, again = drawn(job, ITEMS, ITEMS)
    goal, told = objective(job.denoiser, Uncertainty(0), batch, noise)
    plain, same = objective(job.denoiser, None, batch, again)
    assert torch.equal(goal, plain) and torch.equal(told, same)
    first, second = Uncertainty(3), Uncertainty(3)
    levels = torch.linspace(-5, 5, 7)
    with torch.no_grad():
        first.leave.weight.fill_(1.0)
        second.leave.weight.fill_(1.0)
    assert torch.equal(first(levels), second(levels)), "its features do not depend on the moment"


def test_at_the_optimum_the_weighted_loss_is_flat():
    """Fixed noisy losses over nine e-folds of level: e^u becomes their mean at every level."""
    u, g = Uncertainty(0), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(u.parameters(), lr=0.01)

    def mean(level):
        return torch.exp(0.8 * torch.sin(level) + 0.3 * level)

    for i in range(800):
        for group in optimiser.param_groups:
            group["lr"] = 0.01 * (1 - i / 800)
        level = 9 * torch.rand(512, generator=g) - 5
        noisy = mean(level) * -torch.log(torch.rand(512, generator=g))  # exponential, std = mean
        optimiser.zero_grad()
        u.weighed(noisy, level).mean().backward()
        optimiser.step()
    levels = torch.linspace(-4.5, 3.5, 33)
    with torch.no_grad():
        ratio = mean(levels) / u(levels).exp()
    assert float(mean(levels).max() / mean(levels).min()) > 8
    # 800 x 512 draws of relative std 1 over some ten features: within a few percent.
    assert float(ratio.log().abs().max()) < 0.15
    # The least value of e^-u L + u is 1 + log L.
    with torch.no_grad():
        value = u.weighed(mean(levels), levels)
    torch.testing.assert_close(value, 1 + mean(levels).log(), atol=0.02, rtol=0)


def test_mutant_the_sign_of_u_is_seen():
    u = Uncertainty(0)
    with torch.no_grad():
        u.leave.bias.fill_(math.log(3.0))
    level = torch.zeros(1)
    assert float(u.weighed(torch.tensor([3.0]), level).detach()) == pytest.approx(1 + math.log(3))
    u.weighed(torch.tensor([3.0]), level).sum().backward()
    assert float(u.leave.bias.grad) == pytest.approx(0.0, abs=1e-6), "the optimum is at log L"


def test_learned_weights_do_not_touch_the_model_file(tmp_path):
    ends = []
    for flag in ("true", "false"):
        run = tmp_path / flag
        finish(prepare(tiny(6, f"training.uncertainty={flag}"), run))
        ends.append(open_model(run / "model.safetensors")[0])
    assert ends[0].keys() == ends[1].keys()
    assert any(not torch.equal(v, ends[1][k]) for k, v in ends[0].items())
