"""Every constraint: its form, that items do not see each other, and where it puts the sample."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch

from steerable.constraints.ilvr import Ilvr
from steerable.constraints.keep import Keep
from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.schedule import VP, Flow, VeGeometric
from steerable.core.steer import Constraint
from steerable.nn.resizing import lowpass

from .rooms import assert_well_formed, files, part

KINDS = files("constraints")
SCHEDULES = (VP(), Flow(), VeGeometric())
F64 = torch.float64


def _random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def context(n=5):
    """What may be given with a wish, for n pictures (2,8,8)."""
    mask = (_random(n, 1, 8, 8, seed=1) > 0).to(torch.float32)
    given = {"image": _random(n, 2, 8, 8, seed=2), "mask": mask}
    return given | {"reference": _random(n, 2, 8, 8, seed=3)}


def made(kind, given, **options):
    """The constraint with what it takes from the context."""
    parameters = inspect.signature(part("constraints", kind)).parameters
    needed = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty]
    return part("constraints", kind)(**{name: given[name] for name in needed}, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_form(kind):
    assert_well_formed("constraints", kind)
    cls = part("constraints", kind)
    assert issubclass(cls, Constraint) and not inspect.isabstract(cls)
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    assert "Source:" in cls.__doc__
    parameters = inspect.signature(cls).parameters.values()
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", [0.6, 0.0])
def test_an_item_does_not_depend_on_its_batch_and_repeats(kind, time):
    given, x = context(), _random(5, 2, 8, 8, seed=4)
    s, seeds = torch.tensor(time, dtype=F64), torch.arange(5) + 10
    whole = made(kind, given)(x, s, VP(), Noise(seeds))
    assert not torch.equal(whole, x), "nothing happened"
    assert torch.equal(whole, made(kind, given)(x, s, VP(), Noise(seeds)))
    for i in range(5):
        one = {name: value[i : i + 1] for name, value in given.items()}
        alone = made(kind, one)(x[i : i + 1], s, VP(), Noise(seeds[i : i + 1]))
        assert float((alone - whole[i : i + 1]).abs().max()) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_the_clean_sample_gets_no_noise_whatever_sigma_of_zero_is(kind, schedule):
    x, zero = _random(5, 2, 8, 8, seed=4), torch.tensor(0.0, dtype=F64)
    got = [made(kind, context())(x, zero, schedule, Noise(torch.arange(5) + k)) for k in (0, 50)]
    assert torch.equal(*got), "a clean sample does not depend on the seed"
    assert torch.equal(got[0], made(kind, context())(x, zero, VP(), Noise(torch.arange(5))))


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_in_the_dtype_of_the_sample(kind):
    x = _random(5, 2, 8, 8).to(torch.float32)
    for time in (0.5, 0.0):
        s = torch.tensor(time, dtype=F64)
        assert made(kind, context())(x, s, VP(), Noise(torch.arange(5))).dtype == torch.float32


def test_keep_replaces_black_and_leaves_white_bit_for_bit():
    given, x = context(), _random(5, 2, 8, 8, seed=4)
    white = (given["mask"] >= 0.5).expand_as(x)
    holes = given["image"].masked_fill(white, float("nan"))
    keep = Keep(image=holes, mask=given["mask"])
    clean = keep(x, torch.tensor(0.0), VP(), Noise(torch.arange(5)))
    assert torch.equal(clean[white], x[white])
    assert torch.equal(clean[~white], given["image"][~white])
    for schedule in SCHEDULES:
        s = torch.tensor(0.4, dtype=F64)
        alpha, sigma = schedule(s)
        z = Noise(torch.arange(5)).normal(x)
        got = keep(x, s, schedule, Noise(torch.arange(5)))
        assert torch.equal(got[white], x[white])
        want = (alpha * given["image"] + sigma * z)[~white]
        assert float((got[~white] - want).abs().max()) < 1e-12


@pytest.mark.parametrize("kernel", ["box", "bicubic", "lanczos3"])
def test_ilvr_swaps_the_low_band_and_leaves_the_rest(kernel):
    given, x = context(), _random(5, 2, 8, 8, seed=4)
    ilvr = Ilvr(reference=given["reference"], factor=2, kernel=kernel)
    for schedule in SCHEDULES:
        for time in (0.7, 0.0):
            s = torch.tensor(time, dtype=F64)
            alpha, sigma = schedule(s) if time else (torch.tensor(1.0), torch.tensor(0.0))
            y_s = alpha * given["reference"] + sigma * Noise(torch.arange(5)).normal(x)
            want = x - lowpass(x, 2, kernel) + lowpass(y_s, 2, kernel)
            got = ilvr(x, s, schedule, Noise(torch.arange(5)))
            assert float((got - want).abs().max()) < 1e-11


def test_ilvr_is_at_work_from_start_down_to_stop_with_both_ends():
    x, reference = _random(5, 2, 8, 8), context()["reference"]
    ilvr = Ilvr(reference=reference, factor=4, start=0.8, stop=0.25)
    for time, inside in ((0.9, False), (0.8, True), (0.5, True), (0.25, True), (0.2, False)):
        got = ilvr(x, torch.tensor(time, dtype=F64), VP(), Noise(torch.arange(5)))
        assert torch.equal(got, x) != inside, f"t={time}"
    assert torch.equal(ilvr(x, torch.tensor(0.0), VP(), Noise(torch.arange(5))), x)


def test_what_cannot_work_is_refused_with_what_can():
    given, x = context(), _random(5, 2, 8, 8)
    y, s, noise = given["reference"], torch.tensor(0.5, dtype=F64), Noise(torch.arange(5))
    for error, message, build in (
        ("E-CONFIG", "2, 4, 8", lambda: Ilvr(reference=y, factor=3)),
        ("E-CONFIG", "2, 4, 8", lambda: Ilvr(reference=y, factor=16)),
        ("E-LIMIT", "whole number", lambda: Ilvr(reference=y, factor=1)),
        ("E-LIMIT", "whole number", lambda: Ilvr(reference=y, factor=2.5)),
        ("E-CONFIG", "stop at most start", lambda: Ilvr(reference=y, start=0.2, stop=0.4)),
        ("E-DATA", "not finite", lambda: Ilvr(reference=y / 0.0)),
        ("E-SHAPE", "pictures", lambda: Ilvr(reference=y[0])),
        ("E-SHAPE", "that of x", lambda: Ilvr(reference=y[:, :1])(x, s, VP(), noise)),
        ("E-SHAPE", "that of x", lambda: Ilvr(reference=y[..., :4])(x, s, VP(), noise)),
        ("E-SHAPE", "1 channel", lambda: Keep(image=y, mask=given["mask"][..., :4])),
        ("E-SHAPE", "1 channel", lambda: Keep(image=y, mask=given["mask"][:, 0])),
        (
            "E-SHAPE",
            "that of x",
            lambda: Keep(image=y, mask=given["mask"])(x[:, :1], s, VP(), noise),
        ),
        ("E-DATA", "inverted", lambda: Keep(image=y / 0.0, mask=given["mask"])),
    ):
        with pytest.raises(UserError, match=message) as fault:
            build()
        assert fault.value.code == error
