"""Every condition: its form, its slot, its null, and dropout that hides the value completely."""

from __future__ import annotations

import inspect

import pytest
import torch

from steerable.core.condition import Condition, absent, absent_like
from steerable.core.noise import Noise

from .rooms import assert_well_formed, files, part

KINDS = files("conditions")
WIDTH, CLASSES = 12, 5


VALUES = {
    "label": torch.tensor([0, 2, 4]),
    "vector": torch.tensor([[0.1, -0.5, 0.3], [0.1, -0.5, 0.4], [-0.9, 0.5, 0.3]]),
    "tokens": torch.tensor([[0, 2, -1], [2, 0, -1], [0, 2, 4]]),
    "estimate": torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)),
    "augmentation": torch.randn(3, 8, generator=torch.Generator().manual_seed(0)),
    "mask": torch.cat(
        [
            torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)),
            torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(3, 1, 4, 1),
        ],
        1,
    ),
}


def _built(kind):
    """The condition and three different values of it, from the context that a builder knows."""
    cls = part("conditions", kind)
    context = {"width": WIDTH, "classes": CLASSES, "numbers": 3, "words": CLASSES}
    context["shape"] = (2, 4, 4)
    needed = [
        p.name
        for p in inspect.signature(cls).parameters.values()
        if p.default is inspect.Parameter.empty
    ]
    torch.manual_seed(0)
    condition = cls(**{name: context[name] for name in needed})
    if condition.null.requires_grad:
        torch.nn.init.normal_(condition.null)
    condition.dropout = condition.dropout or 0.1
    return condition, VALUES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_form(kind):
    assert_well_formed("conditions", kind)
    cls = part("conditions", kind)
    assert issubclass(cls, Condition) and not inspect.isabstract(cls)
    assert cls.slot in {"vector", "tokens", "planes"}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_different_values_differ_and_the_null_differs_from_all(kind):
    condition, value = _built(kind)
    rows = [*condition(value), *condition(absent_like(value[:1]))]
    for i, a in enumerate(rows):
        for b in rows[i + 1 :]:
            assert float((a - b).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_dropped_item_says_nothing_of_its_value(kind):
    condition, value = _built(kind)
    noise = Noise(torch.arange(300))
    many = value.repeat(100, *[1] * (value.ndim - 1))
    dropped = condition.dropped(many, noise)
    other = condition.dropped(many.flip(0), Noise(torch.arange(300)))
    gone = absent(dropped)
    assert torch.equal(gone, absent(other)), "which items are dropped must not depend on the value"
    encoded = condition(dropped)[gone]
    assert 0 < len(encoded) < 300
    assert torch.equal(encoded, condition.null.expand_as(encoded))


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_does_not_depend_on_its_batch_and_gradients_arrive(kind):
    condition, value = _built(kind)
    mixed = torch.cat([value, absent_like(value[:1])])
    whole = condition(mixed)
    for i in range(4):
        assert torch.allclose(condition(mixed[i : i + 1])[0], whole[i], atol=1e-6)
    if not any(p.requires_grad for p in condition.parameters()):
        return  # nothing to learn
    whole.square().sum().backward()
    for name, parameter in condition.named_parameters():
        if not parameter.requires_grad:
            assert not bool(parameter.any()), f"{name} is fixed, so it must be the zero"
            continue
        assert parameter.grad is not None and bool(parameter.grad.any()), name
