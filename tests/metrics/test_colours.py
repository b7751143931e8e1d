"""Colours, tint, contrast and dead pictures against answers that are known exactly."""

import json

import pytest
import torch
from scipy.stats import wasserstein_distance

from steerable.core.errors import UserError
from steerable.datasets.fashion import fashion
from steerable.metrics import colours as module

from ..mutants import altered

WRONG = {
    "one bin off is another colour": ("(mine.cumsum(1) - theirs.cumsum(1))", "(mine - theirs)"),
    "channels in one histogram": (
        "(group[:, None] * channels + torch.arange(channels))",
        "(group[:, None] * channels + 0 * torch.arange(channels))",
    ),
    "sum over the channels": (".abs().sum(1).mean()", ".abs().sum()"),
    "mean tint": (".abs().max()", ".abs().mean()"),
    "variance for deviation": ("variance.mean(1).sqrt()", "variance.mean(1)"),
    "contrast between channels too": ("variance.mean(1)", "pixels.flatten(1).double().var(1)"),
    "contrast the wrong way round": ("contrasts[0] / contrasts[1]", "contrasts[1] / contrasts[0]"),
    "constant in one channel": ("<= CONSTANT).all(1)", "<= CONSTANT).any(1)"),
    "black though usual": ("return min(black, dark),", "return black,"),
    "white though usual": ("- min(black, bright)", "- black"),
    "anything darker than the real": ("return min(black, dark),", "return dark,"),
    "constant ones not dead": ("dead = metric.constant[kept].sum() +", "dead ="),
    "constant black ones counted twice": (
        "(group[~constant], mean[~constant])",
        "(group, mean)",
    ),
}


def _set(x, channels=None, room=module):
    metric = room.Colours(channels or x.shape[1])
    metric.update(x)
    return metric


def _halves(low, high, n=32):
    """Pictures (n,C,4,4) whose upper half has the levels `low` (C,) and the lower half `high`."""
    x = torch.empty(n, len(low), 4, 4, dtype=torch.uint8)
    x[:, :, :2] = torch.tensor(low, dtype=torch.uint8)[:, None, None]
    x[:, :, 2:] = torch.tensor(high, dtype=torch.uint8)[:, None, None]
    return x


def _value(room, fake, real):
    return _set(fake, room=room).value(_set(real, room=room))


def check_deltas(room):
    """Deltas at 10 and 110 against 50 and 150: every grain of earth goes 40 levels."""
    found = _value(room, _halves([10, 0], [110, 90]), _halves([50, 0], [150, 100]))
    assert found["colour"] == pytest.approx((40 + 5) / 2) and found["tint"] == pytest.approx(40)
    # Within the pictures the deviations are (50, 45) and (50, 50).
    assert found["contrast"] == pytest.approx(((50**2 + 45**2) / 2) ** 0.5 / 50)
    assert found["n"] == 32 and found["colour_error"] == pytest.approx(0, abs=1e-9)


def _dotted(n, level, seed=0):
    """Pictures on black with one dot of a random place: a mean of level / 64."""
    x = torch.zeros(n, 1, 8, 8, dtype=torch.uint8)
    place = torch.randint(64, (n,), generator=torch.Generator().manual_seed(seed))
    x.view(n, 64)[torch.arange(n), place] = level
    return x


def check_dead(room):
    """Of 40 pictures: 4 black, 2 of one colour in noise of 2 levels, 1 with one grey dot."""
    real, fake = _dotted(100, 255), _dotted(40, 255, seed=1)
    fake[:4] = 0
    fake[4:6] = 128 + torch.randint(0, 3, (2, 1, 8, 8), dtype=torch.uint8)
    fake[6] = _dotted(1, 100)
    found = _value(room, fake, real)
    # A mean of 4 of 255 levels is below 2 %, but real pictures look like that.
    assert found["dead"] == pytest.approx(7 / 40) and found["dead_real"] == 0
    bright = _value(room, 255 - fake, 255 - real)
    assert bright["dead"] == pytest.approx(7 / 40) and bright["dead_real"] == 0
    usual = real.clone()
    usual[:10] = 0
    assert _value(room, fake, usual)["dead_real"] == pytest.approx(0.1)


def check_half_constant(room):
    """One channel is constant, the other is not; levels are far from both ends."""
    real = _halves([100, 100], [140, 140])
    assert _value(room, _halves([100, 100], [100, 150]), real)["dead"] == 0
    # Darker than the real ones, but not black.
    assert _value(room, _halves([40, 40], [60, 60]), real)["dead"] == 0


CHECKS = (check_deltas, check_dead, check_half_constant)


@pytest.mark.parametrize("check", CHECKS)
def test_known(check):
    check(module)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_colours_are_noticed(name):
    room = altered("metrics.colours", *WRONG[name])
    with pytest.raises((AssertionError, RuntimeError)):
        for check in CHECKS:
            check(room)


def test_the_distance_is_that_of_another_hand():
    x = torch.randint(0, 256, (2, 20, 3, 5, 6), dtype=torch.uint8)
    x[1] = (x[1].float() ** 2 / 255).to(torch.uint8)
    expected = [
        wasserstein_distance(x[0, :, c].flatten().numpy(), x[1, :, c].flatten().numpy())
        for c in range(3)
    ]
    found = _value(module, x[0], x[1])
    assert found["colour"] == pytest.approx(sum(expected) / 3, rel=1e-12)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def _drawn(n, generator):
    """Smooth-ish pictures whose brightness and contrast vary from one to the next."""
    level = 90 + 80 * torch.rand(n, 1, 1, 1, generator=generator)
    reach = 10 + 40 * torch.rand(n, 1, 1, 1, generator=generator)
    noise = torch.randn(n, 1, 4, 4, generator=generator)
    return (level + reach * noise).clamp(0, 255).to(torch.uint8)


def test_the_errors_are_those_of_repeats():
    """Contrast and tint of equal laws: their gaps lie within two errors as often as they should."""
    generator = torch.Generator().manual_seed(0)
    inside, gaps, errors = 0, [], []
    for _ in range(60):
        found = _value(module, _drawn(100, generator), _drawn(200, generator))
        inside += abs(found["contrast"] - 1) < 2 * found["contrast_error"]
        gaps.append(found["contrast"] - 1)
        errors.append(found["contrast_error"])
    assert inside >= 49  # 56 expected of Student's law with 15; below 49 once in a thousand
    ratio = torch.tensor(errors).square().mean() / torch.tensor(gaps).square().mean()
    assert 0.6 < float(ratio) < 1.7  # the mean square of 60 gaps varies by a fifth


def test_equal_laws_stay_below_the_stated_distance():
    generator = torch.Generator().manual_seed(1)
    values = [
        _value(module, _drawn(100, generator), _drawn(100, generator))["colour"] for _ in range(8)
    ]
    assert sum(values) / 8 < 128 * (2 / 100) ** 0.5


def test_real_pictures_on_black_are_not_dead_and_faults_are_seen():
    splits = fashion(source="embedded")
    real, other = splits.train.x[:1000], splits.held_out.x
    good = _value(module, other, real)
    assert good["dead"] == good["dead_real"] == 0
    assert abs(good["contrast"] - 1) < 4 * good["contrast_error"]
    blank = other.clone()
    blank[:50] = 0
    blank[:50, :, 3, 4] = 200
    assert _value(module, blank, real)["dead"] == pytest.approx(0.05)
    pale = (other.float() * 0.8 + 25).to(torch.uint8)
    assert _value(module, pale, real)["contrast"] < 1 - 4 * good["contrast_error"]
    assert _value(module, pale, real)["colour"] > good["colour"] + 4 * good["colour_error"]
    mean = real.float().mean(0, keepdim=True).to(torch.uint8).expand(1000, -1, -1, -1)
    assert _value(module, mean, real)["contrast"] < 1 - 10 * good["contrast_error"]


def test_merge_equals_one_pass():
    x = torch.randint(0, 256, (50, 2, 3, 3), dtype=torch.uint8)
    real, parts = _set(255 - x), module.Colours(2)
    for index in torch.randperm(50).split(13):
        part = module.Colours(2)
        part.update(x[index], index)
        parts.merge(part)
    assert parts.value(real) == pytest.approx(_set(x).value(real), rel=1e-9)


def test_too_few_and_nothing_to_compare_with():
    x = _halves([0], [255], n=16)
    for fake, real, words in (
        (x[:15], x, "15 and 16 pictures"),
        (x, x[:15], "16 or more"),
        (x, torch.zeros_like(x), "one grey level"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            _value(module, fake, real)
        assert caught.value.code == "E-EVAL"
    assert _value(module, torch.zeros_like(x), x)["dead"] == 1
