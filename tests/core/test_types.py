"""Estimates and batches: identities between parameterisations, and items as bytes."""

from __future__ import annotations

import pytest
import torch

from steerable.core.schedule import VP, Flow, VePower
from steerable.core.types import Dataset, Estimate, Spec, spread

F64 = torch.float64


@pytest.mark.parametrize("schedule", [VP(), VePower(), Flow()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("per_item", [True, False])
def test_identities_of_an_estimate(schedule, per_item):
    g = torch.Generator().manual_seed(1)
    x0, z = torch.randn(2, 5, 2, 3, generator=g, dtype=F64)
    t = torch.linspace(0.1, 0.9, 5, dtype=F64) if per_item else torch.tensor(0.4, dtype=F64)
    alpha, sigma = schedule(t)
    a, s = spread(alpha, x0), spread(sigma, x0)
    estimate = Estimate(x0, a * x0 + s * z, alpha, sigma)
    assert torch.allclose(estimate.noise, z, atol=1e-10)
    assert torch.allclose(estimate.score, -z / s, atol=1e-9)
    assert torch.allclose(estimate.velocity, z - x0, atol=1e-10)
    assert torch.allclose((estimate.x_t + s**2 * estimate.score) / a, x0, atol=1e-10)
    other = estimate.with_x0(0 * x0)
    assert torch.equal(other.x_t, estimate.x_t) and torch.allclose(other.noise, estimate.x_t / s)


def test_numbers_per_item_broadcast_over_items_of_any_shape():
    for shape in ((4,), (4, 3), (4, 1, 2, 2)):
        like = torch.ones(shape)
        value = torch.arange(4.0, dtype=F64)
        got = spread(value, like) * like
        assert got.dtype == torch.float32
        assert got.reshape(4, -1)[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0]
        assert float((spread(torch.tensor(2.0), like) * like).mean()) == 2.0


def test_a_data_set_gives_batches_in_minus_one_to_one():
    x = torch.tensor([[0, 255], [51, 204], [255, 0]], dtype=torch.uint8)[:, None, None]
    labels = {"label": torch.tensor([2, 0, 1])}
    data = Dataset(Spec("tiny", (1, 1, 2)), x, labels, ("a.png", "b.png", "c.png"))
    batch = data.batch(torch.tensor([2, 1]))
    want = torch.tensor([[1.0, -1.0], [-0.6, 0.6]])
    assert torch.allclose(batch.x.flatten(1), want, atol=1e-6)
    assert batch.cond["label"].tolist() == [1, 0] and len(data) == 3
    part = data.take(torch.tensor([1]))
    assert part.names == ("b.png",) and part[0]["name"] == "b.png"
    assert int(part[0]["label"]) == 0 and part.spec is data.spec
