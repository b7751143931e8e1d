"""Augmentation: exact, fully told, free of leaks, and refused where it would spoil the labels."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.sample import trajectory
from steerable.core.types import Dataset, Spec, Splits
from steerable.jobs.augment import augmented, check_augmentation, motion
from steerable.jobs.feed import drawn
from steerable.jobs.prepare import prepare
from steerable.jobs.sample import drawn as sampled
from steerable.jobs.train import train
from steerable.jobs.wish import Wish
from steerable.oracles.mixture import Mixture
from steerable.recipes.assembly import grid
from steerable.recipes.part import Part
from steerable.recipes.presets import find_preset
from steerable.recipes.recipe import checked
from steerable.recipes.training import Training
from steerable.samplers.heun import Heun

from .tiny import tiny

EVERY = ("flip", "flip_y", "turn", "rotate", "scale", "translate")


def done(names, *, chance=1.0, shape=(2, 12, 12), n=200, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(n, *shape, generator=g) - 1
    settings = Training(augment=chance, augmentations=names)
    return x, *augmented(x.clone(), settings, Noise(torch.arange(n)))


def replayed(x, value, mode="bilinear"):
    """What the eight numbers say was done, from the numbers alone."""
    forward = motion(value.double(), x.shape[-2:])
    square = torch.cat([forward, torch.tensor([[[0.0, 0.0, 1.0]]]).repeat(len(x), 1, 1)], 1)
    grid = F.affine_grid(torch.linalg.inv(square)[:, :2], list(x.shape), False)
    return F.grid_sample(x.double(), grid, mode, "reflection", False).float()


def test_untouched_items_are_bit_equal_and_the_share_is_the_chance():
    x, y, value = done(EVERY, chance=0.1, n=2000)
    same = (value == 0).all(1)
    assert torch.equal(x[same], y[same])
    # a flip happens in half of the cases, a turn and a shift in most; untouched: all six stay out
    shift = 1 - 0.1 * (1 - 1 / 9)  # shifts of -1, 0, 1 pixels in both directions
    want = 0.95 * 0.95 * 0.925 * 0.9 * 0.9 * shift
    assert abs(float(same.double().mean()) - want) < 4 * (want * (1 - want) / 2000) ** 0.5
    assert bool((x[~same] != y[~same]).flatten(1).any(1).all())


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 8, 16), (1, 9, 7)])
def test_exact_operations_are_what_the_numbers_say(shape):
    x, y, value = done(("flip", "flip_y", "turn", "translate"), shape=shape)
    torch.testing.assert_close(y, replayed(x, value), atol=1e-4, rtol=0)
    assert len(value.unique(dim=0)) > 20
    pixels = (x.sort(-1).values.flatten(1), y.sort(-1).values.flatten(1))
    assert pixels[0].shape == pixels[1].shape
    untouched = value[:, 6:].abs().sum(1) == 0
    for a, b in zip(x[untouched], y[untouched], strict=True):
        assert torch.equal(a.flatten().sort().values, b.flatten().sort().values), "pixels only move"


@pytest.mark.parametrize("shape", [(1, 12, 12), (2, 8, 16)])
def test_resampled_pictures_are_what_the_numbers_say(shape):
    x, y, value = done(EVERY, shape=shape)
    assert bool((y.abs() <= 1).all())
    smooth = F.interpolate(x[:, :, ::4, ::4], shape[1:], mode="bilinear", align_corners=True)
    settings = Training(augment=1.0, augmentations=("flip", "turn", "rotate", "scale"))
    y, value = augmented(smooth.clone(), settings, Noise(torch.arange(len(x))))
    want = replayed(smooth, value, "bicubic").clamp(-1, 1)
    torch.testing.assert_close(y, want, atol=1e-4, rtol=0)


def test_the_inverse_of_the_numbers_brings_the_picture_back():
    """Away from the border, where a smooth blob was rotated, scaled and shifted."""
    yy, xx = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    blob = torch.exp(-8 * ((xx - 0.2) ** 2 + (2 * (yy + 0.1)) ** 2)) * 1.8 - 0.9
    x = blob.expand(100, 1, 32, 32).clone()
    settings = Training(augment=1.0, augmentations=("rotate", "scale", "flip", "translate"))
    y, value = augmented(x.clone(), settings, Noise(torch.arange(100)))
    grid = F.affine_grid(motion(value, (32, 32)), [100, 1, 32, 32], False)
    back = F.grid_sample(y, grid, "bicubic", "reflection", False)
    moved = float((y - x).abs()[..., 8:24, 8:24].mean())
    left = float((back - x).abs()[..., 8:24, 8:24].mean())
    assert moved > 0.1 and left < 0.05 * moved


def test_flipping_and_turning_back_is_the_identity():
    x, y, value = done(("flip", "turn"))
    quarters = (torch.atan2(value[:, 3], value[:, 2] + 1) / (torch.pi / 2)).round().int() % 4
    for a, b, v, k in zip(x, y, value, quarters, strict=True):
        back = b.rot90(int(k), (-2, -1))
        assert torch.equal(back.flip(-1) if v[0] == 1 else back, a)
    x, y, value = done(("flip",))
    twice = torch.where(value[:, 0].bool()[:, None, None, None], y.flip(-1), y)
    assert torch.equal(twice, x) and 60 < int(value[:, 0].sum()) < 140


def test_a_turn_keeps_the_shape_of_a_picture_that_is_not_square():
    x, y, value = done(("turn",), shape=(1, 6, 10))
    assert x.shape == y.shape and sorted({round(float(c)) for c in value[:, 2]}) == [-2, 0]


def test_what_is_done_is_a_function_of_seed_and_position(tmp_path):
    more = ["training.augment=0.5", "training.augmentations=[translate, scale]"]
    job = prepare(tiny(4, *more), tmp_path / "run")
    plain = prepare(tiny(4), tmp_path / "plain")
    positions = torch.arange(64)
    whole, noise = drawn(job, positions, positions)
    part, _ = drawn(job, positions[40:], positions[40:])
    assert torch.equal(whole.x[40:], part.x)
    assert torch.equal(whole.cond["augmentation"][40:], part.cond["augmentation"])
    bare, other = drawn(plain, positions, positions)
    assert torch.equal(bare.cond["label"], whole.cond["label"])
    assert torch.equal(noise.uniform(64), other.uniform(64)), "paired with the run without"
    told = whole.cond["augmentation"]
    assert torch.equal((told != 0).any(1), (whole.x != bare.x).flatten(1).any(1))


def test_the_condition_is_in_every_recipe_that_augments_and_can_be_told_of_sampling(tmp_path):
    recipe = tiny(4, "training.augment=0.1")
    assert recipe.conditions["augmentation"].kind == "augmentation"
    assert checked(recipe.plain()) == recipe and "augmentation" not in tiny(4).conditions
    with pytest.raises(UserError, match=r"conditions.augmentation"):
        tree = {**recipe.plain(), "conditions": {"augmentation": {"kind": "label"}}}
        checked(tree)
    net = prepare(recipe, tmp_path / "run").denoiser
    x, t = torch.randn(3, 1, 8, 8), torch.full((3,), 0.5, dtype=torch.float64)
    with torch.no_grad():
        torch.nn.init.normal_(net.backbone.leave.weight)
        zeros = net(x, t, {"augmentation": torch.zeros(3, 8)}).x0
        assert torch.equal(net(x, t, {}).x0, zeros), "not told is: nothing was done"


# Pictures whose brightest side is the left one, with a little noise.


def _pointing(n=256):
    g = torch.Generator().manual_seed(0)
    base = torch.linspace(1, -1, 8).expand(1, 8, 8)
    x = base * (0.6 + 0.3 * torch.rand(n, 1, 1, 1, generator=g))
    x = ((x + 0.05 * torch.randn(n, 1, 8, 8, generator=g)).clamp(-1, 1) * 127.5 + 127.5).round()
    spec = Spec("pointing", (1, 8, 8), {}, std=0.5, flip=True)
    data = Dataset(spec, x.to(torch.uint8), {})
    return Splits(data.take(torch.arange(200)), data.take(torch.arange(200, 256)))


def _orientations(x):
    """Share of pictures that are brightest left, top, right, bottom."""
    sides = [x[..., :4].mean((1, 2, 3)), x[..., :4, :].mean((1, 2, 3))]
    sides += [x[..., 4:].mean((1, 2, 3)), x[..., 4:, :].mean((1, 2, 3))]
    return torch.bincount(torch.stack(sides).argmax(0), minlength=4) / len(x)


def _job(run, told):
    splits = _pointing()
    base = find_preset("flow")(splits.train.spec, data=Part(kind="digits"), budget="300 iterations")
    settings = ["backbone.channels=[16, 32]", "backbone.width=32", "training.batch=32"]
    settings += ["training.augment=1", "training.augmentations=[turn]", "training.warmup=10"]
    settings += ["training.ema=0.97", "training.flip=false"]
    recipe = checked(base.plain()).with_set(settings)
    recipe = recipe.with_set([f"conditions.augmentation.dropout={0 if told else 1}"])
    return prepare(recipe, run, splits=splits)


def _ideal(job):
    """Samples of the best network there is for what the feed hands out, asked as sampling asks.

    It knows the law of the pictures for every told value; sampling tells nothing, which is the
    same as telling zeros.
    """
    positions = torch.arange(400)
    batch, _ = drawn(job, positions, positions % 200)
    value = batch.cond["augmentation"]
    something = (value.nan_to_num() != 0).any(1).long()
    n, schedule = len(positions), job.denoiser.process.schedule
    stds = torch.full((n,), 0.1)
    oracle = Mixture(schedule, torch.full((n,), 1 / n), batch.x.flatten(1), stds, something)
    seeds = Noise(torch.arange(200))
    times = grid(Part(kind="log_snr"), schedule, 20)
    x = job.denoiser.process.start(times[0], seeds, torch.zeros(200, 64))
    ask = partial(oracle, cond={"label": torch.zeros(200, dtype=torch.int64)})
    steps = {"schedule": schedule, "sampler": Heun(), "times": times, "noise": seeds}
    *_, last = trajectory(ask, x, **steps)
    return _orientations(last.x.unflatten(1, (1, 8, 8)))


@pytest.mark.slow
def test_samples_of_the_ideal_network_point_where_the_data_points(tmp_path):
    assert _orientations(_pointing().train.batch(torch.arange(200)).x).tolist() == [1, 0, 0, 0]
    assert _ideal(_job(tmp_path / "run", told=True)).tolist() == [1, 0, 0, 0]


def test_mutant_augmentation_that_is_not_told_leaks(tmp_path):
    shares = _ideal(_job(tmp_path / "run", told=False))
    assert float((shares - 0.25).abs().max()) < 4 * (0.25 * 0.75 / 200) ** 0.5, "all four sides"


@pytest.mark.slow
@pytest.mark.parametrize("told", [True, False])
def test_samples_of_a_trained_network_leak_only_what_it_was_not_told(tmp_path, told):
    job = _job(tmp_path / "run", told)
    *_, _ = train(job)
    net, spec = job.denoiser.eval(), job.splits.train.spec
    shares = _orientations(sampled(net, job.recipe, spec, [Wish({}, seed) for seed in range(64)]))
    if told:
        assert float(shares[0]) >= 0.95
    else:
        assert float(shares[1:].sum()) > 0.4, "three in four training pictures are turned"


# Label safety


@pytest.mark.parametrize(
    "settings",
    [
        ["training.flip=true"],
        *[["training.augment=0.1", f"training.augmentations=[{name}]"] for name in EVERY[:4]],
    ],
)
def test_what_spoils_the_labels_of_digits_is_refused_before_anything_is_written(tmp_path, settings):
    run = tmp_path / "run"
    with pytest.raises(UserError, match="digits or letters") as caught:
        prepare(tiny(4, *settings), run)
    assert caught.value.code == "E-CONFIG" and "training.force=true" in caught.value.do
    assert not run.exists()
    forced = tiny(4, *settings, "training.force=true")
    assert prepare(forced, run).recipe.training.force


def test_a_run_that_was_begun_before_goes_on(tmp_path):
    run = tmp_path / "run"
    forced = tiny(4, "training.flip=true", "training.force=true")
    *_, _ = train(prepare(forced, run))
    text = (run / "recipe.yaml").read_text().replace("  force: true\n", "")
    (run / "recipe.yaml").write_text(text)
    assert prepare(tiny(4, "training.flip=true"), run).resumes


@pytest.mark.parametrize("name", EVERY[4:])
def test_shifts_and_scales_are_safe_for_all(name):
    check_augmentation(Training(augment=0.5, augmentations=(name,)), Spec("d", (1, 8, 8)))


@pytest.mark.parametrize(
    ("names", "flip", "fine"),
    [
        (("cat", "dog"), True, True),
        (("cat", "dog"), False, False),
        ((), True, True),
        (tuple("0123456789"), True, False),
        (("10", "-3", "2.5"), True, False),
        (("a", "b"), True, False),
        (("Zero", "forty-two", "one hundred"), True, False),
        (("one", "shoe"), True, True),
    ],
)
def test_which_data_may_be_mirrored(names, flip, fine):
    spec = Spec("toys", (3, 8, 8), {"label": names} if names else {}, flip=flip)
    for training in (Training(flip=True), Training(augment=0.1, augmentations=("turn", "scale"))):
        if fine:
            check_augmentation(training, spec)
        else:
            with pytest.raises(UserError, match="a mirrored"):
                check_augmentation(training, spec)
            check_augmentation(training.model_copy(update={"force": True}), spec)
        check_augmentation(training.model_copy(update={"flip": False, "augment": 0.0}), spec)


def test_only_pictures_are_augmented():
    with pytest.raises(UserError, match="pictures"):
        check_augmentation(Training(augment=0.1), Spec("points", (64, 3)))
    with pytest.raises(UserError, match="augmentations"):
        tiny(4, "training.augment=0.5", "training.augmentations=[]")
