"""The trained mask channel: random holes of every size, told exactly, never what they hide."""

from __future__ import annotations

import math

import pytest
import torch

import steerable
from steerable.conditions.mask import Mask
from steerable.core.noise import Noise
from steerable.guidance.cfg import Cfg
from steerable.jobs import masks as job
from steerable.jobs.edit import Edit, edit, planned
from steerable.jobs.feed import drawn
from steerable.jobs.pictures import bytes_of
from steerable.jobs.prepare import prepare
from steerable.jobs.steering import answering
from steerable.jobs.train import train
from steerable.recipes.store import open_model

from ..mutants import altered
from .tiny import finish, tiny

MASKED = "conditions.mask.kind=mask"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("masks") / "run"
    finish(prepare(tiny(6, MASKED), path))
    return path


@pytest.fixture(scope="module")
def model(run):
    return steerable.load(run)


@pytest.mark.parametrize("size", [(8, 8), (5, 12), (28, 28)])
def test_random_masks_come_in_every_size_from_slivers_to_all(size):
    n, pixels = 2000, size[0] * size[1]
    masks = job.random_masks(Noise(torch.arange(n)), *size)
    assert masks.shape == (n, 1, *size) and bool(((masks == 0) | (masks == 1)).all())
    share = masks.flatten(1).mean(1)
    assert round(float(share.min()) * pixels) >= 1 and float(share.max()) == 1.0
    assert float(share.min()) <= 2 / min(size), "a sliver"
    whole = float((share == 1).float().mean())
    assert whole >= job.WHOLE - 4 * math.sqrt(job.WHOLE / n), "some hide everything"
    # Uniform shares, rounded up to whole rows and blocks: each third of them is there.
    for third in range(3):
        inside = (share > third / 3) & (share <= (third + 1) / 3)
        assert 0.15 < float(inside.float().mean()) < 0.6
    assert len(masks.flatten(1).unique(dim=0)) > n // 4


def test_the_shapes_of_random_masks():
    masks = job.random_masks(Noise(torch.arange(2000)), 12, 12)[:, 0] > 0
    rows, columns = (masks.all(2).any(1), masks.all(1).any(1))
    straight = masks == masks[:, :1]
    assert int(straight.all(2).all(1).sum()) > 50, "half planes to a side"
    assert int((rows & columns).sum()) > 50 and int((~rows & ~columns).sum()) > 50
    corner = masks[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert int((corner.all(1) & ~masks[:, 5, 5]).sum()) > 20, "frames, as for outpainting"
    assert int((~corner.any(1) & masks[:, 5, 5]).sum()) > 20, "holes in the middle"


def test_a_mask_is_a_function_of_its_seed_alone():
    whole = job.random_masks(Noise(torch.arange(64)), 8, 8)
    part = job.random_masks(Noise(torch.arange(40, 64)), 8, 8)
    assert torch.equal(whole[40:], part)
    assert not torch.equal(whole[:24], whole[40:])


def test_training_tells_the_hole_and_nothing_of_what_is_in_it(tmp_path):
    with_masks = prepare(tiny(4, MASKED), tmp_path / "a")
    plain = prepare(tiny(4), tmp_path / "b")
    positions = torch.arange(96)
    batch, noise = drawn(with_masks, positions, positions)
    part, _ = drawn(with_masks, positions[40:], positions[40:])
    assert torch.equal(batch.cond["mask"][40:].nan_to_num(9), part.cond["mask"].nan_to_num(9))
    bare, other = drawn(plain, positions, positions)
    assert torch.equal(bare.x, batch.x) and torch.equal(bare.cond["label"], batch.cond["label"])
    assert torch.equal(noise.uniform(96), other.uniform(96)), "paired with the run without"
    value = batch.cond["mask"]
    gone = value.isnan().flatten(1).all(1)
    assert 0 < int(gone.sum()) < 30, "some items are told of nothing"
    picture, hole = value[~gone][:, :-1], value[~gone][:, -1:]
    assert torch.equal(picture, torch.where(hole > 0, 0.0, batch.x[~gone]))
    assert not bool(value[~gone].isnan().any())


def test_an_augmented_picture_has_its_hole_torn_after_it_was_moved(tmp_path):
    more = ["training.augment=1.0", "training.augmentations=[translate]"]
    ready = prepare(tiny(4, MASKED, *more), tmp_path / "a")
    batch, _ = drawn(ready, torch.arange(64), torch.arange(64))
    value = batch.cond["mask"]
    known = (value[:, -1:] == 0).expand_as(batch.x)
    assert torch.equal(value[:, :-1][known], batch.x[known])


def test_an_interrupted_run_goes_on_bit_by_bit(run, tmp_path):
    steps = train(prepare(tiny(6, MASKED), tmp_path / "run"))
    for step in steps:
        if step.i == 3:
            steps.close()
            break
    finish(prepare(tiny(6, MASKED), tmp_path / "run"))
    a, b = (open_model(path / "model.safetensors")[0] for path in (run, tmp_path / "run"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def check_condition(cls):
    """The planes are what is known and where; the null says that nothing is."""
    x, hole = torch.randn(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
    hole[:, :, 1:3] = 1.0
    condition = cls((3, 4, 4))
    for hidden in (0.0, 7.0, math.nan):
        value = torch.cat([torch.where(hole > 0, hidden, x), hole], 1)
        planes = condition(value)
        assert torch.equal(planes[:, :3], torch.where(hole > 0, 0.0, x))
        assert torch.equal(planes[:, 3:], 1.0 - hole)
    white = torch.cat([x, torch.ones_like(hole)], 1)
    assert torch.equal(
        condition(white), condition(torch.full_like(white, math.nan)).expand(2, 4, 4, 4)
    )


def test_the_condition():
    check_condition(Mask)
    with pytest.raises(steerable.UserError, match="pictures"):
        Mask((64, 3))


@pytest.mark.parametrize(
    "edits",
    [
        ("torch.where(known, value", "torch.where(known | True, value"),
        ("value[:, -1:] < 0.5", "value[:, -1:] >= 0.5"),
        ("known.to(value.dtype)]", "(~known).to(value.dtype)]"),
    ],
)
def test_mutant_condition_is_noticed(edits):
    with pytest.raises(AssertionError):
        check_condition(altered("conditions.mask", *edits).Mask)


def scene(model, n=3):
    g = torch.Generator().manual_seed(1)
    x = 2 * torch.rand(n, 1, 8, 8, generator=g) - 1
    hole = torch.zeros(n, 1, 8, 8)
    hole[..., 4:] = 1.0
    t = torch.tensor(0.7, dtype=torch.float64)
    return x, hole, torch.randn(n, 1, 8, 8, generator=g), t


def check_seeing(model, module):
    """The network is told what is known whichever way guidance asks, and never what is hidden."""
    net = model.denoiser
    x, hole, x_t, t = scene(model)
    cond = {"label": torch.tensor([1, 2, 3])}

    def asked(image, denoise):
        return module.seeing(denoise, net, {"image": image, "mask": hole})

    with torch.no_grad():
        plain = answering(net)
        want = net(x_t, t, {**cond, "mask": job.shown_part(x, hole)}).x0
        hidden = torch.where(hole > 0, math.nan, x)
        for image in (x, hidden, torch.where(hole > 0, -x, x)):
            assert torch.equal(asked(image, plain)(x_t, t, cond).x0, want)
        assert not torch.equal(asked(-x, plain)(x_t, t, cond).x0, want)
        assert not torch.equal(plain(x_t, t, cond).x0, want)
        for together in (0, 64):
            cfg = Cfg(weight=0.0, together=together)
            free = cfg(asked(x, plain))(x_t, t, cond).x0
            blind = net(x_t, t, {"mask": job.shown_part(x, hole)}).x0
            assert float((free - blind).abs().max()) < 1e-5, "without a label, with the hole"


def test_the_network_sees_what_is_known_whichever_way_it_is_asked(model):
    check_seeing(model, job)
    ask = answering(model.denoiser)
    assert job.seeing(ask, model.denoiser, {}) is ask, "nothing to see"


@pytest.mark.parametrize(
    "edits",
    [
        ("dict.fromkeys(names, many.to(x_t))", "dict.fromkeys(names, 0 * many)"),
        ("value.repeat(-(-len(x_t) // len(value)), 1, 1, 1)", "value.repeat_interleave(2, 0)"),
        ("mask = (mask >= 0.5).to(image)", "mask = (mask < 0.5).to(image)"),
        ("return told", "return denoise"),
    ],
)
def test_mutant_of_seeing_is_noticed(model, edits):
    with pytest.raises((AssertionError, RuntimeError)):
        check_seeing(model, altered("jobs.masks", *edits))


def test_editing_with_a_trained_mask_keeps_and_sees(model):
    x, hole, _, _ = scene(model)
    x = bytes_of(x)
    wanted = Edit(image=x, mask=hole[0], n=2)
    recipe = planned(model, wanted, steps=4)
    assert [part.kind for part in recipe.constraints] == ["keep"] and recipe.operator is None
    *_, last = edit(model, recipe, wanted)
    assert last.edited.method == "keep"
    for i, got in enumerate(last.edited.x):
        assert torch.equal(got[..., :4], x[i // 2][..., :4])
    swapped = x.clone()
    swapped[..., 4:] = 255 - x[..., 4:]
    *_, other = edit(model, recipe, Edit(image=swapped, mask=hole[0], n=2))
    assert torch.equal(last.edited.x, other.edited.x)
    assert steerable.sample(model, "3", n=2, steps=3).x.shape == (2, 1, 8, 8), "without a hole too"


@pytest.mark.slow
def test_a_trained_network_fills_holes_from_what_it_sees(tmp_path):
    """At t near 1 only the hole tells the picture: its own helps, that of another does not."""
    ready = prepare(tiny(4, MASKED, "training.batch=64"), tmp_path / "run")
    net = ready.denoiser.train()
    optimiser = torch.optim.Adam(net.parameters(), 4e-3)
    for i in range(250):
        positions = torch.arange(64) + 64 * i
        batch, noise = drawn(ready, positions, positions % len(ready.splits.train))
        optimiser.zero_grad()
        net.process.loss(net, batch, noise).mean().backward()
        optimiser.step()
    net.eval()
    x = ready.splits.held_out.batch(torch.arange(200)).x
    hole = torch.zeros(200, 1, 8, 8)
    hole[..., 4:] = 1.0
    x_t = Noise(torch.arange(200)).normal(x)
    t = torch.tensor(0.98, dtype=torch.float64)
    own = job.shown_part(x, hole)
    told = {"blind": {}, "own": {"mask": own}, "another": {"mask": own.roll(1, 0)}}
    error = {}
    with torch.no_grad():
        for name, cond in told.items():
            x0 = net(x_t, t, cond).x0
            error[name] = (x0 - x)[..., 4:].square().flatten(1).mean(1).double()
    for name in ("blind", "another"):
        gain = error[name] - error["own"]
        assert float(gain.mean() / (gain.std() / math.sqrt(200))) > 4, name
