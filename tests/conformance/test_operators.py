"""Every linear operator: its form, linearity, its adjoint, and the nearest point exactly."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import scipy.ndimage
import torch

from steerable.core.errors import UserError
from steerable.core.steer import Operator
from steerable.operators.blur import Blur
from steerable.operators.downsample import Downsample
from steerable.operators.grey import Grey
from steerable.operators.inpaint import Inpaint

from .rooms import assert_well_formed, files, part

KINDS = files("operators")
F64 = torch.float64
NAN = float("nan")


def _random(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def hidden(n, height=8, width=12):
    """A mask (n,1,H,W) that hides another third of each picture."""
    return (_random(n, 1, height, width, seed=7) > 0.4).to(torch.float32)


def made(kind, n=4, **options):
    """An operator, with what it takes from the context."""
    given = {"mask": hidden(n)}
    names = inspect.signature(part("operators", kind)).parameters
    return part("operators", kind)(**{k: v for k, v in given.items() if k in names}, **options)


def variants():
    """Every kind with its defaults, and some of them with more options."""
    found = [(kind, {}) for kind in KINDS]
    found += [("downsample", {"factor": 4, "kernel": k}) for k in ("bicubic", "lanczos3")]
    found += [("downsample", {"factor": 2, "kernel": k}) for k in ("bilinear", "lanczos2")]
    return [*found, ("blur", {"std": 0.4}), ("blur", {"std": 5.0})]


VARIANTS = pytest.mark.parametrize(("kind", "options"), variants(), ids=str)


@pytest.mark.parametrize("kind", KINDS)
def test_form(kind):
    assert_well_formed("operators", kind)
    cls = part("operators", kind)
    assert issubclass(cls, Operator) and not inspect.isabstract(cls)
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    assert "Source:" in cls.__doc__
    parameters = inspect.signature(cls).parameters.values()
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters)


@VARIANTS
def test_it_is_linear_and_keeps_the_dtype(kind, options):
    a, b = _random(4, 3, 8, 12), _random(4, 3, 8, 12, seed=1)
    operator = made(kind, **options)
    off = operator(2.0 * a - 0.5 * b) - (2.0 * operator(a) - 0.5 * operator(b))
    assert float(off.abs().max()) < 1e-12
    assert float(operator(torch.zeros_like(a)).abs().max()) == 0.0
    assert float(operator(a).abs().max()) > 0.05, "an operator that measures nothing"
    single = a.to(torch.float32)
    y = operator(single)
    assert y.dtype == operator.adjoint(y).dtype == torch.float32
    assert operator.nearest(single, y, 0.5).dtype == torch.float32


@VARIANTS
def test_the_adjoint_is_the_adjoint(kind, options):
    operator, x = made(kind, **options), _random(4, 3, 8, 12)
    y = _random(*operator(x).shape, seed=2)
    left, right = (operator(x) * y).flatten(1).sum(1), (x * operator.adjoint(y)).flatten(1).sum(1)
    assert operator.adjoint(y).shape == x.shape
    assert float((left - right).abs().max()) < 1e-11 * float(operator(x).norm() * y.norm())


@VARIANTS
@pytest.mark.parametrize("dtype", [F64, torch.float32], ids=str)
def test_the_nearest_point_solves_its_normal_equation(kind, options, dtype):
    """A^T (A u - y) + weight (u - x) = 0, which has one solution."""
    operator, x = made(kind, **options), _random(4, 3, 8, 12, dtype=dtype)
    y = operator(_random(4, 3, 8, 12, seed=3, dtype=dtype))
    for weight in (1e-3, 0.1, 1.0, 30.0):
        u = operator.nearest(x, y, weight)
        slope = operator.adjoint(operator(u) - y) + weight * (u - x)
        size = 1.0 + weight
        assert float(slope.abs().max()) < 1e-5 * size, f"weight {weight}"
        assert float((u - x).abs().max()) > 1e-3, "nothing was moved"


@VARIANTS
def test_a_vanishing_weight_projects_and_a_large_one_stays(kind, options):
    operator, x = made(kind, **options), _random(4, 3, 8, 12)
    y = operator(_random(4, 3, 8, 12, seed=3))
    near = operator.nearest(x, y, 1e-8)
    assert float((operator(near) - y).abs().max()) < 1e-3, "does not agree with the measurement"
    assert float((operator.nearest(x, y, 1e8) - x).abs().max()) < 1e-6
    same = operator.nearest(x, operator(x), 1e-8)
    assert float((same - x).abs().max()) < 1e-6, "a point that agrees is its own nearest"


@VARIANTS
def test_an_item_does_not_depend_on_its_batch(kind, options):
    x = _random(4, 3, 8, 12)
    operator = made(kind, **options)
    y = operator(x)
    whole = operator.nearest(_random(4, 3, 8, 12, seed=5), y, 0.3)
    for i in range(4):
        alone = Inpaint(mask=hidden(4)[i : i + 1]) if kind == "inpaint" else operator
        got = alone.nearest(_random(4, 3, 8, 12, seed=5)[i : i + 1], y[i : i + 1], 0.3)
        assert float((got - whole[i : i + 1]).abs().max()) < 1e-12


def test_inpainting_never_reads_what_is_hidden():
    mask, x = hidden(4), _random(4, 3, 8, 12)
    operator = Inpaint(mask=mask)
    holes = x.masked_fill(mask >= 0.5, NAN)
    y = operator(holes)
    assert torch.equal(y, torch.where(mask >= 0.5, 0.0, x)), "1 is hidden, 0 is known"
    assert torch.equal(operator.adjoint(holes), y)
    u = operator.nearest(_random(4, 3, 8, 12, seed=6), holes, 1e-9)
    assert bool(u.isfinite().all())
    assert torch.equal((u - _random(4, 3, 8, 12, seed=6)).eq(0), (mask >= 0.5).expand_as(u))
    assert float((operator(u) - y).abs().max()) < 1e-7


def test_a_blur_is_the_gaussian_of_another_library():
    """scipy's kernel is the sampled Gaussian with the same reflected border."""
    x = _random(1, 1, 24, 30)
    for std in (1.0, 2.0, 4.0):
        want = scipy.ndimage.gaussian_filter(x[0, 0].numpy(), std, mode="reflect", truncate=8)
        off = (Blur(std=std)(x)[0, 0] - torch.from_numpy(want)).abs().max()
        assert float(off) < (2e-2 if std == 1.0 else 1e-4)  # its Fourier transform has replicas
    ones = torch.full((1, 2, 9, 7), 0.4, dtype=F64)
    assert float((Blur(std=3.0)(ones) - 0.4).abs().max()) < 1e-12


def test_the_box_measures_means_and_grey_measures_luminance():
    x = _random(2, 3, 8, 12)
    want = x.reshape(2, 3, 4, 2, 6, 2).mean((3, 5))
    assert float((Downsample(factor=2)(x) - want).abs().max()) < 1e-12
    want = 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
    assert float((Grey()(x) - want).abs().max()) < 1e-12


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="colour pictures"):
        Grey()(_random(1, 1, 4, 4))
    with pytest.raises(UserError, match="2, 4"):
        Downsample(factor=3)(_random(1, 1, 8, 12))
