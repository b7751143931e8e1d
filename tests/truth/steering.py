"""The checks of guidance, of conditions and of what is drawn per item, as functions of a kit."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from steerable.backbones.unet import Unet
from steerable.conditions.label import Label
from steerable.core.noise import Noise

from .worlds import F64, floor_w2, random_mixture, randomised, sliced_w2, spread_of


def guided_world(kit, seed=21, dtype=F64):
    """A VP schedule, a mixture on it, noised items at t = 0.4 and their labels."""
    schedule = kit("core.schedule").VP()
    world = random_mixture(seed, schedule, dtype=dtype)
    g = torch.Generator().manual_seed(seed)
    t = torch.tensor(0.4, dtype=F64)
    alpha, sigma = (v.to(dtype) for v in schedule(t))
    x = alpha * world.draw(40, g) + sigma * torch.randn(40, 2, generator=g, dtype=dtype)
    label = torch.randint(0, 2, (40,), generator=g)
    return world, x, t, {"label": label}


def check_cfg_formula(kit) -> None:
    """x0 = u + w (c - u) by hand, for both ways to ask and for weights on both sides of one."""
    for dtype, room in ((F64, 1e-12), (torch.float32, 1e-5)):
        world, x, t, cond = guided_world(kit, dtype=dtype)
        c, u = world(x, t, cond).x0, world(x, t, {}).x0
        assert float((c - u).abs().max()) > 0.1, "the world must tell the two apart"
        for weight in (-1.0, 0.0, 0.5, 1.0, 2.0, 7.5):
            want = u + weight * (c - u)
            for together in (0, 65536):
                cfg = kit.part("guidance.cfg")(weight=weight, together=together)
                got = cfg(world)(x, t, cond)
                off = float((got.x0 - want).abs().max())
                assert off < room * max(1, abs(weight)), f"weight {weight}: off by {off:.1e}"
                assert got.x_t is x
                assert float(got.alpha) == float(world.schedule(t)[0])


def check_cfg_together(kit) -> None:
    """One doubled batch and two calls agree to 1e-6 in float32, also with a time per item."""
    world, x, _, cond = guided_world(kit, dtype=torch.float32)
    for t in (torch.tensor(0.4, dtype=F64), torch.linspace(0.2, 0.9, len(x), dtype=F64)):
        both = kit.part("guidance.cfg")(weight=3.0, together=65536)(world)(x, t, cond)
        apart = kit.part("guidance.cfg")(weight=3.0)(world)(x, t, cond)
        assert float((both.x0 - apart.x0).abs().max()) < 1e-6
        assert both.alpha.shape == apart.alpha.shape


def check_own_weights(kit) -> None:
    """With a weight for each of two conditions, each is compared with all the others kept.

    The answers of this denoiser are any numbers that depend on which conditions are there.
    """
    value = {frozenset("ab"): 5.0, frozenset("a"): 2.0, frozenset("b"): 3.0, frozenset(): 1.0}
    x, t = torch.zeros(3, 2, dtype=F64), torch.tensor(0.5, dtype=F64)
    cond = {"a": torch.tensor([0, 1, 2]), "b": torch.tensor([[0.1], [0.2], [0.3]])}
    absent = kit("core.condition").absent
    schedule = kit("core.schedule").VP()

    def denoise(x_t, time, given):
        gone = {k: absent(v) for k, v in given.items()}
        rows = [value[frozenset(k for k in given if not bool(gone[k][i]))] for i in range(len(x_t))]
        x0 = torch.tensor(rows, dtype=F64)[:, None].expand_as(x_t)
        return kit("core.types").Estimate(x0, x_t, *schedule(time))

    for weights, want in (
        ({"a": 3.0, "b": 1.0}, 5 + 2 * (5 - 3)),
        ({"a": 3.0, "b": 0.5}, 5 + 2 * (5 - 3) - 0.5 * (5 - 2)),
        ({"a": 0.0, "b": 1.0}, 3.0),
        ({"a": 4.0}, 5 + 3 * (5 - 3) + 1 * (5 - 2)),
        ({}, 5 + 1 * (5 - 1)),
    ):
        for together in (0, 65536):
            cfg = kit.part("guidance.cfg")(weight=2.0, weights=weights, together=together)
            got = cfg(denoise)(x, t, cond).x0
            assert float((got - want).abs().max()) < 1e-12, f"{weights}: {got[0, 0]} not {want}"


def check_cfg_off(kit) -> None:
    """Weight one asks the plain denoiser, once, and hands on its very answer."""
    world, x, t, cond = guided_world(kit)
    answers = []

    def denoise(x_t, time, given):
        answers.append(world(x_t, time, given))
        return answers[-1]

    got = kit.part("guidance.cfg")(weight=1.0)(denoise)(x, t, cond)
    assert len(answers) == 1 and got is answers[0]
    got = kit.part("guidance.cfg")(weight=4.0)(denoise)(x, t, {})
    assert len(answers) == 2 and got is answers[1], "nothing to guide without a condition"


def check_cfg_interval(kit) -> None:
    """Between stop and start the answer is guided, outside it is the conditional one."""
    world, x, _, cond = guided_world(kit)
    for together in (0, 65536):
        cfg = kit.part("guidance.cfg")(weight=3.0, start=0.7, stop=0.3, together=together)
        for time, inside in ((0.9, False), (0.7, True), (0.5, True), (0.3, True), (0.1, False)):
            t = torch.tensor(time, dtype=F64)
            c, u = world(x, t, cond).x0, world(x, t, {}).x0
            want = u + 3.0 * (c - u) if inside else c
            off = float((cfg(world)(x, t, cond).x0 - want).abs().max())
            assert off < 1e-9, f"t={time}: guidance {'missing' if inside else 'at work'}"


def check_cfg_law(kit) -> None:
    """Weight zero samples the unconditional law although a label is given; weight one the class."""
    schedule = kit("core.schedule").VP()
    world = random_mixture(5, schedule)
    n = 2000
    cond = {"label": torch.zeros(n, dtype=torch.int64)}
    times = kit.part("grids.log_snr")(schedule, 24)
    scale = math.hypot(
        float(schedule(times[0])[1]), float(schedule(times[0])[0]) * spread_of(world)
    )
    for weight, label in ((0.0, None), (1.0, 0)):
        ask = kit.part("guidance.cfg")(weight=weight)(world)
        noise = Noise(torch.arange(n) + 5)
        x = kit.run(
            lambda x_t, t, ask=ask: ask(x_t, t, cond),
            scale * noise.normal(torch.zeros(n, 2, dtype=F64)),
            schedule=schedule,
            sampler=kit.sampler("heun")(),
            times=times,
        )
        exact = world.draw(n, torch.Generator().manual_seed(6), label)
        floor = floor_w2(world, n, label=label)
        assert sliced_w2(x, exact) < 3 * floor, f"weight {weight} samples another law"


def _class(kit, base):
    """A condition on planes (B,P,H,W) whose base class comes from the kit."""

    class Planes(base):
        slot: ClassVar[str] = "planes"

        def encode(self, value):
            return 2.0 * value

    return Planes


def check_dropout(kit) -> None:
    """Dropout hides whole items, at its rate, differently per item, draw and seed."""
    condition = _class(kit, kit("core.condition").Condition)((3, 4, 4), dropout=0.3)
    value = torch.rand(4000, 3, 4, 4)
    gone = condition.dropped(value, Noise(torch.arange(4000))).isnan().flatten(1)
    assert bool((gone.all(1) == gone.any(1)).all()), "a part of an item was dropped"
    rate = float(gone.all(1).to(F64).mean())
    assert abs(rate - 0.3) < 4 * math.sqrt(0.21 / 4000), f"dropped {rate:.3f} instead of 0.3"
    noise = Noise(torch.arange(4000))
    first, second = (condition.dropped(value, noise).isnan().flatten(1).all(1) for _ in range(2))
    both = float((first & second).to(F64).mean())
    assert abs(both - 0.09) < 0.02, "two draws are not independent"
    kept = condition.dropped(value, Noise(torch.arange(4000)))
    assert torch.equal(kept[~gone.all(1)], value[~gone.all(1)]), "kept items must not change"
    label = Label(8, 5, dropout=0.5)
    y = torch.arange(4000) % 5
    drop = kit("core.condition").Condition.dropped(label, y, Noise(torch.arange(4000)))
    assert set(drop[drop != y].tolist()) == {-1}
    assert abs(float((drop == -1).to(F64).mean()) - 0.5) < 4 * math.sqrt(0.25 / 4000)


def check_absent(kit) -> None:
    """An absent value is answered with the learned null, a present one with its code."""
    condition = _class(kit, kit("core.condition").Condition)((3, 2, 2), dropout=0.1)
    with torch.no_grad():
        condition.null.copy_(torch.rand(3, 2, 2) + 5)
    value = torch.rand(4, 3, 2, 2)
    mixed = torch.where(
        torch.tensor([True, False, True, False])[:, None, None, None],
        kit("core.condition").absent_like(value),
        value,
    )
    assert kit("core.condition").absent(mixed).tolist() == [True, False, True, False]
    got = condition(mixed)
    assert torch.equal(got[[0, 2]], condition.null.expand(2, 3, 2, 2))
    assert torch.equal(got[[1, 3]], 2.0 * value[[1, 3]])
    (grad,) = torch.autograd.grad(got.sum(), condition.null)
    assert float(grad.min()) == 2.0, "two absent items train the null"


def _small(kit, seed=0):
    """A real U-Net with every weight at work, behind the denoiser, with a label."""
    torch.manual_seed(seed)
    process = kit("core.process").Process(
        kit("core.schedule").VP(), kit("core.target").Target("v", 0.5)
    )
    backbone = Unet((1, 8, 8), 0, channels=(8, 16), width=16)
    denoiser = kit("core.denoise").Denoiser(process, backbone, {"label": Label(16, 3)})
    return randomised(denoiser, seed, 0.3).eval()


@torch.no_grad()
def check_null(kit) -> None:
    """The null is the learned one in every way to ask for it, whatever y the item had."""
    denoiser = _small(kit)
    x = Noise(torch.arange(6)).normal(torch.zeros(6, 1, 8, 8))
    t = torch.tensor(0.5, dtype=F64)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    missing = denoiser(x, t, {}).x0
    absent = denoiser(x, t, {"label": kit("core.condition").absent_like(y)}).x0
    mixed = denoiser(x, t, {"label": torch.where(torch.arange(6) < 3, y, -1)}).x0
    given = denoiser(x, t, {"label": y}).x0
    assert float((missing - absent).abs().max()) < 1e-6, "null and absent label differ"
    assert float((mixed[3:] - absent[3:]).abs().max()) < 1e-6
    assert float((mixed[:3] - given[:3]).abs().max()) < 1e-6
    assert float((given - missing).abs().max()) > 1e-3, "the label must matter"
    for together in (0, 65536):
        cfg = kit.part("guidance.cfg")(weight=0.0, together=together)
        off = float((cfg(denoiser)(x, t, {"label": y}).x0 - missing).abs().max())
        assert off < 1e-5, "weight zero is not the trained null"


@torch.no_grad()
def check_time_per_item(kit) -> None:
    """A batch with a time per item equals separate runs, through the whole denoiser."""
    denoiser = _small(kit)
    x = Noise(torch.arange(6)).normal(torch.zeros(6, 1, 8, 8))
    t = torch.tensor([0.05, 0.2, 0.4, 0.6, 0.8, 0.99], dtype=F64)
    y = torch.tensor([0, 1, 2, 2, 1, -1])
    together = denoiser(x, t, {"label": y}).x0
    for i in range(6):
        alone = denoiser(x[i : i + 1], t[i], {"label": y[i : i + 1]}).x0
        off = float((alone - together[i : i + 1]).abs().max())
        assert off < 1e-5, f"item {i} differs by {off:.1e} in a batch with other times"
    z = Noise(torch.arange(6)).normal(x)
    noised = denoiser.process.noised(x, t, z)
    for i in range(6):
        alone = denoiser.process.noised(x[i : i + 1], t[i], z[i : i + 1])
        assert float((alone - noised[i : i + 1]).abs().max()) < 1e-6


def check_times_drawn(kit) -> None:
    """Sixty-four items see more than forty distinct times, under every law."""
    process = kit("core.process")
    schedule = kit("core.schedule").VP()
    for kind in ("uniform", "logit_normal", "levels"):
        for stratified in (True, False):
            law = process.Law(kind, stratified=stratified)
            t = law.draw(64, Noise(torch.arange(64)), schedule)
            assert t.shape == (64,) and len(t.unique()) > 40, f"{kind}: one time for many items"
            assert float(t.min()) >= 0 and float(t.max()) <= 1


def check_loss(kit) -> None:
    """The unit-weighted loss is the squared error of F, at the item's own time and noise."""
    process = kit("core.process").Process(
        kit("core.schedule").VP(), kit("core.target").Target("noise", 0.5)
    )
    x0 = Noise(torch.arange(32)).normal(torch.zeros(32, 3, dtype=F64))
    z = Noise(torch.arange(32) + 50).normal(x0)
    t = torch.linspace(0.05, 0.95, 32, dtype=F64)

    def denoise(x_t, time, cond):
        return kit("core.types").Estimate(0.5 * x_t, x_t, *process.schedule(time))

    got = process.loss_at(denoise, kit("core.types").Batch(x0, {}), t, z)
    alpha, sigma = (v[:, None] for v in process.schedule(t))
    x_t = alpha * x0 + sigma * z
    guess = (x_t - alpha * 0.5 * x_t) / sigma
    want = (guess - z).square().mean(1)
    assert got.shape == (32,)
    assert float((got / want - 1).abs().max()) < 1e-9, "not the squared error of the noise"


def check_start(kit) -> None:
    """Sampling may start anywhere: at time t the noise has the std of x_t, data included."""
    for schedule in (kit("core.schedule").VP(), kit("core.schedule").VePower()):
        process = kit("core.process").Process(schedule, kit("core.target").Target("v", 0.5))
        for time in (0.1, 0.5, 1.0):
            t = torch.tensor(time, dtype=F64)
            alpha, sigma = (float(v) for v in schedule(t))
            x = process.start(t, Noise(torch.arange(500)), torch.zeros(500, 40, dtype=F64))
            ratio = float(x.square().mean()) / (sigma**2 + (0.5 * alpha) ** 2)
            assert abs(ratio - 1) < 4 * math.sqrt(2 / 20_000), f"t={time}: variance x {ratio:.3f}"


def check_conditional_loss_uses_own_label(kit) -> None:
    """Every item is asked with its own condition, in the doubled batch too."""
    world, x, t, cond = guided_world(kit)
    for together in (0, 65536):
        seen = []

        def denoise(x_t, time, given, seen=seen):
            seen.append(given["label"][: len(x)] if "label" in given else None)
            return world(x_t, time, given)

        kit.part("guidance.cfg")(weight=2.0, together=together)(denoise)(x, t, cond)
        assert torch.equal(seen[0], cond["label"])
