"""Factors read back from pictures whose factors are known."""

from __future__ import annotations

import pytest
import torch

from steerable.core.errors import UserError
from steerable.datasets.shapes import shapes
from steerable.metrics.factors import Factors

MIDDLE, REACH = torch.tensor([0.375, 0, 0, 0.35]), torch.tensor([0.375, 0.1, 0.1, 0.07])


@pytest.mark.parametrize("size", [16, 32])
def test_known_factors_are_recovered(size):
    """Within 0.001 of a turn, a quarter of a pixel of place and 0.4 pixels of scale."""
    data = shapes(size=size, count=1000, attributes=True).train
    error = (Factors.recovered(data.x) - (data.cond["attributes"] * REACH + MIDDLE)).abs()
    assert error[:, 0].max() < 0.001
    assert error[:, 1:3].max() * size < 0.25
    assert error[:, 3].max() * size < 0.4
    noise = 8 * torch.randn(data.x.shape, generator=torch.Generator().manual_seed(0))
    noisy = (data.x + noise).clamp(0, 255).to(torch.uint8)
    again = (Factors.recovered(noisy) - Factors.recovered(data.x)).abs()
    assert again[:, 0].max() < 0.01 and again[:, 1:].max() * size < 0.15


def test_means_and_spreads_are_those_of_the_law_by_class():
    data = shapes(size=16, count=5000).train
    metric = Factors(10)
    metric.update(data.x, data.cond["label"])
    found = metric.value()
    assert (found["n"], found["blank"]) == (4000, 0)
    for row in found["per_class"]:
        assert row["n"] == 400
        for i, name in enumerate(("hue", "x", "y", "scale")):
            part = row[name]
            assert part["mean"] == pytest.approx(float(MIDDLE[i]), abs=4.5 * part["mean_error"])
            wanted = float(REACH[i]) / 3**0.5
            assert part["std"] == pytest.approx(wanted, abs=4.5 * part["std_error"] + 0.02 * wanted)


def test_the_sums_are_exact_and_merge():
    data = shapes(size=16, count=300).train
    label = data.cond["label"]
    whole, one, two = Factors(10), Factors(10), Factors(10)
    whole.update(data.x, label)
    one.update(data.x[:77], label[:77])
    two.update(data.x[77:], label[77:])
    one.merge(two)
    rows = Factors.recovered(data.x)[label == 3]
    merged, exact = one.value()["per_class"][3], whole.value()["per_class"][3]
    for i, name in enumerate(("hue", "x", "y", "scale")):
        assert exact[name]["mean"] == pytest.approx(float(rows[:, i].mean()), rel=1e-9, abs=1e-12)
        assert exact[name]["std"] == pytest.approx(float(rows[:, i].std()), rel=1e-6)
        assert merged[name]["std"] == pytest.approx(exact[name]["std"], rel=1e-6)


def test_prototypes_have_no_spread_and_blanks_are_counted():
    data = shapes(size=16, count=100).train
    metric = Factors(10)
    label = torch.arange(10)
    firsts = torch.stack([data.x[data.cond["label"] == k][0] for k in range(10)])
    for _ in range(20):
        metric.update(firsts, label)
    for row in metric.value()["per_class"]:
        assert max(row[name]["std"] for name in ("hue", "x", "y", "scale")) < 1e-6
    metric.update(torch.zeros(3, 3, 16, 16, dtype=torch.uint8), torch.tensor([0, 0, 5]))
    found = metric.value()
    assert (found["n"], found["blank"], found["per_class"][0]["blank"]) == (200, 3, 2)
    empty = Factors(2)
    empty.update(torch.zeros(3, 3, 16, 16, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(UserError, match="none with anything"):
        empty.value()


def test_the_seam_of_the_hue_lies_between_violet_and_red():
    x = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    x[0, 0, 4:9, 4:9], x[0, 2, 4:9, 4:9] = 255, 30  # red with a breath of blue
    x[1, 2, 4:9, 4:9], x[1, 0, 4:9, 4:9] = 255, 150
    hue = Factors.recovered(x)[:, 0]
    assert hue[0] == pytest.approx(-30 / 255 / 6) and hue[1] == pytest.approx((4 + 150 / 255) / 6)
