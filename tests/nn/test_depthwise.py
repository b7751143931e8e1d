"""The fast gradient of depthwise convolutions is the gradient, and has one itself."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from steerable.nn import depthwise

from ..mutants import altered

WRONG = {
    "kernel not turned": ("weight.flip(2, 3)", "weight"),
    "mean over the items": (".sum(0)", ".mean(0)"),
    "looked at from the other side": ("conv2d(looked, kernels,", "conv2d(looked, kernels.flip(2),"),
    "mean over the places": ("gradient.sum((0, 2, 3))", "gradient.sum(0).mean((1, 2))"),
}


def _convolution(kernel=3):
    return nn.Conv2d(3, 3, kernel, padding=kernel // 2, groups=3).double()


def check_gradients(room):
    """Those of finite differences, the second ones too."""
    convolution = _convolution()
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)

    def f(x, weight, bias):
        return room._Depthwise.apply(x, weight, bias)

    parts = (x, convolution.weight, convolution.bias)
    assert gradcheck(f, parts, raise_exception=False)
    assert gradgradcheck(f, parts, raise_exception=False)


def test_gradients():
    check_gradients(depthwise)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_gradients_are_noticed(name):
    with pytest.raises(AssertionError):
        check_gradients(altered("nn.depthwise", *WRONG[name]))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_equals_the_usual_convolution(memory):
    convolution = _convolution(7)
    x = torch.randn(4, 3, 9, 6, dtype=torch.float64).contiguous(memory_format=memory)
    x.requires_grad_()
    grads = []
    for call in (convolution, lambda x: depthwise.depthwise(convolution, x)):
        convolution.zero_grad()
        x.grad = None
        y = call(x)
        (y**3).sum().backward()
        grads.append([y, x.grad, convolution.weight.grad, convolution.bias.grad])
    for usual, ours in zip(*grads, strict=True):
        torch.testing.assert_close(ours, usual, rtol=1e-12, atol=1e-12)


def test_frozen_weights_and_no_gradients_take_the_usual_way():
    convolution = _convolution()
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        assert depthwise.depthwise(convolution, x).grad_fn is None
    convolution.requires_grad_(False)
    assert "Depthwise" not in depthwise.depthwise(convolution, x).grad_fn.name()
    convolution.requires_grad_(True)
    assert "Depthwise" in depthwise.depthwise(convolution, x).grad_fn.name()
