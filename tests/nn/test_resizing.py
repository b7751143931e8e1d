"""Resizing: constants, ramps, tones, centres, the adjoint, and agreement with torch's antialias."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from steerable.core.errors import UserError
from steerable.nn import resizing

from ..mutants import altered, noticed

F64 = torch.float64
KERNELS = get_args(resizing.Kernel)


def _ramp(n):
    """A picture (1,1,n,n) whose value is 2 column - row, counted from its centre."""
    line = torch.arange(n, dtype=F64) - (n - 1) / 2
    return (2.0 * line - line[:, None])[None, None]


def _noise(*shape):
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(4))


def check_constants(module) -> None:
    """Constants stay, up and down, with every kernel, up to the border."""
    ones = torch.full((1, 2, 12, 18), 0.7, dtype=F64)
    for kernel in KERNELS:
        made = [module.down(ones, f, kernel) for f in (2, 3, 4, 5)]
        made += [module.up(ones, f, kernel) for f in (2, 3)]
        made += [module.lowpass(ones, f, kernel) for f in (2, 5, 6)]
        made += [module.resized(ones, size, kernel) for size in ((7, 29), (12, 18), (1, 1))]
        for x in made:
            assert float((x - 0.7).abs().max()) < 1e-12, kernel


def check_ramps(module) -> None:
    """A ramp keeps its slope about the same centre, away from the border."""
    for kernel in KERNELS:
        for factor in (2, 3, 4):
            n = 12 * factor
            got = module.down(_ramp(n), factor, kernel)
            off = (got - factor * _ramp(n // factor))[..., 3:-3, 3:-3].abs().max()
            assert float(off) < 1e-12, f"{kernel} down by {factor}: off by {off:.1e}"
            if kernel in ("bilinear", "bicubic"):
                got = module.up(_ramp(12), factor, kernel)
                off = (got - _ramp(n) / factor)[..., n // 3 : -n // 3, n // 3 : -n // 3].abs().max()
                assert float(off) < 1e-12, f"{kernel} up by {factor}: off by {off:.1e}"


def check_tones(module) -> None:
    """What a small picture cannot hold, the Nyquist tone, keeps less than 1 % of its energy.

    A box or a triangle has no more than a first zero to offer, so the finer kernels are asked.
    """
    place = torch.arange(72, dtype=F64)
    for kernel in ("bicubic", "lanczos2", "lanczos3"):
        for factor in (2, 3, 4, 6):
            line = (-1.0) ** place
            for tone in (line.expand(1, 1, 72, 72), (line * line[:, None])[None, None]):
                left = module.down(tone, factor, kernel)[..., 3:-3, 3:-3].square().mean()
                assert float(left) < 0.01, f"{kernel} by {factor}: {float(left):.3f} of the energy"
    for kernel in ("box", "bilinear"):
        for factor in (2, 4, 6):
            tone = ((-1.0) ** place).expand(1, 1, 72, 72)
            left = module.down(tone, factor, kernel)[..., 3:-3, 3:-3].square().mean()
            assert float(left) < 0.01, f"{kernel} by {factor}: {float(left):.3f} of the energy"


def check_torch(module) -> None:
    """Torch's own antialias, an independent implementation, agrees to 1e-4 inside."""
    x = _noise(2, 2, 48, 40)
    for kernel in ("bilinear", "bicubic"):
        for size in ((24, 20), (16, 10), (17, 31), (11, 13)):
            want = F.interpolate(x, size=size, mode=kernel, antialias=True, align_corners=False)
            off = (module.resized(x, size, kernel) - want)[..., 1:-1, 1:-1].abs().max()
            assert float(off) < 1e-4, f"{kernel} to {size}: off by {off:.1e}"


def _centre(x):
    """Centre of mass (row, column), from the centre of the picture, in shares of its sides."""
    mass = x[0, 0] / x.sum()
    lines = [(torch.arange(n, dtype=F64) - (n - 1) / 2) / n for n in x.shape[-2:]]
    return float((mass.sum(1) * lines[0]).sum()), float((mass.sum(0) * lines[1]).sum())


def check_centre(module) -> None:
    """The middle of odd pictures stays the middle, to 1e-3 pixels, for sizes and for factors."""
    for n in (15, 21, 33):
        line = torch.arange(n, dtype=F64) - (n - 1) / 2
        bump = torch.exp(-(line**2 + line[:, None] ** 2) / (2 * (n / 8) ** 2))[None, None]
        for kernel in KERNELS:
            made = [module.down(bump, f, kernel) for f in (2, 3, 4)]
            made += [module.up(bump, 2, kernel), module.lowpass(bump, 4, kernel)]
            made += [module.resized(bump, size, kernel) for size in ((n // 2, n - 3), (n + 4, 9))]
            for x in made:
                off = max(map(abs, _centre(x))) * n
                assert off < 1e-3, f"{kernel}, {n} to {tuple(x.shape[-2:])}: off by {off:.4f}"


CHECKS = (check_constants, check_ramps, check_tones, check_torch, check_centre)


@pytest.mark.parametrize("check", CHECKS)
def test_resizing(check):
    check(resizing)


MUTANTS = {
    "half a pixel off": ("(after - 1) / 2\n    old", "after / 2\n    old"),
    "corners aligned": ("None] / scale - old", "None] * (before - 1) / (after - 1 or 1) - old"),
    "no antialias": ("* min(scale, 1.0)", "* 1.0"),
    "kernel stretched when growing": ("* min(scale, 1.0)", "* scale"),
    "rows that do not sum to one": ("return raw / total", "return raw * min(scale, 1.0)"),
    "a = -0.75": ("a, u = -0.5, u.abs()", "a, u = -0.75, u.abs()"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name):
    assert noticed(CHECKS, altered("nn.resizing", *MUTANTS[name])), f"'{name}' survives"


def test_the_box_low_pass_is_a_projection_and_the_others_are_none():
    x = _noise(3, 1, 24, 32)
    for factor in (2, 4, 8):
        once = resizing.lowpass(x, factor, "box")
        assert float((resizing.lowpass(once, factor, "box") - once).abs().max()) < 1e-14
        blocks = x.reshape(3, 1, 24 // factor, factor, 32 // factor, factor).mean((3, 5))
        want = blocks.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        assert float((once - want).abs().max()) < 1e-14
    line = torch.eye(48, dtype=F64)[None, None]
    for factor in (2, 3, 4, 6, 8):
        phi = _side(line, factor)
        ratio = float(torch.linalg.matrix_norm(phi @ phi - phi) / torch.linalg.matrix_norm(phi))
        assert 0.1 < ratio < 0.2, f"bicubic by {factor}: |phi phi - phi| / |phi| is {ratio:.3f}"


def _side(line, factor):
    """The matrix of the bicubic low-pass of one side."""
    n = line.shape[-1]
    small = resizing.weights(n, n // factor, "bicubic", 1 / factor)
    return resizing.weights(n // factor, n, "bicubic", float(factor)) @ small


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_gradient_is_the_adjoint_and_resizing_is_linear(kernel):
    x, y = _noise(2, 2, 10, 9), _noise(2, 2, 4, 12)
    asked = x.clone().requires_grad_()
    small = resizing.resized(asked, (4, 12), kernel)
    (back,) = torch.autograd.grad((small * y).sum(), asked)
    small = small.detach()
    rows = resizing.weights(10, 4, kernel, 0.4)
    columns = resizing.weights(9, 12, kernel, 12 / 9)
    assert float((back - rows.mT @ y @ columns).abs().max()) < 1e-13
    assert abs(float((small * y).sum() - (x * back).sum())) < 1e-12
    other = _noise(1, 2, 10, 9)
    both = resizing.resized(2.0 * x - other, (4, 12), kernel)
    apart = 2.0 * small - resizing.resized(other, (4, 12), kernel)
    assert float((both - apart).abs().max()) < 1e-13


def test_up_and_down_come_back_to_any_size_in_the_dtype_of_the_picture():
    x = torch.rand(2, 3, 13, 10)
    for factor in (2, 3, 4, 16):
        small = resizing.down(x, factor)
        assert small.shape == (2, 3, math.ceil(13 / factor), math.ceil(10 / factor))
        low = resizing.lowpass(x, factor)
        assert low.shape == x.shape and low.dtype == x.dtype
        exact = resizing.lowpass(x.to(F64), factor)
        assert float((low - exact).abs().max()) < 1e-6


def test_a_factor_that_does_not_divide_is_refused_with_those_that_do():
    for factor, shape, message in (
        (5, (1, 3, 28, 28), "2, 4, 7, 14, 28"),
        (3, (1, 3, 12, 8), "2, 4"),
        (2, (1, 1, 9, 4), "none"),
        (2.5, (1, 1, 10, 10), "whole number"),
        (1, (1, 1, 10, 10), "whole number"),
    ):
        with pytest.raises(UserError, match=message):
            resizing.check_factor(shape, factor, "test")
    resizing.check_factor((1, 3, 28, 56), 7, "test")
